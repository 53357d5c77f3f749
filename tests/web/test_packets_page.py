"""The page of an incident's packets: which files it offers, and what it says where there are none."""

from __future__ import annotations

import re
from dataclasses import replace

import httpx2

from tripshark.model.evidence import SealedFile
from tripshark.model.incident import State
from tripshark.model.part import Part, Place, node_name
from tripshark.model.target import TargetKey
from tripshark.store.notes import SqlNotes


def files_in(html: str) -> list[str]:
    """The values of the file chooser, in order."""
    chooser = re.search(r'<select id="file".*?</select>', html, re.DOTALL)
    return re.findall(r'<option value="([^"]*)"', chooser[0]) if chooser else []


async def test_each_sealed_capture_file_can_be_chosen(world) -> None:
    """The first is shown; another one by its name; one that is not there is refused with those that are."""
    async with (
        world.served() as port,
        httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http,
    ):
        path = f"/incidents/{world.incident.id}/packets"
        first = await http.get(path)
        second = await http.get(path, params={"file": "evidence-2.pcapng", "filter": "tcp"})
        missing = await http.get(path, params={"file": "<b>.pcapng"})
    assert files_in(first.text) == ["evidence.pcapng", "evidence-2.pcapng"]
    assert 'data-file="evidence.pcapng"' in first.text
    assert 'data-file="evidence-2.pcapng"' in second.text
    assert f'href="/v1/incidents/{world.incident.id}/evidence-2.pcapng"' in second.text
    assert missing.status_code == 404
    assert "<b>" not in missing.text
    policy = first.headers["content-security-policy"]
    assert "script-src 'self'" in policy
    assert "unsafe" not in policy
    assert not re.search(r"<script(?![^>]* src=)|<style|\sstyle=|\son[a-z]+=", first.text)


async def test_a_fleet_offers_the_whole_and_every_part(world) -> None:
    """Of several nodes: merged first, then each node's file; of one node its file alone."""

    class Merges:
        pass

    async def two(id: object) -> tuple[Part, ...]:
        return tuple(part(world, name) for name in ("worker-1", "worker-2"))

    async def one(id: object) -> tuple[Part, ...]:
        return (part(world, "worker-1"),)

    found = []
    for parts_of in (two, one):
        async with (
            world.served(kind="hub", parts_of=parts_of, merging=Merges()) as port,
            httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http,
        ):
            answer = await http.get(f"/incidents/{world.incident.id}/packets")
            found.append(files_in(answer.text))
            href = f'href="/v1/incidents/{world.incident.id}/parts/worker-1/evidence.pcapng"'
            assert href in answer.text or parts_of is two
    assert found == [
        ["merged.pcapng", "worker-1/evidence.pcapng", "worker-2/evidence.pcapng"],
        ["worker-1/evidence.pcapng"],
    ]


async def test_a_capture_under_way_has_nothing_to_read_yet(world) -> None:
    """The page says so instead of asking for packets."""
    for state, words in ((State.OPEN, "being captured"), (State.REMOVED, "removed by retention")):
        await world.catalogue.put(
            position=2, incidents=[replace(world.incident, state=state)], alerts=[]
        )
        async with (
            world.served() as port,
            httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http,
        ):
            answer = await http.get(f"/incidents/{world.incident.id}/packets")
        assert answer.status_code == 200
        assert words in answer.text
        assert "packets.js" not in answer.text


def part(world, name: str) -> Part:
    return Part(
        place=Place(day="2026/11/24", incident=world.incident.id, node=node_name(name)),
        incident=replace(world.incident, target=TargetKey(f"k-{name}")),
        files=(
            SealedFile(name="evidence.pcapng", bytes=10, sha256="ab" * 32),
            SealedFile(name="classic.bin", bytes=10, sha256="cd" * 32),
        ),
        manifest_sha256="ef" * 32,
        manifest_bytes=10,
    )


async def test_a_note_at_a_hub_is_found_however_its_file_was_named(world) -> None:
    """Of one part its node is added, of several the whole is meant; which of several files is never guessed."""
    path = f"/v1/incidents/{world.incident.id}/notes"
    for nodes, wanted, kept in (
        (("worker-1",), None, "worker-1/evidence.pcapng"),
        (("worker-1",), "evidence.pcapng", "worker-1/evidence.pcapng"),
        (("worker-1", "worker-2"), None, "merged.pcapng"),
        (("worker-1", "worker-2"), "worker-2/evidence.pcapng", "worker-2/evidence.pcapng"),
        (("worker-1", "worker-2"), "evidence.pcapng", None),
    ):

        async def parts_of(id: object, nodes: tuple[str, ...] = nodes) -> tuple[Part, ...]:
            return tuple(part(world, name) for name in nodes)

        changes = {"kind": "hub", "parts_of": parts_of, "notes": SqlNotes(world.catalogue)}
        async with (
            world.served(**changes) as port,
            httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http,
        ):
            body = {"frame": 1, "text": "a"} | ({"file": wanted} if wanted else {})
            answer = await http.post(path, json=body)
            assert answer.json().get("file") == kept
            assert answer.status_code == (201 if kept else 404)
