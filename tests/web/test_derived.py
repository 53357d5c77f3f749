"""Captures derived for one answer: with notes for analysts, without addresses for others."""

from __future__ import annotations

import hashlib
from pathlib import Path

from tests.web.test_api import client, shape
from tripshark.formats import pcapng
from tripshark.model.evidence import IncidentId, Ledger, Manifest
from tripshark.model.note import Note
from tripshark.store.notes import SqlNotes

DEMO = (Path(__file__).parents[1] / "captures" / "incident-demo.pcapng").read_bytes()
ID = IncidentId("20261124-0002")


async def _captured(world, make) -> SqlNotes:
    """One more incident, with real packets and a note."""
    incident = make["incident"](2)
    draft = world.vault.begin(ID, incident.opened_ns)
    with draft.create("evidence.pcapng") as file:
        file.write(DEMO)
    manifest = Manifest(
        incident=ID, created_ns=1, ledger=Ledger(), files=(),
        details={"who": {"namespace": "payments"}},
    )  # fmt: skip
    draft.seal(manifest, ["evidence.pcapng"])
    await world.catalogue.put(incidents=[incident])
    notes = SqlNotes(world.catalogue)
    note = Note(
        id="0123456789abcdef", incident=ID, file="evidence.pcapng", frame=1, text="seen",
        by="ana", at_ns=1,
    )  # fmt: skip
    await notes.add(note)
    return notes


async def test_a_copy_has_the_notes(world, make) -> None:
    """As comments, beside the hash of what it was copied from; without notes it is what was sealed."""
    told: list[tuple[object, ...]] = []
    notes = await _captured(world, make)
    changes = {"notes": notes, "deed": lambda *deed: told.append(deed)}
    async with world.served(**changes) as port, client(port) as http:
        answer = await http.get(f"/v1/incidents/{ID}/annotated.pcapng")
        await notes.remove(ID, "0123456789abcdef")
        plain = await http.get(f"/v1/incidents/{ID}/annotated.pcapng?file=evidence.pcapng")
    assert answer.headers["content-disposition"] == (
        f'attachment; filename="{ID}-evidence-annotated.pcapng"'
    )
    read = pcapng.read(answer.content)
    assert "seen ⏎ (ana)" in read.comments[0]
    assert hashlib.sha256(DEMO).hexdigest() in read.section.comments[-1]
    assert plain.content == DEMO
    assert [each[1] for each in told] == ["exported", "exported"]


async def test_what_is_shared_hides(world, make) -> None:
    """Pseudonyms by default and new ones each time; what was asked for stands in custody."""
    told: list[tuple[object, ...]] = []
    await _captured(world, make)
    path = f"/v1/incidents/{ID}/shared.pcapng"
    async with (
        world.served(deed=lambda *deed: told.append(deed)) as port,
        client(port) as http,
    ):
        one, two = (await http.get(path)).content, (await http.get(path)).content
        kept = (await http.get(f"{path}?payloads=blanked")).content
        for wrong in ("payloads=all", "addresses=none", "payloads=full&addresses=pseudonyms"):
            answer = await http.get(f"{path}?{wrong}")
            assert answer.status_code == 400
            shape(answer)
    assert one != two
    assert b"checkout" not in one
    assert b"checkout" in kept
    assert [each[1] for each in told] == ["shared"] * 3
    assert told[0][3]["sha256"] == hashlib.sha256(one).hexdigest()
    assert told[2][3]["payloads"] == "blanked"


async def test_what_is_no_capture_is_told(world) -> None:
    """In the one shape."""
    async with world.served() as port, client(port) as http:
        answer = await http.get(f"/v1/incidents/{world.incident.id}/shared.pcapng")
    assert answer.status_code == 400
    assert "not a pcapng" in shape(answer)["message"]
