"""What is handed on says what it was made of, and holds neither secrets nor addresses that it should not; tshark is asked."""

from __future__ import annotations

import io
import struct
import subprocess
from dataclasses import replace
from functools import cache
from ipaddress import ip_address
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tripshark.errors import BadInput
from tripshark.formats import pcapng
from tripshark.formats.packets import Packets
from tripshark.formats.pcapng import Interface, Section
from tripshark.formats.sharing.derived import Payloads, Shared, Wish, shared
from tripshark.formats.sharing.layers import layers

CAPTURES = Path(__file__).parents[2] / "captures"
DEMO = (CAPTURES / "incident-demo.pcapng").read_bytes()
KEY = bytes(range(32))


@cache
def capture(name: str) -> bytes:
    """A capture of the collection, as pcapng."""
    return subprocess.run(
        ["editcap", "-F", "pcapng", CAPTURES / name, "-"], capture_output=True, check=True
    ).stdout


def derive(data: bytes, payloads: str = "cut", *, key: bytes | None = None) -> Shared:
    wish = Wish(payloads=Payloads(payloads), pseudonyms=key)
    return shared(data, wish, origin="evidence.pcapng", sha256="ab" * 32)


def tshark(data: bytes, *arguments: str) -> str:
    return subprocess.run(
        ["tshark", "-n", "-r", "-", *arguments], input=data, capture_output=True, check=True
    ).stdout.decode()


def made(frames: list[bytes], linktype: int = 1) -> bytes:
    """A file of these frames, a millisecond apart."""
    data = b"".join(frames)
    sizes = np.array([len(each) for each in frames], np.uint32)
    base = Packets.empty()
    count = len(frames)
    zeros = {name: np.zeros(count, getattr(base, name).dtype) for name in Packets.__slots__}
    packets = Packets(
        **{
            **zeros, "data": np.frombuffer(data, np.uint8), "caplen": sizes, "length": sizes,
            "start": np.cumsum(sizes, dtype=np.int64) - sizes,
            "time_ns": np.arange(count, dtype=np.int64) * 1_000_000 + 1,
        }
    )  # fmt: skip
    out = io.BytesIO()
    pcapng.write(
        out, section=Section(), interfaces=[Interface(name="a", linktype=linktype)], packets=packets
    )  # fmt: skip
    return out.getvalue()


def tcp(sequence: int, payload: bytes, *, back: bool = False) -> bytes:
    """One Ethernet frame of a conversation with port 80."""
    ports = struct.pack(">HH", *((80, 4000) if back else (4000, 80)))
    segment = ports + struct.pack(">IIBBHHH", sequence % 2**32, 0, 0x50, 0x18, 100, 0, 0) + payload
    ends = (b"\x0a\0\0\2\x0a\0\0\1", b"\x0a\0\0\1\x0a\0\0\2")[not back]
    head = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(segment), 1, 0, 64, 6, 0)
    return b"\2\0\0\0\0\1\2\0\0\0\0\2\x08\0" + head + ends + segment


def payloads_of(data: bytes) -> list[bytes]:
    file = pcapng.read(data)
    return [file.packets.bytes_of(each)[54:] for each in range(len(file.packets))]


def test_it_names_what_it_was_made_of() -> None:
    """The original's hash, what was done and how often stand at the head; secrets of TLS never come along."""
    it = derive(DEMO)
    comments = pcapng.read(it.content).section.comments
    assert comments[0] == "Derived from evidence.pcapng, SHA-256 " + "ab" * 32
    assert comments[1:] == ("Payloads were cut", f"{it.packets} packets, {it.cut} cut, 0 blanked")
    assert it.cut > 0
    assert derive(DEMO, "full").cut == 0
    assert pcapng.read(derive(DEMO, "full").content).rows == pcapng.read(DEMO).rows


