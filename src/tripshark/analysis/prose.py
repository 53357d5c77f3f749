"""The one paragraph that a person reads: who talked to whom, by which names, and how it sits with the alert."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import cast

from tripshark.analysis.words import amount, count, endpoint, relative, seconds, short
from tripshark.model.alert import Json
from tripshark.model.claim import NOT_CAPTURED
from tripshark.model.finding import (
    MAX_ROWS,
    MAX_SUMMARY,
    Conversation,
    Finding,
    Findings,
    Question,
    Severity,
)
from tripshark.model.text import printable

_FEW = 5  # names of a kind that are listed; the rest is counted
_TALKS = 3  # further conversations that are told


def summary(findings: Findings, question: Question) -> str:
    """One paragraph without line breaks, at most `MAX_SUMMARY` characters, safe to print.

    Text from packets and alerts is made printable and short; of a secret only its length is ever known here.
    """
    target = short(question.target) or "The target"
    if question.others:
        target += f" and {question.others} other pod{'s' if question.others > 1 else ''}"
    if not findings.packets:
        sentences = [f"No packet of {target} was found in the evidence."]
    else:
        sentences = [
            *_about_flow(findings, question, target),
            *_about_claims(findings),
            *_about_names(findings),
            *_about_others(findings, question, target),
            _in_all(findings),
        ]
    if not findings.complete:
        sentences.append("The analysis did not get to the end of the file.")
    sentences += [f"Note: {printable(note, 200)}." for note in findings.notes]
    return printable(" ".join(sentences), MAX_SUMMARY)


def _about_flow(findings: Findings, question: Question, target: str) -> Iterable[str]:
    flow = findings.flow
    if findings.flow_captured is None:
        yield "The alert names no flow."
        return
    if flow is None:
        yield "No packet of the flow named by the alert was captured."
        return
    yield _story(flow, findings, question, target)
    when = relative(question.t0_ns - flow.first_ns)
    if flow.from_start:
        yield f"The flow named by the alert was captured from its first packet (SYN), {when}."
    elif flow.proto == "tcp":
        yield f"The flow named by the alert was captured, but not its beginning: the first packet seen came {when}."
    else:
        yield f"The flow named by the alert was captured, from {when}."


def _about_claims(findings: Findings) -> Iterable[str]:
    """What stands out, most severe first; the alert's own flow has been told."""
    told = [
        each
        for each in findings.findings
        if each.severity.rank >= Severity.MEDIUM.rank
        and each.kind not in ("alert-flow", NOT_CAPTURED)
    ]
    if not told:
        return
    listed = "; ".join(f"{_title(each)} ({each.severity}, {each.id})" for each in told[:_FEW])
    more = f"; and {len(told) - _FEW} more" if len(told) > _FEW else ""
    yield f"What stands out: {listed}{more}."


def _title(claim: Finding) -> str:
    """Within a sentence: `the cloud metadata service …`, but `FTP credentials …` as it is."""
    first, second = claim.title[:1], claim.title[1:2]
    return first.lower() + claim.title[1:] if second.islower() or second == " " else claim.title


def _story(flow: Conversation, findings: Findings, question: Question, target: str) -> str:
    """`payments/checkout looked up c2.example (203.0.113.66) 0.8 s before the alert and then opened TCP …`."""
    ours = flow.opened_by == flow.a
    asked = _look_up(flow, findings) if ours else None
    peer = endpoint(flow.b, flow.b_port)
    how = flow.proto.upper()
    if asked is not None:
        when = relative(question.t0_ns - cast(int, asked["asked_ns"]))
        start = f"{target} looked up {short(str(asked['name']))} ({flow.b}) {when} and then opened {how} {peer}"
    else:
        name = _name_of(flow.b, findings, question)
        who = f"{peer} ({name})" if name else peer
        verb = "opened" if ours and flow.from_start else "spoke" if ours else "was sent"
        start = f"{target} {verb} {how} {'to' if verb == 'spoke' else 'from' if not ours else ''} {who}"
        start = " ".join(start.split())
    return f"{start}: {amount(flow)}{_said_inside(flow, findings)}."


def _look_up(flow: Conversation, findings: Findings) -> Mapping[str, Json] | None:
    """The latest question before the flow whose proven answer was the flow's peer."""
    fitting = [
        row
        for row in findings.dns
        if row.get("proven")
        and flow.b in cast(list[Json], row.get("answers") or [])
        and 0 < cast(int, row.get("asked_ns") or 0) <= flow.first_ns
    ]
    return max(fitting, key=lambda row: cast(int, row["asked_ns"]), default=None)


def _said_inside(flow: Conversation, findings: Findings) -> str:
    """SNI and HTTP host that went to the flow's own peer."""
    words = []
    for rows, field, title in (
        (findings.tls, "name", "TLS for"),
        (findings.http, "host", "HTTP for"),
    ):
        names = [
            str(row.get(field) or "")
            for row in rows
            if row.get("server") == flow.b and row.get("port") == flow.b_port
        ]
        if listed := _few(names):
            words.append(f"{title} {listed}")
    return f" ({', '.join(words)})" if words else ""


def _about_names(findings: Findings) -> Iterable[str]:
    for rows, field, title in (
        (findings.dns, "name", "DNS names asked for"),
        (findings.tls, "name", "TLS server names"),
        (findings.http, "host", "HTTP hosts"),
        (findings.ssh, "banner", "SSH"),
    ):
        if listed := _few(str(row.get(field) or "") for row in rows):
            yield f"{title}: {listed}."


def _about_others(findings: Findings, question: Question, target: str) -> Iterable[str]:
    """The largest further conversations, DNS left out since its names have been told."""
    others = [
        each
        for each in findings.conversations
        if each != findings.flow and each.b_port != 53 and "fragment" not in each.proto
    ]
    others.sort(key=lambda each: -each.bytes)
    if not others:
        return
    told = []
    for each in others[:_TALKS]:
        name = _name_of(each.b, findings, question)
        peer = endpoint(each.b, each.b_port)
        own = each.a in question.addresses
        side = "" if own else f"{endpoint(each.a, each.a_port)} with "
        carried = f", carrying {each.tunnel}" if each.tunnel else ""
        told.append(
            f"{side}{each.proto.upper()} {peer}{f' ({name})' if name else ''}{carried}: {amount(each)}"
        )
    more = len(others) - len(told)
    further = f"; and {count(more, 'other conversation')}" if more else ""
    opening = f"{target} also talked to" if findings.flow else f"{target} talked to"
    yield f"{opening} {'; '.join(told)}{further}."


def _in_all(findings: Findings) -> str:
    span = (findings.last_ns - findings.first_ns) / 1e9
    start = relative(round(findings.seconds_before_alert * 1e9))
    talks = len(findings.conversations)
    many = (
        f"more than {talks} conversations"
        if findings.truncated and talks >= MAX_ROWS
        else count(talks, "conversation")
    )
    return f"In all {count(findings.packets, 'packet')} and {many} within {seconds(span)}, from {start}."


def _name_of(address: str, findings: Findings, question: Question) -> str:
    """The cluster's own name first; a DNS name is only what somebody's server said."""
    return short(question.names.get(address) or findings.names.get(address) or "")


def _few(names: Iterable[str]) -> str:
    unique = [each for each in dict.fromkeys(names) if each]
    listed = ", ".join(map(short, unique[:_FEW]))
    return f"{listed} and {len(unique) - _FEW} more" if len(unique) > _FEW else listed
