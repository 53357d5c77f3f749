"""Fuzz target: pcapng files, and what is written of what was read."""

from __future__ import annotations

import io

from tests.formats.making import make_packets
from tripshark.errors import BadInput
from tripshark.formats import pcapng


def target(data: bytes) -> None:
    """A file whose packets lie within the bytes, or `BadInput`; a cut-off place is where a second look stops too."""
    try:
        file = pcapng.read(data)
    except BadInput:
        return
    packets = file.packets
    assert (packets.start + packets.caplen <= len(data)).all()
    assert all(0 <= at < len(packets) for at in file.comments)
    assert len(bytes(pcapng.packets(packets, comments=file.comments))) >= 32 * len(packets)
    if file.truncated_at is not None:
        again = pcapng.read(data[: file.truncated_at])
        assert again.truncated_at is None
        assert len(again.packets) == len(packets)


def seeds() -> list[bytes]:
    out = io.BytesIO()
    pcapng.write(
        out,
        section=pcapng.Section(comments=["c"], hardware="h", os="o", application="a"),
        interfaces=[pcapng.Interface(name="eth0", filter="tcp", mac="02:00:00:00:00:01", addresses=["::1/8"])],
        names={"10.0.0.1": "a/b"},
        packets=make_packets([b"abc", b"", bytes(60)], time_ns=[1, 2, 3], direction=[1, 2, 0]),
        rows=[(2, {"MESSAGE": "x\ny", "PRIORITY": "2"})],
        statistics=[pcapng.Statistics(interface=0, start_ns=1, end_ns=2, received=3, dropped=4)],
        comments={1: ["said"]},
        ids=True,
    )  # fmt: skip
    return [out.getvalue()]
