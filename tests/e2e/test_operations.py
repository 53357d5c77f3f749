"""What goes wrong in operation, and what is then said and kept: on a whole Tripshark with real packets."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import ssl
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trustme

from tests.e2e.conftest import requires_root
from tests.e2e.machine import Machine, Network, falco_event, manifest, run, wait_for
from tripshark.programs.clock import SystemClock
from tripshark.store.vault import FolderVault

pytestmark = [pytest.mark.root, requires_root]

RULES = """\
- rule: {name}
  match: {{rules: ["Outbound Connection to C2 Servers"]}}
  capture: {{scope: pod, before: 30s, after: 200ms, max: {{bytes: 1MB}}}}
"""
STATIC = {"namespace": "payments", "pod": "checkout-7d9f"}
QUICK = {"after": "200ms"}


@pytest.fixture
def pod(network: Network) -> str:
    """A namespace with an interface."""
    here, far = network.namespace("pod"), network.namespace("far")
    network.veth(here, far)
    return here


@pytest.fixture
def quick() -> Iterator[dict[str, list[str]]]:
    """One rule whose captures end at once; the responder, which is not root, can read its file."""
    with tempfile.TemporaryDirectory(prefix="ts-rules-") as folder:
        Path(folder).chmod(0o755)
        path = Path(folder) / "rules.yaml"
        path.write_text(RULES.format(name="quick"))
        yield {"rules": [str(path)]}


def recording(*pods: str) -> dict[str, object]:
    """Configuration that records these namespaces and no other test's."""
    return {
        "recorder": {"include": [*pods, "ts-none"]},
        "targets": {"static": [{"netns": pod, **STATIC} for pod in pods]},
    }


def told(machine: Machine, *argv: str) -> subprocess.CompletedProcess[str]:
    """A command about this machine; any exit code."""
    name, *rest = argv
    return machine.tripshark(name, *rest, "--config", str(machine.config), check=False)


def rule_names(machine: Machine) -> list[str]:
    return [str(each["rule"]) for each in machine.get("/v1/rules")["rules"]]  # type: ignore[attr-defined]


def readiness(machine: Machine) -> dict[str, object]:
    """/readyz, whatever its status."""
    try:
        return machine.get("/readyz")
    except urllib.error.HTTPError as problem:
        with problem:
            return dict(json.load(problem))


# ------------------------------------------------------------------------------------------- rules


def test_rules_are_read_again_however_they_were_written(
    machine: Callable[..., Machine],
) -> None:
    """In place, renamed over, symlinks swapped as a ConfigMap does; a broken file keeps the last good and is shown."""
    with open_to_all("rules") as folder:
        _write(folder / "..1" / "rules.yaml", RULES.format(name="first"))
        (folder / "..data").symlink_to("..1")
        (folder / "rules.yaml").symlink_to("..data/rules.yaml")
        tripshark = machine(**recording(), rules=[str(folder)])
        assert rule_names(tripshark) == ["first"]

        (folder / "..1" / "rules.yaml").write_text(RULES.format(name="edited"))
        wait_for(lambda: rule_names(tripshark) == ["edited"], "an edit in place")

        _write(folder / "..2" / "rules.yaml", RULES.format(name="swapped"))
        (folder / "..data_tmp").symlink_to("..2")
        (folder / "..data_tmp").rename(folder / "..data")
        wait_for(lambda: rule_names(tripshark) == ["swapped"], "a symlink swap")

        (folder / "rules.yaml").unlink()
        _write(folder / "rules.yaml.new", RULES.format(name="renamed"))
        (folder / "rules.yaml.new").rename(folder / "rules.yaml")
        wait_for(lambda: rule_names(tripshark) == ["renamed"], "a rename")

        (folder / "rules.yaml").write_text("- rule: broken\n  match: {rules: 7}\n  captur: {}\n")
        wait_for(lambda: not readiness(tripshark)["ready"], "the broken file to be noticed")
        assert rule_names(tripshark) == ["renamed"]
        problem = readiness(tripshark)["checks"]["rules"]["problem"]  # type: ignore[index]
        assert f"{folder}/rules.yaml:" in problem
        assert "last good rules" in problem
        shown = told(tripshark, "doctor")
        assert shown.returncode == 1
        assert "last good rules" in shown.stdout
        assert told(tripshark, "rules", "check").returncode == 3

        _write(folder / "rules.yaml", RULES.format(name="mended"))
        wait_for(lambda: readiness(tripshark)["ready"], "the mended file")
        assert rule_names(tripshark) == ["mended"]


