"""Asks an OpenID Connect provider who somebody is: discovery, code flow with PKCE, and an ID token that is proved.

Where to ask comes from the operator's `issuer` alone: over https (http only to this machine), without following
redirects, within bounds of time and size. An ID token counts when a key of the issuer signed it with an asymmetric
algorithm, it is for us, about this attempt, and of now.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlencode, urlsplit

import httpx2
import msgspec
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from tripshark.errors import BadInput, Denied, Permanent, Transient
from tripshark.model.role import claim, groups_in

ALGORITHMS: Final = (
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512",
    "ES256", "ES384", "ES512", "EdDSA", "Ed25519",
)  # fmt: skip
SKEW_S: Final = 60  # by which the provider's clock and ours may differ
_MAX_ANSWER = 256 * 1024
_TIMEOUT_S = 10.0
_KEEP_NS = 3600 * 1_000_000_000  # discovery and keys; a token of an unknown key asks anew
_AGAIN_NS = 30 * 1_000_000_000  # but not more often than this
_OLDEST_TOKEN_S = 600


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """What the operator says: whom to ask, and who we are to them."""

    issuer: str
    client_id: str
    client_secret: str = field(default="", repr=False)  # "": a public client
    scopes: tuple[str, ...] = ("openid", "profile", "email")
    name_claim: str = "email"
    groups_claim: str = "groups"
    ca: Path | None = None  # PEM; None: the system's authorities


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """Who the provider says it is."""

    name: str
    groups: tuple[str, ...]
    id_token: str = field(repr=False)


class _Metadata(msgspec.Struct):
    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    userinfo_endpoint: str = ""
    end_session_endpoint: str = ""
    token_endpoint_auth_methods_supported: tuple[str, ...] = ("client_secret_basic",)
    authorization_response_iss_parameter_supported: bool = False


class _Tokens(msgspec.Struct):
    id_token: str
    access_token: str = ""


_METADATA = msgspec.json.Decoder(_Metadata)
_TOKENS = msgspec.json.Decoder(_Tokens)
_OBJECT = msgspec.json.Decoder(dict[str, Any])


class Provider:
    """One identity provider. `redirect_uri` is ours, as it is registered there."""

    def __init__(self, client: Client, *, redirect_uri: str) -> None:
        """Raises `BadInput` for an issuer that must not be asked, `Permanent` for a CA that cannot be read."""
        _require_safe(client.issuer, local=True, what="signin.oidc.issuer")
        self.redirect_uri = redirect_uri
        self._client = client
        self._local = urlsplit(client.issuer).scheme == "http"
        self._http = httpx2.AsyncClient(
            verify=_authorities(client.ca),
            follow_redirects=False,
            timeout=_TIMEOUT_S,
            trust_env=False,  # no proxy out of the environment sees the client's secret
            headers={"accept": "application/json"},
            limits=httpx2.Limits(max_connections=8),
        )
        self._asking = asyncio.Lock()
        self._metadata: _Metadata | None = None
        self._metadata_ns = 0
        self._keys: KeySet | None = None
        self._keys_ns = 0

    async def close(self) -> None:
        await self._http.aclose()

    # ------------------------------------------------------------------------------- the browser's way

    async def begin(self, *, state: str, nonce: str, challenge: str, now_ns: int) -> str:
        """The address to which the browser goes. Raises `Transient`, `Permanent`."""
        metadata = await self._discovered(now_ns)
        query = {
            "response_type": "code",
            "client_id": self._client.client_id,
            "redirect_uri": self.redirect_uri,
            "scope": " ".join(dict.fromkeys(("openid", *self._client.scopes))),
            "state": state,
            "nonce": nonce,
            "code_challenge": challenge,
            "code_challenge_method": "S256",
        }
        return _with_query(metadata.authorization_endpoint, query)

    async def finish(
        self, *, code: str, issuer: str, nonce: str, verifier: str, now_ns: int
    ) -> Person:
        """Who came back with this code; `issuer` is the answer's `iss`. Raises `Denied`, `Transient`, `Permanent`."""
        metadata = await self._discovered(now_ns)
        if issuer != metadata.issuer and (
            issuer or metadata.authorization_response_iss_parameter_supported
        ):
            raise Denied("the answer is of another identity provider", where="iss")
        tokens = await self._exchange(metadata, code, verifier)
        claims = await self._proved(metadata, tokens.id_token, nonce, now_ns)
        wanted = (self._client.name_claim, self._client.groups_claim)
        if metadata.userinfo_endpoint and any(claim(claims, each) is None for each in wanted):
            told = await self._userinfo(metadata, tokens.access_token)
            if told.get("sub") == claims["sub"]:  # else it is about somebody else
                claims = {**told, **claims}
        return self._person(claims, tokens.id_token)

    async def farewell(self, *, id_token: str, back: str, now_ns: int) -> str:
        """Where the browser can sign out at the provider too; "" where it offers nothing."""
        metadata = await self._discovered(now_ns)
        if not metadata.end_session_endpoint:
            return ""
        query = {"client_id": self._client.client_id, "post_logout_redirect_uri": back}
        if id_token:
            query["id_token_hint"] = id_token
        return _with_query(metadata.end_session_endpoint, query)

    # ---------------------------------------------------------------------------------- what is believed

    def _person(self, claims: Mapping[str, Any], id_token: str) -> Person:
        name = claim(claims, self._client.name_claim)
        if self._client.name_claim == "email" and claims.get("email_verified") is False:
            raise Denied(
                "the identity provider has not verified this e-mail address",
                where="email_verified",
                hint="signin.oidc.name_claim can name another claim, such as preferred_username",
            )
        return Person(
            name=name if isinstance(name, str) and name.strip() else str(claims["sub"]),
            groups=groups_in(claim(claims, self._client.groups_claim)),
            id_token=id_token,
        )

    async def _proved(
        self, metadata: _Metadata, token: str, nonce: str, now_ns: int
    ) -> dict[str, Any]:
        keys = await self._keyset(metadata, now_ns)
        try:
            claims = _verified(token, keys)
        except _UnknownKey:
            keys = await self._keyset(metadata, now_ns, anew=True)
            try:
                claims = _verified(token, keys)
            except _UnknownKey:
                raise _doubted("no key of the issuer made its signature") from None
        _check(claims, self._client, nonce, now_ns / 1e9)
        return claims

    # ----------------------------------------------------------------------------------------- asking

    async def _discovered(self, now_ns: int) -> _Metadata:
        async with self._asking:
            if self._metadata is not None and now_ns - self._metadata_ns < _KEEP_NS:
                return self._metadata
            issuer = self._client.issuer
            where = f"{issuer.rstrip('/')}/.well-known/openid-configuration"
            body = await self._ask("GET", where)
            try:
                metadata = _METADATA.decode(body)
            except msgspec.MsgspecError as error:
                raise _odd(f"no discovery document: {error}", where) from error
            if metadata.issuer != issuer:
                raise _odd(f"it calls itself {metadata.issuer[:120]!r}", where)
            for each in (
                metadata.authorization_endpoint,
                metadata.token_endpoint,
                metadata.jwks_uri,
                metadata.userinfo_endpoint,
                metadata.end_session_endpoint,
            ):
                if each:
                    try:
                        _require_safe(each, local=self._local, what="an endpoint")
                    except BadInput as error:
                        raise _odd(error.message, where) from error
            self._metadata, self._metadata_ns = metadata, now_ns
            return metadata

    async def _keyset(self, metadata: _Metadata, now_ns: int, *, anew: bool = False) -> KeySet:
        async with self._asking:
            age = now_ns - self._keys_ns
            fresh = age < (_AGAIN_NS if anew else _KEEP_NS)
            if self._keys is not None and fresh:
                return self._keys
            body = await self._ask("GET", metadata.jwks_uri)
            try:
                told = _OBJECT.decode(body).get("keys")
                usable = [each for each in list(told or ())[:64] if _is_for_signatures(each)]
                keys = KeySet.import_key_set({"keys": usable})
            except (msgspec.MsgspecError, JoseError, ValueError, TypeError, KeyError) as error:
                raise _odd("its keys cannot be read", metadata.jwks_uri) from error
            self._keys, self._keys_ns = keys, now_ns
            return keys

    async def _exchange(self, metadata: _Metadata, code: str, verifier: str) -> _Tokens:
        client = self._client
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": self.redirect_uri,
            "code_verifier": verifier,
        }
        auth = None
        methods = metadata.token_endpoint_auth_methods_supported
        if not client.client_secret:
            form["client_id"] = client.client_id
        elif "client_secret_basic" in methods or "client_secret_post" not in methods:
            # RFC 6749 wants both form-encoded before they are joined
            auth = (quote(client.client_id, safe=""), quote(client.client_secret, safe=""))
        else:
            form |= {"client_id": client.client_id, "client_secret": client.client_secret}
        body = await self._ask("POST", metadata.token_endpoint, form=form, auth=auth)
        try:
            return _TOKENS.decode(body)
        except msgspec.MsgspecError as error:
            raise _odd("its answer holds no ID token", metadata.token_endpoint) from error

    async def _userinfo(self, metadata: _Metadata, access_token: str) -> dict[str, Any]:
        body = await self._ask("GET", metadata.userinfo_endpoint, bearer=access_token)
        try:
            return _OBJECT.decode(body)
        except msgspec.MsgspecError:
            return {}  # a signed one (JWT): whatever it says is not needed to sign in

    async def _ask(
        self,
        method: str,
        url: str,
        *,
        form: Mapping[str, str] | None = None,
        auth: tuple[str, str] | None = None,
        bearer: str = "",
    ) -> bytes:
        headers = {"authorization": f"Bearer {bearer}"} if bearer else {}
        body = b""
        try:
            async with (
                asyncio.timeout(_TIMEOUT_S),
                self._http.stream(method, url, data=form, auth=auth, headers=headers) as answer,
            ):
                async for piece in answer.aiter_bytes():
                    body += piece
                    if len(body) > _MAX_ANSWER:
                        raise _odd("its answer is too long", url)
        except (httpx2.HTTPError, TimeoutError, OSError) as error:
            raise Transient(
                "the identity provider does not answer",
                where=url,
                hint=f"{type(error).__name__}: {str(error)[:200]}".rstrip(": "),
                after=5.0,
            ) from error
        if answer.status_code >= 500:
            raise Transient(
                f"the identity provider answers {answer.status_code}", where=url, after=5.0
            )
        if method == "POST" and answer.status_code in (400, 401):
            raise _refused(body)
        if answer.status_code != 200:
            raise _odd(f"it answers {answer.status_code}", url)
        return body


