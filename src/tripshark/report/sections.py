"""Everything after the first page: findings, who was who, who talked to whom, what is missing, alerts, custody, tools."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence

from tripshark.model.alert import Json
from tripshark.model.attack import TACTICS, technique
from tripshark.model.evidence import Entry, Word
from tripshark.model.finding import KINDS, TABLES, Conversation, Finding
from tripshark.model.text import printable, visible
from tripshark.report import words
from tripshark.report.case import Case, Pod, group, number, sequence, text
from tripshark.report.document import (
    VERBATIM_BYTES,
    As,
    Block,
    Claim,
    Column,
    Facts,
    Paragraph,
    Section,
    Table,
    Verbatim,
    table,
)

Row = Mapping[str, Json]

_MEANS = {
    Word.COMPLETE: "said for completeness",
    Word.TRUNCATED: "packets are missing or cut",
    Word.EXPIRED: "the past was no longer there",
    Word.INTERRUPTED: "the capture was cut off",
}
_KINDS = {
    "cut": "packets cut short",
    "dedup": "seen twice",
    "expired": "past discarded",
    "flow_cut": "only headers kept",
    "kernel_drops": "lost in the kernel",
    "limit": "a limit was reached",
    "overwritten": "overwritten",
    "recorder_gap": "recorder restarted",
    "recorder_restart": "recorder restarted",
    "recording_began": "recording began late",
    "salvage": "saved after a crash",
    "snaplen": "packets cut short by rule",
    "target_gone": "pod ended",
    "tunnel": "tunnelled packets",
    "window_start": "past too short",
}


def sections(case: Case, prefix: str) -> Iterator[Section]:
    """In the order in which they are read."""
    made: tuple[tuple[str, str, Sequence[Block]], ...] = (
        ("findings", "Findings", _findings(case)),
        ("names", "Names", _names(case)),
        ("conversations", "Conversations", _conversations(case)),
        ("dns", "DNS", _dns(case)),
        ("tls", "TLS", _tls(case)),
        ("http", "HTTP", _http(case)),
        ("ssh", "SSH", _ssh(case)),
        ("icmp", "ICMP", _icmp(case)),
        ("credentials", "Credentials in clear text", _credentials(case)),
        ("files", "Files", _files(case)),
        ("experts", "What tshark remarks", _experts(case)),
        ("indicators", "Indicators", _indicators(case)),
        ("completeness", "Completeness", _ledger(case)),
        ("kubernetes", "Kubernetes", _kubernetes(case)),
        ("alerts", "Alerts as they came", _alerts(case)),
        ("custody", "Custody", _custody(case)),
        ("made", "How this was recorded", _made(case)),
    )
    fresh = {"findings", "completeness"}
    broad = {"conversations", *TABLES, "indicators"}
    for id, title, blocks in made:
        if blocks:
            yield Section(
                id=f"{prefix}{id}",
                title=title,
                blocks=tuple(blocks),
                fresh_page=id in fresh,
                is_broad=id in broad,
            )


# --------------------------------------------------------------------------------------------- findings


def _findings(case: Case) -> Sequence[Block]:
    if case.findings is None:
        why = case.problem or ("there are no packets" if not case.packets else "not analysed yet")
        return [Paragraph(f"There are no findings: {why}.")]
    blocks: list[Block] = [Paragraph(f"Note: {each}") for each in case.findings.notes]
    if not case.findings.findings:
        return [Paragraph("The analysis found nothing that it would point out."), *blocks]
    blocks.insert(
        0,
        Paragraph(
            "Each finding cites packets by Wireshark's numbers, and a display filter that shows them in "
            "Wireshark or tshark. Checked means: the filter was run a second time by another part of the "
            "program, and the packets are there."
        ),
    )
    blocks += [_claim(case, each) for each in case.findings.findings]
    return blocks


def _claim(case: Case, each: Finding) -> Claim:
    rows: list[tuple[str, str, As]] = [("Kind", KINDS.get(each.kind, each.kind), As.TEXT)]
    if each.frames:
        of = f" ({words.count(each.matches, 'packet')} in all)" if each.matches else ""
        rows.append(("Packets", ", ".join(map(str, each.frames)) + of, As.MONO))
    if each.first_ns:
        until = each.last_ns if each.last_ns > each.first_ns else 0
        when = f"{words.moment(each.first_ns)} ({words.offset(each.first_ns, case.t0_ns)})"
        if until:
            when += f" to {words.clock(until)} ({words.offset(until, case.t0_ns)})"
        rows.append(("When", when, As.TEXT))
    for id in each.techniques:
        known = technique(id)
        tactics = ", ".join(TACTICS[tactic] for tactic in known.tactics)
        rows.append(("ATT&CK", f"{known.title}{f' ({tactics})' if tactics else ''}", As.TEXT))
    about = "   ".join(f"{name}={value}" for name, value in each.about.items() if value)
    if about:
        rows.append(("About", about, As.MONO))
    return Claim(
        id=each.id,
        severity=each.severity,
        title=each.title,
        text=each.text,
        facts=Facts(tuple(rows)),
        checked=each.checked,
        filter=each.filter,
    )


# ------------------------------------------------------------------------------------------- who was who


def _names(case: Case) -> Sequence[Block]:
    held = [
        (
            each.address,
            each.name,
            each.kind,
            each.node,
            words.moment(each.from_ns) or "not known",
            words.moment(each.to_ns) or "still, when sealed",
        )
        for each in case.holders
    ]
    blocks: list[Block] = []
    if held:
        columns = ("Address", "Held by", "Kind", "Node", "From", "To")
        styles = (As.MONO, As.TEXT, As.TEXT, As.TEXT, As.MONO, As.MONO)
        blocks.append(
            table("Who held which address, and when", tuple(map(Column, columns, styles)), held)
        )
    if case.findings is not None and case.findings.names:
        blocks.append(
            table(
                "Names of addresses that DNS answers in this capture prove",
                (Column("Address", As.MONO), Column("Name", As.MONO)),
                sorted((text(each), text(name)) for each, name in case.findings.names.items()),
            )
        )
    return blocks


# -------------------------------------------------------------------------------------- what was said


def _conversations(case: Case) -> Sequence[Block]:
    findings = case.findings
    if findings is None:
        return []
    blocks: list[Block] = [
        _table(
            "Conversations, in the order of their first packets",
            "From |To |Proto|App|Out:n|Bytes out:n|In:n|Bytes in:n|Begins:n|Lasts:n|Remarks|Packet:n|Filter:f",
            (_conversation(case, each) for each in findings.conversations),
        )
    ]
    if findings.endpoints:
        blocks.append(
            _table(
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
                        *_where(row),
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
        _called(case, each.a, each.a_port),
        _called(case, each.b, each.b_port),
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


def _dns(case: Case) -> Sequence[Block]:
    return _listed(
        case,
        "dns",
        "Names that were asked for",
        "Name:m|Type|Answers:m|Outcome|Asked by|Of|Asked:n|First:n|Packet:n|Filter:f",
        lambda row: (
            text(row.get("name")),
            text(row.get("type")),
            ", ".join(text(each) for each in sequence(row.get("answers"))[:12]),
            text(row.get("rcode")) or ("" if row.get("answered") else "no answer seen"),
            _called(case, text(row.get("client"))),
            _called(case, text(row.get("server"))),
            f"{number(row.get('asked')):,}",
            _from_t0(case, row.get("asked_ns")),
        ),
    )


def _tls(case: Case) -> Sequence[Block]:
    return _listed(
        case,
        "tls",
        "Encrypted connections, by what the client said first",
        "Server name:m|Client|Server|Version|Cipher|ALPN|JA4:m|JA3:m|Count:n|First:n|Packet:n|Filter:f",
        lambda row: (
            text(row.get("name")) or "none given",
            _called(case, text(row.get("client"))),
            _called(case, text(row.get("server")), number(row.get("port"))),
            (text(row.get("version")) or "not seen")
            + (" over QUIC" if row.get("proto") == "udp" else ""),
            text(row.get("cipher")),
            ", ".join(_texts(row.get("alpn"))),
            text(row.get("ja4")),
            text(row.get("ja3")),
            f"{number(row.get('count')):,}",
            _from_t0(case, row.get("first_ns")),
        ),
    )


def _http(case: Case) -> Sequence[Block]:
    return _listed(
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
            _called(case, text(row.get("client"))),
            _called(case, text(row.get("server")), number(row.get("port"))),
            f"{number(row.get('count')):,}",
            _from_t0(case, row.get("first_ns")),
        ),
    )


def _ssh(case: Case) -> Sequence[Block]:
    return _listed(
        case,
        "ssh",
        "Software that speaks SSH",
        "Address|Says:m|First:n|Packet:n|Filter:f",
        lambda row: (
            _called(case, text(row.get("address"))),
            text(row.get("banner")),
            _from_t0(case, row.get("first_ns")),
        ),
    )


def _icmp(case: Case) -> Sequence[Block]:
    return _listed(
        case,
        "icmp",
        "ICMP messages",
        "Type|Code|From|To|Count:n|Bytes:n|First:n|Packet:n|Filter:f",
        lambda row: (
            _any(row.get("type")),
            _any(row.get("code")),
            _called(case, text(row.get("client"))),
            _called(case, text(row.get("server"))),
            f"{number(row.get('count')):,}",
            words.size(number(row.get("bytes"))),
            _from_t0(case, row.get("first_ns")),
        ),
    )


def _credentials(case: Case) -> Sequence[Block]:
    return _listed(
        case,
        "credentials",
        "Passwords and tokens that everybody on the way could read; they are masked here, not in the evidence",
        "Protocol|User:m|Secret|Client|Server|First:n|Packet:n|Filter:f",
        lambda row: (
            text(row.get("proto")),
            text(row.get("user")),
            text(row.get("secret")),
            _called(case, text(row.get("client"))),
            _called(case, text(row.get("server")), number(row.get("port"))),
            _from_t0(case, row.get("first_ns")),
        ),
    )


def _files(case: Case) -> Sequence[Block]:
    return _listed(
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
            _called(case, text(row.get("client"))),
            _called(case, text(row.get("server"))),
            _from_t0(case, row.get("first_ns")),
        ),
    )


def _experts(case: Case) -> Sequence[Block]:
    return _listed(
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


# ------------------------------------------------------------------------------------------- indicators


def _indicators(case: Case) -> Sequence[Block]:
    findings = case.findings
    if findings is None:
        return []
    matched = [each for each in findings.findings if each.kind == "indicator"]
    blocks: list[Block] = []
    if matched:
        named = ", ".join(each.id for each in matched)
        blocks.append(Paragraph(f"On the operator's lists of indicators: see {named} above."))
    seen = list(dict.fromkeys(_observed(case)))
    if seen:
        blocks.append(
            table(
                "What can be looked for elsewhere; being listed here says nothing against it",
                (Column("Kind"), Column("Value", As.MONO), Column("Seen as")),
                seen,
            )
        )
    return blocks


def _observed(case: Case) -> Iterator[tuple[str, str, str]]:
    findings = case.findings
    assert findings is not None  # noqa: S101  # the caller has looked
    for address in dict.fromkeys(each.b for each in findings.conversations):
        if address not in case.addresses:
            yield "address", address, case.name_of(address) or "a peer"
    for table_rows, kind, field, seen in (
        (findings.dns, "name", "name", "asked for by DNS"),
        (findings.tls, "name", "name", "a server name in TLS"),
        (findings.http, "name", "host", "a host in HTTP"),
        (findings.tls, "JA4", "ja4", "of a TLS client"),
        (findings.tls, "JA3", "ja3", "of a TLS client"),
        (findings.files, "SHA-256", "sha256", "of a file"),
        (findings.files, "MD5", "md5", "of a file"),
    ):
        for row in table_rows:
            if value := text(row.get(field)):
                yield kind, value, seen


# -------------------------------------------------------------------------------------- what is missing


def _ledger(case: Case) -> Sequence[Block]:
    ledger = case.manifest.ledger
    blocks: list[Block] = [
        Paragraph(
            f"In one word: {ledger.word}. "
            + (
                "Nothing is known to be missing from what was asked for."
                if ledger.word is Word.COMPLETE
                else "What is known to be missing stands here; the word is that of the worst entry."
            )
        )
    ]
    if case.entries:
        blocks.append(
            table(
                "Entries of the ledger",
                (
                    Column("What"),
                    Column("In words"),
                    Column("Means"),
                    Column("Count", As.NUMBER),
                    Column("From", As.MONO),
                    Column("To", As.MONO),
                ),
                (_entry(case, each) for each in case.entries),
            )
        )
    return blocks


def _entry(case: Case, each: Entry) -> tuple[str, ...]:
    def at(ns: int) -> str:
        return f"{words.moment(ns)} ({words.offset(ns, case.t0_ns)})" if ns else ""

    kind = _KINDS.get(each.kind) or each.kind.replace("_", " ")
    return (
        kind,
        each.message,
        _MEANS[each.word],
        f"{each.count:,}" if each.count else "",
        at(each.from_ns),
        at(each.to_ns),
    )


# --------------------------------------------------------------------------------------------- whose it is


def _kubernetes(case: Case) -> Sequence[Block]:
    return [_pod_facts(each) for each in case.pods]


def _pod_facts(pod: Pod) -> Facts:
    rows = [
        ("Recorded as", pod.target, As.MONO),
        ("Namespace", pod.namespace, As.MONO),
        ("Pod", pod.name, As.MONO),
        ("Pod UID", pod.uid, As.MONO),
        ("Owner", pod.owner, As.MONO),
        ("Node", pod.node, As.MONO),
        ("Service account", pod.service_account, As.MONO),
        ("Images", ", ".join(pod.images), As.MONO),
        ("Containers", ", ".join(pod.containers), As.MONO),
        (
            "Labels",
            ", ".join(f"{key}={value}" for key, value in sorted(pod.labels.items())),
            As.MONO,
        ),
        ("Seen since", words.moment(pod.since_ns), As.TEXT),
        ("Ended", words.moment(pod.gone_ns), As.TEXT),
        ("End of the connection", "the other one" if pod.end == "peer" else "", As.TEXT),
    ]
    return Facts(tuple(row for row in rows if row[1]))


def _alerts(case: Case) -> Sequence[Block]:
    blocks: list[Block] = []
    left = VERBATIM_BYTES
    for each in case.alerts:
        body = _pretty(each.verbatim)
        if len(body) > left:
            break
        left -= len(body)
        copies = (
            f", {words.count(each.repeats, 'further copy', 'further copies')}"
            if each.repeats
            else ""
        )
        blocks.append(
            Verbatim(
                f"{each.id}: {each.priority} {each.rule}, {words.moment(each.time_ns)}, by {each.via}{copies}",
                body,
            )
        )
    if len(blocks) < len(case.alerts):
        rest = words.count(len(case.alerts) - len(blocks), "further alert")
        blocks.append(Paragraph(f"{rest}: see manifest.json."))
    return blocks


def _pretty(body: str) -> str:
    """The alert as JSON that can be read, or as it came. Nothing in it is hidden."""
    try:
        shown = json.dumps(json.loads(body), indent=2, ensure_ascii=False)
    except (ValueError, RecursionError):
        shown = body
    return "\n".join(map(visible, shown.splitlines()))


# ------------------------------------------------------------------------------------------------ custody


def _custody(case: Case) -> Sequence[Block]:
    manifest = case.manifest
    signature = group(manifest.details.get("signature"))
    sealed = Facts(
        (
            ("Manifest SHA-256", case.manifest_sha256, As.MONO),
            ("Sealed", words.moment(manifest.created_ns, 9), As.TEXT),
            ("Signature", text(signature.get("algorithm")) or "none", As.TEXT),
            ("Key", text(signature.get("key_id")) or "none", As.MONO),
            ("To verify", f"tripshark verify {case.id}", As.FILTER),
        )
    )
    blocks: list[Block] = [
        Paragraph(
            "The evidence was hashed, its hashes were written into a manifest, and the manifest was signed. "
            "Verifying recomputes all of it. This report is no part of what was sealed: it was derived from it "
            "and can be made again."
        ),
        sealed,
        table(
            "Sealed files",
            (Column("File", As.MONO), Column("Bytes", As.NUMBER), Column("SHA-256", As.MONO)),
            ((each.name, f"{each.bytes:,}", each.sha256) for each in manifest.files),
        ),
    ]
    if case.custody_problem:
        blocks.append(Paragraph(f"Take care: {printable(case.custody_problem, 400)}."))
    if case.deeds:
        blocks.append(
            table(
                "Chain of custody when this was written",
                (
                    Column("Time (UTC)", As.MONO),
                    Column("What"),
                    Column("By whom"),
                    Column("Details", As.MONO),
                    Column("Link", As.MONO),
                ),
                (
                    (
                        words.moment(each.time_ns),
                        printable(each.what, 60),
                        printable(each.who, 200),
                        ", ".join(
                            f"{printable(str(key), 40)}={printable(str(value), 100)}"
                            for key, value in sorted(each.details.items())
                        ),
                        printable(each.hash, 64)[:16],
                    )
                    for each in case.deeds
                ),
            )
        )
    return blocks


def _made(case: Case) -> Sequence[Block]:
    tools = group(group(case.manifest.details.get("how")).get("tools"))
    clock = group(case.when.get("clock"))
    rows = [
        ("Machine", case.host, As.MONO),
        ("Kernel", text(case.where.get("kernel")), As.MONO),
        ("Clock", _clock(clock), As.TEXT),
        *(
            (text(name, 40).capitalize(), text(version), As.MONO)
            for name, version in sorted(tools.items())
        ),
    ]
    if case.findings is not None:
        held = ", ".join(case.findings.sandbox) or "none"
        rows += [("Read with", case.findings.tool, As.MONO), ("Sandbox", held, As.TEXT)]
    blocks: list[Block] = [Facts(tuple(row for row in rows if row[1]))]
    blocks += [_capture(case, each) for each in case.captures[:20]]
    if case.interfaces:
        blocks.append(
            _table(
                "Interfaces that were recorded",
                "Interface:m|Addresses:m|MAC:m|Opened:m|Packets seen:n|Lost in the kernel:n",
                (
                    (
                        text(each.get("name")),
                        ", ".join(_texts(each.get("addresses"))),
                        text(each.get("mac")),
                        words.moment(number(each.get("opened_ns"))),
                        f"{number(each.get('packets_seen')):,}",
                        f"{number(each.get('kernel_drops')):,}",
                    )
                    for each in case.interfaces
                ),
            )
        )
    return blocks


def _clock(clock: Row) -> str:
    said = [text(clock.get("source"), 40)]
    if "synchronised" in clock:
        said.append("synchronised" if clock.get("synchronised") else "not synchronised by NTP")
    if error := number(clock.get("maximum_error_us")):
        said.append(f"off by at most {words.span(error * 1000)}")
    return ", ".join(filter(None, said))


def _capture(case: Case, each: Row) -> Facts:
    before, after = number(each.get("before_ns")), number(each.get("after_ns"))
    rows = (
        ("Capture of", text(each.get("target")), As.TEXT),
        ("Rule", text(each.get("rule")), As.TEXT),
        ("Rule's SHA-256", text(each.get("rule_hash")), As.MONO),
        ("Scope", text(each.get("scope")), As.TEXT),
        ("Because", text(each.get("plan_reason"), 600), As.TEXT),
        ("Window", f"{words.span(before)} before to {words.span(after)} after T0", As.TEXT),
        ("Ended by", text(each.get("ended")), As.TEXT),
        ("Filter", text(each.get("filter"), 2000), As.FILTER),
        ("Packets", f"{number(each.get('packets')):,}", As.TEXT),
    )
    return Facts(tuple(row for row in rows if row[1]))


# ------------------------------------------------------------------------------------------------- tables


_STYLES = {"n": As.NUMBER, "m": As.MONO, "f": As.FILTER}


def _columns(said: str) -> tuple[Column, ...]:
    """`Name:m|Type` as columns; n a number, m of one width, f a filter."""
    parts = (each.partition(":") for each in said.split("|"))
    return tuple(Column(name.strip(), _STYLES.get(style, As.TEXT)) for name, _, style in parts)


def _table(caption: str, columns: str, rows: Iterator[tuple[str, ...]]) -> Table:
    return table(caption, _columns(columns), rows)


def _listed(
    case: Case, name: str, caption: str, columns: str, cells: Callable[[Row], tuple[str, ...]]
) -> Sequence[Block]:
    """One table of the findings, where it has rows."""
    rows: Sequence[Row] = getattr(case.findings, name) if case.findings is not None else ()
    if not rows:
        return []
    return [_table(caption, columns, ((*cells(row), *_where(row)) for row in rows))]


def _where(row: Row) -> tuple[str, str]:
    return str(number(row.get("frame")) or ""), text(row.get("filter"), 2000)


def _called(case: Case, address: str, port: int = 0) -> str:
    return case.called(address, port)


def _from_t0(case: Case, value: Json) -> str:
    at = number(value)
    return words.offset(at, case.t0_ns) if at else ""


def _texts(value: Json) -> list[str]:
    return [text(each) for each in sequence(value)[:20] if isinstance(each, str)]


def _any(value: Json) -> str:
    """A number or a text, whichever it is."""
    return str(value) if type(value) is int else text(value)
