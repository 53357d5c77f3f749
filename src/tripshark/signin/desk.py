"""Where people prove who they are: every way that the operator allows, behind one thing that the web asks.

`web.access.SignIn` is what the web needs of it. It holds sessions, the identity provider and what was counted; rights
are in `model.role`.
"""

from __future__ import annotations

import hmac
import secrets
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from tripshark.errors import Denied, NotFound, TooMany
from tripshark.model.role import Assignment, Grant, granted
from tripshark.signin import attempt
from tripshark.signin.failures import Failures
from tripshark.signin.oidc import Person, Provider
from tripshark.signin.proxy import Headers, Proxy
from tripshark.signin.sessions import Session, Sessions
from tripshark.signin.tokens import Tokens

CALLBACK: Final = "/signin/callback"


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """Somebody whom the identity provider sent back to us."""

    grant: Grant
    next: str
    id_token: str


class Desk:
    """Implements `web.access.SignIn`."""

    def __init__(
        self,
        *,
        tokens: Tokens,
        sessions: Sessions,
        failures: Failures,
        proxy: Proxy | None = None,
        provider: Provider | None = None,
        assignments: Iterable[Assignment] = (),
        url: str = "",
        tls: bool = False,
        kubernetes: bool = False,
    ) -> None:
        """`url` is how browsers reach us, "" where that is not known; `tls`: this listener speaks TLS."""
        parts = urlsplit(url)
        self.origin = f"{parts.scheme}://{parts.netloc}" if url else ""
        self.secure = tls or parts.scheme == "https"
        self.by_token = len(tokens) > 0 or kubernetes
        self.by_provider = provider is not None
        self.counted: Counter[tuple[str, str]] = Counter()  # (way, outcome)
        self.foreign_headers = 0  # requests with the proxy's headers that the proxy did not send
        self._tokens = tokens
        self._sessions = sessions
        self._failures = failures
        self._proxy = proxy
        self._provider = provider
        self._assignments = tuple(assignments)
        self._key = secrets.token_bytes(32)

    async def close(self) -> None:
        if self._provider is not None:
            await self._provider.close()

    # --------------------------------------------------------------------------------- who is asking

    def of_token(self, token: str) -> Grant | None:
        return self._tokens.of(token)

    def of_proxy(self, peer: str, headers: Headers) -> Grant | None:
        """Who the proxy says is asking. Raises `BadInput` where it says so twice."""
        if self._proxy is None:
            return None
        headers = tuple(headers)
        if not self._proxy.trusts(peer):
            self.foreign_headers += self._proxy.names_somebody(headers)
            return None
        return self._proxy.grant(headers)

    def csrf_of(self, name: str) -> str:
        """What a page of somebody who has no session but the proxy's sends with each change."""
        return hmac.new(self._key, b"csrf\0" + name.encode(), "sha256").hexdigest()

    # -------------------------------------------------------------------------------------- sessions

    @property
    def sessions(self) -> int:
        return len(self._sessions)

    def session(self, id: str, now_ns: int) -> Session | None:
        return self._sessions.of(id, now_ns)

    def begin(
        self,
        name: str,
        now_ns: int,
        *,
        way: str,
        grant: Grant | None = None,
        token: str = "",
        id_token: str = "",
    ) -> tuple[str, Session]:
        """A session under an id that nobody knew before."""
        self.counted[way, "ok"] += 1
        return self._sessions.begin(name, now_ns, grant=grant, token=token, id_token=id_token)

    def end(self, id: str) -> Session | None:
        return self._sessions.end(id)

    # -------------------------------------------------------------------------------------- failures

    def require_patience(self, peer: str, headers: Headers, now_ns: int, *, way: str) -> None:
        """Raises `TooMany` for an address that failed too often of late."""
        wait = self._failures.wait(self._address(peer, headers), now_ns)
        if wait > 0:
            self.counted[way, "limited"] += 1
            raise TooMany(
                "too many attempts to sign in failed from this address",
                hint="a right token works at any time; wrong ones have to wait",
                after=wait,
            )

    def failed(self, peer: str, headers: Headers, now_ns: int, *, way: str) -> None:
        """Somebody at this address was not who they said."""
        self.counted[way, "failed"] += 1
        self._failures.failed(self._address(peer, headers), now_ns)

    def _address(self, peer: str, headers: Headers) -> str:
        return peer if self._proxy is None else self._proxy.client(peer, headers)

    # ------------------------------------------------------------------------------ identity provider

    async def depart(self, next: str, now_ns: int) -> tuple[str, str]:
        """Where the browser goes to sign in, and the cookie that it takes along. Raises `NotFound`, `Transient`."""
        provider = self._required()
        begun = attempt.begin(next, now_ns)
        url = await provider.begin(
            state=begun.state, nonce=begun.nonce, challenge=begun.challenge, now_ns=now_ns
        )
        return url, attempt.sealed(begun, self._key)

    async def arrive(self, cookie: str, answer: Mapping[str, str], now_ns: int) -> Arrival:
        """Who came back. `answer` is the query that the provider gave. Raises `Denied`, `Transient`, `Permanent`."""
        provider = self._required()
        begun = attempt.opened(cookie, self._key, now_ns)
        if begun is None:
            raise Denied(
                "this browser did not begin to sign in here, or did too long ago", hint="sign in anew"
            )  # fmt: skip
        if not hmac.compare_digest(
            begun.state.encode(), answer.get("state", "").encode("utf-8", "replace")
        ):
            raise Denied(
                "this is the answer to another attempt", where="state", hint="sign in anew"
            )
        if "error" in answer:
            said = f"{answer['error']} {answer.get('error_description', '')}".strip()[:200]
            raise Denied(f"the identity provider says: {said}", where="error", hint="sign in anew")
        if not answer.get("code"):
            raise Denied("the identity provider gave no code", where="code", hint="sign in anew")
        person = await provider.finish(
            code=answer["code"],
            issuer=answer.get("iss", ""),
            nonce=begun.nonce,
            verifier=begun.verifier,
            now_ns=now_ns,
        )
        return Arrival(grant=self._granted(person), next=begun.next, id_token=person.id_token)

    async def farewell(self, session: Session, now_ns: int) -> str:
        """Where to sign out at the provider too; "" where there is nothing to sign out of."""
        if self._provider is None or not session.id_token:
            return ""
        back = f"{self.origin}/signin"
        return await self._provider.farewell(id_token=session.id_token, back=back, now_ns=now_ns)

    def _granted(self, person: Person) -> Grant:
        return granted("oidc", person.name, person.groups, self._assignments)

    def _required(self) -> Provider:
        if self._provider is None:
            raise NotFound("no identity provider is set up here", hint="see signin.oidc")
        return self._provider
