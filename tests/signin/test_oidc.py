"""What an identity provider may say before it is believed: a real one, and one that lies in every way."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import httpx2
import pytest
from joserfc import jwk, jws, jwt
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from tests.signin import provider
from tripshark.errors import BadInput, Denied, Permanent, Transient, TripsharkError
from tripshark.signin import attempt
from tripshark.signin.oidc import Client, Person, Provider
from tripshark.web.serve import bind, serving

CALLBACK = "https://tripshark.test/signin/callback"
NONCE = "the-nonce"
KEY = jwk.RSAKey.generate_key(2048, {"use": "sig", "kid": "one"}, private=True)
OTHER = jwk.RSAKey.generate_key(2048, {"use": "sig", "kid": "one"}, private=True)
EC = jwk.ECKey.generate_key("P-256", {"use": "sig", "kid": "two"}, private=True)


async def test_a_real_provider_says_who_somebody_is() -> None:
    """Canaille in a process of its own: discovery, PKCE, the code for tokens, keys, groups, and the way out."""
    async with provider.running(CALLBACK, "https://tripshark.test/signin") as real:
        client = Client(
            issuer=real.issuer,
            client_id=provider.CLIENT_ID,
            client_secret=provider.CLIENT_SECRET,
            scopes=("openid", "profile", "email", "groups"),
        )
        ours = Provider(client, redirect_uri=CALLBACK)
        for name, groups in (("alice", ("secops",)), ("bob", ()), ("stolen", ())):
            begun = attempt.begin("/", time.time_ns())
            url = await ours.begin(
                state=begun.state,
                nonce=begun.nonce,
                challenge=begun.challenge,
                now_ns=time.time_ns(),
            )
            async with httpx2.AsyncClient() as browser:
                back = await real.sign_in(browser, url, "bob" if name == "stolen" else name)
            assert back.startswith(CALLBACK)
            answer = dict(parse_qsl(urlsplit(back).query))
            assert answer["state"] == begun.state
            given = {
                "code": answer["code"],
                "issuer": answer.get("iss", ""),
                "nonce": begun.nonce,
                "now_ns": time.time_ns(),
            }
            if name == "stolen":  # PKCE: a code is worth nothing without the browser's attempt
                with pytest.raises(Denied):
                    await ours.finish(**given, verifier="x" * 64)
                continue
            person = await ours.finish(**given, verifier=begun.verifier)
            assert person.name == f"{name}@example.test"
            assert person.groups == groups
            with pytest.raises(Denied):  # a code works once
                await ours.finish(**given, verifier=begun.verifier)
        wrong = Provider(
            Client(issuer=real.issuer, client_id=provider.CLIENT_ID, client_secret="wrong"),
            redirect_uri=CALLBACK,
        )
        with pytest.raises((Permanent, Denied)):
            await wrong.finish(**given, verifier=begun.verifier)
        out = await ours.farewell(
            id_token=person.id_token, back="https://tripshark.test/signin", now_ns=time.time_ns()
        )
        assert out.startswith(f"{real.issuer}/oauth/end_session?")
        await wrong.close()
        await ours.close()


# -------------------------------------------------------------------------------------- one that lies


@dataclass
class Liar:
    """A provider that answers as told."""

    issuer: str = ""
    metadata: dict[str, Any] = field(default_factory=dict)
    keys: list[dict[str, Any]] = field(default_factory=lambda: [KEY.as_dict(private=False)])
    token: Callable[[], str] | None = None
    answers: dict[str, Response] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    userinfo: dict[str, Any] = field(default_factory=dict)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        path = scope["path"]
        self.asked.append(path)
        told: object = {}
        if path == "/.well-known/openid-configuration":
            told = {
                "issuer": self.issuer,
                "authorization_endpoint": f"{self.issuer}/authorize",
                "token_endpoint": f"{self.issuer}/token",
                "jwks_uri": f"{self.issuer}/keys",
                "userinfo_endpoint": f"{self.issuer}/userinfo",
                **self.metadata,
            }
        elif path == "/keys":
            told = {"keys": self.keys}
        elif path == "/token":
            await request.body()
            told = {"id_token": self.token() if self.token else "", "access_token": "a"}
        elif path == "/userinfo":
            told = self.userinfo
        answer = self.answers.get(path) or Response(
            json.dumps(told), media_type="application/json"
        )
        await answer(scope, receive, send)

    def claims(self, **changes: object) -> dict[str, Any]:
        now = int(time.time())
        whole = {
            "iss": self.issuer, "aud": "tripshark", "sub": "s-1", "email": "a@example.test",
            "nonce": NONCE, "iat": now, "exp": now + 300, **changes,
        }  # fmt: skip
        return {name: value for name, value in whole.items() if value is not None}

    def signed(
        self, key: Any = KEY, header: Mapping[str, str] | None = None, **changes: object
    ) -> str:
        head = {"alg": "RS256", "kid": "one", **(header or {})}
        return jwt.encode(head, self.claims(**changes), key, algorithms=[head["alg"]])

    async def finish(self, **changes: str) -> Person:
        async with self.client() as ours:
            return await ours.finish(
                **{"code": "c", "issuer": "", "nonce": NONCE, "verifier": "v", **changes},
                now_ns=time.time_ns(),
            )

    @asynccontextmanager
    async def client(self, **more: Any) -> AsyncIterator[Provider]:
        ours = Provider(
            Client(issuer=self.issuer, client_id="tripshark", client_secret="s", **more),
            redirect_uri=CALLBACK,
        )
        try:
            yield ours
        finally:
            await ours.close()


@pytest.fixture
async def liar() -> AsyncIterator[Liar]:
    it = Liar()
    async with serving(it, bind("127.0.0.1", 0)) as port:
        it.issuer = f"http://127.0.0.1:{port}"
        yield it


async def test_an_honest_answer_is_believed(liar: Liar) -> None:
    """The control: RSA, PSS and elliptic curves, one audience or several with our name as azp."""
    liar.keys.append(EC.as_dict(private=False))
    for token in (
        lambda: liar.signed(),
        lambda: liar.signed(header={"alg": "PS256"}),
        lambda: liar.signed(EC, {"alg": "ES256", "kid": "two"}),
        lambda: liar.signed(aud=["tripshark", "other"], azp="tripshark"),
        lambda: liar.signed(exp=int(time.time()) - 30),  # clocks differ
    ):
        liar.token = token
        assert (await liar.finish()).name == "a@example.test"


def _unsigned(liar: Liar, alg: str) -> str:
    head, body, _ = liar.signed().split(".")
    forged = jws.serialize_compact({"alg": "HS256"}, b"x", jwk.OctKey.import_key("k" * 32))
    del head
    first = json.dumps({"alg": alg, "kid": "one"}).encode()
    from base64 import urlsafe_b64encode

    return f"{urlsafe_b64encode(first).decode().rstrip('=')}.{body}.{'' if alg == 'none' else forged.split('.')[2]}"


def _confused(liar: Liar) -> str:
    """Signed with the public key as if it were a shared secret."""
    secret = jwk.OctKey.import_key(KEY.as_pem(private=False).hex())
    return jwt.encode({"alg": "HS256", "kid": "one"}, liar.claims(), secret)


LIES: dict[str, Callable[[Liar], str]] = {
    "no signature": lambda it: _unsigned(it, "none"),
    "none, spelled oddly": lambda it: _unsigned(it, "nOnE"),
    "a symmetric one": lambda it: _unsigned(it, "HS256"),
    "the public key as a secret": _confused,
    "another key": lambda it: it.signed(OTHER),
    "an unknown key": lambda it: it.signed(OTHER, {"kid": "unknown"}),
    "a key out of the header": lambda it: it.signed(OTHER, {"jwk": OTHER.as_dict(private=False)}),  # type: ignore[dict-item]
    "another issuer": lambda it: it.signed(iss="https://evil.test"),
    "no issuer": lambda it: it.signed(iss=None),
    "for another client": lambda it: it.signed(aud="other"),
    "for nobody": lambda it: it.signed(aud=None),
    "for several, given to nobody": lambda it: it.signed(aud=["tripshark", "other"]),
    "given to another client": lambda it: it.signed(azp="other"),
    "over": lambda it: it.signed(exp=int(time.time()) - 61),
    "without end": lambda it: it.signed(exp=None),
    "an end that is no time": lambda it: it.signed(exp="tomorrow"),
    "not begun": lambda it: it.signed(iat=int(time.time()) + 3600),
    "of long ago": lambda it: it.signed(iat=int(time.time()) - 3600),
    "not valid yet": lambda it: it.signed(nbf=int(time.time()) + 3600),
    "another attempt": lambda it: it.signed(nonce="other"),
    "no attempt": lambda it: it.signed(nonce=None),
    "nobody": lambda it: it.signed(sub=None),
    "an address nobody verified": lambda it: it.signed(email_verified=False),
    "no token": lambda it: "nonsense",
    "two tokens": lambda it: it.signed() + "." + it.signed(),
    "an endless one": lambda it: "a" * 200_000 + ".b.c",
    "an encrypted one": lambda it: "a.b.c.d.e",
}  # fmt: skip


@pytest.mark.parametrize("lie", LIES)
async def test_a_lie_is_not_believed(liar: Liar, lie: str) -> None:
    """Each is refused as the caller's trouble, never as an error of ours, and names no secret."""
    liar.token = lambda: LIES[lie](liar)
    with pytest.raises(Denied) as refused:
        await liar.finish()
    assert refused.value.http_status == 401
    assert "nonsense" not in str(refused.value)


