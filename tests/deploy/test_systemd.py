"""The units for a plain host: understood by systemd, and with their bounding set Tripshark does its job."""

from __future__ import annotations

import inspect
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.deploy.pods import ROOT
from tests.e2e.conftest import machine, network, requires_root
from tests.e2e.machine import Machine, Network, evidence_files, falco_event, tshark
from tripshark import settings
from tripshark.analysis import sandbox
from tripshark.recorder.capabilities import KEPT
from tripshark.settings.tree import SYSTEM_DATA

__all__ = ["machine", "network"]

UNITS = ROOT / "deploy/systemd"


def values(unit: Path, key: str) -> list[str]:
    return re.findall(rf"^{key}=(.*)$", unit.read_text(), re.MULTILINE)


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_systemd_understands_the_units(tmp_path: Path) -> None:
    """`systemd-analyze verify` has no remark; programs that are not here are replaced by one that is."""
    made = []
    for unit in [*UNITS.glob("*.service"), *UNITS.glob("*.socket")]:
        text = re.sub(r"^ExecStart=\S+", "ExecStart=/bin/true", unit.read_text(), flags=re.M)
        (tmp_path / unit.name).write_text(text)
        made.append(str(tmp_path / unit.name))
    folder = tmp_path / "tripshark.service.d"
    folder.mkdir()
    shutil.copy(UNITS / "tripshark-stdin.conf", folder / "stdin.conf")
    done = subprocess.run(
        ["systemd-analyze", "verify", *made],
        capture_output=True, text=True, check=False,
        env={**os.environ, "SYSTEMD_UNIT_PATH": f"{tmp_path}:"},
    )  # fmt: skip
    remarks = [each for each in done.stderr.splitlines() if str(tmp_path) in each]
    assert not remarks
    assert done.returncode == 0, done.stderr


def test_the_recorders_capabilities_are_within_the_units(tmp_path: Path) -> None:
    """What the recorder keeps is in the bounding set; only what makes users of root is beside it."""
    given = set(" ".join(values(UNITS / "tripshark.service", "CapabilityBoundingSet")).split())
    declared = {words.split()[0] for words in KEPT.values()}
    assert declared <= given
    assert given - declared == {
        *("CAP_SETUID", "CAP_SETGID", "CAP_SETPCAP", "CAP_CHOWN"),
        *("CAP_FOWNER", "CAP_KILL", "CAP_SYS_NICE"),
    }


def test_the_dissectors_may_have_their_namespaces() -> None:
    """The unit allows exactly what the sandbox makes: one that is missing would take the empty network away too."""
    (allowed,) = values(UNITS / "tripshark.service", "RestrictNamespaces")
    made = re.findall(r"_CLONE_NEW(\w+)", inspect.getsource(sandbox._isolate))
    assert {each.lower() for each in made} == set(allowed.split())


def test_the_example_for_the_edge_loads() -> None:
    """Every line of it is a setting, and all that it allows fits into 128 MB."""
    loaded = settings.load(UNITS / "edge.yaml", environ={})
    assert loaded.events.stdin
    assert loaded.recorder.total + loaded.recorder.copies <= 64_000_000
    assert loaded.store.url


def test_users_and_folders_are_those_of_the_settings() -> None:
    """sysusers makes the users that the settings name, tmpfiles gives the data folder to the responder."""
    default = settings.Settings()
    users = re.findall(r"^u (\S+)", (UNITS / "tripshark.sysusers").read_text(), re.MULTILINE)
    assert users == [default.user, default.analyst_user]
    made = re.findall(r"^d (\S+) +(\S+) (\S+)", (UNITS / "tripshark.tmpfiles").read_text(), re.M)
    assert (str(SYSTEM_DATA), "0750", default.user) in made
    assert values(UNITS / "tripshark.service", "ReadWritePaths") == [str(SYSTEM_DATA)]


@pytest.mark.root
@requires_root
def test_within_the_units_bounding_set_an_alert_becomes_evidence(
    machine: Callable[..., Machine], network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`tripshark run` with these capabilities, no_new_privs and the unit's umask does the whole job."""
    a, b = network.namespace("a"), network.namespace("b")
    network.veth(a, b)
    kept = " ".join(values(UNITS / "tripshark.service", "CapabilityBoundingSet")).lower()
    bounding = ",".join(["-all", *(f"+{each.removeprefix('cap_')}" for each in kept.split())])
    started = subprocess.Popen

    def confined(argv: list[str], **more: object) -> subprocess.Popen[str]:
        if argv[1:4] == ["-m", "tripshark", "run"]:
            argv = ["setpriv", f"--bounding-set={bounding}", "--no-new-privs", *argv]
        return started(argv, **more)  # type: ignore[call-overload,no-any-return]

    monkeypatch.setattr("tests.e2e.machine.subprocess.Popen", confined)
    running = machine(
        rules_text="- rule: all\n  capture: {before: 5s, after: 100ms}\n",
        recorder={"include": [a], "per_target": "4MB"},
        targets={"static": [{"netns": a, "namespace": "payments", "pod": "checkout-7d9f"}]},
    )
    running.wait_recorded(a)
    speak = (
        "import socket; socket.socket(type=socket.SOCK_DGRAM).sendto(b'hello', ('10.66.0.2', 9))"
    )
    assert network.python(a, speak).wait(30) == 0
    running.post(falco_event())
    (incident,) = running.wait_sealed()
    assert incident["state"] == "sealed"
    assert tshark(evidence_files(incident)[0], "-Y", "udp.port == 9")
