"""`tripshark open`: evidence of this machine and over HTTP, with notes, in the tool that is there."""

from __future__ import annotations

import json
import os
import urllib.request
from pathlib import Path

import pytest

from tests.e2e.machine import Machine
from tests.wireshark.conftest import Home


@pytest.mark.root
def test_it_prints_names_and_notes_and_changes_nothing(running: Machine, home: Home) -> None:
    """From the folder and over HTTP the same rows, with the note as a comment; the evidence still verifies."""
    incident = str(running.incidents()[-1]["id"])
    request = urllib.request.Request(
        f"{running.url}/v1/incidents/{incident}/notes",
        data=json.dumps({"frame": 1, "text": "the first beacon"}).encode(),
        headers={"Content-Type": "application/json"},
    )
    urllib.request.urlopen(request, timeout=60).close()
    here = home.tripshark("open", incident, "--tshark", "--config", str(running.config))
    far = home.tripshark("open", incident, "--tshark", "--url", running.url)
    assert here.code == far.code == 0, here.err + far.err
    assert here.out == far.out
    assert "the first beacon" in here.out.splitlines()[0]
    assert "payments/checkout-7d9f →" in here.out
    assert "the profile Tripshark is new" in here.err
    assert "the profile" not in far.err
    assert running.tripshark("verify", incident, "--config", str(running.config)).returncode == 0
    only = home.tripshark(
        "open",
        incident,
        "--tshark",
        "--filter",
        "systemd_journal",
        "--config",
        str(running.config),
    )
    assert len(only.out.splitlines()) == 1


@pytest.mark.root
def test_arguments_are_no_shell_and_wireshark_gets_the_sealed_file(
    running: Machine, home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hostile display filter is one argument; without a screen or the program the sentence says what to do."""
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "wireshark").write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > {tmp_path}/argv\nexit 7\n')
    (tools / "wireshark").chmod(0o755)
    incident = running.incidents()[-1]
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    config = ("--config", str(running.config))
    blind = home.tripshark("open", str(incident["id"]), *config)
    assert blind.code == 3
    assert "no screen" in blind.err
    assert "--tshark" in blind.err
    monkeypatch.setenv("DISPLAY", ":99")
    hostile = "tcp; touch /tmp/x $(id) `id`"
    done = home.tripshark("open", str(incident["id"]), "--filter", hostile, *config)
    assert done.code == 7
    argv = (tmp_path / "argv").read_text().splitlines()
    assert argv[:2] == ["-C", "Tripshark"]
    assert argv[-2:] == ["-Y", hostile]
    assert home.tripshark("open", "nothing", *config).code == 3
    assert home.tripshark("open", "last", "--tshark", "--termshark", *config).code == 2
