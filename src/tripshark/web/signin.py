"""Signing in and out, and who one is then: pages for browsers, `/v1/me` for everybody.

A session's id is made at sign-in and never before, so one that somebody planted is worth nothing. What comes back from
an identity provider counts only in the browser that went there. Where to go on is a path of ours or nothing.
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import parse_qsl, quote

from starlette.requests import Request
from starlette.responses import Response

from tripshark.errors import (
    BadInput,
    Denied,
    NotFound,
    TooMany,
    Transient,
    TripsharkError,
)
from tripshark.web import query, site
from tripshark.web.access import Caller, Granted, SessionView, SignIn
from tripshark.web.answers import SAFE, json
from tripshark.web.body import bounded
from tripshark.web.caller import (
    Forged,
    address_of,
    caller_of,
    cookie_name,
    cookie_of,
    of_token,
    require_own_page,
    require_role,
    require_token,
    says_where_from,
)
from tripshark.web.openapi import Described, Parameter
from tripshark.web.parts import Parts
from tripshark.web.route import Route
from tripshark.web.schema import TEXT, maybe, obj, one_of, rows, text

MAX_FORM: Final = 32_768  # bytes
_FORM: Final = "application/x-www-form-urlencoded"
ATTEMPT: Final = "-signin"  # the cookie that ties an attempt to the browser that began it
_LOCAL = re.compile(
    r"/(?![/\\])[!-\[\]-~]{0,2047}"
)  # a path of ours: no authority, no backslash, no space
_OURS: Final = {"referrer-policy": "same-origin"}  # else a form of ours does not say that it is
_UNSAFE = re.compile(r"[^!-~]")


def local_path(value: str) -> str:
    """Where to go on after signing in: a path of ours; the front page for whatever else it is."""
    value = _UNSAFE.sub(lambda found: quote(found[0], safe=""), value[:2048])
    if not _LOCAL.fullmatch(value) or value.startswith(("/signin", "/signout")):
        return "/"
    return value


# ------------------------------------------------------------------------------------------ signing in


async def show_signin(request: Request, parts: Parts) -> Response:
    query.known(request.query_params, ("next",))
    next = local_path(query.address(request.query_params, "next"))
    if parts.signin is None or _session(request, parts, parts.signin) is not None:
        return _to(next)
    return _form(request, parts, parts.signin, next)


async def take_token(request: Request, parts: Parts) -> Response:
    """A token out of the form, for a session."""
    signin = _required(parts)
    query.known(request.query_params, ())
    require_own_page(request, parts.origin)
    if not says_where_from(
        request
    ):  # else a page elsewhere could sign this browser in as somebody
        raise Forged("no browser sent this", where="Origin", hint="programs send the token itself")
    fields = await _fields(request, ("token", "next"))
    next, now_ns = local_path(fields.get("next", "")), parts.clock.now_ns()
    token = fields.get("token", "").strip()
    try:
        if not signin.by_token:
            raise NotFound("nobody signs in by token here")  # noqa: TRY301  # shown as the others are
        caller = await of_token(token, parts.access, signin, request, now_ns)
    except (Denied, NotFound, TooMany, Transient) as error:
        return _form(request, parts, signin, next, error=error)
    grant = signin.of_token(token)
    id, _ = signin.begin(
        caller.name,
        now_ns,
        way="token" if grant is not None else "kubernetes",
        grant=grant,
        token="" if grant is not None else token,
    )
    return _signed_in(request, signin, id, next)


async def depart(request: Request, parts: Parts) -> Response:
    """To the identity provider."""
    signin = _required(parts)
    query.known(request.query_params, ("next",))
    next = local_path(query.address(request.query_params, "next"))
    try:
        url, cookie = await signin.depart(next, parts.clock.now_ns())
    except Transient as error:
        return _form(request, parts, signin, next, error=error)
    answer = _to(url)
    # Lax: it has to come along when the provider sends the browser back
    _set(answer, signin, ATTEMPT, cookie, seconds=600)
    return answer


async def arrive(request: Request, parts: Parts) -> Response:
    """Back from the identity provider."""
    signin = _required(parts)
    now_ns = parts.clock.now_ns()
    peer, headers = address_of(request), request.scope["headers"]
    answer = {name: value[:4096] for name, value in request.query_params.items()}
    cookie = cookie_of(request, cookie_name(signin, ATTEMPT))
    try:
        signin.require_patience(peer, headers, now_ns, way="oidc")
        if len(answer) != len(request.query_params.multi_items()):
            raise Denied("the identity provider's answer says something twice")
        arrival = await signin.arrive(cookie, answer, now_ns)
        require_role(arrival.grant)
    except TripsharkError as error:
        if isinstance(error, Denied):
            signin.failed(peer, headers, now_ns, way="oidc")
        told = _form(request, parts, signin, "/", error=error)
        _set(told, signin, ATTEMPT, "", seconds=0)
        return told
    id, _ = signin.begin(
        arrival.grant.name, now_ns, way="oidc", grant=arrival.grant, id_token=arrival.id_token
    )
    came = _signed_in(request, signin, id, local_path(arrival.next))
    _set(came, signin, ATTEMPT, "", seconds=0)
    return came


# ----------------------------------------------------------------------------------------- signing out


async def show_signout(request: Request, parts: Parts) -> Response:
    query.known(request.query_params, ())
    session = None if parts.signin is None else _session(request, parts, parts.signin)
    if session is None:
        return _to("/")
    return site.page(
        request, parts, "signout.html", headers=_OURS, name=session.name, token=session.csrf
    )


async def sign_out(request: Request, parts: Parts) -> Response:
    """Ends the session, and says where the one at the identity provider can be ended too."""
    signin = _required(parts)
    query.known(request.query_params, ())
    require_own_page(request, parts.origin)
    fields = await _fields(request, ("csrf",))
    session = _session(request, parts, signin)
    if session is None:
        return _gone(_to("/signin"), signin)
    require_token(session.csrf, request.headers.get("x-tripshark-csrf") or fields.get("csrf", ""))
    signin.end(cookie_of(request, cookie_name(signin)))
    try:
        elsewhere = await signin.farewell(session, parts.clock.now_ns())
    except TripsharkError:  # the provider is away; here it is over all the same
        elsewhere = ""
    return _gone(site.page(request, parts, "signedout.html", elsewhere=elsewhere), signin)


# -------------------------------------------------------------------------------------------- who one is


async def me(request: Request, parts: Parts) -> Response:
    query.known(request.query_params, ())
    caller = caller_of(request, parts)
    namespaces = await _namespaces(caller, parts)
    return json(
        {
            "name": caller.name,
            "role": "admin" if caller.is_unlimited else caller.role,
            "namespaces": None if namespaces is None else list(namespaces),
            "csrf": getattr(request.state, "csrf", ""),
        }
    )


async def _namespaces(caller: Caller, parts: Parts) -> tuple[str, ...] | None:
    """Those in which they may do anything; of whom the cluster knows, those of which there are incidents."""
    if isinstance(caller, Granted):
        return caller.namespaces
    return await caller.visible(parts.catalogue)


# ----------------------------------------------------------------------------------------------- parts


def _required(parts: Parts) -> SignIn:
    if parts.signin is None:
        raise NotFound("nobody has to sign in here", hint="see the settings below signin")
    return parts.signin


def _session(request: Request, parts: Parts, signin: SignIn) -> SessionView | None:
    return signin.session(cookie_of(request, cookie_name(signin)), parts.clock.now_ns())


async def _fields(request: Request, names: tuple[str, ...]) -> dict[str, str]:
    """A form's fields. Raises `Unsupported`, `TooLarge`, `BadInput`."""
    body = await bounded(request, (_FORM,), most=MAX_FORM, says="the body must be a form")
    try:
        pairs = parse_qsl(
            body.decode("utf-8"), keep_blank_values=True, max_num_fields=8, errors="strict"
        )
    except ValueError as error:
        raise BadInput("the form cannot be read", where="body") from error
    fields = dict(pairs)
    if not fields.keys() <= set(names) or len(fields) != len(pairs):
        raise BadInput("the form has other fields than ours", where="body")
    return fields


