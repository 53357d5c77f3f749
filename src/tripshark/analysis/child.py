"""Runs one program in the sandbox: its input is one descriptor, its output is bounded, its life is short.

The child is forked, not spawned: the interpreter may lie where the analyst's user may not go (a virtual
environment below /root), and a fork runs our own confinement without executing anything. That is sound only in
a process with a single thread, which the analyst's is.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from tripshark.analysis.sandbox import ENVIRONMENT, Policy, confine
from tripshark.errors import Permanent, Transient

_PIPE_BYTES = 1 << 20
_READ_BYTES = 1 << 18
_STDERR_BYTES = 64 << 10
_REPORT_BYTES = 4096
_REPORT = 3  # the child's descriptor; the programs it becomes never see it
_F_SETPIPE_SZ = 1031


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a child ended and what held it."""

    layers: tuple[str, ...]
    code: int  # exit status; minus the signal's number where one killed it
    stderr: bytes  # the first 64 KiB
    stopped: str = ""  # "time" or "output": we ended it at that bound


async def run(
    argv: list[str],
    *,
    evidence: int,
    policy: Policy,
    wall_s: float,
    max_output: int,
    take: Callable[[bytes], None],
    beside: tuple[int, ...] = (),
    work: Callable[[], None] | None = None,
) -> Ended:
    """Run `argv` with `evidence` as its standard input and give its output to `take`, piece by piece.

    `argv[0]` is an absolute path; `beside` and `work` are `fork`'s. Raises `Permanent` when the sandbox or the program cannot be started,
    `Transient` when there is no process or descriptor to be had. The child is dead when this returns or raises.
    """
    try:
        pid, out, err, report = fork(argv, evidence, policy, beside=beside, work=work)
    except OSError as problem:
        raise Transient(
            f"no child process: {problem.strerror}", where="analyst", after=5.0
        ) from problem
    told, complaint, received, stopped = bytearray(), bytearray(), 0, ""

    def bounded(chunk: bytes) -> None:
        nonlocal received, stopped
        received += len(chunk)
        if received <= max_output:
            take(chunk)
        elif not stopped:
            stopped = "output"
            os.kill(pid, signal.SIGKILL)  # ours, and not reaped yet: the number is not another's

    def keep(into: bytearray, most: int) -> Callable[[bytes], None]:
        return lambda chunk: into.extend(chunk[: most - len(into)])

    code: int | None = None
    try:
        async with asyncio.timeout(wall_s):
            async with asyncio.TaskGroup() as reading:
                reading.create_task(_drain(report, keep(told, _REPORT_BYTES)))
                reading.create_task(_drain(err, keep(complaint, _STDERR_BYTES)))
                reading.create_task(_drain(out, bounded))
            code = await _exit_code(pid)
    except TimeoutError:
        stopped = "time"
    finally:
        for descriptor in (out, err, report):
            os.close(descriptor)
        if code is None:
            os.kill(pid, signal.SIGKILL)
            code = reap(pid) or 0
    layers = layers_of(bytes(told), argv[0])
    return Ended(layers=layers, code=code, stderr=bytes(complaint), stopped=stopped)


async def _drain(descriptor: int, take: Callable[[bytes], None]) -> None:
    """Until the other side closes; other tasks get their turn between two pieces."""
    loop = asyncio.get_running_loop()
    while True:
        try:
            chunk = os.read(descriptor, _READ_BYTES)
        except BlockingIOError:
            ready = asyncio.Event()
            loop.add_reader(descriptor, ready.set)
            try:
                await ready.wait()
            finally:
                loop.remove_reader(descriptor)
            continue
        if not chunk:
            return
        take(chunk)
        await asyncio.sleep(0)


async def _exit_code(pid: int) -> int:
    """A child whose pipes are closed ends within moments; if not, the time limit ends it."""
    while (code := reap(pid, os.WNOHANG)) is None:  # noqa: ASYNC110 - no event, and no thread wanted
        await asyncio.sleep(0.002)
    return code


def reap(pid: int, how: int = 0) -> int | None:
    """The exit status of a child of ours; with `os.WNOHANG` None while it lives."""
    done, status = os.waitpid(pid, how)
    return os.waitstatus_to_exitcode(status) if done else None


def layers_of(told: bytes, program: str) -> tuple[str, ...]:
    """What holds a child by its report, which is written before anything hostile is read. Raises `Permanent`."""
    layers, trouble = _read_report(told)
    if trouble:
        name = Path(program).name
        raise Permanent(f"the sandbox could not start {name}: {trouble}", where="analyst")
    return layers


def _read_report(told: bytes) -> tuple[tuple[str, ...], str]:
    """The layers, or what went wrong."""
    lines = told.decode("utf-8", "replace").splitlines()
    layers = tuple(json.loads(lines[0])) if lines and lines[0].startswith("[") else ()
    trouble = " ".join(lines[1:] if layers else lines)
    return layers, trouble if trouble or layers else "it died before it was ready"


def fork(
    argv: list[str],
    given: int,
    policy: Policy,
    *,
    beside: tuple[int, ...] = (),
    work: Callable[[], None] | None = None,
) -> tuple[int, int, int, int]:
    """The child's pid and our ends of its output, its errors and its report, none of which blocks.

    `given` becomes its standard input; descriptors `beside` are its 4, 5 and so on. With `work` it runs that, as
    confined as the program would be, and ends. Raises `OSError`.
    """
    argv = [str(Path(argv[0]).resolve()), *argv[1:]]
    pipes: list[tuple[int, int]] = []
    try:
        pipes += [os.pipe2(os.O_CLOEXEC) for _ in range(3)]
        (out, out_in), (err, err_in), (report, report_in) = pipes
        with contextlib.suppress(OSError):  # over the user's pipe budget: the usual size will do
            fcntl.fcntl(out_in, _F_SETPIPE_SZ, _PIPE_BYTES)
        for descriptor in (out, err, report):
            os.set_blocking(descriptor, False)
        parent = os.getpid()
        pid = os.fork()
    except OSError:
        for pair in pipes:
            os.close(pair[0])
            os.close(pair[1])
        raise
    if pid == 0:
        _become(argv, (given, out_in, err_in, report_in, *beside), policy, parent, work)
    for descriptor in (out_in, err_in, report_in):
        os.close(descriptor)
    return pid, out, err, report


def _become(
    argv: list[str],
    descriptors: tuple[int, ...],
    policy: Policy,
    parent: int,
    work: Callable[[], None] | None,
) -> NoReturn:
    """In the child: turn into the program, or do the one piece of work. Never returns to our parent's code."""
    report = descriptors[3]
    code = 127
    try:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        # Out of the way first, so that no source is overwritten before it has been copied.
        high = [fcntl.fcntl(each, fcntl.F_DUPFD_CLOEXEC, 64) for each in descriptors]
        report = high[3]
        for place, source in enumerate(high):
            os.dup2(source, place, inheritable=place != _REPORT)
        report = _REPORT
        os.closerange(len(high), 1 << 20)
        with contextlib.suppress(OSError):  # a pipe has no beginning to go to
            os.lseek(0, 0, os.SEEK_SET)
        layers = confine(policy, argv[0], parent)
        os.write(report, json.dumps(layers).encode() + b"\n")
        if work is None:
            os.execve(argv[0], argv, ENVIRONMENT)  # noqa: S606 - no shell is wanted
        work()
        code = 0
    except BaseException as problem:  # noqa: BLE001 - whatever it is, nothing of ours may run on
        with contextlib.suppress(OSError):
            os.write(report, f"{type(problem).__name__}: {problem}"[:1000].encode())
    finally:
        os._exit(code)
