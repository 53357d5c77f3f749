"""The ledger's entries stand among the findings, without frames and without hiding the others."""

from __future__ import annotations

from dataclasses import replace

from tests.model.test_finding import CLAIM, FINDINGS
from tripshark.model.claim import NOT_CAPTURED
from tripshark.model.evidence import Entry, Ledger, Word
from tripshark.model.finding import Findings, Severity
from tripshark.model.gaps import MAX_GAPS, with_ledger

ENTRIES = (
    Entry(kind="limit", message="an honest word", word=Word.COMPLETE),
    Entry(
        kind="kernel_drops",
        message="7 packets\x1b[2J",
        word=Word.TRUNCATED,
        count=7,
        from_ns=5,
        to_ns=9,
    ),
    Entry(kind="expired", message="the history was too short", word=Word.EXPIRED, from_ns=-1),
)


def test_every_entry_of_the_ledger_is_a_finding_without_frames() -> None:
    """Its severity follows its word, its number those that were there, and foreign text is made printable."""
    found = with_ledger(FINDINGS, Ledger(entries=ENTRIES))
    assert found.findings[0] == CLAIM
    gaps = found.findings[1:]
    assert [(each.id, each.severity) for each in gaps] == [
        ("F2", Severity.MEDIUM),
        ("F3", Severity.LOW),
        ("F4", Severity.INFO),
    ]
    assert {each.kind for each in gaps} == {NOT_CAPTURED}
    assert not any(each.frames or each.filter for each in gaps)
    assert gaps[1].title == "Not captured: kernel drops"
    assert gaps[1].text == "7 packets\\x1b[2J"
    assert gaps[1].about == {"entry": "kernel_drops", "word": "truncated", "count": "7"}
    assert (gaps[1].first_ns, gaps[1].last_ns, gaps[0].first_ns) == (5, 9, 0)
    assert gaps[2].title == "About the capture: limit"
    assert Findings.from_json(found.as_json()) == found


def test_a_complete_ledger_adds_nothing() -> None:
    """Nothing missing, nothing said."""
    assert with_ledger(FINDINGS, Ledger()) == FINDINGS


def test_a_long_ledger_is_cut_and_says_so() -> None:
    """The most severe entries stay; a note counts the others."""
    many = Ledger(entries=ENTRIES[:2] * MAX_GAPS)
    found = with_ledger(replace(FINDINGS, findings=()), many)
    assert len(found.findings) == MAX_GAPS
    assert {each.severity for each in found.findings} == {Severity.LOW}
    assert found.findings[0].id == "F1"
    assert f"{MAX_GAPS} more entries" in found.notes[-1]
