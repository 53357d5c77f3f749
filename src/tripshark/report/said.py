"""Who talked to whom and what was said: conversations, endpoints, and a table for each protocol."""

from __future__ import annotations

from collections.abc import Sequence

from tripshark.model.finding import Conversation
from tripshark.report import words
from tripshark.report.case import Case, number, sequence, text
from tripshark.report.document import Block
from tripshark.report.rows import any_of, filled, from_t0, listed, texts, where


def conversations(case: Case) -> Sequence[Block]:
    """Conversations and endpoints."""
    findings = case.findings
    if findings is None:
        return []
    blocks: list[Block] = [
        filled(
            "Conversations, in the order of their first packets",
            "From |To |Proto|App|Out:n|Bytes out:n|In:n|Bytes in:n|Begins:n|Lasts:n|Remarks|Packet:n|Filter:f",
            (_conversation(case, each) for each in findings.conversations),
        )
    ]
    if findings.endpoints:
        blocks.append(
            filled(
                "Endpoints",
                "Address:m|Name|Target's|Packets sent:n|Bytes sent:n|Packets received:n|Bytes received:n|Packet:n|Filter:f",
                (
                    (
                        text(row.get("address")),
                        text(row.get("name")),
                        "yes" if row.get("ours") else "",
                        f"{number(row.get('packets_out')):,}",
                        words.size(number(row.get("bytes_out"))),
                        f"{number(row.get('packets_in')):,}",
                        words.size(number(row.get("bytes_in"))),
                        *where(row),
                    )
                    for row in findings.endpoints
                ),
            )
        )
    return blocks


def _conversation(case: Case, each: Conversation) -> tuple[str, ...]:
    remarks = [
        "the alert's connection" if each.named else "",
        words.count(each.retransmissions, "retransmission") if each.retransmissions else "",
        words.count(each.resets, "reset") if each.resets else "",
        f"inside {each.tunnel}" if each.tunnel else "",
        "" if each.proto != "tcp" or each.from_start else "beginning not seen",
    ]
    return (
        case.called(each.a, each.a_port),
        case.called(each.b, each.b_port),
        each.proto,
        each.app,
        f"{each.packets_ab:,}",
        words.size(each.bytes_ab),
        f"{each.packets_ba:,}",
        words.size(each.bytes_ba),
        words.offset(each.first_ns, case.t0_ns),
        words.span(each.last_ns - each.first_ns),
        ", ".join(filter(None, remarks)),
        str(each.frame),
        each.filter,
    )


def dns(case: Case) -> Sequence[Block]:
    """Names that were asked for."""
    return listed(
        case,
        "dns",
        "Names that were asked for",
        "Name:m|Type|Answers:m|Outcome|Asked by|Of|Asked:n|First:n|Packet:n|Filter:f",
        lambda row: (
            text(row.get("name")),
            text(row.get("type")),
            ", ".join(text(each) for each in sequence(row.get("answers"))[:12]),
            text(row.get("rcode")) or ("" if row.get("answered") else "no answer seen"),
            case.called(text(row.get("client"))),
            case.called(text(row.get("server"))),
            f"{number(row.get('asked')):,}",
            from_t0(case, row.get("asked_ns")),
        ),
    )


def tls(case: Case) -> Sequence[Block]:
    """Encrypted connections, by server name and fingerprint."""
    return listed(
        case,
        "tls",
        "Encrypted connections, by what the client said first",
        "Server name:m|Client|Server|Version|Cipher|ALPN|JA4:m|JA3:m|Count:n|First:n|Packet:n|Filter:f",
        lambda row: (
            text(row.get("name")) or "none given",
            case.called(text(row.get("client"))),
            case.called(text(row.get("server")), number(row.get("port"))),
            (text(row.get("version")) or "not seen")
            + (" over QUIC" if row.get("proto") == "udp" else ""),
            text(row.get("cipher")),
            ", ".join(texts(row.get("alpn"))),
            text(row.get("ja4")),
            text(row.get("ja3")),
            f"{number(row.get('count')):,}",
            from_t0(case, row.get("first_ns")),
        ),
    )


def http(case: Case) -> Sequence[Block]:
    """Requests in clear text."""
    return listed(
        case,
        "http",
        "Requests in clear text; what stands behind ? in an address is left out",
        "Method|Host:m|Path:m|Status:n|User agent|Client|Server|Count:n|First:n|Packet:n|Filter:f",
        lambda row: (
            text(row.get("method")),
            text(row.get("host")),
            text(row.get("uri")),
            str(number(row.get("status")) or "none seen"),
            text(row.get("user_agent")),
            case.called(text(row.get("client"))),
            case.called(text(row.get("server")), number(row.get("port"))),
            f"{number(row.get('count')):,}",
            from_t0(case, row.get("first_ns")),
        ),
    )


def ssh(case: Case) -> Sequence[Block]:
    """Software, by its banner."""
    return listed(
        case,
        "ssh",
        "Software that speaks SSH",
        "Address|Says:m|First:n|Packet:n|Filter:f",
        lambda row: (
            case.called(text(row.get("address"))),
            text(row.get("banner")),
            from_t0(case, row.get("first_ns")),
        ),
    )


def icmp(case: Case) -> Sequence[Block]:
    """Messages, by type."""
    return listed(
        case,
        "icmp",
        "ICMP messages",
        "Type|Code|From|To|Count:n|Bytes:n|First:n|Packet:n|Filter:f",
        lambda row: (
            any_of(row.get("type")),
            any_of(row.get("code")),
            case.called(text(row.get("client"))),
            case.called(text(row.get("server"))),
            f"{number(row.get('count')):,}",
            words.size(number(row.get("bytes"))),
            from_t0(case, row.get("first_ns")),
        ),
    )


def credentials(case: Case) -> Sequence[Block]:
    """What everybody on the way could read, masked."""
    return listed(
        case,
        "credentials",
        "Passwords and tokens that everybody on the way could read; they are masked here, not in the evidence",
        "Protocol|User:m|Secret|Client|Server|First:n|Packet:n|Filter:f",
        lambda row: (
            text(row.get("proto")),
            text(row.get("user")),
            text(row.get("secret")),
            case.called(text(row.get("client"))),
            case.called(text(row.get("server")), number(row.get("port"))),
            from_t0(case, row.get("first_ns")),
        ),
    )


def files(case: Case) -> Sequence[Block]:
    """What was transferred, by hash."""
    return listed(
        case,
        "files",
        "Files that were transferred; they were hashed, never opened",
        "Name:m|By|Type|Bytes:n|Whole|SHA-256:m|MD5:m|Client|Server|First:n|Packet:n|Filter:f",
        lambda row: (
            text(row.get("name")),
            text(row.get("source")),
            text(row.get("type")),
            f"{number(row.get('bytes')):,}",
            "yes" if row.get("complete") else "no",
            text(row.get("sha256")),
            text(row.get("md5")),
            case.called(text(row.get("client"))),
            case.called(text(row.get("server"))),
            from_t0(case, row.get("first_ns")),
        ),
    )


def experts(case: Case) -> Sequence[Block]:
    """What tshark's expert information remarks."""
    return listed(
        case,
        "experts",
        "Tshark's expert information",
        "Severity|Group|Protocol|Remark|Count:n|Packet:n|Filter:f",
        lambda row: (
            text(row.get("severity")),
            text(row.get("group")),
            text(row.get("proto")),
            text(row.get("summary")),
            f"{number(row.get('count')):,}",
        ),
    )
