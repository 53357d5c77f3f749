"""The findings as cards: small tables in which every value leads to the packets that show it.

Pure: findings in, cards out. What a value leads to is a display filter; the template makes the address of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from tripshark.model.alert import Json
from tripshark.model.finding import Conversation, Findings
from tripshark.web import words
from tripshark.web.pages import filters


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One value: what is shown, which packets show it, and how."""

    text: str
    filter: str = ""
    frame: int = 0
    is_number: bool = False
    is_code: bool = False
    note: str = ""  # said softly behind it


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One row. `first_ns` is 0 where it has no time of its own."""

    cells: tuple[Cell, ...]
    first_ns: int = 0
    last_ns: int = 0
    marked: bool = False  # the alert's own


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """One table. A column whose name begins with `#` holds numbers."""

    id: str
    title: str
    columns: tuple[str, ...]
    lines: tuple[Line, ...]
    wide: bool = False
    more: int = 0  # rows that are not shown
    total: int = field(default=0)


MOST: Final = 60  # rows of one card; all are in findings.json
Row = Mapping[str, Json]


def cards(found: Findings) -> list[Card]:
    """Those that have rows, the most telling first."""
    known = names(found)
    made = [
        _card("talkers", "Who talked to whom", _TALKERS, _talkers(found, known), wide=True),
        _card("credentials", "Credentials in clear text", _CREDENTIALS, _rows(found.credentials, _credential, known)),
        _card("files", "Files", _FILES, _rows(found.files, _file, known), wide=True),
        _card("dns", "DNS", _DNS, _rows(found.dns, _dns, known), wide=True),
        _card("tls", "TLS", _TLS, _rows(found.tls, _tls, known), wide=True),
        _card("http", "HTTP", _HTTP, _rows(found.http, _http, known), wide=True),
        _card("ssh", "SSH", _SSH, _rows(found.ssh, _ssh, known)),
        _card("icmp", "ICMP", _ICMP, _rows(found.icmp, _icmp, known)),
        _card("endpoints", "Endpoints", _ENDPOINTS, _rows(found.endpoints, _endpoint, known)),
        _card("experts", "What tshark remarks", _EXPERTS, _rows(found.experts, _expert, known)),
    ]  # fmt: skip
    return [each for each in made if each.lines]


def names(found: Findings) -> dict[str, str]:
    """What an address is called: as an endpoint (pods), else as the capture itself proves by DNS."""
    called = dict(found.names)
    for row in found.endpoints:
        if name := _text(row, "name"):
            called[_text(row, "address")] = name
    return called


def _card(
    id: str, title: str, columns: tuple[str, ...], lines: Iterable[Line], *, wide: bool = False
) -> Card:
    all_of_them = tuple(lines)
    return Card(
        id=id,
        title=title,
        columns=columns,
        lines=all_of_them[:MOST],
        wide=wide,
        more=max(0, len(all_of_them) - MOST),
        total=len(all_of_them),
    )


Known = Mapping[str, str]
Maker = Callable[[Row, Known], tuple[Cell, ...]]


def _rows(rows: Sequence[Row], maker: Maker, known: Known) -> Iterable[Line]:
    for row in rows:
        first = _number(row, "first_ns") or _number(row, "asked_ns")
        yield Line(cells=maker(row, known), first_ns=first)


# ------------------------------------------------------------------------------------------- the tables

_TALKERS: Final = ("From", "To", "Protocol", "#Out", "#In", "#Packets", "#Lasted")
_DNS: Final = ("Name", "Answers", "Asked by", "#Asked", "Result")
_TLS: Final = ("Server name", "Server", "Client", "Version", "JA3", "JA4", "#Times")
_HTTP: Final = ("Host", "Request", "Server", "User agent", "#Status", "#Times")
_SSH: Final = ("Banner", "Address")
_ICMP: Final = ("Type", "Between", "#Packets", "#Bytes")
_CREDENTIALS: Final = ("Protocol", "User", "Secret", "Sent by", "To")
_FILES: Final = ("Name", "Type", "SHA-256", "#Size", "From", "To")
_ENDPOINTS: Final = ("Address", "#Out", "#In", "#Packets")
_EXPERTS: Final = ("Severity", "What", "#Frames")


def _talkers(found: Findings, known: Known) -> Iterable[Line]:
    """The alert's own flow first, then by bytes."""
    ordered = sorted(found.conversations, key=lambda each: (not each.named, -each.bytes))
    for each in ordered:
        yield Line(
            cells=(
                _end(each.a, 0, known),
                _end(each.b, each.b_port, known, each.proto),
                Cell(text=each.app or each.proto.upper(), filter=each.filter, note=_remarks(each)),
                _amount(each.bytes_ab, each.filter),
                _amount(each.bytes_ba, each.filter),
                _count(each.packets, each.filter, each.frame),
                Cell(
                    text=words.span((each.last_ns - each.first_ns) / 1e9),
                    is_number=True,
                ),
            ),
            first_ns=each.first_ns,
            last_ns=each.last_ns,
            marked=each.named,
        )


