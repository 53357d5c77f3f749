"""What every part of the store does to a disk: names made durable, refusals told in one way."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from pathlib import Path

from tripshark.errors import Permanent, Transient, TripsharkError

_FULL = (errno.ENOSPC, errno.EDQUOT)
_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)


def refused(error: OSError, where: Path) -> TripsharkError:
    """The disk's "no" as an error with a hint: `Transient`, or `Permanent` where only an administrator helps."""
    if error.errno in _FULL:
        return Transient(
            "the disk is full",
            where=str(where),
            hint="free space on it; nothing else is needed",
            after=5.0,
        )
    if error.errno in _FORBIDDEN:
        return Permanent(
            f"not allowed to write there: {error.strerror}",
            where=str(error.filename or where),
            hint="give the folder to the user Tripshark runs as, or choose another with --data",
        )
    return Transient(
        f"the disk refused: {error.strerror or error}",
        where=str(error.filename or where),
        hint="the kernel's log (dmesg) says what is wrong with the disk",
        after=5.0,
    )


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable. Raises `OSError`."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def make_folders(folder: Path, mode: int = 0o750) -> None:
    """The folder and those above it, each durable in its parent, whatever the umask. Raises `OSError`."""
    if folder.is_dir():
        return
    make_folders(folder.parent, mode)
    try:
        folder.mkdir()
    except FileExistsError:
        return
    folder.chmod(mode)
    sync_folder(folder.parent)


def write_all(fd: int, data: bytes | memoryview, offset: int) -> None:
    """Write every byte there. Raises `OSError`; then any part of them may have been written."""
    view = memoryview(data)
    while view:
        written = os.pwrite(fd, view, offset)
        view = view[written:]
        offset += written


def remove_tree(path: Path) -> None:
    """Raises `OSError` when something stays; that there is nothing is no error."""
    with contextlib.suppress(FileNotFoundError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
