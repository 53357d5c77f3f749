"""How fast a frozen history becomes a filtered pcapng file, beside tcpdump and tshark on the same packets."""

from __future__ import annotations

import resource
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from bench import loads
from bench.figures import median, number
from bench.recorder import Recorder, budget_for
from bench.report import Section, Table, Verdict
from bench.stage import POD, Failed, Stage
from tripshark.formats import bpf, pcapng, ring
from tripshark.formats.packets import Packets, concat
from tripshark.formats.wire import RingCopy
from tripshark.recorder.client import RecorderClient

T = TypeVar("T")

RING_MIB = 64
WANTED = 1.5e6


@dataclass(frozen=True)
class _Case:
    name: str
    filter: str
    display: str  # the same for tshark
    unit: str


SMALL = (
    _Case("small packets, udp", "udp dst port 53 and net 10.98.0.0/16", "udp.dstport == 53", "packets"),
    _Case("small packets, tcp", f"tcp port {loads.CONN_PORT}", f"tcp.port == {loads.CONN_PORT}", "packets"),
)  # fmt: skip
MTU = (
    _Case("MTU packets", f"tcp port {loads.IPERF_PORT} and net 10.98.0.0/16",
          f"tcp.port == {loads.IPERF_PORT}", "MB"),
)  # fmt: skip


def measure(stage: Stage) -> Section:
    section = Section(title="Export with a filter: decode, filter, write")
    pod, world = stage.pair()
    stage.sink(pod, 53)
    slowest = float("inf")
    for cases, fill in ((SMALL, _fill_small), (MTU, _fill_mtu)):
        stage.say(f"a ring of {cases[0].name.partition(',')[0]}")
        budget = budget_for(RING_MIB)
        recorder = Recorder(stage, include=pod, per_target=budget, total=budget)
        try:
            recorder.wait_for(pod)
            fill(stage, pod, world)
            for case in cases:
                stage.say(case.name)
                table, rate = _case(stage, recorder, pod, case)
                section.tables.append(table)
                if case.unit == "packets":
                    slowest = min(slowest, rate)
        finally:
            recorder.stop()
    section.verdicts.append(
        Verdict(
            what="export with a filter, small packets",
            wanted=f"{WANTED / 1e6:g} M packets/s",
            found=f"{slowest / 1e6:.2f} M packets/s",
            reached=slowest >= WANTED,
        )
    )
    section.explain("""
        CPU time, one thread each, of the packets looked at (not of those that matched). Tripshark reads
        raw ring blocks out of a freeze that nobody has touched yet, so page faults are included; the
        others read the same packets as a pcapng file that is in the page cache. All write to memory.

        tcpdump is C and stays ahead; what matters is that a full ring becomes a file in well under a
        second. tshark filters with a display filter, because its capture filters do not work on files;
        the row without a filter shows how much of that is dissection.
    """)
    return section


def _fill_small(stage: Stage, pod: str, world: str) -> None:
    """About four fifths UDP of two sizes, the rest of it connections, all mixed."""
    program = str(stage.tools / "udpgen")
    senders = [
        stage.spawn([program, "53", "40000", str(size), "170000", POD], netns=world)
        for size in (32, 64)
    ]
    loads.connections(9000).ready(stage, pod, world, None)()
    for sender in senders:
        sender.wait(30)
        stage.end(sender)


def _fill_mtu(stage: Stage, pod: str, world: str) -> None:
    for netns in (pod, world):
        stage.run(["ethtool", "-K", "eth0", "tso", "off", "gso", "off", "gro", "off"], netns=netns)
    loads.tcp(90).ready(stage, pod, world, None)()


