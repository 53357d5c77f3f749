"""Filters mean what libpcap says they mean, for every packet, and ask nobody."""

from __future__ import annotations

import random
import re
import struct
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from tests.formats.making import make_packets
from tripshark.errors import BadInput, Permanent
from tripshark.formats import bpf, cbpf, libpcap, pcap, pcapfilter
from tripshark.formats.packets import Packets

CAPTURES = Path(__file__).parent.parent / "captures"


def _compiled(expression: str, linktype: int = 1) -> bpf.Program:
    """The program, unless the expression contradicts itself, which libpcap calls an error."""
    try:
        return bpf.compile(expression, linktype)
    except BadInput as problem:
        assume("rejects all packets" not in problem.message)
        raise


def _agrees(program: bpf.Program, packets: Packets) -> None:
    expected = [
        bpf.oracle(program, packets.bytes_of(i), int(packets.length[i])) != 0
        for i in range(len(packets))
    ]
    assert bpf.run(program, packets).tolist() == expected


# --- programs nobody wrote -------------------------------------------------------------------------------------------

CODES = sorted(code for code in range(256) if code in cbpf._KNOWN)
VALUES = st.one_of(
    st.integers(0, 80),
    st.sampled_from([0x7FFFFFFF, 0x80000000, 0xFFFFF000, 0xFFFFF030, 0xFFFFFFFF, 0xFFFFFFFC]),
    st.integers(0, 0xFFFFFFFF),
)


@st.composite
def programs(draw: st.DrawFn) -> bpf.Program:
    """A program that is safe, of any operations in any order."""
    count = draw(st.integers(1, 24))
    written: set[int] = set()
    code = b""
    for at in range(count):
        left = count - at
        op = draw(st.sampled_from(CODES))
        kind = op & 7
        k = draw(VALUES)
        if kind in (2, 3):  # stores: before any jump they are on every way
            k %= 16
            if all(struct.unpack_from("=H", code, i)[0] & 7 != 5 for i in range(0, len(code), 8)):
                written.add(k)
        elif op in (0x60, 0x61):  # memory loads: of what was stored, else a constant
            if written:
                k = sorted(written)[k % len(written)]
            else:
                op -= 0x60
        elif op == 0x05:
            k %= left
        elif kind == 4 and op & 0xF0 in (0x60, 0x70) and not op & 8:
            k %= 32
        elif op in (0x34, 0x94):
            k = k or 1
        jt, jf = draw(st.integers(0, left - 1)), draw(st.integers(0, left - 1))
        code += struct.pack("=HBBI", op, jt, jf, k)
    code += struct.pack("=HBBI", draw(st.sampled_from([0x06, 0x16])), 0, 0, draw(VALUES))
    return bpf.Program(instructions=code)


@given(
    program=programs(),
    datas=st.lists(st.binary(max_size=120), min_size=1, max_size=12),
    more=st.integers(0, 70_000),
)
def test_any_program_runs_as_in_libpcap(
    program: bpf.Program, datas: list[bytes], more: int
) -> None:
    """Short packets, loads out of range, wrap-around, division by zero, wide shifts: all as bpf_filter does it."""
    _agrees(program, make_packets(datas, length=[len(data) + more for data in datas]))


def _program(*instructions: tuple[int, int, int, int]) -> bpf.Program:
    return bpf.Program(instructions=b"".join(struct.pack("=HBBI", *each) for each in instructions))


@pytest.mark.parametrize("code", CODES)
def test_every_operation_alone_runs_as_in_libpcap(code: int) -> None:
    """Each operation once, on registers and packets of different sizes, and what it left in A and in X."""
    datas = [bytes(range(200, 200 + n)) for n in (0, 1, 2, 3, 4, 5, 8, 40)] + [bytes(40)]
    k = 1 if code in (0x05, 0x02, 0x03, 0x60, 0x61) else 2
    before = [(0x30, 0, 0, 0), (0x07, 0, 0, 0), (0x02, 0, 0, 1), (0x00, 0, 0, 0x80000003)]
    for x in ([], [(0x01, 0, 0, 3)]):
        for after in ([(0x16, 0, 0, 0)], [(0x87, 0, 0, 0), (0x16, 0, 0, 0)]):
            padding = [(0x04, 0, 0, 5)] * 2
            program = _program(*before, *x, (code, 1, 0, k), *padding, *after)
            _agrees(program, make_packets(datas, length=[len(data) + 3 for data in datas]))


