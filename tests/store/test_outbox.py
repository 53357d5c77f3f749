"""Everything sealed reaches the store, once, whatever is away or killed meanwhile."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from tests.store.evidence import START, Clock, S, seal
from tests.store.swift import S3
from tripshark.errors import Transient
from tripshark.model import retention
from tripshark.model.evidence import IncidentId
from tripshark.model.part import NodeName, place_of
from tripshark.model.retention import Budget
from tripshark.store import custody
from tripshark.store.catalogue import SqlCatalogue
from tripshark.store.objects import Objects
from tripshark.store.outbox import Outbox
from tripshark.store.remote import Cache, NodeShelf, Remote
from tripshark.store.vault import FolderVault
from tripshark.store.verify import verify

NODE = NodeName("node-1")


class Node:
    """One data folder with its outbox."""

    def __init__(self, data: Path, catalogue: SqlCatalogue, objects: Objects) -> None:
        self.clock = Clock()
        self.data = data
        self.vault = FolderVault(data, clock=self.clock)
        self.catalogue = catalogue
        self.objects = objects
        self.told: list[tuple[str, dict[str, object]]] = []

    def outbox(self, **more: object) -> Outbox:
        """A new one, as after a restart."""
        return Outbox(
            vault=self.vault, catalogue=self.catalogue, objects=self.objects, node=NODE,
            clock=self.clock, tell=lambda event, details: self.told.append((event, dict(details))),
            **more,  # type: ignore[arg-type]  # what the test changes
        )  # fmt: skip

    async def keys(self) -> dict[str, int]:
        return {e.key: e.size async for page in self.objects.list("evidence") for e in page}

    def deeds(self, incident: str, what: str) -> list[custody.Deed]:
        content = (Path(self.vault.folder(IncidentId(incident))) / custody.NAME).read_bytes()
        return [each for each in custody.read(content) if each.what == what]


@pytest.fixture
async def node(tmp_path: Path, objects: Objects) -> AsyncIterator[Node]:
    catalogue = await SqlCatalogue.open(tmp_path / "data" / "catalogue.sqlite")
    its = Node(tmp_path / "data", catalogue, objects)
    yield its
    await its.catalogue.close()


async def until(holds: Callable[[], bool], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it never came true"
        await asyncio.sleep(0.02)


async def test_a_sealed_folder_is_sent_whole(node: Node, tmp_path: Path) -> None:
    """What was fetched from the store verifies like the folder it came from, and custody says where it went."""
    incident = seal(node.vault)
    outbox = node.outbox()
    await outbox.send()
    keys = await node.keys()
    copy = tmp_path / "copy"
    copy.mkdir()
    for key, size in keys.items():
        place, name = place_of(key)
        assert (place.day, place.incident, place.node) == ("2026/11/24", incident.id, NODE)
        (copy / name).write_bytes(await node.objects.read(key, most=size))
    assert {path.name for path in copy.iterdir()} == {
        "evidence.pcapng", "manifest.json", "manifest.sig", "custody.jsonl",
    }  # fmt: skip
    checks = {check.name: check.state.value for check in verify(copy, data=node.data).checks}
    assert checks.pop("packets evidence.pcapng") == "failed"  # this one holds no packets
    assert checks.pop("names") == "ok"
    assert set(checks.values()) == {"ok"}
    (deed,) = node.deeds(incident.id, "sent")
    assert deed.details["to"] == node.objects.where(f"evidence/2026/11/24/{incident.id}/node-1")
    assert (outbox.state.sent, outbox.state.waiting, outbox.state.problem) == (1, 0, "")


async def test_nothing_is_sent_twice(node: Node) -> None:
    """A second look, a restart and a lost catalogue send no sealed byte again and say nothing twice in custody."""
    incident = seal(node.vault)
    outbox = node.outbox()
    await outbox.send()
    before = outbox.state.sent_bytes
    await outbox.send()
    assert outbox.state.sent_bytes == before
    again = node.outbox()
    await again.send()
    assert (again.state.sent, again.state.sent_bytes) == (0, 0)
    await node.catalogue.close()
    (node.data / "catalogue.sqlite").unlink()
    node.catalogue = await SqlCatalogue.open(node.data / "catalogue.sqlite")
    manifest = f"evidence/2026/11/24/{incident.id}/node-1/manifest.json"
    written = (await node.keys())[manifest]
    await node.outbox().send()
    assert (await node.keys())[manifest] == written
    assert len(node.deeds(incident.id, "sent")) == 1


async def test_what_changes_beside_the_evidence_follows(node: Node) -> None:
    """New findings, and custody after somebody looked, replace what is in the store; unchanged ones are left alone."""
    incident = seal(node.vault)
    outbox = node.outbox()
    await outbox.send()
    folder = f"evidence/2026/11/24/{incident.id}/node-1"
    node.vault.beside(incident.id, "findings.json", b'{"found": 1}')
    await outbox.send()
    assert await node.objects.read(f"{folder}/findings.json", most=99) == b'{"found": 1}'
    node.vault.beside(incident.id, "findings.json", b'{"found": 2}')
    node.vault.custody(incident.id, "viewed", "api:somebody", {"file": "evidence.pcapng"})
    restarted = node.outbox()
    await restarted.send()
    assert await node.objects.read(f"{folder}/findings.json", most=99) == b'{"found": 2}'
    deeds = custody.read(await node.objects.read(f"{folder}/custody.jsonl", most=1 << 20))
    assert [each.what for each in deeds] == ["sealed", "sent", "analysed", "analysed", "viewed"]
    assert restarted.state.sent == 0


async def test_a_rotten_file_is_not_sent_and_holds_nobody_up(node: Node) -> None:
    """It is told, counted and shown; without its manifest the part does not count as complete; the others go."""
    rotten, fine = seal(node.vault, 1), seal(node.vault, 2)
    path = Path(node.vault.folder(rotten.id)) / "evidence.pcapng"
    path.chmod(0o640)
    path.write_bytes(b"PACKETS")
    outbox = node.outbox()
    await outbox.send()
    keys = await node.keys()
    assert not any(rotten.id in key for key in keys)
    assert f"evidence/2026/11/24/{fine.id}/node-1/manifest.json" in keys
    assert list(outbox.state.refused) == [rotten.id]
    assert ("not sent", rotten.id) in [(event, d.get("incident")) for event, d in node.told]
    (unsent,) = [each for each in await outbox.kept(node.vault.kept()) if each.unsent]
    assert unsent.incident == rotten.id


async def test_moved_evidence_is_read_from_the_store(node: Node) -> None:
    """With `keep` off the folder goes once it is quiet and not under a hold; reading goes on, verified."""
    incident, held = seal(node.vault, 1), seal(node.vault, 2)
    await node.catalogue.put(incidents=[incident, held])
    node.vault.hold(held.id, "court", "case 7")
    outbox = node.outbox(keep=False)
    node.clock.ns = time.time_ns()
    await outbox.send()
    assert Path(node.vault.folder(incident.id)).is_dir()  # not quiet for long enough
    node.clock.ns = time.time_ns() + 61 * S
    await outbox.send()
    assert not list((node.data / "evidence").rglob(f"{incident.id}/manifest.json"))
    assert Path(node.vault.folder(held.id)).is_dir()
    known = await node.catalogue.incident(incident.id)
    assert known is not None
    assert known.folder == node.objects.where(f"evidence/2026/11/24/{incident.id}/node-1")
    cache = Cache(node.data / "cache", most=1 << 20)
    cache.prepare()
    shelf = NodeShelf(
        node.vault, node.catalogue, node.objects, Remote(node.objects, cache), node=NODE
    )
    manifest = json.loads(await shelf.manifest(incident.id, ""))
    assert manifest["incident"] == incident.id
    for name, content in (("custody.jsonl", b'"moved"'), ("evidence.pcapng", b"packets")):
        sealed = None
        if name == "evidence.pcapng":
            from tripshark.model.evidence import SealedFile

            sealed = SealedFile(name=name, sha256=hashlib.sha256(b"packets").hexdigest(), bytes=7)
        with os.fdopen(await shelf.open(incident.id, "", name, sealed), "rb") as file:
            file.seek(0)
            assert content in file.read()


async def test_retention_takes_the_unsent_last(node: Node) -> None:
    """Age never removes what is not in the store; space does after all that is there, and says so."""
    old, sent, late = (seal(node.vault, n) for n in (1, 2, 3))
    outbox = node.outbox()
    kept = await outbox.kept(node.vault.kept())
    assert all(each.unsent for each in kept)
    ages = Budget(max_age_ns=S)
    assert retention.overdue(kept, now_ns=START + 10_000 * S, budget=ages) == ()
    await outbox.send()
    assert len(retention.overdue(
        await outbox.kept(node.vault.kept()), now_ns=START + 10_000 * S, budget=ages)) == 3  # fmt: skip
    newer = [seal(node.vault, n) for n in (4, 5)]
    kept = await outbox.kept(node.vault.kept())
    removals = retention.overdue(kept, now_ns=START, budget=Budget(max_bytes=kept[0].bytes))
    assert [each.incident for each in removals] == [old.id, sent.id, late.id, newer[0].id]
    assert [each.unsent for each in removals] == [False, False, False, True]
    assert "never sent" in removals[-1].why
    outbox.note_lost(newer[0].id, removals[-1].why)
    assert outbox.state.lost == 1


async def test_a_store_that_comes_and_goes_gets_everything_once(s3: S3, tmp_path: Path) -> None:
    """Sealing goes on while the store is away; afterwards all of it arrives, in one piece and once."""
    catalogue = await SqlCatalogue.open(tmp_path / "data" / "catalogue.sqlite")
    objects = Objects(f"s3://{s3.bucket()}/p", s3.options)
    node = Node(tmp_path / "data", catalogue, objects)
    outbox = node.outbox(every=0.05, dice=lambda: 0.0)
    running = asyncio.ensure_future(outbox.run())
    first = seal(node.vault, 1)
    outbox.wake()
    await until(lambda: outbox.state.sent == 1)
    s3.stop()
    try:
        while_away = [seal(node.vault, n) for n in (2, 3, 4)]
        await until(lambda: outbox.state.failures >= 2)
        assert (outbox.state.waiting, outbox.state.sent) == (3, 1)
        assert outbox.state.waiting_bytes > 0
        assert outbox.state.oldest_ns > 0
        assert "waits for the object store" in outbox.state.problem
    finally:
        s3.start()
    await until(lambda: outbox.state.sent == 4)
    await until(lambda: outbox.state.problem == "" and outbox.state.waiting == 0)
    running.cancel()
    keys = await node.keys()
    for incident in (first, *while_away):
        assert f"evidence/2026/11/24/{incident.id}/node-1/manifest.json" in keys
        assert len(node.deeds(incident.id, "sent")) == 1
    events = [event for event, _ in node.told]
    assert events.count("sent") == 4
    assert (events.count("store away"), events.count("store back")) == (1, 1)
    await catalogue.close()


CHILD = """
import asyncio, os, sys
sys.path.insert(0, {root!r})
from pathlib import Path
from tests.store.test_outbox import Node
from tripshark.store.catalogue import SqlCatalogue
from tripshark.store.objects import Objects

