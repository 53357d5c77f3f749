"""Ring blocks decode to the packets the kernel wrote, or to one clear error."""

from __future__ import annotations

import struct
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.formats.making import Block, Record, copy_of, make_copy
from tripshark.errors import BadInput
from tripshark.formats.packets import IN, OUT
from tripshark.formats.ring import Seam, decode, linktype
from tripshark.formats.wire import BlockRef

ETHER = bytes(range(12)) + b"\x08\x00"


def test_packets_come_out_as_they_went_in() -> None:
    """Bytes, lengths, times, directions and places of every packet of several blocks."""
    copy = make_copy(
        [
            Block(
                seq=7,
                records=[
                    Record(data=ETHER + b"one", length=1500),
                    Record(data=ETHER + b"two", type=4, time_ns=4_294_967_295_999_999_999),
                ],
            ),
            Block(seq=8, records=[Record(data=b"", status=0x9)]),
        ]
    )
    packets = decode(copy, source=3)
    assert [packets.bytes_of(i) for i in range(3)] == [ETHER + b"one", ETHER + b"two", b""]
    assert packets.length.tolist() == [1500, 17, 0]
    assert packets.time_ns[1] == 4_294_967_295_999_999_999
    assert packets.direction.tolist() == [IN, OUT, IN]
    assert packets.source.tolist() == [3, 3, 3]
    assert packets.seq.tolist() == [7, 7, 8]
    assert packets.pos.tolist() == [0, 1, 0]
    assert packets.status.tolist() == [1, 1, 9]


def test_a_length_below_what_is_there_is_raised() -> None:
    """No file format can say that more was captured than there was."""
    packets = decode(make_copy([Block(seq=1, records=[Record(data=ETHER, length=3)])]))
    assert packets.length.tolist() == [14]


@given(
    counts=st.lists(st.integers(0, 9), min_size=1, max_size=40),
    sizes=st.lists(st.integers(0, 90), min_size=1, max_size=7),
)
def test_walking_all_blocks_at_once_finds_what_walking_one_finds(
    counts: list[int], sizes: list[int]
) -> None:
    """However many blocks there are and however full each is."""
    blocks = [
        Block(
            seq=i + 1, records=[Record(data=bytes([k]) * sizes[k % len(sizes)]) for k in range(n)]
        )
        for i, n in enumerate(counts)
    ]
    packets = decode(make_copy(blocks))
    expected = [(i + 1, k) for i, n in enumerate(counts) for k in range(n)]
    assert list(zip(packets.seq.tolist(), packets.pos.tolist(), strict=True)) == expected
    for i, (_, k) in enumerate(expected):
        assert packets.bytes_of(i) == bytes([k]) * sizes[k % len(sizes)]


def test_nothing_decodes_to_nothing() -> None:
    """No blocks, or empty ones, hold no packets."""
    assert len(decode(make_copy([]))) == 0
    assert len(decode(make_copy([Block(seq=1), Block(seq=2, open=True)]))) == 0


def test_an_open_block_gives_what_is_complete() -> None:
    """Packets before the first that the kernel was still writing; what comes behind it may be nonsense."""
    records = [
        Record(data=ETHER),
        Record(data=ETHER),
        Record(data=ETHER, status=0, next=3),
        Record(data=ETHER),
    ]
    packets = decode(make_copy([Block(seq=1, records=records, open=True)]))
    assert packets.pos.tolist() == [0, 1]


@pytest.mark.parametrize("length", [48, 60, 107, 108, 150, 151, 152, 200, 256, 300])
def test_an_open_block_may_be_copied_short(length: int) -> None:
    """Its used length was read before its packet count: only packets wholly copied come out."""
    size = (82 + 14 + 7) & ~7
    block = Block(seq=1, records=[Record(data=ETHER)] * 9, open=True, length=length)
    whole = sum(48 + i * size + 82 + 14 <= length for i in range(9))
    assert len(decode(make_copy([block]))) == whole
    many = [replace(block, seq=i + 1) for i in range(20)]
    assert len(decode(make_copy(many))) == 20 * whole


def test_tags_stand_in_the_bytes_again() -> None:
    """A VLAN tag that the kernel took out is put back behind the addresses, with its own or the usual type."""
    inner = bytes(range(12)) + b"\x81\x00\x00\x05\x08\x00payload"
    records = [
        Record(data=ETHER + b"plain"),
        Record(data=ETHER + b"tagged", status=0x11, tci=0x2007, tpid=0x9999),
        Record(data=inner, status=0x51, tci=0x0064, tpid=0x88A8, length=1000),
        Record(data=ETHER + b"zero", status=0x51, tci=1, tpid=0),
        Record(data=b"short", status=0x51, tci=1, tpid=0x8100),
    ]
    packets = decode(make_copy([Block(seq=1, records=records)]))
    macs = bytes(range(12))
    assert [packets.bytes_of(i) for i in range(5)] == [
        ETHER + b"plain",
        macs + b"\x81\x00\x20\x07\x08\x00tagged",
        macs + b"\x88\xa8\x00\x64\x81\x00\x00\x05\x08\x00payload",
        macs + b"\x81\x00\x00\x01\x08\x00zero",
        b"short",
    ]
    assert packets.length.tolist() == [19, 24, 1004, 22, 5]


def test_a_length_at_its_end_does_not_wrap() -> None:
    """A tag on a packet that claims 4 GiB makes it no shorter."""
    record = Record(data=ETHER, status=0x11, length=0xFFFF_FFFF)
    assert decode(make_copy([Block(seq=1, records=[record])])).length.tolist() == [0xFFFF_FFFF]


