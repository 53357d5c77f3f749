"""An incident as Zeek writes logs in JSON: conn, dns, ssl and http, with Zeek's names and types of fields.

They are made of the findings, not by Zeek. What the findings do not know is left out, as Zeek leaves out what is unset:
bytes of payload, the whole history of a connection. What Zeek has no field for has a name that Zeek does not use:
`orig_wire_bytes`, `resp_wire_bytes` (link headers included), `count` (so many like it), `frame` and `filter`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

from tripshark.model.alert import Json
from tripshark.model.evidence import canonical
from tripshark.model.finding import Conversation
from tripshark.report.case import Case, flow_of, host_of, is_address, number, sequence, text

Line = dict[str, Json]
Row = Mapping[str, Json]

_BASE62: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_TYPES: Final = {
    "A": 1,
    "NS": 2,
    "CNAME": 5,
    "SOA": 6,
    "PTR": 12,
    "MX": 15,
    "TXT": 16,
    "AAAA": 28,
    "SRV": 33,
    "NAPTR": 35,
    "DS": 43,
    "DNSKEY": 48,
    "SVCB": 64,
    "HTTPS": 65,
    "ANY": 255,
}
_RCODES: Final = {
    "no error": (0, "NOERROR"),
    "format error": (1, "FORMERR"),
    "server failure": (2, "SERVFAIL"),
    "no such name": (3, "NXDOMAIN"),
    "not implemented": (4, "NOTIMP"),
    "refused": (5, "REFUSED"),
}
_VERSIONS: Final = {
    "SSL 2.0": "SSLv2",
    "SSL 3.0": "SSLv3",
    "TLS 1.0": "TLSv10",
    "TLS 1.1": "TLSv11",
    "TLS 1.2": "TLSv12",
    "TLS 1.3": "TLSv13",
    "DTLS 1.0": "DTLSv10",
    "DTLS 1.2": "DTLSv12",
    "DTLS 1.3": "DTLSv13",
}
_SERVICES: Final = frozenset({"dns", "http", "ssh", "smtp", "ftp", "ntp", "quic", "dhcp", "irc"})


def write(log: str, cases: Sequence[Case]) -> bytes:
    """The log named `conn`, `dns`, `ssl` or `http`, one JSON object per line, in the order of time."""
    lines = [
        (number(each["ts_ns"]), _told(each))
        for case in cases
        if case.findings is not None
        for each in LOGS[log](case)
    ]
    return b"".join(line for _, line in sorted(lines))


def _told(line: Line) -> bytes:
    ns = number(line["ts_ns"])
    made = {name: value for name, value in line.items() if value not in (None, "", [])}
    del made["ts_ns"]
    return canonical({"ts": round(ns / 1e9, 6), **made}) + b"\n"


def _conn(case: Case) -> Iterator[Line]:
    for each in case.conversations:
        flow = flow_of(each)
        if not (is_address(flow.client) and is_address(flow.server)):
            continue
        yield {
            "ts_ns": each.first_ns,
            "uid": uid(case, each),
            **_ends(flow.client, flow.client_port, flow.server, flow.server_port),
            "proto": _proto(each.proto),
            "service": _service(each),
            "duration": round(max(0, each.last_ns - each.first_ns) / 1e9, 6),
            "conn_state": _state(each),
            "local_orig": flow.client in case.addresses,
            "local_resp": flow.server in case.addresses,
            "history": _history(each),
            "orig_pkts": flow.packets_sent,
            "resp_pkts": flow.packets_back,
            "community_id": each.community_id,
            "orig_wire_bytes": flow.bytes_sent,
            "resp_wire_bytes": flow.bytes_back,
            "frame": each.frame,
            "filter": each.filter,
        }


def _ends(client: str, client_port: int, server: str, server_port: int) -> Line:
    return {
        "id.orig_h": client,
        "id.orig_p": client_port,
        "id.resp_h": server,
        "id.resp_p": server_port,
    }


def _proto(said: str) -> str:
    word = said.split(" ")[0].lower()
    if word.startswith("icmp"):
        return "icmp"
    return word if word in ("tcp", "udp") else "unknown_transport"


def _service(each: Conversation) -> str:
    word = each.app.lower().split("/")[0]
    if word.startswith(("tls", "ssl")):
        return "ssl"
    return word if word in _SERVICES else ""


def _state(each: Conversation) -> str:
    """Only where the counts leave no doubt: how a TCP connection ended is not among them."""
    flow = flow_of(each)
    if _proto(each.proto) != "tcp":
        if flow.packets_sent and flow.packets_back:
            return "SF"
        return "S0" if flow.packets_sent else "SHR"
    if not each.from_start:
        return "OTH"
    if not flow.packets_back:
        return "S0"
    return "REJ" if each.resets and each.resets == flow.packets_back else ""


def _history(each: Conversation) -> str:
    """The letters that are certain."""
    flow = flow_of(each)
    if _proto(each.proto) == "udp":
        return ("D" if flow.packets_sent else "") + ("d" if flow.packets_back else "")
    if _proto(each.proto) == "tcp" and _state(each) in ("S0", "REJ"):
        return "Sr" if _state(each) == "REJ" else "S"
    return ""


def uid(case: Case, each: Conversation) -> str:
    """As Zeek's look, and the same for the same conversation of the same evidence."""
    return _uid(case, each.proto, each.a, each.a_port, each.b, each.b_port, each.first_ns)


