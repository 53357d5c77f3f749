"""Speaks with the Kubernetes API server: typed errors, bounded answers, patience; no more than HTTP and JSON.

Objects that are listed or watched come as their JSON bytes (`msgspec.Raw`), so that whoever needs three fields of ten
thousand pods never holds ten thousand pods.
"""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import anyio
import httpx2
import msgspec
from msgspec import Raw

import tripshark
from tripshark.cluster.answers import (
    AGAIN,
    EVENT,
    LIST,
    STATUS,
    Object,
    Status,
    away,
    decoded,
    from_status,
    lines,
    object_of,
    refusal,
    seconds_of,
)
from tripshark.cluster.login import Login
from tripshark.cluster.problems import Conflict, Gone, NotPermitted, Unsent
from tripshark.errors import (
    BadInput,
    Denied,
    TooLarge,
    TooMany,
    Transient,
    TripsharkError,
)

Params = Mapping[str, str | int]

MERGE = "application/merge-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"
JSON_PATCH = "application/json-patch+json"
APPLY = "application/apply-patch+yaml"

MAX_BODY = 8 << 20  # bytes of one answer, decompressed
PAGE = 250  # objects of one page of a list
_MANAGER = "tripshark"
_VERBS = {"POST": "create", "PATCH": "patch", "PUT": "update", "DELETE": "delete"}
# a peer that vanished without a word is noticed within a minute
_KEEPALIVE = [
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 20),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
]


@dataclass(frozen=True, slots=True)
class Page:
    """Part of a list: each object's JSON, and the version the whole list has."""

    items: tuple[Raw, ...]
    version: str


@dataclass(frozen=True, slots=True)
class WatchEvent:
    """One change: ADDED, MODIFIED, DELETED with the object's JSON, or BOOKMARK with nothing but a version."""

    type: str
    object: Raw


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A request in RBAC's words."""

    verb: str
    group: str
    resource: str  # "pods", "pods/status"
    namespace: str  # "": cluster-wide
    name: str

    @classmethod
    def of(cls, method: str, path: str, params: Params) -> Asked:
        """Read from the path, which is regular: /api/v1/… or /apis/GROUP/VERSION/…"""
        parts = path.split("/")
        group, rest = ("", parts[3:]) if parts[1:2] == ["api"] else (parts[2:3], parts[4:])
        namespace = ""
        if rest[:1] == ["namespaces"] and len(rest) > 2:
            namespace, rest = rest[1], rest[2:]
        rest = [*rest, "", "", ""]
        verb = _VERBS.get(method) or (
            "get" if rest[1] else "watch" if "watch" in params else "list"
        )
        return cls(
            verb=verb,
            group="".join(group),
            resource="/".join(each for each in (rest[0], rest[2]) if each),
            namespace=namespace,
            name=rest[1],
        )

    def __str__(self) -> str:
        what = f"{self.resource} {self.name}" if self.name else self.resource
        where = f"in namespace {self.namespace}" if self.namespace else "in the whole cluster"
        return f"{self.verb} {what} {where}"