@pytest.mark.parametrize("operation", [0x60, 0x70])
@pytest.mark.parametrize("by", [0, 31, 32, 33, 255, 0xFFFFFFFF])
def test_shifts_by_a_register_may_be_wide(operation: int, by: int) -> None:
    """A shift by 32 bits or more leaves nothing."""
    _agrees(
        _program((0x20, 0, 0, 0), (0x01, 0, 0, by), (0x0C | operation, 0, 0, 0), (0x16, 0, 0, 0)),
        make_packets([b"\xff\xff\xff\xff", b"\x80\0\0\1"]),
    )


def test_division_by_a_register_that_is_zero_rejects() -> None:
    """Only the packets that divide by zero are rejected."""
    packets = make_packets([b"\0\0\0\0", b"\1\0\0\0", b"\2"])
    for operation in (0x3C, 0x9C):
        load = (0xB1, 0, 0, 0), (0x00, 0, 0, 9), (operation, 0, 0, 0), (0x06, 0, 0, 1)
        _agrees(_program(*load), packets)
        assert bpf.run(_program(*load), packets).tolist() == [False, True, True]


def test_paths_that_meet_bring_their_registers() -> None:
    """What each way put into A, X and memory is still there where the ways meet."""
    program = _program(
        (0x30, 0, 0, 0),  # ldb [0]
        (0x02, 0, 0, 3),  # st M[3]
        (0x01, 0, 0, 7),  # ldx #7
        (0x25, 0, 2, 100),  # jgt #100
        (0x01, 0, 0, 9),  # ldx #9
        (0x05, 0, 0, 0),  # ja +0
        (0x60, 0, 0, 3),  # ld M[3]
        (0x0C, 0, 0, 0),  # add x
        (0x54, 0, 0, 1),  # and #1
        (0x16, 0, 0, 0),  # ret a
    )
    _agrees(program, make_packets([bytes([i]) for i in range(256)]))


def test_many_packets_run_in_chunks() -> None:
    """More than a chunk, at the end of a buffer and far into a packet."""
    random_ = random.Random(7)
    datas = [random_.randbytes(random_.choice([0, 1, 33, 63, 64, 65, 200])) for _ in range(20_000)]
    packets = make_packets(datas)
    program = _program((0x30, 0, 0, 90), (0x54, 0, 0, 3), (0x16, 0, 0, 0))
    wanted = [len(data) > 90 and data[90] & 3 != 0 for data in datas]
    assert bpf.run(program, packets).tolist() == wanted
    assert bpf.run(program, Packets.empty()).tolist() == []


@pytest.mark.parametrize(
    "instructions",
    [
        [],
        [(0x06, 0, 0, 1)] * 65_537,
        [(0x0E, 0, 0, 0)],  # ret x: libpcap aborts
        [(0xFFFF, 0, 0, 0), (0x06, 0, 0, 1)],
        [(0x30, 0, 0, 0)],
        [(0x05, 0, 0, 1), (0x06, 0, 0, 1)],
        [(0x05, 0, 0, 0xFFFFFFFF), (0x06, 0, 0, 1)],
        [(0x15, 1, 0, 0), (0x06, 0, 0, 1)],
        [(0x15, 0, 1, 0), (0x06, 0, 0, 1)],
        [(0x02, 0, 0, 16), (0x06, 0, 0, 1)],
        [(0x60, 0, 0, 16), (0x06, 0, 0, 1)],
        [(0x60, 0, 0, 1), (0x06, 0, 0, 1)],
        [(0x15, 1, 0, 0), (0x02, 0, 0, 1), (0x60, 0, 0, 1), (0x06, 0, 0, 1)],
        [(0x34, 0, 0, 0), (0x06, 0, 0, 1)],
        [(0x94, 0, 0, 0), (0x06, 0, 0, 1)],
        [(0x64, 0, 0, 32), (0x06, 0, 0, 1)],
    ],
)
def test_unsafe_programs_are_refused(instructions: list[tuple[int, int, int, int]]) -> None:
    """What does not end, reads what was never written or divides by zero is never run."""
    with pytest.raises(BadInput, match="filter program"):
        _program(*instructions)


def test_half_an_instruction_is_refused() -> None:
    """Bytes that are no whole number of instructions."""
    with pytest.raises(BadInput):
        bpf.Program(instructions=bytes(9))


