"""Exchanges an open ring for one of another size, without a packet lost or doubled at the seam.

For a moment both rings record, and all packets carry the time that they were stamped with before any ring saw
them. So those that are in both can be told, and are cut out of the copy of the old one.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from tripshark.model.recording import Mode
from tripshark.recorder import kernel, namespaces
from tripshark.recorder.cut import stamps
from tripshark.recorder.estate import Estate
from tripshark.recorder.filters import Filters
from tripshark.recorder.flowcut import Flows
from tripshark.recorder.graves import Graves
from tripshark.recorder.recorded import Recorded, ring_facts
from tripshark.recorder.ring import Ring, Shape, open_ring
from tripshark.recorder.sweeper import Sweeper

log = logging.getLogger(__name__)

_AT_ONCE = 8  # meanwhile there are two rings: so many times the memory of one may be used beyond the budget
_STAMPS_S = 0.01  # the kernel begins to stamp packets a moment after it was asked to


class _Wish(NamedTuple):
    target: Recorded
    ring: Ring
    form: Shape


class Exchanges:
    """Those under way, and those that wait for their turn."""

    def __init__(self, estate: Estate, graves: Graves, sweeper: Sweeper) -> None:
        self.count = 0
        self.visit: Callable[[Recorded], None] = lambda _: None  # rings are missing
        self.again: Callable[[Recorded], None] = lambda _: None  # maybe it wants another by now
        self._estate = estate
        self._graves = graves
        self._sweeper = sweeper
        self._waiting: deque[_Wish] = deque()
        self._under_way = 0

    def want(self, target: Recorded, ring: Ring, form: Shape) -> None:
        """Have a ring of this form instead. While it is exchanged the target's history is not to be read.

        That of an exposed ring is not from now on, and what is left of it has no payloads.
        """
        wish = _Wish(target, ring, form)
        waiting = [each for each in self._waiting if each.ring is ring]
        for each in waiting:
            self._waiting.remove(each)
        if ring in target.changing and not waiting:
            return  # under way: it is asked again afterwards
        if ring.exposed:
            target.changing.add(ring)
            self._waiting.appendleft(wish)
        else:
            self._waiting.append(wish)
        self._next()

    def _next(self) -> None:
        while self._waiting and self._under_way < _AT_ONCE:
            wish = self._waiting.popleft()
            if wish.target.rings.get(wish.ring.interface.ifindex) is wish.ring:
                self._begin(wish)
            else:
                wish.target.changing.discard(wish.ring)
                self._estate.done(wish.target)

    def _begin(self, wish: _Wish) -> None:
        estate, target, old = self._estate, wish.target, wish.ring
        target.changing.add(old)
        self._under_way += 1
        id, filters, flows = estate.name("r"), estate.filters, estate.flows(target)
        path, inode, headers = min(target.paths), target.inode, target.headers
        # should we die meanwhile, the old ring is to be taken up again, and may have missed something
        old.left_ns = time.time_ns()
        estate.keeper.put(f"ring:{old.id}", ring_facts(old))
        estate.loop.submit(
            lambda: namespaces.inside(
                path, inode, lambda: _exchange(old, wish.form, id, filters, flows, headers=headers)
            ),
            lambda result: self._done(wish, filters, result),
        )

    def _done(self, wish: _Wish, filters: Filters, result: tuple[Ring, int] | Exception) -> None:
        estate, target, old = self._estate, wish.target, wish.ring
        self._under_way -= 1
        target.changing.discard(old)
        if target.mode is Mode.OFF:  # by now: nothing of it may be read any more
            self._graves.discard(target, old)
            if not isinstance(result, Exception):
                estate.loop.submit(result[0].close, lambda _: None)
        elif isinstance(result, Exception):
            self._failed(wish, result)
        else:
            new, until_ns = result
            self.count += 1
            try:
                self._replace(wish, new, until_ns)
            except OSError as problem:
                log.error(  # noqa: TRY400 — the reason is said
                    "%s: some history is lost: %s", target.name, problem
                )
                self._graves.discard(target, old)
            target.rings[new.interface.ifindex] = new
            new.interface = old.interface  # it may have been renamed meanwhile
            self._sweeper.add(new)
            keeps = estate.filters.keeps(headers=target.headers)
            if filters is not estate.filters or new.snaplen != keeps:
                estate.set_filter(target, new)
            estate.keeper.put(f"ring:{new.id}", ring_facts(new), new.fd)
            if not target.alive or new.detached:
                self._graves.bury(target, new)
        estate.followed(target)
        estate.done(target)  # whoever waited is first
        if target.alive:
            self.again(target)
        self._next()

    def _replace(self, wish: _Wish, new: Ring, until_ns: int) -> None:
        """Bury the old ring, without what the new one has as well."""
        head = new.copy()
        twice = {}
        if head.fd >= 0:
            with contextlib.ExitStack() as last:
                last.callback(os.close, head.fd)
                twice = stamps(head.fd, head.blocks, until_ns)
        self._graves.bury(
            wish.target,
            wish.ring,
            most_bytes=new.shape.bytes,
            without=twice,
            most=wish.ring.most,
        )

    def _failed(self, wish: _Wish, problem: Exception) -> None:
        """The old ring goes on, if it may."""
        estate, target, old = self._estate, wish.target, wish.ring
        if not target.alive:
            self._graves.bury(target, old, most=wish.ring.most)
            return
        if not isinstance(problem, namespaces.Gone):
            log.warning("%s: a ring could not be exchanged: %s", target.name, problem)
        if wish.ring.most:  # what it holds must not be read any more
            self._graves.discard(target, old)
            self.visit(target)
        else:
            old.left_ns = 0
            if old.detached:
                self._graves.bury(target, old)
                return
            estate.set_filter(target, old)
            estate.keeper.put(f"ring:{old.id}", ring_facts(old))


def _exchange(
    old: Ring, form: Shape, id: str, filters: Filters, flows: Flows | None, *, headers: bool
) -> tuple[Ring, int]:
    """The new ring, and until when packets may be in both. In the namespace. Raises `OSError`."""
    kind = old.interface.hardware_type

    def attach_nothing(sock: object) -> int:
        kernel.attach_filter(sock, kernel.returning(0))  # type: ignore[arg-type]
        return 0

    new = open_ring(
        form,
        attach_nothing,
        id=id,
        target=old.target,
        interface=old.interface,
        snaplen=filters.keeps(headers=headers),
        now_ns=time.time_ns,
    )
    try:
        kernel.have_packets_stamped(new.sock, True)
        for each in (old, new):
            kernel.stamp_early(each.sock, True)
        time.sleep(_STAMPS_S)
        new.flow_cut = filters.attach(
            new.sock, kind, flows, headers=headers, ring_bytes=new.shape.bytes
        )
        new.opened_ns = time.time_ns()
        kernel.attach_filter(old.sock, kernel.returning(0))
        kernel.bind_packet(old.fd, old.interface.ifindex, kernel.ETH_P_LOOP)
        until_ns = time.time_ns()
        kernel.stamp_early(new.sock, False)
        kernel.have_packets_stamped(new.sock, False)
    except BaseException:
        new.close()
        take_up(old)
        raise
    return new, until_ns


def take_up(ring: Ring) -> None:
    """Have a ring that was being exchanged record again; its filter must be set, too."""
    ring.left_ns = 0
    with contextlib.suppress(OSError):
        kernel.bind_packet(ring.fd, ring.interface.ifindex)
        kernel.stamp_early(ring.sock, False)
