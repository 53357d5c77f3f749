"""A capture being filled: a folder of files that are nothing yet, until the vault seals what is kept of them."""

from __future__ import annotations

import contextlib
import io
import mmap
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO, cast

from tripshark.errors import BadInput, NotFound
from tripshark.model.evidence import (
    IncidentId,
    Manifest,
    file_name,
)
from tripshark.store.disk import refused, remove_tree
from tripshark.store.folder import OWN

SEAL = ".seal-"  # begins the name of the folder to be, and of a draft that goes
_Seal = Callable[["FolderDraft", Manifest, Sequence[str]], Manifest]


class FolderDraft:
    """`ports.Draft`: made by `FolderVault.begin` or found by `FolderVault.drafts`."""

    def __init__(self, path: Path, incident: IncidentId, opened_ns: int, *, seal: _Seal) -> None:
        self._seal = seal
        self.path = path
        self.incident = incident
        self.opened_ns = opened_ns

    def create(self, name: str) -> BinaryIO:
        """A new file in the draft, or the same file again for appending; buffered.

        Raises `BadInput` for a name that is none or is the vault's own. Writing and closing raise `Transient`
        when the disk is full; what was written before stays.
        """
        if name in OWN:
            raise BadInput(f"{name} is written by the vault itself")
        path = self.path / file_name(name)
        try:
            fd = os.open(
                path,
                os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC,
                0o640,
            )
            os.fchmod(fd, 0o640)
        except OSError as error:
            raise refused(error, path) from error
        return cast("BinaryIO", io.BufferedWriter(_Appending(fd, path), 1 << 20))

    def remove(self, name: str) -> None:
        """Take a file out of the draft, so that `create` begins anew; none is fine too."""
        path = self.path / file_name(name)
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise refused(error, path) from error

    def read(self, name: str) -> memoryview:
        """A file of the draft, mapped. Raises `NotFound`, `BadInput`."""
        path = self.path / file_name(name)
        try:
            with path.open("rb") as file:
                if os.fstat(file.fileno()).st_size == 0:
                    return memoryview(b"")
                return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        except FileNotFoundError:
            raise NotFound("no such file in the draft", where=str(path)) from None
        except OSError as error:
            raise refused(error, path) from error

    def names(self) -> tuple[str, ...]:
        """Files in the draft."""
        try:
            names = [path.name for path in self.path.iterdir()]
        except OSError as error:
            raise refused(error, self.path) from error
        return tuple(sorted(name for name in names if not name.startswith(".")))

    def seal(self, manifest: Manifest, keep: Sequence[str]) -> Manifest:
        """fsync and hash `keep`, sign and write the manifest, rename into place, drop the rest.

        Every file of the draft must be closed: what is still in a buffer is not in the evidence.
        Returns the manifest as written: with the files' hashes and the group `signature`. Raises `Transient` on a
        full disk, and `Permanent` when that incident is sealed already; both leave the draft as it was.
        """
        return self._seal(self, manifest, keep)

    def discard(self) -> None:
        """Remove the draft. What cannot be removed now is removed after the next start."""
        going = self.path.with_name(f"{SEAL}{self.incident}")
        with contextlib.suppress(OSError):
            remove_tree(going)
            self.path.rename(going)  # vanishes whole, so that no half draft is ever salvaged
            remove_tree(going)


class _Appending(io.FileIO):
    """A file whose errors are ours."""

    def __init__(self, fd: int, path: Path) -> None:
        super().__init__(fd, "ab")
        self._path = path

    def write(self, data: memoryview | bytes) -> int:  # type: ignore[override]  # FileIO's Buffer has no name in 3.11
        try:
            return super().write(data)
        except OSError as error:
            raise refused(error, self._path) from error