def test_links_without_addresses_have_no_tags() -> None:
    """On a tunnel the status bits mean nothing to us, and the bytes stay."""
    record = Record(data=b"\x45" + bytes(30), status=0x51, tci=1, tpid=0x8100)
    packets = decode(make_copy([Block(seq=1, records=[record])], hardware_type=65534))
    assert packets.bytes_of(0) == record.data


GOOD = [Record(data=ETHER), Record(data=ETHER), Record(data=ETHER)]


def _with(index: int, **changes: int) -> list[Record]:
    return [replace(each, **changes) if i == index else each for i, each in enumerate(GOOD)]


@pytest.mark.parametrize(
    "block",
    [
        Block(seq=1, records=GOOD, says=2),
        Block(seq=1, records=GOOD, first=40),
        Block(seq=1, records=GOOD, first=52),
        Block(seq=1, records=GOOD, first=1 << 31),
        Block(seq=1, records=GOOD, count=1 << 31),
        Block(seq=1, records=GOOD, count=4),
        Block(seq=1, records=GOOD, length=200),
        Block(seq=1, records=GOOD, length=100),
        Block(seq=1, records=_with(0, next=0)),
        Block(seq=1, records=_with(0, next=8)),
        Block(seq=1, records=_with(0, next=107)),
        Block(seq=1, records=_with(1, next=1 << 31)),
        Block(seq=1, records=_with(0, next=4096)),
        Block(seq=1, records=_with(1, mac=60)),
        Block(seq=1, records=_with(1, caplen=0xFFFF_FFFF)),
        Block(seq=1, records=_with(1, caplen=40)),
        Block(seq=1, records=_with(2, caplen=40)),
        Block(seq=1, records=_with(0, next=0), open=True),
        Block(seq=1, records=_with(1, caplen=40), open=True),
    ],
)
@pytest.mark.parametrize("times", [1, 20])
def test_a_corrupt_block_is_one_error(block: Block, times: int) -> None:
    """Whatever is wrong with it, and however its blocks are walked, the error names ring, block and byte."""
    blocks = [replace(block, seq=i + 1, says=block.says and i + 2) for i in range(times)]
    with pytest.raises(BadInput) as caught:
        decode(make_copy(blocks))
    assert "ring r1, block " in caught.value.where


@pytest.mark.parametrize(
    ("offset", "length"), [(-8, 100), (4, 100), (0, 40), (0, 10_000), (1 << 40, 100)]
)
def test_a_block_outside_the_copy_is_refused(offset: int, length: int) -> None:
    """What the recorder says about places is checked like everything else."""
    data = Block(seq=1, records=GOOD).encode()
    with pytest.raises(BadInput, match="ring copy cannot be read"):
        decode(copy_of(data, [BlockRef(seq=1, offset=offset, length=length, open=False)]))


def test_blocks_that_share_bytes_are_refused() -> None:
    """A small copy cannot be made to decode to a large one."""
    data = Block(seq=1, records=GOOD).encode()
    ref = BlockRef(seq=1, offset=0, length=len(data), open=False)
    with pytest.raises(BadInput, match="more blocks than bytes"):
        decode(copy_of(data, [ref, ref]))


@given(
    data=st.data(),
    open_=st.booleans(),
    changes=st.lists(
        st.tuples(st.integers(0, 400), st.binary(min_size=1, max_size=4)), max_size=6
    ),
)
def test_any_bytes_are_packets_or_one_error(
    data: st.DataObject, open_: bool, changes: list[tuple[int, bytes]]
) -> None:
    """Decoding never reads outside a block and raises nothing but `BadInput`."""
    raw = bytearray(Block(seq=1, records=GOOD, open=open_).encode())
    for at, value in changes:
        raw[at : at + len(value)] = value
    raw[24:32] = struct.pack("=Q", 1)
    length = data.draw(st.integers(0, len(raw)))
    ref = BlockRef(seq=1, offset=0, length=length, open=open_)
    try:
        packets = decode(copy_of(bytes(raw), [ref]))
    except BadInput:
        return
    assert (packets.start + packets.caplen <= length).all()
    assert (packets.start >= 0).all()


def test_a_seam_lets_each_packet_through_once() -> None:
    """A block seen open and again when closed gives only what is new, per ring."""
    seam = Seam()
    opened = decode(make_copy([Block(seq=5, records=GOOD[:2], open=True)]))
    closed = decode(make_copy([Block(seq=5, records=GOOD), Block(seq=6, records=GOOD[:1])]))
    assert seam.fresh("a", opened.take(slice(0, 0))).pos.tolist() == []
    assert seam.fresh("a", opened).pos.tolist() == [0, 1]
    assert seam.fresh("b", opened).pos.tolist() == [0, 1]
    fresh = seam.fresh("a", closed)
    assert list(zip(fresh.seq.tolist(), fresh.pos.tolist(), strict=True)) == [(5, 2), (6, 0)]
    assert len(seam.fresh("a", closed)) == 0


@pytest.mark.parametrize(
    ("hardware", "expected"),
    [(1, 1), (772, 1), (65534, 101), (768, 101), (776, 101), (778, 101), (823, 101), (803, None)],
)
def test_each_kind_of_link_has_its_number(hardware: int, expected: int | None) -> None:
    """ARPHRD numbers to pcapng link types; an unknown link is said to be so."""
    assert linktype(hardware) == expected


def test_a_view_that_is_not_aligned_decodes_too() -> None:
    """Nothing is assumed about where a copy lies in memory."""
    copy = make_copy([Block(seq=i + 1, records=GOOD) for i in range(20)])
    moved = replace(copy, data=memoryview(b"\0" + bytes(copy.data))[1:])
    assert np.array_equal(decode(moved).start, decode(copy).start)
