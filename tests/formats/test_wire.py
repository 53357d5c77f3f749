"""The words between responder and recorder."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tripshark.errors import BadInput
from tripshark.formats.wire import (
    MAX_DOCUMENT,
    MAX_MESSAGE,
    BlockRef,
    Chunk,
    Frozen,
    Joiner,
    RingCopy,
    field,
    from_json,
    next_seq,
    pack,
    to_json,
    unpack,
)
from tripshark.model.target import Identity, Interface, RingState, Target, TargetKey, TargetKind

ETH0 = Interface(name="eth0", ifindex=2, hardware_type=1, addresses=("10.0.0.7/24",))
TARGET = Target(
    key=TargetKey("k1"),
    kind=TargetKind.NETNS,
    name="netns:shop0",
    inode=4026531840,
    since_ns=1,
    identity=Identity(namespace="payments", pod="checkout", labels={"app": "checkout"}),
    rings=(RingState(ring="r1", interface=ETH0, live=True, bytes=4 << 20, snaplen=262144),),
)


def ring_copy(*blocks: BlockRef, data: bytes = b"", live: bool = True) -> RingCopy:
    return RingCopy(
        ring="r1",
        target=TARGET.key,
        interface=ETH0,
        snaplen=262_144,
        live=live,
        opened_ns=5,
        closed_ns=0,
        packets=9,
        drops=1,
        overwritten=0,
        gaps=((1, 2),),
        losses=((3, 4, 1),),
        blocks=blocks,
        data=memoryview(data),
    )


def block(seq: int, *, offset: int = 0, is_open: bool = False) -> BlockRef:
    return BlockRef(seq=seq, offset=offset, length=48, open=is_open)


def frozen() -> Frozen:
    one = ring_copy(block(1), block(2, offset=48, is_open=True), data=bytes(96))
    return Frozen(
        handle=3, target=TARGET, at_ns=7, copies=(one, ring_copy(live=False)), expired_ns=0
    )


def test_what_is_said_is_what_is_heard() -> None:
    """Every value comes back equal, its copies from beside the message."""
    said = frozen()
    message = json.loads(json.dumps(to_json(said)))
    assert from_json(Frozen, message, [memoryview(bytes(96))]) == said
    chunk = Chunk(copies=said.copies, now_ns=9, ended="time")
    assert from_json(Chunk, json.loads(json.dumps(to_json(chunk))), [said.copies[0].data]) == chunk
    assert from_json(tuple[Target, ...], to_json([TARGET, TARGET])) == (TARGET, TARGET)


def test_a_newer_recorder_may_say_more() -> None:
    """Unknown names are passed over, missing ones that have no default are not."""
    message = to_json(ETH0)
    assert from_json(Interface, message | {"speed": 10}) == ETH0
    del message["name"]
    with pytest.raises(BadInput, match="Interface"):
        from_json(Interface, message)


@pytest.mark.parametrize(
    "wrong",
    [
        block(1, offset=4),
        block(1, offset=-8),
        block(1, offset=56),
        BlockRef(seq=1, offset=0, length=47, open=False),
    ],
)
def test_blocks_lie_inside_their_copy(wrong: BlockRef) -> None:
    """A block outside its memory is an error, not a crash later."""
    message = to_json(ring_copy(wrong, data=bytes(96)))
    with pytest.raises(BadInput):
        from_json(RingCopy, message, [memoryview(bytes(96))])


def test_a_copy_needs_its_memory() -> None:
    """A missing or shorter descriptor is an error."""
    message = to_json(ring_copy(block(1), data=bytes(96)))
    for beside in ([], [memoryview(bytes(40))]):
        with pytest.raises(BadInput):
            from_json(RingCopy, message, beside)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (Interface, [1]),
        (Interface, {"name": 7, "ifindex": 2, "hardware_type": 1}),
        (Interface, {"name": "a", "ifindex": True, "hardware_type": 1}),
        (TargetKind, "moon"),
        (BlockRef, [1, 2, 3]),
        (BlockRef, [1, 2, 3, 0]),
        (BlockRef, [1, 2, "3", False]),
        (tuple[int, int], [1]),
        (tuple[int, ...], 5),
        (Identity, {"labels": {"a": 1}}),
    ],
)
def test_other_shapes_are_bad_input(kind: Any, value: object) -> None:
    """Each wrong shape is the one documented error."""
    with pytest.raises(BadInput):
        from_json(kind, value)


def test_following_begins_with_the_open_block() -> None:
    """An open block comes again; a whole one, or one of a dead ring, does not."""
    assert next_seq(ring_copy()) == 0
    assert next_seq(ring_copy(block(7))) == 8
    assert next_seq(ring_copy(block(7, is_open=True))) == 7
    assert next_seq(ring_copy(block(7, is_open=True), live=False)) == 8


def test_how_far_a_copy_reaches_back() -> None:
    """To the ring's opening, or to the beginning of the oldest block when the ring has come round."""
    assert ring_copy().reaches_ns == 5
    assert ring_copy(block(1), data=bytes(48)).reaches_ns == 5
    header = bytearray(48)
    header[32:40] = (3).to_bytes(4, "little") + (4).to_bytes(4, "little")
    assert ring_copy(block(2), data=bytes(header)).reaches_ns == 3_000_000_004


@given(st.text(min_size=1, max_size=50), st.integers(1, 5000))
def test_long_messages_travel_in_parts(text: str, times: int) -> None:
    """Whatever the length, the message arrives whole and every packet fits."""
    said = {"t": "x", "text": text * times}
    packets = pack(said)
    assert all(len(each) <= MAX_MESSAGE for each in packets)
    joiner = Joiner()
    heard = [joiner.feed(each) for each in packets]
    assert heard[-1] == said
    assert heard[:-1] == [None] * (len(packets) - 1)


def test_parts_must_come_in_order() -> None:
    """Parts of another message, or out of order, or endless ones are an error."""
    parts = pack({"text": "x" * 200_000})
    for first, wrong in ((None, parts[1]), (parts[0], parts[0]), (parts[0], b"{}")):
        joiner = Joiner()
        if first is not None:
            joiner.feed(first)
        with pytest.raises(BadInput):
            joiner.feed(wrong)
    with pytest.raises(BadInput):
        Joiner().feed(b'{"part": 0, "of": 100000, "text": ""}')
    with pytest.raises(BadInput):
        pack({"text": "x" * MAX_DOCUMENT})


@pytest.mark.parametrize(
    "data",
    [b"", b"\xff", b"[1]", b"1", b'{"a": NaN}', b"[" * 60_000, b"{" + b" " * MAX_MESSAGE + b"}"],
)
def test_only_objects_of_bounded_size(data: bytes) -> None:
    """Anything else is the one documented error."""
    with pytest.raises(BadInput):
        unpack(data)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_message_or_bad_input(data: bytes) -> None:
    """No bytes do anything else."""
    with contextlib.suppress(BadInput):
        assert isinstance(Joiner().feed(data), dict | None)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=12,
)


@given(JSON)
def test_any_json_is_a_value_or_bad_input(value: object) -> None:
    """No JSON does anything else."""
    for kind in (Frozen, Chunk, Target, RingCopy, BlockRef):
        with contextlib.suppress(BadInput):
            from_json(kind, value)


def test_fields_have_their_type() -> None:
    """A field of another type, or none, is named in the error."""
    assert field({"n": 1}, "n", int) == 1
    assert field({"n": [1]}, "n", list[Any]) == [1]
    for wrong in ({}, {"n": True}, {"n": "1"}):
        with pytest.raises(BadInput, match="'n'"):
            field(wrong, "n", int)
