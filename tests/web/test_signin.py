"""Signing in, as browsers and attackers do it: a real provider, forms, cookies, and everything that must not work."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from html import unescape
from ipaddress import ip_network
from urllib.parse import quote

import httpx2
import pytest

from tests.signin import provider
from tests.web.conftest import World
from tripshark.model.role import Assignment, Grant, Right, Role
from tripshark.signin.desk import CALLBACK, Desk
from tripshark.signin.failures import Failures
from tripshark.signin.oidc import Client, Provider
from tripshark.signin.proxy import Proxy
from tripshark.signin.sessions import Sessions
from tripshark.signin.tokens import Token, Tokens
from tripshark.web.app import App
from tripshark.web.signin import local_path

URL = "https://tripshark.test"
TOKEN = "a-token-of-somebody-0123456789"
COOKIE = "__Host-tripshark"
HTML = {"accept": "text/html,*/*"}
FORM = {"content-type": "application/x-www-form-urlencoded", "origin": URL}
SECOPS = (Assignment(right=Right(role=Role.RESPONDER, namespaces=("payments",)), group="secops"),)


@dataclass
class Site:
    world: World
    desk: Desk
    app: App

    def browser(self, peer: str = "198.51.100.9", **headers: str) -> httpx2.AsyncClient:
        """With a jar for cookies, as browsers have."""
        return httpx2.AsyncClient(
            transport=httpx2.ASGITransport(app=self.app, client=(peer, 40_000)),
            base_url=URL,
            headers={name.replace("_", "-"): value for name, value in headers.items()},
        )


@asynccontextmanager
async def site_of(world: World, **changes: object) -> AsyncIterator[Site]:
    given: dict[str, object] = {
        "tokens": Tokens(
            [Token(grant=Grant(name="token:ci", rights=(Right(role=Role.ADMIN),)), value=TOKEN)]
        ),
        "sessions": Sessions(idle_s=600, absolute_s=3600, most=100),
        "failures": Failures(per_minute=10),
        "assignments": SECOPS,
        "url": URL,
    }
    desk = Desk(**{**given, **changes})  # type: ignore[arg-type]
    parts = replace(world.parts, signin=desk, origin=desk.origin)
    yield Site(world, desk, App(parts, None))
    await desk.close()


@pytest.fixture
async def site(world: World) -> AsyncIterator[Site]:
    async with site_of(world) as it:
        yield it


async def by_token(http: httpx2.AsyncClient, token: str = TOKEN, **more: str) -> httpx2.Response:
    return await http.post("/signin", data={"token": token, **more}, headers=FORM)


# ------------------------------------------------------------------------------------------ by provider


async def test_the_whole_way_by_a_real_provider(world: World) -> None:
    """A deep link, the provider's pages, back to that link, a change with its token, and out at both places."""
    async with provider.running(URL + CALLBACK, f"{URL}/signin") as real:
        client = Client(
            issuer=real.issuer,
            client_id=provider.CLIENT_ID,
            client_secret=provider.CLIENT_SECRET,
            scopes=("openid", "profile", "email", "groups"),
        )
        ours = Provider(client, redirect_uri=URL + CALLBACK)
        async with (
            site_of(world, provider=ours) as site,
            site.browser() as http,
            httpx2.AsyncClient() as elsewhere,
        ):
            deep = f"/incidents/{world.incident.id}"
            turned = await http.get(deep, headers=HTML)
            assert turned.status_code == 303
            door = await http.get(turned.headers["location"])
            link = re.search(r'href="(/signin/start[^"]*)"', door.text)
            assert link is not None
            begun = await http.get(unescape(link[1]))
            assert begun.headers["location"].startswith(real.issuer)
            back = await real.sign_in(elsewhere, begun.headers["location"], "alice")

            # login CSRF: the same answer in a browser that did not begin this
            async with site.browser() as victim:
                refused = await victim.get(back)
                assert refused.status_code == 401
                assert COOKIE not in victim.cookies
            came = await http.get(back)
            assert (came.status_code, came.headers["location"]) == (303, deep)
            assert (await http.get(back)).status_code == 401  # once
            assert (await http.get(deep, headers=HTML)).status_code == 200
            me = (await http.get("/v1/me")).json()
            assert me["name"] == "oidc:alice@example.test"
            assert (me["role"], me["namespaces"]) == ("responder", ["payments"])
            body = {"target": "payments/shop0"}
            assert (await http.post("/v1/captures", json=body)).status_code == 403
            done = await http.post(
                "/v1/captures", json=body, headers={"x-tripshark-csrf": me["csrf"]}
            )
            assert done.status_code == 202

            page = await http.get("/signout")
            csrf = re.search(r'name="csrf" value="([^"]+)"', page.text)
            assert csrf is not None
            gone = await http.post("/signout", data={"csrf": csrf[1]}, headers=FORM)
            assert f"{real.issuer}/oauth/end_session?" in unescape(gone.text)
            assert (await http.get("/v1/me")).status_code == 401
            assert site.desk.sessions == 0

            # known to the provider, and of no role here
            async with site.browser() as other, httpx2.AsyncClient() as theirs:
                begun = await other.get("/signin/start")
                back = await real.sign_in(theirs, begun.headers["location"], "bob")
                refused = await other.get(back)
                assert refused.status_code == 403
                assert "may do nothing here" in refused.text
                assert COOKIE not in other.cookies

            # the provider dies: said, and the way by token stays
            real.process.kill()
            await real.process.wait()
            ours._metadata = None  # as after an hour
            away = await http.get("/signin/start")
            assert away.status_code == 503
            assert "does not answer" in away.text
            assert (await by_token(http)).status_code == 303
    assert {what for _, what, _ in world.viewed} >= {"incident"}
    assert {who for _, _, who in world.viewed} == {"oidc:alice@example.test"}


