"""Who may see what: every route for every kind of reader, deep links and ranges included, and nothing without an answer."""

from __future__ import annotations

from base64 import b64encode
from dataclasses import replace

import httpx2
import pytest

from tests.web.conftest import World, make_alert, make_incident, make_target
from tests.web.rights import TABLE, path_of
from tripshark.errors import Denied, Transient, TripsharkError
from tripshark.ingest.auth import Credentials, Gate
from tripshark.model.evidence import IncidentId, Ledger, Manifest
from tripshark.model.incident import State
from tripshark.model.part import Part, Place, node_name
from tripshark.model.target import Elsewhere, Identity, Members, Resolution, TargetKind
from tripshark.store.catalogue import SqlCatalogue
from tripshark.store.notes import SqlNotes
from tripshark.web.app import App
from tripshark.web.routes import ROUTES

GET_ALL = {("get", "incidents"), ("get", "evidence")}


class Cluster:
    """`web.access.Access` in memory: users by token, their rights by namespace; "" is all of them."""

    def __init__(self) -> None:
        self.rights: dict[str, set[tuple[str, str, str]]] = {
            "admin": {(v, r, "") for v, r in (*GET_ALL, ("create", "captures"))},
            "payments": {(v, r, "payments") for v, r in GET_ALL},
            "shop": {(v, r, "shop") for v, r in GET_ALL},
            "both": {(v, r, n) for v, r in GET_ALL for n in ("payments", "shop")},
            "lister": {("get", "incidents", "payments")},
            "capturer": {("create", "captures", "payments")},
            "stranger": set(),
        }
        self.away: TripsharkError | None = None

    async def who(self, token: str) -> str | None:
        if self.away is not None:
            raise self.away
        name = token.removeprefix("token-of-")
        return name if token.startswith("token-of-") and name in self.rights else None

    async def may(self, user: str, verb: str, resource: str, namespace: str) -> bool:
        if self.away is not None:
            raise self.away
        mine = self.rights[user]
        return (verb, resource, "") in mine or (verb, resource, namespace) in mine


class Found:
    """`ports.Targets` that knows one pod of payments, one of the host's network, and a container of shop."""

    async def all(self) -> tuple:
        shop = Identity(namespace="shop", pod="cart")
        return (
            make_target(),
            make_target("cart", identity=shop),
            make_target("host", kind=TargetKind.HOST, identity=Identity()),
        )

    async def resolve(self, alert: object) -> Resolution:
        return Resolution(target=None, reason="none")

    async def resolve_late(self, alert: object) -> Resolution:
        return Resolution(target=None, reason="none")

    async def find(self, name: str) -> Resolution:
        pod, cart, host = await self.all()
        known = {"payments/shop0": pod, "payments/hostly": host, "container:0123456789ab": cart}
        if name == "payments/service/mixed":
            return Resolution(target=pod, reason="", members=Members(targets=(pod, cart)))
        if name == "payments/service/far":
            far = Members(targets=(pod,), elsewhere=(Elsewhere(node="n2"),))
            return Resolution(target=pod, reason="", members=far)
        return Resolution(target=known.get(name), reason="")


BOTH, HOST = IncidentId("20261124-0002"), IncidentId("20261124-0003")


@pytest.fixture
async def guarded(world: World) -> tuple[World, Cluster]:
    """Evidence of payments, of payments and shop together, and of a whole machine."""
    for number, (id, names) in enumerate(
        {BOTH: ("payments", "shop"), HOST: ("*",)}.items(), start=2
    ):
        incident = make_incident(number, namespaces=names)
        draft = world.vault.begin(id, incident.opened_ns)
        with draft.create("evidence.pcapng") as file:
            file.write(b"packets of many")
        draft.seal(
            Manifest(
                incident=id,
                created_ns=incident.sealed_ns,
                ledger=Ledger(),
                files=(),
                details={"who": {"namespaces": list(names)}},
            ),
            ["evidence.pcapng"],
        )
        await world.catalogue.put(incidents=[incident])
    await world.catalogue.put(
        alerts=[make_alert(7, namespace="shop"), make_alert(8, namespace="")]
    )
    return world, Cluster()