def _case(stage: Stage, recorder: Recorder, pod: str, case: _Case) -> tuple[Table, float]:
    """The table, and our rate in the case's unit per second."""
    out, whole = stage.memory / "out.pcapng", stage.memory / "in.pcapng"
    repetitions = 1 if stage.quick else 5
    everything = recorder.ask(lambda client: _with_copy(client, pod, _whole(whole)))
    amount = (
        len(everything)
        if case.unit == "packets"
        else int(everything.caplen.sum(dtype="int64")) / 1e6
    )
    program = bpf.compile(case.filter, ring.ETHERNET)
    matched = 0

    def ours() -> float:
        nonlocal matched
        seconds, matched = recorder.ask(
            lambda client: _with_copy(client, pod, lambda copies: _export(copies, program, out))
        )
        return seconds

    source = str(whole)
    ways: dict[str, Callable[[], float]] = {
        "Tripshark, ring → filter → pcapng": ours,
        "tcpdump -r … -w … filter": lambda: _tool(
            ["tcpdump", "-r", source, "-w", str(out), case.filter]
        ),
        "tshark -r … -w …, no filter": lambda: _tool(
            ["tshark", "-n", "-r", source, "-w", str(out)]
        ),
        "tshark -r … -Y filter -w …": lambda: _tool(
            ["tshark", "-n", "-r", source, "-Y", case.display, "-w", str(out)]
        ),
    }
    taken: dict[str, list[float]] = {name: [] for name in ways}
    written: dict[str, int] = {}
    for _ in range(repetitions):
        for name, way in ways.items():
            if "-Y" in name and len(taken[name]) == 1:
                continue  # seconds each; its figure is far from any of the others
            taken[name].append(way())
            if "no filter" not in name:
                written[name] = _count(stage, out)
    if len(set(written.values())) != 1:
        raise Failed(f"the programs do not agree on what matches: {written}")
    share = matched / len(everything)
    table = Table(
        title=f"{case.name}: {len(everything):,} packets, “{case.filter}” keeps {100 * share:.0f} %",
        columns=("program", "CPU", f"{case.unit}/s", "of tcpdump's"),
    )
    best = median(taken["tcpdump -r … -w … filter"])
    for name, seconds in taken.items():
        used = median(seconds)
        table.rows.append(
            (name, f"{number(used)} s", number(amount / used), f"×{number(best / used, 2)}")
        )
    return table, amount / median(taken["Tripshark, ring → filter → pcapng"])


async def _with_copy(client: RecorderClient, pod: str, use: Callable[[list[RingCopy]], T]) -> T:
    """Do something with a fresh freeze of the pod's eth0."""
    (key,) = [each.key for each in await client.targets() if each.name == f"netns:{pod}"]
    (frozen,) = await client.freeze([key])
    try:
        return use([each for each in frozen.copies if each.interface.name == "eth0"])
    finally:
        await client.release(frozen)


def _export(copies: list[RingCopy], program: bpf.Program, out: Path) -> tuple[float, int]:
    """CPU seconds, and how many packets were written."""
    began = time.process_time()
    packets = concat([ring.decode(copy) for copy in copies])
    kept = packets.take(bpf.run(program, packets)).sorted_by_time()
    with out.open("wb") as file:
        pcapng.write(file, section=pcapng.Section(), interfaces=[_INTERFACE], packets=kept)
    return time.process_time() - began, len(kept)


def _whole(path: Path) -> Callable[[list[RingCopy]], Packets]:
    """Everything as a file for the others."""

    def write(copies: list[RingCopy]) -> Packets:
        packets = concat([ring.decode(copy) for copy in copies]).sorted_by_time()
        with path.open("wb") as file:
            pcapng.write(file, section=pcapng.Section(), interfaces=[_INTERFACE], packets=packets)
        return packets.compact()

    return write


def _count(stage: Stage, path: Path) -> int:
    """Packets in a file, as others count them."""
    return int(stage.run(["capinfos", "-M", "-r", "-T", "-c", str(path)]).split()[-1])


_INTERFACE = pcapng.Interface(name="eth0", linktype=ring.ETHERNET, snaplen=262_144)


def _tool(argv: list[str]) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(argv, capture_output=True, text=True, timeout=120)
    if done.returncode:
        raise Failed(f"{argv}: {done.stderr[-300:]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
