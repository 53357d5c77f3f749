"""Segments give back what was written, and never believe what was not."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tripshark.errors import BadInput
from tripshark.ports import Record
from tripshark.store.segment import frame, header, read_header, scan

U64 = st.integers(0, 2**64 - 1)
RECORDS = st.lists(
    st.builds(
        Record,
        seq=st.just(0),
        received_ns=st.integers(-(2**63), 2**63 - 1),
        via=st.text(st.characters(codec="utf-8"), max_size=40),
        body=st.binary(max_size=300),
        repeat_of=U64,
    ),
    max_size=8,
).map(lambda found: [_numbered(record, at + 1) for at, record in enumerate(found)])


def _numbered(record: Record, seq: int) -> Record:
    return Record(
        seq=seq,
        received_ns=record.received_ns,
        via=record.via,
        body=record.body,
        repeat_of=record.repeat_of,
    )


@given(records=RECORDS, salt=U64, tail=st.binary(max_size=50))
def test_what_was_written_is_read_back(records: list[Record], salt: int, tail: bytes) -> None:
    """Every record, in order, whatever torn bytes follow."""
    data = b"".join(frame(salt, record) for record in records)
    assert [found.record for found in scan(data + tail, salt)] == records
    assert all(found.damaged == 0 for found in scan(data + tail, salt))


@given(records=RECORDS.filter(bool), salt=U64, data=st.data())
def test_one_damaged_byte_costs_one_record(
    records: list[Record], salt: int, data: st.DataObject
) -> None:
    """A flipped bit loses the record it is in and no other, and the loss is counted."""
    frames = [frame(salt, record) for record in records]
    victim = data.draw(st.integers(0, len(frames) - 1))
    at = data.draw(st.integers(0, len(frames[victim]) - 1))
    bit = data.draw(st.integers(0, 7))
    damaged = bytearray(frames[victim])
    damaged[at] ^= 1 << bit
    content = b"".join([*frames[:victim], bytes(damaged), *frames[victim + 1 :]])
    found = list(scan(content, salt))
    assert [each.record for each in found] == [*records[:victim], *records[victim + 1 :]]
    counted = sum(each.damaged for each in found)
    torn = len(content) - (found[-1].end if found else 0)
    assert counted + torn == len(damaged)


@given(data=st.binary(max_size=400), salt=U64)
def test_foreign_bytes_are_no_records(data: bytes, salt: int) -> None:
    """Noise holds nothing that is believed, and never raises anything but the documented error."""
    assert list(scan(data, salt)) == []
    with pytest.raises(BadInput):
        read_header(data)


def test_an_alert_cannot_smuggle_a_record_in() -> None:
    """A frame inside an alert's body, made with any salt but the segment's, is not believed after damage."""
    forged = frame(0, Record(seq=7, received_ns=0, via="forged", body=b"x"))
    outer = bytearray(frame(1, Record(seq=1, received_ns=0, via="webhook", body=forged * 3)))
    outer[5] ^= 1
    assert list(scan(bytes(outer), 1)) == []


def test_an_alert_full_of_marks_does_not_make_reading_slow() -> None:
    """Looking for the next record in 2 MiB of hostile marks takes seconds, not hours."""
    mark = frame(0, Record(seq=1, received_ns=0, via="", body=b""))[:16]
    hostile = mark * (2 * 65536)
    began = time.monotonic()
    assert list(scan(hostile, 1)) == []
    assert time.monotonic() - began < 20


@given(salt=U64, first=U64)
def test_the_header_is_read_back(salt: int, first: int) -> None:
    """Salt and first seq survive; one changed byte does not pass."""
    data = header(salt, first)
    assert (read_header(data).salt, read_header(data).first_seq) == (salt, first)
    for at in range(len(data)):
        wrong = bytearray(data)
        wrong[at] ^= 0x10
        with pytest.raises(BadInput):
            read_header(bytes(wrong))
    with pytest.raises(BadInput):
        read_header(data[:-1])