class _UnknownKey(Exception):
    """Whoever signed it is not among the keys that are known: they may have been changed."""


def _verified(token: str, keys: KeySet) -> dict[str, Any]:
    """The claims of a token that one of these keys signed. Raises `Denied`, `_UnknownKey`."""
    if len(token) > _MAX_ANSWER or token.count(".") != 2:
        raise _doubted("it is not a signed token")
    try:
        return dict(jwt.decode(token, keys, algorithms=ALGORITHMS).claims)
    except (JoseError, ValueError) as error:
        # joserfc raises ValueError for a kid that no key has
        if type(error).__name__ in ("ValueError", "InvalidKeyIdError", "BadSignatureError"):
            raise _UnknownKey from error
        raise _doubted(f"{type(error).__name__}") from error


def _check(claims: Mapping[str, Any], client: Client, nonce: str, now_s: float) -> None:
    """OpenID Connect Core 3.1.3.7. Raises `Denied` with what is wrong."""
    audience = claims.get("aud")
    audiences = [audience] if isinstance(audience, str) else audience
    if claims.get("iss") != client.issuer:
        raise _doubted("it is of another issuer")
    if not isinstance(audiences, list) or client.client_id not in audiences:
        raise _doubted("it is for somebody else")
    party = claims.get("azp")
    if (len(audiences) > 1 or party is not None) and party != client.client_id:
        raise _doubted("it was given to somebody else")
    ends, began = _seconds(claims, "exp"), _seconds(claims, "iat")
    holds = _seconds(claims, "nbf") if "nbf" in claims else began
    if ends is None or now_s >= ends + SKEW_S:
        raise _doubted("it is over")
    if began is None or began > now_s + SKEW_S or began < now_s - _OLDEST_TOKEN_S:
        raise _doubted("it was not made now", hint="are both clocks right?")
    if holds is None or holds > now_s + SKEW_S:
        raise _doubted("it does not hold yet")
    if claims.get("nonce") != nonce:
        raise _doubted("it is of another attempt")
    subject = claims.get("sub")
    if not isinstance(subject, str) or not 0 < len(subject) <= 255:
        raise _doubted("it is about nobody")