def test_cut_payloads_leave_headers_and_lengths() -> None:
    """Sizes, flags and times stay; no byte of what was said does, in no layer, nor of the alert's command line."""
    data = capture("http-basicauth.pcap")
    it = derive(data)
    fields = [
        "-T",
        "fields",
        "-e",
        "frame.len",
        "-e",
        "ip.src",
        "-e",
        "tcp.flags",
        "-e",
        "tcp.len",
    ]
    assert tshark(it.content, *fields) == tshark(data, *fields)
    assert b"Authorization" in data
    assert b"Authorization" not in it.content
    cmdline = b"nc 203.0.113.66"
    assert cmdline in DEMO
    assert cmdline not in derive(DEMO).content
    assert derive(DEMO).content.count(b"FALCO_RULE") == DEMO.count(b"FALCO_RULE")


def test_credentials_are_blanked_and_the_rest_stays() -> None:
    """HTTP's basic authentication goes; requests, hosts and lengths stay as they were."""
    data = capture("http-basicauth.pcap")
    it = derive(data, "blanked")
    assert it.blanked == 1
    rest = ["-T", "fields", "-e", "http.host", "-e", "http.request.uri", "-e", "tcp.len"]
    assert tshark(it.content, *rest) == tshark(data, *rest)
    assert b"Authorization: xxxx" in it.content
    for secret in (b"dXNlcnJycnI6cGFzc3dvcmRkZGRk", b"cpsession"):
        assert secret in data
        assert secret not in it.content
    assert "userrrrr" in tshark(data, "-q", "-z", "credentials")
    assert "userrrrr" not in tshark(it.content, "-q", "-z", "credentials")


def test_a_secret_is_found_wherever_tcp_cut_it() -> None:
    """Out of order, sent twice, over the end of the sequence numbers; lines before and after stay."""
    start = 2**32 - 20
    said = b"GET / HTTP/1.1\r\nCookie: sid=0123456789; b=2\r\nHost: a\r\n\r\n"
    cuts = [0, 10, 19, 28, 40, len(said)]
    frames = [
        tcp(start + low, said[low:high]) for low, high in pairwise(cuts)
    ]  # fmt: skip
    frames = [frames[0], frames[3], frames[2], frames[1], frames[4], frames[3]]
    it = derive(made(frames), "blanked")
    one, four, three, two, five, again = payloads_of(it.content)
    assert one + two + three + four + five == said.replace(b"sid=0123456789; b=2", b"x" * 19)
    assert again == four


def test_what_comes_after_a_gap_is_a_secret_to_the_end_of_its_line() -> None:
    """Nobody knows what the gap began."""
    frames = [tcp(1, b"GET / HTTP/1.1\r\nCoo"), tcp(100, b"ret=1\r\nHost: a\r\n\r\n")]
    assert payloads_of(derive(made(frames), "blanked").content) == [
        b"GET / HTTP/1.1\r\nCoo", b"xxxxxx\nHost: a\r\n\r\n",
    ]  # fmt: skip
    endless = [tcp(1, b"GET / HTTP/1.1\r\nCoo"), tcp(100, b"r" * 100)]
    assert payloads_of(derive(made(endless), "blanked").content)[1] == b"x" * 100


def test_a_packet_that_contradicts_an_earlier_one_is_blanked_whole() -> None:
    """One of the two versions might hide a secret from us and show it to another reader."""
    frames = [tcp(1, b"GET / HTTP/1.1\r\nA: b\r\n"), tcp(1, b"GET / HTTP/1.1\r\nC: d\r\n")]
    assert payloads_of(derive(made(frames), "blanked").content)[1] == b"x" * 22


