"""The hub finds every part that nodes put into the store, once, without listing all of it each time."""

from __future__ import annotations

import asyncio
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from tests.hub.conftest import Fleet
from tests.store.evidence import START, S, seal
from tripshark.errors import NotFound, NotVerified, Transient
from tripshark.model.evidence import IncidentId, SealedFile, Word
from tripshark.model.incident import EVERY, State
from tripshark.ports import Query
from tripshark.store.catalogue import SqlCatalogue
from tripshark.store.fleet import FleetParts
from tripshark.store.harvest import Harvest
from tripshark.store.objects import Objects
from tripshark.store.remote import Cache, Remote

DAY = 86_400 * S


async def test_a_part_becomes_the_incident_that_its_node_knows(fleet: Fleet) -> None:
    """What the hub lists is what the node sealed, alerts included; a second look and a restart take nothing twice."""
    node = await fleet.node("node-1")
    sealed = seal(node.vault)
    await node.outbox.send()
    harvest = fleet.harvest()
    assert await harvest.look() == 1
    (found,) = await fleet.catalogue.incidents(Query())
    folder = fleet.objects.where(f"evidence/2026/11/24/{sealed.id}/node-1")
    assert found == replace(sealed, folder=folder)
    (alert,) = await fleet.catalogue.alerts(sealed.id)
    assert (alert.accepted.alert.pod, alert.repeats) == ("checkout-1", 2)
    (part,) = await fleet.parts.parts(sealed.id)
    assert part.node == "node-1"
    assert part.key_id
    assert [file.name for file in part.files] == ["evidence.pcapng"]
    assert await harvest.look() == 0
    assert await fleet.harvest().look() == 0
    assert len(await fleet.catalogue.alerts(sealed.id)) == 1


async def test_parts_of_several_nodes_are_one_incident(fleet: Fleet) -> None:
    """Packets add up, the worst word counts, namespaces are joined, alerts that were passed on do not count twice."""
    first, second = await fleet.node("node-1"), await fleet.node("node-2")
    id = "20261124t103001-abcdef"
    seal(first.vault, 1, incident=id)
    seal(second.vault, 2, incident=id, namespaces=("shop",), word=Word.TRUNCATED, via="capture:x")
    await second.outbox.send()
    harvest = fleet.harvest()
    await harvest.look()
    await first.outbox.send()
    assert await harvest.look() == 1
    (found,) = await fleet.catalogue.incidents(Query())
    assert (found.packets, found.alerts, found.word) == (14, 3, Word.TRUNCATED)
    assert found.held == ("payments", "shop")
    assert found.title == "payments/checkout-1"
    assert [each.node for each in await fleet.parts.parts(found.id)] == ["node-1", "node-2"]
    assert await fleet.catalogue.incidents(Query(visible=("payments",))) == []
    assert len(await fleet.catalogue.alerts(found.id)) == 2


async def test_files_are_shown_only_when_they_are_what_was_sealed(fleet: Fleet) -> None:
    """A file that somebody changed in the store is refused; one that is right is fetched once and ranges come from here."""
    node = await fleet.node("node-1")
    fine, changed = seal(node.vault, 1, packets=b"fine"), seal(node.vault, 2, packets=b"sealed")
    await node.outbox.send()
    await fleet.harvest().look()
    where = f"evidence/2026/11/24/{changed.id}/node-1/evidence.pcapng"
    await fleet.objects.replace(where, b"forged")
    manifest = json.loads(await fleet.shelf.manifest(fine.id, ""))
    (told,) = manifest["files"]
    sealed = SealedFile(name=told["name"], sha256=told["sha256"], bytes=told["bytes"])
    fd = await fleet.shelf.open(fine.id, "node-1", "evidence.pcapng", sealed)
    assert os.pread(fd, 99, 0) == b"fine"
    os.close(fd)
    (told,) = json.loads(await fleet.shelf.manifest(changed.id, ""))["files"]
    wrong = SealedFile(name=told["name"], sha256=told["sha256"], bytes=told["bytes"])
    with pytest.raises(NotVerified, match="not what was sealed"):
        await fleet.shelf.open(changed.id, "", "evidence.pcapng", wrong)
    assert not list((fleet.folder / "cache").glob(".fetching-*"))
    with pytest.raises(NotFound):
        await fleet.shelf.manifest(fine.id, "node-9")
    fd = await fleet.shelf.open(fine.id, "", "custody.jsonl", None)
    with os.fdopen(fd, "rb") as file:  # from its beginning, as reports and exports read it
        assert b'"sent"' in file.read()


