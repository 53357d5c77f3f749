"""How a request gets to its handler: alerts first, then the API, with one error shape for whatever goes wrong."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from ipaddress import ip_address
from typing import Protocol
from urllib.parse import quote

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match, Router
from starlette.routing import Route as StarletteRoute
from starlette.types import Message, Receive, Scope, Send

from tripshark.errors import BadInput, Denied, NotFound, Permanent, TripsharkError
from tripshark.web import signin, site
from tripshark.web.access import CHALLENGE, identify
from tripshark.web.answers import SAFE, problem
from tripshark.web.caller import find_out, require_own_page
from tripshark.web.parts import Parts
from tripshark.web.route import Route
from tripshark.web.routes import ROUTES

log = logging.getLogger("tripshark.web")

_KEPT = ("www-authenticate", "retry-after")  # what an error says in headers, on a page as well


class Alerts(Protocol):
    """The webhook: an ASGI application which knows its own requests."""

    def owns(self, scope: Scope) -> bool: ...
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None: ...


class MethodNotAllowed(BadInput):
    code = "method_not_allowed"
    http_status = 405


class Misdirected(Denied):
    """The caller used a name that is not ours: a web page may have made it mean this machine."""

    http_status = 403


class App:
    """Everything that answers on one listener. Either part may be missing: alerts can have a listener of their own."""

    def __init__(self, parts: Parts | None, alerts: Alerts | None) -> None:
        self._alerts = alerts
        self._parts = parts
        self.takes_alerts = alerts is not None
        routes = ROUTES if parts is not None else ()
        self._api = Router(
            routes=[
                StarletteRoute(
                    each.path, _endpoint(each, parts), methods=[each.method], name=each.path
                )
                for each in routes
                if parts is not None
            ],
            redirect_slashes=False,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        started = False

        async def watched(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            if self._alerts is not None and self._alerts.owns(scope):
                await self._alerts(scope, receive, watched)
            else:
                # With an application in the scope the router raises instead of answering by itself.
                await self._api({**scope, "app": self}, receive, watched)
        except HTTPException as missing:
            allowed = self._methods(scope)
            refused = HTTPException(405, headers={"allow": ", ".join(allowed)})
            await self._missing(refused if allowed else missing, Request(scope))(
                scope, receive, send
            )
        except Exception:
            # The boundary: whatever failed, the caller gets the one shape and the log gets the trace.
            log.exception("a request failed: %s %r", scope["method"], scope["path"][:200])
            if started:
                raise
            failed = Permanent("something failed in here", hint="the log says what")
            await problem(failed)(scope, receive, send)

    def _missing(self, error: HTTPException, request: Request) -> Response:
        """Starlette's own 404 and 405: to a browser as a page, else in the one shape."""
        wants_page = "text/html" in request.headers.get("accept", "")
        if self._parts is None or error.status_code != 404 or not wants_page:
            return _of_http(error)
        return site.failed(request, self._parts, NotFound("nothing is here"))

    def _methods(self, scope: Scope) -> list[str]:
        """Everything that this path takes, whichever of its routes takes it."""
        found: set[str] = set()
        for route in self._api.routes:
            if isinstance(route, StarletteRoute) and route.matches(scope)[0] is not Match.NONE:
                found |= route.methods or set()
        if self.takes_alerts and scope["path"] in ("/", "/v1/alerts"):
            found.add("POST")
        return sorted(found)

    def close(self) -> None:
        """Streams that are open end now."""
        if self._parts is not None:
            self._parts.watch.closing.set()


def _endpoint(route: Route, parts: Parts) -> Callable[[Request], Awaitable[Response]]:
    is_open = route.is_open or (route.path == "/metrics" and parts.metrics_open)
    is_page = route.described.media == "text/html"

    async def answer(request: Request) -> Response:
        try:
            if not is_open:
                require_own_page(request, parts.origin)
                await _let_in(request, parts)
            return await route.handler(request, parts)
        except TripsharkError as error:
            wants_page = is_page and request.method in ("GET", "HEAD")
            if wants_page and not is_open and _can_sign_in(error, request, parts):
                return _to_signin(request)
            told = problem(error, challenge=_challenge(parts))
            if not is_page:
                return told
            kept = {name: told.headers[name] for name in _KEPT if name in told.headers}
            return site.failed(request, parts, error, headers=kept)

    return answer


def _challenge(parts: Parts) -> str:
    if parts.signin is None and parts.access is None:
        return parts.gate.challenge
    return CHALLENGE


def _can_sign_in(error: TripsharkError, request: Request, parts: Parts) -> bool:
    """A browser asked for a page, showed nothing, and has somewhere to go for that."""
    return (
        parts.signin is not None
        and error.http_status == 401
        and "authorization" not in request.headers
        and "text/html" in request.headers.get("accept", "")
    )


def _to_signin(request: Request) -> Response:
    query = request.url.query
    here = signin.local_path(request.url.path + (f"?{query}" if query else ""))
    onwards = "/signin" if here == "/" else f"/signin?next={quote(here, safe='/')}"
    return Response(status_code=303, headers={**SAFE, "location": onwards})


async def _let_in(request: Request, parts: Parts) -> None:
    """Who asks is put into the request's state. Raises `Denied` and its kinds, `Transient`."""
    if parts.signin is not None:
        await find_out(request, parts, parts.signin)
    elif parts.access is not None:
        request.state.caller = await identify(request, parts.access)
    else:
        _pass_gate(request, parts)


def _pass_gate(request: Request, parts: Parts) -> None:
    denied = parts.gate.refuse(request.scope["headers"])
    if denied is not None:
        raise denied
    if parts.gate.is_open and not _is_our_name(request.headers.get("host", ""), parts.hosts):
        raise Misdirected(
            "this is not a name of this machine",
            where="Host",
            hint="use http://127.0.0.1 or http://localhost",
        )


def _is_our_name(host: str, names: frozenset[str]) -> bool:
    """An address, localhost or a name we were told. Without credentials a foreign name may be DNS rebinding."""
    name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
    name = name.strip("[]").lower()
    if name in {"localhost", ""} or name in {each.lower() for each in names}:
        return True
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def _allowed(error: HTTPException) -> str:
    given = {name.lower(): value for name, value in (error.headers or {}).items()}
    return given.get("allow", "GET")


def _of_http(error: HTTPException) -> Response:
    """Starlette's own 404 and 405 in the one shape."""
    if error.status_code == 405:
        answer = problem(MethodNotAllowed("this path does not take that method"))
        answer.headers["allow"] = _allowed(error)
        return answer
    if error.status_code == 404:
        return problem(
            NotFound("nothing is here", hint="GET /v1/openapi.json lists what there is")
        )
    refused = BadInput("the request cannot be understood")
    answer = problem(refused)
    answer.status_code = error.status_code
    return answer
