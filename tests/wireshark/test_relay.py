"""However a file arrives in pieces, whole blocks are handed on, and rows stand between them."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tripshark.errors import Permanent
from tripshark.formats.blocks import JOURNAL, PACKET
from tripshark.wireshark.relay import Relay, Splitter

DEMO = (Path(__file__).parent.parent / "captures" / "incident-demo.pcapng").read_bytes()


@given(cuts=st.lists(st.integers(0, len(DEMO)), max_size=40))
def test_pieces_of_any_length_give_the_same_file(cuts: list[int]) -> None:
    """What comes out is what went in, a whole block at a time."""
    got: list[bytes] = []
    relay = Relay(got.append)
    ends = [0, *sorted(cuts), len(DEMO)]
    for one, other in itertools.pairwise(ends):
        relay.feed(DEMO[one:other])
    assert b"".join(got) == DEMO
    for piece in got:
        assert sum(len(block) for _, block in Splitter().feed(piece)) == len(piece)


@given(cut=st.integers(0, len(DEMO)), comment=st.text())
def test_a_mark_is_a_block_between_blocks(cut: int, comment: str) -> None:
    """Made at any moment, also before the file has begun, it follows the section; the rest is as it was."""
    got = bytearray()
    relay = Relay(got.extend)
    relay.feed(DEMO[:cut])
    relay.mark(1_000, comment, "somebody\n")
    relay.feed(DEMO[cut:])
    blocks = list(Splitter().feed(bytes(got)))
    marks = [block for kind, block in blocks if kind == JOURNAL and b"TRIPSHARK_MARK=" in block]
    assert len(marks) == 1
    assert blocks[0][1] == DEMO[: len(blocks[0][1])]
    assert b"".join(block for _, block in blocks if block not in marks) == DEMO


def test_a_pause_leaves_out_packets_alone_and_counts_them() -> None:
    """Names and alerts pass; the row afterwards has the number."""
    got = bytearray()
    relay = Relay(got.extend)
    relay.pause(1, paused=True)
    relay.feed(DEMO)
    kinds = [kind for kind, _ in Splitter().feed(bytes(got))]
    packets = sum(kind == PACKET for kind, _ in Splitter().feed(DEMO))
    assert PACKET not in kinds
    assert kinds.count(JOURNAL) == sum(kind == JOURNAL for kind, _ in Splitter().feed(DEMO))
    assert relay.pause(2, paused=False) == packets
    assert f"PAUSE {packets} packets were left out".encode() in got


@pytest.mark.parametrize("foreign", [b"HTTP/1.1 200 OK\r\n\r\n", b"\0" * 64, DEMO[4:]])
def test_what_is_no_file_of_ours_is_refused(foreign: bytes) -> None:
    """A sentence instead of bytes that Wireshark would choke on."""
    with pytest.raises(Permanent):
        Relay(lambda block: None).feed(foreign * 10)
