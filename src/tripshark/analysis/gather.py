"""Turns one pass over the packets into findings: conversations, names, requests, and the flow the alert named.

Memory is bounded whatever the packets are: tables stop growing at their bound, what no longer fits is counted
and said.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from ipaddress import IPv6Address, ip_address
from typing import NamedTuple, cast

from tripshark.formats.tshark import DnsMessage, Frame, Request
from tripshark.model.alert import Address, Connection, Endpoint, Json, Proto
from tripshark.model.finding import MAX_ROWS, Conversation, Findings, Question
from tripshark.model.text import printable

MAX_CONVERSATIONS = 50_000  # tracked; the findings keep the MAX_ROWS that matter most
MAX_PENDING = 20_000  # DNS questions that wait for their answer
_MAX_ANSWERS = 32  # of one name
_LATE_NS = 1_000_000_000  # a flow that began up to this long after T0 can still be the alert's

_CNAME = 5
_PLAIN = re.compile(r"[A-Za-z0-9._:-]{1,253}")
_PROTOCOL = re.compile(r"[a-z][a-z0-9._-]{0,30}")
_DNS_TYPES = {
    1: "A",
    2: "NS",
    5: "CNAME",
    6: "SOA",
    12: "PTR",
    15: "MX",
    16: "TXT",
    28: "AAAA",
    33: "SRV",
    35: "NAPTR",
    64: "SVCB",
    65: "HTTPS",
    252: "AXFR",
    255: "ANY",
}
_RCODES = {0: "NOERROR", 1: "FORMERR", 2: "SERVFAIL", 3: "NXDOMAIN", 4: "NOTIMP", 5: "REFUSED"}


class _Key(NamedTuple):
    """One conversation, whichever way a packet goes. TCP adds the stream: a port pair may be used twice."""

    proto: str
    low: tuple[str, int]
    high: tuple[str, int]
    stream: int


class _Talk:
    """One conversation while it is being counted; `opener` sent the first packet seen."""

    __slots__ = ("app", "bytes", "first", "frame", "last_ns", "named", "packets", "tunnel")

    def __init__(self, first: Frame, *, named: bool) -> None:
        self.first = first
        self.frame = first.number
        self.last_ns = first.time_ns
        self.packets = [0, 0]  # from the opener, to the opener
        self.bytes = [0, 0]
        self.app = ""
        self.tunnel = ""
        self.named = named

    def add(self, frame: Frame) -> None:
        back = (frame.src, frame.sport) != (self.first.src, self.first.sport)
        self.packets[back] += 1
        self.bytes[back] += frame.length
        self.last_ns = max(self.last_ns, frame.time_ns)
        if frame.protocol and (not self.app or frame.protocol not in _BARE):
            self.app = frame.protocol
        self.tunnel = self.tunnel or frame.tunnel


_BARE = frozenset({"TCP", "UDP", "SCTP", "IPv4", "IPv6"})  # says no more than the transport does


class Gatherer:
    """Takes frames in file order, then answers once."""

    def __init__(self, question: Question) -> None:
        self._question = question
        self._own = {_address_or_none(each) for each in question.addresses}
        self._wanted = [each for each in map(_Wanted.of, question.connections) if each]
        self._talks: dict[_Key, _Talk] = {}
        self._dns, self._tls, self._http, self._ssh = _Table(), _Table(), _Table(), _Table()
        self._names: dict[str, str] = {}
        self._pending: dict[tuple[str, int, str, int, str, int], None] = {}
        self._packets = self._other = self._untracked = 0
        self._first_ns = self._last_ns = 0
        self._named_seen = False
        self._truncated = False

    @property
    def packets(self) -> int:
        """Counted so far."""
        return self._packets

    def add(self, frame: Frame) -> None:
        """Count one packet in. Rows that are no packets (alerts) are passed over."""
        if not frame.is_packet:
            return
        if not self._packets or frame.time_ns < self._first_ns:
            self._first_ns = frame.time_ns
        self._last_ns = max(self._last_ns, frame.time_ns)
        self._packets += 1
        if not frame.src:
            self._other += 1
            return
        self._converse(frame)
        for message in frame.dns:
            take = self._answer if message.response else self._ask
            for name, kind in message.questions:
                take(frame, message, name, kind)
        if frame.hello is not None:
            for name in frame.hello.names:
                self._greet(frame, name, frame.hello.alpn)
        for request in frame.requests:
            self._request(frame, request)
        if frame.ssh:
            banner, place = printable(frame.ssh), _place(frame, "ssh.protocol")
            self._ssh.row((banner, frame.src), {"banner": banner, "address": frame.src, **place})

    def findings(
        self,
        *,
        tool: str,
        sandbox: tuple[str, ...],
        complete: bool = True,
        notes: tuple[str, ...] = (),
    ) -> Findings:
        """Everything learnt, without the summary."""
        kept = self._kept()
        flow = self._flow()
        if self._untracked:
            notes += (
                f"{self._untracked} packets belong to conversations beyond the first {MAX_CONVERSATIONS}",
            )
        before = self._question.t0_ns - self._first_ns if self._packets else 0
        return Findings(
            manifest_sha256=self._question.manifest_sha256,
            tool=tool,
            sandbox=sandbox,
            packets=self._packets,
            other_packets=self._other,
            first_ns=self._first_ns,
            last_ns=self._last_ns,
            conversations=kept,
            dns=self._dns.rows,
            tls=self._tls.rows,
            http=self._http.rows,
            ssh=self._ssh.rows,
            names=dict(self._names),
            flow_captured=self._named_seen if self._wanted else None,
            flow=flow,
            seconds_before_alert=round(before / 1e9, 6),
            truncated=self._truncated
            or bool(self._untracked)
            or len(kept) < len(self._talks)
            or any(each.full for each in (self._dns, self._tls, self._http, self._ssh)),
            complete=complete,
            notes=notes,
        )

    # ── conversations ────────────────────────────────────────────────────────────────────────────

    def _converse(self, frame: Frame) -> None:
        one, other = (frame.src, frame.sport), (frame.dst, frame.dport)
        low, high = (one, other) if one <= other else (other, one)
        key = _Key(frame.transport, low, high, frame.stream if frame.transport == "tcp" else -1)
        talk = self._talks.get(key)
        if talk is None:
            named = any(each.is_met(frame) for each in self._wanted)
            self._named_seen = self._named_seen or named
            # What an alert names always finds a place.
            if len(self._talks) >= MAX_CONVERSATIONS + (MAX_ROWS if named else 0):
                self._untracked += 1
                return
            talk = self._talks[key] = _Talk(frame, named=named)
        talk.add(frame)

    def _kept(self) -> tuple[Conversation, ...]:
        """The alert's own and the largest, in the order of their first packets."""
        talks = sorted(
            self._talks.values(),
            key=lambda talk: (not talk.named, -sum(talk.bytes), talk.frame),
        )[:MAX_ROWS]
        return tuple(map(self._conversation, sorted(talks, key=lambda talk: talk.frame)))

    def _flow(self) -> Conversation | None:
        """The named conversation that began last before the alert, else the first that began after it."""
        named = [talk for talk in self._talks.values() if talk.named]
        if not named:
            return None
        edge = self._question.t0_ns + _LATE_NS
        before = [talk for talk in named if talk.first.time_ns <= edge]
        if before:
            return self._conversation(max(before, key=lambda talk: talk.first.time_ns))
        return self._conversation(min(named, key=lambda talk: talk.first.time_ns))

    def _conversation(self, talk: _Talk) -> Conversation:
        first = talk.first
        swap = first.dst in self._own and first.src not in self._own
        a, b = (first.src, first.sport), (first.dst, first.dport)
        out, back = (1, 0) if swap else (0, 1)
        if swap:
            a, b = b, a
        return Conversation(
            proto=printable(first.transport),
            a=a[0],
            a_port=a[1],
            b=b[0],
            b_port=b[1],
            packets_ab=talk.packets[out],
            packets_ba=talk.packets[back],
            bytes_ab=talk.bytes[out],
            bytes_ba=talk.bytes[back],
            first_ns=first.time_ns,
            last_ns=talk.last_ns,
            frame=talk.frame,
            opened_by=first.src,
            from_start=first.opens,
            app=printable(talk.app),
            tunnel=printable(talk.tunnel),
            named=talk.named,
            filter=_conversation_filter(first),
        )

    # ── names and requests ───────────────────────────────────────────────────────────────────────

    def _ask(self, frame: Frame, message: DnsMessage, name: str, kind: int) -> None:
        row = self._name(frame, name, kind, client=frame.src, server=frame.dst)
        if row is not None:
            row["asked"] = _count(row, "asked") + 1
            row["asked_ns"] = row["asked_ns"] or frame.time_ns
        if len(self._pending) >= MAX_PENDING:
            del self._pending[next(iter(self._pending))]
            self._truncated = True
        self._pending[frame.src, frame.sport, frame.dst, message.id, name.lower(), kind] = None

    def _answer(self, frame: Frame, message: DnsMessage, name: str, kind: int) -> None:
        asked = (frame.dst, frame.dport, frame.src, message.id, name.lower(), kind)
        proven = asked in self._pending
        values = [printable(each) for each in _chain(name, message)]
        row = self._name(frame, name, kind, client=frame.dst, server=frame.src)
        if row is not None:
            row["answered"] = _count(row, "answered") + 1
            row["rcode"] = _RCODES.get(message.rcode, str(message.rcode))
            row["proven"] = bool(row["proven"]) or proven
            known = cast(list[Json], row["answers"])
            new = [each for each in dict.fromkeys(values) if each not in known]
            known += new[: _MAX_ANSWERS - len(known)]
        for address in filter(None, map(_address_or_none, values)) if proven else ():
            if len(self._names) < MAX_ROWS or address in self._names:
                self._names.setdefault(address, printable(name))
            else:
                self._truncated = True

    def _name(
        self, frame: Frame, name: str, kind: int, *, client: str, server: str
    ) -> dict[str, Json] | None:
        new: dict[str, Json] = {
            "name": printable(name),
            "type": _DNS_TYPES.get(kind, f"TYPE{kind}"),
            "answers": [],
            "asked_ns": 0,
            "asked": 0,
            "answered": 0,
            "rcode": "",
            "client": client,
            "server": server,
            "proven": False,
            **_place(frame, "dns.qry.name", name),
        }
        return self._dns.row((name.lower(), kind), new)

    def _greet(self, frame: Frame, name: str, alpn: tuple[str, ...]) -> None:
        new: dict[str, Json] = {
            "name": printable(name),
            "server": frame.dst,
            "port": frame.dport,
            "proto": printable(frame.transport),
            "alpn": [printable(each, 40) for each in alpn[:8]],
            "count": 0,
            **_place(frame, "tls.handshake.extensions_server_name", name),
        }
        self._tls.count((name, frame.dst, frame.dport), new)

    def _request(self, frame: Frame, request: Request) -> None:
        host = request.host.rpartition("@")[2]  # never the user and password before an @
        uri = _without_secrets(request.uri)
        new: dict[str, Json] = {
            "host": printable(host),
            "method": printable(request.method, 40),
            "uri": printable(uri),
            "server": frame.dst,
            "port": frame.dport,
            "count": 0,
            **_place(frame, "http.host", host),
        }
        self._http.count((host, request.method, uri, frame.dst), new)


