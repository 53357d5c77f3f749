"""What is written as pcapng is what comes back, and what other tools make of it."""

from __future__ import annotations

import io
import struct
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.formats.making import make_packets
from tripshark.errors import BadInput
from tripshark.formats import blocks, pcap, pcapng
from tripshark.formats.packets import IN, OUT, Packets, concat
from tripshark.model.text import INVISIBLE

T0 = 1_700_000_000_123_456_789
CAPTURES = Path(__file__).parent.parent / "captures"
ETHERNET = pcapng.Interface(name="eth0")


def _file(packets: Packets, **more: object) -> bytes:
    out = io.BytesIO()
    arguments = {"section": pcapng.Section(), "interfaces": [ETHERNET], "packets": packets} | more
    pcapng.write(out, **arguments)  # type: ignore[arg-type]
    return out.getvalue()


def _same(a: Packets, b: Packets) -> None:
    assert [a.bytes_of(i) for i in range(len(a))] == [b.bytes_of(i) for i in range(len(b))]
    for column in ("caplen", "length", "time_ns", "direction", "source", "seq", "pos"):
        assert getattr(a, column).tolist() == getattr(b, column).tolist(), column


@st.composite
def some_packets(draw: st.DrawFn) -> Packets:
    datas = draw(st.lists(st.binary(max_size=70), max_size=12))
    each = st.lists(st.integers(0, 2), min_size=len(datas), max_size=len(datas))
    columns = {
        "time_ns": sorted(
            draw(st.lists(st.integers(0, 2**62), min_size=len(datas), max_size=len(datas)))
        ),
        "direction": draw(each),
        "source": draw(each),
        "seq": draw(st.lists(st.integers(0, 2**44 - 1), min_size=len(datas), max_size=len(datas))),
        "pos": draw(st.lists(st.integers(0, 2**20 - 1), min_size=len(datas), max_size=len(datas))),
        "length": [len(data) + 5 for data in datas],
    }
    return make_packets(datas, **columns)


WORDS = st.text(
    st.characters(exclude_categories=sorted(INVISIBLE)), max_size=20
)  # what can be seen
FILLED = WORDS.filter(bool)
FIELDS = st.dictionaries(
    st.from_regex(r"[A-Z][A-Z0-9_]{0,10}", fullmatch=True),
    st.one_of(st.text(st.characters(codec="utf-8"), max_size=20), st.binary(max_size=20)),
    max_size=4,
)