def test_what_is_not_understood_is_cut() -> None:
    """A protocol that nobody looked through, and one that began before the capture; answers speak for their questions."""
    cut = derive(made([tcp(1, b"\0\1binary password=geheim")]), "blanked")
    assert payloads_of(cut.content) == [b""]
    answered = [tcp(1, b"rest of it"), tcp(1, b"HTTP/1.1 200 OK\r\n\r\n", back=True)]
    assert payloads_of(derive(made(answered), "blanked").content) == [
        b"rest of it", b"HTTP/1.1 200 OK\r\n\r\n",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("said", "left"),
    [
        (b"POST /?token=abc&x=1 HTTP/1.1\r\n\r\nuser=a&password=b", b"POST /?token=xxx&x=1 HTTP/1.1\r\n\r\nuser=a&password=x"),
        (b'PUT / HTTP/1.1\r\n\r\n{"password": "a\\"b", "c": 1}', b'PUT / HTTP/1.1\r\n\r\n{"password": "xxxx", "c": 1}'),
        (b"GET http://u:p@h/ HTTP/1.1\r\n\r\n", b"GET http://xxx@h/ HTTP/1.1\r\n\r\n"),
        (b"GET / HTTP/1.1\r\nX-Api-Key: a\r\n b\r\n\r\n", b"GET / HTTP/1.1\r\nX-Api-Key: xxxxx\r\n\r\n"),
        (b"USER bob\r\nPASS pw\r\nLIST\r\n", b"USER xxx\r\nPASS xx\r\nLIST\r\n"),
        (b"EHLO a\r\nAUTH LOGIN\r\nYQ==\r\nYg==\r\nQUIT\r\n", b"EHLO a\r\nAUTH LOGINxxxxxxxxxxxx\r\nQUIT\r\n"),
        (b"* OK\r\na1 LOGIN u p\r\n", b"* OK\r\na1 LOGIN xxx\r\n"),
        (b"*2\r\n$4\r\nAUTH\r\n$2\r\npw\r\n", b"*2\r\n$4\r\nAUTH\r\nxxxxxxxx"),
    ],
)  # fmt: skip
def test_each_kind_of_secret(said: bytes, left: bytes) -> None:
    """Headers, forms, JSON, addresses, mail, files, Redis: the value goes, in its own length."""
    assert payloads_of(derive(made([tcp(1, said)]), "blanked").content) == [left]


def test_dns_stays_and_other_datagrams_go() -> None:
    """Names are what an analyst looks for; what else UDP carries is not understood."""
    dns = capture("dns-mx.pcap")
    names = ["-T", "fields", "-e", "dns.qry.name"]
    assert tshark(derive(dns, "blanked").content, *names) == tshark(dns, *names)
    assert derive(capture("quicietf.pcap"), "blanked").cut > 0


@pytest.mark.parametrize(
    "name", ["http-basicauth.pcap", "dns-tcp.pcap", "ipv6-in-ipv4.pcap", "tls13.pcap", "vxlan.pcap", "gre-erspan.pcap"]
)  # fmt: skip
def test_pseudonyms_leave_no_address_and_sound_checksums(name: str) -> None:
    """No original address, inner or outer, stands in any layer; checksums that were right are right."""
    data = capture(name)
    it = derive(data, key=KEY)
    asked = ("ip.addr", "ipv6.addr", "eth.addr", "arp.src.proto_ipv4")
    fields = [part for each in asked for part in ("-e", each)]
    seen = {
        each for line in tshark(data, "-T", "fields", *fields).split() for each in line.split(",")
    }
    for address in seen:
        if address.count(":") == 5:
            packed = bytes.fromhex(address.replace(":", ""))
            stays = packed[0] & 1 or not any(packed)
        else:
            packed = ip_address(address).packed
            stays = ip_address(address).is_multicast or ip_address(address).is_loopback
        assert stays or packed not in it.content, address
    on = [
        "-o",
        "ip.check_checksum:TRUE",
        "-o",
        "tcp.check_checksum:TRUE",
        "-o",
        "udp.check_checksum:TRUE",
    ]
    outermost = [*on, "-T", "fields", "-E", "occurrence=f", "-e", "ip.checksum.status"]
    before, after = tshark(data, *outermost), tshark(it.content, *outermost)
    assert after == before
    assert it.addresses > 1