class _Table:
    """Rows under a key, in the order they were first seen, at most `MAX_ROWS`."""

    def __init__(self) -> None:
        self._rows: dict[object, dict[str, Json]] = {}
        self.full = False  # something did not fit

    @property
    def rows(self) -> tuple[Mapping[str, Json], ...]:
        return tuple(self._rows.values())

    def row(self, key: object, new: dict[str, Json]) -> dict[str, Json] | None:
        """The row under `key`, or `new` put there; None when the table is full."""
        known = self._rows.get(key)
        if known is None and len(self._rows) >= MAX_ROWS:
            self.full = True
            return None
        return self._rows.setdefault(key, new)

    def count(self, key: object, new: dict[str, Json]) -> None:
        """One more of the same."""
        if (row := self.row(key, new)) is not None:
            row["count"] = _count(row, "count") + 1


class _Wanted(NamedTuple):
    """A flow that an alert names, ready for comparison: canonical addresses; None where it does not say."""

    client: tuple[str | None, int | None]
    server: tuple[str | None, int | None]
    proto: str | None
    icmp: bool

    @classmethod
    def of(cls, connection: Connection) -> _Wanted | None:
        """None for a connection that names nothing a packet could be recognised by."""
        client, server = _side(connection.client), _side(connection.server)
        if client == server == (None, None):
            return None
        icmp = connection.proto is Proto.ICMP
        proto = None if connection.proto is None or icmp else connection.proto.value
        return cls(client, server, proto, icmp)

    def is_met(self, frame: Frame) -> bool:
        """Whichever way the packet goes: Falco may have flipped client and server."""
        if self.icmp:
            if frame.transport not in {"icmp", "icmpv6"}:
                return False
        elif frame.transport != self.proto if self.proto else frame.transport not in _WITH_PORTS:
            return False
        one, other = (frame.src, frame.sport), (frame.dst, frame.dport)
        return any(
            self._fits(self.client, a) and self._fits(self.server, b)
            for a, b in ((one, other), (other, one))
        )

    def _fits(self, wanted: tuple[str | None, int | None], side: tuple[str, int]) -> bool:
        address, port = wanted
        return address in (None, side[0]) and (self.icmp or port in (None, side[1]))


