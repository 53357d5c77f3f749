"""kubectl tripshark: asks by a Capture, waits, lists, and fetches packets that are what was sealed."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml

from tests.cluster.control import Answer, Plane
from tests.deploy.pods import ROOT
from tests.e2e.machine import wait_for

PLUGIN = ROOT / "deploy/kubectl/kubectl-tripshark"
BASE = "/apis/tripshark.dev/v1alpha1/namespaces"
PACKETS = b"\n\r\r\x0a" + bytes(range(256)) * 1000


def plugin(
    *argv: str, environment: Mapping[str, str] | None = None, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(PLUGIN), *argv],
        capture_output=True, text=True, check=False, timeout=90, cwd=cwd,
        env={**os.environ, **(environment or {})},
    )  # fmt: skip


# -------------------------------------------------------------------------------------------- a real server


@pytest.fixture
def shop(real_api: Plane) -> Iterator[str]:
    done = subprocess.run(
        [sys.executable, str(ROOT / "deploy/crds/generate"), "--old"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    real_api.apply(done.stdout)

    def served() -> bool:
        try:
            return bool(real_api.call("GET", "/apis/tripshark.dev/v1alpha1")["resources"])
        except Answer:  # not yet
            return False

    wait_for(served, "the custom resources")
    with real_api.namespace() as name:
        yield name


def answer(plane: Plane, namespace: str, status: Mapping[str, object]) -> threading.Thread:
    """Plays the node: the first Capture of the namespace gets this status."""

    def work() -> None:
        def first() -> Mapping[str, object] | None:
            items = plane.call("GET", f"{BASE}/{namespace}/captures")["items"]
            return items[0] if items else None

        found = wait_for(first, "a Capture", 60)
        assert found
        name = found["metadata"]["name"]  # type: ignore[index]
        path = f"{BASE}/{namespace}/captures/{name}/status"
        plane.call("PATCH", path, {"status": status}, kind="application/merge-patch+json")

    thread = threading.Thread(target=work)
    thread.start()
    return thread


SEALED = {
    "phase": "Complete",
    "parts": [
        {"node": "node-1", "uid": "u1", "target": "shop/checkout", "incident": "20261124t1-a1",
         "state": "Sealed", "word": "complete", "packets": 42},
    ],
}  # fmt: skip


def test_a_capture_is_asked_for_and_waited_for(real_api: Plane, shop: str) -> None:
    """The resource holds what was said, nothing else; the answer names node, packets and incident."""
    node = answer(real_api, shop, SEALED)
    done = plugin(
        "capture", f"{shop}/deployment/checkout", "--before", "2m", "--peer", "203.0.113.66",
        "--kubeconfig", str(real_api.kubeconfig), "--poll", "0.1", "--timeout", "60",
    )  # fmt: skip
    node.join()
    assert done.returncode == 0, done.stderr
    assert "42 packets, incident 20261124t1-a1" in done.stdout
    (made,) = real_api.call("GET", f"{BASE}/{shop}/captures")["items"]
    assert made["spec"] == {
        "target": {"workload": {"kind": "Deployment", "name": "checkout"}},
        "before": "2m",
        "peer": "203.0.113.66",
    }
    listing = plugin("list", "-n", shop, "--kubeconfig", str(real_api.kubeconfig))
    assert made["metadata"]["name"] in listing.stdout
    assert "Complete" in listing.stdout


def test_a_refusal_is_exit_code_three(real_api: Plane, shop: str) -> None:
    """Refused, with the reason, and nothing of it steers the terminal."""
    refused = {
        "type": "Accepted", "status": "False", "reason": "No", "message": "no such pod \x1b[31m",
        "lastTransitionTime": "2026-11-24T10:00:00Z",
    }  # fmt: skip
    node = answer(real_api, shop, {"phase": "Refused", "conditions": [refused]})
    done = plugin(
        "capture", f"{shop}/gone", "--kubeconfig", str(real_api.kubeconfig), "--poll", "0.1"
    )
    node.join()
    assert done.returncode == 3, done.stdout + done.stderr
    assert "no such pod \\x1b[31m" in done.stdout
    assert "\x1b" not in done.stdout


def test_who_may_not_is_told_so_by_the_server(real_api: Plane, shop: str) -> None:
    """Rights are the server's: somebody without them gets its words, and no resource is made."""
    nobody = real_api.user("nobody")
    done = plugin("capture", f"{shop}/checkout", "--kubeconfig", str(nobody))
    assert done.returncode == 1
    assert "forbidden" in done.stderr.lower()
    assert not real_api.call("GET", f"{BASE}/{shop}/captures")["items"]


# ------------------------------------------------------------------------------------- what needs no server


