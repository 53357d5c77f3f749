"""Packets over HTTP: real evidence through a real analyst, behind rights, with custody told once."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import httpx2
import pytest

from tests.analysis.crafted import C2, beacon
from tests.analysis.test_service import running
from tests.web.conftest import World, make_incident
from tripshark.analysis.sessions import Sessions
from tripshark.model.evidence import Ledger, Manifest

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="the analyst changes its user"),
]


@pytest.fixture(scope="module")
def analyst(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running(tmp_path_factory.mktemp("analyst")) as (_, _, path):
        yield path


@dataclass
class Api:
    """One incident's packets, asked about."""

    client: httpx2.AsyncClient
    world: World
    id: str
    deeds: list[tuple[str, str, str, object]]

    async def get(self, path: str, status: int = 200) -> dict[str, object]:
        answer = await self.client.get(f"/v1/incidents/{self.id}/{path}", timeout=60)
        assert answer.status_code == status, answer.text
        return dict(answer.json())


@asynccontextmanager
async def api_of(world: World, analyst: str, **changes: object) -> AsyncIterator[Api]:
    incident = make_incident(7)
    draft = world.vault.begin(incident.id, incident.opened_ns)
    for name in ("evidence.pcapng", "evidence-113.pcapng"):
        with draft.create(name) as file:
            file.write(beacon().bytes())
    manifest = Manifest(
        incident=incident.id,
        created_ns=incident.sealed_ns,
        ledger=Ledger(),
        files=(),
        details={"who": {"namespace": "payments"}},
    )
    draft.seal(manifest, ["evidence.pcapng", "evidence-113.pcapng"])
    await world.catalogue.put(position=2, incidents=[incident], alerts=[])
    sessions = Sessions(analyst)
    deeds: list[tuple[str, str, str, object]] = []
    given: dict[str, object] = {
        "dissection": sessions,
        "deed": lambda id, what, who, details: deeds.append((id, what, who, details)),
        **changes,
    }
    try:
        async with (
            world.served(**given) as port,
            httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client,
        ):
            yield Api(client, world, incident.id, deeds)
    finally:
        sessions.close()


async def test_everything_about_packets(world: World, analyst: str) -> None:
    """Pages, one packet, filters, completion, time, streams and taps of the file that is meant."""
    async with api_of(world, analyst) as api:
        page = await api.get("packets?limit=3")
        assert page["columns"][:3] == ["No.", "Time", "Source"]
        assert (page["total"], page["matched"], page["window"]) == (8, 8, None)
        assert [each["number"] for each in page["frames"]] == [1, 2, 3]
        assert page["frames"][0]["columns"][2] == "payments/checkout-7d9f"
        shown = await api.get(f"packets?filter={quote(f'ip.addr == {C2}')}&skip=2")
        assert (shown["matched"], len(shown["frames"])) == (5, 3)
        packet = await api.get("packets/4?file=evidence-113.pcapng")
        assert packet["number"] == 4
        assert packet["tree"][0]["children"]
        assert (await api.get("filter?filter=tcp.port%3D%3D"))["ok"] is False
        assert (await api.get("filter?filter=tcp"))["ok"] is True
        assert (await api.get("complete?prefix=ip.sr"))["fields"][0]["name"] == "ip.src"
        assert sum((await api.get("intervals?step_ms=5"))["packets"]) == 8
        stream = await api.get("follow?proto=tcp&stream=0")
        assert [each["from"] for each in stream["chunks"]] == ["client", "server"]
        assert (await api.get("taps?name=endpoints"))["rows"]


WRONG: tuple[tuple[str, int, str | None], ...] = (
    ("packets?filter=tcp.port%3D%3D", 400, "filter"),
    (f"packets?filter={'x' * 1801}", 400, "filter"),
    ("packets?filter=a%00b", 400, "filter"),
    ("packets?filter=a)+||+(b", 400, "filter"),
    ("packets?limit=0", 400, "limit"),
    ("packets?limit=501", 400, "limit"),
    ("packets?skip=-1", 400, "skip"),
    ("packets?method=load", 400, "method"),
    ("packets?column0=17", 400, "column0"),
    ("packets?file=../../../etc/passwd", 400, None),
    ("packets?file=manifest.json", 400, "file"),
    ("packets?file=other.pcapng", 404, None),
    ("packets?file=node-9/evidence.pcapng", 404, None),
    ("packets?at=yesterday", 400, "at"),
    ("packets?at=3&around_ns=4", 400, "at"),
    ("packets/0", 400, "number"),
    ("packets/999", 404, None),
    ("packets/x", 400, "number"),
    ("complete?prefix=", 400, "prefix"),
    ("complete?prefix=a%22", 400, "prefix"),
    ("intervals?step_ms=0", 400, "step_ms"),
    ("follow", 400, "stream"),
    ("follow?stream=0&proto=ip", 400, "proto"),
    ("follow?stream=77", 404, None),
    ("taps?name=eo:http", 400, "name"),
)


async def test_what_cannot_be_asked(world: World, analyst: str) -> None:
    """Each answer is the one error shape and says where it was wrong."""
    async with api_of(world, analyst) as api:
        for path, status, where in WRONG:
            error = (await api.get(path, status))["error"]
            assert error["message"], path
            assert where is None or error["where"] == where, path


async def test_custody_is_told_once(world: World, analyst: str) -> None:
    """Who looked, and each filter: not every page, and a filter that is only checked not at all."""
    async with api_of(world, analyst) as api:
        for _ in range(3):
            await api.get("packets")
            await api.get("packets?filter=dns")
            await api.get("packets?filter=dns&skip=1")
            await api.get("filter?filter=tcp")
        await api.get("packets?filter=tcp")
        await api.get("packets?file=evidence-113.pcapng")
        viewed = [(id, file) for id, file, _ in api.world.viewed if file.endswith(".pcapng")]
        assert viewed == [(api.id, "evidence.pcapng"), (api.id, "evidence-113.pcapng")]
        assert [details for _, _, _, details in api.deeds] == [
            {"file": "evidence.pcapng", "filter": "dns"},
            {"file": "evidence.pcapng", "filter": "tcp"},
        ]
        assert {what for _, what, _, _ in api.deeds} == {"viewed"}


async def test_a_file_that_is_not_what_was_sealed_is_not_shown(world: World, analyst: str) -> None:
    """Its size alone tells that somebody wrote to it."""
    async with api_of(world, analyst) as api:
        path = Path(world.vault.folder(make_incident(7).id)) / "evidence.pcapng"
        path.chmod(0o600)
        with path.open("ab") as file:
            file.write(b"more")
        error = (await api.get("packets", 500))["error"]
        assert error["code"] == "not_verified"


async def test_without_an_analyst_it_is_said(world: World, tmp_path: Path) -> None:
    """A clear 503 with what to look at, and the same question works once it is there."""
    async with api_of(world, str(tmp_path / "analyst.sock")) as api:
        error = (await api.get("packets", 503))["error"]
        assert "analyst" in error["message"]
        with running(tmp_path):
            assert (await api.get("packets"))["total"] == 8
        assert (await api.get("packets", 503))["error"]["code"] == "unavailable"


async def test_a_server_without_one_says_what_else_to_do(world: World) -> None:
    """Where packets are not looked at, the file can be had."""
    async with api_of(world, "/nowhere", dissection=None) as api:
        assert "Wireshark" in (await api.get("packets", 404))["error"]["hint"]