async def test_the_cache_keeps_to_its_bound_and_fetches_once(tmp_path: Path) -> None:
    """What is used least goes first; many readers at once cost one transfer; what is larger than all is shown and not kept."""
    import hashlib

    cache = Cache(tmp_path / "cache", most=250)
    cache.prepare()
    fetched: list[int] = []

    async def read(number: int, size: int = 100) -> bytes:
        content = bytes([number]) * size

        async def pieces():
            fetched.append(number)
            await asyncio.sleep(0)
            yield content

        fd = await cache.open(hashlib.sha256(content).hexdigest(), pieces, size)
        try:
            return os.pread(fd, size + 1, 0)
        finally:
            os.close(fd)

    assert await asyncio.gather(*(read(1) for _ in range(10))) == [b"\1" * 100] * 10
    await read(2)
    await read(1)
    await read(3)
    assert fetched == [1, 2, 3]
    await read(1)
    assert fetched == [1, 2, 3]
    await read(2)
    assert fetched == [1, 2, 3, 2]
    assert len(await read(4, 1000)) == 1000
    assert sum(path.stat().st_size for path in (tmp_path / "cache").iterdir()) <= 250


async def test_a_broken_signature_and_another_key_are_told(fleet: Fleet) -> None:
    """The evidence is taken in and says what is odd about it; a manifest that is none is counted and read no second time."""
    first = await fleet.node("node-1")
    seal(first.vault, 1)
    await first.outbox.send()
    harvest = fleet.harvest()
    await harvest.look()
    # the same name with another key, as a second machine or a thief has it
    other = await fleet.node("other/node-1")
    other.outbox._node = first.outbox._node
    stranger = seal(other.vault, 2)
    await other.outbox.send()
    broken = seal(first.vault, 3)
    await first.outbox.send()
    base = f"evidence/2026/11/24/{broken.id}/node-1"
    await fleet.objects.replace(f"{base}/manifest.sig", b"{}")
    none = "evidence/2026/11/24/20261124t103009-000009/node-1/manifest.json"
    await fleet.objects.replace(none, b"this is no manifest")
    for strange in ("evidence/2026/11/24/x", "evidence/2026/99/99/a/b/manifest.json", "else/x"):
        await fleet.objects.replace(strange, b"?")
    await harvest.look()
    found = {each.id: each for each in await fleet.catalogue.incidents(Query())}
    assert "by key" in found[stranger.id].problem
    assert "does not hold" in found[broken.id].problem
    assert len(found) == 3
    await harvest.look()
    assert (harvest.state.unreadable, harvest.state.odd) == (1, 2)


async def test_who_may_write_to_the_store_opens_no_evidence_of_others(fleet: Fleet) -> None:
    """A forged part says whose packets it holds: nobody believes it, and it takes the place of no genuine one."""
    node = await fleet.node("node-1")
    true = seal(node.vault, 1)
    await node.outbox.send()
    harvest = fleet.harvest()
    await harvest.look()
    before = await fleet.catalogue.incident(true.id)
    thief = await fleet.node("other/node-1")
    thief.outbox._node = node.outbox._node
    seal(thief.vault, 7, incident=true.id, namespaces=("thief",))
    fresh = seal(thief.vault, 2, namespaces=("thief",))
    folder = Path(thief.vault.folder(true.id))
    day = "evidence/2026/11/25"
    for name in ("manifest.sig", "evidence.pcapng", "manifest.json"):
        key = f"{day}/{true.id}/node-1/{name}"
        await fleet.objects.replace(key, (folder / name).read_bytes())
    await thief.outbox.send()
    fleet.clock.ns += 3600 * S
    await harvest.look()
    assert await fleet.catalogue.incident(true.id) == before
    assert len(await fleet.catalogue.alerts(true.id)) == 1
    assert await fleet.catalogue.incidents(Query(visible=("thief",))) == []
    taken = await fleet.catalogue.incident(fresh.id)
    assert taken is not None
    assert taken.held == (EVERY,)
    await _delete(fleet.objects, day)
    fleet.clock.ns += 3600 * S
    await harvest.look()
    assert await fleet.catalogue.incident(true.id) == before  # what was forged is gone, it is not


async def test_what_left_the_store_is_removed_and_what_comes_back_is_found(
    fleet: Fleet,
) -> None:
    """A lifecycle rule's work shows at the next look at that day; an empty store forgets nothing."""
    node = await fleet.node("node-1")
    gone, stays = seal(node.vault, 1), seal(node.vault, 2)
    await node.outbox.send()
    harvest = fleet.harvest()
    await harvest.look()
    await _delete(fleet.objects, f"evidence/2026/11/24/{gone.id}")
    fleet.clock.ns += 3600 * S
    await harvest.look()
    states = {each.id: each.state for each in await fleet.catalogue.incidents(Query())}
    assert states == {gone.id: State.REMOVED, stays.id: State.SEALED}
    with pytest.raises(NotFound):
        await fleet.shelf.manifest(gone.id, "")
    await _delete(fleet.objects, "evidence")
    fleet.clock.ns += 3600 * S
    with pytest.raises(Transient, match="right one"):
        await harvest.look()
    found = await fleet.catalogue.incident(stays.id)
    assert found is not None
    assert found.state is State.SEALED


