"""What a packet is to us: one row over NumPy columns, its bytes somewhere in one flat buffer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tripshark.formats.spans import copy_spans

UNKNOWN, IN, OUT = 0, 1, 2
"""Directions, as seen from the recorded interface; the numbers are pcapng's."""

CHECKSUM_NOT_READY = 0x8  # the kernel left the checksum to hardware that never saw the packet
GSO_TCP = 0x100  # larger than any frame on the wire: TCP had not been cut yet


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Packets:
    """Packets in columns of equal length. Rows are cheap to choose and reorder; bytes are never moved for it.

    The buffer may be a mapping of somebody else's memory: `compact` copies what is used and lets it go.
    """

    data: NDArray[np.uint8]
    start: NDArray[np.int64]  # offset in `data` of the first link-layer byte
    caplen: NDArray[np.uint32]  # bytes there are
    length: NDArray[np.uint32]  # bytes there were on the wire
    time_ns: NDArray[np.int64]  # CLOCK_REALTIME
    direction: NDArray[np.uint8]
    source: NDArray[np.uint16]  # index of the ring or interface in the caller's list
    seq: NDArray[np.uint64]  # of the ring's block that held it
    pos: NDArray[np.uint32]  # within that block
    status: NDArray[np.uint32]  # tp_status bits

    def __len__(self) -> int:
        return len(self.start)

    @classmethod
    def empty(cls) -> Packets:
        return cls(
            data=np.zeros(0, np.uint8),
            start=np.zeros(0, np.int64),
            caplen=np.zeros(0, np.uint32),
            length=np.zeros(0, np.uint32),
            time_ns=np.zeros(0, np.int64),
            direction=np.zeros(0, np.uint8),
            source=np.zeros(0, np.uint16),
            seq=np.zeros(0, np.uint64),
            pos=np.zeros(0, np.uint32),
            status=np.zeros(0, np.uint32),
        )

    def take(self, which: NDArray[np.bool_] | NDArray[np.intp] | slice) -> Packets:
        """The rows of a mask, of an index or of a slice, over the same buffer."""
        return Packets(
            data=self.data,
            start=self.start[which],
            caplen=self.caplen[which],
            length=self.length[which],
            time_ns=self.time_ns[which],
            direction=self.direction[which],
            source=self.source[which],
            seq=self.seq[which],
            pos=self.pos[which],
            status=self.status[which],
        )

    def cut(self, snaplen: int) -> Packets:
        """At most the first `snaplen` bytes of every packet; `length` still tells what there was."""
        return replace(self, caplen=np.minimum(self.caplen, np.uint32(snaplen)))

    def sorted_by_time(self) -> Packets:
        """Oldest first; packets of one nanosecond stay in their order."""
        if bool((self.time_ns[1:] >= self.time_ns[:-1]).all()):
            return self
        return self.take(np.argsort(self.time_ns, kind="stable"))

    def bytes_of(self, index: int) -> bytes:
        """One packet's bytes."""
        at = int(self.start[index])
        return self.data[at : at + int(self.caplen[index])].tobytes()

    def compact(self) -> Packets:
        """The same packets over a buffer of their own that holds nothing else."""
        lengths = self.caplen.astype(np.int64)
        ends = np.cumsum(lengths)
        start = ends - lengths
        data = np.empty(int(lengths.sum()), np.uint8)
        copy_spans(self.data, self.start, lengths, data, start)
        return replace(self, data=data, start=start)

    def with_source(self, sources: Sequence[int] | NDArray[np.uint16]) -> Packets:
        """Rename sources: what was `i` becomes `sources[i]`."""
        return replace(self, source=np.asarray(sources, np.uint16)[self.source])


def concat(parts: Sequence[Packets]) -> Packets:
    """All packets of all parts, in that order. Bytes are copied only where there are several buffers."""
    parts = [part for part in parts if len(part)]
    if not parts:
        return Packets.empty()
    if len(parts) == 1:
        return parts[0]
    first = parts[0].data
    if all(part.data is first for part in parts):
        data, bases = first, [0] * len(parts)
    else:
        parts = [part if _is_dense(part) else part.compact() for part in parts]
        data = np.concatenate([part.data for part in parts])
        bases = [0, *np.cumsum([len(part.data) for part in parts[:-1]]).tolist()]
    return Packets(
        data=data,
        start=np.concatenate([part.start + base for part, base in zip(parts, bases, strict=True)]),
        caplen=np.concatenate([part.caplen for part in parts]),
        length=np.concatenate([part.length for part in parts]),
        time_ns=np.concatenate([part.time_ns for part in parts]),
        direction=np.concatenate([part.direction for part in parts]),
        source=np.concatenate([part.source for part in parts]),
        seq=np.concatenate([part.seq for part in parts]),
        pos=np.concatenate([part.pos for part in parts]),
        status=np.concatenate([part.status for part in parts]),
    )


def _is_dense(packets: Packets) -> bool:
    """Whether copying the whole buffer is no waste: a filter may have left little of a large ring."""
    return 2 * int(packets.caplen.sum(dtype=np.int64)) >= len(packets.data)
