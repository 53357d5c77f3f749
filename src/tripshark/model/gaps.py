"""What was not captured, as findings: the ledger's entries beside the claims about what was."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from tripshark.model.claim import MAX_FINDINGS, NOT_CAPTURED, Finding, Severity
from tripshark.model.evidence import Entry, Ledger, Word
from tripshark.model.finding import Findings
from tripshark.model.text import printable

_SEVERITIES: Final = {
    Word.COMPLETE: Severity.INFO,
    Word.TRUNCATED: Severity.LOW,
    Word.EXPIRED: Severity.MEDIUM,
    Word.INTERRUPTED: Severity.MEDIUM,
}
"""What is said for honesty's sake informs; lost packets may hide something; a lost beginning or end often does."""
MAX_GAPS: Final = 40


def with_ledger(findings: Findings, ledger: Ledger) -> Findings:
    """The findings with one more for each of the ledger's entries, the most severe first among all.

    They cite no frame and need no check: they are about packets that are not there, and it is the manifest's word.
    Numbers of the findings that were there stay as they are.
    """
    entries = sorted(ledger.entries, key=lambda each: -_SEVERITIES[each.word].rank)
    room = max(0, min(MAX_GAPS, MAX_FINDINGS - len(findings.findings)))
    first = 1 + max((int(each.id[1:]) for each in findings.findings), default=0)
    more = tuple(_gap(f"F{first + at}", each) for at, each in enumerate(entries[:room]))
    notes = findings.notes
    if len(entries) > room:
        notes += (f"{len(entries) - room} more entries of the ledger stand in the manifest",)
    together = sorted((*findings.findings, *more), key=lambda each: -each.severity.rank)
    return replace(findings, findings=tuple(together), notes=notes)


def _gap(id: str, entry: Entry) -> Finding:
    kind = printable(entry.kind, 60)
    return Finding(
        id=id,
        kind=NOT_CAPTURED,
        severity=_SEVERITIES[entry.word],
        title=f"Not captured: {kind.replace('_', ' ')}"
        if entry.word is not Word.COMPLETE
        else f"About the capture: {kind.replace('_', ' ')}",
        text=printable(entry.message, 600),
        first_ns=max(0, entry.from_ns),
        last_ns=max(0, entry.to_ns),
        about={
            "entry": kind,
            "word": entry.word.value,
            **({"count": str(entry.count)} if entry.count else {}),
        },
        checked=True,
    )