@given(
    packets=some_packets(),
    comments=st.dictionaries(st.integers(0, 14), st.lists(FILLED, max_size=3), max_size=3),
    rows=st.lists(st.tuples(st.integers(0, 2**62), FIELDS), max_size=3),
    words=st.tuples(*[WORDS] * 4),
    notes=st.lists(FILLED, max_size=3),
)
def test_everything_written_is_read_back(
    packets: Packets,
    comments: Mapping[int, Sequence[str]],
    rows: list[tuple[int, dict[str, str | bytes]]],
    words: tuple[str, str, str, str],
    notes: list[str],
) -> None:
    """Packets with their places, comments, alert rows with any text in any field, and what stands around them."""
    rows.sort(key=lambda row: row[0])
    section = pcapng.Section(
        comments=tuple(notes), hardware=words[0], os=words[1], application=words[2]
    )
    interface = pcapng.Interface(
        name=words[3],
        description=words[0],
        filter=words[1],
        mac="02:00:00:00:00:01",
        addresses=("10.0.0.7/24", "2001:db8::7/64"),
        comments=tuple(notes),
        os=words[2],
        speed=10**9,
    )
    interfaces = (interface, replace(interface, mac="", addresses=(), speed=0), ETHERNET)
    statistics = [
        pcapng.Statistics(interface=0, start_ns=T0, end_ns=T0 + 1, received=5, dropped=0),
        pcapng.Statistics(interface=2, start_ns=0, end_ns=2**62, comments=tuple(notes)),
    ]
    raw = _file(
        packets,
        section=section,
        interfaces=interfaces,
        names={"10.0.0.7": "a/b", "::1": "loop"},
        rows=rows,
        statistics=statistics,
        comments=comments,
        ids=True,
    )
    file = pcapng.read(raw)
    _same(file.packets, packets)
    assert file.section == section
    assert file.interfaces == interfaces
    assert file.names == {"10.0.0.7": "a/b", "::1": "loop"}
    assert file.comments == {
        at: tuple(said) for at, said in comments.items() if said and at < len(packets)
    }
    assert [time for time, _ in file.rows] == [time // 1000 * 1000 for time, _ in rows]
    for (_, got), (_, put) in zip(file.rows, rows, strict=True):
        assert {name: _raw(value) for name, value in got.items()} == {
            name: _raw(value) for name, value in put.items()
        }
    assert list(file.statistics) == statistics
    assert (file.truncated_at, file.skipped) == (None, {})


def _raw(value: str | bytes) -> bytes:
    return value.encode() if isinstance(value, str) else value


@given(packets=some_packets(), cut=st.integers(28, 2000), rows=st.booleans())
def test_of_a_file_cut_off_everything_before_is_there(
    packets: Packets, cut: int, rows: bool
) -> None:
    """A spool whose last write was torn loses nothing but that write, and says where it was torn."""
    raw = _file(packets, interfaces=[ETHERNET] * 3, rows=[(0, {"MESSAGE": "x"})] * rows)
    file = pcapng.read(raw[:cut])
    _same(file.packets, pcapng.read(raw).packets.take(slice(0, len(file.packets))))
    if cut < len(raw):
        at = len(raw) if file.truncated_at is None else file.truncated_at
        assert file.truncated_at is None or at <= cut
        again = pcapng.read(raw[:at] if file.truncated_at is not None else raw[:cut])
        assert again.truncated_at is None
        assert len(again.packets) == len(file.packets)


@given(
    packets=some_packets(),
    changes=st.lists(
        st.tuples(st.integers(0, 900), st.binary(min_size=1, max_size=4)), max_size=5
    ),
)
def test_any_bytes_are_a_file_or_one_error(
    packets: Packets, changes: list[tuple[int, bytes]]
) -> None:
    """Reading raises nothing but `BadInput`, and no packet leaves the buffer."""
    raw = bytearray(
        _file(
            packets,
            interfaces=[replace(ETHERNET, mac="02:00:00:00:00:01", addresses=("10.0.0.1/8",))] * 3,
            names={"10.0.0.1": "x"},
            rows=[(0, {"MESSAGE": "x\ny"})],
            statistics=[pcapng.Statistics(interface=0, start_ns=0, end_ns=1, received=1)],
            comments={0: ["x"]},
            ids=True,
        )
    )
    for at, value in changes:
        raw[at : at + len(value)] = value
    try:
        file = pcapng.read(raw)
    except BadInput:
        return
    assert (file.packets.start + file.packets.caplen <= len(raw)).all()
    if len(file.packets):
        assert file.packets.source.max() < len(file.interfaces)


def test_names_of_interfaces_may_stand_behind_packets_and_sections_may_follow_each_other() -> None:
    """Spools declare a ring when it is first seen; files can be joined by `cat`."""
    first = make_packets([b"a" * 20], time_ns=[T0], direction=[IN])
    second = make_packets([b"b" * 20], time_ns=[T0 + 1], source=[1])
    spool = b"".join(
        [
            pcapng.Section(application="one").block(),
            ETHERNET.block(),
            bytes(pcapng.packets(first, ids=True)),
            replace(ETHERNET, name="tun0", linktype=101).block(),
            bytes(pcapng.packets(second, np.array([1]), {0: ["second"]}, ids=True)),
        ]
    )
    file = pcapng.read(spool + spool)
    _same(
        file.packets, concat([first, second, first.with_source([2]), second.with_source([0, 3])])
    )
    assert [each.name for each in file.interfaces] == ["eth0", "tun0"] * 2
    assert file.comments == {1: ("second",), 3: ("second",)}
    assert file.section.application == "one"
    assert file.packets.data.base is not None


def test_the_rows_stand_where_they_belong() -> None:
    """In time order, behind the packets of their very nanosecond; first and last are possible."""
    packets = make_packets([b"a", b"b", b"c"], time_ns=[T0, T0, T0 + 2000])
    rows = [(T0 - 1, {"N": "0"}), (T0, {"N": "1"}), (T0 + 9000, {"N": "2"})]
    raw = _file(packets, rows=rows)
    kinds, at = [], 0
    while at < len(raw):
        kind, length = struct.unpack_from("<II", raw, at)
        kinds.append(kind)
        at += length
    assert kinds == [blocks.SECTION, 1, 9, 6, 6, 9, 6, 9]


def test_much_is_written_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """However the packets are cut into chunks the file is the same."""
    packets = make_packets([bytes([i]) * (i * 7) for i in range(60)], time_ns=range(60))
    comments = {0: ["first"], 31: ["x", "y"], 59: ["last"]}
    whole = _file(packets, comments=comments)
    monkeypatch.setattr(pcapng, "_CHUNK_BYTES", 500)
    assert _file(packets, comments=comments) == whole
    monkeypatch.setattr(pcapng, "_CHUNK_PACKETS", 1)
    assert _file(packets, comments=comments) == whole


@pytest.mark.parametrize(
    "wrong",
    [
        {"interfaces": []},
        {"interfaces": [ETHERNET, replace(ETHERNET, linktype=101)]},
        {"interfaces": [ETHERNET, replace(ETHERNET, snaplen=256)]},
        {"interfaces": [replace(ETHERNET, snaplen=3)]},
        {"packets": make_packets([b"a"], source=[1])},
        {"packets": make_packets([b"a", b"b"], time_ns=[2, 1])},
        {"rows": [(2, {}), (1, {})]},
        {"rows": [(2, {"lower": "x"})]},
        {"rows": [(2, {"A=B\nC": "x"})]},
        {"rows": [(2, {"__REALTIME_TIMESTAMP": "1"})]},
        {"statistics": [pcapng.Statistics(interface=1, start_ns=0, end_ns=0)]},
        {"statistics": [pcapng.Statistics(interface=0, start_ns=0, end_ns=0)] * 2},
        {"names": {"evil": "x"}},
        {"names": {"10.0.0.1.2": "x"}},
        {"interfaces": [replace(ETHERNET, mac="00:11")]},
        {"interfaces": [replace(ETHERNET, mac="zz:zz:zz:zz:zz:zz")]},
        {"interfaces": [replace(ETHERNET, addresses=("10.0.0.0.1",))]},
        {"packets": make_packets([b"a"], pos=[1 << 20]), "ids": True},
        {"packets": make_packets([b"a"], seq=[1 << 44]), "ids": True},
    ],
)
def test_what_could_not_be_read_is_not_written(wrong: dict[str, object]) -> None:
    """libpcap stops at a second link type or snaplen; nothing is written out of order or under a wrong name."""
    with pytest.raises(BadInput):
        _file(**{"packets": make_packets([b"abcd"]), **wrong})  # type: ignore[arg-type]


@given(name=st.text(st.characters(), max_size=100))
def test_a_name_fits_and_shows(name: str) -> None:
    """At most 63 bytes, nothing invisible, whole characters, head and tail of what it was."""
    short = blocks.short_name(name)
    assert len(short.encode()) <= 63
    assert short == blocks.short_name(short)
    assert not any(letter in short for letter in "\0\n\x1b\u202e\u2028\u200b\ud800")
    if "…" not in name and "…" in short:
        head, tail = short.split("…")
        visible = "".join(c for c in name if blocks.short_name(c))
        assert visible.startswith(head)
        assert visible.endswith(tail)


def test_of_a_long_name_the_ends_stay() -> None:
    """The namespace and the pod's hash are told, and no character is split."""
    name = "payments/" + "ü" * 60 + "-7d9f6c5b4-x2x9q"
    short = blocks.short_name(name)
    assert short.startswith("payments/ü")
    assert short.endswith("-7d9f6c5b4-x2x9q")
    assert 60 <= len(short.encode()) <= 63


def test_one_name_per_address_and_none_for_nothing() -> None:
    """The same address written twice has one record, a name of nothing visible none."""
    raw = pcapng.names(
        {"::1": "one", "0:0:0:0:0:0:0:1": "two", "10.0.0.1": "\0\n", "10.0.0.2": "ünïcode"}
    )
    file = pcapng.read(pcapng.Section().block() + raw)
    assert file.names == {"::1": "one", "10.0.0.2": "ünïcode"}
    assert pcapng.names({"10.0.0.1": "\x7f"}) == b""


def test_what_cannot_be_seen_is_spelled_out() -> None:
    """No control, line break or change of direction in an option: capinfos would print it as it is."""
    hostile = "\x1b[2J\nforged\u202e\u2028\x9b"
    shown = "\\x1b[2J\\x0aforged\\u202e\\u2028\\x9b"
    raw = pcapng.Section(comments=[hostile]).block()
    raw += pcapng.Interface(name=hostile, description=hostile).block()
    file = pcapng.read(raw)
    assert file.section.comments == (shown,)
    assert (file.interfaces[0].name, file.interfaces[0].description) == (shown, shown)


def test_long_text_is_cut_between_characters() -> None:
    """An option holds 65,535 bytes and no half character; a NUL and half a character do not get in."""
    raw = pcapng.Section(comments=["ü" * 40_000, "a\0b", "\ud800"]).block()
    assert pcapng.read(raw).section.comments == ("ü" * 32_767, "ab", "\\ud800")
    row = pcapng.alert_row(T0, {"MESSAGE": "ü" * 600_000})
    assert pcapng.read(pcapng.Section().block() + row).rows[0][1] == {"MESSAGE": "ü" * 524_288}


def test_a_value_cannot_add_fields() -> None:
    """A line break, a control character or broken UTF-8 in a value stays in the value."""
    fields = {
        "A": "x\nMESSAGE=forged",
        "B": b"\xff\xfe",
        "C": "\x1b[31m",
        "D": "",
        "E": "plain = fine",
        "F": "x\n__REALTIME_TIMESTAMP=1",
    }
    raw = pcapng.alert_row(T0, fields)
    assert raw[8:].startswith(b"__REALTIME_TIMESTAMP=1700000000123456\n")
    assert pcapng.read(pcapng.Section().block() + raw).rows == ((T0 // 1000 * 1000, fields),)


# --- files of others -------------------------------------------------------------------------------------------------


def _opt(order: str, code: int, value: bytes) -> bytes:
    return struct.pack(order + "HH", code, len(value)) + value + bytes(-len(value) % 4)


def _blk(order: str, kind: int, body: bytes) -> bytes:
    body += bytes(-len(body) % 4)
    length = struct.pack(order + "I", len(body) + 12)
    return struct.pack(order + "I", kind) + length + body + length


def _shb(order: str = "<") -> bytes:
    return _blk(order, blocks.SECTION, struct.pack(order + "IHHq", blocks.BYTE_ORDER, 1, 0, -1))


def _idb(order: str, *options: bytes, linktype: int = 1) -> bytes:
    return _blk(order, 1, struct.pack(order + "HHI", linktype, 0, 0) + b"".join(options))


def _epb(order: str, ticks: int, data: bytes, *options: bytes, interface: int = 0) -> bytes:
    head = struct.pack(
        order + "IIIII", interface, ticks >> 32, ticks & 0xFFFFFFFF, len(data), len(data)
    )
    return _blk(order, 6, head + data + bytes(-len(data) % 4) + b"".join(options))


@pytest.mark.parametrize("order", ["<", ">"])
def test_either_byte_order_is_read(order: str) -> None:
    """Everything we read, as a machine of the other kind writes it."""
    raw = b"".join(
        [
            _shb(order),
            _idb(
                order,
                _opt(order, 2, b"en0"),
                _opt(order, 4, bytes([10, 0, 0, 7, 255, 255, 0, 0])),
                _opt(order, 5, bytes(15) + b"\x01\x80"),
                _opt(order, 8, struct.pack(order + "Q", 7)),
                _opt(order, 11, b"\x01bpf"),
                _opt(order, 11, b"\x00tcp"),
                _opt(order, 14, struct.pack(order + "q", 100)),
                _opt(order, 0, b""),
                _opt(order, 2, b"after the end"),
            ),
            _blk(order, 4, _opt(order, 1, b"\x0a\0\0\1one\0two\0") + _opt(order, 9, b"x") + bytes(4)),
            _epb(
                order,
                5_000_001,
                b"abcde",
                _opt(order, 2, struct.pack(order + "I", 0xFF00 | OUT)),
                _opt(order, 5, struct.pack(order + "Q", 3 << 20 | 9)),
                _opt(order, 1, b"said"),
                _opt(order, 2988, b"custom"),
            ),
            _epb(order, 6_000_000, b"", _opt(order, 2, struct.pack(order + "I", 3))),
            _blk(order, 5, struct.pack(order + "III", 0, 0, 9) + _opt(order, 4, struct.pack(order + "Q", 8)) + _opt(order, 9, b"")),
            _blk(order, 0x80000001, b"local"),
        ]
    )  # fmt: skip
    file = pcapng.read(raw)
    assert file.truncated_at is None
    assert file.packets.time_ns.tolist() == [105_000_001_000, 106_000_000_000]
    assert file.packets.direction.tolist() == [OUT, 0]
    assert (file.packets.seq[0], file.packets.pos[0]) == (3, 9)
    assert file.comments == {0: ("said",)}
    assert file.names == {"10.0.0.1": "one"}
    (interface,) = file.interfaces
    assert (interface.name, interface.speed, interface.filter) == ("en0", 7, "tcp")
    assert interface.addresses == ("10.0.0.7/16", "::1/128")
    assert file.statistics[0].received == 8
    assert file.statistics[0].end_ns == 100_000_009_000
    assert file.skipped == {0x80000001: 1}


@pytest.mark.parametrize(
    ("resolution", "ticks", "expected"),
    [
        (0, 5, 5_000_000_000),
        (3, 5, 5_000_000),
        (6, 5, 5_000),
        (9, 5, 5),
        (12, 5_999, 5),
        (28, 2**64 - 1, 1),
        (29, 2**64 - 1, 0),
        (0x80, 5, 5_000_000_000),
        (0x80 | 1, 5, 2_500_000_000),
        (0x80 | 32, 3 << 31, 1_500_000_000),
        (0x80 | 40, 3 << 39, 1_500_000_000),
        (0x80 | 63, 3 << 62, 1_500_000_000),
        (0x80 | 64, 1 << 63, 500_000_000),
        (0x80 | 100, 2**64 - 1, 0),
    ],
)
def test_times_of_any_resolution(resolution: int, ticks: int, expected: int) -> None:
    """Powers of ten and of two become nanoseconds, rounded down."""
    raw = _shb() + _idb("<", _opt("<", 9, bytes([resolution]))) + _epb("<", ticks, b"x")
    assert pcapng.read(raw).packets.time_ns.tolist() == [expected]


@pytest.mark.parametrize(
    "bad",
    [
        b"\6\0\0\0",
        _epb("<", 0, b"x", interface=1),
        _epb("<", 1 << 63, b"x"),
        _epb("<", 0, b"x", b"\1\0\xff\0"),
        _epb("<", 0, b"x", *[_opt("<", 99, b"")] * 1001),
        _epb("<", 0, b"x")[:-4] + b"\0\0\0\0",
        _blk("<", 6, bytes(16)),
        _blk("<", 6, struct.pack("<IIIII", 0, 0, 0, 9999, 9999) + b"x"),
        _blk("<", 1, b"\1\0\0\0"),
        _idb("<", _opt("<", 14, struct.pack("<q", 1 << 62))),
        _idb("<", b"\2\0\xff\0"),
        _blk("<", 5, bytes(8)),
        _blk("<", 5, struct.pack("<III", 7, 0, 0)),
        _blk("<", 9, b"NAME\n\xff\0\0\0\0\0\0\0x\n"),
        _blk("<", 9, b"NAME\n\x05"),
        _blk("<", 9, b"NAME"),
        _blk("<", 99, b"x")[:-4] + b"\0\0\0\0",
        struct.pack("<III", 99, 8, 8),
        struct.pack("<III", 99, 14, 14),
        struct.pack("<III", 99, 1 << 30, 0),
        _shb()[:20],
        _shb()[:8] + b"\0\0\0\0" + _shb()[12:],
    ],
)
def test_from_garbage_on_nothing_is_believed(bad: bytes) -> None:
    """What stands before the first bad block is given, what comes behind it is not, and its place is told."""
    good = _shb() + _idb("<") + _epb("<", 1, b"good")
    file = pcapng.read(good + bad + _epb("<", 2, b"more") + pcapng.alert_row(0, {}))
    assert file.truncated_at == len(good)
    assert [file.packets.bytes_of(i) for i in range(len(file.packets))] == [b"good"]
    assert file.rows == ()


def test_a_section_without_interfaces_has_no_packets() -> None:
    """A packet of an interface never described is garbage."""
    file = pcapng.read(_shb() + _epb("<", 1, b"x"))
    assert (len(file.packets), file.truncated_at) == (0, 28)


def test_an_interface_is_described_before_its_packets() -> None:
    """So that what stands before a cut means the same whatever stood behind it."""
    file = pcapng.read(_shb() + _idb("<") + _epb("<", 1, b"x", interface=1) + _idb("<"))
    assert (len(file.packets), file.truncated_at) == (0, 48)


def test_more_interfaces_than_can_be_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of nothing but interfaces is read up to a bound."""
    monkeypatch.setattr("tripshark.formats.pcapng_read._MOST_INTERFACES", 3)
    file = pcapng.read(_shb() + _idb("<") * 5)
    assert (len(file.interfaces), file.truncated_at) == (3, 28 + 3 * 20)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"x",
        bytes(40),
        b"\n\r\r\n" + bytes(24),
        _shb()[:20],
        _shb()[:-4] + bytes(4),
        b"\xd4\xc3\xb2\xa1" + bytes(20),
    ],
)
def test_what_is_no_pcapng_is_said_to_be_none(raw: bytes) -> None:
    """An empty file, zeros, half a head and classic pcap."""
    with pytest.raises(BadInput, match="not a pcapng file"):
        pcapng.read(raw)


@pytest.mark.parametrize("kind", [2, 3])
def test_packets_without_time_are_refused_clearly(kind: int) -> None:
    """Old and simple packet blocks are not passed over in silence."""
    with pytest.raises(BadInput, match="a kind that is not read"):
        pcapng.read(_shb() + _idb("<") + _blk("<", kind, bytes(20)))


def test_strange_details_are_passed_over() -> None:
    """Addresses that make no sense, options of a wrong length and journal entries without a time."""
    raw = b"".join(
        [
            _shb(),
            _idb(
                "<",
                _opt("<", 4, bytes([10, 0, 0, 7, 255, 0, 255, 0])),
                _opt("<", 5, bytes(3)),
                _opt("<", 5, bytes(16) + b"\xff"),
                _opt("<", 8, b"x"),
                _opt("<", 9, b""),
                _opt("<", 14, b""),
            ),
            _blk("<", 4, _opt("<", 2, bytes(15)) + _opt("<", 1, b"\x0a\0\0\1x") + _opt("<", 1, b"\x0a\0\0\1y")),
            _blk("<", 5, struct.pack("<III", 0, 0, 0) + _opt("<", 2, b"x") + _opt("<", 4, b"x")),
            _blk("<", 9, b"MESSAGE=no time\n"),
            _blk("<", 9, b"__REALTIME_TIMESTAMP=12x\n"),
            _blk("<", 9, b"__REALTIME_TIMESTAMP\n\2\0\0\0\0\0\0\0\xff\xff\n"),
        ]
    )  # fmt: skip
    file = pcapng.read(raw)
    assert file.truncated_at is None
    assert file.interfaces[0] == pcapng.Interface(name="", snaplen=0)
    assert file.names == {"10.0.0.1": "x"}
    assert (file.rows, file.skipped) == ((), {9: 3})


# --- what other tools say --------------------------------------------------------------------------------------------


def _tool(*command: str) -> str:
    answer = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert answer.returncode == 0, answer.stderr
    return answer.stdout


@pytest.fixture
def evidence(tmp_path: Path) -> str:
    """A file with everything in it: two interfaces, names, comments, a row with a line break, counters."""
    packets, _ = pcap.read((CAPTURES / "dns-mx.pcap").read_bytes())
    count = len(packets)
    packets = replace(
        packets.sorted_by_time(),
        direction=np.array([1 + i % 2 for i in range(count)], np.uint8),
        source=np.array([i % 2 for i in range(count)], np.uint16),
    )
    t0 = int(packets.time_ns[0])
    path = tmp_path / "evidence.pcapng"
    path.write_bytes(
        _file(
            packets,
            section=pcapng.Section(comments=["incident 42"], application="Tripshark"),
            interfaces=[
                pcapng.Interface(name="a/b:eth0", description="pod a/b", filter="udp", os="Linux"),
                pcapng.Interface(name="a/b:net1", description="pod a/b"),
            ],
            names={_source(packets): "payments/checkout-7d9f"},
            rows=[
                (
                    t0 + 1,
                    {
                        "MESSAGE": "FALCO Critical: shell\nMESSAGE=forged",
                        "PRIORITY": "2",
                        "SYSLOG_IDENTIFIER": "falco",
                    },
                )
            ],
            statistics=[
                pcapng.Statistics(interface=i, start_ns=t0, end_ns=t0 + 9, received=5, dropped=7)
                for i in (0, 1)
            ],
            comments={0: ["first packet of the flow", "twice"]},
            ids=True,
        )
    )
    return str(path)


def _source(packets: Packets) -> str:
    return ".".join(map(str, packets.bytes_of(0)[26:30]))


def test_tshark_shows_what_we_wrote(evidence: str) -> None:
    """Rows, interface names, directions, comments, ids, names; no row says what was put into another's value."""
    fields = (
        *("frame.number", "frame.interface_name", "frame.packet_flags_direction"),
        *("frame.comment", "frame.packet_id", "systemd_journal.message", "ip.src_host"),
    )
    options = [part for field in fields for part in ("-e", field)]
    out = _tool("tshark", "-n", "-N", "n", "-r", evidence, "-T", "fields", *options)
    lines = [line.split("\t") for line in out.splitlines()]
    packets = pcapng.read(Path(evidence).read_bytes()).packets
    assert len(lines) == len(packets) + 1
    assert lines[0][1:4] == ["a/b:eth0", "0x00000001", "first packet of the flow,twice"]
    assert lines[0][6] == "payments/checkout-7d9f"
    rows = [line for line in lines if line[5]]
    assert len(rows) == 1
    assert rows[0][5].startswith("FALCO Critical: shell")
    assert lines[2][1:3] == ["a/b:net1", "0x00000002"]
    counted = _tool("tshark", "-n", "-r", evidence, "-Y", 'systemd_journal.message == "forged"')
    assert counted == ""


def test_capinfos_counts_what_we_wrote(evidence: str) -> None:
    """Packets, interfaces, comment, resolution, names, and one statistics block per interface."""
    out = _tool("capinfos", evidence)
    packets = pcapng.read(Path(evidence).read_bytes()).packets
    assert f"Number of packets:   {len(packets)}" in out
    assert "Capture comment:     incident 42" in out
    assert "Number of interfaces in file: 2" in out
    assert out.count("Number of stat entries = 1") == 2
    assert out.count("Time precision = nanoseconds (9)") == 2
    assert "Filter string = udp" in out
    assert "Number of resolved IPv4 addresses in file: 1" in out


def test_tcpdump_reads_all_packets(evidence: str) -> None:
    """libpcap passes over names, rows and counters, and reads every packet of both interfaces."""
    packets = pcapng.read(Path(evidence).read_bytes()).packets
    assert len(_tool("tcpdump", "-n", "-r", evidence).splitlines()) == len(packets)


@pytest.mark.parametrize("path", sorted(CAPTURES.glob("*.pcap")), ids=lambda path: path.name)
def test_what_tshark_writes_is_read(path: Path, tmp_path: Path) -> None:
    """Real captures, rewritten by tshark as pcapng, hold the same packets."""
    packets, linktype = pcap.read(path.read_bytes())
    written = tmp_path / "written.pcapng"
    _tool("tshark", "-n", "-r", str(path), "-F", "pcapng", "-w", str(written))
    file = pcapng.read(written.read_bytes())
    _same(file.packets, packets)
    assert {each.linktype for each in file.interfaces} == {linktype}
    assert file.truncated_at is None


def test_comments_on_all_packets_cost_no_more_than_one() -> None:
    """Few different ones on many packets are written together; those on packets that are not there are passed over."""
    many = make_packets([bytes([n % 251]) * (60 + n % 7) for n in range(5000)])
    said = {n: ["even" if n % 2 else "odd ones too"] for n in range(0, 6000, 3)} | {-1: ["no"]}
    raw = pcapng.Section().block() + pcapng.Interface(name="a", linktype=1).block()
    file = pcapng.read(raw + bytes(pcapng.packets(many, comments=said)))
    assert file.comments == {n: tuple(text) for n, text in said.items() if 0 <= n < 5000}
    assert [file.packets.bytes_of(n) for n in (0, 1, 4999)] == [
        many.bytes_of(n) for n in (0, 1, 4999)
    ]
    assert bytes(pcapng.packets(Packets.empty(), comments={0: ["x"]})) == b""
