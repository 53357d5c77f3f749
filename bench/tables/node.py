"""A whole node: real pods of a real containerd, the whole product beside them; how soon each is recorded, and what it costs."""

from __future__ import annotations

import os
import statistics
import time
from pathlib import Path
from typing import Any

from tests.containers.runtime import Pod, start_containerd, why_not
from tests.e2e.machine import Machine

from bench.report import Section, Table, Verdict
from bench.stage import Failed, Stage, until

PODS = 110
TICKS = os.sysconf("SC_CLK_TCK")
IDLE_S = 30
MIB = 1 << 20
IDLE_WANTED = 0.03  # of a core, everything together


def measure(stage: Stage) -> Section:
    if why := why_not():
        raise Failed(why)
    count, idle_s = (20, 10) if stage.quick else (PODS, IDLE_S)
    section = Section(title="A whole node: real pods, everything running")
    with start_containerd() as containerd:
        folder = Path(stage.folder) / "product"
        folder.mkdir()
        stage.folder.chmod(0o755)
        machine = Machine(
            folder,
            containers={"enabled": "on", "sockets": [containerd.socket]},
            recorder={"host": True},
        ).start()
        try:
            called: dict[str, int] = {}
            pods: list[Pod] = []
            for number in range(count):
                name = f"pod-{number}"
                called[name] = time.time_ns()
                pods.append(containerd.run_pod(name, "bench", argv=("/bin/sleep", "100000")))
                if number % 10 == 9:
                    stage.say(f"{number + 1} pods")
            until(lambda: len(_known(machine)) >= count, "every pod to be recorded by name", 60)
            known = _known(machine)
            _delays(section, called, known)
            time.sleep(15)  # IPv6 has settled; what comes now is idleness
            _costs(section, machine, idle_s, count)
        finally:
            machine.stop()
    section.explain(f"""
        Pods are started one after the other by CRI, as a kubelet starts them; *called* is when RunPodSandbox was
        called, which returns some 130 ms later. *recorded* is the moment from which packets of eth0 are kept,
        *first packet* the pod's own first one (IPv6's duplicate address detection).

        Cost: all processes of `tripshark run`, {idle_s} seconds without alerts and without traffic but what the kernels
        exchange by themselves; memory is the proportional set size, rings included where they are mapped.
    """)
    return section


def _known(machine: Machine) -> dict[str, dict[str, Any]]:
    """This bench's pods, by name, that have a ring on eth0."""
    return {
        each["title"].partition("/")[2]: each
        for each in machine.get("/v1/targets")["targets"]  # type: ignore[union-attr]
        if each["title"].startswith("bench/")  # type: ignore[index]
        and any(ring["interface"] == "eth0" for ring in each["rings"])  # type: ignore[index]
    }


def _delays(section: Section, called: dict[str, int], known: dict[str, dict[str, Any]]) -> None:
    recorded, before_first, late = [], [], 0
    for name, at_ns in called.items():
        target = known[name]
        since_ns = target["since_ns"]
        recorded.append((since_ns - at_ns) / 1e6)
        first = min(
            (ring["oldest_ns"] for ring in target["rings"] if ring["oldest_ns"]), default=0
        )
        if first:
            before_first.append((first - since_ns) / 1e6)
            late += first < since_ns
    table = Table(columns=("from … to", "median", "95 %", "longest", "pods"))
    for title, values in (
        ("RunPodSandbox called … namespace recorded", recorded),
        ("namespace recorded … first packet kept", before_first),
    ):
        if values:
            ordered = sorted(values)
            table.rows.append(
                (
                    title,
                    f"{statistics.median(ordered):.1f} ms",
                    f"{ordered[int(0.95 * (len(ordered) - 1))]:.1f} ms",
                    f"{ordered[-1]:.1f} ms",
                    str(len(ordered)),
                )
            )
    section.tables.append(table)
    section.verdicts.append(
        Verdict(
            what="pods recorded before their first packet",
            wanted="all",
            found=f"{len(before_first) - late} of {len(called)}",
            reached=not late and len(before_first) == len(called),
        )
    )


def _costs(section: Section, machine: Machine, seconds: int, count: int) -> None:
    if machine.process is None:
        raise Failed("the product is not running")
    pids = _family(machine.process.pid)
    before = {pid: _cpu(pid) for pid in pids}
    time.sleep(seconds)
    table = Table(columns=(f"{count} idle pods", "CPU of one core", "memory"))
    total, memory = 0.0, 0
    for pid in pids:
        share = (_cpu(pid) - before[pid]) / seconds
        held = _memory(pid)
        total, memory = total + share, memory + held
        table.rows.append((_name(pid), f"{100 * share:.2f} %", f"{held / MIB:,.0f} MiB"))
    table.rows.append(("all", f"{100 * total:.2f} %", f"{memory / MIB:,.0f} MiB"))
    section.tables.append(table)
    section.verdicts.append(
        Verdict(
            what=f"CPU of everything at {count} idle pods",
            wanted=f"under {100 * IDLE_WANTED:g} % of one core",
            found=f"{100 * total:.2f} %",
            reached=total < IDLE_WANTED,
        )
    )


def _family(pid: int) -> list[int]:
    """The process and everything below it."""
    found = [pid]
    for each in found:
        for task in Path(f"/proc/{each}/task").iterdir():
            found += [int(child) for child in (task / "children").read_text().split()]
    return found


def _cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def _memory(pid: int) -> int:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return 0


def _name(pid: int) -> str:
    argv = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    for word in argv:
        if word.startswith("tripshark.programs."):
            worker = " (worker)" if "--worker" in argv else ""
            return word.removeprefix("tripshark.programs.") + worker
    return "supervisor"
