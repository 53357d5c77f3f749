"""Hands retired blocks back: woken by the kernel when little happens, on its own beat when much does."""

from __future__ import annotations

import logging
import select
import time
from collections.abc import Callable

from tripshark.recorder.loop import Loop, Timer
from tripshark.recorder.ring import Ring

log = logging.getLogger(__name__)

_WAKES = 8  # after so many wake-ups it is decided how to go on
_GAIN = 1.5  # blocks retired per sweep that make naps worth their risk: a burst meanwhile
_NAP_MIN_S, _NAP_FIRST_S, _NAP_MAX_S = 0.0005, 0.001, 0.020
_BURST = 500e6  # bytes per second that may set in during a nap without outrunning a busy ring
_SLEEPLESS_S = 1.0  # a ring too small for the shortest nap is served by wake-ups for so long
_HEADROOM = 0.3  # share of a ring that may fill up between two sweeps
_FULL = 0.95
_QUIET_NAPS, _SHORT_NAPS = 5, 20
_COUNT_S = 1.0  # a busy ring's counters are read so often, so that losses are located in time


class Sweeper:
    """All open rings. Costs nothing while no block is retired.

    A wake-up costs as much as handing back twenty blocks (some 80 µs: it finds cold caches), so that it is their
    number that is kept low. Woken for each block we are never late; from a certain rate on it is cheaper to look
    every few milliseconds, as seldom as the rings' sizes allow.
    """

    def __init__(
        self,
        loop: Loop,
        *,
        unplugged: Callable[[Ring], None],
        count: Callable[[Ring, int], None],
    ) -> None:
        self._loop = loop
        self.retired: Callable[[Ring], None] | None = None  # whoever wants to know of new blocks
        self._unplugged = unplugged  # the interface is down or gone
        self._count_ring = count  # with the time its drops came after, 0 if that is not known
        self._poll = select.epoll()
        self._rings: dict[int, tuple[Ring, int, float]] = {}  # with its blocks and longest nap
        self._quiet = self._short = 0
        self._rate = self._swept_s = 0.0
        self._wakes, self._since_s = 0, 0.0  # wake-ups since then
        self._nap_most_s = _NAP_MAX_S  # what the smallest ring that is busy allows
        self._stirred: set[Ring] = set()  # to be counted
        self._sleepless_until = 0.0
        self._counter: Timer | None = None
        self.wakeups = 0
        loop.watch(self._poll.fileno(), self._woken)

    def add(self, ring: Ring) -> None:
        nap_s = min(_NAP_MAX_S, ring.shape.bytes / _BURST)
        self._rings[ring.fd] = ring, ring.shape.blocks, nap_s
        self._poll.register(ring.fd, select.EPOLLIN)
        if ring.hand_back():
            self._stir(ring)

    def remove(self, ring: Ring) -> None:
        """To be called before the ring is closed."""
        if self._rings.pop(ring.fd, None) is not None:
            self._poll.unregister(ring.fd)
            self._stirred.discard(ring)

    def breathe(self) -> None:
        """Hand back whatever is retired, during work that takes longer than a ring may wait."""
        for ring, _, _ in self._rings.values():
            if ring.hand_back():
                self._stir(ring)

    def _woken(self, _events: int) -> None:
        self._sweep()
        self._wakes += 1
        if self._wakes < _WAKES:
            return
        now = time.monotonic()
        passed_s, self._since_s, self._wakes = now - self._since_s, now, 0
        if passed_s * _GAIN < self._nap_most_s * _WAKES and now >= self._sleepless_until:
            self._rate, self._swept_s = 0.0, now
            self._quiet = self._short = 0
            self._loop.unwatch(self._poll.fileno())
            self._loop.beat(now + _NAP_FIRST_S, self._napped)
        self._nap_most_s = _NAP_MAX_S

    def _napped(self, now: float) -> None:
        fullest = self._sweep()
        passed_s, self._swept_s = now - self._swept_s, now
        rate = self._rate * 0.9  # rings per second
        if fullest > rate * passed_s:
            # one that was full has run faster than we can know
            rate = (fullest if fullest < _FULL else 2.0) / max(passed_s, 1e-4)
        self._rate = rate
        nap_s = self._nap_most_s
        if nap_s * rate > _HEADROOM:
            nap_s = _HEADROOM / rate
        if nap_s < _NAP_MIN_S:
            nap_s = _NAP_MIN_S
            self._short += 1
        else:
            self._short = 0
        self._quiet = 0 if fullest else self._quiet + 1
        if self._short > _SHORT_NAPS:  # the rings are too small to be left alone at all
            self._sleepless_until = now + _SLEEPLESS_S
        elif self._quiet < _QUIET_NAPS:
            self._loop.beat(now + nap_s, self._napped)
            return
        self._wakes, self._since_s, self._nap_most_s = 0, now, _NAP_MAX_S
        self._loop.watch(self._poll.fileno(), self._woken)

    def _sweep(self) -> float:
        """Hand back of every ring that has something; the largest share of a ring that was full."""
        self.wakeups += 1
        fullest = 0.0
        for fd, events in self._poll.poll(0):
            try:
                ring, blocks, nap_s = self._rings[fd]
                if done := ring.hand_back():
                    if (full := done / blocks) > fullest:
                        fullest = full
                    if nap_s < self._nap_most_s:
                        self._nap_most_s = nap_s
                    if done >= blocks - 1:  # it stood still: locate the loss now
                        self._count_ring(ring, ring.stopped_ns())
                    if ring not in self._stirred:
                        self._stir(ring)
                    if self.retired is not None:
                        self.retired(ring)
                if events & select.EPOLLERR:
                    ring.clear_error()
                    self._unplugged(ring)
            except Exception:  # what goes wrong with one ring must not end the sweeps for all
                log.exception("a ring could not be served")
        return fullest

    def _stir(self, ring: Ring) -> None:
        """Have its counters read soon."""
        self._stirred.add(ring)
        if self._counter is None:
            self._counter = self._loop.later(_COUNT_S, self._count)

    def _count(self) -> None:
        self._counter = None
        stirred, self._stirred = self._stirred, set()
        for ring in stirred:
            if ring.stirred:  # or somebody asked for them meanwhile
                self._count_ring(ring, 0)

    def close(self) -> None:
        self._loop.unwatch(self._poll.fileno())
        self._poll.close()
