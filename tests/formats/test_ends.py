"""Which addresses packets go from and to."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.formats.making import make_packets
from tripshark.formats import bpf, pcap
from tripshark.formats.ends import ends

CAPTURES = Path(__file__).parents[1] / "captures"
V4 = (
    bytes.fromhex("4500001c000040004011") + bytes(2) + bytes([10, 0, 0, 7, 10, 0, 0, 8]) + bytes(8)
)
V6 = (
    bytes.fromhex("6000000000003b40")
    + bytes.fromhex("20010db8000000000000000000000007")
    + bytes.fromhex("20010db8000000000000000000000008")
)
ARP = bytes.fromhex("00010800060400010202020202020a0000070000000000000a000009")
MACS = bytes(12)


def ether(kind: int, payload: bytes, tags: bytes = b"") -> bytes:
    return MACS + tags + kind.to_bytes(2, "big") + payload


TAG, OUTER = bytes.fromhex("81000005"), bytes.fromhex("88a80005")


@pytest.mark.parametrize(
    ("frame", "linktype", "both"),
    [
        (ether(0x0800, V4), 1, ("10.0.0.7", "10.0.0.8")),
        (ether(0x0800, V4, TAG), 1, ("10.0.0.7", "10.0.0.8")),
        (ether(0x86DD, V6, OUTER + TAG), 1, ("2001:db8::7", "2001:db8::8")),
        (ether(0x0806, ARP), 1, ("10.0.0.7", "10.0.0.9")),
        (V4, 101, ("10.0.0.7", "10.0.0.8")),
        (V6, 101, ("2001:db8::7", "2001:db8::8")),
        (ether(0x0800, V4, TAG + TAG + TAG), 1, ()),
        (ether(0x88CC, V4), 1, ()),
        (b"\x00" + V4, 101, ()),
        (ether(0x0800, V4), 113, ()),
    ],
)
def test_both_ends_are_read_where_they_stand(
    frame: bytes, linktype: int, both: tuple[str, ...]
) -> None:
    """With VLAN tags and without; what is no IP, no ARP, or on a link that we do not read has none."""
    found = ends(make_packets([b"", frame, frame[:13]]), [linktype])
    assert set(found.addresses()) == set(both)
    for address in both:
        assert found.of(address).tolist() == [1]
    assert found.of("192.0.2.1").tolist() == []
    assert found.of("2001:db8::99").tolist() == []


def test_nothing_has_no_ends() -> None:
    """No packets, no addresses."""
    assert ends(make_packets([]), []).addresses() == ()


@given(st.lists(st.binary(max_size=80), max_size=8), st.sampled_from([1, 101]))
def test_no_bytes_are_read_beyond_a_packet(datas: list[bytes], linktype: int) -> None:
    """Whatever the packets hold: the answer is that of each packet alone."""
    together = ends(make_packets(datas), [linktype])
    alone = [ends(make_packets([data]), [linktype]).addresses() for data in datas]
    assert set(together.addresses()) == {each for some in alone for each in some}
    for row, some in enumerate(alone):
        assert all(row in together.of(each) for each in some)


@pytest.mark.parametrize(
    "name", ["http-301-get.pcap", "tls13.pcap", "ipv6-in-ipv4.pcap", "vxlan.pcap", "dns-mx.pcap"]
)
def test_real_packets_have_the_ends_that_libpcap_sees(name: str) -> None:
    """Every address that occurs, on exactly the packets that `host ADDRESS` matches."""
    packets, linktype = pcap.read((CAPTURES / name).read_bytes())
    found = ends(packets, [linktype])
    assert found.addresses()
    for address in found.addresses():
        mask = bpf.run(bpf.compile(f"host {address}", linktype), packets)
        assert found.of(address).tolist() == np.flatnonzero(mask).tolist()