def test_pseudonyms_keep_conversations() -> None:
    """As many flows, packets and bytes each way as before; names, interfaces and command lines are gone."""
    it = derive(DEMO, key=KEY)
    assert b"checkout" not in it.content
    file = pcapng.read(it.content)
    assert (file.names, file.interfaces[0].addresses, file.comments) == ({}, (), {})
    sizes = ["-T", "fields", "-e", "frame.len", "-e", "tcp.stream", "-e", "udp.stream"]
    sizes += ["-Y", "!systemd_journal"]
    assert tshark(it.content, *sizes) == tshark(DEMO, *sizes)
    assert derive(DEMO, key=KEY).content == it.content
    assert derive(DEMO, key=KEY[::-1]).content != it.content


def test_checksums_of_whole_segments_stay_right() -> None:
    """TCP without payload, with Multipath TCP's options taken out; a UDP checksum that is none stays none."""
    data = capture("http-basicauth.pcap")
    it = derive(data, key=KEY)
    status = [
        "-o",
        "tcp.check_checksum:TRUE",
        "-Y",
        "tcp.len == 0",
        "-T",
        "fields",
        "-e",
        "tcp.checksum.status",
    ]
    assert tshark(it.content, *status) == tshark(data, *status)
    multipath = (
        tcp(1, b"")[:46] + b"\x80" + tcp(1, b"")[47:] + b"\x1e\x0a\x30\1\x0a\0\0\x63\1\1\1\0"
    )
    frame = payloads_of(derive(made([multipath]), key=KEY).content)[0]
    assert frame == b"\1" * 11 + b"\0"
    torn = multipath[:65] + b"\x1e"
    assert payloads_of(derive(made([torn]), key=KEY).content)[0][-1:] == b"\1"
    udp = tcp(1, b"")[:23] + b"\x11" + tcp(1, b"")[24:34] + struct.pack(">HHHH", 5, 6, 8, 0)
    assert pcapng.read(derive(made([udp]), key=KEY).content).packets.bytes_of(0)[40:42] == b"\0\0"


def test_addresses_hide_in_other_places_too() -> None:
    """ARP, an ICMP redirect's gateway, a source route, IPv6 options."""
    gateway = b"\xcb\0\x71\x63"
    head = tcp(1, b"")[:14]
    arp = head[:12] + b"\x08\6" + b"\0\1\x08\0\6\4\0\1" + head[6:12] + gateway + bytes(6) + gateway
    four = (
        struct.pack(">BBHHHBBH", 0x46, 0, 32, 1, 0, 64, 1, 0) + b"\x0a\0\0\1\x0a\0\0\2" + gateway
    )
    redirect = head + four + b"\5\1\0\0" + gateway
    short = redirect[:-2]
    six = (
        struct.pack(">IHBB", 0x6000_0000, 24, 60, 64)
        + b"\x20\1"
        + bytes(14)
        + b"\x20\2"
        + bytes(14)
    )
    option = head[:12] + b"\x86\xdd" + six + b"\x11\1" + gateway + bytes(10) + bytes(8)
    for frame in (arp, redirect, option):
        assert gateway in frame
        assert gateway not in derive(made([frame]), key=KEY).content
    assert derive(made([short]), key=KEY).packets == 1
    assert derive(made([option])).cut == 0


@pytest.mark.parametrize("linktype", [1, 101, 113, 276, 147])
@given(frame=st.binary(max_size=90))
def test_no_frame_breaks_it(linktype: int, frame: bytes) -> None:
    """Whatever the bytes: offsets lie within the frame, and deriving ends."""
    at = layers(frame, linktype)
    assert 0 <= at.transport <= len(frame)
    assert 0 <= at.payload <= len(frame) or at.arp
    for payloads, key in (("cut", None), ("cut", KEY), ("blanked", None)):
        assert derive(made([frame], linktype), payloads, key=key).packets == 1