async def test_keys_that_were_changed_are_asked_for_again(liar: Liar) -> None:
    """Once in half a minute: a flood of forged tokens is no flood of requests."""
    async with liar.client() as ours:

        async def finish(at_s: float) -> Person:
            return await ours.finish(
                code="c", issuer="", nonce=NONCE, verifier="v", now_ns=round((time.time() + at_s) * 1e9)
            )  # fmt: skip

        liar.token = liar.signed
        await finish(0)
        liar.keys = [OTHER.as_dict(private=False)]
        liar.token = lambda: liar.signed(OTHER)
        for _ in range(5):
            with pytest.raises(Denied):
                await finish(1)
        assert liar.asked.count("/keys") == 1
        await finish(31)
        assert liar.asked.count("/keys") == 2


BAD_METADATA: dict[str, dict[str, object]] = {
    "another name": {"issuer": "https://accounts.evil.test"},
    "an endpoint without TLS": {"token_endpoint": "http://169.254.169.254/latest/meta-data"},
    "a file": {"jwks_uri": "file:///etc/passwd"},
    "another scheme": {"token_endpoint": "gopher://127.0.0.1:6379/_FLUSHALL"},
    "a script": {"authorization_endpoint": "javascript:alert(1)"},
    "credentials in it": {"token_endpoint": "https://user:word@evil.test/"},
    "a broken address": {"token_endpoint": "http://[::1"},
    "no end session": {"end_session_endpoint": "javascript:alert(1)"},
    "nothing": {"token_endpoint": None},
}


