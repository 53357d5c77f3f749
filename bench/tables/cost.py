"""What recording costs, and what it loses, beside the other tools."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from bench import arms, cpu, loads
from bench.arms import Arm
from bench.cpu import Meter
from bench.figures import median, number, spread
from bench.loads import Load
from bench.report import Section, Table, Verdict
from bench.stage import Stage, counted

DEFAULT, LARGE = arms.tripshark(16, " (default)"), arms.tripshark(64)
DUMPCAP, DUMPCAP_LARGE = arms.dumpcap(files_mib=16), arms.dumpcap(files_mib=64, buffer_mib=64)
ARMS: Sequence[Arm] = (
    arms.NONE,
    arms.REJECT,
    DEFAULT,
    LARGE,
    DUMPCAP,
    DUMPCAP_LARGE,
    arms.tcpdump(),
    arms.netsniff(),
)
WANTED = {"small": 50, "bulk": 20, "connections": 20}  # dumpcap's CPU divided by ours
SETTLE_S = 0.3  # what is still in buffers when the work is done costs CPU too


@dataclass(frozen=True)
class Run:
    work: float
    seconds: float
    capture_s: float  # CPU of the capturing processes
    total_s: float  # and of the work, and of the kernel's packet threads
    foreign: float  # cores that others used meanwhile
    shown: int  # packets that passed the interface
    dropped: int

    @property
    def lost(self) -> float:
        return self.dropped / self.shown if self.shown else 0.0


def measure(stage: Stage) -> Section:
    section = Section(title="What recording costs: CPU, losses, and the slow-down of the work")
    pod, world = stage.pair()
    stage.sink(pod, loads.UDP_PORT)
    capture, work = stage.meter("capture"), stage.meter("work", reaped=True)
    scale, repetitions = (3, 1) if stage.quick else (1, 3)
    lost = []
    foreign = []
    for load in (
        loads.udp(600_000 // scale),
        loads.tcp(3000 // scale),
        loads.connections(12_000 // scale),
    ):
        runs: dict[str, list[Run]] = {arm.name: [] for arm in ARMS}
        for repetition in range(repetitions):
            stage.say(f"{load.name}, repetition {repetition + 1} of {repetitions}")
            for arm in ARMS:
                runs[arm.name].append(run_arm(stage, arm, load, pod, world, capture, work))
        section.tables.append(_table(load, runs))
        section.verdicts += _cheap(load, runs)
        lost += _losses(load, runs)
        foreign += [run.foreign for each in runs.values() for run in each]
    section.verdicts.append(_no_drops(lost))
    section.explain(_reading(median(foreign)))
    return section


def run_arm(
    stage: Stage, arm: Arm, load: Load, pod: str, world: str, capture: Meter, work: Meter
) -> Run:
    running = arm.attach(stage, pod, capture)
    try:
        go = load.ready(stage, pod, world, work)
        time.sleep(0.05)
        shown, own, busy = counted(pod), cpu.own_seconds(), cpu.busy_seconds()
        used, worked, soft = capture.seconds(), work.seconds(), cpu.softirq_seconds()
        began = time.monotonic()
        done = go()
        time.sleep(SETTLE_S)
        used, worked = capture.seconds() - used, work.seconds() - worked
        soft = cpu.softirq_seconds() - soft
        wall = time.monotonic() - began
        others = cpu.busy_seconds() - busy - used - worked - soft - (cpu.own_seconds() - own)
        shown = counted(pod) - shown
    finally:
        counts = running.counts()
    return Run(
        work=done.work,
        seconds=done.seconds,
        capture_s=used,
        total_s=used + worked + soft,
        foreign=max(0.0, others) / wall,
        shown=shown,
        dropped=counts.dropped,
    )


def paired(runs: dict[str, list[Run]], arm: Arm, base: Arm, figure: str) -> list[float]:
    """A figure per unit of work, relative to another arm's in the same repetition."""

    def value(run: Run) -> float:
        return getattr(run, figure) / run.work

    return [
        value(one) / value(other) if value(other) else float("inf")
        for one, other in zip(runs[arm.name], runs[base.name], strict=True)
    ]


