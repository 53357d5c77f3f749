"""`tripshark incidents`: what happened, as a list."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
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
    printable,
    settings_of,
    size,
    when,
)
from tripshark.cli.table import Column
from tripshark.errors import BadInput
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
