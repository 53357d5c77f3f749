"""The first page: what happened, who, when, what is proven and what is not, in sentences without jargon.

Nothing is claimed here that is not in the manifest or in the findings, and what the packets cannot show is said.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from tripshark.model.evidence import Word
from tripshark.model.finding import Conversation, Findings, Severity
from tripshark.report import words
from tripshark.report.case import AlertTold, Case, Pod
from tripshark.report.document import Answer, As, Facts

BY_HAND = "Capture by hand"  # the name under which a capture without an alert is kept
_FEW = 6
_WORDS = {
    Word.COMPLETE: "Nothing that was asked for is known to be missing.",
    Word.TRUNCATED: "Packets are missing or were cut short; what is known of that is listed under Completeness.",
    Word.EXPIRED: "The recording did not reach back as far as was asked; since when it is whole is listed under "
    "Completeness.",
    Word.INTERRUPTED: "The capture was cut off and saved afterwards; what is known to be missing is listed under "
    "Completeness.",
}
_SEVERE = {
    Severity.INFO: "for information",
    Severity.LOW: "low",
    Severity.MEDIUM: "medium",
    Severity.HIGH: "high",
    Severity.CRITICAL: "critical",
}


def lead(case: Case) -> str:
    """The one paragraph."""
    if case.findings is not None and case.findings.summary:
        return case.findings.summary
    if not case.packets:
        return (
            f"No packet of {case.title} was captured in the window. That is evidence too: what was recorded, and "
            "what of it is missing, is listed under Completeness."
        )
    why = f" ({case.problem})" if case.problem else ""
    return (
        f"{words.count(case.packets, 'packet')} of {case.title} were captured and sealed, and have not been "
        f"read yet{why}. The evidence itself is whole and can be opened in Wireshark."
    )


def facts(case: Case) -> Facts:
    """What stands at the top: name and value."""
    first, last = case.seen
    rows = [
        ("Severity", _severity(case), As.TEXT),
        ("Target", case.title, As.MONO),
        ("Alert at (T0)", words.moment(case.t0_ns, 6), As.TEXT),
        ("Packets", f"{case.packets:,}, {words.size(_bytes(case))}", As.TEXT),
        ("Completeness", case.manifest.ledger.word.value, As.TEXT),
        ("Incident", case.id, As.MONO),
    ]
    if first:
        between = f"{words.offset(first, case.t0_ns)} to {words.offset(last, case.t0_ns)} of T0"
        rows.insert(4, ("First to last packet", between, As.TEXT))
    return Facts(tuple(rows))


def answers(case: Case) -> tuple[Answer, ...]:
    """Each of a reader's first questions."""
    asked = (
        ("What happened", _what(case)),
        ("Who", _who(case)),
        ("When", _when(case)),
        ("What the packets prove", _proven(case)),
        ("What they do not prove", _unproven(case)),
    )
    told = [Answer(question=name, sentences=tuple(said)) for name, said in asked]
    return tuple(each for each in told if each.sentences)


def by_hand(case: Case) -> bool:
    """Nobody's alert: somebody asked for the capture."""
    return bool(case.alerts) and all(each.rule == BY_HAND for each in case.alerts)


def _severity(case: Case) -> str:
    found = case.findings.findings if case.findings is not None else ()
    worst = [each for each in found if each.severity is case.severity]
    if worst:
        whose = "by finding " + words.listed([each.id for each in worst], 3)
    else:
        whose = "by Falco's word" if case.alerts and not by_hand(case) else "nothing was found"
    return f"{_SEVERE[case.severity]} ({whose})"


def _bytes(case: Case) -> int:
    told = case.what.get("bytes")
    return told if type(told) is int and told > 0 else 0


def _what(case: Case) -> Iterator[str]:
    alerts = case.alerts
    if not alerts:
        yield "No alert is kept with this evidence."
        return
    if by_hand(case):
        yield f"A capture was asked for by hand ({alerts[0].via or 'nobody is named'})."
        return
    copies = case.alerts_counted
    named = dict.fromkeys(f"“{each.rule}” ({each.priority})" for each in alerts)
    times = "once" if copies == 1 else f"{copies:,} times"
    yield f"Falco raised an alert {times}: {words.listed(list(named), 4)}."
    did = next((each for each in alerts if each.cmdline or each.process), None)
    if did is not None:
        yield f"It names the process {did.process or 'without a name'}{_command(did)}."


def _command(alert: AlertTold) -> str:
    return f", run as “{alert.cmdline}”" if alert.cmdline else ""


