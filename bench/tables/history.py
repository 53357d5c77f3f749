"""How much of the past each form of recording keeps in the same memory, and of that what an analyst looks for."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench import arms, loads
from bench.arms import Arm, Counts
from bench.cpu import Meter
from bench.figures import median, number, spread
from bench.recorder import Recorder, budget_for
from bench.report import Section, Table, Verdict
from bench.stage import POD, Failed, Stage, first_line
from bench.tables import cost
from tripshark.formats import pcap, ring
from tripshark.formats.packets import Packets, concat
from tripshark.recorder.client import RecorderClient
from tripshark.recorder.config import MIB

RATE = 50  # conversations per second
CUT = arms.FLOW_CUT
HEADERS = 128
RING_MIB = 10  # of each form; 16 MiB per target give the first interface so much
KINDS = ("DNS answers", "ClientHello", "HTTP request", "HTTP answer")
PER_S = dict(zip(KINDS, (RATE, RATE / 2, RATE / 2, RATE / 2), strict=True))


@dataclass(frozen=True)
class Flood:
    """What goes on beside the conversations: one TCP stream into the pod."""

    name: str
    megabits: int  # per second, 0: none
    seconds: int
    offload: bool = True  # frames of up to 64 KiB instead of 1514 bytes


FLOODS = (
    Flood("no flood", 0, 40),
    Flood("flood of 1 Gbit/s, frames of up to 64 KiB (TSO)", 1000, 30),
    Flood("flood of 200 Mbit/s, frames of 1514 bytes", 200, 12, offload=False),
)


@dataclass
class Form:
    """One way to use the memory: recorders whose histories are read together."""

    name: str
    recorders: list[Recorder]
    reach_s: list[float] = field(default_factory=list)
    kept: dict[str, set[str]] = field(default_factory=lambda: {kind: set() for kind in KINDS})


def measure(stage: Stage) -> Section:
    section = Section(title="How far back: plain rings, two rings, and rings that cut flows")
    pod, world = stage.pair()
    reading: dict[str, dict[str, Form]] = {}
    for flood in FLOODS:
        stage.say(flood.name)
        forms = _record(stage, pod, world, flood)
        reading[flood.name] = {form.name: form for form in forms}
        section.tables.append(_table(flood, forms))
    section.verdicts += _verdicts(reading)
    section.tables += _costs(stage, pod, world)
    section.explain(_READING)
    return section


# ---- history --------------------------------------------------------------------------------------------


def _forms(stage: Stage, pod: str) -> list[Form]:
    whole, half = budget_for(RING_MIB), budget_for(RING_MIB // 2)

    def recorder(budget: int, **changes: int) -> Recorder:
        started = Recorder(stage, include=pod, per_target=budget, total=512 * MIB, **changes)
        started.wait_for(pod)
        return started

    return [
        Form("one ring, whole packets", [recorder(whole)]),
        Form(
            "two rings: half headers, half whole",
            [recorder(half, snaplen=HEADERS), recorder(half)],
        ),
        Form("one ring, flows cut as shipped", [recorder(whole, flow_cut=CUT)]),
        Form("one ring, headers only", [recorder(whole, snaplen=HEADERS)]),
    ]


def _record(stage: Stage, pod: str, world: str, flood: Flood) -> list[Form]:
    """All forms record the same packets at the same time."""
    seconds = flood.seconds // 4 if stage.quick else flood.seconds
    for net in (pod, world):
        how = "on" if flood.offload else "off"
        stage.run(["ethtool", "-K", "eth0", "tso", how, "gso", how, "gro", how], netns=net)
    talk = [sys.executable, str(Path(__file__).parent.parent / "load" / "talk.py")]
    server = stage.spawn([*talk, "serve", POD], netns=pod)
    first_line(server)
    sink = stage.spawn(
        ["iperf3", "-s", "-1", "-p", str(loads.IPERF_PORT), "--forceflush"], netns=pod
    )
    first_line(sink)
    forms = _forms(stage, pod)
    try:
        caller = stage.spawn([*talk, "call", POD, str(RATE), str(seconds)], netns=world)
        if flood.megabits:
            limit = ["-b", f"{flood.megabits}M", "-t", str(seconds)]
            stage.run(
                ["iperf3", "-c", POD, "-p", str(loads.IPERF_PORT), *limit],
                netns=world,
                seconds=120,
            )
        said, _ = caller.communicate(timeout=120)
        if json.loads(said)["failed"]:
            raise Failed(f"conversations failed: {said}")
        for form in forms:
            for each in form.recorders:
                _read(stage, each, form)
    finally:
        for form in forms:
            for each in form.recorders:
                each.stop()
        stage.end(server)
        stage.end(sink)
        stage.end(caller)
    return forms


def _read(stage: Stage, recorder: Recorder, form: Form) -> None:
    """What one recorder's ring holds, as tshark sees it."""

    async def freeze(client: RecorderClient) -> Packets:
        (target,) = await client.targets()
        (frozen,) = await client.freeze([target.key])
        copies = [each for each in frozen.copies if each.interface.name == "eth0"]
        packets = concat([ring.decode(each) for each in copies])
        await client.release(frozen)
        return packets

    packets = recorder.ask(freeze)
    form.reach_s.append((int(packets.time_ns.max()) - int(packets.time_ns.min())) / 1e9)
    file = stage.memory / "history.pcap"
    file.write_bytes(pcap.write(packets, 1, 262_144))
    columns = ["dns.a", "dns.qry.name", "tls.handshake.extensions_server_name",
               "http.user_agent", "http.server"]  # fmt: skip
    shown = "dns.flags.response == 1 or tls.handshake.type == 1 or http.request or http.response"
    said = stage.run(
        ["tshark", "-n", "-r", str(file), "-Y", shown, "-T", "fields",
         *(part for each in columns for part in ("-e", each))],
        seconds=120,
    )  # fmt: skip
    file.unlink()
    for line in said.splitlines():
        addresses, asked, sni, agent, server = line.split("\t")
        found = (asked if addresses.count(",") == 3 else "", sni, agent, server)
        for kind, what in zip(KINDS, found, strict=True):
            if what:
                form.kept[kind].add(what)