@pytest.mark.parametrize("how", BAD_METADATA)
async def test_discovery_leads_nowhere_else(liar: Liar, how: str) -> None:
    """No file, no scheme but https, no address without TLS beyond this machine (SSRF)."""
    liar.metadata = BAD_METADATA[how]
    async with liar.client() as ours:
        with pytest.raises(Permanent):
            await ours.begin(state="s", nonce="n", challenge="c", now_ns=time.time_ns())
    assert liar.asked == ["/.well-known/openid-configuration"]


@pytest.mark.parametrize("path", ["/.well-known/openid-configuration", "/keys", "/token"])
async def test_redirects_are_not_followed_and_answers_are_bounded(liar: Liar, path: str) -> None:
    """Wherever it points, nobody goes; a long answer is not read to its end; an error is the provider's."""
    liar.token = liar.signed
    for answer, error in (
        (Response(status_code=302, headers={"location": "/stolen"}), Permanent),
        (Response(b"x" * 1_000_000), Permanent),
        (Response(b"{}"), Permanent),
        (Response(b"[[[["), Permanent),
        (Response(status_code=503), Transient),
    ):
        liar.answers = {path: answer}
        if path == "/keys" and answer.body == b"{}":
            continue  # no keys: nobody is believed, as above
        with pytest.raises(error):
            await liar.finish()
    assert "/stolen" not in liar.asked


async def test_another_providers_answer_is_refused(liar: Liar) -> None:
    """RFC 9207: `iss` in the answer has to be the one that was asked, and there where it was promised."""
    liar.token = liar.signed
    with pytest.raises(Denied, match="another identity provider"):
        await liar.finish(issuer="https://evil.test")
    liar.metadata = {"authorization_response_iss_parameter_supported": True}
    with pytest.raises(Denied, match="another identity provider"):
        await liar.finish()
    assert (await liar.finish(issuer=liar.issuer)).name


async def test_what_the_token_lacks_is_asked_of_userinfo(liar: Liar) -> None:
    """When it is about the same person; else it is not read."""
    liar.token = liar.signed
    liar.userinfo = {"sub": "s-1", "groups": ["a"], "email": "other@example.test"}
    person = await liar.finish()
    assert (person.name, person.groups) == ("a@example.test", ("a",))
    liar.userinfo = {"sub": "s-2", "groups": ["admins"]}
    assert (await liar.finish()).groups == ()


@pytest.mark.parametrize(
    "issuer",
    ["http://id.example", "ftp://id.example", "//id.example", "id.example", "https://", "",
     "https://a:b@id.example", "http://127.0.0.1.evil.test", "https://id.example/#x", "http://[::1"],
)  # fmt: skip
def test_only_https_or_this_machine_is_an_issuer(issuer: str) -> None:
    """Said at the start."""
    with pytest.raises(BadInput, match=r"https|address"):
        Provider(Client(issuer=issuer, client_id="x"), redirect_uri=CALLBACK)


async def test_a_provider_that_is_away_is_away() -> None:
    """Another try may work."""
    unused = bind("127.0.0.1", 0)
    port = unused.getsockname()[1]
    unused.close()
    ours = Provider(
        Client(issuer=f"http://127.0.0.1:{port}", client_id="x"), redirect_uri=CALLBACK
    )
    with pytest.raises(Transient, match="does not answer"):
        await ours.begin(state="s", nonce="n", challenge="c", now_ns=time.time_ns())
    await ours.close()


def test_every_error_is_one_of_ours() -> None:
    """What the web shows has the one shape."""
    assert all(
        issubclass(each, TripsharkError) for each in (BadInput, Denied, Permanent, Transient)
    )
