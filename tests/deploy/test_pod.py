"""The DaemonSet's containers, run as the manifest says, do the whole job: from an alert to sealed evidence with findings."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.containers.runtime import Containerd, start_containerd, why_not
from tests.deploy.pods import ROOT, Document, Pod, documents
from tests.e2e.conftest import requires_root
from tests.e2e.machine import Network, falco_event, run, wait_for
from tripshark.recorder.capabilities import KEPT

pytestmark = [
    pytest.mark.root,
    requires_root,
    pytest.mark.skipif(shutil.which("runc") is None, reason="needs runc"),
    pytest.mark.timeout(180),
]

# what containerd gives to everybody who does not drop it
UNASKED = {
    *("CHOWN", "DAC_OVERRIDE", "FSETID", "FOWNER", "MKNOD", "NET_RAW", "SETGID", "SETUID"),
    *("SETFCAP", "SETPCAP", "NET_BIND_SERVICE", "SYS_CHROOT", "KILL", "AUDIT_WRITE"),
}
SECRETS = {"token": "a-token-for-tests-0123456789", "path": "a-secret-path-0123456789"}
RECORDING = sum(1 << number for number in KEPT)
LISTENER = """
import socket, sys
with socket.create_server(("", 4444)) as listening:
    print("listening", flush=True)
    while True:
        with listening.accept()[0] as there:
            there.sendall(there.recv(100))
"""


ASK = """
import http.client, json, sys
asked = json.loads(sys.argv[1])
headers = {"Content-Type": "application/json"}
if asked["token"]:
    headers["Authorization"] = "Bearer " + asked["token"]
there = http.client.HTTPConnection("127.0.0.1", 2803, timeout=20)
body = None if asked["body"] is None else json.dumps(asked["body"])
there.request("POST" if body else "GET", asked["path"], body, headers)
print(there.getresponse().read().decode())
"""


@dataclass(frozen=True)
class Running:
    pod: Pod
    network: Network
    workload: str
    incident: Mapping[str, object]


def ask(
    pod: Pod, path: str, body: object = None, token: str = SECRETS["token"]
) -> dict[str, object]:
    """One request from within the pod's network namespace, where 127.0.0.1 is the responder."""
    return dict(json.loads(asked(pod, path, body, token)))


def asked(pod: Pod, path: str, body: object, token: str) -> str:
    request = json.dumps({"path": path, "body": body, "token": token})
    return run("ip", "netns", "exec", pod.netns, sys.executable, "-c", ASK, request)


def default_profiles(
    containerd: Containerd, capabilities: Mapping[str, list[str]]
) -> dict[str, Document]:
    """containerd's own RuntimeDefault, by container, for its capabilities."""
    found = {}
    ctr = ["ctr", "--address", containerd.socket, "containers"]
    for name, held in capabilities.items():
        argv = [*ctr, "create", "--seccomp", "--rootfs"]
        argv += [word for each in UNASKED - {*held} for word in ("--cap-drop", f"CAP_{each}")]
        argv += [word for each in held for word in ("--cap-add", f"CAP_{each}")]
        run(*argv, "/usr", name, "true")
        found[name] = json.loads(run(*ctr, "info", "--spec", name))["linux"]["seccomp"]
        run(*ctr, "delete", name)
    return found


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    network = Network(f"dp{os.getpid():x}")
    with (
        tempfile.TemporaryDirectory(prefix="ts-pod-", dir="/tmp") as base,
        nullcontext() if why_not() else start_containerd() as containerd,
    ):
        os.chmod(base, 0o755)
        pod = None
        try:
            own = network.namespace("own")
            workload = network.namespace("pod")
            peer = network.namespace("peer")
            network.veth(workload, peer)
            runtime = containerd.folder if containerd else Path(base)
            pod = Pod(
                documents((ROOT / "deploy/manifests/generic.yaml").read_text()),
                Path(base),
                netns=own,
                config={
                    "kubernetes": {"enabled": "off"},
                    "containers": {"enabled": "on" if containerd else "off"},
                    "recorder": {"include": [workload], "per_target": "4MB"},
                    "rules": ["/etc/tripshark/rules.yaml"],
                    "targets": {
                        "static": [{"netns": workload, "namespace": "payments", "pod": "checkout"}]
                    },
                },
                secrets=SECRETS,
                files={"rules.yaml": "- rule: all\n  capture: {before: 2s, after: 100ms}\n"},
                runtime_directory=runtime,
            )
            names = ("own-data", "recorder", "analyst", "node")
            if containerd:
                asked = {each: pod.capabilities(each) for each in names}
                pod.seccomp = default_profiles(containerd, asked)
            assert pod.start("own-data").wait(30) == 0, pod.log("own-data").read_text()
            for name in names[1:]:
                pod.start(name)
            pod.wait_ready("recorder", "recorder")
            pod.wait_ready("analyst", "analyst")
            pod.wait_ready("node", "responder")
            yield Running(pod, network, workload, capture_one(pod, network, workload, peer))
        finally:
            if pod is not None:
                pod.close()
            network.close()


