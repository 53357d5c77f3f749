"""How soon packets are safe after an alert, beside starting a capture tool when it comes."""

from __future__ import annotations

import json
import resource
import struct
import subprocess
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.machine import Machine, evidence_files, falco_event, manifest

from bench import product
from bench.figures import ms, number, percentile
from bench.report import Section, Table, Verdict
from bench.stage import POD, WORLD, Failed, Stage, until
from tripshark.formats import pcapng
from tripshark.recorder.config import MIB

PORT, BURST_PORT = 9, 10
PPS = 1000
EVERY_S = 0.2
FILTER = f"udp dst port {PORT}"
NAMES = tuple(product.IDENTITY.items())


@dataclass(frozen=True)
class _Packet:
    number: int
    sent_ns: int


def measure(stage: Stage) -> Section:
    section = Section(title="From alert to packets")
    pod, world = stage.pair()
    for port in (PORT, BURST_PORT):
        stage.sink(world, port)
    count = 15 if stage.quick else 100
    machine = product.start(
        stage,
        pod,
        rules=[_rule(n) for n in range(count)],
        after="500ms",
        bounds={"concurrent": 200, "parts_per_target": 200, "rate": {"refill": 0}},
    )
    program = str(stage.tools / "udpgen")
    stage.say("a history that fills the ring, then numbered packets at 1 kHz")
    stage.run([program, str(BURST_PORT), "0", "1000", str(12 * MIB // 1100), WORLD], netns=pod)
    stage.spawn([program, str(PORT), str(PPS), "64", str(PPS * 300), WORLD], netns=pod)
    began_ns = time.time_ns()
    time.sleep(1)
    tools = _tools(stage, pod, 3 if stage.quick else 10)
    stage.say(f"{count} alerts")
    posted = _alerts(machine, count)
    _all_decided(machine, count)
    incidents = machine.wait_sealed(seconds=120)
    captured, problems = _numbers([evidence_files(each) for each in incidents])
    section.tables += [
        _frozen(machine, [manifest(each) for each in incidents], posted),
        _first(tools, posted, captured, began_ns),
    ]
    section.verdicts.append(
        Verdict(
            what="numbered packets from the first captured to the last, across all freezes and follows",
            wanted="each once",
            found=problems or f"{len(captured):,}, each once",
            reached=not problems,
        )
    )
    section.explain(f"""
        *accepted → frozen* is from the moment the responder has the alert in its hands to the moment the
        recorder begins to copy, out of the incident's manifest; the histogram is what `/metrics` says of
        the same captures (bounds of its buckets). *posted → frozen* is by the client's clock, HTTP, durable
        journal, rules and plan included. One alert every {EVERY_S:g} s, each of a rule of its own, so that each freezes anew; the ring of 10 MiB
        is full, so every freeze copies all of it (how long that takes: see freezing).

        The second table: a stream of numbered packets at 1 kHz leaves the pod; the figure is when the
        first captured packet had been sent, relative to the trigger (spawning the tool, posting the
        alert). Negative: before it. Tools are started within the pod's namespace with the filter
        “{FILTER}”. Tripshark reaches as far back as its ring does, and here as the stream does: the
        stream had been running for that long, and its first packet is in the evidence.
    """)
    return section


# ---- alerts ---------------------------------------------------------------------------------------------


def _rule(n: int) -> str:
    return f"{product.RULE} {n}"


def _alerts(machine: Machine, count: int) -> dict[int, int]:
    """One every few milliseconds, each of another rule, so that each freezes: event time → when it was posted."""
    posted = {}
    for n in range(count):
        at_ns = time.time_ns()
        machine.post(
            falco_event(
                rule=_rule(n),
                time_ns=at_ns,
                connection=f"{POD}:{40_000 + n}->{WORLD}:{PORT}",
                proto="udp",
                **dict(NAMES),  # type: ignore[arg-type]
            )
        )
        posted[at_ns] = at_ns
        time.sleep(max(0.0, EVERY_S - (time.time_ns() - at_ns) / 1e9))
    return posted


def _all_decided(machine: Machine, count: int) -> None:
    """Every alert has led to a freeze, or to a refusal (which is not what is to be measured)."""

    def decided() -> bool:
        frozen = product.histogram(machine, "tripshark_alert_to_frozen_seconds")
        return max(frozen.values()) >= count or bool(_refusals(machine))

    until(decided, "every alert to be decided", 60)
    if refused := _refusals(machine):
        raise Failed(f"alerts were refused: {json.dumps(refused)[:1000]}")


def _frozen(
    machine: Machine, manifests: Sequence[dict[str, object]], posted: dict[int, int]
) -> Table:
    received: dict[int, int] = {}
    captures: list[dict[str, int]] = []
    for told in manifests:
        details = dict(told["details"])  # type: ignore[call-overload]
        received |= {each["time_ns"]: each["received_ns"] for each in details["why"]["alerts"]}
        captures += [each for each in details["what"]["captures"] if each["frozen_ns"]]
    accepted = [
        (each["frozen_ns"] - received[each["t0_ns"]]) / 1e9
        for each in captures
        if each["t0_ns"] in received
    ]
    whole = [(each["frozen_ns"] - posted[each["t0_ns"]]) / 1e9 for each in captures]
    if len(captures) != len(posted):
        raise Failed(
            f"{len(posted)} alerts, but {len(captures)} freezes in {len(manifests)} manifests"
        )
    buckets = product.histogram(machine, "tripshark_alert_to_frozen_seconds")
    table = Table(columns=("", "captures", "p50", "p99", "longest"))
    for name, values in (
        ("accepted → frozen (manifest)", accepted),
        ("posted → frozen (client)", whole),
    ):
        quantiles = [ms(percentile(values, share)) for share in (0.5, 0.99)]
        table.rows.append((name, str(len(values)), *quantiles, ms(max(values))))
    bounds = [f"≤ {ms(product.quantile(buckets, share))}" for share in (0.5, 0.99, 1)]
    table.rows.append(("accepted → frozen (/metrics)", str(max(buckets.values())), *bounds))
    return table


def _refusals(machine: Machine) -> list[object]:
    return list(machine.get("/v1/refusals?limit=3")["refusals"])  # type: ignore[call-overload]


def _numbers(incidents: Sequence[Sequence[Path]]) -> tuple[list[_Packet], str]:
    """The numbered packets of all incidents' files, and what is wrong with the numbers within any of them."""
    everything: dict[int, _Packet] = {}
    missing = doubled = 0
    for files in incidents:
        counts: Counter[int] = Counter()
        for path in files:
            packets = pcapng.read(path.read_bytes()).packets
            for index in range(len(packets)):
                packet = _packet(packets.bytes_of(index))
                if packet:
                    counts[packet.number] += 1
                    everything[packet.number] = packet
        if not counts:
            raise Failed("no numbered packet is in the evidence")
        missing += max(counts) - min(counts) + 1 - len(counts)
        doubled += sum(1 for each in counts.values() if each > 1)
    problems = f"{missing} missing, {doubled} doubled" if missing or doubled else ""
    return sorted(everything.values(), key=lambda each: each.number), problems


def _packet(frame: bytes) -> _Packet | None:
    """Of the numbered stream: Ethernet, IPv4 without options, UDP to its port."""
    if len(frame) < 58 or frame[23] != 17 or frame[36:38] != PORT.to_bytes(2, "big"):
        return None
    return _Packet(*struct.unpack_from("!QQ", frame, 42))


# ---- tools ----------------------------------------------------------------------------------------------


@dataclass
class _Tool:
    name: str
    argv: list[str]
    delays_s: list[float]
    cpu_s: list[float]


def _tools(stage: Stage, pod: str, repetitions: int) -> list[_Tool]:
    """Each is started when an alert would have come, and ends with its first packet."""
    out = stage.memory / "first"
    limits = ["-c", "1", "-w", str(out)]
    tools = [
        _Tool("spawn tshark", ["tshark", "-n", "-q", "-i", "eth0", "-f", FILTER, *limits], [], []),
        _Tool("spawn dumpcap", ["dumpcap", "-q", "-i", "eth0", "-f", FILTER, *limits], [], []),
        _Tool(
            "spawn tcpdump",
            ["tcpdump", "-n", "-Z", "root", "-i", "eth0", *limits, FILTER],
            [],
            [],
        ),
    ]
    for repetition in range(repetitions):
        for tool in tools:
            time.sleep(0.003 + 0.0007 * (repetition % 10))  # not in step with the stream
            out.unlink(missing_ok=True)
            before = _children_s()
            began_ns = time.time_ns()
            done = subprocess.run(
                ["nsenter", f"--net=/run/netns/{pod}", *tool.argv],
                capture_output=True,
                timeout=30,
            )
            tool.cpu_s.append(_children_s() - before)
            if done.returncode:
                raise Failed(f"{tool.name}: {done.stderr.decode()[-300:]}")
            tool.delays_s.append((_first_of(out).sent_ns - began_ns) / 1e9)
    return tools


def _children_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _first_of(path: Path) -> _Packet:
    """The first packet of a pcap or pcapng file."""
    data = path.read_bytes()
    if data[:4] in (b"\xd4\xc3\xb2\xa1", b"\x4d\x3c\xb2\xa1"):
        packet = _packet(data[40:])
    else:
        packet = _packet(pcapng.read(data).packets.bytes_of(0))
    if packet is None:
        raise Failed(f"{path} does not begin with a packet of the stream")
    return packet


def _first(
    tools: list[_Tool], posted: dict[int, int], captured: list[_Packet], began_ns: int
) -> Table:
    table = Table(
        columns=("on an alert", "p50", "p95", "lost at 1 kHz", "CPU each"),
        title="first captured packet, relative to the trigger",
    )
    for tool in tools:
        p50 = percentile(tool.delays_s, 0.5)
        table.rows.append(
            (
                tool.name,
                f"+{ms(p50)}",
                f"+{ms(percentile(tool.delays_s, 0.95))}",
                f"{max(0, round(p50 * PPS))} packets",
                ms(percentile(tool.cpu_s, 0.5)),
            )
        )
    ages = [(captured[0].sent_ns - at_ns) / 1e9 for at_ns in posted.values()]
    table.rows.append(
        (
            f"Tripshark (stream began {-min(ages):.0f} s before the last alert)",
            f"{number(percentile(ages, 0.5))} s",
            f"{number(percentile(ages, 0.95))} s",
            "0 packets",
            "–",
        )
    )
    return table
