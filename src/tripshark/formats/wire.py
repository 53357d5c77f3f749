"""What responder and recorder say to each other over the unix socket, versioned. Standard library only.

Transport: `SOCK_SEQPACKET`, one JSON object per message of at most `MAX_MESSAGE` bytes, descriptors beside
it (SCM_RIGHTS). Blocks travel as sealed memfds of raw TPACKET_V3 blocks, never as the ring's own descriptor.
A message that is too long for one packet is sent in parts: `{"part": n, "of": m, "text": "…"}`; requests always fit.

Every request has `t` (what it asks) and `id` (repeated in its answers):

    hello   {version}                                   → hello {version, pid, started_ns}
    targets {}                                          → targets {targets}
    inode   {pid}                                       → inode {inode, or null}
    attach  {pid}                                       → attached {key}
    freeze  {keys}                                      → frozen {frozen} + copies, once per key, in order
    follow  {key, positions, until_ns, max_bytes}       → chunk {n, bytes, chunk} + copies, until chunk.ended
    ack     {follow, n}, stop {follow}                  no answer
    release {handle}                                    → released {}
    filter  {ethernet, raw, snaplen}                    → filtered {rings}
    record  {assign: {key: {mode, weight, reason}}}     → recorded {unknown}, keys that are nobody's any more
    stats   {}                                          → stats {…}

or `error {code, message, where, hint}`. `follow` names blocks, not a freeze, so that it can be taken up again
after the recorder was restarted: `positions` is the first wanted `seq` by ring; of rings not named, all is wanted.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from enum import Enum
from functools import cache
from typing import Any, TypeVar, cast, get_args, get_origin, get_type_hints

from tripshark.errors import BadInput
from tripshark.model.target import Interface, Target, TargetKey

VERSION = 1
MAX_MESSAGE = 65_536
MAX_DOCUMENT = 16 << 20  # a message in parts
_PIECE = 30_000  # characters of JSON in a part: at most twice as many once they are escaped
HEADER = 48  # bytes of a block's own header; less is no block


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
    flow_cut: int = 0  # bytes recorded in full per flow and direction, of the rest headers; 0: all

    @property
    def reaches_ns(self) -> int:
        """A frozen ring's history is whole from here on: since it was opened, or since its oldest block was begun."""
        if not self.blocks or self.blocks[0].seq <= 1:
            return self.opened_ns
        sec, nsec = struct.unpack_from("=II", self.data, self.blocks[0].offset + 32)
        return int(sec) * 1_000_000_000 + int(nsec)


@dataclass(frozen=True, slots=True, kw_only=True)
class Frozen:
    """The history of one target at one moment. Holds recorder memory until released.

    `at_ns` is when the recorder began to copy, by the machine's clock: every packet recorded by then that the ring
    still held is in it, and some that came while it was copied. When the copy was done is when it arrives at the
    client, some milliseconds later for a full ring.
    """

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
    restarted: bool = False  # between the chunk before and this one the recorder was restarted


def next_seq(copy: RingCopy) -> int:
    """The first block of this ring that `copy` does not hold whole: where following begins."""
    if not copy.blocks:
        return 0
    last = copy.blocks[-1]
    return last.seq if last.open and copy.live else last.seq + 1


# ---- messages -------------------------------------------------------------------------------------------


Json = dict[str, Any]


def pack(message: Json) -> tuple[bytes, ...]:
    """The message as it travels: one packet, or several parts where one cannot hold it.

    Raises `BadInput` for a message beyond `MAX_DOCUMENT`.
    """
    text = json.dumps(message, separators=(",", ":"), ensure_ascii=True)
    if len(text) <= MAX_MESSAGE:
        return (text.encode(),)
    if len(text) > MAX_DOCUMENT:
        raise BadInput(f"a message of {len(text)} bytes", hint=f"at most {MAX_DOCUMENT}")
    pieces = [text[at : at + _PIECE] for at in range(0, len(text), _PIECE)]
    return tuple(
        json.dumps({"part": n, "of": len(pieces), "text": piece}).encode()
        for n, piece in enumerate(pieces)
    )


def unpack(data: bytes) -> Json:
    """One packet as a message. Raises `BadInput` for anything but one JSON object of bounded size."""
    if len(data) > MAX_MESSAGE:
        raise BadInput("a packet longer than the protocol allows", hint=f"at most {MAX_MESSAGE}")
    return _load(data)


def _load(data: bytes | str) -> Json:
    try:
        message = json.loads(data, parse_constant=_no_constant)
    except (ValueError, RecursionError) as problem:
        raise BadInput("a packet that is no JSON") from problem
    if not isinstance(message, dict):
        raise BadInput("a packet that is no JSON object")
    return message


