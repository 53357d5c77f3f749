"""Classic pcap: what is written is what comes back, here and in tcpdump."""

from __future__ import annotations

import struct
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.formats.making import make_packets
from tripshark.errors import BadInput
from tripshark.formats import pcap
from tripshark.formats.packets import Packets


@given(
    datas=st.lists(st.binary(max_size=70), max_size=12),
    time_ns=st.integers(0, 2**32 * 10**9 - 100),
    linktype=st.sampled_from([1, 101, 276]),
)
def test_everything_written_is_read_back(datas: list[bytes], time_ns: int, linktype: int) -> None:
    """Bytes, lengths and nanoseconds."""
    times = [time_ns + i for i in range(len(datas))]
    packets = make_packets(datas, time_ns=times, length=[len(data) + 3 for data in datas])
    back, link = pcap.read(pcap.write(packets, linktype, 100))
    assert link == linktype
    assert [back.bytes_of(i) for i in range(len(back))] == datas
    assert back.time_ns.tolist() == times
    assert back.length.tolist() == packets.length.tolist()


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(("magic", "unit"), [(0xA1B2C3D4, 1000), (0xA1B23C4D, 1)])
def test_either_unit_and_byte_order_is_read(order: str, magic: int, unit: int) -> None:
    """Microseconds and nanoseconds, as either kind of machine writes them."""
    raw = struct.pack(order + "IHHiIII", magic, 2, 4, 0, 0, 99, 0xF4000001)
    raw += struct.pack(order + "IIII", 7, 5, 3, 9) + b"abc"
    packets, linktype = pcap.read(memoryview(raw))
    assert (linktype, packets.time_ns.tolist()) == (1, [7_000_000_000 + 5 * unit])
    assert (packets.bytes_of(0), packets.length.tolist()) == (b"abc", [9])


@pytest.mark.parametrize("raw", [b"", bytes(24), b"\n\r\r\n" + bytes(30)])
def test_what_is_no_pcap_is_said_to_be_none(raw: bytes) -> None:
    """An empty file, zeros, and pcapng."""
    with pytest.raises(BadInput, match="not a pcap file"):
        pcap.read(raw)


@pytest.mark.parametrize("cut", [1, 3, 15, 18])
def test_a_file_cut_off_is_said_to_be(cut: int) -> None:
    """Within a head or within a packet."""
    with pytest.raises(BadInput, match="cut off"):
        pcap.read(pcap.write(make_packets([b"abc"]), 1, 99)[:-cut])


@pytest.mark.parametrize("time_ns", [-1, 2**32 * 10**9])
def test_a_time_that_does_not_fit_is_refused(time_ns: int) -> None:
    """Classic pcap counts seconds from 1970 to 2106."""
    with pytest.raises(BadInput, match="time"):
        pcap.write(make_packets([b"abc"], time_ns=[time_ns]), 1, 99)


def test_a_packet_longer_than_the_snaplen_is_refused() -> None:
    """libpcap would stop there."""
    with pytest.raises(BadInput, match="snaplen"):
        pcap.write(make_packets([b"abc"]), 1, 2)


def test_tcpdump_reads_it(tmp_path: Path) -> None:
    """As many packets, with their nanoseconds; also none at all."""
    path = tmp_path / "x.pcap"
    for packets, said in (
        (make_packets([bytes(12) + b"\x08\x06" + bytes(28)] * 3, time_ns=[123_456_789] * 3), 3),
        (Packets.empty(), 0),
    ):
        path.write_bytes(pcap.write(packets, 1, 262_144))
        command = ["tcpdump", "-n", "-tt", "--nano", "-r", str(path)]
        out = subprocess.run(
            command, capture_output=True, text=True, timeout=30, check=True
        ).stdout
        assert out.count("0.123456789") == said