# --- expressions -----------------------------------------------------------------------------------------------------

PEERS = ["10.0.0.7", "192.0.2.1", "2001:db8::7", "fe80::1"]
PRIMITIVES = st.one_of(
    st.builds("{}host {}".format, st.sampled_from(["", "src ", "dst "]), st.sampled_from(PEERS)),
    st.builds(
        "{}{}port {}".format,
        st.sampled_from(["", "tcp ", "udp "]),
        st.sampled_from(["", "src ", "dst "]),
        st.sampled_from([53, 80, 443, 65_535]),
    ),
    st.builds("portrange {}-{}".format, st.integers(0, 100), st.integers(100, 65_535)),
    st.sampled_from(
        [
            *("ip", "ip6", "tcp", "udp", "icmp", "icmp6", "arp", "ip proto 50", "ip proto \\tcp"),
            *("net 10.0.0.0/8", "net 10.0", "net 2001:db8::/32", "ip6 proto 17", "ether proto \\ip"),
            *("tcp[tcpflags] & (tcp-syn|tcp-fin) != 0", "ip[6:2] & 0x3fff != 0", "len > 90"),
            *("udp[4:2] >= 8", "ip[0] >> 2 % 3 = 1", "icmp[icmptype] = icmp-echo", "less 60"),
            *("ether host 02:00:00:00:00:01", "ether multicast", "greater 80", "ip multicast"),
            *("tcp[((tcp[12:1] & 0xf0) >> 2):4] = 0x47455420", "ether[0] & 1 = 0", "len * 7 % 5 ^ 3 = 1"),
            *("vlan 5", "vlan and ip", "ether[12:2] = 0x8100", "ah or esp", "(ip[2:2] - 20) / 3 > 9"),
        ]
    ),
)  # fmt: skip
EXPRESSIONS = st.recursive(
    PRIMITIVES,
    lambda inner: st.one_of(
        st.builds("not ({})".format, inner),
        st.builds("({}) and ({})".format, inner, inner),
        st.builds("({}) or ({})".format, inner, inner),
    ),
    max_leaves=5,
)


def _l4(random_: random.Random, proto: int) -> bytes:
    ports = struct.pack(">HH", *(random_.choice([53, 80, 443, 65_535, 40_000]) for _ in "ab"))
    if proto == 6:
        flags = random_.choice([2, 16, 17, 24])
        return ports + bytes(8) + bytes([0x50, flags]) + bytes(6) + random_.choice([b"GET /", b""])
    if proto == 17:
        return ports + struct.pack(">HH", random_.choice([8, 30]), 0) + bytes(4)
    return bytes([random_.choice([0, 3, 8, 128]), 0]) + bytes(6)