@pytest.mark.parametrize(
    "target",
    ["a b", "shop/x;id", "shop/$(id)", "../..", "shop/secret/x", "shop/deployment/-x", "-x/y"],
)
def test_a_name_that_is_none_goes_nowhere(target: str, tmp_path: Path) -> None:
    """Refused before kubectl is called at all."""
    called = tmp_path / "called"
    fake = script(tmp_path, f"import pathlib; pathlib.Path({str(called)!r}).touch()")
    done = plugin("capture", "--", target, environment={"KUBECTL": fake})
    assert done.returncode == 2
    assert not called.exists()


def script(folder: Path, code: str) -> str:
    path = folder / "kubectl"
    path.write_text(f"#!{sys.executable}\nimport sys, json, time\n{code}\n")
    path.chmod(0o755)
    return str(path)


class Node(BaseHTTPRequestHandler):
    """Answers as a responder would."""

    sealed = hashlib.sha256(PACKETS).hexdigest()

    def do_GET(self) -> None:
        if self.headers.get("Authorization") != "Bearer the-token":
            body, code = b'{"error": {"message": "who are you?", "hint": "a token"}}', 401
        elif self.path.endswith("/manifest.json"):
            body, code = (
                json.dumps(
                    {
                        "files": [{"name": "evidence.pcapng", "sha256": self.sealed}],
                        "why": hashlib.sha256(PACKETS).hexdigest(),  # an alert can say any hash
                    }
                ).encode(),
                200,
            )
        elif self.path == "/v1/incidents/20261124t1-a1/evidence.pcapng":
            body, code = PACKETS, 200
        else:
            body, code = b"{}", 404
        self.send_response(code)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[dict[str, str]]:
    """A kubectl that knows one node and one Capture, and whose port-forward leads to a server of this test."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Node)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    labels = {"app.kubernetes.io/component": "node"}
    pods = {"items": [{
        "metadata": {"name": "tripshark-abcde", "labels": labels},
        "spec": {"nodeName": "node-1"}, "status": {"phase": "Running"},
    }]}  # fmt: skip
    told = {"pods": pods, "captures.tripshark.dev": {"status": SEALED}, "view": {"users": []}}
    fake = script(tmp_path, f"""
told = json.loads({json.dumps(told)!r})
if "port-forward" in sys.argv:
    assert "pod/tripshark-abcde" in sys.argv and "--address=127.0.0.1" in sys.argv
    print("Forwarding from 127.0.0.1:{server.server_port} -> 2803", flush=True)
    time.sleep(60)
for name, value in told.items():
    if name in sys.argv:
        print(json.dumps(value))
        sys.exit(0)
sys.exit("not found")
""")  # fmt: skip
    yield {"KUBECTL": fake, "TRIPSHARK_TOKEN": "the-token"}
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize("asked", [["shop/cli-x7k2p"], ["20261124t1-a1", "--node", "node-1"]])
def test_packets_are_fetched_and_checked(
    cluster: dict[str, str], tmp_path: Path, asked: list[str]
) -> None:
    """The file holds exactly what the node gave, under its name only when its hash is the manifest's."""
    done = plugin("get", *asked, "-o", "x.pcapng", environment=cluster, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "x.pcapng").read_bytes() == PACKETS
    again = plugin("get", *asked, "-o", "x.pcapng", environment=cluster, cwd=tmp_path)
    assert again.returncode == 2


def test_packets_that_are_not_what_was_sealed_are_refused(
    cluster: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another hash in the manifest: exit code 1, and no file under the real name."""
    monkeypatch.setattr(Node, "sealed", "0" * 64)
    done = plugin("get", "shop/cli-x7k2p", "-o", "x.pcapng", environment=cluster, cwd=tmp_path)
    assert done.returncode == 1
    assert "not what the manifest says" in done.stderr
    assert not (tmp_path / "x.pcapng").exists()


def test_without_a_token_the_node_says_no(cluster: dict[str, str], tmp_path: Path) -> None:
    """Its words are passed on; exit code 3."""
    done = plugin(
        "get", "shop/cli-x7k2p", environment={**cluster, "TRIPSHARK_TOKEN": "wrong"}, cwd=tmp_path
    )
    assert done.returncode == 3
    assert "who are you?" in done.stderr


def test_the_krew_manifest_names_what_is_there() -> None:
    """Files, program and version are those of this checkout."""
    told = yaml.safe_load((ROOT / "deploy/kubectl/tripshark.yaml").read_text())
    assert told["metadata"]["name"] == "tripshark"
    (platform,) = told["spec"]["platforms"]
    assert {each["from"] for each in platform["files"]} == {PLUGIN.name, "LICENSE"}
    assert platform["bin"] == PLUGIN.name