def _table(load: Load, runs: dict[str, list[Run]]) -> Table:
    table = Table(
        title=load.name,
        columns=(
            "recorder",
            "its CPU",
            "per packet",
            "lost",
            f"work: {load.unit}s/s",
            "speed",
            "all CPU",
        ),
    )
    for arm in ARMS:
        own = runs[arm.name]
        table.rows.append(
            (
                arm.name,
                f"{number(1e3 * median(r.capture_s for r in own))} ms" if arm.records else "–",
                f"{number(1e6 * median(r.capture_s / r.shown for r in own))} µs"
                if arm.records
                else "–",
                f"{100 * median(r.lost for r in own):.1f} %" if arm.records else "–",
                number(median(r.work / r.seconds for r in own)),
                "×1" if arm is arms.NONE
                else f"×{1 / median(paired(runs, arm, arms.NONE, 'seconds')):.2f}",
                "×1" if arm is arms.NONE
                else f"×{median(paired(runs, arm, arms.NONE, 'total_s')):.2f}",
            )
        )  # fmt: skip
    none = runs[arms.NONE.name]
    table.rows.append(
        (
            "(noise floor: nothing attached)",
            *[""] * 4,
            spread([r.seconds / r.work for r in none]),
            spread([r.total_s / r.work for r in none]),
        )
    )
    return table


def _pairs(load: Load) -> list[tuple[str, Arm, Arm]]:
    """Who is compared with whom: rings and files of the same size."""
    what = load.name.partition(",")[0]
    return [(f"{what}, 16 MiB", DEFAULT, DUMPCAP), (f"{what}, 64 MiB", LARGE, DUMPCAP_LARGE)]


def _cheap(load: Load, runs: dict[str, list[Run]]) -> list[Verdict]:
    verdicts = []
    for what, ours, theirs in _pairs(load):
        times = paired(runs, theirs, ours, "capture_s")
        found = f"1/{number(median(times))}"
        if median(run.lost for run in runs[theirs.name]) > 0.01:
            kept = [
                each * (1 - us.lost) / (1 - them.lost)
                for each, us, them in zip(times, runs[ours.name], runs[theirs.name], strict=True)
            ]
            found += f"; per packet recorded 1/{number(median(kept))}"
        verdicts.append(
            Verdict(
                what=f"recorder's CPU beside dumpcap's: {what}",
                wanted=f"1/{WANTED[load.key]}",
                found=found,
                reached=median(times) >= WANTED[load.key],
            )
        )
    return verdicts


def _losses(load: Load, runs: dict[str, list[Run]]) -> list[tuple[str, int, float]]:
    """Ours in packets at worst and dumpcap's share, of each pair."""
    return [
        (
            what,
            max(run.dropped for run in runs[ours.name]),
            median(run.lost for run in runs[theirs.name]),
        )
        for what, ours, theirs in _pairs(load)
    ]


def _no_drops(lost: list[tuple[str, int, float]]) -> Verdict:
    ours = {name: dropped for name, dropped, _ in lost if dropped}
    worst = max(share for *_, share in lost)
    found = f"none, dumpcap loses up to {100 * worst:.0f} %"
    if ours:
        told = "; ".join(
            f"{dropped:,} packets at worst ({name})" for name, dropped in ours.items()
        )
        found = f"{told}; dumpcap loses up to {100 * worst:.0f} %"
    return Verdict(
        what="no packet lost by Tripshark on any of these loads",
        wanted="none where dumpcap loses half",
        found=found,
        reached=not ours,
    )


def _reading(foreign: float) -> str:
    doubt = "" if foreign < 0.15 else ": speeds are provisional, CPU times less so"
    return f"""
        *its CPU*: user and system time of the capturing processes (for Tripshark both of them) while the
        same amount of work is done, and {SETTLE_S:g} s more for what is still in buffers. *lost*: the
        kernel's count of packets dropped because the tool did not keep up, of all that passed the
        interface. Old packets that a ring overwrites are not lost in this sense: all of these are rings.

        *speed* is the work's own; *all CPU* is capture, work and the kernel's packet threads per unit of
        work; both relative to nothing attached in the same repetition. Differences within the noise floor
        are none. The row *socket that rejects all* is what the kernel charges for any tap at all: what
        Tripshark costs the work beyond it is the copy into the ring, which no user-space program can make
        cheaper.

        The tools write their rings of files to memory (tmpfs), not to a disk: on a disk they cost more. A
        tool that loses packets is cheaper for it: read CPU only together with *lost*. Of a target's
        memory Tripshark gives five eighths to the first interface.

        Other processes of this machine used {foreign:.2f} cores meanwhile (median){doubt}.
    """