async def _delete(objects: Objects, prefix: str) -> None:
    import obstore

    async for page in objects.list(prefix):
        for each in page:
            await obstore.delete_async(objects._store(), each.key)
    if objects._base is not None:
        import shutil

        shutil.rmtree(objects._base / prefix, ignore_errors=True)


async def test_late_nodes_are_found_and_old_days_are_rarely_listed(tmp_path: Path) -> None:
    """With thousands of folders of other days a look lists next to nothing; what comes late to an old day is found."""
    (tmp_path / "volume").mkdir()
    objects = Objects(f"file://{tmp_path}/volume")
    fleet = Fleet(tmp_path, await SqlCatalogue.open(tmp_path / "hub.sqlite"), objects)
    node = await fleet.node("node-1")
    first = seal(node.vault, 1)
    await node.outbox.send()
    for day in range(1, 21):
        for number in range(50):
            place = tmp_path / f"volume/evidence/2026/11/{day:02}/20261101t-{number:04}/n"
            place.mkdir(parents=True)
            (place / "evidence.pcapng").touch()
    harvest = fleet.harvest()
    await harvest.look()
    assert harvest.state.listed >= 1004
    before = harvest.state.listed
    for _ in range(10):
        fleet.clock.ns += 5 * S
        assert await harvest.look() == 0
    assert harvest.state.listed - before <= 10 * 4  # the newest hour of today
    late = seal(node.vault, 7, opened_ns=START - 9 * DAY)
    fresh = seal(node.vault, 8, opened_ns=fleet.clock.ns)
    await node.outbox.send()
    fleet.clock.ns += 5 * S
    assert await harvest.look() == 1
    fleet.clock.ns += 3600 * S
    assert await harvest.look() == 1
    known = {each.id for each in await fleet.catalogue.incidents(Query())}
    assert known == {first.id, late.id, fresh.id}
    await fleet.close()


async def test_two_hubs_share_a_catalogue(place: Path | str, tmp_path: Path) -> None:
    """Both look at once; every part is there once, every incident is whole, custody is one unbroken chain."""
    from tripshark.store import custody

    (tmp_path / "volume").mkdir()
    objects = Objects(f"file://{tmp_path}/volume")
    fleet = Fleet(tmp_path, await SqlCatalogue.open(place), objects)
    nodes = [await fleet.node(f"node-{n}") for n in range(3)]
    for number in range(1, 7):
        for at, node in enumerate(nodes):
            seal(node.vault, number * 3 + at, incident=f"20261124t1030{number:02}-000000")
    for node in nodes:
        await node.outbox.send()
    other = await SqlCatalogue.open(place)
    hubs = [fleet.harvest(), Harvest(objects, FleetParts(other), clock=fleet.clock)]
    await asyncio.gather(*(hub.look() for hub in hubs))
    assert sum(hub.state.imported for hub in hubs) == 18
    found = await fleet.catalogue.incidents(Query())
    assert len(found) == 6
    assert {each.packets for each in found} == {21}
    assert {len(await fleet.parts.parts(each.id)) for each in found} == {3}
    id = IncidentId("20261124t103001-000000")
    await asyncio.gather(
        *(
            parts.deed(id, "viewed", f"api:{n}", {}, now_ns=START, manifest_sha256="0" * 64)
            for n in range(5)
            for parts in (fleet.parts, FleetParts(other))
        )
    )
    deeds = custody.read(await fleet.parts.custody(id))
    assert [each.what for each in deeds] == ["sealed"] + ["viewed"] * 10
    await other.close()
    await fleet.close()


async def test_a_store_that_is_away_forgets_nothing(tmp_path: Path) -> None:
    """The look fails and says why, the list stays, the next look goes on."""
    (tmp_path / "volume").mkdir()
    objects = Objects(f"file://{tmp_path}/volume")
    fleet = Fleet(tmp_path, await SqlCatalogue.open(tmp_path / "hub.sqlite"), objects)
    node = await fleet.node("node-1")
    seal(node.vault, 1)
    await node.outbox.send()
    harvest = fleet.harvest()
    await harvest.look()
    (tmp_path / "volume").rename(tmp_path / "away")
    fleet.clock.ns += 3600 * S
    with pytest.raises(Transient, match="mounted"):
        await harvest.look()
    assert harvest.state.problem
    assert len(await fleet.catalogue.incidents(Query(state="sealed"))) == 1
    (tmp_path / "away").rename(tmp_path / "volume")
    assert await harvest.look() == 0
    assert not harvest.state.problem
    assert [event for event, _ in fleet.told] == ["store away"]
    await fleet.close()


async def test_a_remote_of_a_hub_needs_no_more_than_the_store(fleet: Fleet) -> None:
    """Presigned addresses are made where the store has them."""
    node = await fleet.node("node-1")
    sealed = seal(node.vault)
    await node.outbox.send()
    await fleet.harvest().look()
    (part,) = await fleet.parts.parts(sealed.id)
    address = await Remote(fleet.objects, fleet.cache).address(part.place, "evidence.pcapng", 60)
    assert (address is None) == fleet.objects.is_folder
