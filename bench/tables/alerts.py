"""How many alerts a second become durable, and how soon each is answered."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable

from tests.e2e.machine import falco_event

from bench import cpu, post, product
from bench.figures import ms, number, percentile
from bench.report import Section, Table, Verdict
from bench.stage import Failed, Stage

RATE, WANTED_S = 2000, 0.02
CONNECTIONS = 64


def measure(stage: Stage) -> Section:
    section = Section(title="Alerts accepted: on disk before the 202")
    pod, _ = stage.pair()
    machine = product.start(stage, pod, rules=[product.RULE], after="2s")
    table = Table(
        columns=(
            "alerts",
            "offered",
            "answered",
            "202",
            "p50",
            "p99",
            "longest",
            "client late p99",
        )
    )
    seconds = 1.5 if stage.quick else 8
    kinds: dict[str, Callable[[int], dict[str, object]]] = {
        "one meaning, each event anew": _repeat,
        "every one another peer": _other,
    }
    fsync = _fsync(stage)
    responder = machine.pids["responder"]
    first = 0
    for kind, make in kinds.items():
        stage.say(f"{kind}: {RATE} a second, then as many as go")
        for rate in (RATE, None):
            count = int((RATE if rate else 3000) * seconds)
            bodies = [json.dumps(make(first + n)).encode() for n in range(count)]
            first += count
            used = cpu.scheduled(responder)
            posted = (
                post.at_rate(machine.url, bodies, per_second=rate, connections=CONNECTIONS)
                if rate
                else post.flat_out(machine.url, bodies, connections=CONNECTIONS // 2)
            )
            used = cpu.scheduled(responder) - used
            stage.say(f"responder: {1e6 * used / count:.0f} µs of CPU for each")
            if set(posted.answers) != {202}:
                raise Failed(f"not all were accepted: {dict(posted.answers)}")
            table.rows.append(
                (
                    kind,
                    f"{rate:,}/s, open loop" if rate else f"closed loop, {CONNECTIONS // 2}",
                    f"{number(count / posted.seconds)}/s",
                    f"{posted.answers[202]:,}",
                    *(ms(percentile(posted.latency_s, share)) for share in (0.5, 0.99)),
                    ms(max(posted.latency_s)),
                    ms(percentile(posted.late_s, 0.99)) if rate else "–",
                )
            )
            if rate:
                p99 = percentile(posted.latency_s, 0.99)
                section.verdicts.append(
                    Verdict(
                        what=f"{RATE:,} durable alerts/s, p99: {kind}",
                        wanted=f"under {ms(WANTED_S)}",
                        found=f"{number(count / posted.seconds)}/s, {ms(p99)}",
                        reached=p99 < WANTED_S and count / posted.seconds > RATE * 0.98,
                    )
                )
            _settle(machine)
    section.tables.append(table)
    section.explain(f"""
        Falco events of about {len(bodies[0]):,} bytes over {CONNECTIONS} connections from another process on the same
        {os.cpu_count()} cores, each answered 202 only when it is on disk. In the open loop each event is due at a fixed
        time and its latency counts from then, also while it waits for a connection: a stall is not
        hidden by sending less. *client late*: the client's own part of that, by which latencies are too high.

        Meanwhile the responder works the journal off in the same process: targets, rules, incidents,
        refusals, catalogue. *every one another peer* is the worst case for that; all but a few of them are
        refused by the bounds, and every refusal is stored. An fdatasync of 4 KiB on this disk takes
        {ms(percentile(fsync, 0.5))} (p50), {ms(percentile(fsync, 0.99))} (p99).
    """)
    return section


def _repeat(number_: int) -> dict[str, object]:
    port = 1024 + number_ % 60_000
    return _event(f"10.98.0.1:{port}->10.98.0.2:4444")


def _other(number_: int) -> dict[str, object]:
    peer = f"198.{18 + number_ // 65_536 % 2}.{number_ // 256 % 256}.{number_ % 256}"
    return _event(f"10.98.0.1:{1024 + number_ % 60_000}->{peer}:4444")


def _event(connection: str) -> dict[str, object]:
    return falco_event(rule=product.RULE, connection=connection, **_NAMES)  # type: ignore[arg-type]


_NAMES = {"namespace": product.IDENTITY["namespace"], "pod": product.IDENTITY["pod"]}


def _fsync(stage: Stage) -> list[float]:
    """Seconds that the disk takes for a small durable append."""
    taken = []
    fd = os.open(stage.folder / "fsync", os.O_CREAT | os.O_WRONLY, 0o600)
    try:
        for _ in range(100):
            os.write(fd, b"x" * 4096)
            began = time.perf_counter()
            os.fdatasync(fd)
            taken.append(time.perf_counter() - began)
    finally:
        os.close(fd)
    return taken


def _settle(machine: product.Machine) -> None:
    """Until the journal has been worked off, so that one row does not pay for another."""
    deadline = time.monotonic() + 60
    while product.value(machine, "tripshark_journal_waiting") > 0:
        if time.monotonic() > deadline:
            raise Failed("the journal is not worked off")
        time.sleep(0.1)