def _client(app: App, user: str = "") -> httpx2.AsyncClient:
    headers = {"authorization": f"Bearer token-of-{user}"} if user else {}
    return httpx2.AsyncClient(
        transport=httpx2.ASGITransport(app=app), base_url="http://127.0.0.1", headers=headers
    )


def _serve(guarded: tuple[World, Cluster], **more: object) -> App:
    """The whole application, asked without a network between."""
    world, cluster = guarded
    assert isinstance(world.catalogue, SqlCatalogue)
    world.parts.watch.closing.set()  # streams end at once
    more = {"notes": SqlNotes(world.catalogue), **more}
    return App(replace(world.parts, access=cluster, targets=Found(), **more), None)


def expected(route: str, rights: set[tuple[str, str, str]]) -> int:
    """What tests/web/rights.py says of somebody with these rights."""
    it = TABLE[route]
    where = ("",) if it.everywhere else ("", "payments")
    allowed = all(any((*need, each) in rights for each in where) for need in it.needs)
    return it.ok if allowed or it.is_open else 403


def routes() -> list[str]:
    """All but those for signing in, which is not what happens here."""
    every = [f"{each.method} {each.path}" for each in ROUTES]
    return [each for each in every if "/sign" not in each]


async def test_every_route_for_every_reader(guarded: tuple[World, Cluster]) -> None:
    """What the table says and 403 for the rest, with the missing right named; no token and a foreign one get 401."""
    world, cluster = guarded
    app = _serve(guarded)
    for route in routes():
        method, _, _ = route.partition(" ")
        path, body = path_of(route, world.incident.id), TABLE[route].json
        for user, rights in cluster.rights.items():
            async with _client(app, user) as http:
                got = await http.request(method, path, json=body)
            assert got.status_code == expected(route, rights), (route, user, got.text)
            is_json = "application/json" in got.headers["content-type"]
            if got.status_code == 403 and is_json and not TABLE[route].own_words:
                error = got.json()["error"]
                assert error["code"] == "denied"
                assert "tripshark.dev" in error["message"], error
                assert "kubectl auth can-i" in error["hint"]
        for headers in (
            {},
            {"authorization": "Bearer nobody's"},
            {"authorization": "Basic ??"},
        ):
            async with _client(app) as http:
                bare = await http.request(method, path, json=body, headers=headers)
            assert bare.status_code == (TABLE[route].ok if TABLE[route].is_open else 401), route
    assert [each.by for each in world.captures.asked] == [
        "kubernetes:admin", "kubernetes:capturer",
    ]  # fmt: skip


async def test_without_an_answer_of_the_cluster_nobody_is_let_in(
    guarded: tuple[World, Cluster],
) -> None:
    """Away is 503; a cluster that does not let us ask is our fault and 500, never an open door or a 401 for the reader."""
    world, cluster = guarded
    for away, status in ((Transient("away"), 503), (Denied("we may not ask"), 500)):
        cluster.away = away
        async with _client(_serve(guarded), "admin") as http:
            for route in routes():
                method, _, _ = route.partition(" ")
                it = TABLE[route]
                path = path_of(route, world.incident.id)
                got = await http.request(method, path, json=it.json)
                assert got.status_code == (it.ok if it.is_open else status), route
            ready = (await http.get("/readyz")).json()
            assert "upstream" not in ready
    assert world.captures.asked == []


