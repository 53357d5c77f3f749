"""Killed at the worst moment: nothing accepted is missing, nothing half written carries a final name."""

from __future__ import annotations

import http.client
import json
import os
import random
import signal
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.e2e.conftest import requires_root
from tests.e2e.machine import Machine, Network, falco_event, manifest, wait_for
from tripshark.store.verify import verify

pytestmark = [pytest.mark.root, requires_root]

KILLS = 50


RULES = """
- rule: anything
  match: {priority: ">=Debug"}
  capture: {before: 5s, after: AFTER, max: {extend: 2s}}
"""


def start(
    machine: Callable[..., Machine], network: Network, *, after: str = "1s", **config: object
) -> tuple[Machine, str, str]:
    made = machine(
        recorder={"include": [f"ts-{network.prefix}-*"]},
        targets={
            "static": [
                {
                    "netns": f"ts-{network.prefix}-pod",
                    "namespace": "payments",
                    "pod": "checkout-7d9f",
                }
            ]
        },
        rules_text=RULES.replace("AFTER", after),
        **config,
    )
    far, pod = network.namespace("far"), network.namespace("pod")
    network.veth(pod, far)
    made.wait_recorded(pod)
    return made, pod, far


class Poster(threading.Thread):
    """Posts distinct alerts without pause; remembers every promise."""

    def __init__(self, url: str, number: int) -> None:
        super().__init__(daemon=True)
        parts = urlsplit(url)
        self._host, self._port = parts.hostname, parts.port
        self._number = number
        self.promised: list[str] = []
        self.done = threading.Event()

    def run(self) -> None:
        count = 0
        while not self.done.is_set():
            count += 1
            body = json.dumps(
                falco_event(
                    connection=f"10.66.0.1:{30000 + count % 30000}->10.66.0.2:{self._number + 4000}",
                    proto="udp",
                    serial=f"{self._number}-{count}",
                )
            )
            connection = http.client.HTTPConnection(str(self._host), self._port, timeout=5)
            try:
                connection.request("POST", "/", body, {"Content-Type": "application/json"})
                with connection.getresponse() as answer:
                    told = answer.read()
            except (OSError, http.client.HTTPException):
                time.sleep(0.02)
                continue
            finally:
                connection.close()
            if answer.status == 202:
                self.promised.append(json.loads(told)["alert"])


@pytest.mark.timeout(400)
def test_the_responder_is_killed_fifty_times_under_load(
    machine: Callable[..., Machine], network: Network
) -> None:
    """After each restart every promised alert is there, and interrupted captures are sealed and say so."""
    # a fixed port, so that senders find the responder again
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    tripshark, _, _ = start(
        machine,
        network,
        listen=f"127.0.0.1:{port}",
        bounds={"cooldown": "0s", "rate": {"refill": "0s"}},
    )
    posters = [Poster(tripshark.url, number) for number in range(3)]
    for poster in posters:
        poster.start()
    chance = random.Random(20261124)
    for _ in range(KILLS):
        time.sleep(chance.uniform(0.0, 0.7))
        os.kill(tripshark.pids["responder"], signal.SIGKILL)
        tripshark.wait_event("ready again", "responder", seconds=60)
    time.sleep(0.5)
    for poster in posters:
        poster.done.set()
    for poster in posters:
        poster.join(60)
    promised = {alert for poster in posters for alert in poster.promised}
    assert len(promised) > KILLS
    tripshark.wait_sealed(seconds=60)

    def missing() -> set[str]:
        with sqlite3.connect(f"file:{tripshark.data}/catalogue.sqlite?mode=ro", uri=True) as base:
            known = {row[0] for row in base.execute("select id from alerts")}
            (position,) = base.execute(
                "select value from state where name = 'position'"
            ).fetchone()
        # repeats of one meaning within an incident are counted on their first row, once there are many rows
        return {each for each in promised - known if int(each[2:]) > position}

    wait_for(lambda: not missing(), "every promised alert to be worked off", seconds=60)
    with sqlite3.connect(f"file:{tripshark.data}/catalogue.sqlite?mode=ro", uri=True) as base:
        (counted,) = base.execute("select sum(1 + repeats) from alerts").fetchone()
        states = dict(
            base.execute("select state, count(*) from incidents group by state").fetchall()
        )
        words = dict(base.execute("select word, count(*) from incidents group by word").fetchall())
        problems = base.execute("select id, problem from incidents where problem != ''").fetchall()
    assert counted >= len(promised)
    assert set(states) <= {"sealed", "empty"}, problems
    assert words.get("interrupted", 0) > 0
    folders = sorted(path.parent for path in (tripshark.data / "evidence").rglob("manifest.json"))
    assert len(folders) == sum(states.values())
    assert not any((tripshark.data / "drafts").iterdir())
    for folder in folders:
        assert verify(folder, data=tripshark.data).ok, folder


@pytest.mark.timeout(120)
def test_the_recorder_is_killed_during_a_capture(
    machine: Callable[..., Machine], network: Network
) -> None:
    """It is restarted with its rings; the capture goes on, and what was lost is in the ledger."""
    tripshark, pod, far = start(machine, network, after="4s")
    sink = network.python(
        far,
        "import socket\n"
        "s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(('10.66.0.2', 5000))\n"
        "print('up', flush=True)\n"
        "while True: s.recv(2000)\n",
    )
    sink.stdout.readline()  # type: ignore[union-attr]
    network.python(
        pod,
        "import socket, time\n"
        "s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(('10.66.0.1', 6000))\n"
        "s.connect(('10.66.0.2', 5000)); print('up', flush=True)\n"
        "for n in range(8000): s.send(n.to_bytes(4, 'big')); time.sleep(0.001)\n",
    ).stdout.readline()  # type: ignore[union-attr]
    time.sleep(1)
    t0_ns = time.time_ns()
    tripshark.post(
        falco_event(time_ns=t0_ns, connection="10.66.0.1:6000->10.66.0.2:5000", proto="udp")
    )
    time.sleep(1)
    worker = worker_of(tripshark.pids["recorder"])
    os.kill(worker, signal.SIGKILL)
    wait_for(
        lambda: worker_of(tripshark.pids["recorder"]) not in (0, worker),
        "a new recorder",
    )
    (incident,) = tripshark.wait_sealed()
    from tripshark.formats import pcapng

    packets = pcapng.read((Path(str(incident["folder"])) / "evidence.pcapng").read_bytes()).packets
    numbers = [
        int.from_bytes(packets.bytes_of(index)[42:46], "big")
        for index in range(len(packets))
        if t0_ns - 500_000_000 < packets.time_ns[index] < t0_ns + 3_900_000_000
    ]
    assert len(numbers) == len(set(numbers))
    assert numbers == list(range(numbers[0], numbers[-1] + 1))
    assert numbers[-1] - numbers[0] > 2500
    kinds = {entry["kind"] for entry in manifest(incident)["ledger"]["entries"]}  # type: ignore[index]
    assert kinds & {"recorder_away", "recorder_gap", "recorder_restart"}


def worker_of(holder: int) -> int:
    """The recorder proper: the holder's child."""
    try:
        children = Path(f"/proc/{holder}/task/{holder}/children").read_text().split()
    except OSError:
        return 0
    return int(children[0]) if children else 0