def _seconds(claims: Mapping[str, Any], name: str) -> float | None:
    value = claims.get(name)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _is_for_signatures(key: object) -> bool:
    return (
        isinstance(key, dict)
        and key.get("kty") in ("RSA", "EC", "OKP")
        and key.get("crv") not in ("X25519", "X448")
        and key.get("use", "sig") == "sig"
    )


def _doubted(why: str, *, hint: str = "") -> Denied:
    return Denied(f"the ID token cannot be believed: {why}", where="id_token", hint=hint)


def _odd(what: str, where: str) -> Permanent:
    return Permanent(
        f"the identity provider is not as expected: {what}",
        where=where,
        hint="see signin.oidc.issuer",
    )


def _refused(body: bytes) -> Denied | Permanent:
    """What its token endpoint says went wrong (RFC 6749 5.2)."""
    try:
        code = str(_OBJECT.decode(body).get("error", ""))[:60]
    except msgspec.MsgspecError:
        code = ""
    if code == "invalid_client":
        return Permanent(
            "the identity provider does not know us",
            where="token endpoint",
            hint="are signin.oidc.client_id and client_secret what it has?",
        )
    return Denied(
        "the identity provider takes the code back", where=code or "token endpoint", hint="sign in anew"
    )  # fmt: skip


def _with_query(url: str, query: Mapping[str, str]) -> str:
    return f"{url}{'&' if urlsplit(url).query else '?'}{urlencode(query)}"


def _require_safe(url: str, *, local: bool, what: str) -> None:
    """https to anywhere, or where `local` says so http to this machine. Raises `BadInput`."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        _ = parts.port
    except ValueError as error:
        raise BadInput(f"{what} is not an address", where=url[:200]) from error
    if not host or parts.username is not None or parts.fragment or not url.isascii() or " " in url:
        raise BadInput(f"{what} is not an address", where=url[:200])
    if parts.scheme == "https" or (parts.scheme == "http" and local and _is_here(host)):
        return
    raise BadInput(
        f"{what} has to begin with https://", where=url[:200], hint="http is for 127.0.0.1 alone"
    )


def _is_here(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _authorities(ca: Path | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca)
    except (OSError, ssl.SSLError) as error:
        raise Permanent(
            f"the provider's authorities cannot be read: {error}",
            where=str(ca),
            hint="signin.oidc.ca names a PEM file",
        ) from error
