"""A copied file differs in what was added or taken out, and in nothing else; tshark reads it so."""

from __future__ import annotations

import io
import struct
import subprocess
from pathlib import Path

import numpy as np
import pytest

from tripshark.errors import BadInput
from tripshark.formats import blocks, pcapng
from tripshark.formats.copying import (
    MAX_KEY_LOG,
    annotated,
    read_key_log,
    with_tls_keys,
)
from tripshark.formats.packets import Packets
from tripshark.formats.pcapng import Interface, Section

DEMO = (Path(__file__).parents[1] / "captures" / "incident-demo.pcapng").read_bytes()
KEYS = b"CLIENT_RANDOM " + b"ab" * 32 + b" " + b"cd" * 48 + b"\n"


def _tshark(data: bytes, *fields: str) -> list[list[str]]:
    asked = [part for field in fields for part in ("-e", field)]
    out = subprocess.run(
        ["tshark", "-r", "-", "-T", "fields", *asked], input=data, capture_output=True, check=True
    ).stdout
    return [line.split("\t") for line in out.decode().splitlines()]


def _made(*, comments: dict[int, list[str]] | None = None) -> bytes:
    """Two packets and an alert row between them."""
    packets = Packets(
        **{
            **{name: getattr(Packets.empty(), name) for name in Packets.__slots__},
            "data": np.arange(64, dtype=np.uint8),
            "start": np.array([0, 30]), "caplen": np.array([29, 31], np.uint32),
            "length": np.array([29, 31], np.uint32), "time_ns": np.array([1000, 9_000_000]),
            "direction": np.array([1, 2], np.uint8), "source": np.zeros(2, np.uint16),
            "seq": np.zeros(2, np.uint64), "pos": np.zeros(2, np.uint32),
            "status": np.zeros(2, np.uint32),
        }
    )  # fmt: skip
    out = io.BytesIO()
    pcapng.write(
        out, section=Section(application="us"), interfaces=[Interface(name="eth0")],
        packets=packets, rows=[(5_000_000, {"MESSAGE": "alert"})], comments=comments,
    )  # fmt: skip
    return out.getvalue()


def _swapped() -> bytes:
    """A big-endian file of one packet without options."""

    def block(kind: int, body: bytes) -> bytes:
        size = struct.pack(">I", len(body) + 12)
        return struct.pack(">I", kind) + size + body + size

    return (
        block(blocks.SECTION, struct.pack(">IHHq", blocks.BYTE_ORDER, 1, 0, -1))
        + block(blocks.INTERFACE, struct.pack(">HHI", 1, 0, 0))
        + block(blocks.PACKET, struct.pack(">IIIII", 0, 0, 1, 4, 4) + b"abcd")
    )  # fmt: skip


def test_notes_are_comments_of_their_packets() -> None:
    """Behind the comments a packet has; an alert's row, which can have none, is named in the file's own comment."""
    made = annotated(
        _made(comments={1: ["first"]}),
        {1: ["one"], 3: ["two\nlines", "and more"], 2: ["of the alert"]},
        ["a copy"],
    )
    rows = _tshark(made, "frame.number", "frame.comment")
    assert rows == [["1", "one"], ["2", ""], ["3", "first,two ⏎ lines,and more"]]
    read = pcapng.read(made)
    assert read.section.comments == ("a copy", "Frame 2: of the alert")
    assert read.section.application == "us"
    assert read.packets.direction.tolist() == [1, 2]


def test_what_carries_no_note_is_the_same_byte_for_byte() -> None:
    """Without anything to add the copy is the file."""
    assert annotated(DEMO, {}) == DEMO
    assert annotated(_swapped(), {}) == _swapped()


def test_the_sections_byte_order_is_kept() -> None:
    """Also where other tools wrote the file the other way round."""
    made = annotated(_swapped(), {1: ["note"]}, ["copy"])
    assert pcapng.read(made).comments == {0: ("note",)}
    assert _tshark(made, "frame.comment") == [["note"]]


def test_a_note_at_no_frame_is_refused() -> None:
    """Rather than lost."""
    with pytest.raises(BadInput, match="frame 4"):
        annotated(_made(), {4: ["x"]})


def test_keys_stand_before_the_packets() -> None:
    """As one block, which tshark understands; without it the file is what it was."""
    for data in (_made(), _swapped()):
        made = with_tls_keys(data, b"# made by a browser\n\n" + KEYS)
        said = subprocess.run(
            ["capinfos", "-"], input=made, capture_output=True, check=True
        ).stdout.decode()
        assert "Number of decryption secrets in file: 1" in said
        (size,) = struct.unpack_from("<I" if data[8] == 0x4D else ">I", data, 4)
        added = len(made) - len(data)
        assert made[:size] + made[size + added :] == data


@pytest.mark.parametrize(
    "bad", [b"", b"# nothing\n", KEYS + b"rm -rf /\n", b"x" * (MAX_KEY_LOG + 1)]
)
def test_what_is_no_key_log_is_refused(bad: bytes) -> None:
    """Nothing but keys gets into the file."""
    with pytest.raises(BadInput):
        read_key_log(bad)


def test_a_torn_file_is_copied_as_far_as_it_is_sound() -> None:
    """And what is no pcapng file at all is refused."""
    data = _made()
    assert annotated(data[:-7], {1: ["x"]})
    assert annotated(data + b"\0" * 16, {}) == data
    broken = bytearray(data)
    broken[8:12] = b"\0\0\0\0"
    for bad in (b"", b"GIF89a" * 10, bytes(broken)):
        with pytest.raises(BadInput, match="not a pcapng"):
            annotated(bad, {})
