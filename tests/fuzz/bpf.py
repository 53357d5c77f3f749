"""Fuzz target: filter programs and expressions. What we accept runs exactly as in libpcap."""

from __future__ import annotations

from tests.formats.making import make_packets
from tripshark.errors import BadInput
from tripshark.formats import bpf


def target(data: bytes) -> None:
    """`BadInput`, or the same answer as libpcap's for packets cut from the input itself."""
    if len(data) < 2:
        return
    how, many, data = data[0], data[1] % 16, data[2:]
    try:
        if how & 1:
            program = bpf.compile(data[:200].decode("latin-1"), 1)
        else:
            program = bpf.Program(instructions=data[: 8 * many])
    except BadInput:
        return
    pieces = [data[i : i + 1 + i * how % 97] for i in range(0, len(data), 23)][:40]
    packets = make_packets([*pieces, b""], length=[len(each) + how for each in [*pieces, b""]])
    got = bpf.run(program, packets).tolist()
    expected = [
        bpf.oracle(program, packets.bytes_of(i), int(packets.length[i])) != 0
        for i in range(len(packets))
    ]
    assert got == expected


def seeds() -> list[bytes]:
    expressions = [
        b"tcp port 80",
        b"not (udp and host 10.0.0.1)",
        b"ip6 net 2001:db8::/32 or vlan 5",
    ]
    programs = [bpf.compile(each.decode(), 101).instructions for each in expressions[:2]]
    return [
        *(b"\1\0" + each for each in expressions),
        *(bytes([2, len(each) // 8]) + each + bytes(200) for each in programs),
    ]
