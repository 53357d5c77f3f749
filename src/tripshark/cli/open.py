"""`tripshark open`: an incident's packets in Wireshark, with pods' names, alert rows and analysts' notes."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer

from tripshark.cli.capture_file import capture_of
from tripshark.cli.common import (
    CaFile,
    Config,
    Data,
    Incident,
    TokenFile,
    command,
    err,
    printable,
    settings_of,
)
from tripshark.cli.wireshark import places
from tripshark.errors import BadInput, Denied, NotFound, Permanent, TripsharkError
from tripshark.formats.copying import annotated
from tripshark.formats.wireshark_profile import NAME, files
from tripshark.programs.accounts import current
from tripshark.programs.reading import reading
from tripshark.settings import Settings
from tripshark.store.notes import SqlNotes
from tripshark.wireshark import installer
from tripshark.wireshark.asking import Service

ANSWER_SECONDS = 60.0
EVIDENCE = "evidence.pcapng"
Notes = Mapping[int, Sequence[str]]


@command
def open(
    incident: Incident,
    url: Annotated[
        str,
        typer.Option(
            "--url",
            help="Ask this Tripshark, a hub for instance: https://hub.example:2803.",
            show_default=False,
        ),
    ] = "",
    token_file: TokenFile = None,
    ca_file: CaFile = None,
    file: Annotated[
        str,
        typer.Option(
            "--file",
            help="Which, where there are several: evidence-peer.pcapng, NODE/evidence.pcapng.",
            show_default=False,
        ),
    ] = "",
    filter: Annotated[
        str, typer.Option("--filter", help="Display filter: dns.", show_default=False)
    ] = "",
    with_tshark: Annotated[
        bool, typer.Option("--tshark", help="Print the packet list with tshark instead.")
    ] = False,
    with_termshark: Annotated[
        bool, typer.Option("--termshark", help="In the terminal, with termshark.")
    ] = False,
    config: Config = None,
    data: Data = None,
) -> None:
    """The packets in Wireshark, with names, alert rows and notes; ends when it is closed.

    Example: tripshark open last
    """
    if with_tshark and with_termshark:
        raise BadInput("one of --tshark and --termshark")
    tool = "tshark" if with_tshark else "termshark" if with_termshark else "wireshark"
    program = _program(tool, incident)
    with (
        _evidence(incident, url, token_file, ca_file, file, config, data) as path,
        _profile() as environment,
    ):
        argv = [program, "-C", NAME, "-r", str(path)]
        argv += ["-Y", filter] if filter else []
        if with_tshark and sys.stdout.isatty():
            argv.append("--color")
        done = subprocess.run(argv, check=False, env=environment)  # noqa: S603  # no shell: a path is only a path
    if done.returncode:
        raise typer.Exit(done.returncode if done.returncode > 0 else 1)


def _program(tool: str, incident: str) -> str:
    """Its path. Raises `NotFound` with what works without it."""
    found = shutil.which(tool)
    seen = tool != "wireshark" or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    if found and seen:
        return found
    why = f"{tool} is not installed here" if not found else "there is no screen here for Wireshark"
    raise NotFound(
        why,
        hint=f"tripshark open {incident} --tshark prints the packets; where Wireshark is:\n"
        f"ssh HOST sudo tripshark export {incident} -o - | wireshark -k -i -",
    )


# ------------------------------------------------------------------------------------------- the packets


@contextmanager
def _evidence(
    id: str,
    url: str,
    token_file: Path | None,
    ca_file: Path | None,
    name: str,
    config: Path | None,
    data: Path | None,
) -> Iterator[Path]:
    """The file to be shown: the sealed one itself, or a copy with analysts' notes that goes away again."""
    with tempfile.TemporaryDirectory(prefix="tripshark-open-") as folder:
        scratch = Path(folder)
        if url:
            service = Service(url=url, token_file=token_file, ca_file=ca_file)
            path, notes = _fetched(service, id, name, scratch)
        else:
            path, notes = asyncio.run(_sealed(settings_of(config, data), id, name))
        yield _noted(path, notes, scratch) if notes else path


