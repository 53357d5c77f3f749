"""The whole job in under a minute, with real packets in throw-away network namespaces.

A "pod" looks up a "C2" by DNS, opens TCP to it and beacons. Then the pod is deleted, its veth with it; only then does
a Falco alert arrive over HTTP. What comes out is the incident: packets from before the alert, of a pod that is gone.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tripshark.errors import Permanent, Transient
from tripshark.programs.supervisor import die_with_parent

POD_IP, DNS_IP, C2_IP = "10.77.1.23", "10.77.1.53", "203.0.113.66"
C2_NAME, C2_PORT = "c2.evil.example", 4444
NAMESPACE, POD_NAME = "payments", "checkout-7d9f"
INSIDE = "IN_DEMO_OF_TRIPSHARK"  # set when the demo runs again inside a user namespace; no setting

# What runs in the pod: a look-up, a connection, beacons. Prints the client port and the time of the connect.
_BEACON = f"""
import socket, struct, time
q = struct.pack("!6H", 0x7A5A, 0x0100, 1, 0, 0, 0)
for label in "{C2_NAME}".split("."):
    q += bytes([len(label)]) + label.encode()
q += struct.pack("!BHH", 0, 1, 1)
u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); u.settimeout(5)
u.sendto(q, ("{DNS_IP}", 53)); answer = u.recv(512); address = socket.inet_ntoa(answer[-4:])
s = socket.create_connection((address, {C2_PORT}), timeout=5)
print(s.getsockname()[1], time.time_ns(), flush=True)
for n in range(3):
    s.sendall(b"BEACON checkout-7d9f %d\\n" % n); s.recv(64); time.sleep(0.1)
s.close()
"""

# What runs beyond: a name server with one answer, and the C2.
_FAR_END = f"""
import selectors, socket, struct
u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); u.bind(("{DNS_IP}", 53))
l = socket.create_server(("{C2_IP}", {C2_PORT}))
sel = selectors.DefaultSelector()
for s in (u, l): sel.register(s, selectors.EVENT_READ)
print("up", flush=True)
while True:
    for key, _ in sel.select():
        if key.fileobj is u:
            q, who = u.recvfrom(512)
            a = q[:2] + struct.pack("!5H", 0x8180, 1, 1, 0, 0) + q[12:]
            u.sendto(a + struct.pack("!HHHIH", 0xC00C, 1, 1, 60, 4) + socket.inet_aton("{C2_IP}"), who)
        elif key.fileobj is l:
            c, _ = l.accept(); sel.register(c, selectors.EVENT_READ)
        else:
            data = key.fileobj.recv(512)
            if data: key.fileobj.sendall(b"SLEEP 100\\n")
            else: sel.unregister(key.fileobj); key.fileobj.close()
"""


@dataclass(frozen=True, slots=True)
class Names:
    """The two namespaces of this demo; another demo beside it has others."""

    pod: str
    net: str

    @classmethod
    def fresh(cls) -> Names:
        mark = secrets.token_hex(3)
        return cls(f"ts-demo-{mark}-pod", f"ts-demo-{mark}-net")


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What the demo showed."""

    incident: str
    folder: str
    summary: str
    ledger: str
    packets: int
    seconds_before_alert: float
    pod_deleted_before_alert: bool
    alert_frame: int  # of the alert's row in the packet list
    rows: tuple[str, ...]  # the packet list as tshark shows it, names resolved
    data: str


def needs() -> str | None:
    """What is missing on this machine, None when the demo can run here as it is."""
    missing = [tool for tool in ("ip", "tshark") if shutil.which(tool) is None]
    if missing:
        packages = {"ip": "iproute2", "tshark": "tshark"}
        names = " ".join(packages[tool] for tool in missing)
        return f"please install {names}: apt-get install --no-install-recommends {names}"
    return None


