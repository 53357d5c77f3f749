"""The promise behind a 202."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.respond.worlds import ManualClock, an_alert
from tripshark.errors import Transient
from tripshark.model.alert import AlertId
from tripshark.model.evidence import IncidentId
from tripshark.respond.intake import Fate, Intake, Recent
from tripshark.store.journal import FileJournal


async def test_the_same_bytes_are_stored_once_and_counted_each_time(tmp_path: Path) -> None:
    """A copy becomes a reference to the first; its sender is told so."""
    journal = await FileJournal.open(tmp_path / "journal")
    intake = Intake(journal, ManualClock(), Recent())
    first = await intake.accept(an_alert(), b"{}" * 500, "webhook")
    again = await intake.accept(an_alert(), b"{}" * 500, "webhook")
    assert (first.duplicate, again.duplicate, again.alert) == (False, True, first.alert)
    records = await journal.read(0, 10)
    assert [(len(r.body), r.repeat_of) for r in records] == [(1000, 0), (0, records[0].seq)]
    await journal.close()


async def test_the_same_event_in_other_bytes_is_a_duplicate(tmp_path: Path) -> None:
    """Falco and Falcosidekick print one event differently."""
    journal = await FileJournal.open(tmp_path / "journal")
    recent = Recent()
    intake = Intake(journal, ManualClock(), recent)
    first = await intake.accept(an_alert(), b"one", "webhook")
    recent.settle(1, Fate(AlertId("a-1"), IncidentId("i-1")))
    again = await intake.accept(an_alert(), b"two", "file")
    assert again.duplicate
    assert again.alert == first.alert
    assert again.incident == "i-1"
    other = await intake.accept(an_alert(time_ns=2), b"three", "webhook")
    assert not other.duplicate
    await journal.close()


async def test_what_cannot_be_stored_is_not_promised(tmp_path: Path) -> None:
    """A closed journal is an error, and the bytes are not taken for stored afterwards."""
    journal = await FileJournal.open(tmp_path / "journal")
    intake = Intake(journal, ManualClock(), Recent())
    await journal.close()
    for _ in range(2):
        with pytest.raises(Transient):
            await intake.accept(an_alert(), b"x", "webhook")
