"""A real pod watched through Wireshark's own way in: its past, its packets as they come, alerts, and new pods' names."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.containers.runtime import Containerd, Pod
from tests.e2e.conftest import requires_root
from tests.e2e.machine import Machine, falco_event, wait_for
from tests.wireshark.conftest import Home
from tests.wireshark.test_extcap import started

pytestmark = [requires_root, pytest.mark.root]

RULES = """
- rule: Everything
  match: {priority: ">=Debug"}
  capture: {before: 30s, after: 200ms}
"""
WEB = ("/bin/httpd", "-f", "-p", "8080", "-h", "/www")
COLUMNS = 'gui.column.format:"t","%Cus:frame.time_epoch:0:R","s","%s","d","%d","i","%i"'


def test_a_pod_of_containerd_is_watched(
    machine: Callable[..., Machine], containerd: Containerd, tmp_path: Path
) -> None:
    """History, then live: packets from before, an alert while somebody watches, and a pod that was born meanwhile."""
    tripshark = machine(
        rules_text=RULES, containers={"enabled": "on", "sockets": [containerd.socket]}
    )
    home = Home(tmp_path)
    installed = home.tripshark("wireshark", "install", "--config", str(tripshark.config))
    assert installed.code == 0, installed.err
    with (
        containerd.pod("ledger-0", "payments", argv=WEB) as ledger,
        containerd.pod("checkout-x2x4z", "payments") as checkout,
    ):
        recorded(tripshark, "payments/checkout-x2x4z", "payments/ledger-0")
        fetch(containerd, checkout, ledger)
        listed = home.run("tshark", "-D")
        assert "tripshark:payments/checkout-x2x4z (Pod payments/checkout-x2x4z" in listed
        began = time.time()
        watching = ("tshark", "-C", "Tripshark", "-l", "-o", COLUMNS,
                    "-i", "tripshark:payments/checkout-x2x4z")  # fmt: skip
        with started(home, *watching) as (process, lines):
            seen(lines, "payments/checkout-x2x4z → payments/ledger-0", "GET /")
            assert float(lines[0].split()[0]) < began
            with containerd.pod("newborn-1", "payments", argv=WEB) as newborn:
                recorded(tripshark, "payments/newborn-1")
                fetch(containerd, checkout, newborn)
                event = falco_event(rule="While somebody watches")
                event["output_fields"] = {"container.id": checkout.container_ids[0][:12]}
                tripshark.post(event)
                seen(lines, "FALCO Critical: While somebody watches", "payments/checkout-x2x4z")
                wait_for(lambda: fetch(containerd, checkout, newborn) and named(lines), "its name")
            process.terminate()
            process.wait(20)


def named(lines: list[str]) -> bool:
    return any("payments/checkout-x2x4z → payments/newborn-1" in line for line in lines)


def fetch(containerd: Containerd, one: Pod, other: Pod) -> bool:
    page = containerd.exec(one, ["/bin/wget", "-q", "-O", "-", f"http://{other.ip}:8080/"])
    return "hello" in page.stdout


def seen(lines: list[str], *words: str) -> None:
    wait_for(lambda: any(all(word in line for word in words) for line in lines), words[0], 30)


def recorded(tripshark: Machine, *titles: str) -> None:
    def all_are() -> bool:
        targets = tripshark.get("/v1/targets")["targets"]
        there = {each["title"] for each in targets if each["alive"] and each["rings"]}  # type: ignore[index, union-attr]
        return there >= set(titles)

    wait_for(all_are, f"{titles} to be recorded by name")