def _frame(random_: random.Random, tags: int | None = None) -> bytes:
    """An Ethernet frame as it could be met, with none, one or two tags, sometimes cut off."""
    proto = random_.choice([1, 6, 17, 50, 58])
    payload = _l4(random_, proto)
    kind = random_.choice(["ip", "ip", "ip6", "arp"])
    if kind == "ip":
        options = random_.choice([b"", b"", bytes(4)])
        fragment = random_.choice([0, 0, 0x4000, 0x2005, 7])
        ends = (bytes(map(int, random_.choice(PEERS[:2]).split("."))) for _ in "ab")
        packet = struct.pack(
            ">BBHHHBBH4s4s",
            *(0x45 + len(options) // 4, 0, 20 + len(options) + len(payload), 1, fragment, 64, proto, 0),
            *ends,
        ) + options + payload  # fmt: skip
        ethertype = b"\x08\x00"
    elif kind == "ip6":
        address = random_.choice(
            [b"\x20\x01\x0d\xb8" + bytes(11) + b"\7", b"\xfe\x80" + bytes(13) + b"\1"]
        )
        packet = struct.pack(">IHBB", 0x60000000, len(payload), proto, 64) + address * 2 + payload
        ethertype = b"\x86\xdd"
    else:
        packet, ethertype = bytes(28), b"\x08\x06"
    many = random_.choice([0, 0, 1, 2]) if tags is None else tags
    kinds = [b"\x81\x00\x00\x05", b"\x88\xa8\x00\x64", b"\x91\x00\x00\x01"]
    inside = b"".join(random_.choice(kinds) for _ in range(many))
    frame = b"\2\0\0\0\0\1" * 2 + inside + ethertype + packet
    return frame[: random_.choice([len(frame)] * 6 + [random_.randrange(len(frame))])]


@given(expression=EXPRESSIONS, seed=st.integers(0, 2**32))
@example(expression="", seed=1)
@example(expression="  ", seed=1)
def test_any_expression_runs_as_in_libpcap(expression: str, seed: int) -> None:
    """What our machine accepts is what libpcap's machine accepts, packet for packet."""
    random_ = random.Random(seed)
    frames = [_frame(random_) for _ in range(40)]
    packets = make_packets(frames, length=[len(frame) + seed % 50 for frame in frames])
    _agrees(_compiled(expression), packets)
    if "ether" not in expression and "vlan" not in expression and "multicast" not in expression:
        raw = make_packets([frame[14:] for frame in frames])
        _agrees(_compiled(expression, 101), raw)


ABOUT_TAGS_OR_LENGTH = re.compile(r"vlan|0x8100|len|less|greater")


@given(
    expression=EXPRESSIONS.filter(lambda said: not ABOUT_TAGS_OR_LENGTH.search(said)),
    seed=st.integers(0, 2**32),
)
def test_tags_make_no_difference(expression: str, seed: int) -> None:
    """A packet matches behind one or two VLAN tags exactly when it matches without them, `not` included."""
    random_ = random.Random(seed)
    frames = [_frame(random_, tags=0) for _ in range(30)]
    frames = [frame for frame in frames if len(frame) >= 14]
    plain = bpf.run(_compiled(expression), make_packets(frames, length=[99] * len(frames)))
    for tag in (
        b"\x81\x00\x00\x05",
        b"\x88\xa8\x00\x64\x81\x00\x00\x07",
        b"\x91\x00\x00\x05\x91\x00\x00\x09",
    ):
        tagged = [frame[:12] + tag + frame[12:] for frame in frames]
        packets = make_packets(tagged, length=[99] * len(frames))
        assert bpf.run(bpf.compile(expression, 1), packets).tolist() == plain.tolist()


@pytest.mark.parametrize("path", sorted(CAPTURES.glob("*.pcap")), ids=lambda path: path.name)
def test_real_captures_are_filtered_as_in_libpcap(path: Path) -> None:
    """Every packet of every capture at hand, with its own link type."""
    packets, linktype = pcap.read(path.read_bytes())
    for expression in (
        "tcp port 80 or udp port 53",
        "not tcp",
        "ip6",
        "ip[8] < 65",
        "icmp or len > 99",
    ):
        _agrees(bpf.compile(expression, linktype), packets)


@pytest.mark.parametrize(
    "expression",
    [
        *("host evil.example.com", "evil.example.com", "port http", "net corp", "host 1-2"),
        *("host \\evil", "ether host gw", "ip proto \\evil", "gateway 10.0.0.1", "len-14 > 3"),
        *("ip protochain 6", "inbound", "ifindex 1", "tcp port 80\0", "host 10.0.0.1; ls", "ünder"),
        *("portrange 5", "portrange a-b", "host 1.2.3.4.", "host fe80::1%eth0", "dst proto \\host"),
        *("tcp) or (udp", "(tcp", "and", "host 300.1.1.1", "ip host ::1", "net 10.0.0.1/8", "port 65536"),
        "tcp or " * 3000 + "tcp",
    ],
)  # fmt: skip
def test_what_is_no_filter_is_refused(expression: str) -> None:
    """Names that would be looked up, words and signs of no filter, and what libpcap refuses: one error with a hint."""
    with pytest.raises(BadInput) as caught:
        bpf.compile(expression, 1)
    assert caught.value.where
    assert caught.value.hint


LOOKED_UP = """
import sys
from tripshark.errors import BadInput
from tripshark.formats import libpcap
for word in sys.argv[1:]:
    try:
        libpcap.compile_filter(f"host {word}", 1, 262144)
    except BadInput as problem:
        if "syntax error" not in problem.message:
            print(word, problem.message)
"""


@pytest.mark.root
def test_no_word_that_we_let_through_is_looked_up() -> None:
    """libpcap knows every one of our words as a word of its language (asked where no name server can be reached)."""
    command = ["unshare", "--net", sys.executable, "-c", LOOKED_UP, *sorted(pcapfilter._WORDS)]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    if answer.returncode and "Operation not permitted" in answer.stderr:
        pytest.skip("needs root: a network namespace without a way out")
    assert (answer.returncode, answer.stdout) == (0, ""), answer.stderr


def test_an_expression_that_speaks_of_tags_is_taken_at_its_word() -> None:
    """`vlan 5` means the tag, so nothing is looked for behind further tags."""
    assert bpf.compile("vlan 5", 1).instructions == libpcap.compile_filter("vlan 5", 1, 262_144)
    assert bpf.compile("ether proto 0x88A8", 1).instructions == libpcap.compile_filter(
        "ether proto 0x88a8", 1, 262_144
    )


def test_bytes_asked_for_by_place_are_not_looked_for_behind_tags() -> None:
    """`ether[12:2] = 0x800` cannot be true of a tagged packet; the filter is none the worse for it."""
    program = bpf.compile("ether[12:2] = 0x0800", 1)
    untagged = bytes(12) + b"\x08\x00" + bytes(20)
    tagged = bytes(12) + b"\x81\x00\x00\x05\x08\x00" + bytes(20)
    assert bpf.run(program, make_packets([untagged, tagged])).tolist() == [True, False]


def test_a_long_expression_compiles_soon() -> None:
    """Beyond some length the compiler's optimiser is left out: it takes time with the cube of it."""
    peers = [f"10.0.{i >> 8}.{i & 255}" for i in range(300)]
    program = bpf.compile(" or ".join(f"host {peer}" for peer in peers), 1)
    random_ = random.Random(3)
    packets = make_packets([_frame(random_) for _ in range(50)])
    _agrees(program, packets)
    assert bpf.run(program, packets).any()
    with pytest.raises(BadInput, match="too long for the kernel"):
        program.accepting(256)


@pytest.mark.parametrize(
    "primitive", ["port {0}", "portrange {0}-{1}", "(port {0} or not tcp port {1})"]
)
def test_a_strangers_filter_holds_nobody_up(primitive: str) -> None:
    """The longest filter that a Capture may have compiles within a second, whatever it is made of: it took ten."""
    words = ""
    for number in range(1000):
        more = f"{words} or {primitive.format(number, number + 7)}".removeprefix(" or ")
        words = more if len(more) <= 2048 else words
    began = time.process_time()
    program = bpf.compile(words, 1)
    assert time.process_time() - began < 5  # on a slow machine under coverage
    random_ = random.Random(4)
    _agrees(program, make_packets([_frame(random_) for _ in range(20)]))


@given(expression=EXPRESSIONS, snaplen=st.integers(1, 262_144))
def test_a_socket_keeps_as_much_as_it_is_told(expression: str, snaplen: int) -> None:
    """For the kernel every accepting return is the snaplen, and nothing else changes."""
    program = _compiled(expression)
    kernel = bpf.Program(instructions=program.accepting(snaplen))
    random_ = random.Random(snaplen)
    for frame in (_frame(random_) for _ in range(10)):
        said = bpf.oracle(program, frame, len(frame))
        assert bpf.oracle(kernel, frame, len(frame)) == (snaplen if said else 0)


def test_the_smallest_programs() -> None:
    """One that keeps so many bytes of everything, one that keeps nothing."""
    everything = bpf.Program(instructions=bpf.ret(bpf.HEADERS))
    assert bpf.oracle(everything, b"", 0) == 256
    assert bpf.run(everything, make_packets([b""])).tolist() == [True]
    assert bpf.run(bpf.Program(instructions=bpf.ret(0)), make_packets([b""])).tolist() == [False]


def test_without_libpcap_the_error_says_what_to_install() -> None:
    """Not an OSError out of ctypes."""
    with pytest.raises(Permanent, match="libpcap is not installed"):
        libpcap.load(("libnothing.so.0",))
    assert libpcap.load(("libnothing.so.0", "libpcap.so.0.8")) is not None


def test_packets_far_apart_in_a_small_buffer() -> None:
    """Rows may be in any order, repeated, and nearer to the buffer's end than the bytes looked at beforehand."""
    packets = make_packets([b"\1abc", b"\2", b"\3defgh"]).take(np.array([2, 0, 0, 1]))
    _agrees(_program((0x30, 0, 0, 0), (0x15, 0, 1, 1), (0x06, 0, 0, 9), (0x06, 0, 0, 0)), packets)
