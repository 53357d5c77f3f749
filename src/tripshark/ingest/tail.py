"""What stands new in a file that another program writes and rotates, without losing or doubling a line.

Rotation comes in three ways, and all leave the rest of the old content somewhere beside the file:
renamed and made anew (logrotate's default: Falco goes on writing to the renamed file until it reopens), copied
and truncated (`copytruncate`: the copy holds what we had not read), and a symbolic link pointed elsewhere. The place is
remembered as inode, offset and a hash of the file's beginning; the hash tells a truncated file that has
grown again from the one we knew, and finds its copy. One loss cannot be seen: content that was written and truncated
away before we looked at it once (within a second of the file's beginning).
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import msgspec

from tripshark.errors import BadInput

HEAD = 512  # bytes that identify a file: a Falco line has its own nanoseconds well within
CHUNK = 1 << 18
LEAVING_SECONDS = 10.0  # a renamed file is read on until it has been quiet for this long


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where we stand in one file; the state file holds one for every file being read."""

    inode: int
    device: int
    offset: int  # of the first byte not yet taken, always a line's beginning (or within an over-long line)
    head_length: int
    head: str  # SHA-256 of the first `head_length` bytes
    skipping: bool = False  # within an over-long line


class _Memory(msgspec.Struct, frozen=True):
    """The state file: places are worth something only for the path they belong to."""

    path: str
    places: tuple[Place, ...]


_MEMORY = msgspec.json.Decoder(_Memory)


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """What was passed over, since the tail was opened."""

    overlong: int = 0
    lost: tuple[str, ...] = ()  # stretches that could not be found again, in words, the last 20
    lost_total: int = 0


@dataclass(slots=True)
class _Open:
    """One open file and how far it has been read."""

    descriptor: int
    inode: int
    device: int
    offset: int = 0
    pending: bytes = b""  # a line that has not ended yet; begins at `offset`
    head: bytes = b""
    skipping: bool = False
    quiet_since: float = 0.0
    modified_ns: int = 0  # when it was opened


