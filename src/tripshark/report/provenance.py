"""What a reader needs in order to trust the evidence: what is missing, whose it is, alerts, custody, how it was made."""

from __future__ import annotations

import json
from collections.abc import Sequence

from tripshark.model.evidence import Entry, Word
from tripshark.model.text import printable, visible
from tripshark.report import words
from tripshark.report.case import Case, Pod, group, number, text
from tripshark.report.document import (
    VERBATIM_BYTES,
    As,
    Block,
    Column,
    Facts,
    Paragraph,
    Verbatim,
    table,
)
from tripshark.report.rows import Row, filled, texts

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


# -------------------------------------------------------------------------------------- what is missing


def ledger(case: Case) -> Sequence[Block]:
    """Whether anything is missing, in a word and entry by entry."""
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


def kubernetes(case: Case) -> Sequence[Block]:
    """Every pod that was recorded."""
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


def alerts(case: Case) -> Sequence[Block]:
    """The alerts as they came, as many as there is room for."""
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


def custody(case: Case) -> Sequence[Block]:
    """Hashes, signature and the chain of custody."""
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


def made(case: Case) -> Sequence[Block]:
    """Machine, clock, tools, plans and interfaces."""
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
            filled(
                "Interfaces that were recorded",
                "Interface:m|Addresses:m|MAC:m|Opened:m|Packets seen:n|Lost in the kernel:n",
                (
                    (
                        text(each.get("name")),
                        ", ".join(texts(each.get("addresses"))),
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