class KubeApi:
    """One API server, one account, any number of requests and watches at once.

    Paths are the API's own ("/api/v1/namespaces/shop/pods/checkout"). Every method raises `NotPermitted` (a `Denied`;
    names the missing rule), `Denied` (401), `NotFound`, `Exists` and `Conflict` (409), `Gone` (410), `BadInput` (400, 422),
    `TooLarge`, and `Transient`, perhaps with `after`, when the server is away, slow or asks for patience; requests
    that can be repeated were repeated by then.
    """

    def __init__(
        self, login: Login, *, timeout_s: float = 30.0, tries: int = 4, max_body: int = MAX_BODY
    ) -> None:
        self.login = login
        self.requests = 0
        self.failures = 0
        self._timeout_s = timeout_s
        self._tries = tries
        self._max_body = max_body
        self._client: httpx2.AsyncClient | None = None
        self._context = login.trust.context() if login.trust is not None else None
        self._certificates = login.trust.fingerprint() if login.trust is not None else ()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close every connection; watches under way end with `Transient`."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    # -------------------------------------------------------------------------- one object

    async def get(self, path: str, *, params: Params | None = None) -> Object:
        """One object, or whatever else the path answers with as one JSON object."""
        return await self._once("GET", path, params=params)

    async def raw(self, path: str, *, params: Params | None = None) -> bytes:
        """The same as it came, for whoever has a decoder of its own."""
        return await self._bytes("GET", path, params=params)

    async def create(
        self, path: str, body: Mapping[str, Any], *, params: Params | None = None
    ) -> Object:
        """POST to a collection; returns the object as the server keeps it. Repeated only if certainly not done yet."""
        return await self._once("POST", path, body=body, params=params, repeat=False)

    async def patch(
        self,
        path: str,
        body: Mapping[str, Any] | list[Mapping[str, Any]],
        *,
        kind: str = MERGE,
        params: Params | None = None,
    ) -> Object:
        """Change an object (or its `/status`). `kind`: MERGE, STRATEGIC or JSON_PATCH."""
        return await self._once("PATCH", path, body=body, kind=kind, params=params)

    async def apply(
        self,
        path: str,
        body: Mapping[str, Any],
        *,
        manager: str = _MANAGER,
        force: bool = False,
    ) -> Object:
        """Server-side apply: `body` is everything `manager` wants; raises `Conflict` where others own fields."""
        params = {"fieldManager": manager, "force": "true" if force else "false"}
        return await self._once("PATCH", path, body=body, kind=APPLY, params=params)

    async def apply_status(
        self, path: str, status: Mapping[str, Any], *, version: str = ""
    ) -> Object:
        """Merge into the status of the object at `path`; with its resourceVersion only if unchanged since (`Conflict`)."""
        body: Object = {"status": status}
        if version:
            body["metadata"] = {"resourceVersion": version}
        return await self._once("PATCH", f"{path}/status", body=body, kind=MERGE)

    async def replace(self, path: str, body: Mapping[str, Any]) -> Object:
        """PUT the whole object; `Conflict` when its resourceVersion is not the current one."""
        return await self._once("PUT", path, body=body)

    async def delete(
        self, path: str, *, params: Params | None = None, uid: str = "", grace_s: int | None = None
    ) -> None:
        """Delete it; with `uid` only that one and not a successor of the same name (`Conflict`)."""
        body: Object = {"apiVersion": "v1", "kind": "DeleteOptions"}
        if uid:
            body["preconditions"] = {"uid": uid}
        if grace_s is not None:
            body["gracePeriodSeconds"] = grace_s
        await self._once("DELETE", path, body=body, params=params)

    # -------------------------------------------------------------------------- many objects

    async def list(
        self, path: str, *, params: Params | None = None, page: int = PAGE
    ) -> AsyncGenerator[Object, None]:
        """Every object of a collection, page by page; only one page is ever held."""
        async with aclosing(self.pages(path, params=params, page=page)) as pages:
            async for each in pages:
                for item in each.items:
                    yield object_of(item, path)

    async def pages(
        self, path: str, *, params: Params | None = None, page: int = PAGE, repeat: bool = True
    ) -> AsyncGenerator[Page, None]:
        """The same as JSON bytes. `page=0` asks for all at once. Raises `Gone` when it took so long that the list is stale."""
        params = dict(params or {})
        if page:
            params["limit"] = page
        while True:
            body = await self._bytes("GET", path, params=params, repeat=repeat)
            listed = decoded(body, LIST, path)
            yield Page(tuple(listed.items or ()), listed.metadata.version)
            if not listed.metadata.continue_:
                return
            del body
            params["continue"] = listed.metadata.continue_
            params.pop("resourceVersion", None)  # the token knows
            params.pop("resourceVersionMatch", None)

    async def watch(
        self,
        path: str,
        version: str,
        *,
        params: Params | None = None,
        seconds: float = 300.0,
        on_open: Callable[[], None] | None = None,
    ) -> AsyncGenerator[WatchEvent, None]:
        """Changes after `version`, until the server ends it (about `seconds`). Bookmarks are asked for.

        `on_open` is called when the server has agreed, which may be long before there is anything to tell.

        Raises `Gone` when the version is too old, `Transient` when the connection breaks or what comes is no event.
        Close the iterator (`contextlib.aclosing`) when leaving it early.
        """
        params = {
            **(params or {}),
            "watch": "1",
            "allowWatchBookmarks": "true",
            "resourceVersion": version,
            "timeoutSeconds": max(1, int(seconds)),
        }
        wait = httpx2.Timeout(10.0, read=seconds + 15.0)
        async with self._stream("GET", path, params=params, wait=wait) as response:
            if response.status_code != 200:
                raise await self._problem(response, Asked.of("GET", path, params))
            if on_open is not None:
                on_open()
            async for line in lines(response, path):
                event = decoded(line, EVENT, path)
                if event.type == "ERROR":
                    raise from_status(decoded(event.object, STATUS, path), path)
                yield WatchEvent(event.type, event.object)

    # -------------------------------------------------------------------------- HTTP

    async def _once(
        self,
        method: str,
        path: str,
        *,
        params: Params | None = None,
        body: object = None,
        kind: str = "application/json",
        repeat: bool = True,
    ) -> Object:
        answer = await self._bytes(
            method, path, params=params, body=body, kind=kind, repeat=repeat
        )
        return object_of(answer, path)

    async def _bytes(
        self,
        method: str,
        path: str,
        *,
        params: Params | None = None,
        body: object = None,
        kind: str = "application/json",
        repeat: bool = True,
    ) -> bytes:
        """The answer's body. Patience is exponential with jitter, or what the server asks for."""
        content = None if body is None else msgspec.json.encode(body)
        attempt = 0
        refreshed = False
        while True:
            attempt += 1
            try:
                async with asyncio.timeout(self._timeout_s):
                    return await self._attempt(method, path, params or {}, content, kind)
            except TimeoutError as timeout:
                problem: TripsharkError = Transient(
                    f"the API server did not answer within {self._timeout_s:g} s",
                    where=self.login.server,
                )
                problem.__cause__ = timeout
                undone = False
            except (Unsent, TooMany) as unheard:
                problem, undone = unheard, True
            except Transient as transient:
                problem, undone = transient, False
            except Denied as denied:
                # a token may have been renewed between our reading it and the server's
                if isinstance(denied, NotPermitted) or refreshed or denied.http_status != 401:
                    raise
                refreshed = True
                continue
            if isinstance(problem, Conflict | Gone):
                raise problem
            again = undone or (repeat and method != "POST")
            if not again or attempt >= (self._tries if repeat or undone else 1):
                raise problem
            await asyncio.sleep(_patience(attempt, getattr(problem, "after", None)))

    async def _attempt(
        self, method: str, path: str, params: Params, content: bytes | None, kind: str
    ) -> bytes:
        async with self._stream(
            method,
            path,
            params=params,
            content=content,
            kind=kind,
            wait=httpx2.Timeout(self._timeout_s),
        ) as response:
            if response.status_code >= 300:
                raise await self._problem(response, Asked.of(method, path, params))
            return await self._body(response, self._max_body)

    @asynccontextmanager
    async def _stream(
        self,
        method: str,
        path: str,
        *,
        params: Params,
        wait: httpx2.Timeout,
        content: bytes | None = None,
        kind: str = "",
    ) -> AsyncIterator[httpx2.Response]:
        headers = list(self.login.headers)
        if authorization := await self.login.credential.header():
            headers.append(("Authorization", authorization))
        if content is not None:
            headers.append(("Content-Type", kind))
        trust = self.login.trust
        extensions: Object = {"trace": _Handshake().trace} if trust else {}
        if trust and trust.server_name:
            extensions["sni_hostname"] = trust.server_name
        self.requests += 1
        try:
            async with self._connected().stream(
                method,
                self.login.server + path,
                params=params,
                content=content,
                headers=headers,
                timeout=wait,
                extensions=extensions,
            ) as response:
                yield response
        except (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout) as problem:
            self.failures += 1
            self._renew_certificates()
            raise away(Unsent, self.login.server, problem) from problem
        except (
            httpx2.TransportError,
            httpx2.StreamError,
            httpx2.DecodingError,
            anyio.BrokenResourceError,
            anyio.ClosedResourceError,
            anyio.EndOfStream,
            OSError,
        ) as problem:
            self.failures += 1
            raise away(Transient, self.login.server, problem) from problem
        except httpx2.InvalidURL as problem:
            raise BadInput(f"no path of the API: {problem}", where=path) from problem

    def _connected(self) -> httpx2.AsyncClient:
        if self._client is None:
            limits = httpx2.Limits(max_connections=64, keepalive_expiry=60.0)
            transport = httpx2.AsyncHTTPTransport(
                verify=self._context or False,
                limits=limits,
                socket_options=_KEEPALIVE,
                proxy=self.login.proxy or None,
                trust_env=False,  # neither a proxy nor a .netrc that was meant for others
            )
            self._client = httpx2.AsyncClient(
                transport=transport,
                trust_env=False,
                headers={
                    "User-Agent": f"tripshark/{tripshark.__version__}",
                    "Accept": "application/json",
                },
            )
        return self._client

    def _renew_certificates(self) -> None:
        """An authority may have been replaced on disk since it was read."""
        trust = self.login.trust
        if trust is None or self._context is None:
            return
        if (now := trust.fingerprint()) != self._certificates:
            self._certificates = now
            trust.load(self._context)

    async def _body(self, response: httpx2.Response, limit: int) -> bytes:
        body = bytearray()
        async for chunk in response.aiter_bytes():
            body += chunk
            if len(body) > limit:
                raise TooLarge(
                    f"the API server's answer is longer than {limit:,} bytes",
                    where=self.login.server,
                )
        return bytes(body)

    async def _problem(self, response: httpx2.Response, asked: Asked) -> TripsharkError:
        """What an unhappy answer means."""
        try:
            status = STATUS.decode(await self._body(response, 1 << 20))
        except (msgspec.DecodeError, UnicodeDecodeError, TooLarge):
            status = Status()
        code = response.status_code
        words = (status.message or response.reason_phrase or str(code))[:500]
        server = self.login.server
        if code in AGAIN:
            self.failures += 1
            after = seconds_of(response.headers.get("retry-after", ""))
            kind = TooMany if code == 429 else Transient
            return kind(f"the API server cannot {asked} now: {words}", where=server, after=after)
        if code == 401:
            self.login.credential.rejected()
            return Denied(
                f"the API server does not know us: {words}",
                where=server,
                hint="is the token or certificate expired, or of another cluster?",
            )
        if code == 403:
            return NotPermitted(
                f"not permitted to {asked}: {words}",
                verb=asked.verb,
                group=asked.group,
                resource=asked.resource,
                namespace=asked.namespace,
                where=server,
            )
        return refusal(code, status.reason or "", words, f"{asked}")


class _Handshake:
    """Closes a connection whose TLS handshake is cancelled, which httpcore leaves to the garbage collector."""

    def __init__(self) -> None:
        self._stream: Any = None

    async def trace(self, event: str, info: Mapping[str, Any]) -> None:
        """Called with each step of a request."""
        if event == "connection.connect_tcp.complete":
            self._stream = info["return_value"]
        elif event == "connection.start_tls.failed" and self._stream is not None:
            await self._stream.aclose()


def _patience(attempt: int, after: float | None) -> float:
    """Seconds until the next try: 0.2, 0.4, 0.8 … and never all clients at once."""
    jitter = 0.5 + random.random()  # noqa: S311 (spreads clients, guards nothing)
    if after is not None:
        return after + 0.5 * jitter * min(1.0, after)
    return float(min(10.0, 0.2 * 2 ** (attempt - 1)) * jitter)
