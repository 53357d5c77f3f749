"""One capture: the history frozen at once, then what follows, until its budget or its window ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from contextlib import aclosing
from dataclasses import replace
from typing import cast

import numpy as np

from tripshark.errors import BadInput, NotFound, Transient
from tripshark.formats.packets import Packets
from tripshark.formats.ring import Seam, decode
from tripshark.formats.wire import Chunk, Frozen, RingCopy
from tripshark.model.evidence import Entry, Word
from tripshark.model.filter import Scope
from tripshark.ports import Clock, Draft, Recorder
from tripshark.respond.sieve import Sieve
from tripshark.respond.spool import PartState, Spool

TICK = 0.25  # seconds between looks at the clock while nothing comes
PATIENCE_NS = 15_000_000_000  # how long a recorder that went away is waited for
RAW_BYTES = 1 << 40  # of the ring, not of the evidence: the sieve's own limits apply


async def release(recorder: Recorder, frozen: Frozen) -> None:
    """Let go of a frozen history."""
    try:
        await recorder.release(frozen)
    except (Transient, NotFound):
        return  # it is gone, and the copy with it


class Capture:
    """Runs one part of an incident. `until_ns` may be moved while it runs; `stop()` ends it now."""

    def __init__(
        self,
        state: PartState,
        *,
        draft: Draft,
        recorder: Recorder,
        clock: Clock,
    ) -> None:
        self._spool = Spool(draft, state)
        self._recorder = recorder
        self._clock = clock
        self._seam = Seam()
        self._sieve = Sieve(state.plan)
        self._narrow = len(state.plan.rungs) == 1  # the narrowest rung has matched
        self._last_core_ns = 0
        self._stop = asyncio.Event()
        self.state = state

    def extend(self, t0_ns: int) -> None:
        """A repeat of the alert: the window reaches as far beyond it, up to the rule's bound."""
        plan = self.state.plan
        bound = plan.t0_ns + plan.after_ns + plan.limits.extend_ns
        self.state.until_ns = max(self.state.until_ns, min(t0_ns + plan.after_ns, bound))

    def stop(self) -> None:
        self._stop.set()

    async def run(self, frozen: Frozen | None) -> None:
        """To the end. Never raises for what the world does; it is noted in the part's entries."""
        try:
            await self._run(frozen)
        finally:
            self.state.entries.extend(self._sieve.entries)
            await asyncio.to_thread(self._spool.close)

    async def _run(self, frozen: Frozen | None) -> None:
        while True:
            if frozen is None:
                frozen = await self._freeze_again()
                if frozen is None:
                    self.state.ended = self.state.ended or "recorder"
                    return
            try:
                chunks, live = await self._take_history(frozen)
                reached_ns = frozen.at_ns
                await release(self._recorder, frozen)
                frozen = None  # what follows is streamed; the copy's memory is let go
                if await self._follow(chunks, reached_ns, live=live):
                    return
            except Transient as away:
                self.state.entries.append(
                    Entry(
                        kind="recorder_away",
                        message=f"the recorder went away during the capture ({away.message}); "
                        "what its rings still held was taken when it came back",
                        from_ns=self._clock.now_ns(),
                    )
                )
                frozen = None

    async def _freeze_again(self) -> Frozen | None:
        """Wait for the recorder; its rings outlive it, so little is lost."""
        give_up = self._clock.now_ns() + PATIENCE_NS
        while not self._stop.is_set():
            try:
                return (await self._recorder.freeze([self.state.plan.target]))[0]
            except NotFound as gone:
                successor = await self._freeze_successor()
                if successor is not None:
                    return successor
                self.state.ended = "gone"
                self.state.entries.append(
                    Entry(
                        kind="target_gone",
                        message=f"the history of this target was lost: {gone.message}",
                        word=Word.INTERRUPTED,
                    )
                )
                return None
            except Transient as away:
                if self._clock.now_ns() > give_up:
                    self.state.entries.append(
                        Entry(
                            kind="recorder_away",
                            message=f"the recorder did not come back: {away.message}",
                            word=Word.INTERRUPTED,
                        )
                    )
                    return None
            await self._pause(TICK)
        return None

    async def _freeze_successor(self) -> Frozen | None:
        """The namespace still lives, and a recorder that lost everything has begun anew: what goes on is captured."""
        target = self.state.target
        if not target.alive:
            return None
        try:
            known = await self._recorder.targets()
            again = next(
                each
                for each in known
                if each.alive and each.inode == target.inode and not each.seen_born
            )
            frozen = (await self._recorder.freeze([again.key]))[0]
        except (StopIteration, NotFound, Transient):
            return None
        self.state.plan = replace(self.state.plan, target=again.key)
        self.state.entries.append(
            Entry(
                kind="history_lost",
                message="the recorder was killed, and the history that it held is lost; it began anew",
                word=Word.INTERRUPTED,
                from_ns=target.since_ns,
                to_ns=again.since_ns,
            )
        )
        return frozen

    async def _take_history(self, frozen: Frozen) -> tuple[AsyncIterator[Chunk], bool]:
        """Keep what is wanted of the history. Returns what follows, and whether anything can."""
        self._spool.froze(frozen)
        plan = self.state.plan
        if plan.rungs[0].scope in (Scope.FLOW, Scope.PEER):
            # nothing that the filter matches up to now is thrown away, however late the alert came
            self.state.until_ns = max(self.state.until_ns, frozen.at_ns)
        self._look_ahead_if_late(frozen)
        decoded = [await asyncio.to_thread(self._decode, copy) for copy in frozen.copies]
        for source, packets in decoded:
            self._note_narrow(source, packets)
        for source, packets in decoded:
            await asyncio.to_thread(self._keep, source, packets, newest=True)
        await asyncio.to_thread(self._spool.save)
        bound = max(plan.t0_ns + plan.after_ns + plan.limits.extend_ns, self.state.until_ns)
        chunks = self._recorder.follow(frozen, until_ns=bound, max_bytes=RAW_BYTES)
        return chunks, any(copy.live for copy in frozen.copies)

    def _look_ahead_if_late(self, frozen: Frozen) -> None:
        """An alert that comes after all of its window has been forgotten still shows what goes on now."""
        reach_ns = min((copy.reaches_ns for copy in frozen.copies), default=0)
        if self.state.until_ns >= reach_ns:
            return
        self.state.entries.append(
            Entry(
                kind="late",
                message="the whole window lies before the history that is still there; "
                "what came after the alert's arrival was captured instead",
                word=Word.EXPIRED,
                from_ns=self.state.plan.t0_ns - self.state.plan.before_ns,
                to_ns=reach_ns,
            )
        )
        self.state.until_ns = frozen.at_ns + self.state.plan.after_ns

    async def _follow(self, chunks: AsyncIterator[Chunk], reached_ns: int, *, live: bool) -> bool:
        """True at the capture's end."""
        if self._over(self._clock.now_ns()):
            return True
        if not live:
            self.state.ended = "gone"
            return True
        try:
            async with aclosing(_ticking(chunks, TICK)) as ticks:
                async for chunk in ticks:
                    now_ns = self._clock.now_ns()
                    if chunk is not None:
                        reached_ns = max(reached_ns, chunk.now_ns)
                        if chunk.restarted:
                            self._note_restart(reached_ns)
                        await self._take(chunk.copies)
                        if chunk.ended:
                            self.state.ended = chunk.ended
                            return True
                    elif now_ns - reached_ns > 4_000_000_000 * TICK:
                        # nothing came for four looks: nothing was there to come
                        reached_ns = now_ns - int(2_000_000_000 * TICK)
                    if self._over(reached_ns):
                        return True
        finally:
            await cast("_Closable", chunks).aclose()
        self.state.ended = self.state.ended or "time"
        return True

    def _note_restart(self, at_ns: int) -> None:
        self.state.entries.append(
            Entry(
                kind="recorder_restart",
                message="the recorder was restarted during the capture; its rings were kept, "
                "and what they lost meanwhile, if anything, is counted for itself",
                count=1,
                to_ns=at_ns,
            )
        )

    async def _take(self, copies: Iterable[RingCopy]) -> None:
        for copy in copies:
            source, packets = await asyncio.to_thread(self._decode, copy)
            self._note_narrow(source, packets)
            await asyncio.to_thread(self._keep, source, packets, newest=False)

    def _decode(self, copy: RingCopy) -> tuple[int, Packets]:
        source = self._spool.ring(copy)
        try:
            packets = decode(copy, source)
        except BadInput as problem:
            self.state.entries.append(
                Entry(
                    kind="unreadable",
                    message=f"blocks of {copy.interface.name} could not be read: {problem.message}",
                    word=Word.TRUNCATED,
                    count=len(copy.blocks),
                )
            )
            packets = Packets.empty()
        fresh = self._seam.fresh(copy.ring, packets)
        self._spool.saw(source, fresh)
        return source, fresh

    def _note_narrow(self, source: int, packets: Packets) -> None:
        if not self._narrow and len(packets):
            self._narrow = self._sieve.matches(
                packets, self._linktype(source), 0, until_ns=self.state.until_ns
            )

    def _keep(self, source: int, packets: Packets, *, newest: bool) -> None:
        """Until the narrowest rung has matched, everything that any rung could want is kept."""
        if not len(packets):
            return
        rung = 0 if self._narrow else self._sieve.widest
        linktype = self._linktype(source)
        until_ns = self.state.until_ns
        kept = self._sieve.keep(packets, linktype, rung, until_ns=until_ns)
        mask = kept.either
        if rung:
            for narrower in range(rung):
                mask |= self._sieve.keep(packets, linktype, narrower, until_ns=until_ns).either
        if kept.core.any():
            self._last_core_ns = max(self._last_core_ns, int(packets.time_ns[kept.core].max()))
        chosen = np.flatnonzero(mask)
        chosen = self._within_limits(packets, chosen, newest=newest)
        self._spool.add(packets.take(chosen))

    def _within_limits(
        self, packets: Packets, chosen: np.ndarray[tuple[int], np.dtype[np.intp]], *, newest: bool
    ) -> np.ndarray[tuple[int], np.dtype[np.intp]]:
        """Of a history the newest are nearest to the alert and stay, of what follows the first.

        A history gets three quarters of the limits at most: what follows the alert must have room too.
        """
        limits = self.state.plan.limits
        quarters = 3 if newest else 4
        room_packets = max(0, limits.max_packets * quarters // 4 - self._spool.packets)
        room_bytes = max(0, limits.max_bytes * quarters // 4 - self._spool.bytes)
        sizes = np.minimum(packets.caplen[chosen], self.state.plan.snaplen).astype(np.int64)
        order = sizes[::-1] if newest else sizes
        fits = int(np.searchsorted(np.cumsum(order), room_bytes, side="right"))
        fits = min(fits, room_packets)
        if fits >= len(chosen):
            return chosen
        self.state.entries.append(
            Entry(
                kind="limit",
                message=f"{'the oldest' if newest else 'later'} packets were left out: the limit is "
                f"{limits.max_packets} packets and {limits.max_bytes} bytes",
                word=Word.TRUNCATED,
                count=len(chosen) - fits,
            )
        )
        if not newest:
            self.state.ended = self.state.ended or "limit"
        return chosen[len(chosen) - fits :] if newest else chosen[:fits]

    def _over(self, reached_ns: int) -> bool:
        """Whether the window, the limits or the silence end the capture."""
        if self._stop.is_set():
            self.state.ended = self.state.ended or "stopped"
        elif not self.state.ended and reached_ns >= self.state.until_ns:
            self.state.ended = "time"
        elif not self.state.ended and self._silent(reached_ns):
            self.state.ended = "idle"
            self.state.until_ns = min(self.state.until_ns, reached_ns)
        return bool(self.state.ended)

    def _silent(self, reached_ns: int) -> bool:
        idle_ns = self.state.plan.idle_ns
        since_ns = max(self._last_core_ns, self.state.frozen_ns, self.state.plan.t0_ns)
        return bool(idle_ns) and reached_ns - since_ns > idle_ns

    def _linktype(self, source: int) -> int:
        return self.state.rings[source].linktype

    async def _pause(self, seconds: float) -> None:
        try:
            await asyncio.wait_for(self._stop.wait(), seconds)
        except TimeoutError:
            return


class _Closable(AsyncIterator[Chunk]):
    """What an async generator is beyond an iterator."""

    async def aclose(self) -> None: ...


async def _ticking(chunks: AsyncIterator[Chunk], seconds: float) -> AsyncGenerator[Chunk | None]:
    """The chunks as they come, and None whenever none came for `seconds`."""
    waiting = asyncio.ensure_future(anext(chunks))  # noqa: TID251 (awaited or cancelled below)
    try:
        while True:
            done, _ = await asyncio.wait({waiting}, timeout=seconds)
            if not done:
                yield None
                continue
            try:
                chunk = waiting.result()
            except StopAsyncIteration:
                return
            yield chunk
            waiting = asyncio.ensure_future(anext(chunks))  # noqa: TID251
    finally:
        waiting.cancel()
        await asyncio.wait({waiting})