@pytest.mark.parametrize(
    ("user", "seen"),
    [("admin", {"20261124-0001", BOTH, HOST}), ("payments", {"20261124-0001"}), ("shop", set()),
     ("both", {"20261124-0001", BOTH}), ("lister", {"20261124-0001"}), ("stranger", set())],
)  # fmt: skip
async def test_lists_show_what_may_be_seen(
    guarded: tuple[World, Cluster], user: str, seen: set[str]
) -> None:
    """Incidents, targets, refusals and the page are filtered alike; counts tell nothing of others."""
    async with _client(_serve(guarded), user) as http:
        incidents = (await http.get("/v1/incidents")).json()["incidents"]
        paged = (await http.get("/v1/incidents?limit=1")).json()["incidents"]
        targets = (await http.get("/v1/targets")).json()["targets"]
        refused = (await http.get("/v1/refusals")).json()
        page = (await http.get("/")).text
        foreign = (await http.get("/v1/incidents?namespace=shop")).json()["incidents"]
    assert {each["id"] for each in incidents} == seen
    assert len(paged) == min(1, len(seen))
    for id in ("20261124-0001", BOTH, HOST):
        assert (id in page) == (id in seen), id
    assert foreign == []  # none has its target there
    names = {"admin": {"payments", "shop", ""}, "both": {"payments", "shop"}, "stranger": set()}
    mine = names.get(user, {"payments"} if user == "lister" else {user})
    assert {each["identity"]["namespace"] for each in targets} == mine
    assert {each["target"].partition("/")[0] for each in refused["refusals"]} == mine
    assert sum(refused["counts"].values()) == len(refused["refusals"])
    assert ("recorded" in page) or user


FILES = ("evidence.pcapng", "manifest.json", "custody.jsonl", "evidence.pcap", "no-such.pcapng")


@pytest.mark.parametrize("id", [BOTH, HOST, IncidentId("20261124-9999")])
async def test_evidence_of_several_namespaces_needs_a_right_on_each(
    guarded: tuple[World, Cluster], id: IncidentId
) -> None:
    """Neither a deep link nor a range, a condition, HEAD, a companion or a made file gets around it; nor a name that is none."""
    world, cluster = guarded
    allowed = {BOTH: {"admin", "both"}}.get(id, {"admin"})
    app = _serve(guarded)
    for user in cluster.rights:
        async with _client(app, user) as http:
            for name in FILES:
                for path in (f"{id}/{name}", f"{id}/parts/node-1/{name}"):
                    for method, headers in (
                        ("GET", {}), ("HEAD", {}), ("GET", {"range": "bytes=0-3"}),
                        ("GET", {"if-none-match": "*"}),
                    ):  # fmt: skip
                        got = await http.request(method, f"/v1/incidents/{path}", headers=headers)
                        if user not in allowed:
                            assert got.status_code == 403, (user, path, method)
                            assert b"packets" not in got.content or method == "GET"
                            assert "etag" not in got.headers
                        elif name == "evidence.pcapng" and id != "20261124-9999":
                            assert got.status_code in (200, 206, 304), (user, path)
    who = {name for _, _, name in world.viewed}
    assert who <= {f"kubernetes:{name}" for name in allowed}


async def test_what_was_sealed_is_asked_about_too(guarded: tuple[World, Cluster]) -> None:
    """A catalogue that says less than the manifest opens nothing."""
    world, _ = guarded
    known = await world.catalogue.incident(BOTH)
    assert known is not None
    await world.catalogue.put(incidents=[replace(known, namespaces=("payments",))])
    async with _client(_serve(guarded), "payments") as http:
        got = await http.get(f"/v1/incidents/{BOTH}/evidence.pcapng")
    assert got.status_code == 403
    assert "namespace shop" in got.json()["error"]["message"]


async def test_merged_files_need_the_rights_of_all_parts(guarded: tuple[World, Cluster]) -> None:
    """The derived file is as protected as what it is made of."""
    import os

    world, cluster = guarded
    asked: list[str] = []

    class Merging:
        async def open(self, parts: object, name: str) -> int:
            asked.append(name)
            fd = os.memfd_create("merged")
            os.write(fd, b"merged")
            return fd

    incident = make_incident(2)
    part = Part(
        place=Place(day="2026/11/24", incident=BOTH, node=node_name("node-1")),
        incident=incident, files=(), manifest_sha256="0" * 64, manifest_bytes=1,
    )  # fmt: skip

    async def parts_of(id: IncidentId) -> list[Part]:
        return [part]

    app = _serve(guarded, merging=Merging(), parts_of=parts_of)
    for user in cluster.rights:
        async with _client(app, user) as http:
            got = await http.get(f"/v1/incidents/{BOTH}/merged.pcapng")
            listed = await http.get(f"/v1/incidents/{BOTH}/parts")
        assert got.status_code == (200 if user in ("admin", "both") else 403), user
        assert listed.status_code == (200 if user in ("admin", "both") else 403), user
    assert asked == ["merged.pcapng"] * 2
    names = [name for _, name, _ in world.viewed]
    assert names.count("merged.pcapng") == names.count("incident") == 2