async def main():
    data, url = Path(sys.argv[1]), sys.argv[2]
    node = Node(data, await SqlCatalogue.open(data / "catalogue.sqlite"), Objects(url))
    outbox = node.outbox()
    os.write(1, b"ready\\n")
    await outbox.send()
    os.write(1, b"done\\n")

asyncio.run(main())
"""


async def test_kill_9_at_any_moment_loses_nothing_and_doubles_nothing(tmp_path: Path) -> None:
    """Killed while sending, again and again: in the end everything is there, complete, noted once."""
    (tmp_path / "volume").mkdir()
    url = f"file://{tmp_path}/volume"
    catalogue = await SqlCatalogue.open(tmp_path / "data" / "catalogue.sqlite")
    node = Node(tmp_path / "data", catalogue, Objects(url))
    sealed = [seal(node.vault, n, packets=bytes(100_000) + b"%d" % n) for n in range(30)]
    command = [sys.executable, "-c", CHILD.format(root=str(Path(__file__).parents[2]))]
    for pause in (0.005, 0.03, 0.06):
        child = subprocess.Popen(
            [*command, str(node.data), url], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        assert child.stdout is not None
        assert child.stderr is not None
        with child:
            assert child.stdout.readline() == b"ready\n"
            time.sleep(pause)  # any moment will do
            child.kill()
    complete = sum(key.endswith("manifest.json") for key in await node.keys())
    outbox = node.outbox()
    await outbox.send()
    keys = await node.keys()
    assert sum(key.endswith("manifest.json") for key in keys) == 30
    assert len(keys) == 30 * 4
    assert outbox.state.sent <= 30
    assert complete <= 30
    for incident in sealed:
        assert len(node.deeds(incident.id, "sent")) == 1
    await catalogue.close()


async def test_two_nodes_of_one_name_do_not_overwrite_each_other(
    objects: Objects, tmp_path: Path
) -> None:
    """The second sees that other evidence lies there, keeps its own and says so."""
    catalogues = [await SqlCatalogue.open(tmp_path / name / "c.db") for name in ("a", "b")]
    nodes = [Node(tmp_path / n, c, objects) for n, c in zip("ab", catalogues, strict=True)]
    for number, node in enumerate(nodes):
        seal(node.vault, packets=b"%d" % number)
    await nodes[0].outbox().send()
    outbox = nodes[1].outbox()
    await outbox.send()
    assert "another file lies there" in next(iter(outbox.state.refused.values()))
    for catalogue in catalogues:
        await catalogue.close()


async def test_an_unreachable_folder_is_waited_for(tmp_path: Path) -> None:
    """A volume that is not mounted is no reason to write elsewhere or to give up."""
    catalogue = await SqlCatalogue.open(tmp_path / "data" / "c.db")
    node = Node(tmp_path / "data", catalogue, Objects(f"file://{tmp_path}/volume"))
    seal(node.vault)
    outbox = node.outbox()
    with pytest.raises(Transient, match="mounted"):
        await outbox.send()
    (tmp_path / "volume").mkdir()
    await outbox.send()
    assert len(await node.keys()) == 4
    await catalogue.close()