class Tail:
    """Reads lines. `commit` says that everything handed out is safe; only then is the place remembered.

    Blocking file operations of a few hundred kilobytes; call it from one task at a time.
    """

    def __init__(
        self, path: Path, state: Path, *, from_start: bool = False, max_line: int = 1 << 20
    ) -> None:
        self._path = path
        self._state = state
        self._max_line = max_line
        self._from_start = from_start
        self._files: list[_Open] = []  # those being left, oldest first, then the current one
        self._overlong = 0
        self._lost: list[str] = []
        self._lost_total = 0
        self._finished: list[Place] = []  # files read to their end and closed
        self._looked = False
        self._saved = self._load()

    @property
    def counts(self) -> Counts:
        return Counts(overlong=self._overlong, lost=tuple(self._lost), lost_total=self._lost_total)

    @property
    def is_open(self) -> bool:
        return bool(self._files)

    def read(self, now: float, limit: int = CHUNK) -> list[bytes]:
        """Complete lines that are new, up to about `limit` bytes; empty when there are none now.

        `now` is in seconds of a steady clock. Raises `OSError` only for a file that is there and cannot be read.
        """
        self._look(now)
        while self._files:
            current = self._files[0]
            is_leaving = len(self._files) > 1
            lines, got = self._read_some(current, limit)
            if lines:
                current.quiet_since = now
                return lines
            if got:
                current.quiet_since = now
                continue  # a long line is still arriving
            if not is_leaving or now - current.quiet_since < LEAVING_SECONDS:
                # Falco may still write to the renamed file; what comes in the new one is read beside it.
                return self._read_new(now, limit) if is_leaving else []
            rest = self._rest(current)
            self._finished = [*self._finished[-15:], _place(current)]
            self._files.pop(0)
            os.close(current.descriptor)
            if rest:
                return rest
        return []

    def _read_new(self, now: float, limit: int) -> list[bytes]:
        for each in self._files[1:]:
            lines, _ = self._read_some(each, limit)
            if lines:
                each.quiet_since = now
                return lines
        return []

    def _rest(self, file: _Open) -> list[bytes]:
        """A last line without its end, of a file that nobody writes any more."""
        rest, file.pending = file.pending, b""
        file.offset += len(rest)
        return [rest] if rest and not file.skipping else []

    def _read_some(self, file: _Open, limit: int) -> tuple[list[bytes], bool]:
        data = os.pread(file.descriptor, limit, file.offset + len(file.pending))
        if not data:
            return [], False
        if file.skipping:
            end = data.find(b"\n")
            if end < 0:
                file.offset += len(data)
                return [], True
            file.offset += end + 1
            data = data[end + 1 :]
            file.skipping = False
        pieces = (file.pending + data).split(b"\n")
        file.pending = pieces.pop()
        file.offset += sum(len(piece) + 1 for piece in pieces)
        lines = []
        for piece in pieces:
            if len(piece) > self._max_line:
                self._overlong += 1
            elif piece.strip():
                lines.append(piece)
        if len(file.pending) > self._max_line:
            self._overlong += 1
            file.offset += len(file.pending)
            file.pending, file.skipping = b"", True
        return lines, True

    # ------------------------------------------------------------------------------------- rotation

    def _look(self, now: float) -> None:
        """Open the file when it appears, and notice when another one has taken its name."""
        first, self._looked = not self._looked, True
        try:
            there = self._path.stat()
        except FileNotFoundError:
            return
        current = self._files[-1] if self._files else None
        if current is None:
            if self._saved:
                self._find(self._saved, now)
            elif (opened := self._open(self._path, now)) is not None:
                # A file that appears after we did is all new; one that was there before is history.
                if first and not self._from_start:
                    self._to_end(opened)
                self._files = [opened]
                self.commit()
            return
        cut = [each for each in self._files if self._was_truncated(each)]
        is_same = (there.st_ino, there.st_dev) == (current.inode, current.device)
        if not cut and is_same:
            current.modified_ns = there.st_mtime_ns
            return
        current.quiet_since = now
        for each in cut:
            self._files.remove(each)
            os.close(each.descriptor)
        self._find([_place(each) for each in cut], now, since=current.modified_ns)

    def _open(self, path: Path, now: float) -> _Open | None:
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except FileNotFoundError:
            return None
        status = os.fstat(descriptor)
        return _Open(
            descriptor=descriptor,
            inode=status.st_ino,
            device=status.st_dev,
            modified_ns=status.st_mtime_ns,
            head=os.pread(descriptor, HEAD, 0),
            quiet_since=now,
        )

    def _to_end(self, opened: _Open) -> None:
        """Stand at the beginning of the line being written now."""
        size = os.fstat(opened.descriptor).st_size
        start = max(0, size - self._max_line)
        last = os.pread(opened.descriptor, size - start, start).rfind(b"\n")
        opened.offset = start + last + 1 if last >= 0 else size
        opened.skipping = last < 0 and size > 0

    def _was_truncated(self, file: _Open) -> bool:
        if os.fstat(file.descriptor).st_size < file.offset + len(file.pending):
            return True
        head = os.pread(file.descriptor, HEAD, 0)
        if not head.startswith(file.head):
            return True
        file.head = head
        return False

    def _find(self, known: Sequence[Place], now: float, *, since: int | None = None) -> None:
        """Take reading up again at `known`, wherever that content lies now, and go on to the current file.

        Whole files that were rotated in between are read too: those after the first that is known, and those
        written after `since` (a file's mtime in nanoseconds). What is not found is said.
        """
        mine = {(each.inode, each.device) for each in self._files}
        files = [self._open(path, now) for path in self._siblings()]
        there = sorted(
            (each for each in files if each is not None), key=lambda each: each.modified_ns
        )
        current = self._open(self._path, now)
        there = [each for each in (*there, current) if each is not None]
        for each in [one for one in there if (one.inode, one.device) in mine]:
            os.close(each.descriptor)
            there.remove(each)
        begin = len(there) - 1
        if since is not None:
            begin = next((at for at, each in enumerate(there) if each.modified_ns > since), begin)
        for place in self._finished:
            done = _match(there, place)
            if done is not None:
                _take_up(done, place)
        for place in known:
            match = _match(there, place)
            if match is not None:
                _take_up(match, place)
                begin = min(begin, there.index(match))
            elif place.head_length:
                self._miss(
                    f"{self._path} was replaced, and its former content beyond byte "
                    f"{place.offset} was not found beside it"
                )
        for each in there[: max(0, begin)]:
            os.close(each.descriptor)
        there = there[max(0, begin) :]
        for each in there[:-2]:  # only the newest of the rotated can still be written to
            each.quiet_since = now - LEAVING_SECONDS
        self._files += there

    def _siblings(self) -> list[Path]:
        """Rotated files: `falco.json.1`, `falco.json-20261124`, `falco-2026.json`, not the compressed ones."""
        real = self._path.resolve()
        name = re.escape(self._path.stem), re.escape(self._path.suffix)
        pattern = re.compile(
            rf"{name[0]}(?:{name[1]}[.-][0-9][0-9T._-]*|[.-][0-9][0-9T._-]*{name[1]}|{name[1]}\.old)"
        )
        folders = {self._path.parent, real.parent}
        found = {}
        for folder in folders:
            try:
                names = [each for each in folder.iterdir() if pattern.fullmatch(each.name)]
            except OSError:
                continue
            for each in names:
                try:
                    status = each.stat()
                except OSError:
                    continue
                found[status.st_ino, status.st_dev] = each
        try:
            current = real.stat()
        except OSError:
            return list(found.values())
        found.pop((current.st_ino, current.st_dev), None)
        return list(found.values())

    def _miss(self, words: str) -> None:
        self._lost = [*self._lost[-19:], words]
        self._lost_total += 1

    # ------------------------------------------------------------------------------------- memory

    def commit(self) -> None:
        """Everything handed out is safe: remember the place. Raises `OSError` when it cannot be written."""
        places = tuple(_place(each) for each in self._files)
        if not places or places == self._saved:
            return
        beside = self._state.with_name(self._state.name + ".new")
        beside.write_bytes(msgspec.json.encode(_Memory(os.fspath(self._path), places)))
        beside.replace(self._state)
        self._saved = places

    def _load(self) -> tuple[Place, ...]:
        try:
            memory = _MEMORY.decode(self._state.read_bytes())
        except FileNotFoundError:
            return ()
        except msgspec.DecodeError as error:
            raise BadInput(
                f"the remembered position is not readable: {error}",
                where=str(self._state),
                hint="remove the file; reading then begins anew",
            ) from error
        return memory.places if memory.path == os.fspath(self._path) else ()

    def close(self) -> None:
        for each in self._files:
            os.close(each.descriptor)
        self._files = []


def _place(file: _Open) -> Place:
    return Place(
        inode=file.inode,
        device=file.device,
        offset=file.offset,
        head_length=len(file.head),
        head=sha256(file.head).hexdigest(),
        skipping=file.skipping,
    )


def _match(files: Sequence[_Open], place: Place) -> _Open | None:
    """The file that holds the content known as `place`: the same inode first, then a copy of it."""
    same = [each for each in files if (each.inode, each.device) == (place.inode, place.device)]
    for each in same:
        if _head_is(each.descriptor, place):
            return each
    if not place.head_length:
        return None
    return next((each for each in files if _head_is(each.descriptor, place)), None)


def _head_is(descriptor: int, place: Place) -> bool:
    """The file begins as the remembered one did and is no shorter than we had read."""
    if os.fstat(descriptor).st_size < place.offset:
        return False
    return sha256(os.pread(descriptor, place.head_length, 0)).hexdigest() == place.head


def _take_up(file: _Open, place: Place) -> None:
    file.offset, file.skipping = place.offset, place.skipping
