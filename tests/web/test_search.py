"""Search and hunt over HTTP: hits with frame and filter, and only from evidence that the caller may read."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx2
import pytest

from tests.store.test_search import ROWS, sighting
from tests.web.conftest import World, make_incident
from tests.web.test_access import GET_ALL, Cluster
from tripshark.model.evidence import IncidentId
from tripshark.model.observable import Kind, Place
from tripshark.store.search import SearchIndex
from tripshark.web import search

HUNT = {"content-type": "text/plain"}


@pytest.fixture
async def index(world: World) -> SearchIndex:
    """Evidence of payments, of shop, and of both."""
    its = SearchIndex(world.catalogue.database)
    for number, held in ((1, ("payments",)), (2, ("shop",)), (3, ("payments", "shop"))):
        incident = make_incident(number, namespaces=held)
        await world.catalogue.put(incidents=[incident])
        await its.put(incident.id, "", file="evidence.pcapng", tag="1", rows=ROWS, now_ns=1)
    return its


@pytest.fixture
async def http(world: World, index: SearchIndex) -> AsyncIterator[httpx2.AsyncClient]:
    async with (
        world.served(index=index) as port,
        httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client,
    ):
        yield client


async def test_a_search_says_where_and_how_to_see_it(http: httpx2.AsyncClient) -> None:
    """Incident, file, frame, filter; pages by cursor."""
    answer = (await http.get("/v1/search", params={"q": "*.evil.example", "limit": 2})).json()
    assert answer["hits"][0] == {
        "incident": "20261124-0003", "node": "", "kind": "dns", "value": "www.evil.example", "frame": 1,
        "filter": "frame.number == 1", "file": "evidence.pcapng", "target": "payments/checkout",
        "t0": "1970-01-01T00:16:43.000000000Z", "t0_ns": 1_003_000_000_000, "first_ns": 1_795_516_200_000_000_000,
    }  # fmt: skip
    rest = await http.get(
        "/v1/search", params={"q": "*.evil.example", "limit": 2, "before": answer["next"]}
    )
    assert [each["incident"] for each in rest.json()["hits"]] == ["20261124-0001"]
    assert rest.json()["next"] is None


async def test_the_page_leads_to_the_packets_of_a_part(
    world: World, index: SearchIndex, http: httpx2.AsyncClient
) -> None:
    """Of a fleet the link names node and file once."""
    id, file = IncidentId("20261124-0003"), "node-1/evidence.pcapng"
    await index.put(id, "node-1", file=file, tag="1", rows=ROWS, now_ns=1)
    page = (await http.get("/search", params={"q": "*.evil.example"})).text
    assert f'href="/incidents/{id}/packets?file=node-1%2Fevidence.pcapng&amp;filter=' in page


@pytest.mark.parametrize(
    "params",
    [{}, {"q": ""}, {"q": "*"}, {"q": "a", "kind": "x"}, {"q": "a", "before": "x"}, {"q": "a", "before": "e30"},
     {"q": "a", "before": "WzEsMiwzLDRd"}, {"q": "a", "before": "W" * 5000}, {"q": "a", "unknown": "1"},
     {"q": "a", "limit": "0"}, {"q": "a", "before": "WyJhIiwiYiIsImMiLCJcdWQ4MDAiXQ"}],
)  # fmt: skip
async def test_what_cannot_be_asked_is_refused(
    http: httpx2.AsyncClient, params: dict[str, str]
) -> None:
    """In the one shape, and a forged cursor is no way in."""
    answer = await http.get("/v1/search", params=params)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "bad_input")


async def test_a_hunt_takes_a_list_and_tells_what_of_it_is_not_looked_for(
    http: httpx2.AsyncClient,
) -> None:
    """Hits with what was seen; entries that are none are counted and named with their line."""
    answer = await http.post(
        "/v1/hunt",
        content="evil[.]example # C2\nfoo bar\ncom\n",
        headers=HUNT,
        params={"limit": 2},
    )
    told = answer.json()
    assert (answer.status_code, told["indicators"], told["more"]) == (200, 1, True)
    assert told["counts"] == {"unreadable": 1, "refused": 1}
    assert told["told"][1] == "list:3: refused: com: a whole top-level domain is no indicator"
    first = told["hits"][0]
    assert (first["incident"], first["indicator"], first["note"], first["frames"], first["filter"]) == (
        "20261124-0003", "evil[.]example", "C2", [1], "frame.number == 1",
    )  # fmt: skip
    assert first["seen"][0]["values"] == ["203.0.113.66", "www.evil.example"]
    stix = '{"type": "indicator", "pattern": "[ipv4-addr:value = \'203.0.113.66\']"}'
    answer = await http.post(
        "/v1/hunt", content=stix, headers={"content-type": "application/json; charset=utf-8"}
    )
    assert len(answer.json()["hits"]) == 3


async def test_a_list_that_cannot_be_read_is_refused(
    http: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A form, nothing, broken JSON, too much."""
    form = {"content-type": "application/x-www-form-urlencoded"}
    assert (await http.post("/v1/hunt", content="x", headers=form)).status_code == 415
    assert (await http.post("/v1/hunt", content="", headers=HUNT)).status_code == 400
    broken = await http.post("/v1/hunt", content="{\n x", headers=HUNT)
    assert (broken.status_code, broken.json()["error"]["where"]) == (400, "list:2")
    monkeypatch.setattr(search, "MAX_LIST", 10)
    assert (await http.post("/v1/hunt", content="x" * 11, headers=HUNT)).status_code == 413