def capture_one(pod: Pod, network: Network, workload: str, peer: str) -> Mapping[str, object]:
    listening = network.python(peer, LISTENER)
    assert listening.stdout is not None
    assert listening.stdout.readline()

    def recorded() -> bool:
        told = ask(pod, "/v1/targets")["targets"]
        assert isinstance(told, list)
        return any(
            ring["live"] and ring["interface"] == "eth0"
            for target in told
            if target["name"] == f"netns:{workload}"
            for ring in target["rings"]
        )

    wait_for(recorded, "the workload is recorded", 60)
    speak = "import socket; s = socket.create_connection(('10.66.0.2', 4444)); s.sendall(b'hello'); s.recv(9)"
    speak += "; print(s.getsockname()[1])"
    port = run("ip", "netns", "exec", workload, "python3", "-c", speak).strip()
    event = falco_event(
        namespace="payments",
        pod="checkout",
        time_ns=time.time_ns(),
        connection=f"10.66.0.1:{port}->10.66.0.2:4444",
    )
    answer = ask(pod, f"/v1/alerts/{SECRETS['path']}", event, token="")  # Falco sends no header
    assert "alert" in answer, answer

    def sealed() -> Mapping[str, object] | None:
        told = ask(pod, "/v1/incidents")["incidents"]
        assert isinstance(told, list)
        done = [each for each in told if each["state"] not in ("open", "sealing")]
        return done[0] if done else None

    return dict(wait_for(sealed, "sealed evidence", 60) or {})


def folder_of(running: Running) -> Path:
    """Where the node's own data folder holds the incident."""
    inside = Path(str(running.incident["folder"])).relative_to("/var/lib/tripshark")
    return running.pod.volumes["data"] / inside


def test_an_alert_becomes_sealed_evidence(running: Running) -> None:
    """Three containers that share no user: the packets from before the alert are on the node's disk, intact."""
    assert running.incident["state"] == "sealed"
    assert running.incident["ledger"] in ("complete", "truncated")
    path = folder_of(running) / "evidence.pcapng"
    done = subprocess.run(
        ["tshark", "-r", str(path), "-Y", "tcp.port == 4444"], capture_output=True, check=True
    )
    assert done.stdout.count(b"\n") >= 3


def test_the_analyst_in_its_own_container_finds(running: Running) -> None:
    """The findings come from a container that has neither the data folder nor a token."""
    path = folder_of(running) / "findings.json"
    wait_for(path.exists, "the findings", 60)
    found = json.loads(path.read_text())
    assert found["tool"].startswith("TShark"), found
    assert {"landlock", "seccomp"} & {*found["sandbox"]}, found
    for name in ("recorder", "analyst"):
        mounted = {each["name"] for each in running.pod.container(name)["volumeMounts"]}
        assert not mounted & {"data", "token", "secret", "config", "tls"}


def test_the_recorder_holds_exactly_what_is_declared(running: Running) -> None:
    """The kernel's word on the running processes: the chart's capabilities, the recorder's list and no other."""
    ready = running.pod.wait_ready("recorder", "recorder")
    for pid in (ready["pid"], ready["worker"]):
        told = _status(int(pid))
        assert {name: int(told[name], 16) for name in ("CapPrm", "CapEff", "CapBnd")} == {
            "CapPrm": RECORDING,
            "CapEff": RECORDING,
            "CapBnd": RECORDING,
        }
        assert told["NoNewPrivs"] == "1"
        assert told["Uid"].split() == ["0"] * 4


