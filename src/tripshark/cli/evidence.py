"""`tripshark export` and `verify`: evidence handed on, and proof that nothing was changed."""

from __future__ import annotations

import asyncio
import io
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from tripshark.cli.common import (
    AsJson,
    Config,
    Data,
    command,
    emit,
    err,
    out,
    plain,
    printable,
    settings_of,
)
from tripshark.errors import BadInput, NotFound, Permanent, Transient, TripsharkError
from tripshark.formats import pcap, pcapng
from tripshark.formats.copying import read_key_log
from tripshark.formats.handing_on import with_notes
from tripshark.model.incident import Incident, State
from tripshark.model.note import Note
from tripshark.ports import AlertRow
from tripshark.programs.accounts import current
from tripshark.programs.reading import capture_file, reading
from tripshark.programs.timeline import timeline
from tripshark.settings import Settings
from tripshark.store.notes import SqlNotes
from tripshark.store.verify import verify as recompute

FORMATS = ("pcapng", "pcap", "zip", "timeline")
EXTENSIONS = {"pcapng": "pcapng", "pcap": "pcap", "zip": "zip", "timeline": "jsonl"}


@command
def export(
    incident: Annotated[str, typer.Argument(help="Incident id, its beginning, or `last`.")],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="File to write; - for standard output.")
    ] = None,
    format: Annotated[
        str, typer.Option("--format", help="pcapng, pcap, zip or timeline.")
    ] = "pcapng",
    file: Annotated[
        str,
        typer.Option(
            "--file",
            help="Which, where the target had several link types: evidence-raw.pcapng.",
            show_default=False,
        ),
    ] = "",
    notes: Annotated[
        bool,
        typer.Option(
            "--notes/--without-notes", help="Analysts' notes as packet comments (pcapng)."
        ),
    ] = True,
    tls_keys: Annotated[
        Path | None,
        typer.Option(
            "--tls-keys",
            help="A TLS key log (SSLKEYLOGFILE) to put into the copy, for Wireshark to decrypt with.",
            show_default=False,
        ),
    ] = None,
    config: Config = None,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """The evidence as a file of its own; the sealed one is not touched, and the export is noted in its custody.

    Example: tripshark export last --format zip -o incident.zip
    """
    if format not in FORMATS:
        raise BadInput(f"unknown format {format!r}", hint=f"one of {', '.join(FORMATS)}")
    settings = settings_of(config, data)
    keys = _key_log(tls_keys, format)
    found, content = asyncio.run(
        _export(settings, incident, format, file, with_notes_=notes, keys=keys)
    )
    path = output or Path(f"{found.id}.{EXTENSIONS[format]}")
    if str(path) == "-":
        sys.stdout.buffer.write(content)
        sys.stdout.buffer.flush()
        return
    try:
        path.write_bytes(content)
    except OSError as problem:
        raise Permanent(
            f"cannot write: {problem.strerror}", where=str(path), hint="name another file with -o"
        ) from problem
    if as_json:
        emit({"incident": found.id, "format": format, "file": str(path), "bytes": len(content)})
    else:
        out.print(f"{printable(path)}: {len(content)} bytes")


def _key_log(path: Path | None, format: str) -> bytes:
    """Raises `BadInput`."""
    if path is None:
        return b""
    if format != "pcapng":
        raise BadInput("keys go into pcapng files only", where="--tls-keys")
    try:
        return read_key_log(path.read_bytes())
    except OSError as problem:
        raise BadInput(f"cannot be read: {problem.strerror}", where=str(path)) from problem