def test_headers_behind_other_links() -> None:
    """Linux cooked captures of both kinds, bare IP, VLAN tags: addresses and payload are found."""
    ip = tcp(1, b"payload")[14:]
    cooked = b"\0\0\0\1\0\6\2\0\0\0\0\1\0\0\x08\0" + ip
    second = b"\x08\0\0\0\0\0\0\1\0\1\0\6\2\0\0\0\0\1\0\0" + ip
    tagged = tcp(1, b"")[:12] + b"\x81\0\0\1\x08\0" + ip
    assert layers(cooked, 113) == replace(
        layers(ip, 101), macs=(6,), ip=16, transport=36, payload=56
    )
    assert layers(second, 276) == replace(
        layers(ip, 101), macs=(12,), ip=20, transport=40, payload=60
    )
    assert layers(tagged, 1).payload == 58
    assert layers(b"", 101).payload == 0
    loop = b"\0\0\3\4\0\0" + bytes(8) + b"\x08\0" + ip
    assert layers(loop, 113).macs == ()
    assert layers(second[:11] + b"\0" + second[12:], 276).macs == ()


def test_fragments_and_extension_headers() -> None:
    """A later fragment is payload from its first byte; a routing header is not looked behind; SCTP has 12 bytes."""
    ip = bytearray(tcp(1, b"payload")[14:])
    ip[6:8] = b"\0\5"
    assert (layers(ip, 101).first, layers(ip, 101).payload) == (False, 20)
    ip[6:8], ip[9] = b"\0\0", 132
    assert layers(ip, 101).payload == 32
    ip[9] = 99
    assert layers(ip, 101).payload == 20
    six = struct.pack(">IHBB", 0x6000_0000, 24, 44, 64) + bytes(32)
    fragment = six + b"\x11\0\0\x08\0\0\0\0" + bytes(16)
    assert (layers(fragment, 101).first, layers(fragment, 101).payload) == (False, 48)
    routed = six[:6] + b"\x2b" + six[7:] + b"\6\2" + bytes(22)
    assert (layers(routed, 101).proto, layers(routed, 101).payload) == (-1, 40)


def test_pseudonyms_need_cut_payloads() -> None:
    """Payloads name addresses too."""
    with pytest.raises(BadInput, match="name addresses"):
        Wish(payloads=Payloads.FULL, pseudonyms=KEY)


def test_frames_that_nobody_understands_are_cut_whole() -> None:
    """And the interface says so; a file without packets stays one."""
    it = derive(made([b"something"], 147))
    file = pcapng.read(it.content)
    assert file.packets.caplen.tolist() == [0]
    assert file.interfaces[0].comments == ("Frames of this kind are not understood",)
    assert derive(made([])).packets == 0


def test_padding_and_unknown_lengths() -> None:
    """What pads a short frame is no part of the stream; where the kernel has not cut a frame yet, IP says 0."""
    padded = tcp(1, b"GET / HTTP/1.1\r\n") + b"Cookie: a\r\n"
    assert payloads_of(derive(made([padded]), "blanked").content) == [padded[54:]]
    whole = bytearray(tcp(1, b"GET / HTTP/1.1\r\nCookie: a\r\n"))
    whole[16:18] = b"\0\0"
    assert payloads_of(derive(made([bytes(whole)]), "blanked").content)[0].endswith(
        b"Cookie: x\r\n"
    )
    inner = b"GET / HTTP/1.1\r\nCookie: a\r\n"
    six = (
        struct.pack(">IHBB", 0x6000_0000, 20 + len(inner), 6, 64)
        + bytes(15)
        + b"\1"
        + bytes(15)
        + b"\2"
    )
    frame = tcp(1, b"")[:12] + b"\x86\xdd" + six + tcp(1, inner)[34:]
    assert (
        pcapng.read(derive(made([frame]), "blanked").content)
        .packets.bytes_of(0)
        .endswith(b"x\r\n")
    )