def enter_user_namespace(argv: list[str]) -> str:
    """As an ordinary user: run again as root of a user namespace of our own. Returns only when that cannot be had."""
    if os.environ.get(INSIDE):
        return "inside a user namespace, and still not root"
    command = ["unshare", "--user", "--map-root-user", "--net", "--mount", "--kill-child"]
    probe = subprocess.run(  # noqa: S603 (a fixed list)
        [*command, "true"], capture_output=True, text=True, check=False
    )
    if probe.returncode != 0:
        return (
            "an ordinary user needs unprivileged user namespaces for this demo, and this machine "
            f"does not allow them ({probe.stderr.strip()}); run it as root, or allow them with: "
            "sysctl kernel.unprivileged_userns_clone=1 (Debian), "
            "sysctl kernel.apparmor_restrict_unprivileged_userns=0 (Ubuntu 23.10 and later)"
        )
    os.environ[INSIDE] = "1"
    return os.execvp(command[0], [*command, *argv])  # noqa: S606 (no shell is meant)


def prepare_inside() -> None:
    """Inside the user namespace: a /run of our own, for `ip netns`, and loopback up."""
    if not os.environ.get(INSIDE):
        return
    _command("mount", "-t", "tmpfs", "tmpfs", "/run")
    Path("/run/netns").mkdir()
    _command("ip", "link", "set", "lo", "up")


def run(say: Callable[[str], None], *, keep: bool) -> Outcome:
    """Raises `Permanent` or `Transient` with what stood in the way; everything it made is removed again.

    Ctrl-C, SIGTERM and SIGHUP end it early, as cleanly: nothing stays behind, not even its folder.
    """
    names = Names.fresh()
    base = Path(tempfile.mkdtemp(prefix="tripshark-demo-"))
    base.chmod(0o755)
    with _interruptible():
        try:
            with contextlib.ExitStack() as cleaning:
                cleaning.callback(_undisturbed)
                outcome = _run_in(base, names, say, cleaning)
        except BaseException as problem:
            if isinstance(problem, Permanent | Transient):
                _move_log(base, problem)
            shutil.rmtree(base, ignore_errors=True)
            raise
    if not keep:
        for name in ("journal", "drafts", "run"):
            shutil.rmtree(base / "data" / name, ignore_errors=True)
    return outcome


def _run_in(
    base: Path, names: Names, say: Callable[[str], None], cleaning: contextlib.ExitStack
) -> Outcome:
    cleaning.callback(_remove_namespaces, names)
    service, url = _start_tripshark(base, names, cleaning)
    say("Tripshark runs: every network namespace of the demo is being recorded")
    _build_network(names, cleaning)
    _wait(lambda: _is_recorded(url, names), "the recorder to see the pod")
    say(f"a pod has started: {NAMESPACE}/{POD_NAME} ({POD_IP})")
    port, connected_ns = _beacon(names)
    say(f"it looked up {C2_NAME}, connected to {C2_IP}:{C2_PORT} and beaconed three times")
    _command("ip", "netns", "del", names.pod)
    _wait(lambda: not _veth_alive(names), "the pod's veth to vanish")
    say("the pod is gone: namespace deleted, veth vanished")
    gone = not _exists(names.pod)
    accepted = _post(url, _alert(port, connected_ns))
    say(f"only now Falco's alert arrives over HTTP: {accepted['alert']}")
    incident = _wait(lambda: _finished(url), "the incident to be sealed", seconds=40)
    say("the evidence is sealed and read")
    outcome = _outcome(incident, base, connected_ns, pod_gone=gone)
    _stop(service)
    return outcome


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """SIGTERM and SIGHUP end us as Ctrl-C does: through every `finally`."""

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, interrupt) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _undisturbed() -> None:
    """The first thing of a clean-up: a second Ctrl-C must not leave half of it undone."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


def _move_log(base: Path, problem: Permanent | Transient) -> None:
    """The service's last words go into the hint, since its folder goes."""
    with contextlib.suppress(OSError):
        words = (base / "tripshark.log").read_text(encoding="utf-8", errors="replace").strip()
        if words and words[-100:] not in problem.hint:
            problem.hint = f"{problem.hint}\n{words[-800:]}".strip()