def _remarks(it: Conversation) -> str:
    said = [
        "named by the alert" if it.named else "",
        f"in {it.tunnel}" if it.tunnel else "",
        words.count(it.retransmissions, "retransmission") if it.retransmissions else "",
        words.count(it.resets, "reset") if it.resets else "",
    ]
    return ", ".join(each for each in said if each)


def _dns(row: Row, known: Known) -> tuple[Cell, ...]:
    answers = row.get("answers")
    told = [str(each) for each in answers] if isinstance(answers, list) else []
    shown = ", ".join(told[:4]) + (f" and {len(told) - 4} more" if len(told) > 4 else "")
    rcode = _text(row, "rcode")
    result = "no answer" if not _number(row, "answered") else rcode or "answered"
    return (
        _own(row, _text(row, "name"), note=_text(row, "type")),
        Cell(text=shown, filter=filters.address(told[0]) if len(told) == 1 else _filter(row)),
        _end(_text(row, "client"), 0, known),
        _count(_number(row, "asked"), _filter(row)),
        Cell(
            text=result,
            filter=filters.every(_filter(row), "dns.flags.rcode != 0")
            if rcode not in ("", "NOERROR")
            else "",
        ),
    )


def _tls(row: Row, known: Known) -> tuple[Cell, ...]:
    proto, port = _text(row, "proto"), _number(row, "port")
    ja3, ja4 = _text(row, "ja3"), _text(row, "ja4")
    alpn = row.get("alpn")
    spoken = ", ".join(str(each) for each in alpn) if isinstance(alpn, list) else ""
    return (
        _own(row, _text(row, "name") or "(none)", note=spoken),
        _end(_text(row, "server"), port, known, proto),
        _end(_text(row, "client"), 0, known),
        Cell(
            text=_text(row, "version") or ("QUIC" if proto == "udp" else ""),
            note=_text(row, "cipher"),
        ),
        Cell(text=ja3, filter=filters.text("tls.handshake.ja3", ja3), is_code=True),
        Cell(text=ja4, filter=_filter(row) if ja4 else "", is_code=True),
        _count(_number(row, "count"), _filter(row)),
    )


def _http(row: Row, known: Known) -> tuple[Cell, ...]:
    agent, uri = _text(row, "user_agent"), _text(row, "uri")
    status = _number(row, "status")
    return (
        _own(row, _text(row, "host") or _text(row, "server")),
        Cell(
            text=f"{_text(row, 'method')} {uri}",
            filter=_filter(row),
            frame=_number(row, "frame"),
            is_code=True,
        ),
        _end(_text(row, "server"), _number(row, "port"), known, "tcp"),
        Cell(text=agent, filter=filters.text("http.user_agent", agent)),
        Cell(
            text=str(status or ""),
            filter=f"http.response.code == {status}" if 99 < status < 1000 else "",
            is_number=True,
        ),
        _count(_number(row, "count"), _filter(row)),
    )


