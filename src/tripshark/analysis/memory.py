"""A capture file in memory that has no name anywhere: whole, or cut to a window of it.

The window is cut by a child of ours in the sandbox, because a file can be made to mislead who reads it.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Final

from tripshark.analysis.child import run
from tripshark.analysis.sandbox import Policy
from tripshark.analysis.talk import Opening
from tripshark.errors import Permanent, Transient, TripsharkError
from tripshark.formats.pcapng_window import MAX_BEFORE, Outline, Window, cut, outline
from tripshark.model.alert import Json
from tripshark.model.evidence import rfc3339

_PIECE: Final = 4 << 20
_CUT_S: Final = 60.0
_MEMORY: Final = 4  # the child's descriptor
_MAX_FRAMES: Final = 120_000  # in a window: its bytes may be many small frames
_MAX_WINDOWS: Final = 4096
_MAX_FACTS: Final = 4 << 20
_HEADERS: Final = 32 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What is known of the file as a whole."""

    frames: int
    first_ns: int
    last_ns: int
    before: int = 0  # frames before those that can be looked at…
    before_ns: int = 0  # … and when the last of them was seen
    looked_at: int = 0  # how many can be
    window: dict[str, Json] | None = None
    windows: tuple[tuple[int, int, int, int], ...] = ()
    """First frame, frames, first and last moment of every window there is."""
    around: int = 0  # which of them lies around the moment that windows are counted from

    def as_json(self) -> dict[str, Json]:
        return {
            "frames": self.frames,
            "first_ns": self.first_ns,
            "last_ns": self.last_ns,
            "window": self.window,
            "windows": [list(each) for each in self.windows],
            "around": self.around,
        }


async def copied(evidence: int, size: int) -> int:
    """A copy that nobody can change, to be closed by the caller. Raises `Transient`."""
    with _nameless() as memory:
        at = 0
        while at < size and (sent := os.sendfile(memory, evidence, at, min(_PIECE, size - at))):
            at += sent
            await asyncio.sleep(0)
        return _kept(memory)


async def window(evidence: int, size: int, opening: Opening, policy: Policy) -> tuple[int, Facts]:
    """The part of a large file that was asked for, to be closed by the caller, and where in the file it lies.

    Raises `Permanent` for a file of which no part can be taken, `Refused`, `Transient`.
    """
    said = bytearray()
    written = opening.window_bytes + _HEADERS + 32 * MAX_BEFORE
    with _nameless() as memory:
        ended = await run(
            ["/cut"],
            evidence=evidence,
            policy=replace(policy, written_bytes=written),
            wall_s=_CUT_S,
            max_output=_MAX_FACTS,
            take=said.extend,
            beside=(memory,),
            work=lambda: _work(size, opening),
        )
        if ended.stopped:
            raise Transient(
                f"the file could not be cut within its bounds ({ended.stopped})",
                where="analyst",
                after=5.0,
            )
        facts = _facts(bytes(said))
        return _kept(memory), facts


def _work(size: int, opening: Opening) -> None:
    """In the child: descriptor 0 is the file, 1 takes the facts, 4 the window."""

    def read(at: int, most: int) -> bytes:
        return os.pread(0, most, at)

    try:
        found = outline(
            read,
            size,
            around_ns=opening.around_ns,
            most_bytes=opening.window_bytes,
            most_frames=_MAX_FRAMES,
        )
        chosen = found.holding(frame=opening.at_frame, time_ns=opening.at_ns)
        for piece in cut(read, found, chosen):
            at = 0
            while at < len(piece):
                at += os.write(_MEMORY, piece[at:])
        told = _told(found, chosen)
    except TripsharkError as problem:
        told = {"error": {**problem.as_json()["error"]}}
    left = json.dumps(told).encode()
    while left:
        left = left[os.write(1, left) :]


def _told(found: Outline, chosen: Window) -> dict[str, Json]:
    if len(found.windows) > _MAX_WINDOWS:
        raise Permanent(
            "the file is too large to be looked at in windows",
            hint="download it and open it in Wireshark",
        )
    windows: list[Json] = [
        [each.first, each.frames, each.first_ns, each.last_ns] for each in found.windows
    ]
    return {
        "frames": found.frames,
        "first_ns": found.first_ns,
        "last_ns": found.last_ns,
        "around": found.around,
        "before_ns": chosen.before_ns,
        "chosen": found.windows.index(chosen),
        "windows": windows,
    }


def _facts(said: bytes) -> Facts:
    """Of what our own child says, which has read a hostile file. Raises `Permanent`."""
    try:
        told = json.loads(said)
    except (ValueError, RecursionError):
        told = None
    match told:
        case {"error": {"message": str(message), "hint": str(hint)}}:
            raise Permanent(message, where="analyst", hint=hint)
        case {
            "frames": int(frames),
            "first_ns": int(first_ns),
            "last_ns": int(last_ns),
            "around": int(around),
            "before_ns": int(before_ns),
            "chosen": int(chosen),
            "windows": [*windows],
        } if 0 <= chosen < len(windows) and 0 <= around < len(windows):
            pass
        case _:
            raise Permanent("the file could not be cut to a window", where="analyst")
    spans = [tuple(int(each) for each in some[:4]) for some in windows]
    first, count, start_ns, stop_ns = spans[chosen]
    before, after = first - 1, frames - first + 1 - count
    notice = (
        f"Packets {first:,} to {first + count - 1:,} of {frames:,} are shown, "
        f"from {rfc3339(start_ns)} to {rfc3339(stop_ns)}: "
        f"{before:,} earlier and {after:,} later ones lie outside this window."
    )
    return Facts(
        frames=frames,
        first_ns=first_ns,
        last_ns=last_ns,
        before=before,
        before_ns=before_ns,
        looked_at=count,
        window={
            "first_ns": start_ns,
            "last_ns": stop_ns,
            "first": first,
            "last": first + count - 1,
            "before": before,
            "after": after,
            "notice": notice,
        },
        windows=tuple((a, b, c, d) for a, b, c, d in spans),
        around=around,
    )


@contextmanager
def _nameless() -> Iterator[int]:
    """A descriptor for the length of the block. Raises `Transient` for whatever the system refuses."""
    try:
        memory = os.memfd_create("capture", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    except OSError as problem:
        raise _refused(problem) from problem
    try:
        yield memory
    except OSError as problem:
        raise _refused(problem) from problem
    finally:
        os.close(memory)


def _kept(memory: int) -> int:
    """Another descriptor of it; nothing of it changes from here on, also for whoever opens it anew."""
    seals = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL
    fcntl.fcntl(memory, fcntl.F_ADD_SEALS, seals)
    return fcntl.fcntl(memory, fcntl.F_DUPFD_CLOEXEC, 3)


def _refused(problem: OSError) -> Transient:
    return Transient(f"no memory for the file: {problem.strerror}", where="analyst", after=5.0)
