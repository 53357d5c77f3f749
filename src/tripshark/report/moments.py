"""What happened when: the picture's marks and the list of moments beside it."""

from __future__ import annotations

from collections.abc import Iterator

from tripshark.model.evidence import Entry, Word
from tripshark.model.finding import Activity
from tripshark.report import words
from tripshark.report.case import Case
from tripshark.report.document import As, Block, Column, Paragraph, Section, table
from tripshark.report.picture import Gap, Mark, Picture

_MISSING = frozenset({"target_gone"})  # entries that lie in time without anything missing


def section(case: Case, prefix: str) -> Section:
    """Picture, figures and moments."""
    blocks: list[Block] = [picture(case)]
    if case.findings is not None and case.findings.activity.packets_out:
        blocks.append(_figures(case, case.findings.activity))
    moments = sorted(set(_moments(case)))
    blocks.append(
        table(
            "Moments",
            (Column("Time (UTC)", As.MONO), Column("From T0", As.NUMBER), Column("What")),
            ((words.moment(at, 6), words.offset(at, case.t0_ns), what) for at, what in moments),
        )
    )
    if case.node:
        blocks.insert(0, Paragraph(f"As node {case.node} recorded it."))
    return Section(id=f"{prefix}timeline", title="Timeline", blocks=tuple(blocks))


def picture(case: Case) -> Picture:
    """The packets in time with what happened around them."""
    activity = case.findings.activity if case.findings is not None else Activity()
    begin, end = _extent(case, activity)
    marks = (
        *(
            Mark(
                each.time_ns,
                "alert",
                f"{each.priority} {each.rule}, {_at(case, each.time_ns)}",
            )
            for each in case.alerts
        ),
        *(
            Mark(at, kind, f"{pod.title} {verb}, {_at(case, at)}")
            for pod in case.pods
            for at, kind, verb in (
                (pod.since_ns, "born", "seen first"),
                (pod.gone_ns, "gone", "ended"),
            )
            if at
        ),
    )
    gaps = tuple(
        Gap(each.from_ns, each.to_ns or each.from_ns, each.message)
        for each in case.entries
        if each.from_ns and each.kind not in _MISSING and each.word is not Word.COMPLETE
    )
    return Picture(
        title=f"Packets over time, {words.span(end - begin)} around the alert",
        description=_in_words(case, activity, marks, gaps),
        t0_ns=case.t0_ns,
        from_ns=begin,
        to_ns=end,
        covered=case.covered,
        activity=activity,
        marks=marks,
        gaps=gaps,
    )


def _at(case: Case, ns: int) -> str:
    return words.relative(ns, case.t0_ns, "T0")


def _extent(case: Case, activity: Activity) -> tuple[int, int]:
    """From when to when is drawn: all packets and alerts of the window, and the window unless it is much longer."""
    since, until = case.covered
    times = [case.t0_ns, *(at for at in case.seen if at)]
    if activity.step_ns and activity.packets_out:
        times += [
            activity.start_ns,
            activity.start_ns + activity.step_ns * len(activity.packets_out),
        ]
    if until:
        times += [each.time_ns for each in case.alerts if since <= each.time_ns <= until]
    begin, end = min(times), max(times)
    wide = max(end - begin, 1_000_000)
    if until > since and until - since <= 4 * wide:
        begin, end = min(begin, since), max(end, until)
    margin = max((end - begin) // 25, 40_000)
    return begin - margin, end + margin


def _in_words(
    case: Case, activity: Activity, marks: tuple[Mark, ...], gaps: tuple[Gap, ...]
) -> str:
    out, into = sum(activity.packets_out), sum(activity.packets_in)
    said = [
        f"{words.count(out, 'packet')} out of and {words.count(into, 'packet')} into the target."
        if activity.packets_out
        else "There is no count of packets over time."
    ]
    said += [f"{each.text}." for each in marks[:6]]
    if len(marks) > 6:
        said.append(f"And {len(marks) - 6} more marks.")
    said.append(
        f"{words.count(len(gaps), 'time')} of which something is missing."
        if gaps
        else "No time of which something is known to be missing."
    )
    return " ".join(said)


def _figures(case: Case, activity: Activity) -> Block:
    """The picture again, as a table."""
    step = activity.step_ns or 1
    split = min(max(-(-(case.t0_ns - activity.start_ns) // step), 0), len(activity.packets_out))
    columns = (activity.packets_out, activity.bytes_out, activity.packets_in, activity.bytes_in)
    rows = []
    for name, part in (
        ("Before T0", slice(0, split)),
        ("From T0 on", slice(split, None)),
        ("Together", slice(0, None)),
    ):
        out, out_bytes, into, into_bytes = (sum(column[part]) for column in columns)
        rows.append((name, f"{out:,}", words.size(out_bytes), f"{into:,}", words.size(into_bytes)))
    return table(
        "The picture in figures",
        (
            Column("Time"),
            Column("Packets out", As.NUMBER),
            Column("Bytes out", As.NUMBER),
            Column("Packets in", As.NUMBER),
            Column("Bytes in", As.NUMBER),
        ),
        rows,
    )


def _moments(case: Case) -> Iterator[tuple[int, str]]:
    first, last = case.seen
    for each in case.alerts:
        copies = (
            f", {words.count(each.repeats, 'further copy', 'further copies')}"
            if each.repeats
            else ""
        )
        yield each.time_ns, f"Alert: {each.priority} {each.rule}{copies}"
    if first:
        yield first, "First packet"
        yield last, "Last packet"
    flow = case.findings.flow if case.findings is not None else None
    if flow is not None and flow.first_ns != first:
        peer = case.called(flow.b, flow.b_port)
        yield flow.first_ns, f"First packet of the alert's connection, with {peer}"
    for pod in case.pods:
        if pod.since_ns and pod.since_ns >= min(case.asked[0] or pod.since_ns, case.t0_ns):
            yield pod.since_ns, f"{pod.title} was seen first"
        if pod.gone_ns:
            yield pod.gone_ns, f"{pod.title} ended"
    yield from _changed(case)
    for entry in case.entries:
        if entry.from_ns and entry.kind not in _MISSING:
            yield entry.from_ns, _missing(entry)
    opened = case.when.get("opened_ns")
    if type(opened) is int and opened > 0:
        yield opened, "The alert arrived and the recording was frozen"
    yield case.manifest.created_ns, "The evidence was sealed"


def _missing(entry: Entry) -> str:
    until = (
        f" (for {words.span(entry.to_ns - entry.from_ns)})" if entry.to_ns > entry.from_ns else ""
    )
    return f"Missing: {entry.message}{until}" if entry.word is not Word.COMPLETE else entry.message


def _changed(case: Case) -> Iterator[tuple[int, str]]:
    """Addresses that changed hands."""
    several: dict[str, set[str]] = {}
    for each in case.holders:
        several.setdefault(each.address, set()).add(each.name)
    for each in case.holders:
        if len(several[each.address]) > 1:
            if each.from_ns:
                yield each.from_ns, f"{each.address} belongs to {each.name}"
            if each.to_ns:
                yield each.to_ns, f"{each.address} no longer belongs to {each.name}"
