"""Every route for everybody: strangers, each role here and elsewhere, browsers with and without their token, and the forged."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from ipaddress import ip_network

import httpx2
import pytest

from tests.web.conftest import World
from tests.web.rights import TABLE, path_of
from tripshark.ingest.auth import Credentials, Gate
from tripshark.model.role import Assignment, Grant, Right, Role
from tripshark.signin.desk import Desk
from tripshark.signin.failures import Failures
from tripshark.signin.proxy import Proxy
from tripshark.signin.sessions import Sessions
from tripshark.signin.tokens import Token, Tokens
from tripshark.store.catalogue import SqlCatalogue
from tripshark.store.notes import SqlNotes
from tripshark.web.app import App
from tripshark.web.routes import ROUTES

PEER, PROXY = "198.51.100.9", "10.0.0.1"
GRANTS = {
    "viewer": Right(role=Role.VIEWER, namespaces=("payments",)),
    "viewer elsewhere": Right(role=Role.VIEWER, namespaces=("shop",)),
    "responder": Right(role=Role.RESPONDER, namespaces=("payments",)),
    "responder elsewhere": Right(role=Role.RESPONDER, namespaces=("shop", "default")),
    "admin of one": Right(role=Role.ADMIN, namespaces=("payments",)),
    "admin elsewhere": Right(role=Role.ADMIN, namespaces=("shop",)),
    "admin": Right(role=Role.ADMIN),
}
ASSIGNMENTS = tuple(
    Assignment(right=right, user=f"{name.replace(' ', '-')}@proxy")
    for name, right in GRANTS.items()
)


def token_of(name: str) -> str:
    return f"token-of-{name.replace(' ', '-')}"


@dataclass
class Site:
    """The whole application with every way to sign in."""

    world: World
    desk: Desk
    app: App

    def client(self, peer: str = PEER, **headers: str) -> httpx2.AsyncClient:
        return httpx2.AsyncClient(
            transport=httpx2.ASGITransport(app=self.app, client=(peer, 40_000)),
            base_url="https://tripshark.test",
            headers={name.replace("_", "-"): value for name, value in headers.items()},
        )

    def session(self, name: str, *, age_s: float = 0) -> tuple[str, str]:
        """A browser's cookie and CSRF token."""
        now_ns = self.world.parts.clock.now_ns() - round(age_s * 1e9)
        grant = Grant(name=f"oidc:{name}", rights=(GRANTS[name],))
        id, session = self.desk.begin(grant.name, now_ns, way="oidc", grant=grant)
        return f"__Host-tripshark={id}", session.csrf

    async def ask(self, route: str, http: httpx2.AsyncClient) -> httpx2.Response:
        method, _, _ = route.partition(" ")
        it = TABLE[route]
        return await http.request(
            method,
            path_of(route, self.world.incident.id),
            json=it.json,
            headers=dict(it.headers),
        )


@pytest.fixture
async def site(world: World) -> AsyncIterator[Site]:
    desk = Desk(
        tokens=Tokens(
            Token(grant=Grant(name=f"token:{name}", rights=(right,)), value=token_of(name))
            for name, right in GRANTS.items()
        ),
        sessions=Sessions(idle_s=600, absolute_s=3600, most=1000),
        failures=Failures(per_minute=1_000_000),
        proxy=Proxy(
            trusted=(ip_network(f"{PROXY}/32"),),
            user_header="X-Forwarded-User",
            groups_header="X-Forwarded-Groups",
            assignments=ASSIGNMENTS,
        ),
        url="https://tripshark.test",
    )
    assert isinstance(world.catalogue, SqlCatalogue)
    world.parts.watch.closing.set()  # streams end at once
    parts = replace(
        world.parts,
        signin=desk,
        origin=desk.origin,
        notes=SqlNotes(world.catalogue),
        # what alerts come in with: it reads nothing here
        gate=Gate(Credentials(bearer=("alert-sender",), basic={"falco": "alert-sender"})),
    )
    yield Site(world, desk, App(parts, None))
    await desk.close()


