"""`tripshark export` and `verify`: evidence handed on, and proof that nothing was changed."""

from __future__ import annotations

import asyncio
import io
import sys
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer

from tripshark.cli.capture_file import capture_of
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
from tripshark.errors import BadInput, NotFound, Permanent, TripsharkError
from tripshark.formats import pcap, pcapng
from tripshark.formats.copying import read_key_log
from tripshark.formats.handing_on import with_notes
from tripshark.model.incident import Incident
from tripshark.model.note import Note
from tripshark.programs.accounts import current
from tripshark.programs.reading import reading
from tripshark.programs.reporting import Reports, told
from tripshark.settings import Settings
from tripshark.store.notes import SqlNotes
from tripshark.store.verify import verify as recompute

PACKETS = ("pcapng", "pcap")
ZEEK = "zeek"  # a folder of Zeek's logs


@command
def export(
    incident: Annotated[str, typer.Argument(help="Incident id, its beginning, or `last`.")],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="File to write; - for standard output.")
    ] = None,
    format: Annotated[
        str,
        typer.Option(
            "--format",
            help="pcapng, pcap, zip; report, markdown, timeline; ecs, ocsf, stix, misp; zeek (a folder), or zeek-conn, "
            "zeek-dns, zeek-ssl, zeek-http.",
        ),
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
    reports = Reports()
    formats = (*PACKETS, "zip", *reports.names, ZEEK)
    if format not in formats:
        raise BadInput(f"unknown format {format!r}", hint=f"one of {', '.join(formats)}")
    settings = settings_of(config, data)
    keys = _key_log(tls_keys, format)
    found, made = asyncio.run(
        _export(settings, incident, format, file, with_notes_=notes, keys=keys)
    )
    if format == ZEEK:
        written = _write_all(output or Path(f"{found.id}-zeek"), made)
    else:
        [(suffix, content)] = made.items()
        path = output or Path(f"{found.id}.{suffix}")
        if str(path) == "-":
            sys.stdout.buffer.write(content)
            sys.stdout.buffer.flush()
            return
        written = {path: content}
        _write(path, content)
    if as_json:
        size = sum(map(len, written.values()))
        where = output or Path(f"{found.id}-zeek") if format == ZEEK else next(iter(written))
        emit({"incident": found.id, "format": format, "file": str(where), "bytes": size})
    else:
        for path, content in written.items():
            out.print(f"{printable(path)}: {len(content)} bytes")


def _write_all(folder: Path, made: Mapping[str, bytes]) -> dict[Path, bytes]:
    """Several files in a folder of their own. Raises `BadInput`, `Permanent`."""
    if str(folder) == "-":
        raise BadInput("several files do not fit into one output", hint="--format zeek-conn -o -")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        raise Permanent(f"cannot write: {problem.strerror}", where=str(folder)) from problem
    written = {folder / name: content for name, content in made.items()}
    for path, content in written.items():
        _write(path, content)
    return written


def _write(path: Path, content: bytes) -> None:
    """Raises `Permanent`."""
    try:
        path.write_bytes(content)
    except OSError as problem:
        raise Permanent(
            f"cannot write: {problem.strerror}", where=str(path), hint="name another file with -o"
        ) from problem


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
) -> tuple[Incident, dict[str, bytes]]:
    """The incident, and what was made of it by the end of its file's name."""
    async with reading(settings) as store:
        found = await store.sealed(id)
        folder = Path(store.vault.folder(found.id))
        notes = await SqlNotes(store.catalogue).of(found.id) if with_notes_ else ()
        if notes and format == "pcapng":
            err.print(
                f"[dim]with {len(notes)} notes as comments; --without-notes leaves them out[/]"
            )
        try:
            made = await asyncio.to_thread(_made, found, folder, format, file, notes, keys)
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
        return found, made


def _made(
    found: Incident, folder: Path, format: str, file: str, notes: Sequence[Note], keys: bytes
) -> dict[str, bytes]:
    """What is to be handed on, by the end of the file's name. Raises `OSError`, `NotFound`."""
    if format == "zip":
        return {"zip": _zip(found, folder)}
    if format not in PACKETS:
        reports, its = Reports(), told(folder, problem=found.problem)
        names = [each for each in reports.names if each.startswith("zeek-")]
        forms = names if format == ZEEK else [format]
        return {
            made.suffix: made.content for made in (reports.write(each, [its]) for each in forms)
        }
    path = capture_of(folder, file)
    if format == "pcap":
        return {"pcap": _classic(path)}
    return {"pcapng": with_notes(path.read_bytes(), path.name, notes, keys)}


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