async def test_an_answer_counts_once_whole_and_in_its_browser(world: World) -> None:
    """Another state, none, a planted cookie, errors of the provider, everything twice: 401, and no session."""
    unused = Provider(Client(issuer="http://127.0.0.1:1", client_id="x"), redirect_uri=URL)
    async with site_of(world, provider=unused) as site, site.browser() as http:
        for query in (
            "", "?code=a&state=b", "?code=a&code=b&state=c", "?error=access_denied&state=x",
            "?error=<script>alert(1)</script>", "?code=" + "a" * 5000,
        ):  # fmt: skip
            for cookie in (
                "",
                f"{COOKIE}-signin=a.b",
                f"{COOKIE}-signin=a.b; {COOKIE}-signin=c.d",
            ):
                got = await http.get(f"/signin/callback{query}", headers={"cookie": cookie})
                assert got.status_code in (401, 429), (query, cookie)
                assert "<script>alert" not in got.text
        assert site.desk.sessions == 0


# --------------------------------------------------------------------------------------------- by token


async def test_by_token_for_a_session(site: Site) -> None:
    """Hardened cookie, where one wanted to go, no token in any page or address; programs need no session."""
    async with site.browser() as http:
        door = await http.get("/signin?next=/incidents")
        assert 'name="next" value="/incidents"' in door.text
        came = await by_token(http, next="/incidents")
        assert (came.status_code, came.headers["location"]) == (303, "/incidents")
        cookie = came.headers["set-cookie"]
        assert cookie.startswith(f"{COOKIE}=")
        for word in ("HttpOnly", "Secure", "SameSite=lax", "Path=/"):
            assert word.lower() in cookie.lower()
        assert "domain" not in cookie.lower()
        assert TOKEN not in str(came.headers)
        page = await http.get("/", headers=HTML)
        assert page.status_code == 200
        assert TOKEN not in page.text
        csrf = re.search(r'<meta name="csrf" content="([^"]+)"', page.text)
        assert csrf is not None
        assert csrf[1] == (await http.get("/v1/me")).json()["csrf"]
        assert (await http.get("/signin")).headers["location"] == "/"
    async with site.browser(authorization=f"Bearer {TOKEN}") as program:
        assert (await program.get("/v1/me")).json()["name"] == "token:ci"
        started = await program.post("/v1/captures", json={"target": "payments/x"})
        assert started.status_code == 202  # no page, no token