@contextmanager
def open_to_all(name: str) -> Iterator[Path]:
    """A new folder for a responder that is not root; pytest's own are root's alone."""
    with tempfile.TemporaryDirectory(prefix="ts-open-") as base:
        os.chmod(base, 0o755)
        folder = Path(base) / name
        folder.mkdir()
        yield folder


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_text(text)


# ------------------------------------------------------------------------------------ back-filling


def test_a_file_fills_what_was_missed_and_doubles_nothing(
    machine: Callable[..., Machine], pod: str, quick: dict[str, list[str]]
) -> None:
    """Events written while the service was away are taken from Falco's file at its next start, each once."""
    tripshark = machine(
        **recording(pod),
        **quick,
        bounds={"cooldown": "0s"},
    )
    tripshark.stop()
    events = tripshark.folder / "falco.jsonl"
    events.touch()
    config = json.loads(tripshark.config.read_text())
    config["events"] = {"files": [{"path": str(events), "from_start": True}]}
    tripshark.config.write_text(json.dumps(config))
    tripshark.start()
    tripshark.wait_recorded(pod)
    heard = falco_event(evt_num=1)
    tripshark.post(heard)
    tripshark.stop()
    missed = falco_event(evt_num=2)
    with events.open("a") as file:
        file.write(json.dumps(heard) + "\n" + json.dumps(missed) + "\n")
    tripshark.start()

    def counted() -> int:
        metrics = _text(tripshark, "/metrics")
        return int(
            sum(
                float(line.split()[-1])
                for line in metrics.splitlines()
                if line.startswith("tripshark_alerts_total") and 'via="file"' in line
            )
        )

    wait_for(lambda: counted() == 2, "both lines of the file")

    def stored() -> int:
        return sum(int(str(each["alerts"])) for each in tripshark.incidents())

    # one by the webhook, one by the file; the line heard before was set aside
    wait_for(lambda: stored() == 2, "the missed alert in the catalogue")
    tripshark.wait_sealed()
    assert stored() == 2
    assert 'outcome="witnessed"' in _text(tripshark, "/metrics")


def _text(machine: Machine, path: str) -> str:
    with urllib.request.urlopen(machine.url + path, timeout=60) as answer:
        return str(answer.read().decode())


# ---------------------------------------------------------------------------------------- full disk


def test_a_full_disk_is_a_503_and_mends_itself(machine: Callable[..., Machine], pod: str) -> None:
    """Nothing is promised that is not on disk; with room again everything goes on without a restart."""
    with open_to_all("small") as small:
        run("mount", "-t", "tmpfs", "-o", "size=24m,mode=755", "tmpfs", str(small))
        try:
            _write(small / "rules.yaml", RULES.format(name="small"))
            tripshark = machine(
                data_at=str(small / "data"),
                **recording(pod),
                rules=[str(small / "rules.yaml")],
                bounds={"reserve": "1MB", "cooldown": "0s"},
            )
            tripshark.wait_recorded(pod)
            tripshark.post(falco_event())
            tripshark.wait_sealed(1)
            ballast = small / "ballast"
            _fill(ballast)
            answer = _refusal(tripshark)
            assert set(answer["error"]) == {"code", "message", "hint", "where"}
            assert answer["error"]["code"] == "unavailable"
            assert not readiness(tripshark)["ready"]
            ballast.unlink()
            wait_for(lambda: _accepted(tripshark), "alerts to be accepted again")
            wait_for(lambda: readiness(tripshark)["ready"], "to be ready again")
            for incident in tripshark.wait_sealed(2):
                assert told(tripshark, "verify", str(incident["id"])).returncode == 0
            tripshark.stop()
        finally:
            run("umount", "-l", str(small))


def _fill(path: Path) -> None:
    """Until nothing more fits on that disk."""
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(bytes(4096)):
            pass


def _refusal(machine: Machine) -> dict[str, dict[str, str]]:
    """The answer once the disk is full: what is already reserved may still take a few."""
    for number in range(3000):
        try:
            machine.post(falco_event(rule=f"Full {number}", padding="x" * 4000))
        except urllib.error.HTTPError as refused:
            problem = refused
            break
    else:
        raise AssertionError("a full disk accepted everything")
    with problem:
        assert problem.code == 503
        return dict(json.load(problem))


def _accepted(machine: Machine) -> bool:
    try:
        machine.post(falco_event())
    except urllib.error.HTTPError as problem:
        problem.close()
        return False
    return True


# ------------------------------------------------------------------------------ processes that end


