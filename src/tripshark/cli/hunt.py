"""`tripshark hunt`: lists of indicators compared with all stored evidence."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from tripshark.cli import table
from tripshark.cli.common import (
    AsJson,
    CaFile,
    Config,
    Data,
    TokenFile,
    command,
    duration_ns,
    emit,
    err,
    printable,
    settings_of,
    when,
)
from tripshark.cli.table import Column
from tripshark.errors import BadInput
from tripshark.formats.indicators.loaded import Loaded, Why
from tripshark.formats.indicators.reading import MAX_LIST
from tripshark.model.claim import Severity
from tripshark.model.indicator import Indicators
from tripshark.programs.clock import SystemClock
from tripshark.programs.hunting import hunt as hunt_here
from tripshark.programs.watchlist import list_files, load_lists
from tripshark.web.search import hunted
from tripshark.wireshark.asking import Service

NOTHING = 3  # the exit code of "no"
SECONDS = 120.0  # in which another Tripshark must answer
_COLOURS = {
    Severity.CRITICAL: "bold red", Severity.HIGH: "red", Severity.MEDIUM: "yellow", Severity.LOW: "blue",
    Severity.INFO: "dim",
}  # fmt: skip


@command
def hunt(
    lists: Annotated[
        list[Path],
        typer.Argument(
            help="Lists: plain text, STIX 2.1 or MISP; a folder means every file in it."
        ),
    ],
    since: Annotated[
        str,
        typer.Option(
            "--since", help="Only incidents younger than this: 2h, 30d.", show_default=False
        ),
    ] = "",
    deep: Annotated[
        bool,
        typer.Option(
            "--deep", help="Evidence without findings, or with older ones, is analysed first."
        ),
    ] = False,
    limit: Annotated[int, typer.Option("--limit", min=1, help="How many hits at most.")] = 500,
    url: Annotated[
        str,
        typer.Option("--url", help="Ask another Tripshark, such as a hub.", show_default=False),
    ] = "",
    token_file: TokenFile = None,
    ca_file: CaFile = None,
    verbose: Annotated[
        bool, typer.Option("--verbose", help="Name every entry that is not looked for.")
    ] = False,
    config: Config = None,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Lists of indicators compared with all stored evidence. Exit code 3: none of them was seen.

    Example: tripshark hunt feeds/c2.txt --since 30d
    """
    since_ns = SystemClock().now_ns() - duration_ns(since) if since else 0
    if url:
        if deep:
            raise BadInput("--deep needs the evidence itself", hint="leave --url or --deep out")
        service = Service(url=url, token_file=token_file, ca_file=ca_file)
        found, more = _elsewhere(service, lists, since, limit, verbose=verbose)
    else:
        found, more = _here(
            settings_of(config, data), lists, since_ns, limit, deep=deep, verbose=verbose
        )
    if as_json:
        for each in found:
            emit(each)
    elif found:
        table.show(FOUND, [_row(each) for each in found])
    if more:
        err.print(f"[yellow]there are more hits; --limit shows more than {limit}[/]")
    if not found:
        err.print("none of these indicators was seen in any evidence")
        raise typer.Exit(NOTHING)


FOUND = (
    Column("incident"),
    Column("when", rank=2),
    Column("target", least=16),
    Column("severity", rank=3),
    Column("indicator", least=20),
    Column("frames", rank=1),
    Column("filter", least=20),
)


def _row(each: dict[str, Any]) -> tuple[str, ...]:
    colour = _COLOURS.get(each["severity"], "dim")
    frames = [str(number) for number in each["frames"]]
    shown = ", ".join(frames[:5]) + (" …" if len(frames) > 5 else "")
    return (
        printable(each["incident"]),
        when(int(each["first_ns"] or each["t0_ns"])),
        printable(each["target"]),
        f"[{colour}]{printable(each['severity'])}[/]",
        printable(each["indicator"]),
        shown or "–",
        printable(each["filter"]),
    )


def _here(
    settings: Any,  # noqa: ANN401  # typer would take the settings' type for an option
    lists: Sequence[Path],
    since_ns: int,
    limit: int,
    *,
    deep: bool,
    verbose: bool,
) -> tuple[list[dict[str, Any]], bool]:
    loaded, problems = load_lists(lists)
    _tell(loaded, verbose=verbose)
    if problems:
        if not loaded.indicators:
            raise problems[0]
        for problem in problems:
            err.print(f"[yellow]{printable(problem)}[/]")
    if not loaded.indicators:
        raise BadInput(
            "there is nothing to look for on these lists",
            where=", ".join(map(str, lists)),
            hint="--verbose names every entry, and why not",
        )
    with err.status("") as status:
        done = asyncio.run(
            hunt_here(
                settings,
                Indicators(loaded.indicators),
                since_ns=since_ns,
                limit=limit,
                deep=deep,
                progress=lambda said: status.update(printable(said)),
            )
        )
    for said in done.problems[:20]:
        err.print(f"[yellow]{printable(said)}[/]")
    if done.analysed:
        err.print(f"{done.analysed} captures were analysed anew")
    return [dict(hunted(each)) for each in done.hits], done.more


def _tell(loaded: Loaded, *, verbose: bool) -> None:
    """What of the lists is looked for, and what is not."""
    counts = ", ".join(f"{loaded.counts[why]} {why.value}" for why in Why if loaded.counts[why])
    err.print(f"{len(loaded.indicators)} indicators" + (f"; {counts}" if counts else ""))
    told = [each for each in loaded.told if verbose or each.why is not Why.REMARK]
    for each in told if verbose else told[:5]:
        err.print(f"  [dim]{printable(each)}[/]")
    left = sum(loaded.counts.values()) - len(told)
    if not verbose and len(told) > 5:
        err.print(f"  [dim]and {len(told) - 5} more; --verbose names them[/]")
    elif verbose and left > 0:
        err.print(f"  [dim]and {left} more[/]")


def _elsewhere(
    service: Service, lists: Sequence[Path], since: str, limit: int, *, verbose: bool
) -> tuple[list[dict[str, Any]], bool]:
    found: list[dict[str, Any]] = []
    more = False
    for path in list_files(lists):
        with path.open("rb") as file:
            content = file.read(MAX_LIST + 1)
        media = "application/json" if content.lstrip()[:1] in (b"{", b"[") else "text/plain"
        answer: dict[str, Any] = service.send(
            "/v1/hunt",
            content,
            media=media,
            seconds=SECONDS,
            since=since,
            limit=str(min(500, limit)),
        )
        counts = ", ".join(f"{count} {why}" for why, count in answer["counts"].items())
        err.print(
            f"{printable(path)}: {int(answer['indicators'])} indicators"
            + (f"; {printable(counts)}" if counts else "")
        )
        for said in answer["told"] if verbose else answer["told"][:5]:
            err.print(f"  [dim]{printable(said)}[/]")
        found += answer["hits"]
        more = more or bool(answer["more"])
    found.sort(key=lambda each: str(each["incident"]), reverse=True)
    return found[:limit], more or len(found) > limit