async def test_session_fixation(site: Site) -> None:
    """An id that somebody planted is not taken up, and signing in again ends the session before."""
    planted = "planted" * 6
    async with site.browser() as http:
        http.cookies.set(COOKIE, planted, domain="tripshark.test")
        first = (await by_token(http)).headers["set-cookie"]
        assert planted not in first
        async with site.browser(cookie=f"{COOKIE}={planted}") as attacker:
            assert (await attacker.get("/v1/me")).status_code == 401
        one = re.search(rf"{COOKIE}=([^;]+)", first)
        assert one is not None
        async with site.browser(cookie=f"{COOKIE}={one[1]}") as again:
            second = await by_token(again)
        assert one[1] not in second.headers["set-cookie"]
        async with site.browser(cookie=f"{COOKIE}={one[1]}") as old:
            assert (await old.get("/v1/me")).status_code == 401
    assert site.desk.sessions == 1


async def test_cookie_tossing(site: Site) -> None:
    """Two cookies of our name, or one under the plain name: no session, whichever comes first."""
    async with site.browser() as http:
        await by_token(http)
        good = http.cookies[COOKIE]
    for header in (
        f"{COOKIE}=evil; {COOKIE}={good}", f"{COOKIE}={good}; {COOKIE}=evil", f"tripshark={good}",
        f"__host-tripshark={good}", f"{COOKIE} ={good}x", f'{COOKIE}="{good}"',
    ):  # fmt: skip
        async with site.browser(cookie=header) as http:
            assert (await http.get("/v1/me")).status_code == 401, header
    async with site.browser(cookie=f"a=b; {COOKIE}={good};c") as http:
        assert (await http.get("/v1/me")).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [{}, {"origin": "https://evil.test"}, {"origin": "null"}, {"sec-fetch-site": "cross-site"},
     {"origin": URL, "sec-fetch-site": "cross-site"}, {"origin": "http://tripshark.test"},
     {"origin": "https://tripshark.test.evil.test"}, {"origin": "https://[::1"}],
)  # fmt: skip
async def test_login_csrf(site: Site, headers: dict[str, str]) -> None:
    """No page elsewhere signs a browser in as somebody else, or out."""
    async with site.browser() as http:
        form = {"content-type": FORM["content-type"], **headers}
        got = await http.post("/signin", data={"token": TOKEN}, headers=form)
        assert got.status_code == 403
        assert COOKIE not in http.cookies
        await by_token(http)
        if headers:
            out = await http.post("/signout", data={"csrf": "x"}, headers=form)
            assert out.status_code == 403
        assert (await http.get("/v1/me")).status_code == 200


async def test_a_form_of_ours_on_a_silent_page(site: Site) -> None:
    """A page that tells nobody where it was sends `Origin: null`; the browser itself says that the site is ours."""
    async with site.browser() as http:
        assert (await http.get("/signin")).headers["referrer-policy"] == "same-origin"
        silent = {**FORM, "origin": "null", "sec-fetch-site": "same-origin"}
        assert (
            await http.post("/signin", data={"token": TOKEN}, headers=silent)
        ).status_code == 303
        assert (await http.get("/signout")).headers["referrer-policy"] == "same-origin"


