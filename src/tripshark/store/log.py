"""The journal's segment files: what is on disk for certain, said by one synchronous object.

`journal/00000001.log`, `00000002.log` … Only the newest is written, and only at its end. A segment is never written
again after a restart or after a failed sync: the kernel may have dropped the pages that a sync could not write, so a
later sync that succeeds says nothing about them.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import secrets
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tripshark.errors import BadInput, Permanent, TripsharkError
from tripshark.ports import Record
from tripshark.store.disk import make_folders, refused, sync_folder, write_all
from tripshark.store.segment import HEADER, frame, header, read_header, scan

_NAME = re.compile(r"(\d{8,18})\.log", re.ASCII)
_FIRST_PIECE = 256 << 10  # bytes read at once; doubled until a whole record lies within


@dataclass(frozen=True, slots=True, kw_only=True)
class LogState:
    """How the journal is doing. Every number that is not 0 below `first_seq` deserves a look."""

    segments: int
    bytes: int
    last_seq: int  # of the newest durable record, 0: there was none yet
    cut_bytes: int = 0  # torn by a crash, cut off when the journal was opened
    damaged_bytes: int = 0  # passed over because their checksum is wrong
    set_aside: int = 0  # segments whose header is damaged, renamed to *.damaged
    abandoned: int = 0  # segments given up because the disk failed a sync


@dataclass(slots=True)
class _Segment:
    number: int
    path: Path
    salt: int
    first_seq: int
    last_seq: int  # durable
    size: int  # durable


@dataclass(frozen=True, slots=True)
class _Cursor:
    """Where the record after `seq` begins."""

    seq: int = 0
    number: int = 0
    offset: int = HEADER


class Log:
    """Segment files of one folder, held by one process.

    `commit` and `forget` belong to one thread, `read` to another; nothing else may call them.
    """

    def __init__(
        self,
        folder: Path,
        *,
        segment_bytes: int,
        at_least: int = 0,
        sync: Callable[[int], None] = os.fdatasync,
    ) -> None:
        """Open, mend and lock the folder. The next seq is above `at_least`, whatever the folder has lost.

        Raises `Permanent` when another process holds it, `Transient` when the disk refuses.
        """
        self._folder = folder
        self._segment_bytes = segment_bytes
        self._sync = sync
        self._lock = threading.Lock()  # guards _segments, _state
        self._segments: list[_Segment] = []
        self._state = LogState(segments=0, bytes=0, last_seq=0)
        self._fd = -1
        self._cursor = _Cursor()
        self._next_number = 1
        self._next_seq = at_least + 1
        try:
            make_folders(folder)
            self._guard = self._hold()
            self._open()
        except OSError as error:
            raise refused(error, self._folder) from error

    @property
    def last_seq(self) -> int:
        """Seq of the newest durable record."""
        return self._state.last_seq

    @property
    def size(self) -> int:
        """Bytes on disk, all segments together. Asked at every append, so without the lock: the list only grows or is replaced."""
        return sum(segment.size for segment in self._segments)

    def state(self) -> LogState:
        """Everything countable."""
        size = self.size
        with self._lock:
            return replace(self._state, segments=len(self._segments), bytes=size)

    def commit(self, records: Sequence[Record]) -> int:
        """Write these with one sync; returns the seq of the first, the others follow it. Their own seq is ignored.

        Raises `Transient`: then none of them is in the journal.
        """
        segment = self._writable()
        first = self._next_seq
        data = b"".join(
            frame(segment.salt, replace(record, seq=first + at))
            for at, record in enumerate(records)
        )
        try:
            write_all(self._fd, data, segment.size)
        except OSError as error:
            try:
                os.ftruncate(self._fd, segment.size)
            except OSError:
                self._abandon(segment, len(records))
            raise refused(error, self._folder) from error
        try:
            self._sync(self._fd)
        except OSError as error:
            self._abandon(segment, len(records))
            raise refused(error, self._folder) from error
        self._next_seq += len(records)
        with self._lock:
            segment.size += len(data)
            segment.last_seq = self._next_seq - 1
            self._state = replace(self._state, last_seq=segment.last_seq)
        if segment.size >= self._segment_bytes:
            self._stop_writing()
        return first

    def read(self, after: int, limit: int, max_bytes: int) -> list[Record]:
        """Up to `limit` records after `after`, at least one where there is one, hardly more than `max_bytes`."""
        with self._lock:
            segments = [replace(segment) for segment in self._segments if segment.last_seq > after]
        records: list[Record] = []
        for segment in segments:
            offset = HEADER
            if (self._cursor.number, self._cursor.seq) == (segment.number, after):
                offset = self._cursor.offset
            try:
                offset = self._read_segment(segment, offset, after, limit, max_bytes, records)
            except FileNotFoundError:  # forgotten meanwhile
                continue
            except OSError as error:
                raise refused(error, self._folder) from error
            if records:
                self._cursor = _Cursor(records[-1].seq, segment.number, offset)
                break
        return records

    def forget(self, upto: int) -> None:
        """Delete segments that hold nothing after `upto`. The newest stays: it knows the next seq."""
        with self._lock:
            newest = self._segments[-1] if self._segments else None
        if newest and newest.last_seq <= upto and newest.size >= self._segment_bytes:
            with contextlib.suppress(TripsharkError):  # tried again at the next call
                self._start_segment()
        with self._lock:
            gone = [segment for segment in self._segments[:-1] if segment.last_seq <= upto]
            self._segments = [segment for segment in self._segments if segment not in gone]
        for segment in gone:
            with contextlib.suppress(OSError):  # found again, and forgotten again, after a restart
                segment.path.unlink(missing_ok=True)

    def close(self) -> None:
        """Give the folder free. Calling twice is harmless."""
        self._stop_writing()
        if self._guard >= 0:
            os.close(self._guard)
            self._guard = -1

    def _hold(self) -> int:
        guard = os.open(self._folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        try:
            fcntl.flock(guard, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(guard)
            raise Permanent(
                "another Tripshark writes this journal",
                where=str(self._folder),
                hint="stop it, or give this one its own --data folder",
            ) from error
        return guard

    def _open(self) -> None:
        for leftover in self._folder.glob("*.new"):
            leftover.unlink()
        found = sorted(
            (int(match[1]), path)
            for path in self._folder.iterdir()
            if (match := _NAME.fullmatch(path.name))
        )
        for number, path in found:
            self._next_number = number + 1
            size = path.stat().st_size
            try:
                with path.open("rb") as file:
                    head = read_header(file.read(HEADER))
            except BadInput:
                path.rename(path.with_suffix(".damaged"))
                self._count(set_aside=1, damaged_bytes=size)
                continue
            if self._segments:
                self._segments[-1].last_seq = head.first_seq - 1
            self._segments.append(
                _Segment(number, path, head.salt, head.first_seq, head.first_seq - 1, size)
            )
        if self._segments:
            self._mend(self._segments[-1])

    def _mend(self, newest: _Segment) -> None:
        """Cut what a crash tore, and make what is left durable: nobody knows what was synced before."""
        content = newest.path.read_bytes()
        end = HEADER
        for each in scan(memoryview(content)[HEADER:], newest.salt):
            newest.last_seq = each.record.seq
            end = HEADER + each.end
        fd = os.open(newest.path, os.O_RDWR | os.O_CLOEXEC)
        try:
            if end < len(content):
                os.ftruncate(fd, end)
                self._count(cut_bytes=len(content) - end)
            self._sync(fd)
        finally:
            os.close(fd)
        newest.size = end
        self._next_seq = max(self._next_seq, newest.last_seq + 1)
        self._state = replace(self._state, last_seq=newest.last_seq)

    def _writable(self) -> _Segment:
        if self._fd < 0:
            self._start_segment()
        return self._segments[-1]

    def _start_segment(self) -> None:
        """A segment appears under its name only with a durable header, so the next seq is never forgotten."""
        number = self._next_number
        self._next_number += 1
        self._stop_writing()
        path = self._folder / f"{number:08}.log"
        fresh = path.with_suffix(".new")
        salt = secrets.randbits(64)
        fd = -1
        try:
            fd = os.open(fresh, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o640)
            write_all(fd, header(salt, self._next_seq), 0)
            self._sync(fd)
            fresh.rename(path)
            sync_folder(self._folder)
        except OSError as error:
            if fd >= 0:
                os.close(fd)
            for leftover in (fresh, path):
                with contextlib.suppress(OSError):
                    leftover.unlink(missing_ok=True)
            raise refused(error, self._folder) from error
        self._fd = fd
        segment = _Segment(number, path, salt, self._next_seq, self._next_seq - 1, HEADER)
        with self._lock:
            self._segments.append(segment)

    def _abandon(self, segment: _Segment, seqs: int) -> None:
        """What was being written may or may not come back after a restart: its seqs are not used again."""
        with contextlib.suppress(OSError):
            os.ftruncate(self._fd, segment.size)
        self._stop_writing()
        self._next_seq += seqs
        self._count(abandoned=1)

    def _stop_writing(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _read_segment(
        self,
        segment: _Segment,
        offset: int,
        after: int,
        limit: int,
        max_bytes: int,
        records: list[Record],
    ) -> int:
        """Append to `records`; returns where the next record begins."""
        with segment.path.open("rb", buffering=0) as file:
            piece = _FIRST_PIECE
            while offset < segment.size:
                piece = min(piece, segment.size - offset)
                data = os.pread(file.fileno(), piece, offset)
                taken = 0
                for each in scan(data, segment.salt, after):
                    records.append(each.record)
                    taken = each.end
                    if each.damaged:
                        self._count(damaged_bytes=each.damaged)
                    if len(records) >= limit or taken >= max_bytes:
                        break
                if records:
                    return offset + taken
                if offset + piece >= segment.size:
                    self._count(damaged_bytes=self._unreadable(data, segment))
                    break
                piece *= 2
        return offset

    @staticmethod
    def _unreadable(data: bytes, segment: _Segment) -> int:
        """Bytes at the end of a segment, behind its last whole record."""
        end = 0
        for each in scan(data, segment.salt):
            end = each.end
        return len(data) - end

    def _count(self, **more: int) -> None:
        with self._lock:
            now = {name: getattr(self._state, name) + number for name, number in more.items()}
            self._state = replace(self._state, **now)
