"""`tripshark incidents` and `show`: what happened, as a list and one whole."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from tripshark.cli import table
from tripshark.cli.common import (
    AsJson,
    Config,
    Data,
    command,
    duration_ns,
    emit,
    err,
    out,
    plain,
    printable,
    settings_of,
    size,
    when,
)
from tripshark.cli.table import Column
from tripshark.errors import BadInput, Permanent
from tripshark.model.incident import Incident, State
from tripshark.ports import AlertRow, Query
from tripshark.programs.clock import SystemClock
from tripshark.programs.reading import reading
from tripshark.settings import Settings
from tripshark.web import shapes

WORDS = {"complete": "green", "truncated": "yellow", "expired": "yellow", "interrupted": "red"}


@command
def incidents(
    since: Annotated[
        str, typer.Option("--since", help="Only younger than this: 2h, 7d.", show_default=False)
    ] = "",
    namespace: Annotated[
        str, typer.Option("--namespace", help="Kubernetes namespace.", show_default=False)
    ] = "",
    pod: Annotated[str, typer.Option("--pod", help="Pod name.", show_default=False)] = "",
    rule: Annotated[
        str, typer.Option("--rule", help="Tripshark's or Falco's rule.", show_default=False)
    ] = "",
    state: Annotated[
        str,
        typer.Option(
            "--state", help="open, sealing, sealed, empty, failed or removed.", show_default=False
        ),
    ] = "",
    limit: Annotated[int, typer.Option("--limit", min=1, help="How many at most.")] = 50,
    refused: Annotated[
        bool, typer.Option("--refused", help="Alerts that led to no capture.")
    ] = False,
    config: Config = None,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """What happened, newest first.

    Example: tripshark incidents --since 2h --namespace payments
    """
    settings = settings_of(config, data)
    if state and state not in {each.value for each in State}:
        raise BadInput(
            f"no incident is ever {state!r}",
            hint="one of " + ", ".join(each.value for each in State),
        )
    since_ns = SystemClock().now_ns() - duration_ns(since) if since else 0
    if refused:
        _refused(asyncio.run(_refusals(settings, since_ns, limit)), as_json=as_json)
        return
    query = Query(
        since_ns=since_ns, namespace=namespace, pod=pod, rule=rule, state=state, limit=limit
    )
    found = asyncio.run(_list(settings, query))
    if as_json:
        for incident in found:
            emit(as_line(incident))
        return
    table.show(LIST, [_row(each) for each in found])
    if not found:
        err.print("no incidents; `tripshark incidents --refused` shows alerts that led to none")


LIST = (
    Column("incident"),
    Column("when", rank=3),
    Column("target", least=16),
    Column("alert", least=18),
    Column("alerts", right=True, rank=4),
    Column("packets", right=True, rank=1),
    Column("size", right=True, rank=5),
    Column("ledger"),
    Column("state", rank=2),
)


def _row(each: Incident) -> tuple[str, ...]:
    ended = each.state not in (State.OPEN, State.SEALING, State.FAILED)
    ledger = f"[{WORDS[each.word.value]}]{each.word}[/]"
    return (
        each.id,
        when(each.t0_ns),
        printable(each.title),
        f"{printable(each.priority)} {printable(each.falco_rule)}",
        str(each.alerts),
        str(each.packets),
        size(each.bytes),
        ledger if ended else f"[yellow]{each.state.value}[/]",
        each.state.value,
    )


def as_line(incident: Incident) -> dict[str, object]:
    """One incident for scripts, the same as the API says it."""
    return dict(shapes.incident(incident))


async def _list(settings: Settings, query: Query) -> Sequence[Incident]:
    async with reading(settings) as store:
        return await store.catalogue.incidents(query)


async def _refusals(settings: Settings, since_ns: int, limit: int) -> Sequence[AlertRow]:
    async with reading(settings) as store:
        return await store.catalogue.refusals(since_ns=since_ns, limit=limit)


def _refused(rows: Sequence[AlertRow], *, as_json: bool) -> None:
    lines: list[tuple[str, ...]] = []
    for row in rows:
        refusal = row.refusal
        if refusal is None:
            continue
        alert = row.accepted.alert
        if as_json:
            emit(
                {
                    "alert": row.accepted.id,
                    "time_ns": alert.time_ns,
                    "rule": alert.rule,
                    "times": row.repeats + 1,
                    "reason": refusal.reason.value,
                    "message": refusal.message,
                    "hint": refusal.hint,
                    "incident": row.incident,
                }
            )
            continue
        lines.append(
            (
                row.accepted.id,
                when(alert.time_ns),
                printable(alert.rule),
                str(row.repeats + 1),
                f"{refusal.reason}: {printable(refusal.message)}",
                printable(refusal.hint),
            )
        )
    if not as_json:
        table.show(REFUSED, lines)


REFUSED = (
    Column("alert"),
    Column("when", rank=2),
    Column("rule", least=16),
    Column("times", right=True, rank=1),
    Column("why not", least=20),
    Column("what would change it", least=20),
)


@command
def show(
    incident: Annotated[str, typer.Argument(help="Incident id, its beginning, or `last`.")],
    config: Config = None,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """One incident whole: what was captured, why, what is missing, what was found.

    Example: tripshark show last
    """
    settings = settings_of(config, data)
    found, rows = asyncio.run(_one(settings, incident))
    folder = _folder(found)
    manifest = _read(folder / "manifest.json") if folder else {}
    findings = _read(folder / "findings.json") if folder else {}
    if as_json:
        emit(
            {
                **as_line(found),
                "manifest": manifest,
                "findings": findings,
                "alert_rows": [
                    {
                        "id": row.accepted.id,
                        "rule": row.accepted.alert.rule,
                        "time_ns": row.accepted.alert.time_ns,
                        "repeats": row.repeats,
                        "refusal": plain(row.refusal),
                    }
                    for row in rows
                ],
            }
        )
        return
    colour = WORDS[found.word.value]
    out.print(
        f"[bold]{printable(found.title)}[/] – {printable(found.priority)} {printable(found.falco_rule)}"
    )
    out.print(f"incident {found.id}   {found.state}   ledger [{colour}]{found.word}[/]")
    if found.summary:
        out.print(f"\n{printable(found.summary)}\n")
    if found.problem:
        out.print(f"[yellow]{printable(found.problem)}[/]")
    _show_manifest(found, manifest)
    _timeline(found, folder)
    for row in rows:
        alert = row.accepted.alert
        times = f" ×{row.repeats + 1}" if row.repeats else ""
        out.print(f"alert    {when(alert.time_ns)}  {printable(alert.rule)}{times}")
        if row.refusal:
            out.print(f"         [dim]{row.refusal.reason}: {printable(row.refusal.message)}[/]")
    if folder:
        out.print(f"files    {printable(folder)}")
        for path in sorted(folder.glob("evidence*.pcapng"), key=lambda each: len(each.name)):
            out.print(f"open     wireshark {printable(path)}")


def _show_manifest(found: Incident, manifest: dict[str, object]) -> None:
    details = manifest.get("details")
    if not isinstance(details, dict):
        return
    captures = details.get("what", {}).get("captures", [])
    for capture in captures:
        whose = f"{printable(capture['target'])}: " if len(captures) > 1 else ""
        out.print(
            f"capture  {whose}{capture['scope']} – {printable(capture['reason'])}; "
            f"{capture['packets']} packets, ended by {printable(capture['ended'])}"
        )
        if capture["filter"]:
            out.print(f"         [dim]{printable(capture['filter'])}[/]")
    twice = any(capture.get("end", "own") != "own" for capture in captures)
    both = ", as both ends saw them: the other end's are in evidence-peer" if twice else ""
    out.print(f"packets  {found.packets} ({size(found.bytes)}){both}")
    ledger = manifest.get("ledger")
    entries = ledger.get("entries", []) if isinstance(ledger, dict) else []
    for entry in entries:
        mark = "[yellow]![/]" if entry.get("word") != "complete" else "[dim]·[/]"
        out.print(f"missing  {mark} {printable(entry['message'])}")
    if not entries:
        out.print("missing  nothing that we know of")


BARS = " ▁▂▃▄▅▆▇█"
WIDTH = 60


def _timeline(found: Incident, folder: Path | None) -> None:
    """Packets over time, with the alert's place: a picture of one line."""
    from tripshark.formats import pcapng

    path = folder / "evidence.pcapng" if folder else None
    if path is None or not path.exists() or not found.packets:
        return
    times = pcapng.read(path.read_bytes()).packets.time_ns
    first, last = int(times.min()), int(max(times.max(), found.t0_ns))
    width = max(1, (last - first) // WIDTH + 1)
    counts = [0] * WIDTH
    for place in ((times - first) // width).tolist():
        counts[min(place, WIDTH - 1)] += 1
    top = max(counts)
    bars = "".join(BARS[(count * 8 + top - 1) // top] for count in counts)
    alert = min(WIDTH - 1, max(0, (found.t0_ns - first) // width))
    out.print(f"traffic  {bars}  {(last - first) / 1e9:.2f} s")
    out.print(f"         {' ' * alert}[red]▲ alert[/]")


def _folder(found: Incident) -> Path | None:
    """Where the evidence lies; None when there is none yet, or no more."""
    if not found.folder or found.state is State.REMOVED:
        return None
    return Path(found.folder)


async def _one(settings: Settings, id: str) -> tuple[Incident, Sequence[AlertRow]]:
    async with reading(settings) as store:
        found = await store.find(id)
        return found, await store.catalogue.alerts(found.id)


def _read(path: Path) -> dict[str, object]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as problem:
        raise Permanent(f"cannot be read: {problem}", where=str(path)) from problem
    return value if isinstance(value, dict) else {}