async def test_signing_out_needs_the_pages_token(site: Site) -> None:
    """A link, an image and a form elsewhere sign nobody out."""
    async with site.browser() as http:
        await by_token(http)
        assert (await http.get("/signout")).status_code == 200
        for data in ({"csrf": ""}, {"csrf": "wrong"}):
            got = await http.post("/signout", data=data, headers=FORM)
            assert got.status_code == 403
        csrf = (await http.get("/v1/me")).json()["csrf"]
        out = await http.post("/signout", data={"csrf": csrf}, headers=FORM)
        assert out.status_code == 200
        assert "Max-Age=0" in out.headers["set-cookie"]
        assert (await http.get("/v1/me")).status_code == 401
        assert (await http.post("/signout", data={"csrf": csrf}, headers=FORM)).status_code == 303


# ------------------------------------------------------------------------------------------- where to go

ELSEWHERE = (
    "https://evil.test", "//evil.test", "/\\evil.test", "\\\\evil.test", "///evil.test", "/%09/evil.test\n",
    "javascript:alert(1)", "data:text/html,x", "/\t/evil.test", " //evil.test", "/..//evil.test\r\nSet-Cookie: a=b",
    "evil.test", "", "/signin?next=/signin", "/signout", "http:evil.test", "/x" * 3000, "/\x00", "/é",
)  # fmt: skip


@pytest.mark.parametrize("next", ELSEWHERE)
async def test_nobody_is_sent_elsewhere(site: Site, next: str) -> None:
    """Open redirect and header injection: whatever was asked for, the answer stays at ours."""
    path = local_path(next)
    assert re.fullmatch(r"/([!-\[\]-~][!-\[\]-~]*)?", path)
    assert not path.startswith(("//", "/\\", "/sign"))
    async with site.browser() as http:
        came = await by_token(http, next=next)
        assert came.status_code == 303
        where = came.headers["location"]
        assert httpx2.URL(URL).join(where).host == "tripshark.test"
        assert "set-cookie: a=b" not in str(came.headers).lower()


# --------------------------------------------------------------------------------------------- guessing


async def test_guessing_is_slow_and_locks_nobody_out(site: Site) -> None:
    """After ten wrong ones an address gets 429, by form and by header; a right token works there all the same."""
    async with site.browser() as http:
        statuses = [(await by_token(http, f"wrong-{n}")).status_code for n in range(12)]
        assert statuses == [401] * 10 + [429] * 2
        denied = await http.get("/v1/me", headers={"authorization": "Bearer wrong"})
        assert denied.status_code == 429
        assert int(denied.headers["retry-after"]) >= 1
        assert (
            await http.get("/v1/me", headers={"authorization": f"Bearer {TOKEN}"})
        ).status_code == 200
        assert (await by_token(http)).status_code == 303
    async with site.browser("203.0.113.1") as other:
        assert (await by_token(other, "wrong")).status_code == 401
    assert site.desk.counted["token", "failed"] == 11
    assert site.desk.counted["token", "limited"] >= 3


async def test_forms_are_bounded(site: Site) -> None:
    """A token as long as a book, a thousand fields, another media type, bytes that are no text."""
    async with site.browser() as http:
        for body, media, status in (
            (b"token=" + b"a" * 40_000, None, 413), (b"a=b&" * 1000, None, 400), (b"{}", "application/json", 415),
            (b"token=%ff%fe", None, 400), (b"", None, 401), (b"\xff\xfe", None, 400),
        ):  # fmt: skip
            headers = {**FORM, **({"content-type": media} if media else {})}
            got = await http.post("/signin", content=body, headers=headers)
            assert got.status_code == status, body[:20]


# ------------------------------------------------------------------------------------------------- proxy


