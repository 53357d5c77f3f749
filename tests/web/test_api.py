"""The API over a real server: what it says of incidents, targets, refusals and itself, and whom it tells."""

from __future__ import annotations

import json

import httpx2
import pytest

from tests.web.rights import TABLE, path_of
from tripshark.errors import Transient
from tripshark.ingest.auth import Credentials, Gate
from tripshark.web.routes import ROUTES


def client(port: int, **options: object) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}", **options)


def shape(answer: httpx2.Response) -> dict[str, str]:
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert set(answer.json()["error"]) == {"code", "message", "hint", "where"}
    return answer.json()["error"]


async def test_incidents_come_newest_first_in_pages(world, make) -> None:
    """`next` leads through all of them, each once."""
    await world.catalogue.put(incidents=[make["incident"](n) for n in range(2, 26)])
    async with world.served() as port, client(port) as http:
        seen, cursor = [], ""
        while True:
            answer = (await http.get(f"/v1/incidents?limit=10{cursor}")).json()
            seen += [each["id"] for each in answer["incidents"]]
            if answer["next"] is None:
                break
            cursor = f"&before={answer['next']}"
    assert seen == [f"20261124-{n:04d}" for n in range(25, 0, -1)]


async def test_an_incident_in_the_list_has_what_was_promised(world) -> None:
    """id, state, ledger, target, alerts and folder, as in `incidents --json`."""
    async with world.served() as port, client(port) as http:
        (one,) = (await http.get("/v1/incidents")).json()["incidents"]
    assert one["id"] == world.incident.id
    assert (one["state"], one["ledger"], one["target"]) == (
        "sealed",
        "complete",
        "payments/checkout",
    )
    assert (one["alerts"], one["folder"]) == (1, "")
    assert one["t0"].startswith("1970-01-01T00:16:41")


@pytest.mark.parametrize(
    ("query", "count"),
    [
        ("namespace=payments", 1),
        ("namespace=other", 0),
        ("pod=checkout&state=sealed", 1),
        ("state=open", 0),
        ("since=1970-01-01T00:00:00Z", 1),
        ("since=1h", 0),
    ],
)
async def test_incidents_are_filtered(world, query: str, count: int) -> None:
    """The filters of the command line."""
    async with world.served() as port, client(port) as http:
        answer = await http.get(f"/v1/incidents?{query}")
    assert len(answer.json()["incidents"]) == count, answer.text


@pytest.mark.parametrize(
    "query",
    [
        "state=odd",
        "limit=0",
        "limit=x",
        "limit=501",
        "since=tomorrow",
        "since=2026-01-01",
        "before=../../x",
        "namespce=a",
        "limit=1&limit=2",
        "pod=" + "x" * 300,
        "pod=%00",
    ],
)
async def test_what_cannot_be_asked_is_refused(world, query: str) -> None:
    """400 in the one shape, with what would be right; a misspelt filter is never ignored."""
    async with world.served() as port, client(port) as http:
        answer = await http.get(f"/v1/incidents?{query}")
    assert answer.status_code == 400
    assert shape(answer)["where"]


async def test_one_incident_is_told_whole(world) -> None:
    """With its plan and its alerts; others are 404, impossible ids 400."""
    async with world.served() as port, client(port) as http:
        whole = (await http.get(f"/v1/incidents/{world.incident.id}")).json()
        unknown = await http.get("/v1/incidents/20200101-0000")
        impossible = await http.get("/v1/incidents/..%2f..%2fetc")
    assert whole["alert_list"][0]["id"] == "alert-1"
    assert "plan" in whole
    assert (unknown.status_code, shape(unknown)["code"]) == (404, "not_found")
    assert impossible.status_code in (400, 404)


async def test_targets_rules_and_refusals_are_told(world) -> None:
    """With history, drops, reasons and counts."""
    async with world.served() as port, client(port) as http:
        (target,) = (await http.get("/v1/targets")).json()["targets"]
        rules = (await http.get("/v1/rules")).json()
        refusals = (await http.get("/v1/refusals")).json()
        world.targets.away = Transient("the recorder is away", hint="start it")
        away = await http.get("/v1/targets")
    assert (target["title"], target["drops"], target["alive"]) == ("payments/shop0", 3, True)
    assert target["identity"]["labels"] == {"app": "checkout"}
    assert rules == {"rules": [{"rule": "Beacon"}]}
    assert refusals["refusals"][0]["refusal"]["reason"] == "no_target"
    assert refusals["counts"] == {"no_target": 1}
    assert (away.status_code, shape(away)["hint"]) == (503, "start it")


async def test_a_capture_by_hand_is_asked_for(world) -> None:
    """The whole request reaches the flow in its own units; the answer names the incident."""
    body = {"target": "payments/checkout", "before": "1m", "after": 5, "scope": "peer",
            "peer": "203.0.113.66:4444", "filter": "not port 9100", "max_bytes": "5MB"}  # fmt: skip
    async with world.served() as port, client(port) as http:
        answer = await http.post("/v1/captures", json=body)
        short = await http.post("/v1/captures", json={"target": "host"})
        nobody = await http.post("/v1/captures", json={"target": "nobody"})
    assert answer.status_code == 202
    assert answer.headers["location"] == "/v1/incidents/20261124-0009"
    asked, defaulted = world.captures.asked
    assert (asked.before_ns, asked.after_ns, asked.max_bytes) == (60 * 10**9, 5 * 10**9, 5_000_000)
    assert (asked.scope.value, asked.peer, asked.by) == ("peer", body["peer"], "api:127.0.0.1")
    assert (defaulted.before_ns, defaulted.scope, defaulted.filter) == (None, None, "")
    assert short.status_code == 202
    assert nobody.status_code == 404


