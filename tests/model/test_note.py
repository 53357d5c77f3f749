"""Notes say only what is visible, at a packet of a capture file."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tripshark.errors import BadInput
from tripshark.model.evidence import IncidentId
from tripshark.model.note import MAX_NOTE, Note, note_file, note_frame, note_id, note_text


def test_a_note_reads_as_the_api_shows_it() -> None:
    """All of it but the incident, which the path names."""
    note = Note(
        id="0123456789abcdef", incident=IncidentId("20261124t103001-abcdef"),
        file="evidence.pcapng", frame=7, text="first beacon", by="ana", at_ns=1_000_000_000,
    )  # fmt: skip
    assert note.as_json() == {
        "id": "0123456789abcdef", "file": "evidence.pcapng", "frame": 7, "text": "first beacon",
        "by": "ana", "at": "1970-01-01T00:00:01.000000000Z", "at_ns": 1_000_000_000,
    }  # fmt: skip


def test_text_keeps_its_lines_and_hides_nothing() -> None:
    """Line ends of every system become one; escape sequences and bidirectional marks are spelled out."""
    assert note_text("\r\na \r\nb\rc\n\n") == "a\nb\nc"
    assert note_text("\x1b[31m\u202ered") == "\\x1b[31m\\u202ered"


@pytest.mark.parametrize(
    ("check", "value"),
    [
        (note_text, ""), (note_text, " \n "), (note_text, "x" * (MAX_NOTE + 1)),
        (note_file, "../evidence.pcapng"), (note_file, "evidence.pcap"), (note_file, "a/b/c.pcapng"),
        (note_frame, 0), (note_frame, 1 << 32), (note_id, "0123"), (note_id, "0123456789ABCDEF"),
    ],
)  # fmt: skip
def test_what_is_no_note_is_refused(check: Callable[[object], object], value: object) -> None:
    """Nothing but a packet's number, a capture file's name, and words."""
    with pytest.raises(BadInput):
        check(value)


def test_what_is_one_is_taken() -> None:
    """Files of this machine and of parts, any packet, ids as we make them."""
    assert note_file("evidence-raw.pcapng") == "evidence-raw.pcapng"
    assert note_file("node-1.example/evidence.pcapng") == "node-1.example/evidence.pcapng"
    assert note_frame(0xFFFFFFFF) == 0xFFFFFFFF
    assert note_id("0123456789abcdef") == "0123456789abcdef"
