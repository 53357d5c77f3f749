"""The merged file of an incident with several parts: made from verified originals when it is asked for, and kept a while."""

from __future__ import annotations

import asyncio
import hashlib
import mmap
import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tripshark.errors import NotFound, Refused
from tripshark.model.evidence import Manifest, SealedFile, read_manifest
from tripshark.model.part import Part
from tripshark.respond.merge import Original, derivation, merge
from tripshark.store.disk import refused
from tripshark.store.folder import MANIFEST
from tripshark.store.remote import Cache, Remote

MAX_BYTES = 2 << 30  # of all originals together
DERIVATION = "merged.json"
_NAME = re.compile(r"merged(-[0-9]{1,5})?\.pcapng|merged\.json")


class MergedFiles:
    """`web.parts.Merging`: derived, so never evidence by itself; the same parts always make the same bytes."""

    def __init__(self, remote: Remote, cache: Cache, *, tool: str) -> None:
        """`tool` is who does it: "Tripshark 0.3.0"; another version makes its own files."""
        self._remote = remote
        self._cache = cache
        self._tool = tool
        self._one = asyncio.Lock()  # merging takes memory: one at a time

    async def open(self, parts: Sequence[Part], name: str) -> int:
        """A descriptor of `merged.pcapng`, `merged-<link type>.pcapng` or `merged.json`.

        Raises `NotFound`, `NotVerified` when a part is not what was sealed, `Refused` when it would be too large.
        """
        if not parts or _NAME.fullmatch(name) is None:
            raise NotFound("nothing to merge: this incident has no parts here", where=name)
        key = self._key(parts, name)
        async with self._one:
            there = await asyncio.to_thread(self._cache.find, key)
            if there is None:
                await self._make(parts)
                there = await asyncio.to_thread(self._cache.find, key)
        if there is None:
            raise NotFound(f"no {name} comes of these parts", hint="merged.json lists the files")
        return there

    def _key(self, parts: Sequence[Part], name: str) -> str:
        told = "\n".join([self._tool, name, *sorted(each.manifest_sha256 for each in parts)])
        return hashlib.sha256(told.encode()).hexdigest()

    async def _make(self, parts: Sequence[Part]) -> None:
        total = sum(file.bytes for part in parts for file in part.files)
        if total > MAX_BYTES:
            raise Refused(
                f"the parts have {total} bytes together, more than is merged here",
                hint="fetch the parts and merge them elsewhere",
            )
        wanted = [
            (part, file) for part in parts for file in part.files if file.name.endswith(".pcapng")
        ]
        with ExitStack() as opened:
            originals = []
            for part, file in wanted:
                manifest = await self._remote.open(
                    part.place, MANIFEST, part.manifest_sha256, part.manifest_bytes
                )
                told = await asyncio.to_thread(_manifest, manifest)
                fd = await self._remote.open(part.place, file.name, file.sha256, file.bytes)
                opened.callback(os.close, fd)
                originals.append(
                    Original(
                        name=file.name,
                        where=part.incident.folder,
                        data=opened.enter_context(_mapped(fd, file.bytes)),
                        manifest=told,
                        manifest_sha256=part.manifest_sha256,
                    )
                )
            await asyncio.to_thread(self._write, originals, parts)

    def _write(self, originals: Sequence[Original], parts: Sequence[Part]) -> None:
        files = []
        try:
            for number, merged in enumerate(merge(originals, tool=self._tool)):
                name = f"merged-{merged.linktype}.pcapng" if number else "merged.pcapng"
                fd, path = tempfile.mkstemp(prefix=".fetching-", dir=self._cache.folder)
                with os.fdopen(fd, "w+b") as out:
                    merged.write(out)
                    out.seek(0)
                    digest = hashlib.file_digest(out, "sha256").hexdigest()
                    size = out.seek(0, os.SEEK_END)
                files.append((merged, SealedFile(name=name, sha256=digest, bytes=size)))
                self._cache.take(Path(path), self._key(parts, name))
            fd, path = tempfile.mkstemp(prefix=".fetching-", dir=self._cache.folder)
            with os.fdopen(fd, "wb") as out:
                out.write(derivation(files, tool=self._tool))
            self._cache.take(Path(path), self._key(parts, DERIVATION))
        except OSError as error:
            raise refused(error, self._cache.folder) from error


def _manifest(fd: int) -> Manifest:
    with os.fdopen(fd, "rb") as file:
        return read_manifest(file.read())


@contextmanager
def _mapped(fd: int, size: int) -> Iterator[memoryview]:
    if not size:
        yield memoryview(b"")
        return
    mapped = mmap.mmap(fd, size, access=mmap.ACCESS_READ)
    # Not closed: arrays over it may outlive this block; the memory goes with the last of them.
    yield memoryview(mapped)