_WITH_PORTS = frozenset({"tcp", "udp", "sctp"})


def _side(endpoint: Endpoint) -> tuple[str | None, int | None]:
    """The unspecified address and port 0 say nothing: a UDP socket that is bound to no address has them."""
    address = endpoint.address
    known = None if address is None or address.is_unspecified else _canonical(address)
    return known, endpoint.port or None


def _canonical(address: Address) -> str:
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return str(mapped or address)


def _address_or_none(text: str) -> str | None:
    try:
        return _canonical(ip_address(text))
    except ValueError:
        return None


def _chain(name: str, message: DnsMessage) -> list[str]:
    """What the answers say about `name`: aliases and addresses, following CNAMEs only from the name asked."""
    owners = {name.lower()}
    values = []
    for owner, kind, value in message.answers:
        if owner.lower() in owners and value:
            values.append(value)
            if kind == _CNAME:
                owners.add(value.lower())
    return values


def _place(frame: Frame, field: str, value: str = "") -> dict[str, Json]:
    """Where it was seen, and a display filter that shows it; hostile text never becomes filter text."""
    plain = _PLAIN.fullmatch(value) is not None
    shown = f'{field} == "{value}"' if plain else f"frame.number == {frame.number}"
    return {"frame": frame.number, "first_ns": frame.time_ns, "filter": shown}


def _conversation_filter(first: Frame) -> str:
    match first.transport:
        case "tcp" | "udp" if first.stream >= 0:
            return f"{first.transport}.stream == {first.stream}"
        case "sctp":
            ports = f"sctp.port == {first.sport} && sctp.port == {first.dport}"
        case known if known.endswith(" fragment") or not _PROTOCOL.fullmatch(known):
            ports = ""
        case known:
            ports = known
    kind = "ipv6" if ":" in first.src else "ip"
    both = f"{kind}.addr == {first.src} && {kind}.addr == {first.dst}"
    return f"{both} && {ports}" if ports else both


def _without_secrets(uri: str) -> str:
    """The path; what follows `?` may be a password and is replaced by `…`, and so is a user before an @."""
    path, mark, _ = uri.partition("?")
    path, hash, _ = path.partition("#")
    scheme, slashes, rest = path.partition("://")
    if slashes:
        authority, slash, tail = rest.partition("/")
        path = f"{scheme}://{authority.rpartition('@')[2]}{slash}{tail}"
    return f"{path}{mark or hash}…" if mark or hash else path


def _count(row: Mapping[str, Json], name: str) -> int:
    return cast(int, row[name])
