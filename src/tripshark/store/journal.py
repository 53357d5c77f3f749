"""The journal of accepted alerts: `append` returns when the alert is on disk, whatever happens next.

Many appends share one sync (group commit): whatever comes in while the disk works is the next batch. Nothing here
waits on the disk in the event loop: one thread writes, one reads.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from tripshark.errors import BadInput, Transient, TripsharkError
from tripshark.ports import Record
from tripshark.store.log import Log, LogState
from tripshark.store.segment import MAX_BODY

MAX_BATCH = 4 << 20  # bytes of one commit
MAX_WAITING = 64 << 20  # bytes of appends that wait for the disk
GATHER_S = 0.002  # between two syncs while several senders are waiting
ENOUGH = 64  # records that are worth a sync of their own
MAX_READ = 4 << 20  # bytes handed out by one read, roughly


class FileJournal:
    """`ports.Journal` on a local folder. Opened with `await FileJournal.open(folder)`, closed with `close`."""

    def __init__(self, log: Log, *, max_bytes: int, writer: ThreadPoolExecutor) -> None:
        self._log = log
        self._max_bytes = max_bytes
        self._writer = writer
        self._reader = ThreadPoolExecutor(1, "journal-reader")
        self._reading = asyncio.Lock()
        self._waiting: list[tuple[Record, asyncio.Future[int]]] = []
        self._waiting_bytes = 0
        self._committing_bytes = 0
        self._committed_s = 0.0  # when the last batch was sent to the disk
        self._shared = False  # it held records of several senders
        self._busy = False  # a batch is on its way to the disk, or about to be
        self._closed = False
        self._refusal = ""  # what the disk said to the last batch
        self._blank_upto = 0  # up to here nothing can be read, though something was written
        self._changed = asyncio.Event()  # replaced each time it is set

    @classmethod
    async def open(
        cls,
        folder: Path,
        *,
        max_bytes: int = 1_000_000_000,
        segment_bytes: int = 16 << 20,
        at_least: int = 0,
        sync: Callable[[int], None] = os.fdatasync,
    ) -> FileJournal:
        """Open the folder for this process alone, cutting what a crash tore (see `state`).

        `at_least` is the catalogue's position: the next seq lies above it even if the folder was lost.
        Raises `Permanent` when another process writes it, `Transient` when the disk refuses.
        """
        writer = ThreadPoolExecutor(1, "journal-writer")
        make = partial(
            Log,
            folder,
            segment_bytes=max(1, min(segment_bytes, max_bytes // 4)),
            at_least=at_least,
            sync=sync,
        )
        try:
            log = await asyncio.get_running_loop().run_in_executor(writer, make)
        except BaseException:
            writer.shutdown(wait=False)
            raise
        return cls(log, max_bytes=max_bytes, writer=writer)

    @property
    def last_seq(self) -> int:
        """Seq of the newest durable record, 0 when there was none yet."""
        return self._log.last_seq

    @property
    def problem(self) -> str:
        """Why alerts cannot be made durable now, "" while they can."""
        if self._closed:
            return "the journal is closed"
        if self._log.size >= self._max_bytes:
            return "the journal is full because nobody reads it"
        return self._refusal

    def state(self) -> LogState:
        """What `doctor`, `/readyz` and the metrics show."""
        return self._log.state()

    async def append(self, body: bytes, *, via: str, received_ns: int, repeat_of: int = 0) -> int:
        """Its seq, once it is on disk.

        Raises `Transient` when the disk refuses, the journal is full or closed, and `BadInput` for a body beyond
        16 MiB. A caller that is cancelled does not know whether the alert was kept.
        """
        if len(body) > MAX_BODY:
            raise BadInput(
                f"an alert of {len(body)} bytes", hint=f"at most {MAX_BODY >> 20} MiB are taken"
            )
        self._check_room(len(body))
        record = Record(seq=0, received_ns=received_ns, via=via, body=body, repeat_of=repeat_of)
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._waiting.append((record, future))
        self._waiting_bytes += _cost(record)
        if not self._busy:
            self._busy = True  # what else is appended in this turn of the loop goes along
            self._commit_soon()
        return await future

    async def read(self, after: int, limit: int) -> Sequence[Record]:
        """Up to `limit` records with seq > `after` (about 4 MiB at most); waits until there is at least one.

        Records too damaged to be believed are passed over and counted. Raises `Transient` once closed.
        """
        loop = asyncio.get_running_loop()
        while True:
            self._check_open()
            changed, newest = self._changed, self._log.last_seq
            if newest <= max(after, self._blank_upto):
                await changed.wait()
                continue
            async with self._reading:
                records = await loop.run_in_executor(
                    self._reader, self._log.read, after, max(1, limit), MAX_READ
                )
            if records:
                return records
            self._blank_upto = newest

    async def forget(self, upto: int) -> None:
        """Everything up to here is in the catalogue: segments that hold nothing else are deleted."""
        self._check_open()
        await asyncio.get_running_loop().run_in_executor(self._writer, self._log.forget, upto)

    async def close(self) -> None:
        """Finish what was appended, then give the folder free. Later calls raise `Transient`."""
        self._closed = True
        self._notify()
        while self._busy:
            await self._changed.wait()
        self._reader.shutdown()
        await asyncio.get_running_loop().run_in_executor(self._writer, self._log.close)
        self._writer.shutdown()

    def _check_open(self) -> None:
        if self._closed:
            raise Transient("the journal is closed", hint="Tripshark is stopping; try again")

    def _check_room(self, more: int) -> None:
        self._check_open()
        waiting = self._waiting_bytes + self._committing_bytes
        if waiting + more > MAX_WAITING:
            raise Transient(
                "more alerts than the disk can take",
                where="journal",
                hint="send fewer, or put the data folder on a faster disk",
                after=1.0,
            )
        if self._log.size + waiting + more > self._max_bytes:
            raise Transient(
                "the journal is full because nobody reads it",
                where="journal",
                hint="see why alerts are not worked off (`tripshark doctor`), or raise journal.max",
                after=10.0,
            )

    def _commit_soon(self) -> None:
        """At once for a lone sender; where several send, what comes within two milliseconds shares one sync."""
        loop = asyncio.get_running_loop()
        wait_s = self._committed_s + GATHER_S - loop.time()
        if self._shared and wait_s > 0 and len(self._waiting) < ENOUGH:
            loop.call_later(wait_s, self._commit)
        else:
            loop.call_soon(self._commit)

    def _commit(self) -> None:
        """Send the next batch to the disk; runs in the loop, never waits."""
        batch: list[tuple[Record, asyncio.Future[int]]] = []
        size = 0
        for record, future in self._waiting:
            if batch and size + _cost(record) > MAX_BATCH:
                break
            batch.append((record, future))
            size += _cost(record)
        del self._waiting[: len(batch)]
        self._waiting_bytes -= size
        self._committing_bytes = size
        self._committed_s = asyncio.get_running_loop().time()
        self._shared = len(batch) > 1
        work = asyncio.get_running_loop().run_in_executor(
            self._writer, self._log.commit, [record for record, _ in batch]
        )
        work.add_done_callback(partial(self._committed, [future for _, future in batch]))

    def _committed(self, futures: list[asyncio.Future[int]], work: asyncio.Future[int]) -> None:
        self._committing_bytes = 0
        error = work.exception()
        self._refusal = "" if error is None else str(error)
        for at, future in enumerate(futures):
            if future.done():  # whoever waited was cancelled
                continue
            if error is None:
                future.set_result(work.result() + at)
            else:
                future.set_exception(_again(error))
        self._busy = bool(self._waiting)
        if self._busy:
            self._commit_soon()
        self._notify()

    def _notify(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


def _cost(record: Record) -> int:
    """Bytes in memory, roughly."""
    return len(record.body) + len(record.via) + 512


def _again(error: BaseException) -> BaseException:
    """The error for one more waiter: an exception raised in many tasks would gather all their frames.

    Whatever the disk said, the sender is to try again: the alert is not lost as long as somebody still has it.
    """
    if isinstance(error, TripsharkError):
        return Transient(error.message, where=error.where, hint=error.hint, after=5.0)
    return error
