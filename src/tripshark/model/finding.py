"""What the analysis concluded: who talked to whom, and whether the flow the alert named is there.

Everything here has a JSON form (`as_json`, `from_json`), because question and findings travel between the
responder and the analyst. Findings come from a process that has dissected hostile packets: `from_json` believes
no type, makes all text printable and keeps to the bounds.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from ipaddress import ip_address
from typing import cast

from tripshark.errors import BadInput
from tripshark.model.alert import Address, Connection, Endpoint, Json, Proto
from tripshark.model.text import visible

MAX_ROWS = 500  # entries in any one list of the findings
_SPACES = re.compile(
    "[\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000]"
)  # every space but the ordinary one
MAX_TEXT = 400  # characters of any one text in a list
MAX_SUMMARY = 2_000
MAX_QUESTION_NAMES = 20_000
_MAX_DEPTH = 4
_MAX_NUMBER = (1 << 63) - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What the analyst is told about the alert; plain values, nothing it could use elsewhere."""

    t0_ns: int
    target: str  # "payments/checkout-7d9f"
    addresses: tuple[str, ...]  # the target's own
    connections: tuple[Connection, ...]  # named by the incident's alerts
    names: Mapping[str, str] = field(default_factory=dict)  # address → name, as in the file
    manifest_sha256: str = ""
    others: int = 0  # pods beside the target whose packets are in the same file

    def as_json(self) -> dict[str, Json]:
        """Plain JSON; `from_json` reads it back unchanged."""
        return {
            "t0_ns": self.t0_ns,
            "target": self.target,
            "addresses": list(self.addresses),
            "connections": [_connection_as_json(each) for each in self.connections],
            "names": dict(self.names),
            "manifest_sha256": self.manifest_sha256,
            "others": self.others,
        }

    @classmethod
    def from_json(cls, document: Json) -> Question:
        """Raises `BadInput`."""
        of = _Reader(document, "question")
        return cls(
            t0_ns=of.number("t0_ns"),
            target=of.text("target"),
            addresses=of.texts("addresses"),
            connections=tuple(_connection_from_json(each) for each in of.rows("connections")),
            names=of.pairs("names", MAX_QUESTION_NAMES),
            manifest_sha256=of.text("manifest_sha256"),
            others=of.number("others"),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversation:
    """Two endpoints and what went each way; `a` is the target's side where it is known.

    Addresses and ports are those of the *outermost* IP header, which is what the alert, the filter and the
    target's own addresses speak of; `tunnel` names what is carried inside.
    """

    proto: (
        str  # "tcp", "udp", "icmp", "gre", …; "udp fragment" where the ports are in another packet
    )
    a: str  # address
    a_port: int
    b: str
    b_port: int
    packets_ab: int
    packets_ba: int
    bytes_ab: int  # on the wire, link header included
    bytes_ba: int
    first_ns: int
    last_ns: int
    frame: int = 0  # its first packet, as Wireshark numbers them
    opened_by: str = ""  # address that sent the first packet seen
    from_start: bool = False  # TCP: that packet is a SYN
    app: str = ""  # "DNS", "TLSv1.3", …: the highest protocol seen
    tunnel: str = ""  # "vxlan", "gre", …
    named: bool = False  # an alert names this flow
    filter: str = ""  # a Wireshark display filter that shows it

    @property
    def packets(self) -> int:
        """Both ways."""
        return self.packets_ab + self.packets_ba

    @property
    def bytes(self) -> int:
        """Both ways."""
        return self.bytes_ab + self.bytes_ba

    def as_json(self) -> dict[str, Json]:
        """Every field under its own name."""
        return {each.name: getattr(self, each.name) for each in fields(self)}

    @classmethod
    def from_json(cls, document: Json) -> Conversation:
        """Raises `BadInput`."""
        of = _Reader(document, "conversation")
        return cls(
            proto=of.text("proto"),
            a=of.text("a"),
            a_port=of.number("a_port"),
            b=of.text("b"),
            b_port=of.number("b_port"),
            packets_ab=of.number("packets_ab"),
            packets_ba=of.number("packets_ba"),
            bytes_ab=of.number("bytes_ab"),
            bytes_ba=of.number("bytes_ba"),
            first_ns=of.number("first_ns"),
            last_ns=of.number("last_ns"),
            frame=of.number("frame"),
            opened_by=of.text("opened_by"),
            from_start=of.flag("from_start"),
            app=of.text("app"),
            tunnel=of.text("tunnel"),
            named=of.flag("named"),
            filter=of.text("filter"),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """One tshark pass over one evidence file."""

    manifest_sha256: str
    tool: str  # "TShark 4.0.17"
    sandbox: tuple[str, ...]  # what actually held: "uid", "landlock", "seccomp", …
    packets: int
    first_ns: int
    last_ns: int
    conversations: tuple[Conversation, ...] = ()  # in the order of their first packets
    dns: tuple[Mapping[str, Json], ...] = ()
    """{name, type, answers, asked_ns, frame, asked, answered, rcode, client, server, proven, filter}; `proven`:
    an answer to a question that was asked in this capture; `asked_ns` is 0 where no question was seen."""
    sni: tuple[Mapping[str, Json], ...] = ()
    """{name, server, port, proto, alpn, count, first_ns, frame, filter}; `proto` is "tcp" or "udp" (QUIC)."""
    http: tuple[Mapping[str, Json], ...] = ()
    """{host, method, uri, server, port, count, first_ns, frame, filter}; the query string is left out."""
    ssh: tuple[Mapping[str, Json], ...] = ()  # {banner, address, first_ns, frame, filter}
    names: Mapping[str, str] = field(
        default_factory=dict
    )  # address → DNS name the capture itself proves
    flow_captured: bool | None = None  # None: the alerts name no flow
    flow: Conversation | None = None  # the conversation that is the alert's flow
    seconds_before_alert: float = 0.0  # from the first packet to T0; below zero: it came after
    other_packets: int = 0  # without an IP header: ARP, LLDP, …
    truncated: bool = False  # lists were cut at their bound
    complete: bool = True  # False: tshark did not get to the end of the file, `notes` says why
    notes: tuple[str, ...] = ()  # what the reader should know about this analysis
    summary: str = ""  # the one paragraph

    def as_json(self) -> dict[str, Json]:
        """The document `findings.json`; `from_json` reads it back."""
        return {
            "manifest_sha256": self.manifest_sha256,
            "tool": self.tool,
            "sandbox": list(self.sandbox),
            "packets": self.packets,
            "other_packets": self.other_packets,
            "first_ns": self.first_ns,
            "last_ns": self.last_ns,
            "flow_captured": self.flow_captured,
            "flow": self.flow.as_json() if self.flow else None,
            "seconds_before_alert": self.seconds_before_alert,
            "summary": self.summary,
            "complete": self.complete,
            "truncated": self.truncated,
            "notes": list(self.notes),
            "conversations": [each.as_json() for each in self.conversations],
            "dns": [dict(each) for each in self.dns],
            "sni": [dict(each) for each in self.sni],
            "http": [dict(each) for each in self.http],
            "ssh": [dict(each) for each in self.ssh],
            "names": dict(self.names),
        }

    @classmethod
    def from_json(cls, document: Json) -> Findings:
        """Read what the analyst said, believing no type and no length. Raises `BadInput`."""
        of = _Reader(document, "findings")
        flow = of.value("flow")
        return cls(
            manifest_sha256=of.text("manifest_sha256"),
            tool=of.text("tool"),
            sandbox=of.texts("sandbox"),
            packets=of.number("packets"),
            other_packets=of.number("other_packets"),
            first_ns=of.number("first_ns"),
            last_ns=of.number("last_ns"),
            flow_captured=None if of.value("flow_captured") is None else of.flag("flow_captured"),
            flow=None if flow is None else Conversation.from_json(flow),
            seconds_before_alert=of.seconds("seconds_before_alert"),
            summary=of.text("summary", MAX_SUMMARY),
            complete=of.flag("complete"),
            truncated=of.flag("truncated"),
            notes=of.texts("notes"),
            conversations=tuple(Conversation.from_json(each) for each in of.rows("conversations")),
            dns=tuple(_tidy_row(each) for each in of.rows("dns")),
            sni=tuple(_tidy_row(each) for each in of.rows("sni")),
            http=tuple(_tidy_row(each) for each in of.rows("http")),
            ssh=tuple(_tidy_row(each) for each in of.rows("ssh")),
            names=of.pairs("names", MAX_ROWS),
        )


def printable(text: str, limit: int = MAX_TEXT) -> str:
    """`text` as one line that no terminal or reader can be fooled by, at most `limit` characters.

    Control, format (bidirectional marks, zero widths), unassigned, private and surrogate characters and line
    separators become `\\x1b` or `\\u202e`; every other space becomes an ordinary one.
    """
    safe = visible(_SPACES.sub(" ", text[:limit]))
    if len(text) > limit:
        return safe[: limit - 1] + "…"
    return safe if len(safe) <= limit else safe[: limit - 1] + "…"


def _connection_as_json(connection: Connection) -> dict[str, Json]:
    return {
        "client": _endpoint_as_json(connection.client),
        "server": _endpoint_as_json(connection.server),
        "proto": connection.proto.value if connection.proto else None,
        "listening": connection.listening,
    }


def _endpoint_as_json(endpoint: Endpoint) -> dict[str, Json]:
    address = None if endpoint.address is None else str(endpoint.address)
    return {"address": address, "port": endpoint.port}


def _connection_from_json(document: Json) -> Connection:
    of = _Reader(document, "connection")
    proto = of.value("proto")
    try:
        return Connection(
            client=_endpoint_from_json(of.value("client")),
            server=_endpoint_from_json(of.value("server")),
            proto=None if proto is None else Proto(str(proto)),
            listening=of.flag("listening"),
        )
    except ValueError as problem:
        raise BadInput("not a protocol", where="connection.proto") from problem


def _endpoint_from_json(document: Json) -> Endpoint:
    of = _Reader(document, "endpoint")
    address: Address | None = None
    if of.value("address") is not None:
        try:
            address = ip_address(of.text("address"))
        except ValueError as problem:
            raise BadInput("not an IP address", where="endpoint.address") from problem
    port = None if of.value("port") is None else of.number("port")
    return Endpoint(address=address, port=port)


def _tidy_row(document: Json) -> dict[str, Json]:
    row = _tidy(document)
    if not isinstance(row, dict):
        raise BadInput("expected an object", where="findings")
    return row


def _tidy(value: Json, depth: int = 0) -> Json:
    """Printable text, bounded lists and depth, numbers that JSON can carry everywhere."""
    if depth > _MAX_DEPTH:
        return None
    if isinstance(value, str):
        return printable(value)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return max(-_MAX_NUMBER, min(value, _MAX_NUMBER))
    if isinstance(value, float):
        return value if math.isfinite(value) else 0.0
    if isinstance(value, list):
        return [_tidy(each, depth + 1) for each in value[:MAX_ROWS]]
    first = list(value.items())[:MAX_ROWS]
    return {printable(str(key)): _tidy(each, depth + 1) for key, each in first}


class _Reader:
    """One JSON object, read field by field; a missing field reads as empty, a wrong type is refused."""

    def __init__(self, document: Json, where: str) -> None:
        if not isinstance(document, dict):
            raise BadInput("expected an object", where=where)
        self._document = document
        self._where = where

    def value(self, name: str) -> Json:
        return self._document.get(name)

    def _typed(self, name: str, kind: type, empty: Json) -> Json:
        value = self._document.get(name, empty)
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise BadInput(f"expected {kind.__name__}", where=f"{self._where}.{name}")
        return value

    def text(self, name: str, limit: int = MAX_TEXT) -> str:
        return printable(cast(str, self._typed(name, str, "")), limit)

    def number(self, name: str) -> int:
        return max(-_MAX_NUMBER, min(cast(int, self._typed(name, int, 0)), _MAX_NUMBER))

    def seconds(self, name: str) -> float:
        value = self._document.get(name, 0.0)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise BadInput("expected a number", where=f"{self._where}.{name}")
        return float(value) if abs(value) < _MAX_NUMBER else 0.0  # also false for not-a-number

    def flag(self, name: str) -> bool:
        return cast(bool, self._typed(name, bool, False))

    def rows(self, name: str) -> list[Json]:
        return cast(list[Json], self._typed(name, list, []))[:MAX_ROWS]

    def texts(self, name: str) -> tuple[str, ...]:
        rows = self.rows(name)
        if not all(isinstance(each, str) for each in rows):
            raise BadInput("expected a list of texts", where=f"{self._where}.{name}")
        return tuple(printable(str(each)) for each in rows)

    def pairs(self, name: str, limit: int) -> dict[str, str]:
        value = cast(dict[str, Json], self._typed(name, dict, {}))
        if not all(isinstance(each, str) for each in value.values()):
            raise BadInput("expected texts", where=f"{self._where}.{name}")
        return {printable(key): printable(str(each)) for key, each in list(value.items())[:limit]}