def _ssh(row: Row, known: Known) -> tuple[Cell, ...]:
    return (
        _own(row, _text(row, "banner"), is_code=True),
        _end(_text(row, "address"), 0, known),
    )


def _icmp(row: Row, known: Known) -> tuple[Cell, ...]:
    kind = f"type {_number(row, 'type')}, code {_number(row, 'code')}"
    both = f"{_called(_text(row, 'client'), known)} → {_called(_text(row, 'server'), known)}"
    return (
        _own(row, kind),
        Cell(text=both, filter=_filter(row)),
        _count(_number(row, "count"), _filter(row)),
        _amount(_number(row, "bytes"), _filter(row)),
    )


def _credential(row: Row, known: Known) -> tuple[Cell, ...]:
    return (
        _own(row, _text(row, "proto").upper()),
        Cell(text=_text(row, "user"), filter=_filter(row), is_code=True),
        Cell(text=_text(row, "secret"), filter=_filter(row)),
        _end(_text(row, "client"), 0, known),
        _end(_text(row, "server"), _number(row, "port"), known, "tcp"),
    )


def _file(row: Row, known: Known) -> tuple[Cell, ...]:
    sha256 = _text(row, "sha256")
    partly = "" if row.get("complete") else "incomplete"
    return (
        _own(row, _text(row, "name") or "(no name)", note=_text(row, "source"), is_code=True),
        Cell(text=_text(row, "type"), filter=_filter(row)),
        Cell(text=sha256, filter=_filter(row), is_code=True),
        Cell(
            text=words.size(_number(row, "bytes")),
            filter=_filter(row),
            is_number=True,
            note=partly,
        ),
        _end(_text(row, "server"), 0, known),
        _end(_text(row, "client"), 0, known),
    )


def _endpoint(row: Row, known: Known) -> tuple[Cell, ...]:
    packets = _number(row, "packets_out") + _number(row, "packets_in")
    return (
        _end(_text(row, "address"), 0, known, note="ours" if row.get("ours") else ""),
        _amount(_number(row, "bytes_out"), _filter(row)),
        _amount(_number(row, "bytes_in"), _filter(row)),
        _count(packets, _filter(row), _number(row, "frame")),
    )


def _expert(row: Row, known: Known) -> tuple[Cell, ...]:
    return (
        Cell(text=_text(row, "severity"), note=_text(row, "group")),
        _own(row, _text(row, "summary"), note=_text(row, "proto")),
        _count(_number(row, "count"), _filter(row)),
    )


# -------------------------------------------------------------------------------------------- the cells


def _own(row: Row, text: str, *, note: str = "", is_code: bool = False) -> Cell:
    """What the row is about: leads to the row's own packets."""
    return Cell(
        text=text, filter=_filter(row), frame=_number(row, "frame"), note=note, is_code=is_code
    )


def _end(address: str, port: int, known: Known, proto: str = "", *, note: str = "") -> Cell:
    """One end of something: by its name, where it has one, with address and port behind it."""
    name = known.get(address, "")
    behind = f":{port}" if port else ""
    where = f"[{address}]{behind}" if ":" in address and port else f"{address}{behind}"
    return Cell(
        text=name + behind if name else where,
        filter=filters.every(filters.address(address), filters.port(proto, port)),
        note=", ".join(each for each in (where if name else "", note) if each),
    )


def _called(address: str, known: Known) -> str:
    return known.get(address, address)


def _amount(count: int, filter: str) -> Cell:
    return Cell(text=words.size(count), filter=filter, is_number=True)


def _count(number: int, filter: str, frame: int = 0) -> Cell:
    return Cell(text=words.number(number), filter=filter, frame=frame, is_number=True)


def _filter(row: Row) -> str:
    return _text(row, "filter")


def _text(row: Row, name: str) -> str:
    value = row.get(name)
    return "" if value is None else str(value)


def _number(row: Row, name: str) -> int:
    value = row.get(name)
    return value if type(value) is int else 0