def expected(route: str, who: str) -> int:
    """What the table says of this caller."""
    it, right = TABLE[route], GRANTS[who]
    where = "*" if it.everywhere else "payments"
    allowed = all(right.allows(verb, resource, where) for verb, resource in it.needs)
    return it.ok if allowed or it.is_open else 403


def test_every_route_has_an_entry() -> None:
    """A route that is not in tests/web/rights.py is one of which nobody knows who may ask for it."""
    routed = {f"{each.method} {each.path}" for each in ROUTES}
    assert routed - set(TABLE) == set(), "add these to tests/web/rights.py"
    assert {route for route, it in TABLE.items() if it.is_open} >= {
        f"{each.method} {each.path}" for each in ROUTES if each.is_open
    }


def routes() -> list[str]:
    return [route for each in ROUTES if (route := f"{each.method} {each.path}") in TABLE]


@pytest.mark.parametrize("who", GRANTS)
async def test_what_each_role_gets(site: Site, who: str) -> None:
    """By token, by a browser's session and by the proxy's word alike: what the table says, and 403 for the rest."""
    cookie, csrf = site.session(who)
    proxied = {"x_forwarded_user": f"{who.replace(' ', '-')}@proxy"}
    async with site.client(PROXY, **proxied) as http:
        proxied["x_tripshark_csrf"] = (await http.get("/v1/me")).json()["csrf"]
    ways = (
        site.client(authorization=f"Bearer {token_of(who)}"),
        site.client(cookie=cookie, x_tripshark_csrf=csrf, origin="https://tripshark.test"),
        site.client(PROXY, **proxied),
    )
    for number, client in enumerate(ways):
        async with client as http:
            for route in routes():
                if number == 1 and route.endswith(("/signin", "/signout")):
                    continue  # they end the session: tests/web/test_signin.py
                got = await site.ask(route, http)
                assert got.status_code == expected(route, who), (
                    route,
                    who,
                    number,
                    got.text[:300],
                )
                if got.status_code == 403 and not TABLE[route].is_open:
                    assert "may not" in got.text


STRANGERS = {
    "nothing": {},
    "a wrong token": {"authorization": "Bearer wrong-wrong-wrong-wrong"},
    "an alert sender's token": {"authorization": "Bearer alert-sender"},
    "an alert sender's password": {"authorization": "Basic ZmFsY286YWxlcnQtc2VuZGVy"},
    "nonsense": {"authorization": "Negotiate YII="},
    "a planted session": {"cookie": "__Host-tripshark=planted-by-somebody-else"},
    "a plain cookie": {"cookie": "tripshark=planted-by-somebody-else"},
    "a proxy's header that no proxy sent": {
        "x_forwarded_user": "admin@proxy",
        "x_forwarded_for": PROXY,
        "forwarded": f"for={PROXY}",
    },
}


@pytest.mark.parametrize("how", STRANGERS)
async def test_strangers_get_nothing(site: Site, how: str) -> None:
    """401 with a challenge for programs, the way to sign in for browsers; open paths stay open."""
    async with site.client(**STRANGERS[how]) as http:
        for route in routes():
            got = await site.ask(route, http)
            it = TABLE[route]
            assert got.status_code == (it.ok if it.is_open else 401), (route, got.text[:300])
            if got.status_code == 401 and not it.is_open:
                assert "Bearer" in got.headers["www-authenticate"]
        page = await http.get("/", headers={"accept": "text/html"})
        assert page.status_code == (401 if "authorization" in STRANGERS[how] else 303)
        deep = await http.get("/incidents/x?file=a&y=%0d%0ab", headers={"accept": "text/html"})
        if deep.status_code == 303:
            assert deep.headers["location"].startswith("/signin?next=/incidents/x%3Ffile%3Da")
    assert site.world.captures.asked == []
    assert site.world.viewed == []
    assert site.desk.foreign_headers == (len(routes()) + 2 - opens() if "proxy" in how else 0)


