"""How long it takes to freeze a history while traffic goes on."""

from __future__ import annotations

import asyncio
import time

from bench import loads
from bench.figures import median, ms, number, percentile
from bench.recorder import Recorder, budget_for
from bench.report import Section, Table, Verdict
from bench.stage import POD, Stage, until
from tripshark.model.target import TargetKey
from tripshark.recorder.client import RecorderClient
from tripshark.recorder.config import MIB

PPS, SIZE = 20_000, 1000
WANTED_S = 0.1


def measure(stage: Stage) -> Section:
    section = Section(title="Freezing a history while traffic flows")
    table = Table(
        columns=("ring", "freezes", "p50", "p99", "longest", "copied", "overwritten", "lost")
    )
    count = 20 if stage.quick else 120
    pod, world = stage.pair()
    stage.sink(pod, loads.UDP_PORT)
    for mib in (64, 10):
        stage.say(f"{count} freezes of {mib} MiB")
        seconds, copied, overwritten, lost = _freezes(stage, pod, world, mib, count)
        table.rows.append(
            (
                f"{mib} MiB" + (" (16 MiB per target)" if mib == 10 else ""),
                str(count),
                ms(percentile(seconds, 0.5)),
                ms(percentile(seconds, 0.99)),
                ms(max(seconds)),
                f"{median(copied) / MIB:.1f} MiB",
                f"{overwritten} blocks",
                f"{lost} packets",
            )
        )
        if mib == 64:
            p99 = percentile(seconds, 0.99)
            section.verdicts.append(
                Verdict(
                    what="freeze of 64 MiB, p99",
                    wanted=f"under {ms(WANTED_S)}",
                    found=ms(p99),
                    reached=p99 < WANTED_S,
                )
            )
    section.tables.append(table)
    section.explain(f"""
        Meanwhile {number(PPS)} packets of {SIZE} bytes come in per second, so the kernel overwrites the
        ring under the copy's hands. Timed from the client's call to the history mapped in the client:
        request, copy into a sealed memfd, descriptor over the socket, mapping.

        *overwritten*: blocks that the kernel took back before they could be copied (always the oldest;
        the evidence says so). *lost*: packets that the kernel dropped because of it.
    """)
    return section


def _freezes(
    stage: Stage, pod: str, world: str, mib: int, count: int
) -> tuple[list[float], list[float], int, int]:
    """Seconds and bytes of each, blocks overwritten, packets lost."""
    budget = budget_for(mib)
    recorder = Recorder(stage, include=pod, per_target=budget, total=budget, copies=256 * MIB)
    try:
        recorder.wait_for(pod)
        loads.udp(mib * MIB * 5 // 4 // SIZE, SIZE).ready(stage, pod, world, None)()
        sender = stage.spawn(
            [str(stage.tools / "udpgen"), "9", str(PPS), str(SIZE), str(PPS * 120), POD],
            netns=world,
        )
        before = recorder.rings()[pod]
        until(lambda: recorder.rings()[pod].packets > before.packets, "traffic")
        (target,) = recorder.targets()
        result = recorder.ask(lambda client: _repeat(client, target.key, count))
        lost = recorder.rings()[pod].drops - before.drops
        stage.end(sender)
        return (*result, lost)
    finally:
        recorder.stop()


async def _repeat(
    client: RecorderClient, key: TargetKey, count: int
) -> tuple[list[float], list[float], int]:
    seconds: list[float] = []
    sizes: list[float] = []
    overwritten = 0
    for _ in range(count):
        began = time.perf_counter()
        (frozen,) = await client.freeze([key])
        seconds.append(time.perf_counter() - began)
        sizes.append(sum(copy.data.nbytes for copy in frozen.copies))
        overwritten += sum(copy.overwritten for copy in frozen.copies)
        await client.release(frozen)
        await asyncio.sleep(0.01)
    return seconds, sizes, overwritten
