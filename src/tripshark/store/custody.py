"""Who did what with sealed evidence, in an append-only file whose lines hold on to one another.

`custody.jsonl`, one JSON object per line: `n` (1, 2, 3 …), `time_ns` and `time`, `what`, `who`, `details`, `prev` (the
hash of the line before) and `hash` (SHA-256 of this line's canonical JSON without `hash`). The first line says
`sealed` and names the manifest's SHA-256. The chain shows changes and gaps; whoever may write the file can still
cut its end or write all of it anew, which is why the manifest is signed and its hash is what other systems keep.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tripshark.errors import BadInput, NotVerified
from tripshark.model.alert import Json
from tripshark.model.evidence import canonical, read_json, rfc3339
from tripshark.store.disk import refused

NAME = "custody.jsonl"
MAX_LINE = 64 << 10
MAX_BYTES = 64 << 20
_KEYS = {"n", "time", "time_ns", "what", "who", "details", "prev", "hash"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Deed:
    """One line: somebody did something with the evidence."""

    n: int
    time_ns: int
    what: str  # sealed, analysed, viewed, exported, verified, held, released, moved, deleted
    who: str
    details: Mapping[str, Json]
    prev: str  # "" in the first line
    hash: str


def first_line(*, manifest_sha256: str, time_ns: int, who: str) -> bytes:
    """The line every custody begins with."""
    return _line(1, "", time_ns, "sealed", who, {"manifest_sha256": manifest_sha256})


def next_line(
    last: bytes, *, time_ns: int, what: str, who: str, details: Mapping[str, Json]
) -> bytes:
    """The line that follows `last`. Raises `NotVerified` when `last` does not hold."""
    before = _parse(last.rstrip(b"\n"), 0)
    return _line(before.n + 1, before.hash, time_ns, what, who, details)


def read(data: bytes) -> tuple[Deed, ...]:
    """Every line of an unbroken chain. Raises `NotVerified`, naming the first line that does not hold."""
    deeds: list[Deed] = []
    lines = data.split(b"\n")
    if lines.pop():
        raise _broken(len(lines) + 1, "it was not written to its end")
    for at, line in enumerate(lines, start=1):
        deed = _parse(line, at)
        if deed.n != at:
            raise _broken(at, f"it says it is line {deed.n}")
        if deed.prev != (deeds[-1].hash if deeds else ""):
            raise _broken(at, "it does not follow the line before")
        deeds.append(deed)
    if not deeds:
        raise _broken(1, "there is none")
    return tuple(deeds)


def append(path: Path, *, time_ns: int, what: str, who: str, details: Mapping[str, Json]) -> None:
    """One more line, durable when this returns; other processes may append at the same time.

    A last line that a crash tore is cut off, and the new line says so. Raises `NotVerified` when the last line does
    not hold, `Transient` when the disk refuses (then the file is as it was).
    """
    try:
        fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise refused(error, path) from error
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)  # given free by closing
        _append(fd, time_ns, what, who, details)
    except OSError as error:
        raise refused(error, path) from error
    finally:
        os.close(fd)


def _append(fd: int, time_ns: int, what: str, who: str, details: Mapping[str, Json]) -> None:
    size = os.fstat(fd).st_size
    tail = os.pread(fd, 2 * MAX_LINE, max(0, size - 2 * MAX_LINE))
    whole, newline, torn = tail.rpartition(b"\n")
    if not newline:
        raise _broken(1, "there is no whole line")
    last = _parse(whole.rpartition(b"\n")[2], 0)
    if torn:
        details = {**details, "torn_bytes_cut": len(torn)}
    line = _line(last.n + 1, last.hash, time_ns, what, who, details)
    if torn:
        os.ftruncate(fd, size - len(torn))
        size -= len(torn)
    try:
        written = os.write(fd, line)
        if written < len(line):
            written += os.write(fd, line[written:])
        os.fsync(fd)
    except OSError:
        with contextlib.suppress(OSError):
            os.ftruncate(fd, size)
        raise


def _line(
    n: int, prev: str, time_ns: int, what: str, who: str, details: Mapping[str, Json]
) -> bytes:
    told: dict[str, object] = {
        "n": n,
        "time": rfc3339(time_ns),
        "time_ns": time_ns,
        "what": what[:100],
        "who": who[:200],
        "details": details,
        "prev": prev,
    }
    line = canonical({**told, "hash": hashlib.sha256(canonical(told)).hexdigest()}) + b"\n"
    if len(line) > MAX_LINE:
        raise BadInput("too much to be said in one line of custody", hint="say less in details")
    return line


def _parse(line: bytes, at: int) -> Deed:
    where = f"{NAME}:{at}" if at else f"{NAME}, last line"
    if len(line) > MAX_LINE:
        raise _broken(at, "it is too long")
    try:
        told = read_json(line, where)
    except BadInput as error:
        raise _broken(at, error.message) from None
    if not isinstance(told, dict) or told.keys() != _KEYS:
        raise _broken(at, "it is no entry of a custody")
    match told:
        case {
            "n": int(n),
            "time_ns": int(time_ns),
            "time": str(time),
            "what": str(what),
            "who": str(who),
            "details": dict(details),
            "prev": str(prev),
            "hash": str(digest),
        } if time == rfc3339(time_ns):
            del told["hash"]
        case _:
            raise _broken(at, "it is no entry of a custody")
    if hashlib.sha256(canonical(told)).hexdigest() != digest:
        raise _broken(at, "it was changed after it was written")
    return Deed(n=n, time_ns=time_ns, what=what, who=who, details=details, prev=prev, hash=digest)


def _broken(at: int, why: str) -> NotVerified:
    return NotVerified(
        f"the custody does not hold: {why}",
        where=f"{NAME}:{at}" if at else f"{NAME}, last line",
        hint="keep the file as it is; whatever changed it is part of the case",
    )
