"""Fuzz target: classic pcap files."""

from __future__ import annotations

from tests.fuzz.corpus import CAPTURES
from tripshark.errors import BadInput
from tripshark.formats import pcap


def target(data: bytes) -> None:
    """Packets that lie within the bytes, or `BadInput`; what is read can be written again."""
    try:
        packets, linktype = pcap.read(data)
    except BadInput:
        return
    assert (packets.start + packets.caplen <= len(data)).all()
    try:
        raw = pcap.write(packets, linktype, 0xFFFF)
    except BadInput:
        return
    again, _ = pcap.read(raw)
    assert again.time_ns.tolist() == packets.time_ns.tolist()
    assert [again.bytes_of(i) for i in range(len(again))] == [
        packets.bytes_of(i) for i in range(len(packets))
    ]


def seeds() -> list[bytes]:
    return [path.read_bytes()[:4096] for path in sorted(CAPTURES.glob("dns-*.pcap"))]
