"""One thread that waits for everything at once, and a crew for what would make it wait."""

from __future__ import annotations

import collections
import heapq
import itertools
import logging
import os
import select
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")

log = logging.getLogger(__name__)

_CREW = 32  # opening a ring waits 11 ms for the kernel and closing one 20 ms: in parallel that is nothing

_FAILED = "a callback of the recorder failed"
_NEVER = float("inf")


def _nothing(_now_s: float) -> None:
    pass


class Timer:
    """A call that is due once; `cancel` makes nothing of it."""

    __slots__ = ("call", "cancelled")

    def __init__(self, call: Callable[[], None]) -> None:
        self.call = call
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class Loop:
    """Runs callbacks for descriptors, times and finished work, all in the thread that calls `run`."""

    def __init__(self) -> None:
        self.running = True
        self._poll = select.epoll()
        self._calls: dict[int, Callable[[int], None]] = {}
        self._timers: list[tuple[float, int, Timer]] = []
        self._order = itertools.count()
        self._beat_s = _NEVER
        self._on_beat: Callable[[float], None] = _nothing
        self._crew = ThreadPoolExecutor(_CREW, thread_name_prefix="crew")
        self._finished: collections.deque[Callable[[], None]] = collections.deque()
        self._bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.watch(self._bell, self._collect)

    def watch(self, fd: int, call: Callable[[int], None], events: int = select.EPOLLIN) -> None:
        """Call with the events whenever a descriptor has some; again to change which."""
        if fd in self._calls:
            self._poll.modify(fd, events)
        else:
            self._poll.register(fd, events)
        self._calls[fd] = call

    def unwatch(self, fd: int) -> None:
        """To be called before the descriptor is closed."""
        if self._calls.pop(fd, None) is not None:
            self._poll.unregister(fd)

    def later(self, seconds: float, call: Callable[[], None]) -> Timer:
        timer = Timer(call)
        heapq.heappush(self._timers, (time.monotonic() + seconds, next(self._order), timer))
        return timer

    def beat(self, at_s: float, call: Callable[[float], None]) -> None:
        """Call once with the monotonic time when that is `at_s`. For one user alone: a timer without its cost."""
        self._beat_s, self._on_beat = at_s, call

    def submit(self, work: Callable[[], T], then: Callable[[T | Exception], None]) -> None:
        """Let one of the crew do it, and hand its result, or the exception it raised, to `then` in this thread."""

        def done(future: Future[T]) -> None:
            problem = future.exception()
            if problem is None:
                self._finished.append(lambda: then(future.result()))
            elif isinstance(problem, Exception):
                self._finished.append(lambda: then(problem))
            os.eventfd_write(self._bell, 1)

        self._crew.submit(work).add_done_callback(done)

    def _collect(self, _events: int) -> None:
        os.eventfd_read(self._bell)
        while self._finished:
            self._guarded(self._finished.popleft())

    def run(self) -> None:
        """Until `running` is False.

        Nearly all of a recorder's work is to be woken when the caches hold somebody else's data: what counts is
        how much code and memory one turn touches, so this is one function without detours.
        """
        poll, call_for, timers, clock = (
            self._poll.poll,
            self._calls.get,
            self._timers,
            time.monotonic,
        )
        while self.running:
            while timers and timers[0][2].cancelled:
                heapq.heappop(timers)
            due_s = self._beat_s
            if timers and timers[0][0] < due_s:
                due_s = timers[0][0]
            wait_s = -1.0
            if due_s != _NEVER and (wait_s := due_s - clock()) < 0.0:
                wait_s = 0.0
            for fd, events in poll(wait_s):  # rounded up to whole milliseconds
                if (call := call_for(fd)) is not None:  # an earlier call may have closed it
                    try:
                        call(events)
                    except Exception:
                        log.exception(_FAILED)
            if due_s == _NEVER or (now := clock()) < due_s:
                continue
            if self._beat_s <= now:
                self._beat_s = _NEVER
                try:
                    self._on_beat(now)
                except Exception:
                    log.exception(_FAILED)
            while timers and timers[0][0] <= now:
                timer = heapq.heappop(timers)[2]
                if not timer.cancelled:
                    self._guarded(timer.call)

    def _guarded(self, call: Callable[[], None]) -> None:
        """One callback's bug must not end the recording of everybody else."""
        try:
            call()
        except Exception:
            log.exception(_FAILED)

    def close(self) -> None:
        """Wait for the crew."""
        self._crew.shutdown(wait=True, cancel_futures=True)
        self._poll.close()
        os.close(self._bell)