CAPTURES = {  # target and scope → the answer to who may capture in payments
    ("payments/shop0", ""): 202, ("payments/shop0", "pod"): 202, ("payments/shop0", "node"): 403,
    ("payments/unknown", ""): 202, ("payments/hostly", ""): 403, ("shop/cart", ""): 403,
    ("container:0123456789ab", ""): 403, ("container:ffffffffffff", ""): 403, ("host", ""): 403,
    ("pid:1", ""): 403, ("netns:shop0", ""): 403, ("node:node-1", ""): 403, ("x:y/z", ""): 403,
    ("payments/service/checkout", ""): 202, ("shop/deployment/cart", ""): 403,
    ("payments/service/mixed", ""): 403, ("payments/service/far", ""): 403,
}  # fmt: skip


async def test_captures_need_the_right_where_the_packets_are(
    guarded: tuple[World, Cluster],
) -> None:
    """By name, by what the name turns out to be, by scope: the host's packets need the right over all namespaces."""
    world, _ = guarded
    app = _serve(guarded)
    for (target, scope), capturer in CAPTURES.items():
        body = {"target": target} | ({"scope": scope} if scope else {})
        world.captures.asked.clear()
        for user, status in (("capturer", capturer), ("admin", 202), ("payments", 403)):
            async with _client(app, user) as http:
                got = await http.post("/v1/captures", json=body)
            assert got.status_code == status, (target, user, got.text)
        assert len(world.captures.asked) == (2 if capturer == 202 else 1)


async def test_who_asks_for_what_is_not_there_learns_no_names_of_others(
    guarded: tuple[World, Cluster],
) -> None:
    """People are helped with names that resemble what they wrote, which are everybody's."""
    app = _serve(guarded)
    for user, told in (("capturer", False), ("admin", True)):
        async with _client(app, user) as http:
            got = await http.post("/v1/captures", json={"target": "payments/nobody"})
        assert got.status_code == 404
        assert ("shop/cart" in got.text) is told


async def test_credentials_of_alerts_read_nothing_beside_the_cluster(
    guarded: tuple[World, Cluster],
) -> None:
    """With the cluster's rights in force a static token is nobody's; a browser may send a token as a password."""
    gate = Gate(Credentials(bearer=("falco",), basic={"falco": "secret"}))
    async with _client(_serve(guarded, gate=gate, metrics_open=False)) as http:
        for value in (b"falco", b"secret"):
            basic = b64encode(b"falco:" + value).decode()
            for header in (f"Bearer {value.decode()}", f"Basic {basic}"):
                got = await http.get("/v1/incidents", headers={"authorization": header})
                assert got.status_code == 401
                assert "Basic" in got.headers["www-authenticate"]
        basic = b64encode(b"anybody:token-of-payments").decode()
        got = await http.get("/v1/incidents", headers={"authorization": f"Basic {basic}"})
        assert len(got.json()["incidents"]) == 1
        for user, status in (("payments", 403), ("admin", 200)):
            header = {"authorization": f"Bearer token-of-{user}"}
            assert (await http.get("/metrics", headers=header)).status_code == status
            detailed = "upstream" in (await http.get("/readyz", headers=header)).json()
            assert detailed == (user == "admin")


def test_states_are_listed() -> None:
    """An incident that is open is filtered as a sealed one is: by its namespaces."""
    assert make_incident(1, state=State.OPEN, namespaces=()).held == ("payments",)
    assert make_incident(1, namespace="", namespaces=()).held == ("*",)
