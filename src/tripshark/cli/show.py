"""`tripshark show`: one incident whole, to be read on a terminal."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from tripshark.cli import charts
from tripshark.cli.common import (
    AsJson,
    Config,
    Data,
    command,
    emit,
    out,
    plain,
    printable,
    settings_of,
    size,
    when,
)
from tripshark.cli.incidents import WORDS, as_line
from tripshark.errors import BadInput, Permanent
from tripshark.model.claim import Finding, Severity
from tripshark.model.finding import Findings
from tripshark.model.incident import Incident, State
from tripshark.model.note import Note
from tripshark.ports import AlertRow
from tripshark.programs.reading import reading
from tripshark.settings import Settings
from tripshark.store.notes import SqlNotes

COLOURS = {
    Severity.CRITICAL: "bold white on red",
    Severity.HIGH: "bold red",
    Severity.MEDIUM: "yellow",
    Severity.LOW: "cyan",
    Severity.INFO: "dim",
}
FRAMES = 8  # cited on one line
TALKS = 8


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
    found, rows, notes = asyncio.run(_one(settings, incident))
    folder = _folder(found)
    manifest = _read(folder / "manifest.json") if folder else {}
    document = _read(folder / "findings.json") if folder else {}
    if as_json:
        emit(
            {
                **as_line(found),
                "manifest": manifest,
                "findings": document,
                "notes": [each.as_json() for each in notes],
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
    findings = _findings(document)
    if findings is not None:
        _picture(findings, found.t0_ns)
        _claims(findings.findings)
        _talks(findings)
    for row in rows:
        alert = row.accepted.alert
        times = f" ×{row.repeats + 1}" if row.repeats else ""
        out.print(f"alert    {when(alert.time_ns)}  {printable(alert.rule)}{times}")
        if row.refusal:
            out.print(f"         [dim]{row.refusal.reason}: {printable(row.refusal.message)}[/]")
    for note in notes:
        out.print(f"note     {printable(note.file)} #{note.frame}  {printable(note.text)}")
        out.print(f"         [dim]{printable(note.by)}, {when(note.at_ns)}[/]")
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


def _findings(document: dict[str, object]) -> Findings | None:
    """None where there are none, or where another version wrote what cannot be read any more."""
    if not document:
        return None
    try:
        return Findings.from_json(json.loads(json.dumps(document)))
    except BadInput as problem:
        out.print(
            f"[yellow]the findings cannot be read ({printable(problem)}): tripshark analyse makes them again[/]"
        )
        return None


def _picture(findings: Findings, t0_ns: int) -> None:
    """Packets over time each way, with the alert's place."""
    activity = findings.activity
    if not activity.step_ns:
        return
    seconds = len(activity.packets_out) * activity.step_ns / 1e9
    sent, received, marks = charts.traffic(activity, t0_ns)
    out.print(f"sent     [cyan]{sent}[/]  {sum(activity.packets_out)} packets")
    out.print(f"received [green]{received}[/]  {sum(activity.packets_in)} packets")
    out.print(f"         [red]{marks}[/]  [dim]{seconds:.2f} s[/]")


def _claims(claims: Sequence[Finding]) -> None:
    for each in claims:
        word = f"[{COLOURS[each.severity]}]{each.severity.value:>8}[/]"
        techniques = f"  [dim]{' '.join(each.techniques)}[/]" if each.techniques else ""
        out.print(f"{word} {each.id} [bold]{printable(each.title)}[/]{techniques}")
        out.print(f"         {printable(each.text)}")
        if each.frames:
            cited = ", ".join(map(str, each.frames[:FRAMES]))
            more = " …" if each.matches > len(each.frames[:FRAMES]) else ""
            out.print(f"         [dim]frames {cited}{more}   {printable(each.filter)}[/]")


def _talks(findings: Findings) -> None:
    """The largest conversations, as bars of their bytes."""
    known = {str(each.get("address")): str(each.get("name") or "") for each in findings.endpoints}
    largest = sorted(findings.conversations, key=lambda each: -each.bytes)[:TALKS]
    most = max((each.bytes for each in largest), default=0)
    for each in largest:
        name = known.get(each.b) or findings.names.get(each.b, "")
        port = f":{each.b_port}" if each.b_port else ""
        peer = f"{each.b}{port}" + (f" ({name})" if name else "")
        bar = charts.bar(each.bytes, most)
        out.print(
            f"talk     {bar} {each.proto.upper()} {printable(peer)}  "
            f"{size(each.bytes_ab)} out, {size(each.bytes_ba)} in"
        )


def _folder(found: Incident) -> Path | None:
    """Where the evidence lies; None when there is none yet, or no more."""
    if not found.folder or found.state is State.REMOVED:
        return None
    return Path(found.folder)


async def _one(settings: Settings, id: str) -> tuple[Incident, Sequence[AlertRow], Sequence[Note]]:
    async with reading(settings) as store:
        found = await store.find(id)
        notes = await SqlNotes(store.catalogue).of(found.id)
        return found, await store.catalogue.alerts(found.id), notes


def _read(path: Path) -> dict[str, object]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as problem:
        raise Permanent(f"cannot be read: {problem}", where=str(path)) from problem
    return value if isinstance(value, dict) else {}
