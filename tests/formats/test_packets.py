"""Packets can be chosen, joined, cut and moved without losing a byte."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.formats.making import make_packets
from tripshark.formats.packets import Packets, concat
from tripshark.formats.spans import copy_spans

sizes = st.one_of(st.integers(0, 200), st.sampled_from([1514, 2047, 2048, 2049, 65_226]))


def _bytes(packets: Packets) -> list[bytes]:
    return [packets.bytes_of(i) for i in range(len(packets))]


@given(lengths=st.lists(sizes, max_size=30))
def test_spans_are_copied_exactly(lengths: list[int]) -> None:
    """Every span arrives whole, and nothing beside it is touched."""
    datas = [bytes([i % 251 + 1]) * n for i, n in enumerate(lengths)]
    source = np.frombuffer(b"".join(datas), np.uint8)
    sizes_ = np.array(lengths, np.int64)
    target = np.zeros(int(sizes_.sum()) + len(lengths) * 3, np.uint8)
    to = np.cumsum(sizes_ + 3) - sizes_ - 3
    copy_spans(source, np.cumsum(sizes_) - sizes_, sizes_, target, to)
    assert target.tobytes() == b"".join(data + bytes(3) for data in datas)


@given(datas=st.lists(st.binary(max_size=40), max_size=20))
def test_compacting_keeps_only_what_is_used(datas: list[bytes]) -> None:
    """The bytes are the same and the buffer holds nothing else."""
    packets = make_packets(datas)
    odd = packets.take(np.arange(len(datas)) % 2 == 1)
    compact = odd.compact()
    assert _bytes(compact) == datas[1::2]
    assert len(compact.data) == sum(map(len, datas[1::2]))


def test_joining_copies_bytes_only_where_there_are_several_buffers() -> None:
    """One buffer stays itself, also when its packets come in several parts."""
    packets = make_packets([b"abc", b"de", b"f"])
    first, rest = packets.take(slice(0, 1)), packets.take(slice(1, 3))
    assert concat([Packets.empty(), packets]) is packets
    joined = concat([rest, first])
    assert joined.data is packets.data
    assert _bytes(joined) == [b"de", b"f", b"abc"]
    other = make_packets([b"xyz"], seq=[9])
    assert _bytes(concat([first, other, rest])) == [b"abc", b"xyz", b"de", b"f"]
    last = packets.take(slice(2, 3))
    assert len(concat([last, other]).data) == 4  # most of that buffer was of no use any more
    assert len(concat([])) == 0


def test_cutting_keeps_the_length_on_the_wire() -> None:
    """Less is there; how much there was is still told."""
    cut = make_packets([b"abcdef", b"a"], length=[100, 1]).cut(3)
    assert _bytes(cut) == [b"abc", b"a"]
    assert cut.length.tolist() == [100, 1]


@given(times=st.lists(st.integers(0, 5), max_size=20))
def test_sorting_by_time_is_stable(times: list[int]) -> None:
    """Packets of one nanosecond keep their order."""
    packets = make_packets([b""] * len(times), time_ns=times, pos=range(len(times)))
    ordered = packets.sorted_by_time()
    pairs = list(zip(ordered.time_ns.tolist(), ordered.pos.tolist(), strict=True))
    assert pairs == sorted((time, i) for i, time in enumerate(times))


def test_sources_can_be_renamed() -> None:
    """What was i becomes what the list says of i."""
    packets = make_packets([b"", b"", b""], source=[0, 2, 1])
    assert packets.with_source([5, 6, 7]).source.tolist() == [5, 7, 6]


def test_nothing_is_a_set_of_packets_too() -> None:
    """An empty set goes through every operation."""
    empty = Packets.empty()
    assert len(empty.take(slice(0, 5)).cut(3).sorted_by_time().with_source([]).compact()) == 0


def test_packets_cannot_be_changed() -> None:
    """A column is replaced by making new packets."""
    with pytest.raises(AttributeError):
        make_packets([b""]).seq = np.zeros(1, np.uint64)  # type: ignore[misc]
