"""Notes over HTTP: written at a packet, shown, taken back, and told to custody."""

from __future__ import annotations

import httpx2
import pytest

from tests.web.test_api import client, shape
from tripshark.store.notes import SqlNotes


async def test_a_note_is_written_shown_and_taken_back(world) -> None:
    """Each step is a line of custody, without the words of the note."""
    told: list[tuple[object, ...]] = []
    path = f"/v1/incidents/{world.incident.id}/notes"
    changes = {
        "notes": SqlNotes(world.catalogue), "deed": lambda *deed: told.append(deed),
    }  # fmt: skip
    async with world.served(**changes) as port, client(port) as http:
        made = await http.post(path, json={"frame": 3, "text": "<b>\x1b[1m"})
        assert made.status_code == 201
        note = made.json()
        assert (note["frame"], note["text"], note["file"]) == (3, "<b>\\x1b[1m", "evidence.pcapng")
        assert (await http.get(path)).json() == {"incident": world.incident.id, "notes": [note]}
        gone = await http.delete(made.headers["location"])
        assert (gone.status_code, gone.content) == (204, b"")
        assert shape(await http.delete(made.headers["location"]))["code"] == "not_found"
        assert (await http.get(path)).json()["notes"] == []
    assert [each[1] for each in told] == ["noted", "note removed"]
    assert told[0][3] == {"note": note["id"], "file": "evidence.pcapng", "frame": 3}


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        ({"json": {"frame": 0, "text": "a"}}, 400),
        ({"json": {"frame": 1, "text": ""}}, 400),
        ({"json": {"frame": 1, "text": "a", "file": "../x.pcapng"}}, 400),
        ({"json": {"frame": 1, "text": "a", "more": 1}}, 400),
        ({"content": b"{}", "headers": {"content-type": "text/plain"}}, 415),
        ({"json": {"frame": 1, "text": "a" * 70_000}}, 413),
    ],
)
async def test_what_is_no_note_is_refused(world, sent, status) -> None:
    """In the one shape, and nothing is kept."""
    notes = SqlNotes(world.catalogue)
    async with world.served(notes=notes) as port, client(port) as http:
        answer: httpx2.Response = await http.post(
            f"/v1/incidents/{world.incident.id}/notes", **sent
        )
    assert answer.status_code == status
    shape(answer)
    assert await notes.of(world.incident.id) == []
