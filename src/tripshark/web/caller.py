"""Who asks: found out before a handler runs, by what the listener lets people prove.

In this order, and the first that is there decides: the word of a trusted proxy, a token in the request, a browser's
session. A request that changes something and that a browser may have been talked into (it came with a session, with
the proxy's word, or with a password the browser remembers) has to come from a page of ours.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from starlette.requests import Request

from tripshark.errors import Denied
from tripshark.model.role import Grant
from tripshark.web import query
from tripshark.web.access import (
    Access,
    Caller,
    Forbidden,
    Granted,
    SessionView,
    SignIn,
    of_cluster,
    token_in,
)
from tripshark.web.parts import Parts

CSRF: Final = "x-tripshark-csrf"
_HARMLESS: Final = frozenset({"GET", "HEAD", "OPTIONS"})


class Forged(Forbidden):
    """A browser sent this, and no page of ours made it do so."""

    code = "forged"


class Nothing(Forbidden):
    """Known, and without any role."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """Who asks, and what their browser has to say with each change; None: no browser says it by itself."""

    caller: Caller
    csrf: str | None = None
    session: SessionView | None = None


def caller_of(request: Request, parts: Parts) -> Caller:
    """Who asks, as the application found out; where it did not, nobody with rights."""
    known: Caller | None = getattr(request.state, "caller", None)
    if known is not None:
        return known
    if parts.access is None and parts.signin is None:
        return Caller(query.caller(request))
    raise Denied("this needs somebody known", hint="send `Authorization: Bearer TOKEN`")


async def find_out(request: Request, parts: Parts, signin: SignIn) -> None:
    """Puts who asks into `request.state`. Raises `Denied`, `Forbidden`, `TooMany`, `Transient`."""
    known = await _known(request, parts, signin)
    if known is None:
        raise Denied(
            "this needs somebody known",
            hint="sign in at /signin, or send `Authorization: Bearer TOKEN`",
        )
    request.state.caller = known.caller
    request.state.csrf = known.csrf or ""
    request.state.session = known.session
    if request.method not in _HARMLESS and known.csrf is not None:
        require_token(known.csrf, request.headers.get(CSRF, ""))


async def _known(request: Request, parts: Parts, signin: SignIn) -> Known | None:
    now_ns = parts.clock.now_ns()
    peer, headers = address_of(request), request.scope["headers"]
    if (grant := signin.of_proxy(peer, headers)) is not None:
        return Known(caller=_of_grant(grant), csrf=signin.csrf_of(grant.name))
    if "authorization" in request.headers:
        token = token_in(request)
        caller = await of_token(token, parts.access, signin, request, now_ns)
        return Known(caller=caller)
    session = signin.session(cookie_of(request, cookie_name(signin)), now_ns)
    if session is None:
        return None
    if session.grant is not None:
        caller = Granted(session.grant, session=session.key)
    else:
        asked = await of_cluster(session.token, parts.access) if parts.access else None
        if asked is None:  # the token ran out
            return None
        caller = asked
        caller.session = session.key
    return Known(caller=caller, csrf=session.csrf, session=session)


async def of_token(
    token: str, access: Access | None, signin: SignIn, request: Request, now_ns: int
) -> Caller:
    """Whose token this is. Raises `Denied` for nobody's, `TooMany` for the next after many of those."""
    grant = signin.of_token(token) if token else None
    if grant is not None:
        return _of_grant(grant)
    peer, headers = address_of(request), request.scope["headers"]
    signin.require_patience(peer, headers, now_ns, way="token")
    if token and access is not None and (found := await of_cluster(token, access)) is not None:
        return found
    signin.failed(peer, headers, now_ns, way="token")
    raise Denied(
        "that token is nobody's", hint="signin.tokens has them" if access is None else
        "signin.tokens has them, and kubectl create token NAME makes one",
    )  # fmt: skip


def _of_grant(grant: Grant) -> Caller:
    if not grant.rights:
        raise Nothing(
            f"{grant.name} is known and may do nothing here",
            hint="signin.roles says which groups and users have which role",
        )
    return Granted(grant)


def require_role(grant: Grant) -> None:
    """Raises `Forbidden` for somebody who has no right at all."""
    _of_grant(grant)


# ------------------------------------------------------------------------------- a page of ours, or not


def require_own_page(request: Request, origin: str) -> None:
    """Refuses changes that a page of another site sends, as browsers themselves say. Raises `Forged`.

    `origin` is ours where it is known; else that of the name under which the request came.
    """
    if request.method in _HARMLESS:
        return
    site = request.headers.get("sec-fetch-site", "")
    said = request.headers.get("origin")
    if said == "null" and site == "same-origin":
        said = None  # a form of ours, on a page that tells nobody where it was
    elsewhere = said is not None and not _is_ours(said, request, origin)
    if elsewhere or site not in ("", "same-origin", "none"):
        raise Forged("a page of another site sent this", where="Origin")


def says_where_from(request: Request) -> bool:
    """A browser wrote where the request comes from; one that does not is no browser of these years."""
    return "origin" in request.headers or "sec-fetch-site" in request.headers


def require_token(csrf: str, said: str) -> None:
    """Raises `Forged`."""
    if not hmac.compare_digest(csrf.encode(), said.encode("utf-8", "replace")):
        raise Forged(
            "a change needs the token of a page of ours",
            where="X-Tripshark-CSRF",
            hint="GET /v1/me has it; a bearer token needs none",
        )


def _is_ours(said: str, request: Request, origin: str) -> bool:
    if origin and said.lower() == origin.lower():
        return True
    try:
        name = urlsplit(said).netloc.lower()
    except ValueError:
        return False
    if origin and name == urlsplit(origin).netloc.lower():
        return False  # our name, without TLS: anybody on the way can make pages there
    return bool(name) and name == request.headers.get("host", "").lower()


# --------------------------------------------------------------------------------------------- cookies


def cookie_name(signin: SignIn, what: str = "") -> str:
    """`__Host-`: no other name below our domain can set it, and it travels by https alone."""
    plain = f"tripshark{what}"
    return f"__Host-{plain}" if signin.secure else plain


def cookie_of(request: Request, name: str) -> str:
    """Its value; "" where it is not there, or there twice: then somebody else set one of them."""
    found = []
    for header in request.headers.getlist("cookie"):
        for each in header.split(";"):
            key, _, value = each.strip().partition("=")
            if key == name:
                found.append(value)
    return found[0] if len(found) == 1 else ""


def address_of(request: Request) -> str:
    """Of the other end of the connection; "" of a unix socket."""
    return request.client.host if request.client else ""
