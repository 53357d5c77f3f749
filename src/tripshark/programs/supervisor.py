"""Keeps the processes of one machine running: recorder, scout, analyst, responder. Does nothing else, so that it may stay root."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from tripshark.errors import Permanent, TripsharkError

PR_SET_PDEATHSIG = 1  # linux/prctl.h
READY_WITHIN = 60.0  # seconds for a process to say that it is ready
BACKOFF = (0.05, 0.2, 1.0, 5.0)  # seconds before a process that died is started again
STEADY = 0.25  # a process that was ready for this long starts again at once
STOP_WITHIN = 20.0  # seconds for a clean end; then SIGKILL


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """One process and how it is started. It gives up root by itself, once it has read its own code."""

    name: str
    argv: Sequence[str]
    inherits_stdin: bool = False


@dataclass(slots=True)
class Supervisor:
    """Starts in the given order, each after the one before is ready; ends in reverse order."""

    programs: Sequence[Program]
    tell: Callable[[str, Mapping[str, object]], None]  # (what, details) for people or scripts
    _stopping: asyncio.Event = field(default_factory=asyncio.Event)
    _processes: dict[str, asyncio.subprocess.Process] = field(default_factory=dict)

    async def run(self) -> int:
        """Until SIGTERM or SIGINT. 1 when a process could not even be started once."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopping.set)
        keepers: list[asyncio.Task[None]] = []
        code = 0
        async with asyncio.TaskGroup() as tasks:
            stop = tasks.create_task(self._stopping.wait())
            for program in self.programs:
                ready: asyncio.Future[Mapping[str, object]] = loop.create_future()
                keepers.append(tasks.create_task(self._keep(program, ready)))
                waiting: set[asyncio.Future[object]] = {ready, stop}  # type: ignore[arg-type]  # only waited for
                await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                if self._stopping.is_set():
                    break
                problem = ready.exception()
                if problem is not None:
                    self.tell("failed", {"program": program.name, **_failure(problem)})
                    code = 1
                    self._stopping.set()
                    break
                self.tell("ready", {"program": program.name, **ready.result()})
            await self._stopping.wait()
            for program, keeper in reversed(list(zip(self.programs, keepers, strict=False))):
                await self._end(program.name)
                keeper.cancel()
        return code

    async def _keep(self, program: Program, ready: asyncio.Future[Mapping[str, object]]) -> None:
        """Start it, and again whenever it ends."""
        failures = 0
        loop = asyncio.get_running_loop()
        while not self._stopping.is_set():
            ready_at = 0.0
            try:
                process = await self._start(program)
            except OSError as problem:
                if not ready.done():
                    ready.set_exception(Permanent(f"cannot be started: {problem}"))
                    return
                self.tell("failed", {"program": program.name, **_failure(problem)})
                process = None
            if process is not None:
                try:
                    said = await self._wait_ready(process)
                    said = {"pid": process.pid, **said}
                    ready_at = loop.time()
                    if not ready.done():
                        ready.set_result(said)
                    else:
                        self.tell("ready again", {"program": program.name, **said})
                except (TripsharkError, TimeoutError, ValueError) as problem:
                    await self._end(program.name)
                    if not ready.done():
                        ready.set_exception(problem)
                        return
                    if not self._stopping.is_set():
                        self.tell("failed", {"program": program.name, **_failure(problem)})
                code = await process.wait()
                if self._stopping.is_set():
                    return
                self.tell("died", {"program": program.name, "code": code, "pid": process.pid})
            lived = loop.time() - ready_at if ready_at else 0.0
            failures = 0 if lived > STEADY else failures + 1
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(
                    self._stopping.wait(), BACKOFF[min(failures, len(BACKOFF) - 1)]
                )

    async def _start(self, program: Program) -> asyncio.subprocess.Process:
        process = await asyncio.create_subprocess_exec(
            *program.argv,
            stdin=None if program.inherits_stdin else asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            preexec_fn=die_with_parent,
            start_new_session=True,  # Ctrl-C reaches the supervisor alone, which ends them in order
        )
        self._processes[program.name] = process
        return process

    async def _wait_ready(self, process: asyncio.subprocess.Process) -> Mapping[str, object]:
        """The first line of its output says that it is ready."""
        assert process.stdout is not None  # noqa: S101 (a pipe was asked for)
        line = await asyncio.wait_for(process.stdout.readline(), READY_WITHIN)
        if not line:
            raise Permanent(
                f"it ended with code {await process.wait()}", hint="its words are above"
            )
        said = json.loads(line)
        if not isinstance(said, dict):
            raise ValueError("its first word was not understood")  # noqa: TRY004 (one kind of failure)
        if said.get("ready") is False:
            error = said.get("error")
            told = error if isinstance(error, dict) else {}
            raise Permanent(
                str(told.get("message", "it could not start")),
                where=str(told.get("where", "")),
                hint=str(told.get("hint", "")),
            )
        return said

    async def _end(self, name: str) -> None:
        process = self._processes.get(name)
        if process is None or process.returncode is not None:
            return
        process.terminate()
        try:
            await asyncio.wait_for(process.wait(), STOP_WITHIN)
        except TimeoutError:
            process.kill()
            await process.wait()


def _failure(problem: BaseException) -> Mapping[str, object]:
    """What did not work, where, and what to do, in the one error shape."""
    if not isinstance(problem, TripsharkError):
        slow = isinstance(problem, TimeoutError)
        problem = Permanent("it did not become ready in time" if slow else str(problem))
    return problem.as_json()


_LIBC = ctypes.CDLL(None, use_errno=True)


def die_with_parent() -> None:
    """Nothing outlives the supervisor, however it ends."""
    _LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)


def python(module: str, config: Mapping[str, object] | str) -> list[str]:
    """How a program of ours is started: isolated from the caller's Python settings and working folder."""
    text = config if isinstance(config, str) else json.dumps(config)
    return [sys.executable, "-I", "-m", module, "--json-config", text]