def _form(
    request: Request,
    parts: Parts,
    signin: SignIn,
    next: str,
    *,
    error: TripsharkError | None = None,
) -> Response:
    headers = dict(_OURS)
    if isinstance(error, Transient) and error.after:
        headers["retry-after"] = str(max(1, round(error.after)))
    return site.page(
        request,
        parts,
        "signin.html",
        status=200 if error is None else error.http_status,
        headers=headers,
        error=error,
        next=next,
        by_token=signin.by_token,
        by_provider=signin.by_provider,
        onwards="/signin/start" + ("" if next == "/" else f"?next={quote(next, safe='/')}"),
    )


def _signed_in(request: Request, signin: SignIn, id: str, next: str) -> Response:
    """A new session, and the end of whatever this browser had before."""
    if old := cookie_of(request, cookie_name(signin)):
        signin.end(old)
    answer = _to(next)
    _set(answer, signin, "", id)
    return answer


def _gone(answer: Response, signin: SignIn) -> Response:
    _set(answer, signin, "", "", seconds=0)
    answer.headers["clear-site-data"] = '"cache"'
    return answer


def _to(where: str) -> Response:
    return Response(status_code=303, headers={**SAFE, "location": where})


def _set(
    answer: Response, signin: SignIn, what: str, value: str, *, seconds: int | None = None
) -> None:
    answer.set_cookie(
        cookie_name(signin, what),
        value,
        max_age=seconds,
        path="/",
        secure=signin.secure,
        httponly=True,
        samesite="lax",
    )


