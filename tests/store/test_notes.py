"""Notes are kept in the catalogue, in SQLite as in PostgreSQL."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tripshark.errors import NotFound, Refused
from tripshark.model.evidence import IncidentId
from tripshark.model.note import Note
from tripshark.store.catalogue import SqlCatalogue
from tripshark.store.notes import SqlNotes

NOTE = Note(
    id=f"{1:016x}", incident=IncidentId("i-1"), file="evidence.pcapng", frame=9,
    text="ein Wort\nzwei <b>", by="ana", at_ns=5,
)  # fmt: skip


async def test_notes_are_found_by_packet_and_taken_back(place: Path | str) -> None:
    """In the order of file and packet; of another incident none; what is not there cannot be taken back."""
    catalogue = await SqlCatalogue.open(place)
    notes = SqlNotes(catalogue)
    second = replace(NOTE, id=f"{2:016x}", frame=3)
    await notes.add(NOTE)
    await notes.add(second)
    await notes.add(replace(NOTE, id=f"{3:016x}", incident=IncidentId("i-2")))
    assert await notes.of(NOTE.incident) == [second, NOTE]
    await notes.remove(NOTE.incident, second.id)
    assert await notes.of(NOTE.incident) == [NOTE]
    with pytest.raises(NotFound):
        await notes.remove(IncidentId("i-2"), NOTE.id)
    await catalogue.close()


async def test_an_incident_has_so_many_and_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One more is refused, and says what to do."""
    monkeypatch.setattr("tripshark.store.notes.MAX_NOTES", 5)
    catalogue = await SqlCatalogue.open(tmp_path / "catalogue.db")
    notes = SqlNotes(catalogue)
    for number in range(5):
        await notes.add(replace(NOTE, id=f"{number:016x}"))
    with pytest.raises(Refused, match="at most"):
        await notes.add(replace(NOTE, id=f"{5:016x}"))
    await catalogue.close()