@pytest.mark.parametrize(
    ("name", "program", "uid"), [("analyst", "analyst", 61804), ("node", "responder", 61803)]
)
def test_the_others_hold_nothing(running: Running, name: str, program: str, uid: int) -> None:
    """Ordinary users, an empty bounding set, no way to gain anything."""
    told = _status(int(running.pod.wait_ready(name, program)["pid"]))
    for each in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert int(told[each], 16) == 0
    assert told["NoNewPrivs"] == "1"
    assert told["Uid"].split() == [str(uid)] * 4


def test_the_default_seccomp_profile_lets_all_of_it_through(running: Running) -> None:
    """Entering namespaces, packet sockets, Landlock: with containerd's RuntimeDefault, where there is a containerd."""
    if running.pod.seccomp is None:
        pytest.skip("no containerd to take its default profile from")
    for name, program in (("recorder", "recorder"), ("analyst", "analyst"), ("node", "responder")):
        assert _status(int(running.pod.wait_ready(name, program)["pid"]))["Seccomp"] == "2"
    (entry,) = (
        each for each in running.pod.seccomp["recorder"]["syscalls"] if "setns" in each["names"]
    )
    assert "bpf" in entry["names"]
    assert all("setns" not in each["names"] for each in running.pod.seccomp["node"]["syscalls"])


def doctor(running: Running, name: str) -> dict[str, list[str]]:
    """What `tripshark doctor` says in a container: states by check."""
    done = running.pod.execute(
        name,
        *("doctor", "--json", "--config", "/etc/tripshark/tripshark.yaml"),
        environment={"KUBERNETES_SERVICE_HOST": "192.0.2.1"},
    )
    checks: dict[str, list[str]] = {}
    for each in json.loads(done.stdout)["checks"]:
        checks.setdefault(each["name"], []).append(each["state"])
    return checks


def test_the_doctor_in_the_recorders_container_is_content(running: Running) -> None:
    """It finds the capabilities, the host's pids, namespaces that arrive, and the runtime: with them, all is well."""
    found = doctor(running, "recorder")
    assert found["capabilities"] == found["namespaces"] == ["good"]
    if os.access("/proc/1/ns/net", os.R_OK):
        assert found["hostPID"] == ["good"]
    else:  # a machine whose first process is closed even to root outside of any container
        assert found["host"] == ["limited"]
    assert found["recorder"] == ["good"]
    assert "service" not in found
    if running.pod.seccomp is not None:
        assert found["container runtime"] == ["good"]
        assert "seccomp" not in found


def test_the_doctor_in_the_responders_container_is_content(running: Running) -> None:
    """It reaches the recorder and the service, and does not ask for what is the recorder's."""
    found = doctor(running, "node")
    assert found["service"] == found["recorder"] == found["disk"] == found["rules"] == ["good"]
    assert not {"capabilities", "hostPID", "privileges", "separation"} & {*found}


def test_the_scout_asks_the_runtime_from_its_container(running: Running) -> None:
    """uid 0 with four capabilities reaches containerd's socket through the folder that is mounted."""
    if running.pod.seccomp is None:
        pytest.skip("no containerd here")
    told = running.pod.wait_ready("recorder", "scout")
    assert "containerd" in json.dumps(told), told


@pytest.mark.parametrize("path", ["/v1/incidents", "/v1/targets"])
def test_without_a_credential_nobody_reads(running: Running, path: str) -> None:
    """The pod listens on all of its addresses: without the token nothing is shown."""
    assert ask(running.pod, path, token="")["error"]["code"] == "denied"  # type: ignore[index]


def test_without_a_credential_the_page_shows_nothing(running: Running) -> None:
    """It is an error page: no incident and no target is on it."""
    page = asked(running.pod, "/", None, token="")
    assert page.startswith("<!doctype html>")
    assert str(running.incident["id"]) not in page
    assert "payments" not in page
    assert str(running.incident["id"]) in asked(running.pod, "/", None, SECRETS["token"])


@pytest.mark.parametrize("path", ["/v1/alerts/another-secret-path-01", "/v1/alerts", "/"])
def test_without_the_secret_no_alert_gets_in(running: Running, path: str) -> None:
    """A wrong path, and none, are turned away."""
    answer = ask(running.pod, path, falco_event(), token="")
    assert answer["error"]["code"] == "denied"  # type: ignore[index]


def _status(pid: int) -> Mapping[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}
