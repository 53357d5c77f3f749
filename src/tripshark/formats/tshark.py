"""What tshark said about one packet: reads `-T ek`, one JSON object per line.

Why `-T ek`: packets choose the text in almost every field, and JSON is the only one of tshark's outputs that
packets cannot break out of (`fields` and `tabs` join several values with a character that may stand in a value).
It costs about a tenth more than `-T fields`. With `-n` and addresses only, no name inside the file (name
resolution block, DNS answer) can pass for an address.

Addresses and ports are always those of the *outermost* IP header: of several values that a tunnel or a quoted
packet gives, the first. What is inside a tunnel is named in `Frame.tunnel`.
"""

from __future__ import annotations

import re
from functools import lru_cache
from ipaddress import ip_address
from typing import Any

import msgspec

from tripshark.errors import BadInput
from tripshark.formats.tshark_fields import ARGUMENTS, Layers, Line, Scalar, Values, number
from tripshark.formats.tshark_logins import Login, logins
from tripshark.formats.tshark_time import time_ns as time_ns_of
from tripshark.formats.tshark_tls import Chosen, Hello, client_hello, server_hello

__all__ = [
    "ARGUMENTS",
    "Chosen",
    "DnsMessage",
    "Expert",
    "Frame",
    "Hello",
    "Login",
    "Request",
    "Response",
    "complaint",
    "decode",
    "version",
]

MAX_LINE = 1 << 20  # bytes of one line; a packet that needs more is counted as unread
MAX_VALUES = 64  # of one field in one packet


class DnsMessage(msgspec.Struct, frozen=True, gc=False):
    """One DNS message. `questions` are (name, type), `answers` (owner, type, value) of the answer section.

    Only A, AAAA and CNAME answers have a value; the others have "".
    """

    id: int
    response: bool
    rcode: int
    questions: tuple[tuple[str, int], ...]
    answers: tuple[tuple[str, int, str], ...]


class Request(msgspec.Struct, frozen=True, gc=False):
    """An HTTP request, version 1 or 2 in clear text."""

    host: str
    method: str
    uri: str
    user_agent: str = ""
    body: bool = False  # it says that content follows
    version: int = 1
    id: int = 0  # HTTP/2: its stream


class Response(msgspec.Struct, frozen=True, gc=False):
    """The status of an HTTP response, and which request it answers."""

    status: int
    request: int  # version 1: the frame of the request; version 2: 0
    id: int = 0  # HTTP/2: its stream


class Expert(msgspec.Struct, frozen=True, gc=False):
    """What tshark itself has to say about the packet."""

    severity: str  # "error", "warning", "note"
    group: str  # "Malformed", "Sequence", …
    summary: str


