"""A program that stays in its sandbox and answers line by line: what `child` runs once, kept warm."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass

from tripshark.analysis.child import fork, layers_of, reap
from tripshark.analysis.sandbox import Policy
from tripshark.errors import Permanent, Transient

_READ_BYTES = 1 << 18
_STDERR_BYTES = 16 << 10
_START_S = 20.0
_CHATTER = (  # of sharkd, when all is well
    "Running as",
    "Hello in child",
    "load:",
    "sharkd: You don't have permission to read",  # its own scripts, which are none of ours
)
_DRAINED = (
    8  # times what is kept of an answer is read; a program that says more than that is ended
)


@dataclass(frozen=True, slots=True)
class Line:
    """One answer; `cut` when it was longer than was kept."""

    raw: bytes
    cut: bool = False


class Warm:
    """One sandboxed child: a line in, a line out, one at a time. Whatever goes wrong ends it."""

    def __init__(self, pid: int, out: int, err: int, into: int, name: str) -> None:
        self.layers: tuple[str, ...] = ()
        self.pid = pid
        self._out, self._err, self._into = out, err, into
        self._name = name
        self._rest = bytearray()
        self._code: int | None = None
        self._closed = False

    @classmethod
    async def start(cls, argv: list[str], *, files: tuple[int, ...], policy: Policy) -> Warm:
        """The program with `files` as its descriptors 4, 5, …; they stay ours to close.

        Raises `Permanent` when sandbox or program cannot be started, `Transient` when no process can be had.
        """
        given, into = os.pipe2(os.O_CLOEXEC)
        try:
            pid, out, err, report = fork(argv, given, policy, beside=files)
        except OSError as problem:
            os.close(into)
            raise Transient(
                f"no child process: {problem.strerror}", where="analyst", after=5.0
            ) from problem
        finally:
            os.close(given)
        os.set_blocking(into, False)
        self = cls(pid, out, err, into, os.path.basename(argv[0]))  # noqa: PTH119 - a name, no file
        try:
            async with asyncio.timeout(_START_S):
                told = await _whole(report)
            self.layers = layers_of(told, argv[0])
        except TimeoutError as problem:
            self.close()
            raise Transient(f"{self._name} did not start in time", where="analyst") from problem
        except BaseException:
            self.close()
            raise
        finally:
            os.close(report)
        return self

    async def ask(self, line: bytes, *, wall_s: float, most: int) -> Line:
        """What it answers to one line (without its newline); without a line, what it says next. Raises `Transient` when it died, hung or said too much;
        it is ended then."""
        if self._closed:
            raise Transient(f"{self._name} has ended", where="analyst", after=0.1)
        try:
            async with asyncio.timeout(wall_s):
                if line:
                    await self._send(line + b"\n")
                return await self._line(most)
        except TimeoutError as problem:
            self.close()
            raise Transient(
                f"{self._name} did not answer within {wall_s:g} s and was ended",
                where="analyst",
                hint="ask again: it is started anew; a narrower filter or window is quicker",
                after=0.5,
            ) from problem
        except BaseException:  # also a cancelled request: half an answer would be the next one's
            self.close()
            raise

    @property
    def output(self) -> int:
        """Its end of the pipe that it answers on."""
        return self._out

    @property
    def is_gone(self) -> bool:
        """It ended, by itself or by us."""
        if self._code is None and not self._closed:
            self._code = reap(self.pid, os.WNOHANG)
        return self._code is not None or self._closed

    def close(self) -> None:
        """End it, whatever it is doing."""
        if self._closed:
            return
        self._closed = True
        for descriptor in (self._out, self._err, self._into):
            os.close(descriptor)
        if self._code is None:
            os.kill(self.pid, signal.SIGKILL)  # ours, and not reaped yet
            self._code = reap(self.pid)

    async def _send(self, line: bytes) -> None:
        at = 0
        while at < len(line):
            try:
                at += os.write(self._into, line[at:])
            except BlockingIOError:
                await _until(self._into, write=True)
            except BrokenPipeError as problem:
                raise self._ended() from problem

    async def _line(self, most: int) -> Line:
        kept, total = bytearray(), 0
        while True:
            piece, newline, rest = bytes(self._rest).partition(b"\n")
            self._rest = bytearray(rest)
            total += len(piece)
            kept += piece[: most - len(kept)]
            if newline:
                return Line(bytes(kept), cut=total > len(kept))
            if total > _DRAINED * most:
                raise Transient(f"{self._name} says too much", where="analyst", after=0.5)
            try:
                more = os.read(self._out, _READ_BYTES)
            except BlockingIOError:
                await _until(self._out)
                continue
            if not more:
                raise self._ended()
            self._rest += more
            await asyncio.sleep(0)

    def _ended(self) -> Transient | Permanent:
        """Why it is gone, in words."""
        said = b""
        with contextlib.suppress(OSError):
            said = os.read(self._err, _STDERR_BYTES)
        code = reap(self.pid, os.WNOHANG)
        if code is None:  # its output is closed: it is ending
            os.kill(self.pid, signal.SIGKILL)
            code = reap(self.pid)
        self._code = code
        return Transient(
            f"{self._name} {_how(code or 0)} in the middle of this",
            where="analyst",
            hint=_last(said) or "ask again: it is started anew",
            after=0.5,
        )


def _how(code: int) -> str:
    if code >= 0:
        return f"ended with exit code {code}"
    with contextlib.suppress(ValueError):
        return f"was ended by {signal.Signals(-code).name}"
    return f"was ended by signal {-code}"


def _last(said: bytes) -> str:
    """The last line of its complaints that says something."""
    lines = [line.strip() for line in said.decode("utf-8", "replace").splitlines()]
    known = [line for line in lines if line and not line.startswith(_CHATTER)]
    return "".join(letter for letter in known[-1][:200] if letter.isprintable()) if known else ""


async def _whole(descriptor: int) -> bytes:
    told = bytearray()
    while True:
        try:
            piece = os.read(descriptor, 4096)
        except BlockingIOError:
            await _until(descriptor)
            continue
        if not piece or len(told) > 4096:
            return bytes(told)
        told += piece


async def _until(descriptor: int, *, write: bool = False) -> None:
    loop, ready = asyncio.get_running_loop(), asyncio.Event()
    watch: Callable[..., None] = loop.add_writer if write else loop.add_reader
    watch(descriptor, ready.set)
    try:
        await ready.wait()
    finally:
        (loop.remove_writer if write else loop.remove_reader)(descriptor)
