"""`tripshark merge`: what several nodes sealed of one incident, as one file for Wireshark."""

from __future__ import annotations

import asyncio
import hashlib
import mmap
import os
from pathlib import Path
from typing import Annotated

import typer

from tripshark import __version__
from tripshark.cli.common import (
    AsJson,
    Config,
    Data,
    command,
    emit,
    err,
    out,
    printable,
    settings_of,
)
from tripshark.errors import BadInput, NotFound, Permanent
from tripshark.model.evidence import MAX_MANIFEST_BYTES, Manifest, SealedFile, read_manifest
from tripshark.programs.reading import reading
from tripshark.respond import merge as merging
from tripshark.respond.merge import Merged, Original
from tripshark.settings import Settings

MANIFEST = "manifest.json"
MAX_FILE = 4 << 30
TOOL = f"Tripshark {__version__}"


@command
def merge(
    parts: Annotated[
        list[str],
        typer.Argument(help="Evidence folders, single pcapng files, or incident ids."),
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="File to write.")],
    correct_clocks: Annotated[
        bool,
        typer.Option(
            "--correct-clocks",
            help="Move each node's times by what its kernel knew its clock to be off.",
        ),
    ] = False,
    config: Config = None,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """One file of what several nodes sealed: an interface per pod, packets in time order, each alert once. The parts
    remain the evidence; FILE.json beside the file names the hashes of what it was made from.

    Example: tripshark merge node-1/20261124t101502-7kq3f2 node-2/20261124t101502-7kq3f2 -o merged.pcapng
    """
    settings = settings_of(config, data)
    originals = [each for name in parts for each in _originals(settings, name)]
    files: list[tuple[Merged, SealedFile]] = []
    made = merging.merge(originals, tool=TOOL, correct_clocks=correct_clocks)
    for number, merged in enumerate(made):
        path = output if number == 0 else output.with_stem(f"{output.stem}-{merged.linktype}")
        files.append((merged, _write(merged, path)))
    told = merging.derivation(files, tool=TOOL)
    beside = output.with_name(f"{output.name}.json")
    _replace(beside, told)
    if as_json:
        emit(
            {
                "files": [
                    {
                        "file": str(output.with_name(file.name)),
                        "sha256": file.sha256,
                        "bytes": file.bytes,
                        "packets": merged.packets,
                        "interfaces": len(merged.interfaces),
                    }
                    for merged, file in files
                ],
                "derivation": str(beside),
                "parts": len(made[0].parts),
            }
        )
        return
    for merged, file in files:
        out.print(
            f"{printable(file.name)}: {merged.packets} packets of {len(merged.interfaces)} interfaces "
            f"from {len(merged.parts)} files"
        )
    _warn(made[0], correct_clocks)


def _warn(merged: Merged, corrected: bool) -> None:
    """What the order of packets of different nodes rests on."""
    said: dict[str, None] = {}
    for part in merged.parts:
        if part.original.manifest is None:
            said[f"{printable(part.original.name)} has no manifest: not verified"] = None
        elif part.clock.get("synchronised") is False and not corrected:
            who = printable(part.node or part.original.where)
            said[f"the clock of {who} was not synchronised: its order is its own"] = None
    for each in said:  # a node that gave several parts is told of once
        err.print(f"[yellow]{each}[/]")


def _originals(settings: Settings, name: str) -> list[Original]:
    """The capture files of a folder or incident, or the one file. Raises `NotFound`, `BadInput`."""
    path = Path(name)
    if path.is_file():
        return [_original(path)]
    folder = path if path.is_dir() else Path(asyncio.run(_folder(settings, name)))
    found = sorted(folder.glob("evidence*.pcapng"))
    if not found:
        raise NotFound("there are no packets", where=str(folder), hint="name evidence folders")
    return [_original(each) for each in found]


async def _folder(settings: Settings, id: str) -> str:
    try:
        async with reading(settings) as store:
            return store.vault.folder((await store.find(id)).id)
    except NotFound as problem:
        raise NotFound(
            f"{id!r} is neither a folder, a file nor an incident",
            where=str(settings.data),
            hint=problem.hint,
        ) from problem


def _original(path: Path) -> Original:
    """The file mapped, and the manifest beside it where there is one."""
    manifest: Manifest | None = None
    digest = ""
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_size > MAX_FILE:
                raise BadInput(f"larger than {MAX_FILE >> 30} GiB", where=str(path))
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        beside = path.with_name(MANIFEST)
        if beside.is_file():
            with beside.open("rb") as file:
                if os.fstat(file.fileno()).st_size > MAX_MANIFEST_BYTES:
                    raise BadInput("too large for a manifest", where=str(beside))
                content = file.read()
            manifest, digest = read_manifest(content), hashlib.sha256(content).hexdigest()
    except (OSError, ValueError) as problem:  # an empty file cannot be mapped
        raise BadInput(f"cannot be read: {problem}", where=str(path)) from problem
    return Original(
        name=path.name,
        where=str(path.parent),
        data=memoryview(mapped),
        manifest=manifest,
        manifest_sha256=digest,
    )


def _write(merged: Merged, path: Path) -> SealedFile:
    """Under its name only when it is whole."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with fresh.open("wb") as file:
            merged.write(file)
        with fresh.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        size = fresh.stat().st_size
        fresh.replace(path)
    except OSError as problem:
        fresh.unlink(missing_ok=True)
        raise _unwritten(problem, path) from problem
    return SealedFile(name=path.name, sha256=digest, bytes=size)


def _replace(path: Path, content: bytes) -> None:
    try:
        path.write_bytes(content)
    except OSError as problem:
        raise _unwritten(problem, path) from problem


def _unwritten(problem: OSError, path: Path) -> Permanent:
    return Permanent(
        f"cannot write: {problem.strerror}", where=str(path), hint="name another file with -o"
    )
