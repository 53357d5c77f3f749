"""Commands about a running service: by hand and in scripts, with real packets."""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import time
import urllib.request
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.running import COMMAND, Done, clean, inside, on_terminal
from tests.e2e.conftest import requires_root
from tests.e2e.machine import Machine, Network, falco_event, tshark, wait_for

pytestmark = [pytest.mark.root, requires_root]

RULE = """\
- rule: Anything about the pod
  match: {rules: ["Outbound Connection to C2 Servers"]}
  capture: {scope: pod, before: 30s, after: 300ms}
"""
SENDER = """
import socket, time
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
while True:
    s.sendto(b"beacon", ("10.66.0.2", 4444)); time.sleep(0.02)
"""


class Service:
    """A running Tripshark with one pod that sends a packet every 20 ms, and one incident."""

    def __init__(self, machine: Machine, network: Network, pod: str) -> None:
        self.machine = machine
        self.network = network
        self.pod = pod

    def ask(self, name: str, *argv: str) -> Done:
        """In this process, which has everything loaded already; streams are kept apart all the same."""
        return inside(name, *argv, "--config", str(self.machine.config))

    def lines(self, name: str, *argv: str) -> list[dict[str, object]]:
        done = self.ask(name, *argv, "--json")
        assert done.code == 0, done.err
        return [json.loads(line) for line in done.out.splitlines()]

    def shown(self, columns: int, *argv: str) -> list[str]:
        said = on_terminal(columns, *argv, "--config", str(self.machine.config))
        return [re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", line) for line in said.splitlines()]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = Path("/tmp") / f"ts-cli-{time.monotonic_ns():x}"
    folder.mkdir(mode=0o755)
    network = Network(f"cl{os.getpid():x}")
    pod, far = network.namespace("pod"), network.namespace("far")
    network.veth(pod, far)
    (folder / "rules.yaml").write_text(RULE)
    machine = Machine(
        folder,
        recorder={"include": [pod]},
        rules=[str(folder / "rules.yaml")],
        bounds={"cooldown": "0s", "rate": {"burst": 100}},
        targets={"static": [{"netns": pod, "namespace": "payments", "pod": "checkout-7d9f"}]},
    )
    try:
        machine.start()
        machine.wait_recorded(pod)
        network.python(pod, SENDER)
        machine.post(falco_event(**{"proc.cmdline": "nc \x1b]0;title\x07 [red]x[/] \u202eevil"}))
        machine.wait_sealed()
        yield Service(machine, network, pod)
    finally:
        machine.stop()
        network.close()
        shutil.rmtree(folder)


@pytest.mark.parametrize("columns", [80, 120])
def test_lists_fit_the_terminal_and_ids_are_whole(service: Service, columns: int) -> None:
    """Incident ids can be copied at any width; no line is wider than the terminal."""
    ids = {str(each["id"]) for each in service.lines("incidents")}
    for argv in (("incidents",), ("targets",)):
        lines = service.shown(columns, *argv)
        assert max(map(len, lines)) <= columns
        assert "…" not in "".join(lines[:2])
    firsts = {line.partition(" ")[0] for line in service.shown(columns, "incidents")}
    assert ids <= firsts
    assert any("payments/checkout-7d9f" in line for line in service.shown(columns, "targets"))


def test_scripts_get_what_was_promised(service: Service) -> None:
    """Names of the promised keys; filters; one object the same as the API's."""
    (incident, *_) = service.lines("incidents", "--namespace", "payments", "--since", "1h")
    assert set(incident) >= {"id", "state", "ledger", "target", "alerts", "folder"}
    assert incident["target"] == "payments/checkout-7d9f"
    assert isinstance(incident["alerts"], int)
    assert incident == service.machine.get(f"/v1/incidents/{incident['id']}").get(
        "incident", incident
    )
    assert service.lines("incidents", "--namespace", "nobody") == []
    (target, *_) = service.lines("targets")
    assert float(str(target["history_seconds"])) > 0
    assert target["drops"] == 0
    whole = json.loads(service.ask("show", "last", "--json").out)
    assert whole["manifest"]["incident"] == whole["id"]


def test_hostile_alerts_are_shown_harmlessly(service: Service) -> None:
    """An alert's escapes, markup and directions do nothing to the terminal or the report."""
    first = service.lines("incidents", "--rule", "Anything about the pod")[-1]
    shown = "\n".join(service.shown(120, "show", str(first["id"])))
    assert "\x07" not in shown
    assert "\u202e" not in shown
    assert "alert    " in shown


def test_a_capture_by_hand_waits_filters_and_ends(service: Service) -> None:
    """Every option; what the filter excludes is not there; a refusal is exit 3, a bad filter exit 2."""
    done = service.ask(
        *("capture", "payments/checkout-7d9f", "--before", "1s", "--after", "200ms"),
        *("--scope", "peer", "--peer", "10.66.0.2:4444", "--filter", "udp"),
        *("--max-bytes", "1MB", "--wait", "--json"),
    )
    assert done.code == 0, done.err
    incident = json.loads(done.out)
    assert incident["state"] == "sealed"
    assert incident["packets"] > 10
    rows = tshark(f"{incident['folder']}/evidence.pcapng", "-Y", 'frame.protocols contains "ip"')
    assert rows
    assert all("10.66.0.2" in row for row in rows)
    assert service.ask("capture", "payments/nobody").code == 3
    assert service.ask("capture", f"netns:{service.pod}", "--scope", "workload").code == 3
    assert service.ask("capture", f"netns:{service.pod}", "--filter", "tcp prot").code == 2
    assert service.ask("capture", f"netns:{service.pod}", "--before", "soon").code == 2
    away = inside("capture", "host", "--listen", "127.0.0.1:9", "--data", "/nonexistent")
    assert away.code == 1
    assert "tripshark run" in away.err


def test_a_process_in_an_unnamed_namespace_can_be_captured(service: Service) -> None:
    """`pid:N` has its namespace recorded from then on."""
    hidden = subprocess.Popen(
        [
            "unshare",
            "--net",
            "sh",
            "-c",
            'ip link set lo up; while :; do ping -c1 127.0.0.1 >/dev/null 2>&1 || python3 -c \'import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", ("127.0.0.1", 9))\'; sleep 0.05; done',
        ],
        start_new_session=True,
    )
    try:
        wait_for(
            lambda: (
                Path(f"/proc/{hidden.pid}/ns/net").readlink()
                != Path("/proc/self/ns/net").readlink()
            ),
            "the namespace",
        )
        done = service.ask("capture", f"pid:{hidden.pid}", "--after", "1s", "--wait", "--json")
        assert done.code == 0, done.err
        assert json.loads(done.out)["packets"] > 0
        assert service.ask("capture", "pid:99999999").code == 3
    finally:
        os.killpg(hidden.pid, signal.SIGKILL)
        hidden.wait()


def test_evidence_is_handed_on_in_every_format(service: Service, tmp_path: Path) -> None:
    """Packets, report, other tools' formats; to a file, a folder or standard output; the export is noted in custody."""
    for format, read in (
        ("pcapng", lambda body: body[:4] == b"\x0a\x0d\x0d\x0a"),
        ("pcap", lambda body: body[:4] in (b"\x4d\x3c\xb2\xa1", b"\xd4\xc3\xb2\xa1")),
        ("zip", lambda body: zipfile.ZipFile(io.BytesIO(body)).testzip() is None),
        (
            "timeline",
            lambda body: all("datetime" in json.loads(each) for each in body.splitlines()),
        ),
        ("report", lambda body: body.startswith(b"<!doctype html>")),
        ("markdown", lambda body: body.startswith(b"# ")),
        ("stix", lambda body: json.loads(body)["type"] == "bundle"),
        ("misp", lambda body: "Event" in json.loads(body)),
        ("ecs", lambda body: all("@timestamp" in json.loads(each) for each in body.splitlines())),
        ("ocsf", lambda body: all("class_uid" in json.loads(each) for each in body.splitlines())),
        ("zeek-conn", lambda body: all("uid" in json.loads(each) for each in body.splitlines())),
    ):
        path = tmp_path / f"out.{format}"
        service.lines("export", "last", "--format", format, "-o", str(path))
        assert read(path.read_bytes()), format
    service.lines("export", "last", "--format", "zeek", "-o", str(tmp_path / "logs"))
    assert {each.name for each in (tmp_path / "logs").iterdir()} == {
        f"{log}.log" for log in ("conn", "dns", "ssl", "http")
    }
    assert service.ask("export", "last", "--format", "zeek", "-o", "-").code == 2
    piped = subprocess.run(
        [*COMMAND, "export", "last", "-o", "-", "--config", str(service.machine.config)],
        capture_output=True,
        env=clean(),
        check=True,
    )
    assert piped.stdout == (tmp_path / "out.pcapng").read_bytes()
    folder = Path(str(service.lines("incidents", "--limit", "1")[0]["folder"]))
    assert b'"exported"' in (folder / "custody.jsonl").read_bytes()
    wrong = service.ask("export", "last", "-o", str(tmp_path / "no" / "where"))
    assert wrong.code == 1
    assert str(tmp_path / "no" / "where") in wrong.err
    assert service.ask("export", "last", "--format", "docx").code == 2


def test_notes_and_keys_go_with_the_copy(service: Service, tmp_path: Path) -> None:
    """A note written over HTTP is the packet's comment in the export; without notes it is the sealed file again."""
    one = service.lines("incidents", "--pod", "checkout-7d9f", "--state", "sealed")[0]
    sealed = (Path(str(one["folder"])) / "evidence.pcapng").read_bytes()
    body = json.dumps({"frame": 1, "text": "first\nbeacon"}).encode()
    made = urllib.request.urlopen(
        urllib.request.Request(
            f"{service.machine.url}/v1/incidents/{one['id']}/notes",
            data=body,
            headers={"content-type": "application/json"},
        ),
        timeout=20,
    )
    keys = tmp_path / "keys"
    keys.write_text("CLIENT_RANDOM " + "ab" * 32 + " " + "cd" * 48 + "\n")
    out = tmp_path / "noted.pcapng"
    service.lines("export", str(one["id"]), "-o", str(out), "--tls-keys", str(keys))
    (comment,) = tshark(out, "-Y", "frame.number == 1", "-T", "fields", "-e", "frame.comment")
    assert "first ⏎ beacon" in comment
    assert (
        hashlib.sha256(sealed).hexdigest()
        in subprocess.run(
            ["capinfos", "-k", out], capture_output=True, text=True, check=True
        ).stdout
    )
    service.lines("export", str(one["id"]), "-o", str(out), "--without-notes")
    assert out.read_bytes() == sealed
    keys.write_text("rm -rf /\n")
    assert service.ask("export", str(one["id"]), "-o", str(out), "--tls-keys", str(keys)).code == 2
    urllib.request.urlopen(
        urllib.request.Request(service.machine.url + made.headers["location"], method="DELETE"),
        timeout=20,
    ).close()


def test_what_is_shared_hides_and_names_its_origin(service: Service, tmp_path: Path) -> None:
    """Cut and renamed by default; the same key gives the same names; custody has the derived file's hash."""
    one = service.lines("incidents", "--pod", "checkout-7d9f", "--state", "sealed")[0]
    folder = Path(str(one["folder"]))
    sealed = (folder / "evidence.pcapng").read_bytes()
    out, key = tmp_path / "shared.pcapng", tmp_path / "key"
    (told,) = service.lines("share", str(one["id"]), "-o", str(out))
    assert told["sha256"] == hashlib.sha256(out.read_bytes()).hexdigest()
    assert told["sha256"].encode() in (folder / "custody.jsonl").read_bytes()
    assert hashlib.sha256(sealed).hexdigest().encode() in out.read_bytes()
    assert not set(tshark(out, "-T", "fields", "-e", "ip.dst")) & {"10.66.0.2"}
    key.write_bytes(bytes(32))
    first, again = (
        service.lines("share", str(one["id"]), "-o", str(out), "--key-file", str(key))[0]["sha256"]
        for _ in "12"
    )
    assert first == again
    service.lines("share", str(one["id"]), "-o", str(out), "--payloads", "full")
    assert "10.66.0.2" in tshark(out, "-T", "fields", "-e", "ip.dst")
    key.write_bytes(b"short")
    for wrong in (["--payloads", "none"], ["--key-file", str(key)], ["--key-file", "/nowhere"]):
        assert service.ask("share", str(one["id"]), "-o", str(out), *wrong).code == 2, wrong


def test_verification_tells_what_was_changed(service: Service, tmp_path: Path) -> None:
    """By id, by folder and of a copy elsewhere: 0; a changed file, manifest or custody line: named, and 3."""
    folder = Path(str(service.lines("incidents", "--limit", "1")[0]["folder"]))
    assert service.ask("verify", "last").code == 0
    assert service.ask("verify", str(folder)).code == 0
    for name, change in (
        ("", lambda body: body),
        ("evidence.pcapng", lambda body: body[:-9] + bytes([body[-9] ^ 1]) + body[-8:]),
        ("manifest.json", lambda body: body.replace(b"checkout", b"checkour", 1)),
        ("custody.jsonl", lambda body: body.replace(b"sealed", b"sealez", 1)),
    ):
        copy = tmp_path / f"copy-{name}"
        shutil.copytree(folder, copy)
        if name:
            body = (copy / name).read_bytes()
            (copy / name).chmod(0o600)
            (copy / name).write_bytes(change(body))
        done = inside("verify", str(copy), "--data", str(tmp_path))
        assert done.code == (3 if name else 0), done.out
        assert ("NOT verified" in done.out) is bool(name)
        if name:
            wrong = [line for line in done.out.splitlines() if line.startswith("✗")]
            assert any(
                word in line
                for line in wrong
                for word in (name, name.partition(".")[0], "signature")
            )


def test_findings_are_made_again(service: Service) -> None:
    """`analyse` asks the running analyst; the evidence still verifies, and the paragraph is in the list."""
    (findings,) = service.lines("analyse", "last")
    assert findings["summary"]
    assert service.lines("incidents", "--limit", "1")[0]["summary"] == findings["summary"]
    assert service.ask("verify", "last").code == 0


def test_live_begins_with_the_past_and_shows_alerts_inline(
    service: Service, tmp_path: Path
) -> None:
    """History, then live, without a hole, and an alert that comes meanwhile as a row of its own."""
    path = tmp_path / "live.pcapng"
    with path.open("wb") as file:
        process = subprocess.Popen(
            [*COMMAND, "live", "payments/checkout-7d9f", "--before", "1s", "--duration", "4s",
             "--filter", "udp", "--config", str(service.machine.config)],
            stdout=file,
            stderr=subprocess.PIPE,
            env=clean(),
        )  # fmt: skip
        assert process.stderr is not None
        assert b"following" in process.stderr.readline()
        service.machine.post(falco_event())
        said = process.stderr.read()
        process.stderr.close()
        assert process.wait(20) == 0, said
    rows = tshark(path)
    assert sum("FALCO Critical" in row for row in rows) == 1
    times = [
        float(each)
        for each in tshark(path, "-Y", "udp", "-T", "fields", "-e", "frame.time_relative")
    ]
    assert 4.0 < times[-1] - times[0] < 7.0
    assert max(b - a for a, b in itertools.pairwise(times)) < 1.0


def test_live_ends_with_ctrl_c_and_when_its_reader_leaves(service: Service) -> None:
    """Exit 0 and no trace, also when nothing is sent that could tell it."""
    for leave in ("interrupt", "close"):
        process = subprocess.Popen(
            [*COMMAND, "live", f"netns:{service.pod}", "--filter", "port 1",
             "--config", str(service.machine.config)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=clean(),
        )  # fmt: skip
        assert process.stdout is not None
        assert process.stderr is not None
        assert b"following" in process.stderr.readline()
        process.stdout.read(16)
        if leave == "interrupt":
            process.send_signal(signal.SIGINT)
        process.stdout.close()
        told = process.stderr.read()
        process.stderr.close()
        assert process.wait(10) == 0, told
        assert b"Traceback" not in told
    assert service.ask("live", "payments/nobody").code == 3
