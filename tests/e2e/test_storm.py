"""Storms of alerts: one meaning a hundred thousand times, a thousand meanings at once."""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests.e2e.conftest import requires_root
from tests.e2e.machine import Machine, Network, falco_event, manifest, wait_for
from tests.e2e.posting import post_all

pytestmark = [pytest.mark.root, requires_root, pytest.mark.timeout(240)]

COPIES = 100_000
RSS_LIMIT_KB = 500_000


RULES = """
- rule: anything
  match: {priority: ">=Debug"}
  capture: {before: 5s, after: 2s, max: {extend: 30s}}
"""


def resident_kb(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1])
    raise AssertionError("no VmRSS")


def start(machine: Callable[..., Machine], network: Network, **config: object) -> Machine:
    made = machine(
        recorder={"include": [f"ts-{network.prefix}-*"], "per_target": "4MB"},
        targets={
            "static": [
                {
                    "netns": f"ts-{network.prefix}-pod{n}",
                    "namespace": "payments",
                    "pod": f"checkout-{n}",
                }
                for n in range(4)
            ]
        },
        rules_text=RULES,
        **config,
    )
    far = network.namespace("far")
    for n in range(4):
        pod = network.namespace(f"pod{n}")
        network.veth(pod, far, name=f"e{n}", net=f"10.66.{n}")
        made.wait_recorded(pod, f"e{n}")
    return made


def test_a_hundred_thousand_copies_are_one_incident(
    machine: Callable[..., Machine], network: Network
) -> None:
    """Every copy is promised and counted, memory stays bounded, one capture is made."""
    tripshark = start(machine, network)
    event = json.dumps(
        falco_event(pod="checkout-0", connection="10.66.0.1:40000->10.66.0.2:4444")
    ).encode()
    highest = [0]
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.2):
            highest[0] = max(highest[0], resident_kb(tripshark.pids["responder"]))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        answers = post_all(tripshark.url, [event] * COPIES, connections=16)
    finally:
        done.set()
        watcher.join()
    assert answers == {202: COPIES}

    def counted() -> list[dict[str, object]]:
        found = tripshark.incidents()
        return found if found and found[0]["alerts"] == COPIES else []

    (incident,) = wait_for(counted, "every copy to be counted", seconds=60)
    assert highest[0] < RSS_LIMIT_KB
    (incident,) = tripshark.wait_sealed(seconds=150)
    assert incident["alerts"] == COPIES
    assert manifest(incident)["details"]["why"]["alerts_counted"] <= COPIES  # type: ignore[index]


def test_a_thousand_meanings_at_once_are_each_captured_or_refused(
    machine: Callable[..., Machine], network: Network
) -> None:
    """The bounds hold, and nothing is dropped without a stored reason."""
    tripshark = start(machine, network, bounds={"concurrent": 6, "parts_per_target": 2})
    now_ns = time.time_ns()
    events: Sequence[bytes] = [
        json.dumps(
            falco_event(
                time_ns=now_ns + n,
                pod=f"checkout-{n % 4}",
                connection=f"10.66.{n % 4}.1:{20000 + n}->198.51.{n // 250}.{n % 250 + 1}:4444",
            )
        ).encode()
        for n in range(1000)
    ]
    running: list[int] = []
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.02):
            running.append(_gauge(tripshark, "tripshark_captures_running"))

    watcher = threading.Thread(target=watch)
    watcher.start()
    answers = post_all(tripshark.url, list(events), connections=16)
    assert answers == {202: 1000}

    def all_in() -> bool:
        with sqlite3.connect(f"file:{tripshark.data}/catalogue.sqlite?mode=ro", uri=True) as base:
            (total,) = base.execute("select sum(1 + repeats) from alerts").fetchone()
        return total == 1000

    wait_for(all_in, "every alert to be in the catalogue", seconds=60)
    tripshark.wait_sealed(seconds=90)
    done.set()
    watcher.join()
    with sqlite3.connect(f"file:{tripshark.data}/catalogue.sqlite?mode=ro", uri=True) as base:
        fates = base.execute(
            "select incident is not null and reason is null, reason is not null, count(*) "
            "from alerts group by 1, 2"
        ).fetchall()
    assert sum(count for _, _, count in fates) == 1000
    assert all(captured != refused for captured, refused, _ in fates)
    assert 1 <= max(running) <= 6
    refused = tripshark.get("/v1/refusals?limit=500")["refusals"]
    assert refused
    assert all(each["refusal"]["hint"] for each in refused)  # type: ignore[attr-defined]


def _gauge(tripshark: Machine, name: str) -> int:
    import urllib.request

    with urllib.request.urlopen(tripshark.url + "/metrics", timeout=60) as answer:
        for line in answer.read().decode().splitlines():
            if line.startswith(name + " "):
                return int(float(line.split()[1]))
    return 0