async def test_a_proxys_word_counts_from_its_address_alone(world: World) -> None:
    """Failures are its clients'; two names are an error of its set-up; people of no role get nothing."""
    proxy = Proxy(
        trusted=(ip_network("10.0.0.1/32"),), user_header="X-Forwarded-User",
        groups_header="X-Forwarded-Groups", assignments=SECOPS,
    )  # fmt: skip
    async with site_of(world, proxy=proxy) as site:
        alice = {"x_forwarded_user": "alice", "x_forwarded_groups": "secops"}
        async with site.browser("10.0.0.1", **alice) as http:
            assert (await http.get("/v1/me")).json()["name"] == "proxy:alice"
            assert (await http.get("/signin")).status_code == 200
        async with site.browser("10.0.0.2", **alice) as http:
            assert (await http.get("/v1/me")).status_code == 401
        assert site.desk.foreign_headers == 1
        async with site.browser("10.0.0.1", x_forwarded_user="mallory") as http:
            nothing = await http.get("/v1/me")
            assert nothing.status_code == 403
            assert "signin.roles" in nothing.text
        async with site.browser("10.0.0.1") as http:
            twice = [("x-forwarded-user", "alice"), ("x-forwarded-user", "admin")]
            assert (await http.get("/v1/me", headers=twice)).status_code == 400
        for number in range(12):
            chain = {
                "x_forwarded_for": f"10.0.0.1, 192.0.2.{number}",
                "authorization": "Bearer no",
            }
            async with site.browser("10.0.0.1", **chain) as http:
                assert (await http.get("/v1/me")).status_code == 401


# ----------------------------------------------------------------------------------------- without TLS


async def test_on_loopback_without_tls_the_cookie_has_its_plain_name(world: World) -> None:
    """`__Host-` and Secure would never come back; everything else is the same."""
    async with site_of(world, url="") as site, site.browser() as http:
        came = await http.post(
            "/signin", data={"token": TOKEN}, headers={**FORM, "origin": "https://tripshark.test"}
        )
        assert came.headers["set-cookie"].startswith("tripshark=")
        assert "secure" not in came.headers["set-cookie"].lower()
        assert "httponly" in came.headers["set-cookie"].lower()


# ------------------------------------------------------------------------------------------- on the wire


