"""Pods that come and go all the time: what they leave behind, and how soon each is recorded. A full node, idle."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bench.cpu import Meter
from bench.figures import number
from bench.recorder import Recorder
from bench.report import Section, Table, Verdict
from bench.sandboxes import Sandbox, inside
from bench.stage import PREFIX, Failed, Stage, ip, until
from tripshark.recorder.config import MIB

COUNT, QUICK_COUNT = 5000, 200
RATE = 10  # starts per second
LIFE_S = 1.0
FULL_NODE = 110
IDLE_WANTED = 0.03  # of a core
TOTAL_MIB, PER_TARGET_MIB = 256, 8
WORLD = f"{PREFIX}world"
_SAMPLE = 25  # of so many pods one is asked after


def measure(stage: Stage) -> Section:
    section = Section(title="Pods that come and go")
    ip("netns", "add", WORLD)
    stage.callback(ip, "netns", "del", WORLD)
    _full_node(stage, section)
    _churn(stage, section)
    section.explain(f"""
        *A full node*: {FULL_NODE} pods with a veth each, {PER_TARGET_MIB} MiB wanted for each and {TOTAL_MIB} MiB
        for all. Memory is the proportional set size of both processes, rings included.

        *Churn*: namespaces are made as a CNI plugin makes them (a file, the namespace mounted on it, a veth pair,
        an address, up), {RATE} a second; each says three packets and lives {LIFE_S:g} s. Tombstones are kept for 2 s.
        *recorded after* is from the file's appearance until the first socket records, from every {_SAMPLE}th pod.
    """)
    return section


def _full_node(stage: Stage, section: Section) -> None:
    stage.say(f"{FULL_NODE} pods")
    meter = stage.meter("full")
    with _recorder(stage, meter=meter) as recorder:
        boxes = [_box(each) for each in range(FULL_NODE)]
        try:
            began = time.monotonic()
            for each in boxes:
                each.make()
                each.plug(1)
            recorder.wait_for(*(each.name for each in boxes))
            took = time.monotonic() - began
            time.sleep(3)
            seconds = 5 if stage.quick else 20
            before = meter.seconds()
            time.sleep(seconds)
            idle = (meter.seconds() - before) / seconds
            stats = recorder.ask(lambda client: client.stats())
            memory = sum(map(_proportional, recorder.pids))
        finally:
            _remove(boxes)
    rings = int(str(stats["ring_bytes"]))
    section.tables.append(
        Table(
            title="A full node",
            columns=("pods", "all recorded", "rings", "memory", "exchanged rings", "idle CPU"),
            rows=[
                (
                    str(FULL_NODE),
                    f"{took:.1f} s",
                    f"{rings / MIB:,.0f} MiB",
                    f"{memory / MIB:,.0f} MiB",
                    str(stats["exchanges"]),
                    f"{100 * idle:.2f} %",
                )
            ],
        )
    )
    section.verdicts += [
        Verdict(
            what=f"{FULL_NODE} idle pods, CPU of the recorder",
            wanted=f"under {100 * IDLE_WANTED:g} % of a core",
            found=f"{100 * idle:.2f} %",
            reached=idle < IDLE_WANTED,
        ),
        Verdict(
            what=f"{FULL_NODE} pods, ring memory",
            wanted=f"at most {TOTAL_MIB} MiB",
            found=f"{rings / MIB:,.0f} MiB",
            reached=rings <= TOTAL_MIB * MIB,
        ),
    ]


def _churn(stage: Stage, section: Section) -> None:
    count = QUICK_COUNT if stage.quick else COUNT
    stage.say(f"{count} pods, {RATE} a second")
    meter = stage.meter("churn")
    with _recorder(stage, meter=meter, tombstone_s=2) as recorder:
        _run(recorder, 40, [])  # threads are started and caches filled by then
        _settle(recorder)
        before = [_held(pid) for pid in recorder.pids]
        delays: list[float] = []
        cpu, began = meter.seconds(), time.monotonic()
        missed = _run(recorder, count, delays)
        took, cpu = time.monotonic() - began, meter.seconds() - cpu
        _settle(recorder)
        time.sleep(1)
        after = [_held(pid) for pid in recorder.pids]
        stats = recorder.ask(lambda client: client.stats())
    left = [
        each
        for each in inside(
            f"/run/netns/{WORLD}", lambda: os.listdir("/proc/thread-self/net/dev_snmp6")
        )
        if each.startswith("v")
    ]
    rows: list[Sequence[str]] = []
    for name, old, new in zip(("holder", "recorder"), before, after, strict=True):
        cells = [f"{old[kind]} → {new[kind]}" for kind in ("fds", "memfds", "threads", "mib")]
        rows.append((name, *cells))
    section.tables.append(
        Table(
            title=f"After {count:,} pods",
            columns=("process", "descriptors", "memfds", "threads", "resident MiB"),
            rows=rows,
        )
    )
    delays.sort()
    section.tables.append(
        Table(
            title="Meanwhile",
            columns=("pods", "a second", "CPU", "recorded after, median", "95 %", "unrecorded", "veths left"),
            rows=[
                (
                    f"{count:,}",
                    number(count / took),
                    f"{100 * cpu / took:.1f} %",
                    f"{delays[len(delays) // 2]:.1f} ms",
                    f"{delays[len(delays) * 95 // 100]:.1f} ms",
                    f"{missed} of {len(delays) + missed}",
                    str(len(left)),
                )
            ],
        )
    )  # fmt: skip
    clean = not left and all(
        new[kind] <= old[kind] + (34 if kind in ("fds", "threads") else 0)
        for old, new in zip(before, after, strict=True)
        for kind in ("fds", "memfds", "threads")
    )
    section.verdicts.append(
        Verdict(
            what=f"{count:,} pods, {RATE} a second: descriptors, memfds, veths left behind",
            wanted="none",
            found="none" if clean else "see the table",
            reached=clean and int(str(stats["gone"])) == 0,
        )
    )


@contextlib.contextmanager
def _recorder(stage: Stage, *, meter: Meter, **changes: int) -> Iterator[Recorder]:
    recorder = Recorder(
        stage,
        include=f"{PREFIX}cni-*",
        per_target=PER_TARGET_MIB * MIB,
        total=TOTAL_MIB * MIB,
        meter=meter,
        **changes,
    )
    try:
        yield recorder
    finally:
        recorder.stop()


def _box(number: int) -> Sandbox:
    return Sandbox(f"/run/netns/{WORLD}", number, prefix=f"{PREFIX}cni-")


def _run(recorder: Recorder, count: int, delays: list[float]) -> int:
    """So many lives; of a sample, milliseconds until each was recorded. How many of it were not at all."""
    missed = 0

    def life(each: int) -> Sandbox:
        box = _box(each)
        box.make()
        try:
            time.sleep(0.02)
            box.plug(3)
            time.sleep(LIFE_S)
        finally:
            box.remove()
        return box

    with ThreadPoolExecutor(4 * RATE) as crew:
        began = time.monotonic()
        lives = []
        for n in range(count):
            wait = began + n / RATE - time.monotonic()
            if wait > 0:
                time.sleep(wait)
            lives.append(crew.submit(life, n))
            done = n - 2 * RATE
            if done >= 0 and done % _SAMPLE == 0:
                box = lives[done].result()
                found = _delay(recorder, box)
                if found is None:
                    missed += 1
                else:
                    delays.append(found)
        for each in lives:
            each.result()
    return missed


def _delay(recorder: Recorder, box: Sandbox) -> float | None:
    for target in recorder.targets():
        if target.name == f"netns:{box.name}":
            opened = [
                r.opened_ns for r in target.rings if r.interface.name == "eth0" and r.packets
            ]
            return (min(opened) - box.made_ns) / 1e6 if opened else None
    return None


def _settle(recorder: Recorder) -> None:
    def empty() -> bool:
        stats = recorder.ask(lambda client: client.stats())
        return not stats["targets"] and not stats["gone"] and not stats["tombstones"]

    until(empty, "everything to be forgotten", 60)


def _held(pid: int) -> dict[str, int]:
    found = {"fds": 0, "memfds": 0}
    for each in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found["memfds"] += os.readlink(each).startswith("/memfd:")
            found["fds"] += 1
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == "Threads":
            found["threads"] = int(value)
        elif name == "VmRSS":
            found["mib"] = int(value.split()[0]) >> 10
    return found


def _proportional(pid: int) -> int:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    raise Failed(f"no memory of {pid}")


def _remove(boxes: list[Sandbox]) -> None:
    for each in boxes:
        with contextlib.suppress(OSError):
            each.remove()