async def _export(
    settings: Settings, id: str, format: str, file: str, *, with_notes_: bool, keys: bytes
) -> tuple[Incident, bytes]:
    async with reading(settings) as store:
        found = await store.find(id)
        if found.state is State.REMOVED:
            raise NotFound(
                f"the evidence of {found.id} was removed: {found.problem}", hint="its record stays"
            )
        if found.state in (State.OPEN, State.SEALING):
            raise Transient(
                f"{found.id} is still {found.state}", hint="export it when it is sealed", after=5.0
            )
        folder = Path(store.vault.folder(found.id))
        rows = await store.catalogue.alerts(found.id)
        notes = await SqlNotes(store.catalogue).of(found.id) if with_notes_ else ()
        if notes and format == "pcapng":
            err.print(
                f"[dim]with {len(notes)} notes as comments; --without-notes leaves them out[/]"
            )
        try:
            content = await asyncio.to_thread(
                _content, found, rows, folder, format, file, notes, keys
            )
        except OSError as problem:
            raise Permanent(
                f"the evidence cannot be read: {problem.strerror}",
                where=str(problem.filename or folder),
                hint="read it as root, or as a user of the group that owns it",
            ) from problem
        try:
            store.vault.custody(found.id, "exported", current().name, {"format": format})
        except TripsharkError as problem:
            err.print(
                f"[yellow]the export could not be noted in custody.jsonl: {printable(problem)}[/]"
            )
        return found, content


def _content(
    found: Incident,
    rows: Sequence[AlertRow],
    folder: Path,
    format: str,
    file: str,
    notes: Sequence[Note],
    keys: bytes,
) -> bytes:
    """The bytes to be handed on. Raises `OSError`, `NotFound`."""
    match format:
        case "zip":
            return _zip(found, folder)
        case "timeline":
            return timeline(found, rows, folder)
        case _:
            path = _packets(folder, file)
            if format == "pcap":
                return _classic(path)
            return with_notes(path.read_bytes(), path.name, notes, keys)


def _packets(folder: Path, name: str) -> Path:
    """The file that was asked for; the one of Ethernet, or the only one, where none was."""
    chosen, others = capture_file(folder, name)
    if others and not name:
        err.print(f"[yellow]there is more: --file {printable(', '.join(others))}[/]")
    return chosen


def _classic(path: Path) -> bytes:
    """Packets alone, for tools that read nothing else."""
    file = pcapng.read(path.read_bytes())
    linktype = file.interfaces[0].linktype if file.interfaces else 1
    return bytes(pcap.write(file.packets, linktype, 262_144))


def _zip(incident: Incident, folder: Path) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(folder.iterdir()):
            if path.is_file() and not path.is_symlink():
                archive.write(path, f"{incident.id}/{path.name}")
    return made.getvalue()


@command
def verify(
    what: Annotated[str, typer.Argument(help="An evidence folder, or an incident id.")],
    key: Annotated[
        Path | None, typer.Option("--key", help="Public key (PEM) that the signature must be of.")
    ] = None,
    config: Config = None,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Recomputes every hash, the signature and the custody chain; 0 only if all of it holds.

    Example: tripshark verify last
    """
    settings = settings_of(config, data)
    folder = Path(what)
    if not folder.is_dir():
        folder = asyncio.run(_folder(settings, what))
    result = recompute(folder, key=key, data=settings.data)
    if as_json:
        emit({"folder": str(folder), "verified": result.ok, "checks": plain(result.checks)})
    else:
        marks = {"ok": "[green]✓[/]", "failed": "[red]✗[/]", "unknown": "[yellow]?[/]"}
        for check in result.checks:
            out.print(f"{marks[check.state]} {printable(check.name)} {printable(check.words)}")
        out.print("[green]verified[/]" if result.ok else "[red]NOT verified[/]")
    if not result.ok:
        raise typer.Exit(3)


async def _folder(settings: Settings, id: str) -> Path:
    try:
        async with reading(settings) as store:
            return Path(store.vault.folder((await store.find(id)).id))
    except NotFound as problem:
        raise NotFound(
            f"{id!r} is neither an evidence folder nor an incident",
            where=str(settings.data),
            hint=problem.hint,
        ) from problem
