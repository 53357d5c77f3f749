"""What is left of closed rings: copied out, kept for a while, given up oldest first."""

from __future__ import annotations

import itertools
import logging
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

from tripshark.formats.wire import BlockRef
from tripshark.model.recording import Mode
from tripshark.recorder.copies import Budget, Copy, walk
from tripshark.recorder.cradle import Cradle, Early, block
from tripshark.recorder.cut import Stamp, rewritten
from tripshark.recorder.estate import Estate
from tripshark.recorder.keeper import Item
from tripshark.recorder.recorded import (
    Recorded,
    Tombstone,
    restored_counters,
    tombstone_facts,
)
from tripshark.recorder.ring import Counters, Ring
from tripshark.recorder.sweeper import Sweeper

log = logging.getLogger(__name__)

_TOMBSTONES = 128  # per target: whoever lives in the namespace may make any number of interfaces
_DEAD = 2048  # targets that are gone and still listed: an answer must stay readable
_TIDY_S, _LATE_S = 0.2, 60.0


class Graves:
    """All tombstones, the one that was closed first at the beginning."""

    def __init__(self, estate: Estate, sweeper: Sweeper) -> None:
        self.expired = 0  # discarded for age or budget
        self.budget = Budget(estate.config.copies, self._evict)
        self._estate = estate
        self._sweeper = sweeper
        self._all: dict[str, tuple[Recorded, Tombstone]] = {}
        self._tidying = False

    @property
    def count(self) -> int:
        return len(self._all)

    def adopt(self, item: Item) -> None:
        """One that an earlier recorder made. Raises `KeyError`, `ValueError`."""
        counters, known = restored_counters(item.meta)
        size = int(item.meta["size"])
        target = self._estate.targets[known.target]
        blocks = walk(item.fd, size) if size else ()
        grave = Tombstone(
            id=known.ring,
            target=known.target,
            interface=known.interface,
            snaplen=known.snaplen,
            opened_ns=known.opened_ns,
            closed_ns=known.closed_ns,
            counters=counters,
            oldest_ns=item.meta["oldest_ns"],
            newest_ns=item.meta["newest_ns"],
            copy=Copy(item.fd, size, blocks, self.budget),
            flow_cut=known.flow_cut,
        )
        self._add(target, grave)

    def bury(
        self,
        target: Recorded,
        ring: Ring,
        *,
        most_bytes: int = 1 << 62,
        without: Mapping[Stamp, int] | None = None,
        most: int = 0,
    ) -> None:
        """Copy what a ring holds, then close it, so that nothing keeps the dead interface alive.

        Of an earlier ring only the newest `most_bytes` are kept, `without` the packets that the later one has too.
        With `most` it is not to be read before no more than so many bytes are left of each packet.
        """
        estate, now = self._estate, time.time_ns()
        if target.rings.get(ring.interface.ifindex) is ring:
            del target.rings[ring.interface.ifindex]
        self._sweeper.remove(ring)
        ring.hand_back()
        ring.count(now)
        oldest_ns, newest_ns = ring.span_ns()
        first = ring.first_within(most_bytes)
        grave: Tombstone | None = None
        if self.budget.make_room(ring.used(first)):
            try:
                taken = ring.copy(first, breathe=self._sweeper.breathe)
                fd, size, blocks = taken.fd, taken.size, taken.blocks
                if fd >= 0 and without:
                    fd, size, blocks = _cut(fd, blocks, without)
            except OSError as problem:
                log.error(  # noqa: TRY400 — the reason is said
                    "%s: the history of %s is lost: %s", target.name, ring.interface.name, problem
                )
            else:
                if first:  # what is before that is given up
                    oldest_ns = ring.begun_ns(first) or newest_ns
                    target.expired_ns = max(target.expired_ns, oldest_ns)
                grave = Tombstone(
                    id=ring.id,
                    target=target.key,
                    interface=ring.interface,
                    snaplen=min(ring.snaplen, most) if most else ring.snaplen,
                    opened_ns=ring.opened_ns,
                    closed_ns=now,
                    counters=ring.counters,
                    oldest_ns=oldest_ns,
                    newest_ns=newest_ns,
                    copy=Copy(
                        fd, size, tuple(replace(each, open=False) for each in blocks), self.budget
                    ),
                    flow_cut=ring.flow_cut,
                )
        if grave is None:
            target.expired_ns = now
            self.expired += 1
        elif most and grave.copy.fd >= 0:
            self._shorten(target, grave, most)
        else:
            self._add(target, grave)
            estate.keeper.put(f"grave:{ring.id}", tombstone_facts(grave), grave.copy.fd)
            if len(target.tombstones) > _TOMBSTONES:
                self._expire(target, target.tombstones[0])
        self.close(ring)
        estate.followed(target)

    def caught(
        self,
        target: Recorded,
        ring: Ring,
        cradle: Cradle,
        packets: Sequence[Early],
        drops: int,
    ) -> None:
        """What came before a ring was open, as an earlier ring of the interface."""
        size = sum(len(each.data) + 80 for each in packets)
        if not self.budget.make_room(size):
            self.expired += 1
            return
        try:
            fd, size, blocks = block(packets, ring.interface.ifindex)
        except OSError as problem:
            log.error("%s: its first packets are lost: %s", target.name, problem)  # noqa: TRY400 — the reason is said
            return
        first_ns, last_ns = (each.stamp.time_ns for each in (packets[0], packets[-1]))
        counters = Counters(packets=len(packets) + drops, drops=drops, blocks=1)
        if drops:
            counters.lost(cradle.opened_ns, ring.opened_ns, drops)
        grave = Tombstone(
            id=self._estate.name("r"),
            target=target.key,
            interface=ring.interface,
            snaplen=ring.snaplen,
            opened_ns=cradle.opened_ns,
            closed_ns=ring.opened_ns,
            counters=counters,
            oldest_ns=first_ns,
            newest_ns=last_ns,
            copy=Copy(fd, size, blocks, self.budget),
        )
        self._add(target, grave)
        self._estate.keeper.put(f"grave:{grave.id}", tombstone_facts(grave), fd)

    def discard(self, target: Recorded, ring: Ring) -> None:
        """Close a ring, and keep nothing of it."""
        if target.rings.get(ring.interface.ifindex) is ring:
            del target.rings[ring.interface.ifindex]
        self._sweeper.remove(ring)
        target.expired_ns = time.time_ns()
        self.close(ring)

    def close(self, ring: Ring) -> None:
        """Let the crew do it, which takes 20 ms."""
        self._estate.keeper.drop(f"ring:{ring.id}")
        self._estate.loop.submit(ring.close, lambda _: None)

    def forget(self, target: Recorded) -> None:
        """Nothing of its past may be read any more."""
        for grave in list(target.tombstones):
            self._expire(target, grave)

    def shorten(self, target: Recorded, most: int) -> None:
        """Cut the payloads out of its past; until that is done nothing of it can be read."""
        for grave in [each for each in target.tombstones if each.snaplen > most]:
            target.tombstones.remove(grave)
            self._all.pop(grave.id)
            self._estate.keeper.drop(f"grave:{grave.id}")  # should we die meanwhile, it is gone
            grave.snaplen = most
            if grave.copy.fd < 0:
                self._put_back(target, grave)
            else:
                self._shorten(target, grave, most)

    def _shorten(self, target: Recorded, grave: Tombstone, most: int) -> None:
        copy = grave.copy
        target.cutting += 1

        def done(result: tuple[int, int, tuple[BlockRef, ...]] | Exception) -> None:
            target.cutting -= 1
            copy.drop()
            if isinstance(result, Exception):
                log.error("%s: some history is lost: %s", target.name, result)
                target.expired_ns = max(target.expired_ns, grave.newest_ns)
                self.expired += 1
            else:
                fd, size, blocks = result
                grave.copy = Copy(fd, size, blocks, self.budget)
                self._put_back(target, grave)
            self._estate.done(target)
            self._soon()

        self._estate.loop.submit(
            lambda: rewritten(copy.fd, copy.blocks, without={}, most=most), done
        )

    def _put_back(self, target: Recorded, grave: Tombstone) -> None:
        if self._estate.targets.get(target.key) is not target or target.mode is Mode.OFF:
            grave.copy.drop()
            return
        self._add(target, grave)
        self._estate.keeper.put(f"grave:{grave.id}", tombstone_facts(grave), grave.copy.fd)

    def _add(self, target: Recorded, grave: Tombstone) -> None:
        target.tombstones.append(grave)
        target.tombstones.sort(key=lambda each: each.closed_ns)
        late = (
            bool(self._all) and next(reversed(self._all.values()))[1].closed_ns > grave.closed_ns
        )
        self._all[grave.id] = (target, grave)
        if late:
            self._all = dict(sorted(self._all.items(), key=lambda each: each[1][1].closed_ns))
        self._soon()

    # ---- the end ----------------------------------------------------------------------------------------

    def died(self, target: Recorded) -> None:
        """A target is gone; it is forgotten with the last of its tombstones, or in time."""
        self._estate.died(target)
        if len(self._estate.targets) - len(self._estate.living) > _DEAD:
            self._give_up()
        self._soon()

    def _soon(self) -> None:
        """Look again when the oldest is due."""
        if self._tidying:
            return
        oldest = [grave.closed_ns for _, grave in itertools.islice(self._all.values(), 1)]
        dead = (each.gone_ns for each in self._estate.targets.values() if not each.alive)
        oldest += itertools.islice(dead, 1)
        if oldest:
            age_s = (time.time_ns() - min(oldest)) / 1e9
            pause_s = self._estate.config.tombstone_s - age_s
            self._tidying = True
            self._estate.loop.later(min(max(pause_s, _TIDY_S), _LATE_S), self._tidy)

    def _tidy(self) -> None:
        self._tidying = False
        self._give_up()
        self._soon()

    def _give_up(self) -> None:
        """Let go of what is too old, and of the dead of whom there are too many."""
        estate = self._estate
        before_ns = time.time_ns() - estate.config.tombstone_s * 1_000_000_000
        for target, grave in list(self._all.values()):
            if grave.closed_ns > before_ns:
                break
            self._expire(target, grave)
        too_many = len(estate.targets) - len(estate.living) - _DEAD
        for target in [each for each in estate.targets.values() if not each.alive]:
            if too_many <= 0 and target.gone_ns > before_ns:
                break
            if target.still:
                if too_many > 0:
                    self.forget(target)
                if not target.tombstones:
                    estate.remove(target)
                    too_many -= 1

    def _evict(self) -> bool:
        """Give up the oldest tombstone that nobody else needs."""
        for target, grave in self._all.values():
            if grave.copy.alone and grave.copy.size:
                self._expire(target, grave)
                return True
        return False

    def _expire(self, target: Recorded, grave: Tombstone) -> None:
        target.tombstones.remove(grave)
        del self._all[grave.id]
        if grave.counters.packets:
            target.expired_ns = max(target.expired_ns, grave.newest_ns or grave.closed_ns)
            self.expired += 1
        grave.copy.drop()
        self._estate.keeper.drop(f"grave:{grave.id}")
        self._estate.keep(target)


def _cut(
    fd: int, blocks: tuple[BlockRef, ...], without: Mapping[Stamp, int]
) -> tuple[int, int, tuple[BlockRef, ...]]:
    try:
        return rewritten(fd, blocks, without=without)
    finally:
        os.close(fd)
