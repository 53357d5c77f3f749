"""Many pods in one recorder, idle and busy: CPU, memory and losses, beside one dumpcap for each."""

from __future__ import annotations

import re
import shutil
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from bench.cpu import Meter
from bench.figures import number
from bench.recorder import Recorder
from bench.report import Section, Table, Verdict
from bench.stage import Stage, until
from tripshark.recorder.config import MIB

COUNTS = (50, 200)
RING_MIB = 4
IDLE_WANTED = 0.001  # of a core, 200 pods
BUSY_SHARE, BUSY_PPS, QUIET_PPS, SIZE = 10, 2000, 2, 200
SETTLE_S = 2.0
DUMPCAPS_NEED = 4 << 30  # bytes of free memory, or 200 of them are left out


@dataclass(frozen=True)
class _Many:
    """Something that records all pods."""

    pids: list[int]
    files: Path | None
    stop: Callable[[], tuple[int, int]]  # packets recorded and dropped since it began


def measure(stage: Stage) -> Section:
    section = Section(title="Many pods in one recorder")
    table = Table(
        columns=("recorder", "ready", "memory", "idle CPU", "idle", "mixed CPU", "mixed", "recorded", "lost")
    )  # fmt: skip
    for count in COUNTS[:1] if stage.quick else COUNTS:
        with Stage(quick=stage.quick, tools=stage.tools) as inner:
            stage.say(f"{count} pods")
            table.rows += _pods(inner, count, section)
    section.tables.append(table)
    section.explain(f"""
        Each pod has a veth and {RING_MIB} MiB of memory to record into (dumpcap: -B {RING_MIB} and four files of
        1 MiB in tmpfs). *mixed*: one pod in {BUSY_SHARE} gets {number(BUSY_PPS)} packets of {SIZE} bytes a second, the
        others {QUIET_PPS}. CPU is of all recording processes over the stated time, and as a share of one core;
        *memory* is the sum of their proportional set sizes, rings included (shared libraries are
        counted once), and of the files in tmpfs; *ready* is the time until every pod was being recorded.

        Ring memory is kernel memory that no cgroup is charged for: `recorder.total` bounds it. An idle
        recorder still looks at every namespace every few seconds, in case the kernel failed to tell;
        that, and counters being saved, is the idle CPU.
    """)
    return section


def _pods(stage: Stage, count: int, section: Section) -> list[tuple[str, ...]]:
    hub, pods = stage.pods(count)
    for name, _ in pods:
        stage.sink(name)
    meter = stage.meter("capture")
    names = [name for name, _ in pods]
    seconds = 5 if stage.quick else 10
    rows = []
    arms: dict[str, Callable[[], _Many]] = {
        f"Tripshark, {count} pods": lambda: _tripshark(stage, names, meter),
        f"{count} × dumpcap": lambda: _dumpcaps(stage, names, meter),
    }
    for title, begin in arms.items():
        if "×" in title and count > 50 and _available() < DUMPCAPS_NEED:
            rows.append((title, "left out: too little memory", *[""] * 7))
            continue
        stage.say(title)
        began = time.monotonic()
        many = begin()
        ready = time.monotonic() - began
        time.sleep(SETTLE_S)
        memory = _memory(many)
        idle = _over(seconds, meter)
        mixed = _mixed(stage, hub, [address for _, address in pods], seconds, meter)
        recorded, dropped = many.stop()
        rows.append(
            (
                title,
                f"{ready:.1f} s",
                f"{memory / MIB:,.0f} MiB",
                f"{number(1e3 * idle)} ms in {seconds} s",
                f"{100 * idle / seconds:.2f} %",
                f"{number(1e3 * mixed)} ms in {seconds} s",
                f"{100 * mixed / seconds:.2f} %",
                f"{recorded:,}",
                f"{dropped:,}",
            )
        )
        if title.startswith("Tripshark") and (stage.quick or count == max(COUNTS)):
            section.verdicts.append(
                Verdict(
                    what=f"{count} idle pods, CPU of the recorder",
                    wanted=f"under {100 * IDLE_WANTED:g} % of a core for 200",
                    found=f"{100 * idle / seconds:.3f} %",
                    reached=idle / seconds < IDLE_WANTED,
                )
            )
    return rows


def _over(seconds: float, meter: Meter) -> float:
    """CPU seconds used in so much time."""
    before = meter.seconds()
    time.sleep(seconds)
    return meter.seconds() - before


def _mixed(stage: Stage, hub: str, addresses: list[str], seconds: int, meter: Meter) -> float:
    busy = addresses[: max(1, len(addresses) // BUSY_SHARE)]
    quiet = addresses[len(busy) :]
    senders = [
        stage.spawn(
            [str(stage.tools / "udpgen"), "9", str(pps * len(to)), str(SIZE),
             str(pps * len(to) * seconds), *to],
            netns=hub,
        )
        for pps, to in ((BUSY_PPS, busy), (QUIET_PPS, quiet))
    ]  # fmt: skip
    before = meter.seconds()
    time.sleep(seconds + 0.5)
    used = meter.seconds() - before
    for sender in senders:
        stage.end(sender)
    return used


# ---- who records ----------------------------------------------------------------------------------------


def _tripshark(stage: Stage, names: list[str], meter: Meter) -> _Many:
    recorder = Recorder(
        stage,
        include="ts-bench-p*",
        meter=meter,
        per_target=RING_MIB * MIB,
        total=RING_MIB * MIB * len(names),
    )
    recorder.wait_for(*names)

    def stop() -> tuple[int, int]:
        found = recorder.rings()
        rings = [found[name] for name in names]
        recorder.stop()
        return sum(r.packets - r.drops for r in rings), sum(r.drops for r in rings)

    return _Many(recorder.pids, None, stop)


def _dumpcaps(stage: Stage, names: list[str], meter: Meter) -> _Many:
    folder = stage.memory / "dumpcap"
    folder.mkdir()
    limits = ["-B", str(RING_MIB), "-b", "filesize:1024", "-b", "files:4"]
    children = [
        stage.spawn(
            ["dumpcap", "-q", "-i", "eth0", *limits, "-w", str(folder / f"{name}.pcapng")],
            netns=name,
            meter=meter,
        )
        for name in names
    ]
    until(lambda: len(list(folder.iterdir())) >= len(names), "every dumpcap to begin", 60)

    def stop() -> tuple[int, int]:
        for child in children:
            child.send_signal(signal.SIGINT)
        said = "".join(stage.end(child, signal.SIGINT)[1] for child in children)
        shutil.rmtree(folder)
        found = re.findall(r"received/dropped on interface '[^']*': (\d+)/(\d+)", said)
        return sum(int(kept) for kept, _ in found), sum(int(lost) for _, lost in found)

    return _Many([child.pid for child in children], folder, stop)


def _memory(many: _Many) -> int:
    total = sum(map(_proportional, many.pids))
    if many.files:
        total += sum(each.stat().st_blocks * 512 for each in many.files.iterdir())
    return total


def _proportional(pid: int) -> int:
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return 0


def _available() -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return 0