def test_processes_die_are_renewed_and_end(machine: Callable[..., Machine], pod: str) -> None:
    """An upgraded recorder keeps its history, a killed analyst comes back, SIGTERM seals what runs, in seconds."""
    tripshark = machine(
        **recording(pod),
        capture={"after": "30s", "idle": "0s"},
        bounds={"cooldown": "0s"},
    )
    before = tripshark.wait_recorded(pod)
    run("ip", "netns", "exec", pod, "ping", "-c", "3", "-i", "0.01", "10.66.0.2", check=False)
    _ping(pod)
    holder = tripshark.pids["recorder"]
    worker = _child(holder)
    os.kill(holder, signal.SIGHUP)
    wait_for(lambda: _child(holder) not in (0, worker), "a new recorder")
    after = tripshark.wait_recorded(pod)
    assert after["key"] == before["key"]

    os.kill(tripshark.pids["analyst"], signal.SIGKILL)
    tripshark.wait_event("ready again", "analyst")

    done = told(
        tripshark, "capture", "payments/checkout-7d9f", "--after", "200ms", "--wait", "--json"
    )
    assert done.returncode == 0, done.stderr
    captured = json.loads(done.stdout)
    assert captured["packets"] > 0  # sent before the recorder was renewed
    assert captured["summary"]  # read by the analyst that was started again

    tripshark.post(falco_event())
    wait_for(lambda: any(each["state"] == "open" for each in tripshark.incidents()), "a capture")
    began = time.monotonic()
    url = tripshark.url
    tripshark.stop()
    assert time.monotonic() - began < 45
    lines = told(tripshark, "incidents", "--json").stdout.splitlines()
    newest = json.loads(lines[0])
    assert newest["state"] in ("sealed", "empty")
    assert newest["ledger"] == "interrupted"
    assert told(tripshark, "verify", newest["id"]).returncode == 0
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(url, timeout=2)


def _ping(where: str) -> None:
    """A packet that nobody need answer."""
    code = "import socket; s=socket.socket(socket.AF_INET, socket.SOCK_DGRAM); [s.sendto(b'x', ('10.66.0.2', 9)) for _ in range(5)]"
    run("ip", "netns", "exec", where, "python3", "-I", "-c", code)


def _child(pid: int) -> int:
    """The one child of a process."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return 0
    return int(children[0]) if children else 0


def test_a_second_service_is_refused_with_words(
    machine: Callable[..., Machine], tmp_path: Path
) -> None:
    """The same data folder, or the same port: exit 1, and what to do."""
    tripshark = machine(**recording())
    same = told(tripshark, "run")
    assert same.returncode == 1
    assert "runs on this data folder already" in same.stderr
    port = tripshark.url.removeprefix("http://")
    taken = tripshark.tripshark(
        "run", "--data", str(tmp_path / "other"), "--listen", port, "--json", check=False
    )
    assert taken.returncode == 1
    last = json.loads(taken.stdout.splitlines()[-1])
    assert (last["event"], last["program"]) == ("failed", "responder")
    assert last["error"]["where"] == port
    assert "in use" in last["error"]["message"]
    assert readiness(tripshark)["ready"]


# -------------------------------------------------------------------------------------- credentials


def test_only_who_may_gets_in_and_commands_need_no_credentials_here(
    machine: Callable[..., Machine], pod: str, tmp_path: Path, quick: dict[str, list[str]]
) -> None:
    """Bearer, basic and secret path over TLS; the commands of this machine use the service's own socket."""
    authority = trustme.CA()
    cert = authority.issue_cert("127.0.0.1")
    key = tmp_path / "key.pem"
    cert.private_key_pem.write_to_path(key)
    key.chmod(0o600)  # root's alone, as it should be
    cert.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    token = tmp_path / "token"
    token.write_text("a-bearer-token-of-sufficient-length\n")
    token.chmod(0o600)
    tripshark = machine(
        **recording(pod),
        **quick,
        tls={"cert": str(tmp_path / "cert.pem"), "key": str(key)},
        ingest={
            "auth": {
                "bearer_files": [str(token)],
                "basic": {"falco": "a-password-of-sufficient-length"},
                "secret_path": "a-secret-path-of-sufficient-length",
            }
        },
    )
    assert tripshark.url.startswith("https://")
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)

    def post(path: str, **headers: str) -> int:
        request = urllib.request.Request(
            tripshark.url + path,
            data=json.dumps(falco_event()).encode(),
            headers={"Content-Type": "application/json", **headers},
        )
        try:
            with urllib.request.urlopen(request, timeout=60, context=trusting) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as problem:
            problem.close()
            return problem.code

    basic = "Basic ZmFsY286YS1wYXNzd29yZC1vZi1zdWZmaWNpZW50LWxlbmd0aA=="
    assert post("/") == 401
    assert post("/", Authorization="Bearer wrong") == 401
    assert post("/", Authorization="Bearer a-bearer-token-of-sufficient-length") == 202
    assert post("/", Authorization=basic) == 202
    assert post("/a-secret-path-of-sufficient-length") == 202
    assert post("/a-wrong-path") in (401, 404, 405)

    wait_for(
        lambda: "payments/checkout-7d9f" in told(tripshark, "targets").stdout, "the pod's ring"
    )
    here = told(tripshark, "capture", f"netns:{pod}", "--after", "100ms", "--wait", "--json")
    assert here.returncode == 0, here.stderr
    there = told(
        tripshark, "capture", "host", "--listen", tripshark.url.removeprefix("https://"), "--json"
    )
    assert json.loads(there.stdout)["error"]["code"] in ("not_found", "refused")  # it was let in
    assert there.returncode == 3
    assert "service answers at https://" in told(tripshark, "doctor").stdout


