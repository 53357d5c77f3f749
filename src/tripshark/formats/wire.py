"""What responder and recorder say to each other over the unix socket, versioned. Standard library only.

Transport: `SOCK_SEQPACKET`, one JSON object per message of at most `MAX_MESSAGE` bytes, descriptors beside
it (SCM_RIGHTS). Blocks travel as sealed memfds of raw TPACKET_V3 blocks, never as the ring's own descriptor.
"""

from __future__ import annotations

from dataclasses import dataclass

from tripshark.model.target import Interface, Target, TargetKey

VERSION = 1
MAX_MESSAGE = 65_536


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockRef:
    """Where one block's used bytes lie within a copy."""

    seq: int  # the kernel's block sequence number: 1, 2, 3 … for the life of the ring
    offset: int  # bytes from the start of `RingCopy.data`, 8-byte aligned
    length: int  # used bytes, header included
    open: bool  # the kernel was still filling it: later copies of the same seq hold more packets


@dataclass(frozen=True, slots=True, kw_only=True)
class RingCopy:
    """Raw blocks of one ring, oldest first, as the kernel wrote them."""

    ring: str  # id of the ring, unique for the recorder's life
    target: TargetKey
    interface: Interface
    snaplen: int
    live: bool  # False: from a tombstone, nothing will follow
    opened_ns: int
    closed_ns: int  # 0 while live
    packets: int  # seen by the tap since the ring was opened, drops included
    drops: int  # of these not recorded, since the ring was opened
    overwritten: int  # blocks that the kernel overwrote before they could be copied, since the previous copy
    gaps: tuple[
        tuple[int, int], ...
    ]  # (from_ns, to_ns) during which nobody handed blocks back and packets were lost
    losses: tuple[
        tuple[int, int, int], ...
    ]  # (from_ns, to_ns, packets): kernel drops, each located to the second they were counted in
    blocks: tuple[BlockRef, ...]
    data: memoryview  # mapped from the sealed memfd


@dataclass(frozen=True, slots=True, kw_only=True)
class Frozen:
    """The history of one target at one moment. Holds recorder memory until released."""

    handle: int
    target: Target
    at_ns: int
    copies: tuple[
        RingCopy, ...
    ]  # live rings and, where interfaces came and went, their tombstones
    expired_ns: int  # history older than this was discarded for age or budget; 0: none was


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """What came in after a freeze: blocks from the freeze's open block on, again whole and raw.

    A block may come several times (open, then retired): (ring, seq, position in block) names a packet.
    """

    copies: tuple[RingCopy, ...]
    now_ns: int  # everything up to about here has been delivered
    ended: str = ""  # "", "time", "bytes", "gone" (every ring of the target has closed), "stopped"