@pytest.mark.parametrize(
    ("body", "media", "status"),
    [
        (b'{"target": "host"}', "text/plain", 415),
        (b'{"target": "host"}', "", 415),
        (b"{", "application/json", 400),
        (b'{"target": ""}', "application/json", 400),
        (b'{"target": "a\\nb"}', "application/json", 400),
        (b'{"target": "host", "befor": "1s"}', "application/json", 400),
        (b'{"target": "host", "before": "soon"}', "application/json", 400),
        (b'{"target": "host", "before": -1}', "application/json", 400),
        (b'{"target": "host", "after": "400d"}', "application/json", 400),
        (b'{"target": "host", "scope": "world"}', "application/json", 400),
        (b'{"target": "host", "max_bytes": "0"}', "application/json", 400),
        (b'{"target": "host", "max_bytes": "many"}', "application/json", 400),
        (b'{"target": "' + b"x" * 20_000 + b'"}', "application/json", 413),
    ],
)
async def test_a_wrong_capture_request_starts_nothing(world, body, media, status) -> None:
    """Each mistake has its code; no web page elsewhere can start one with a plain form."""
    headers = {"content-type": media} if media else {}
    async with world.served() as port, client(port) as http:
        answer = await http.post("/v1/captures", content=body, headers=headers)
    assert answer.status_code == status
    shape(answer)
    assert world.captures.asked == []


async def test_every_route_answers_as_it_is_described(world) -> None:
    """OpenAPI names exactly what is routed, and each route answers with a code it describes."""
    world.parts.watch.closing.set()  # streams end at once
    async with world.served() as port, client(port) as http:
        document = (await http.get("/v1/openapi.json")).json()
        described = {
            (method.upper(), path)
            for path, methods in document["paths"].items()
            for method in methods
        }
        assert described == {(each.method, each.path) for each in ROUTES}
        deleted = {each.path for each in ROUTES if each.method == "DELETE"}
        for route in ROUTES:
            name = f"{route.method} {route.path}"
            path = path_of(name, world.incident.id)
            answer = await http.request(route.method, path, json=TABLE[name].json)
            operation = document["paths"][route.path][route.method.lower()]
            assert str(answer.status_code) in operation["responses"], (name, answer.text)
            if route.path not in deleted:
                other = await http.request("DELETE", path)
                assert other.status_code == 405
                assert shape(other)["code"] == "method_not_allowed"


async def test_off_loopback_reading_needs_credentials(world) -> None:
    """All but health, and metrics as set; the challenge lets a browser ask."""
    gate = Gate(Credentials(bearer=("tok",), basic={"u": "p"}))
    world.parts.watch.closing.set()  # streams end at once
    async with world.served(gate=gate) as port, client(port) as http:
        for route in ROUTES:
            name = f"{route.method} {route.path}"
            path, body = path_of(name, world.incident.id), TABLE[name].json
            bare = await http.request(route.method, path, json=body)
            assert (bare.status_code != 401) == TABLE[name].is_open, path
            if bare.status_code == 401:
                assert "Basic" in bare.headers["www-authenticate"]
                if "json" in bare.headers["content-type"]:  # else a page says it
                    shape(bare)
            for auth in (
                {"headers": {"authorization": "Bearer tok"}},
                {"auth": ("u", "p")},
                {"auth": ("anybody", "tok")},
            ):
                allowed = await http.request(route.method, path, json=body, **auth)
                assert TABLE[name].is_open or allowed.status_code not in (401, 403)
        assert len(world.captures.asked) == 3
        assert "problem" not in json.dumps((await http.get("/readyz")).json())
    async with world.served(gate=gate, metrics_open=False) as port, client(port) as http:
        assert (await http.get("/metrics")).status_code == 401


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1", 200), ("localhost:2803", 200), ("[::1]:2803", 200), ("192.0.2.1:80", 200),
        ("node-1:2803", 200), ("NODE-1", 200), ("evil.example", 403), ("evil.example:2803", 403),
        ("127.0.0.1.evil.example", 403),
    ],
)  # fmt: skip
async def test_a_name_that_is_not_ours_reads_nothing_without_credentials(
    world, host: str, status: int
) -> None:
    """A web page that makes its own name mean 127.0.0.1 (DNS rebinding) is turned away."""
    async with world.served() as port, client(port) as http:
        answer = await http.get("/v1/incidents", headers={"host": host})
    assert answer.status_code == status


async def test_health_says_what_is_wrong(world) -> None:
    """Alive always; ready only when every check is fine, with its words and what Falco lost."""

    async def broken() -> str:
        return "the disk is full"

    async def slow() -> str:
        raise TimeoutError

    async with world.served() as port, client(port) as http:
        assert (await http.get("/healthz")).json() == {"alive": True}
        fine = await http.get("/readyz")
    assert (fine.status_code, fine.json()["ready"]) == (200, True)
    checks = {"recorder": slow, "disk": broken}
    async with world.served(checks=checks) as port, client(port) as http:
        answer = await http.get("/readyz")
    assert answer.status_code == 503
    assert answer.json()["checks"]["disk"] == {"ok": False, "problem": "the disk is full"}
    assert "no answer" in answer.json()["checks"]["recorder"]["problem"]


async def test_a_failure_in_here_is_told_in_the_one_shape(world, caplog) -> None:
    """500 without a trace for the caller, and with one in the log."""
    world.targets.away = RuntimeError("secret detail")
    async with world.served() as port, client(port) as http:
        answer = await http.get("/v1/targets")
    assert answer.status_code == 500
    assert "secret detail" not in answer.text
    assert shape(answer)["code"] == "failed"
    assert "secret detail" in caplog.text