def test_falco_with_a_client_certificate_gets_in_and_nobody_else(
    machine: Callable[..., Machine], tmp_path: Path
) -> None:
    """Mutual TLS end to end, the server's key readable by root alone; commands here still work."""
    authority = trustme.CA()
    cert = authority.issue_cert("127.0.0.1")
    cert.private_key_pem.write_to_path(tmp_path / "key.pem")
    (tmp_path / "key.pem").chmod(0o600)
    cert.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    files = {name: str(tmp_path / f"{name}.pem") for name in ("cert", "key")}
    tripshark = machine(**recording(), tls={**files, "client_ca": str(tmp_path / "ca.pem")})
    known, stranger = ssl.create_default_context(), ssl.create_default_context()
    for each in (known, stranger):
        authority.configure_trust(each)
    authority.issue_cert("falco@node").configure_cert(known)
    request = urllib.request.Request(
        tripshark.url + "/",
        data=json.dumps(falco_event()).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=60, context=known) as answer:
        assert answer.status == 202
    with pytest.raises(OSError, match=r"certificate required|reset|closed|EOF"):
        urllib.request.urlopen(request, timeout=60, context=stranger).read()
    assert told(tripshark, "capture", "nobody/nowhere").returncode == 3
    assert "service answers" in told(tripshark, "doctor").stdout


# ---------------------------------------------------------------------------------------- heartbeat


def test_a_falco_that_falls_silent_is_noticed(machine: Callable[..., Machine]) -> None:
    """Its metrics snapshots stop: /readyz, /metrics and doctor say so."""
    tripshark = machine(**recording(), heartbeat={"every": "300ms", "grace": "200ms"})
    body = Path("tests/falco-events/37-msgfield-falco-internal-metrics-snapshot.body.json")
    for _ in range(3):
        tripshark.post(json.loads(body.read_text()))
    wait_for(lambda: readiness(tripshark)["warnings"], "the silence to be noticed")
    warning = str(readiness(tripshark)["warnings"][0])  # type: ignore[index]
    late = [
        line
        for line in _text(tripshark, "/metrics").splitlines()
        if line.startswith("tripshark_falco_late")
    ]
    assert late
    assert late[0].endswith(" 1.0")
    assert warning.startswith("Falco on 'vm' has been silent")
    assert "upstream Falco on 'vm' has been silent" in told(tripshark, "doctor").stdout


# ---------------------------------------------------------------------------------------- retention


def test_old_evidence_goes_the_record_stays_and_a_hold_is_respected(
    machine: Callable[..., Machine], pod: str
) -> None:
    """What is too old is removed, the catalogue says so; evidence under a legal hold is left alone."""
    tripshark = machine(**recording(pod), capture=QUICK, bounds={"cooldown": "0s"})
    tripshark.wait_recorded(pod)
    for number in range(2):
        done = told(tripshark, "capture", f"netns:{pod}", "--after", "50ms", "--wait", "--json")
        assert done.returncode == 0, f"{number}: {done.stderr}"
    old, held = (str(each["id"]) for each in tripshark.wait_sealed(2))
    tripshark.stop()
    FolderVault(tripshark.data, clock=SystemClock()).hold(held, "a lawyer", "a case")  # type: ignore[arg-type]
    config = json.loads(tripshark.config.read_text())
    config["bounds"] = {"retention": "1s"}
    tripshark.config.write_text(json.dumps(config))
    time.sleep(1.0)
    tripshark.start()

    def states() -> dict[str, str]:
        return {str(each["id"]): str(each["state"]) for each in tripshark.incidents()}

    wait_for(lambda: states()[old] == "removed", "the old evidence to be removed")
    assert states()[held] in ("sealed", "empty")
    assert told(tripshark, "verify", held).returncode == 0
    gone = told(tripshark, "export", old)
    assert gone.returncode == 3
    assert "removed" in gone.stderr
    shown = told(tripshark, "show", old)
    assert shown.returncode == 0
    assert "removed" in shown.stdout
    assert manifest(next(e for e in tripshark.incidents() if e["id"] == held))
