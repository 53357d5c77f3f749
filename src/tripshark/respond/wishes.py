"""What becomes of a capture that was asked for, by hand or by a Capture resource.

A wish is one more record of the journal: as durable as an alert, and decided in the same order.
"""

from __future__ import annotations

import asyncio

from tripshark.errors import Transient, TripsharkError
from tripshark.formats import bpf
from tripshark.model.incident import Incident
from tripshark.ports import CaptureRequest, Clock, Journal
from tripshark.respond import manual, orders
from tripshark.respond.batch import Batch
from tripshark.respond.orders import Order

PATIENCE = 30.0  # seconds until whoever asked is told that it was noted, and no more


class Wishes:
    """Implements `ports.Captures`."""

    def __init__(self, journal: Journal, clock: Clock) -> None:
        self._journal = journal
        self._clock = clock
        self._waiting: dict[int, asyncio.Future[Incident]] = {}  # by journal seq

    async def capture(self, request: CaptureRequest) -> Incident:
        """Freeze and begin. Durable like an alert; raises what stands in the way."""
        manual.alert_of(request, received_ns=0)  # raises BadInput before anything is stored
        await asyncio.to_thread(bpf.compile, request.filter, 1)
        return await self._note(manual.encode(request), manual.VIA)

    async def order(self, order: Order, via: str) -> Incident:
        """Do this node's part of what a Capture resource asks. As `capture`; the incident may be an open one.

        `via` begins with `orders.VIA`; what became of the order is kept in the catalogue under it.
        """
        orders.alert_of(order)  # raises BadInput before anything is stored
        if order.request.peer:
            manual.endpoint(order.request.peer)
        await asyncio.to_thread(bpf.compile, order.request.filter, 1)
        return await self._note(orders.encode(order), via)

    def answer(self, seq: int, answer: Incident | TripsharkError, batch: Batch) -> None:
        """Whoever waits for this record is told once the batch is stored."""
        future = self._waiting.get(seq)
        if future is not None:
            batch.answers.append((future, answer))

    async def _note(self, body: bytes, via: str) -> Incident:
        """Make a wish durable, and wait for what becomes of it."""
        now_ns = self._clock.now_ns()
        future: asyncio.Future[Incident] = asyncio.get_running_loop().create_future()
        seq = await self._journal.append(body, via=via, received_ns=now_ns)
        self._waiting[seq] = future
        try:
            return await asyncio.wait_for(future, timeout=PATIENCE)
        except TimeoutError as late:
            raise Transient("the capture was noted but has not begun yet", after=5) from late
        finally:
            self._waiting.pop(seq, None)
