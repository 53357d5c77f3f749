"""Hands retired blocks back: woken by the kernel when little happens, on its own beat when much does."""

from __future__ import annotations

import select
import time
from collections.abc import Callable

from tripshark.recorder.loop import Loop, Timer
from tripshark.recorder.ring import Ring

_WINDOW_S, _BUSY = 0.05, 10  # wake-ups in so many seconds that make it busy: 200 a second
_NAP_MIN_S, _NAP_FIRST_S, _NAP_MAX_S = 0.0005, 0.002, 0.020
_SLEEPLESS_S = 1.0  # a ring too small for the shortest nap is served by wake-ups for so long
_HEADROOM = 0.3  # share of a ring that may fill up between two sweeps
_FULL = 0.95
_QUIET_NAPS, _SHORT_NAPS = 5, 20
_COUNT_S = 1.0  # a busy ring's counters are read so often, so that losses are located in time


class Sweeper:
    """All open rings. Costs nothing while no block is retired."""

    def __init__(
        self,
        loop: Loop,
        *,
        retired: Callable[[Ring], None],
        unplugged: Callable[[Ring], None],
        count: Callable[[Ring, int], None],
    ) -> None:
        self._loop = loop
        self._retired = retired
        self._unplugged = unplugged  # the interface is down or gone
        self._count_ring = count  # with the time its drops came after, 0 if that is not known
        self._poll = select.epoll()
        self._rings: dict[int, Ring] = {}
        self._nap_s = 0.0
        self._quiet = self._short = 0
        self._rate = self._swept_s = 0.0
        self._window = (0.0, 0)  # since when, how many wake-ups
        self._sleepless_until = 0.0
        self._counter: Timer | None = None
        self.wakeups = 0
        loop.watch(self._poll.fileno(), self._woken)

    def add(self, ring: Ring) -> None:
        self._rings[ring.fd] = ring
        self._poll.register(ring.fd, select.EPOLLIN)
        ring.hand_back()

    def remove(self, ring: Ring) -> None:
        """To be called before the ring is closed."""
        if self._rings.pop(ring.fd, None) is not None:
            self._poll.unregister(ring.fd)

    def breathe(self) -> None:
        """Hand back whatever is retired, during work that takes longer than a ring may wait."""
        for ring in self._rings.values():
            ring.hand_back()

    def _woken(self, _events: int) -> None:
        self._sweep()
        since, wakes = self._window
        now = time.monotonic()
        if now - since > _WINDOW_S:
            self._window = (now, 1)
        elif wakes < _BUSY or now < self._sleepless_until:
            self._window = (since, wakes + 1)
        else:  # too many: from now on look every few milliseconds instead of being woken for each block
            self._window = (now, 0)
            self._nap_s, self._rate, self._swept_s = _NAP_FIRST_S, 0.0, now
            self._quiet = self._short = 0
            self._loop.unwatch(self._poll.fileno())
            self._loop.later(self._nap_s, self._napped)

    def _napped(self) -> None:
        fullest = self._sweep()
        self._quiet = 0 if fullest else self._quiet + 1
        now = time.monotonic()
        passed_s, self._swept_s = now - self._swept_s, now
        # rings per second; one that was full has run faster than we can know
        rate = (fullest if fullest < _FULL else 2.0) / max(passed_s, 1e-4)
        self._rate = max(rate, self._rate * 0.9)
        wanted_s = _HEADROOM / max(self._rate, 1e-3)
        self._nap_s = min(max(wanted_s, _NAP_MIN_S), _NAP_MAX_S)
        self._short = self._short + 1 if wanted_s < _NAP_MIN_S else 0
        if self._short > _SHORT_NAPS:  # the rings are too small to be left alone at all
            self._sleepless_until = now + _SLEEPLESS_S
        if self._quiet >= _QUIET_NAPS or self._short > _SHORT_NAPS:
            self._loop.watch(self._poll.fileno(), self._woken)
        else:
            self._loop.later(self._nap_s, self._napped)

    def _sweep(self) -> float:
        """Hand back of every ring that has something; the largest share of a ring that was full."""
        self.wakeups += 1
        fullest = 0.0
        for fd, events in self._poll.poll(0):
            ring = self._rings[fd]
            if done := ring.hand_back():
                fullest = max(fullest, done / ring.shape.blocks)
                if done >= ring.shape.blocks - 1:  # it stood still: locate the loss now
                    self._count_ring(ring, ring.stopped_ns())
                self._retired(ring)
            if events & select.EPOLLERR:
                ring.clear_error()
                self._unplugged(ring)
        if fullest and self._counter is None:
            self._counter = self._loop.later(_COUNT_S, self._count)
        return fullest

    def _count(self) -> None:
        self._counter = None
        for ring in self._rings.values():
            if ring.stirred or ring.losing:
                self._count_ring(ring, 0)

    def close(self) -> None:
        self._loop.unwatch(self._poll.fileno())
        self._poll.close()