def _no_constant(word: str) -> None:
    raise ValueError(word)


class Joiner:
    """Puts messages together again from the packets of one connection."""

    def __init__(self) -> None:
        self._pieces: list[str] = []

    def feed(self, data: bytes) -> Json | None:
        """The message this packet completes, or None while parts are missing. Raises `BadInput`."""
        message = unpack(data)
        if "part" not in message:
            if self._pieces:
                raise BadInput("a message amid the parts of another")
            return message
        part, of, text = (
            field(message, "part", int),
            field(message, "of", int),
            field(message, "text", str),
        )
        if part != len(self._pieces) or not part < of <= MAX_DOCUMENT // _PIECE + 1:
            raise BadInput("parts of a message out of order")
        self._pieces.append(text)
        if part + 1 < of:
            return None
        whole = "".join(self._pieces)
        self._pieces.clear()
        return _load(whole)


Value = TypeVar("Value", int, str, bool, list[Any], dict[str, Any])


def field(message: Json, name: str, kind: type[Value]) -> Value:
    """A field of a message by name. Raises `BadInput` when it is missing or of another type."""
    value = message.get(name)
    if type(value) is not (get_origin(kind) or kind):  # a bool is no int here
        raise BadInput(f"{name!r} must be {kind.__name__}")
    return cast(Value, value)


# ---- values ---------------------------------------------------------------------------------------------


def to_json(value: object) -> Any:  # noqa: ANN401 — JSON has no better name in Python
    """Any value of this module or of `model.target` as JSON; a mapped copy becomes its byte count."""
    if isinstance(value, memoryview):
        return value.nbytes
    if isinstance(value, BlockRef):  # there are hundreds of them: by position
        return [value.seq, value.offset, value.length, value.open]
    if is_dataclass(value):
        return {each.name: to_json(getattr(value, each.name)) for each in fields(value)}
    if isinstance(value, tuple | list):
        return [to_json(each) for each in value]
    if isinstance(value, Mapping):
        return dict(value)
    return value


T = TypeVar("T")


def from_json(kind: type[T], value: object, copies: Iterable[memoryview] = ()) -> T:
    """`value` as a `kind`: what `to_json` wrote. `copies` are the mapped descriptors beside it, in order.

    Raises `BadInput` for anything else, also for blocks that lie outside their copy.
    """
    try:
        built = _build(kind, value, iter(copies))
    except (TypeError, ValueError, KeyError, StopIteration, RecursionError) as problem:
        raise BadInput(f"not a {kind.__name__}") from problem
    return cast(T, built)


@cache
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)


def _build(kind: Any, value: Any, copies: Iterator[memoryview]) -> object:  # noqa: ANN401 — decides by type
    if kind is BlockRef:
        seq, offset, length, is_open = _exactly(list, value)
        for each in (seq, offset, length):
            _exactly(int, each)
        return BlockRef(seq=seq, offset=offset, length=length, open=_exactly(bool, is_open))
    if is_dataclass(kind):
        given = _exactly(dict, value)
        known = _hints(cast(type, kind))
        built = cast(Callable[..., object], kind)(
            **{
                name: _build(known[name], each, copies)
                for name, each in given.items()
                if name in known  # a newer recorder may say more
            }
        )
        return _within(built) if isinstance(built, RingCopy) else built
    if kind is memoryview:
        size = _exactly(int, value)
        data = next(copies) if size else memoryview(b"")
        if data.nbytes < size:
            raise ValueError(size)
        return data
    origin = get_origin(kind)
    if origin is tuple:
        items = _exactly(list, value)
        inner = get_args(kind)
        if inner[-1] is Ellipsis:
            return tuple(_build(inner[0], each, copies) for each in items)
        return tuple(_build(each, item, copies) for each, item in zip(inner, items, strict=True))
    if origin is Mapping:
        given = _exactly(dict, value)
        return {name: _exactly(str, each) for name, each in given.items()}
    if isinstance(kind, type) and issubclass(kind, Enum):
        return kind(value)
    return _exactly(getattr(kind, "__supertype__", kind), value)  # a NewType is its own base


def _exactly(kind: type, value: Any) -> Any:  # noqa: ANN401 — the caller names the type
    if type(value) is not kind:  # a bool is no int here
        raise TypeError(value)
    return value


def _within(copy: RingCopy) -> RingCopy:
    """The copy, if every block lies inside it."""
    for each in copy.blocks:
        end = each.offset + each.length
        if each.offset < 0 or each.offset % 8 or each.length < HEADER or end > copy.data.nbytes:
            raise ValueError(each)
    return copy
