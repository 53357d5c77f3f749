"""Work that a pod does while it is being recorded: always the same amount of it."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from dataclasses import dataclass

from bench.cpu import Meter
from bench.stage import POD, Failed, Stage, first_line, until

IPERF_PORT, CONN_PORT, UDP_PORT = 5300, 7000, 9


@dataclass(frozen=True)
class Done:
    """How much was done, in how long."""

    work: float
    seconds: float


@dataclass(frozen=True)
class Load:
    """`ready` gets everything ready and returns what does the work."""

    name: str
    unit: str
    ready: Callable[[Stage, str, str, Meter | None], Callable[[], Done]]
    key: str = ""


def udp(count: int, size: int = 64, pps: int = 0) -> Load:
    """Small datagrams from outside, as fast as one sender can."""

    def ready(stage: Stage, _pod: str, world: str, meter: Meter | None) -> Callable[[], Done]:
        argv = [str(stage.tools / "udpgen"), str(UDP_PORT), str(pps), str(size), str(count), POD]

        def go() -> Done:
            told = json.loads(stage.run(argv, netns=world, meter=meter))
            return Done(told["sent"], told["seconds"])

        return go

    return Load(f"UDP, {size} bytes, {count:,} packets", "packet", ready, "small")


def tcp(megabytes: int) -> Load:
    """One TCP stream into the pod with segmentation offload: frames of up to 64 KiB."""

    def ready(stage: Stage, pod: str, world: str, meter: Meter | None) -> Callable[[], Done]:
        port = str(IPERF_PORT)
        server = stage.spawn(
            ["iperf3", "-s", "-1", "-p", port, "--forceflush"], netns=pod, meter=meter
        )
        first_line(server)
        until(lambda: _listening(stage, pod, IPERF_PORT), "iperf3 to listen")
        amount = str(megabytes * 1_000_000)

        def go() -> Done:
            said = stage.run(
                ["iperf3", "-c", POD, "-p", port, "-n", amount, "-J"], netns=world, meter=meter
            )
            stage.end(server, signal.SIGTERM)
            end = json.loads(said)["end"]["sum_received"]
            return Done(end["bytes"], end["seconds"])

        return go

    return Load(f"TCP bulk (TSO), {megabytes:,} MB", "byte", ready, "bulk")


def connections(count: int) -> Load:
    """Short connections into the pod: 100 bytes there, 300 back."""

    def ready(stage: Stage, pod: str, world: str, meter: Meter | None) -> Callable[[], Done]:
        program, port = str(stage.tools / "conngen"), str(CONN_PORT)
        server = stage.spawn([program, "serve", POD, port], netns=pod, meter=meter)
        first_line(server)

        def go() -> Done:
            said = stage.run([program, "call", POD, port, str(count)], netns=world, meter=meter)
            stage.end(server)
            told = json.loads(said)
            if told["failed"]:
                raise Failed(f"{told['failed']} of {count} connections failed")
            return Done(told["done"], told["seconds"])

        return go

    return Load(f"short TCP connections, {count:,}", "connection", ready, "connections")


def _listening(stage: Stage, netns: str, port: int) -> bool:
    return f":{port} " in stage.run(["ss", "-Hltn"], netns=netns)