def _start_tripshark(
    base: Path, names: Names, cleaning: contextlib.ExitStack
) -> tuple[subprocess.Popen[str], str]:
    config = base / "tripshark.yaml"
    config.write_text(
        json.dumps(  # JSON is YAML
            {
                "listen": "127.0.0.1:0",
                "data": str(base / "data"),
                "recorder": {"host": False, "include": [names.pod, names.net]},
                "capture": {"after": "2s"},
                "targets": {
                    "static": [
                        {
                            "netns": names.pod,
                            "namespace": NAMESPACE,
                            "pod": POD_NAME,
                            "labels": {"app": "checkout", "tier": "payments"},
                            "owner": "Deployment/checkout",
                        }
                    ]
                },
            }
        ),
        encoding="utf-8",
    )
    log = (base / "tripshark.log").open("w", encoding="utf-8")
    cleaning.callback(log.close)
    process = subprocess.Popen(  # noqa: S603 (our own program)
        [sys.executable, "-m", "tripshark", "run", "--config", str(config), "--json"],
        stdout=subprocess.PIPE,
        stderr=log,
        text=True,
        start_new_session=True,  # Ctrl-C is for us: we end it when the rest is cleaned up
        preexec_fn=die_with_parent,
    )
    cleaning.callback(_stop, process)
    assert process.stdout is not None  # noqa: S101 (a pipe was asked for)
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if select.select([process.stdout], [], [], 0.2)[0]:
            line = process.stdout.readline()
            if not line:
                break
            said = json.loads(line)
            if said.get("program") == "responder" and said.get("event") == "ready":
                return process, str(said["url"])
    raise Permanent("Tripshark did not start", hint="`tripshark doctor` may tell why")