def _who(case: Case) -> Iterator[str]:
    own = [each for each in case.pods if each.end == "own"] or list(case.pods)
    yield _sentence(f"{'; '.join(_person(each) for each in own[:_FEW])}{_more(len(own))}.")
    others = [each for each in case.pods if each.end != "own"]
    if others:
        yield f"The other end was recorded too: {'; '.join(_person(each) for each in others[:_FEW])}."
    flow = case.findings.flow if case.findings is not None else None
    if flow is not None:
        yield f"The other end of the connection that the alert names: {_peer(case, flow)}."


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def _more(length: int) -> str:
    return f" and {length - _FEW} more" if length > _FEW else ""


def _person(pod: Pod) -> str:
    if not (pod.name and pod.namespace):
        return f"the network namespace {pod.target}"
    of = f", part of {pod.owner}" if pod.owner else ""
    on = f", on node {pod.node}" if pod.node else ""
    return f"the pod {pod.name} in namespace {pod.namespace}{of}{on}"


def _peer(case: Case, flow: Conversation) -> str:
    known = case.called(flow.b, flow.b_port)
    app = f", spoken: {flow.app}" if flow.app.lower() not in ("", "data", flow.proto) else ""
    return f"{known}, {flow.proto.upper()}{app}"


def _when(case: Case) -> Iterator[str]:
    yield f"The alert's event happened at {words.moment(case.t0_ns)}; that moment is called T0 below."
    first, last = case.seen
    if first:
        yield (
            f"The packets are from {words.relative(first, case.t0_ns)} to {words.relative(last, case.t0_ns)}."
        )
    asked = case.asked
    if asked[1]:
        yield (
            f"Asked for was the time from {words.relative(asked[0], case.t0_ns)} to "
            f"{words.relative(asked[1], case.t0_ns)}."
        )
    covered = case.covered
    if covered[1]:
        yield (
            f"The recording is whole from {words.relative(covered[0], case.t0_ns)} to "
            f"{words.relative(covered[1], case.t0_ns)}, but for what is listed under Completeness."
        )
    for pod in case.pods:
        if pod.gone_ns:
            yield f"{pod.title} ended {words.relative(pod.gone_ns, case.t0_ns)}."


def _proven(case: Case) -> Iterator[str]:
    findings = case.findings
    if findings is None:
        if not case.packets:
            yield "That none of the packets asked for was seen while it was recorded."
        return
    flow = findings.flow
    if flow is not None:
        start = (
            "from its first packet" if flow.from_start else "though perhaps not from its beginning"
        )
        yield (
            f"The connection that the alert names is in the evidence, {start}: {words.size(flow.bytes_ab)} went out, "
            f"{words.size(flow.bytes_ba)} came back (first seen in packet {flow.frame})."
        )
    elif findings.flow_captured is False:
        yield "No packet of the connection that the alert names was captured."
    claims = [each for each in findings.findings if each.frames and each.checked]
    told = {"alert-flow"} if flow is not None else set()  # just said
    grave = [
        each
        for each in claims
        if each.severity.rank >= Severity.MEDIUM.rank and each.kind not in told
    ]
    for each in islice(grave, _FEW):
        yield f"{each.title} ({each.severity}, finding {each.id}, packet {each.frames[0]}{_and(each.frames)})."
    rest = sum(each.kind not in told for each in claims) - min(len(grave), _FEW)
    if rest and grave:
        yield f"{words.count(rest, 'further finding')} {'is' if rest == 1 else 'are'} listed below."
    elif rest:
        yield f"Nothing graver; {words.count(rest, 'finding')} {'is' if rest == 1 else 'are'} listed below."
    elif not grave:
        yield "The analysis found nothing beyond that."


def _and(frames: tuple[int, ...]) -> str:
    return " and others" if len(frames) > 1 else ""


def _unproven(case: Case) -> Iterator[str]:
    yield _WORDS[case.manifest.ledger.word]
    findings = case.findings
    if findings is None:
        if case.packets:
            yield "The packets have not been analysed: nothing below says what is in them."
    else:
        yield from _limits(findings)
    if case.alerts and not by_hand(case):
        yield "Which program sent the packets is Falco's word; packets do not show it."


def _limits(findings: Findings) -> Iterator[str]:
    if not findings.complete:
        yield "The analysis did not get to the end of the packets."
    elif findings.truncated:
        yield "There was more than the lists below can hold; they show the beginning."
    if findings.tls:
        talks = words.count(len(findings.tls), "encrypted connection or server", "encrypted ones")
        yield f"What was said inside encrypted connections cannot be read ({talks} listed under TLS)."
    unchecked = [each.id for each in findings.findings if not each.checked and each.frames]
    if unchecked:
        yield f"Not checked against the packets a second time: {words.listed(unchecked)}."