def _table(flood: Flood, forms: Sequence[Form]) -> Table:
    table = Table(
        title=f"{flood.name}; {RATE} conversations/s; {RING_MIB} MiB of ring",
        columns=("form", "packets reach back", *KINDS),
    )
    for form in forms:
        table.rows.append(
            (
                form.name,
                " + ".join(f"{number(each)} s" for each in form.reach_s),
                *(f"{number(len(form.kept[kind]) / PER_S[kind])} s" for kind in KINDS),
            )
        )
    return table


def _verdicts(reading: dict[str, dict[str, Form]]) -> list[Verdict]:
    verdicts = []
    for flood in FLOODS[1:]:
        plain, _, cut, _ = reading[flood.name].values()
        times = [len(cut.kept[kind]) / max(1, len(plain.kept[kind])) for kind in KINDS]
        verdicts.append(
            Verdict(
                what=f"what an analyst needs, flows cut beside whole packets: {flood.name}",
                wanted="×5 at least",
                found=f"×{number(min(times))} at least",
                reached=min(times) >= 5,
            )
        )
    return verdicts


# ---- cost -----------------------------------------------------------------------------------------------


class _Together:
    def __init__(
        self, stage: Stage, pod: str, meter: Meter, changes: Sequence[dict[str, int]]
    ) -> None:
        self._pod = pod
        self._recorders = [
            Recorder(stage, include=pod, meter=meter, total=512 * MIB, **each) for each in changes
        ]
        for each in self._recorders:
            each.wait_for(pod)

    def counts(self) -> Counts:
        rings = [each.rings()[self._pod] for each in self._recorders]
        for each in self._recorders:
            each.stop()
        return Counts(sum(r.packets - r.drops for r in rings), sum(r.drops for r in rings))


def _arm(name: str, *changes: dict[str, int]) -> Arm:
    return Arm(name, lambda stage, pod, meter: _Together(stage, pod, meter, changes))


def _costs(stage: Stage, pod: str, world: str) -> list[Table]:
    whole, half = 16 * MIB, 8 * MIB
    compared = (
        arms.NONE,
        _arm("one ring, whole packets", {"per_target": whole}),
        _arm(
            "two rings: half headers, half whole",
            {"per_target": half, "snaplen": HEADERS},
            {"per_target": half},
        ),
        _arm("one ring, flows cut as shipped", {"per_target": whole, "flow_cut": CUT}),
        arms.dumpcap(files_mib=16),
    )
    for net in (pod, world):
        stage.run(["ethtool", "-K", "eth0", "tso", "on", "gso", "on", "gro", "on"], netns=net)
    stage.sink(pod, loads.UDP_PORT)
    capture, work = stage.meter("capture"), stage.meter("work", reaped=True)
    scale, repetitions = (3, 1) if stage.quick else (1, 3)
    tables = []
    for load in (
        loads.udp(400_000 // scale, 600),
        loads.tcp(3000 // scale),
    ):
        runs: dict[str, list[cost.Run]] = {arm.name: [] for arm in compared}
        for _ in range(repetitions):
            stage.say(load.name)
            for arm in compared:
                runs[arm.name].append(cost.run_arm(stage, arm, load, pod, world, capture, work))
        table = Table(
            title=f"what it costs: {load.name}",
            columns=("form", "its CPU", "lost", f"work: {load.unit}s/s", "speed", "all CPU"),
        )
        for arm in compared:
            own = runs[arm.name]
            base = arm is arms.NONE
            table.rows.append(
                (
                    arm.name,
                    "–" if base else f"{number(1e3 * median(r.capture_s for r in own))} ms",
                    "–" if base else f"{100 * median(r.lost for r in own):.1f} %",
                    number(median(r.work / r.seconds for r in own)),
                    "×1" if base
                    else f"×{1 / median(cost.paired(runs, arm, arms.NONE, 'seconds')):.2f}",
                    "×1" if base
                    else f"×{median(cost.paired(runs, arm, arms.NONE, 'total_s')):.2f}",
                )
            )  # fmt: skip
        none = runs[arms.NONE.name]
        table.rows.append(
            ("(noise floor: nothing attached)", "", "", "",
             spread([r.seconds / r.work for r in none]),
             spread([r.total_s / r.work for r in none]))
        )  # fmt: skip
        tables.append(table)
    return tables


_READING = f"""
    All forms record the same packets at the same time, each in {RING_MIB} MiB (two rings: half of it each); the
    table of flows is paid from the same target's memory. *packets reach back*: from the oldest packet still
    there to the newest, of each ring. The other columns count what tshark still finds, each once, and divide by
    how many of them there were per second: DNS answers with all their addresses, server names in a ClientHello,
    the heads of HTTP requests and answers to their last line.

    *flows cut*: of each flow and direction the first megabyte (at most a sixteenth of the ring) is recorded in full, and as much again for
    every minute of silence; of the rest {HEADERS} bytes of each packet. *two rings* was measured as two recorders;
    what a packet costs the work is paid for each ring. *headers only* is what `recorder.snaplen: headers` does.

    Cost: as in the table of costs above, with the same words.
"""
