"""Packets of which not all is there: whose doing it was is said, with their number."""

from __future__ import annotations

from tests.formats.making import make_packets
from tripshark.model.evidence import Word
from tripshark.model.target import Interface
from tripshark.respond import seal
from tripshark.respond.spool import SNAPLEN, RingNote


def note(flow_cut: int) -> RingNote:
    return RingNote(
        ring=f"r{flow_cut}",
        interface=Interface(name="eth0", ifindex=2, hardware_type=1),
        snaplen=SNAPLEN,
        opened_ns=0,
        flow_cut=flow_cut,
    )


def test_each_reason_has_its_entry() -> None:
    """A flow's tail, a recorder that keeps headers of everything, a rule that asks for less: each counted once."""
    lengths, sources = [1500, 1500, 100, 1500, 400], [0, 0, 0, 1, 0]
    packets = make_packets(
        [bytes(size) for size in (128, 1500, 100, 200, 400)], length=lengths, source=sources
    )
    rings = [note(16_000), note(0)]
    said = {each.kind: each for each in seal._cut(packets, rings, SNAPLEN)}
    assert {kind: each.count for kind, each in said.items()} == {"flow_cut": 1, "cut": 1}
    assert said["flow_cut"].word is Word.TRUNCATED
    assert "16000 bytes" in said["flow_cut"].message
    said = {each.kind: each for each in seal._cut(packets, rings, 300)}
    assert {kind: each.count for kind, each in said.items()} == {
        "flow_cut": 1,
        "cut": 1,
        "snaplen": 2,
    }
    assert [each.kind for each in seal._cut(packets, rings, 128)] == ["snaplen"]
    assert seal._cut(packets.take(slice(1, 3)), rings, SNAPLEN) == []
    assert seal._cut(packets.take(slice(0, 0)), [], SNAPLEN) == []