def _stop(process: subprocess.Popen[str]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(25)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _build_network(names: Names, cleaning: contextlib.ExitStack) -> None:
    """The far end first; the pod last, so that its whole life is recorded."""
    pod, net = names.pod, names.net
    _command("ip", "netns", "add", net)
    _command("ip", "netns", "add", pod)
    veth = ("eth0", "type", "veth", "peer", "name", "pod0", "netns", net)
    _command("ip", "-n", pod, "link", "add", *veth)
    _command("ip", "-n", net, "link", "set", "lo", "up")
    for address in (f"{DNS_IP}/24", f"{C2_IP}/24"):
        _command("ip", "-n", net, "addr", "add", address, "dev", "pod0")
    _command("ip", "-n", net, "link", "set", "pod0", "up")
    _command("ip", "-n", pod, "link", "set", "lo", "up")
    _command("ip", "-n", pod, "addr", "add", f"{POD_IP}/24", "dev", "eth0")
    _command("ip", "-n", pod, "link", "set", "eth0", "up")
    _command("ip", "-n", pod, "route", "add", "default", "via", DNS_IP)
    far_end = subprocess.Popen(  # noqa: S603 (a fixed program)
        ["ip", "netns", "exec", net, sys.executable, "-I", "-c", _FAR_END],  # noqa: S607
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=die_with_parent,
    )
    cleaning.callback(_stop, far_end)
    assert far_end.stdout is not None  # noqa: S101
    if far_end.stdout.readline().strip() != "up":
        raise Permanent("the demo's far end did not start", where=f"namespace {net}")


def _beacon(names: Names) -> tuple[int, int]:
    done = subprocess.run(  # noqa: S603 (a fixed program)
        ["ip", "netns", "exec", names.pod, sys.executable, "-I", "-c", _BEACON],  # noqa: S607
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    if done.returncode != 0:
        raise Permanent("the demo's pod could not reach its C2", hint=done.stderr[-500:])
    port, at_ns = done.stdout.split()
    return int(port), int(at_ns)


def _alert(port: int, at_ns: int) -> Mapping[str, object]:
    """As Falco prints it: `lport` and `rport` swapped, the connection's name trustworthy."""
    seconds, rest = divmod(at_ns, 1_000_000_000)
    stamp = f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{rest:09d}Z"
    name = f"{POD_IP}:{port}->{C2_IP}:{C2_PORT}"
    return {
        "hostname": socket.gethostname(),
        "output": f"{stamp}: Critical Outbound connection to C2 server | connection={name}",
        "priority": "Critical",
        "rule": "Outbound Connection to C2 Servers",
        "source": "syscall",
        "tags": ["TA0011", "container", "mitre_command_and_control", "network"],
        "time": stamp,
        "output_fields": {
            "container.id": "4bb3d6c0a1f2",
            "evt.time": at_ns,
            "evt.type": "connect",
            "fd.l4proto": "tcp",
            "fd.lport": C2_PORT,
            "fd.name": name,
            "fd.rport": port,
            "fd.sip": C2_IP,
            "k8s.ns.name": NAMESPACE,
            "k8s.pod.name": POD_NAME,
            "proc.cmdline": f"nc {C2_NAME} {C2_PORT}",
            "proc.exepath": "/usr/bin/nc",
            "proc.name": "nc",
            "user.name": "root",
        },
    }


def _outcome(incident: Mapping[str, object], base: Path, t0_ns: int, *, pod_gone: bool) -> Outcome:
    folder = Path(str(incident["folder"]))
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    rows = tuple(_packet_list(folder / "evidence.pcapng"))
    first_ns = manifest["details"]["when"]["first_packet_ns"]
    return Outcome(
        incident=str(incident["id"]),
        folder=str(folder),
        summary=str(incident["summary"]),
        ledger=str(manifest["ledger"]["word"]),
        packets=int(manifest["details"]["what"]["packets"]),
        seconds_before_alert=round((t0_ns - first_ns) / 1e9, 6) if first_ns else 0.0,
        pod_deleted_before_alert=pod_gone,
        alert_frame=next((n for n, row in enumerate(rows, 1) if "FALCO" in row), 0),
        rows=rows,
        data=str(base / "data"),
    )


def _packet_list(path: Path) -> Iterator[str]:
    """Stock Wireshark's packet list, with the names that stand in the file."""
    done = subprocess.run(  # noqa: S603 (a fixed program on a file of ours)
        ["tshark", "-N", "n", "-r", str(path)],  # noqa: S607
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    yield from done.stdout.splitlines()


def _finished(url: str) -> Mapping[str, object] | None:
    """The incident, once sealed and read by the analyst (or once it is clear that it will not be)."""
    for incident in _get(url, "/v1/incidents")["incidents"]:
        if incident["state"] == "failed":
            raise Permanent("the capture failed", hint=str(incident["problem"]))
        if incident["state"] in ("sealed", "empty") and (
            incident["summary"] or incident["problem"]
        ):
            return dict(incident)
    return None


def _is_recorded(url: str, names: Names) -> bool:
    """The pod's ring is open and its address is known."""
    return any(
        target["name"] == f"netns:{names.pod}" and POD_IP in str(target["addresses"])
        for target in _get(url, "/v1/targets")["targets"]
    )


# no proxy of the environment: it all happens on loopback
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def _post(url: str, event: Mapping[str, object]) -> Mapping[str, object]:
    request = urllib.request.Request(  # noqa: S310 (http on loopback)
        f"{url}/", data=json.dumps(event).encode(), headers={"Content-Type": "application/json"}
    )
    with _DIRECT.open(request, timeout=10) as answer:
        return dict(json.load(answer))


def _get(url: str, path: str) -> dict[str, list[dict[str, object]]]:
    with _DIRECT.open(f"{url}{path}", timeout=10) as answer:
        return dict(json.load(answer))


def _wait(condition: Callable[[], object], what: str, *, seconds: float = 15) -> dict[str, object]:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with contextlib.suppress(urllib.error.URLError, OSError):
            found = condition()
            if found:
                return found if isinstance(found, dict) else {}
        time.sleep(0.02)
    raise Transient(f"waited {seconds:.0f} s in vain for {what}")


def _veth_alive(names: Names) -> bool:
    return _quiet("ip", "-n", names.net, "link", "show", "pod0")


def _exists(namespace: str) -> bool:
    return (Path("/run/netns") / namespace).exists()


def _remove_namespaces(names: Names) -> None:
    for name in (names.pod, names.net):
        if _exists(name):
            _quiet("ip", "netns", "del", name)


def _quiet(*argv: str) -> bool:
    done = subprocess.run(argv, capture_output=True, check=False)  # noqa: S603
    return done.returncode == 0


def _command(*argv: str) -> None:
    done = subprocess.run(argv, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode != 0:
        raise Permanent(
            f"{' '.join(argv)}: {done.stderr.strip()}",
            hint="the demo needs root, or a user namespace with network namespaces",
        )