def _noted(path: Path, notes: Notes, scratch: Path) -> Path:
    """A copy whose packets carry what analysts wrote at them."""
    try:
        made = annotated(path.read_bytes(), notes)
    except BadInput as problem:
        err.print(f"[yellow]notes cannot be shown: {printable(problem)}[/]")
        return path
    copy = scratch / f"annotated-{path.name}"
    copy.write_bytes(made)
    count = sum(len(each) for each in notes.values())
    err.print(f"[dim]a copy with {count} notes as comments; the sealed file is not touched[/]")
    return copy


async def _sealed(settings: Settings, id: str, name: str) -> tuple[Path, Notes]:
    async with reading(settings) as store:
        found = await store.sealed(id)
        path = capture_of(Path(store.vault.folder(found.id)), name)
        notes = _by_frame(
            (each.frame, each.text, each.by)
            for each in await SqlNotes(store.catalogue).of(found.id)
            if each.file == path.name
        )
        try:
            store.vault.custody(found.id, "viewed", current().name, {"file": path.name})
        except TripsharkError as problem:
            err.print(f"[yellow]custody.jsonl could not be written: {printable(problem)}[/]")
        return path, notes


def _fetched(service: Service, id: str, name: str, scratch: Path) -> tuple[Path, Notes]:
    """Over HTTP, into a file that only we read."""
    if id == "last":
        newest = _rows(
            service.json("/v1/incidents", seconds=ANSWER_SECONDS, limit="1"), "incidents"
        )
        if not newest:
            raise NotFound("there is no incident yet", where=service.where)
        id = str(newest[0].get("id"))
    incident = f"/v1/incidents/{quote(id, safe='')}"
    parts = _rows(service.json(f"{incident}/parts", seconds=ANSWER_SECONDS), "parts")
    chosen = name or ("merged.pcapng" if len(parts) > 1 else EVIDENCE)
    node, slash, inside = chosen.partition("/")
    path = (
        f"{incident}/parts/{quote(node)}/{quote(inside)}"
        if slash
        else f"{incident}/{quote(chosen)}"
    )
    copy = scratch / f"{quote(id, safe='')}-{quote(chosen, safe='')}"
    with copy.open("wb") as out, service.stream(path, seconds=ANSWER_SECONDS) as (_, pieces):
        for piece in pieces:
            out.write(piece)
    try:
        told = _rows(service.json(f"{incident}/notes", seconds=ANSWER_SECONDS), "notes")
    except (NotFound, Denied, Permanent):  # an older service, or not for us
        told = []
    notes = _by_frame(
        (int(each["frame"]), str(each["text"]), str(each["by"]))
        for each in told
        if each.get("file") == chosen
    )
    return copy, notes


def _rows(answer: Mapping[str, object], name: str) -> list[dict[str, Any]]:
    rows = answer.get(name)
    return [each for each in rows if isinstance(each, dict)] if isinstance(rows, list) else []


def _by_frame(told: Iterator[tuple[int, str, str]] | Sequence[tuple[int, str, str]]) -> Notes:
    found: dict[int, list[str]] = {}
    for frame, text, by in told:
        found.setdefault(frame, []).append(f"{text} ({by})")
    return found


# ------------------------------------------------------------------------------------------- the profile


@contextmanager
def _profile() -> Iterator[Mapping[str, str]]:
    """The environment in which Wireshark finds the profile: installed, or for this time alone."""
    where = places(system=False)
    environment = dict(os.environ)
    if installer.has_profile(where):
        yield environment
        return
    try:
        installer.install(where, (), extcap=False)
    except TripsharkError:
        with tempfile.TemporaryDirectory(prefix="tripshark-wireshark-") as folder:
            profile = Path(folder) / "profiles" / NAME
            profile.mkdir(parents=True)
            for name, content in files().items():
                (profile / name).write_text(content, encoding="utf-8")
            err.print(
                "[dim]your Wireshark's folder cannot be written: other settings are not used[/]"
            )
            yield {**environment, "WIRESHARK_CONFIG_DIR": folder}
        return
    err.print(
        f"[dim]the profile {NAME} is new in {printable(where.profile.parent)}; "
        "`tripshark wireshark uninstall` removes it[/]"
    )
    yield environment