class Frame(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One packet as tshark saw it. Text is as it came: hostile."""

    number: int  # as Wireshark numbers rows; alert rows have numbers too
    time_ns: int
    length: int  # bytes on the wire
    is_packet: bool  # False: a systemd-journal row or another block that is no packet
    src: str = ""  # canonical address, "" where there is no IP header
    dst: str = ""
    transport: str = (
        ""  # "tcp", "udp", "icmp", "gre", …; "udp fragment" for one without its header
    )
    sport: int = 0
    dport: int = 0
    stream: int = -1  # tshark's number of the TCP or UDP conversation
    tcp_flags: int = 0
    icmp_type: int = -1
    icmp_code: int = 0
    tunnel: str = ""  # what carries another IP packet inside: "vxlan", "gre", "ipv6", …
    protocol: str = ""  # the packet list's column
    dns: tuple[DnsMessage, ...] = ()
    hello: Hello | None = None
    chosen: Chosen | None = None
    requests: tuple[Request, ...] = ()
    responses: tuple[Response, ...] = ()
    ssh: str = ""
    logins: tuple[Login, ...] = ()
    typed: str = ""  # telnet's text
    experts: tuple[Expert, ...] = ()
    again: bool = False  # a TCP segment that tshark takes for sent again
    nested: bool = False  # more than one IP header: a tunnel, or an ICMP error's quote
    carries: str = ""  # "HTTP", "SMB", …: this packet may be part of a file transfer

    @property
    def opens(self) -> bool:
        """A TCP SYN that is no answer."""
        return self.tcp_flags & 0x12 == 0x02


_decoder = msgspec.json.Decoder(Line)

_NOT_PACKETS = frozenset({"systemd_journal", "sysdig", "sysdig_event", "pcapng", "file-pcapng"})
_TRANSPORTS = {1: "icmp", 6: "tcp", 17: "udp", 44: "ipv6", 58: "icmpv6", 132: "sctp"}
_VERSION = re.compile(r"TShark(?: \([^)]{0,40}\))? (\d[\w.+~-]{0,40})")
_A, _CNAME, _AAAA = 1, 5, 28
_SEVERITIES = {0x400000: "note", 0x600000: "warning", 0x800000: "error"}
_GROUPS = {
    number << 24: name
    for number, name in enumerate(
        (
            *("Checksum", "Sequence", "Response", "Request", "Undecoded", "Reassemble"),
            *("Malformed", "Debug", "Protocol", "Security", "Comment", "Decryption"),
            *("Assumption", "Deprecated"),
        ),
        1,
    )
}
_SEQUENCE = 2 << 24
_CARRIERS = {
    "http": "HTTP",
    "smb": "SMB",
    "smb2": "SMB",
    "tftp": "TFTP",
    "imf": "IMF",
    "ftp-data": "FTP-DATA",
}
_NO_VALUES: Values = []


def decode(line: bytes) -> Frame | None:
    """One line of output; None for the lines between packets. Raises `BadInput`."""
    if not line.strip() or line.startswith(b'{"index"'):
        return None
    try:
        layers = _read(line).layers
        return None if layers is None else _frame(layers)
    except (msgspec.MsgspecError, ValueError, IndexError, RecursionError) as problem:
        raise BadInput(
            "this is no line that tshark -T ek writes", where=str(line[:60]), hint=str(problem)
        ) from problem


def version(output: bytes) -> str:
    """`TShark 4.0.17` from the output of `tshark --version`. Raises `BadInput`."""
    match = _VERSION.match(output[:200].decode("utf-8", "replace"))
    if match is None:
        raise BadInput("this is not the version of a tshark")
    return f"TShark {match[1]}"


def complaint(stderr: bytes) -> str:
    """What tshark complained about, as one line; "" where it did not. Hostile text, bounded.

    That it runs as root, or may not read a Lua script, is how we want it and no complaint.
    """
    lines = stderr[:4096].decode("utf-8", "replace").splitlines()
    said = [
        line.removeprefix("tshark: ").strip()
        for line in lines
        if line.strip() and not line.startswith("Running as user") and "init.lua" not in line
    ]
    return " ".join(said)[:300]


def _read(line: bytes) -> Line:
    try:
        return _decoder.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError):
        # Some versions let bytes that are not UTF-8 through; they must not cost us the packet.
        return _decoder.decode(line.decode("utf-8", "replace"))


def _frame(of: Layers) -> Frame:
    protocols = str(of.frame_protocols[0]).split(":") if of.frame_protocols else []
    frame_number, time_ns = number(of.frame_number[0]), time_ns_of(str(of.frame_time_epoch[0]))
    length = number(of.frame_len[0]) if of.frame_len else 0
    protocol = str(of.column[0]) if of.column else ""
    if not protocols or protocols[0] in _NOT_PACKETS:
        return Frame(number=frame_number, time_ns=time_ns, length=length, is_packet=False)
    ip = next((at for at, each in enumerate(protocols) if each in {"ip", "ipv6"}), None)
    if ip is None:
        src, dst, inner = _NO_VALUES, _NO_VALUES, _NO_VALUES
    elif protocols[ip] == "ip":
        src, dst, inner = of.ip_src, of.ip_dst, of.ip_proto
    else:
        src, dst, inner = of.ipv6_src, of.ipv6_dst, of.ipv6_nxt
    if ip is None or not src or not dst:  # no IP header, or one cut short
        return Frame(
            number=frame_number, time_ns=time_ns, length=length, is_packet=True, protocol=protocol
        )
    above = [each for each in protocols[ip + 1 :] if not each.startswith(("ipv6.", "_ws."))]
    transport = above[0] if above and above[0] != "data" else _headless(inner)
    icmp = "icmp" in above or "icmpv6" in above  # it may quote a packet: not said, only repeated
    sport, dport, stream = _ports(of, transport)
    return Frame(
        number=frame_number,
        time_ns=time_ns,
        length=length,
        is_packet=True,
        src=_address(str(src[0])),
        dst=_address(str(dst[0])),
        transport=transport,
        sport=sport,
        dport=dport,
        stream=stream,
        tcp_flags=_first(of.tcp_flags) if transport == "tcp" else 0,
        icmp_type=_first(of.icmp_type or of.icmpv6_type, -1) if icmp else -1,
        tunnel=_tunnel(above),
        protocol=protocol,
        dns=_dns(of) if of.dns_id and not icmp else (),
        icmp_code=_first(of.icmp_code or of.icmpv6_code) if icmp else 0,
        experts=_experts(of, http="http" in protocols) if of.expert_severity else (),
        again=transport == "tcp"
        and bool(
            of.tcp_analysis_retransmission
            or of.tcp_analysis_fast_retransmission
            or of.tcp_analysis_spurious_retransmission
        ),
        nested=any(each in {"ip", "ipv6"} for each in above),
        **({} if icmp else _said(of, transport, protocols)),
    )


def _said(of: Layers, transport: str, protocols: list[str]) -> dict[str, Any]:
    """What applications said; a packet that an ICMP error quotes says nothing again."""
    said: dict[str, Any] = {}
    if of.tls_handshake_type:
        said["hello"] = client_hello(of, quic=transport == "udp")
        said["chosen"] = server_hello(of)
    if of.http_request_method or of.http_host or of.http2_headers_method:
        said["requests"] = _requests(of)
    if of.http_response_code or of.http2_headers_status:
        said["responses"] = _responses(of)
    if of.ssh_protocol:
        said["ssh"] = str(of.ssh_protocol[0])
    if of.telnet_data:
        said["typed"] = "".join(map(str, of.telnet_data[:MAX_VALUES]))
    if found := logins(of):
        said["logins"] = found
    carries = next((_CARRIERS[each] for each in protocols if each in _CARRIERS), "")
    if carries != "HTTP" or _has_body(of):
        said["carries"] = carries
    return said


def _has_body(of: Layers) -> bool:
    lengths = [str(each).strip() for each in of.http_content_length_header[:MAX_VALUES]]
    return bool(of.http_transfer_encoding) or any(each not in {"", "0"} for each in lengths)


def _responses(of: Layers) -> tuple[Response, ...]:
    """Only where it is certain which status belongs to which request."""
    codes, asked = of.http_response_code, of.http_request_in
    found = []
    if len(codes) == len(asked):
        found = [
            Response(number(code), number(frame))
            for code, frame in zip(codes[:MAX_VALUES], asked, strict=False)
        ]
    if len(of.http2_headers_status) == len(of.http2_streamid) == 1:
        found.append(Response(number(of.http2_headers_status[0]), 0, _first(of.http2_streamid)))
    return tuple(found)


def _experts(of: Layers, *, http: bool) -> tuple[Expert, ...]:
    """Notes and worse. Chats repeat what packets say (also the secrets in a request line), comments are ours.

    Of HTTP only what TCP has to say: since a request is read without waiting for its body (see `ARGUMENTS`), the
    rest of a body passes for a message of its own, and a bad one.
    """
    if not len(of.expert_severity) == len(of.expert_group) == len(of.expert_message):
        return ()
    told = zip(of.expert_severity, of.expert_group, of.expert_message, strict=True)
    return tuple(
        Expert(_SEVERITIES[number(severity)], _GROUPS.get(number(group), "Other"), str(summary))
        for severity, group, summary in list(told)[:MAX_VALUES]
        if number(severity) in _SEVERITIES and not (http and number(group) != _SEQUENCE)
    )


def _headless(inner: Values) -> str:
    """No transport header in this packet: a later fragment, one cut short, or a protocol nobody knows."""
    number = _first(inner, -1)
    known = _TRANSPORTS.get(number)
    return f"{known} fragment" if known else f"ip protocol {number}"


def _ports(of: Layers, transport: str) -> tuple[int, int, int]:
    match transport:
        case "tcp":
            return _first(of.tcp_srcport), _first(of.tcp_dstport), _first(of.tcp_stream, -1)
        case "udp":
            return _first(of.udp_srcport), _first(of.udp_dstport), _first(of.udp_stream, -1)
        case "sctp":
            return _first(of.sctp_srcport), _first(of.sctp_dstport), -1
        case _:
            return 0, 0, -1


def _tunnel(above: list[str]) -> str:
    """What holds the next IP packet inside this one, "" where there is none or it is an ICMP error's quote."""
    for at, each in enumerate(above):
        if each in {"icmp", "icmpv6"}:
            return ""
        if each in {"ip", "ipv6"}:
            outer = [name for name in above[:at] if name not in {"eth", "ethertype", "udp"}]
            return outer[0] if outer else each
    return ""


def _dns(of: Layers) -> tuple[DnsMessage, ...]:
    """Deal the packet's flat lists out to its messages, as their own counters say.

    A packet whose counters do not add up (cut short, or a lie) keeps its questions and loses its answers:
    nothing may be concluded from an answer that cannot be assigned.
    """
    messages = []
    questions = list(zip(map(str, of.dns_qry_name), map(number, of.dns_qry_type), strict=False))
    records, aligned = _records(of)
    asked = recorded = 0
    for at, id in enumerate(of.dns_id[:MAX_VALUES]):
        last = at == len(of.dns_id) - 1
        queries, answers = _at(of.dns_count_queries, at), _at(of.dns_count_answers, at)
        more = _at(of.dns_count_auth_rr, at) + _at(of.dns_count_add_rr, at)
        end = len(questions) if last else asked + queries
        aligned = aligned and (not last or recorded + answers + more == len(records))
        messages.append(
            DnsMessage(
                id=number(id),
                response=str(_value(of.dns_flags_response, at)).lower() in {"1", "true"},
                rcode=_at(of.dns_flags_rcode, min(at, len(of.dns_flags_rcode) - 1)),
                questions=tuple(questions[asked:end][:MAX_VALUES]),
                answers=tuple(records[recorded : recorded + answers][:MAX_VALUES]),
            )
        )
        asked, recorded = end, recorded + answers + more
    if aligned:
        return tuple(messages)
    return tuple(msgspec.structs.replace(each, answers=()) for each in messages)


def _records(of: Layers) -> tuple[list[tuple[str, int, str]], bool]:
    """(owner, type, value) of every resource record, and whether each value surely belongs to its owner."""
    values = {
        _A: iter([str(each) for each in of.dns_a]),
        _AAAA: iter([str(each) for each in of.dns_aaaa]),
        _CNAME: iter([str(each) for each in of.dns_cname]),
    }
    none: list[str] = []
    records = [
        (str(owner), kind, next(values.get(kind, iter(none)), ""))
        for owner, kind in zip(of.dns_resp_name, map(number, of.dns_resp_type), strict=False)
    ]
    left_over = any(next(each, None) is not None for each in values.values())
    missing = any(kind in values and not value for _, kind, value in records)
    equal = len(of.dns_resp_name) == len(of.dns_resp_type)
    return records, equal and not left_over and not missing


def _requests(of: Layers) -> tuple[Request, ...]:
    body = _has_body(of)
    requests = []
    for major, hosts, methods, uris, agents, ids in (
        (
            1,
            of.http_host,
            of.http_request_method,
            of.http_request_uri,
            of.http_user_agent,
            _NO_VALUES,
        ),
        (
            2,
            of.http2_headers_authority,
            of.http2_headers_method,
            of.http2_headers_path,
            of.http2_headers_user_agent,
            of.http2_streamid,
        ),
    ):
        # A request without a Host header shifts the list: then no host is claimed for any.
        many = max(len(methods), 1)
        whose, by = (each if len(each) == many else [] for each in (hosts, agents))
        stream = _first(ids) if len(ids) == 1 else 0
        requests += [
            Request(
                host=str(_value(whose, at)),
                method=str(_value(methods, at)),
                uri=str(_value(uris, at)),
                user_agent=str(_value(by, at)),
                body=body,
                version=major,
                id=stream,
            )
            for at in range(min(max(len(methods), len(whose)), MAX_VALUES))
        ]
    return tuple(requests)


def _value(values: Values, at: int) -> Scalar:
    """The `at`-th value, "" where there is none."""
    return values[at] if 0 <= at < len(values) else ""


def _at(values: Values, at: int) -> int:
    value = _value(values, at)
    return 0 if value == "" else number(value)


def _first(values: Values, empty: int = 0) -> int:
    return number(values[0]) if values else empty


@lru_cache(maxsize=8192)
def _address(text: str) -> str:
    if "%" in text:  # a scope may be any text, and no packet has one
        raise ValueError("not an address of a packet")
    return str(ip_address(text))