def opens() -> int:
    """Routes at which nobody is asked who they are, but for those that show more to whoever may know all."""
    return sum(TABLE[route].is_open for route in routes()) - 1  # readyz


async def test_sessions_that_are_over_open_nothing(site: Site) -> None:
    """After resting too long, after the longest time, and after signing out."""
    rested, _ = site.session("admin", age_s=601)
    old, csrf = site.session("admin", age_s=3601)
    out, _ = site.session("admin")
    site.desk.end(out.partition("=")[2])
    for cookie in (rested, old, out):
        async with site.client(cookie=cookie, x_tripshark_csrf=csrf) as http:
            for route in routes():
                if not TABLE[route].is_open:
                    assert (await site.ask(route, http)).status_code == 401, route


async def test_changes_need_a_page_of_ours(site: Site) -> None:
    """What a browser sends by itself, with a session or with the proxy's word, changes nothing without the token."""
    cookie, csrf = site.session("admin")
    ours = {"cookie": cookie, "origin": "https://tripshark.test"}
    proxied = {"x_forwarded_user": "admin@proxy"}
    forged = (
        (PEER, ours),
        (PEER, {**ours, "x_tripshark_csrf": "wrong"}),
        (PEER, {**ours, "x_tripshark_csrf": csrf, "origin": "https://evil.test"}),
        (PEER, {**ours, "x_tripshark_csrf": csrf, "origin": "null"}),
        (PEER, {**ours, "x_tripshark_csrf": csrf, "sec_fetch_site": "cross-site"}),
        (PEER, {**ours, "x_tripshark_csrf": csrf, "sec_fetch_site": "same-site"}),
        (PROXY, proxied),
        (PROXY, {**proxied, "x_tripshark_csrf": csrf}),
        (PEER, {"authorization": f"Bearer {token_of('admin')}", "origin": "https://evil.test"}),
    )
    changes = [each for each in routes() if not each.startswith("GET") and "/sign" not in each]
    assert len(changes) >= 4
    for peer, headers in forged:
        async with site.client(peer, **headers) as http:
            for route in changes:
                got = await site.ask(route, http)
                assert got.status_code == 403, (route, headers)
                assert got.json()["error"]["code"] == "forged"
    assert site.world.captures.asked == []
    assert not await SqlNotes(site.world.catalogue).of(site.world.incident.id)


async def test_lists_show_only_what_may_be_seen(site: Site) -> None:
    """By role and namespace, as with Kubernetes' rights."""
    for who, seen in (("viewer", 1), ("viewer elsewhere", 0), ("admin", 1)):
        async with site.client(authorization=f"Bearer {token_of(who)}") as http:
            listed = (await http.get("/v1/incidents")).json()["incidents"]
            targets = (await http.get("/v1/targets")).json()["targets"]
            page = (await http.get("/")).text
            me = (await http.get("/v1/me")).json()
        assert len(listed) == len(targets) == seen
        assert (site.world.incident.id in page) == bool(seen)
        assert me["name"] == f"token:{who}"
        assert me["namespaces"] == (
            None if GRANTS[who].namespaces is None else list(GRANTS[who].namespaces)
        )


async def test_evidence_of_several_namespaces_needs_a_right_on_each(site: Site) -> None:
    """What is in the catalogue decides as well as what was sealed."""
    await site.world.catalogue.put(
        incidents=[replace(site.world.incident, namespaces=("payments", "shop"))]
    )
    for who in ("viewer", "viewer elsewhere", "admin of one"):
        async with site.client(authorization=f"Bearer {token_of(who)}") as http:
            for route in routes():
                if TABLE[route].needs and "{id}" in route:
                    assert (await site.ask(route, http)).status_code == 403, (route, who)