def _uid(case: Case, *said: object) -> str:
    seed = " ".join(map(str, (case.id, case.manifest_sha256, *said)))
    rest = int.from_bytes(hashlib.sha256(seed.encode()).digest(), "big")
    made = ""
    for _ in range(17):
        rest, digit = divmod(rest, 62)
        made += _BASE62[digit]
    return f"C{made}"


def _row(case: Case, row: Row, port: int, at_ns: int) -> Line | None:
    """What all logs begin with; None for a row without addresses."""
    client, server = text(row.get("client")), text(row.get("server"))
    if not (is_address(client) and is_address(server)):
        return None
    known = case.flow(client, server, port, number(row.get("first_ns")))
    one = number(row.get("count") or row.get("asked")) <= 1
    flow = flow_of(known) if known is not None else None
    at = at_ns or number(row.get("first_ns")) or case.seen[0] or case.t0_ns
    return {
        "ts_ns": at,
        "uid": uid(case, known) if known is not None else _uid(case, client, server, port, at),
        **_ends(client, flow.client_port if flow is not None and one else 0, server, port),
        "count": number(row.get("count") or row.get("asked")),
        "frame": number(row.get("frame")),
        "filter": text(row.get("filter"), 2000),
    }


def _dns(case: Case) -> Iterator[Line]:
    for row in case.findings.dns if case.findings is not None else ():
        made = _row(case, row, 53, number(row.get("asked_ns")))
        if made is None:
            continue
        client, server = text(row.get("client")), text(row.get("server"))
        known = case.flow(client, server, 53, number(row.get("first_ns")))
        kind = text(row.get("type"))
        code = _RCODES.get(text(row.get("rcode")).lower())
        yield {
            **made,
            "proto": _proto(known.proto) if known is not None else "udp",
            "query": text(row.get("name")),
            "qclass": 1,
            "qclass_name": "C_INTERNET",
            "qtype": _TYPES.get(kind),
            "qtype_name": kind,
            "rcode": code[0] if code else None,
            "rcode_name": code[1] if code else "",
            "answers": [text(each) for each in sequence(row.get("answers"))[:50] if text(each)],
            "rejected": bool(code and code[0] == 5),
        }


def _ssl(case: Case) -> Iterator[Line]:
    for row in case.findings.tls if case.findings is not None else ():
        made = _row(case, row, number(row.get("port")), 0)
        if made is None:
            continue
        alpn = [text(each) for each in sequence(row.get("alpn"))]
        version = text(row.get("version"))
        yield {
            **made,
            "version": _VERSIONS.get(version, version.replace(" ", "")),
            "cipher": text(row.get("cipher")),
            "server_name": text(row.get("name")),
            "client_alpn": [each for each in alpn if each],
            "ja3": text(row.get("ja3")),
            "ja4": text(row.get("ja4")),
        }


def _http(case: Case) -> Iterator[Line]:
    for row in case.findings.http if case.findings is not None else ():
        made = _row(case, row, number(row.get("port")), 0)
        if made is None:
            continue
        yield {
            **made,
            "method": text(row.get("method")),
            "host": host_of(text(row.get("host"))),
            "uri": text(row.get("uri")),
            "user_agent": text(row.get("user_agent")),
            "status_code": number(row.get("status")) or None,
            "tags": [],
        }


LOGS: Final[Mapping[str, Callable[[Case], Iterator[Line]]]] = {
    "conn": _conn,
    "dns": _dns,
    "ssl": _ssl,
    "http": _http,
}