async def _raw(port: int, request: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    await writer.drain()
    writer.write_eof()
    async with asyncio.timeout(10):
        answer = await reader.read()
    writer.close()
    return answer


Attack = tuple[bytes, Callable[[bytes], bool]]
HEAD = b"Host: 127.0.0.1\r\nConnection: close\r\n"
ATTACKS: dict[str, Attack] = {
    "two lengths": (
        b"POST /v1/captures HTTP/1.1\r\n" + HEAD + b"Content-Length: 5\r\nContent-Length: 60\r\n\r\nabcde",
        lambda got: b" 400 " in got[:20] or not got,
    ),
    "length and chunks": (
        b"POST /v1/captures HTTP/1.1\r\n" + HEAD + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"0\r\n\r\nGET /v1/rules HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        lambda got: got.count(b"HTTP/1.1 ") <= 1,
    ),
    "an odd encoding": (
        b"POST /v1/captures HTTP/1.1\r\n" + HEAD + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n"
        b"GET /v1/rules HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        lambda got: got.count(b"HTTP/1.1 200") == 0,
    ),
    "space before the colon": (
        b"GET /v1/me HTTP/1.1\r\n" + HEAD + b"Authorization : Bearer " + TOKEN.encode() + b"\r\n\r\n",
        lambda got: b"HTTP/1.1 200" not in got,
    ),
    "a folded header": (
        b"GET /v1/me HTTP/1.1\r\n" + HEAD + b"X-A: b\r\n Authorization: Bearer x\r\n\r\n",
        lambda got: b"HTTP/1.1 200" not in got,
    ),
    "a megabyte of headers": (
        b"GET /v1/me HTTP/1.1\r\n" + HEAD + b"X-A: " + b"a" * 1_000_000 + b"\r\n\r\n",
        lambda got: b"HTTP/1.1 200" not in got,
    ),
    "ten thousand headers": (
        b"GET /v1/me HTTP/1.1\r\n" + HEAD + b"X-A: b\r\n" * 10_000 + b"\r\n",
        lambda got: b"HTTP/1.1 200" not in got,
    ),
    "a path out of the folder": (
        b"GET /v1/incidents/20261124-0001/../../../etc/passwd HTTP/1.1\r\n" + HEAD
        + b"Authorization: Bearer " + TOKEN.encode() + b"\r\n\r\n",
        lambda got: b"root:" not in got and b" 404 " in got[:20],
    ),
    "a path out of the folder, encoded": (
        b"GET /v1/incidents/20261124-0001/..%2f..%2fcatalogue.sqlite HTTP/1.1\r\n" + HEAD
        + b"Authorization: Bearer " + TOKEN.encode() + b"\r\n\r\n",
        lambda got: b"SQLite" not in got and got[:12] in (b"HTTP/1.1 400", b"HTTP/1.1 404"),
    ),
    "a static file out of the folder": (
        b"GET /static/x/..%2f..%2fapp.py HTTP/1.1\r\n" + HEAD + b"\r\n",
        lambda got: b"import" not in got and b" 404 " in got[:20],
    ),
    "a header in the address": (
        b"GET /signin?next=/%0d%0aSet-Cookie:%20a=b HTTP/1.1\r\n" + HEAD + b"\r\n",
        lambda got: b"\r\nset-cookie: a=b" not in got.lower() and b" 200 " in got[:20],
    ),
    "an absolute address": (
        b"GET http://evil.test/v1/me HTTP/1.1\r\n" + HEAD + b"\r\n",
        lambda got: b"HTTP/1.1 200" not in got,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ATTACKS)
async def test_requests_that_are_none(world: World, name: str) -> None:
    """Smuggling, oversized and broken heads, paths that climb: over a real connection."""
    request, fine = ATTACKS[name]
    async with site_of(world) as site, world.served(signin=site.desk, origin=URL) as port:
        got = await _raw(port, request)
        assert fine(got), got[:300]
        again = await _raw(port, b"GET /healthz HTTP/1.1\r\n" + HEAD + b"\r\n")
        assert b" 200 " in again[:20]  # and it goes on


HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>{{1337*7331}}\x1b[2J\u202e"


async def test_what_is_hostile_stays_text(world: World) -> None:
    """XSS: every page and JSON answer over hostile names; what is no page says so, and nothing sniffs."""
    await world.catalogue.put(
        incidents=[
            replace(world.incident, title=HOSTILE, pod=HOSTILE, rule=HOSTILE, summary=HOSTILE)
        ]
    )
    evil = Grant(name=f"oidc:{HOSTILE}", rights=(Right(role=Role.ADMIN),))
    async with site_of(world) as site, site.browser() as http:
        id, _ = site.desk.begin(evil.name, world.parts.clock.now_ns(), way="oidc", grant=evil)
        http.cookies.set(COOKIE, id, domain="tripshark.test")
        for path in (
            "/", f"/incidents/{world.incident.id}", "/signout", f"/signin?next={HOSTILE}", f"/{HOSTILE}",
            "/v1/me", "/v1/incidents", f"/v1/incidents/{world.incident.id}", f"/v1/incidents/{HOSTILE}",
            f"/v1/incidents?rule={HOSTILE}", f"/v1/incidents?{HOSTILE}=1", "/targets", "/rules", f"/search?q={HOSTILE}",
        ):  # fmt: skip
            got = await http.get(quote(path, safe="/?=&"), headers=HTML)
            media = got.headers.get("content-type", "")
            assert got.headers["x-content-type-options"] == "nosniff", path
            if got.status_code == 303:
                continue
            assert "content-security-policy" in got.headers, path
            if media.startswith("text/html"):
                assert "<script>alert" not in got.text, path
                assert "<img src=x" not in got.text, path
                assert "9801547" not in got.text, path
                assert "\x1b" not in got.text, path
                policy = got.headers["content-security-policy"]
                assert "default-src 'none'" in policy
                assert "unsafe" not in policy
            else:
                assert media.startswith("application/json"), path
                assert "sandbox" in got.headers["content-security-policy"]