async def test_only_evidence_that_the_caller_may_read_is_looked_through(
    world: World, index: SearchIndex
) -> None:
    """Nothing of another namespace, neither a hit nor its absence; to hunt is a right of its own."""
    cluster = Cluster()
    cluster.rights["hunter"] = {(v, r, "payments") for v, r in (*GET_ALL, ("create", "hunts"))}
    cluster.rights["admin"].add(("create", "hunts", ""))
    seen: dict[str, list[str]] = {}
    async with (
        world.served(index=index, access=cluster) as port,
        httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http,
    ):
        for name in ("admin", "payments", "shop", "both", "lister", "stranger", "hunter"):
            token = {"authorization": f"Bearer token-of-{name}"}
            answer = await http.get("/v1/search", params={"q": "evil"}, headers=token)
            assert answer.status_code == 200
            seen[name] = sorted({each["incident"][-1] for each in answer.json()["hits"]})
            hunt = await http.post("/v1/hunt", content="evil.example", headers={**HUNT, **token})
            allowed = {"admin": "123", "hunter": "1"}.get(name)
            assert hunt.status_code == (403 if allowed is None else 200), name
            if allowed is not None:
                assert {each["incident"][-1] for each in hunt.json()["hits"]} == set(allowed)
        assert (await http.get("/v1/search", params={"q": "evil"})).status_code == 401
    assert seen == {
        "admin": ["1", "2", "3"], "payments": ["1"], "shop": ["2"], "both": ["1", "2", "3"], "lister": [],
        "stranger": [], "hunter": ["1"],
    }  # fmt: skip


async def test_hostile_names_stay_text(world: World, index: SearchIndex) -> None:
    """What packets say comes back printable, as JSON that nothing takes for a page."""
    its = make_incident(7, namespaces=("payments",))
    await world.catalogue.put(incidents=[its])
    row = sighting(Place.TLS, (Kind.DOMAIN, "<script>\\x1b[2j.example"))
    await index.put(IncidentId(its.id), "", file="f", tag="1", rows=[row], now_ns=1)
    async with (
        world.served(index=index) as port,
        httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http,
    ):
        answer = await http.get("/v1/search", params={"q": "<script>"})
    assert answer.json()["hits"][0]["value"] == "<script>\\x1b[2j.example"
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-content-type-options"] == "nosniff"


async def test_a_list_that_is_not_read_is_a_warning(world: World) -> None:
    """Nobody becomes unready by it, and everybody can see it."""
    async with (
        world.served(unread_lists=lambda: ("not JSON at c2.json:3",)) as port,
        httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http,
    ):
        answer = await http.get("/readyz")
    assert answer.status_code == 200
    assert answer.json()["warnings"] == ["a list of indicators is not read: not JSON at c2.json:3"]
