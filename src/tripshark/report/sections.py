"""Everything after the first page: its order, the findings, who was who, and what can be looked for elsewhere."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tripshark.model.attack import TACTICS, technique
from tripshark.model.finding import KINDS, TABLES, Finding
from tripshark.report import provenance, said, words
from tripshark.report.case import Case, text
from tripshark.report.document import As, Block, Claim, Column, Facts, Paragraph, Section, table


def sections(case: Case, prefix: str) -> Iterator[Section]:
    """In the order in which they are read."""
    made: tuple[tuple[str, str, Sequence[Block]], ...] = (
        ("findings", "Findings", _findings(case)),
        ("names", "Names", _names(case)),
        ("conversations", "Conversations", said.conversations(case)),
        ("dns", "DNS", said.dns(case)),
        ("tls", "TLS", said.tls(case)),
        ("http", "HTTP", said.http(case)),
        ("ssh", "SSH", said.ssh(case)),
        ("icmp", "ICMP", said.icmp(case)),
        ("credentials", "Credentials in clear text", said.credentials(case)),
        ("files", "Files", said.files(case)),
        ("experts", "What tshark remarks", said.experts(case)),
        ("indicators", "Indicators", _indicators(case)),
        ("completeness", "Completeness", provenance.ledger(case)),
        ("kubernetes", "Kubernetes", provenance.kubernetes(case)),
        ("alerts", "Alerts as they came", provenance.alerts(case)),
        ("custody", "Custody", provenance.custody(case)),
        ("made", "How this was recorded", provenance.made(case)),
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