# ---------------------------------------------------------------------------------------------- routes

_NEXT = Parameter("next", "query", "A path of ours to go on to.", text(most=2048))

ROUTES: tuple[Route, ...] = (
    Route(
        path="/signin",
        handler=show_signin,
        is_open=True,
        described=Described(
            "The page to sign in at.",
            answers={"200": "The page.", "303": "Nobody has to, or you are."},
            parameters=(_NEXT,),
            errors=(400,),
            media="text/html",
        ),
    ),
    Route(
        path="/signin",
        method="POST",
        handler=take_token,
        is_open=True,
        described=Described(
            "Sign in by token, for a browser's session.",
            answers={"303": "You are signed in."},
            errors=(400, 401, 403, 404, 408, 413, 415, 429, 503),
            media="text/html",
            takes=obj({"token": TEXT, "next": TEXT}, optional=("next",)),
            takes_media=_FORM,
        ),
    ),
    Route(
        path="/signin/start",
        handler=depart,
        is_open=True,
        described=Described(
            "Sign in at the identity provider.",
            answers={"303": "Go there."},
            parameters=(_NEXT,),
            errors=(400, 404, 500, 503),
            media="text/html",
        ),
    ),
    Route(
        path="/signin/callback",
        handler=arrive,
        is_open=True,
        described=Described(
            "Where the identity provider sends browsers back to.",
            answers={"303": "You are signed in."},
            parameters=tuple(
                Parameter(name, "query", "As OpenID Connect says.")
                for name in ("code", "state", "iss", "error", "error_description")
            ),
            errors=(400, 401, 403, 404, 429, 500, 503),
            media="text/html",
        ),
    ),
    Route(
        path="/signout",
        handler=show_signout,
        is_open=True,
        described=Described(
            "The page to sign out at.",
            answers={"200": "The page.", "303": "You are not signed in."},
            errors=(400,),
            media="text/html",
        ),
    ),
    Route(
        path="/signout",
        method="POST",
        handler=sign_out,
        is_open=True,
        described=Described(
            "Sign out: the session is over.",
            answers={"200": "It is.", "303": "There was none."},
            errors=(400, 403, 404, 408, 413, 415),
            media="text/html",
            takes=obj({"csrf": TEXT}, optional=("csrf",)),
            takes_media=_FORM,
        ),
    ),
    Route(
        path="/v1/me",
        handler=me,
        described=Described(
            "Who you are, what you may do, and what a browser's changes have to say.",
            answers={"200": "You."},
            gives=obj(
                {
                    "name": TEXT,
                    "role": one_of("viewer", "responder", "admin", "kubernetes"),
                    "namespaces": maybe(rows(TEXT)),
                    "csrf": TEXT,
                }
            ),
        ),
    ),
)
