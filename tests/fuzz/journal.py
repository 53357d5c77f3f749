"""Fuzzes the journal's segments: whatever lies on the disk, reading it ends, and only true records are believed."""

from __future__ import annotations

import contextlib

from tripshark.errors import BadInput
from tripshark.ports import Record
from tripshark.store.segment import HEADER, frame, read_header, scan

_TRUE = Record(seq=2**63, received_ns=1, via="fuzz", body=b"true")


def target(data: bytes) -> None:
    """Foreign bytes as a segment, and foreign bytes around a record that is true."""
    with contextlib.suppress(BadInput):
        head = read_header(data)
        for _ in scan(memoryview(data)[HEADER:], head.salt):
            pass
    true = frame(0x5EED, _TRUE)
    found = [each.record for each in scan(data + true + data, 0x5EED)]
    if _TRUE not in found:
        raise AssertionError("a true record was lost in noise")
