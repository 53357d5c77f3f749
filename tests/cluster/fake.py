"""A small API server in this process, over real HTTP, which can be told to misbehave.

It keeps the promises a client relies on (tests/cluster/test_contract.py runs the same checks against it and the real one):
lists by label and field selectors, pages, resourceVersions, watches with bookmarks, 404, 409, 410, merge patches, JSON patches of `test`
and `replace`, status apart from spec, delete preconditions, CRDs, token and access reviews. It knows no schema, no admission, no
garbage collection; server-side apply is a merge without ownership.

    with FakeApi() as fake:                       # or the fixture `fake_api`
        fake.put("/api/v1/namespaces/shop/pods/web", {"spec": {"nodeName": "n1"}})
        async with KubeApi(fake.login()) as api: …
        fake.faults.deny.add(("list", "pods")); fake.drop_watches(); fake.compact(); fake.faults.delay_s = 3
"""

from __future__ import annotations

import asyncio
import base64
import copy
import json
import re
import socket
import threading
import traceback
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qsl, unquote

import uvicorn

from tripshark.cluster.login import Fixed, Login

Json = dict[str, Any]

KINDS = {
    ("", "v1"): {
        "pods": "Pod", "services": "Service", "endpoints": "Endpoints", "nodes": "Node", "namespaces": "Namespace",
        "events": "Event", "configmaps": "ConfigMap", "secrets": "Secret", "serviceaccounts": "ServiceAccount",
        "replicationcontrollers": "ReplicationController",
    },
    ("apps", "v1"): {
        "replicasets": "ReplicaSet", "deployments": "Deployment", "daemonsets": "DaemonSet", "statefulsets": "StatefulSet",
    },
    ("batch", "v1"): {"jobs": "Job", "cronjobs": "CronJob"},
    ("discovery.k8s.io", "v1"): {"endpointslices": "EndpointSlice"},
    ("discovery.k8s.io", "v1beta1"): {"endpointslices": "EndpointSlice"},
    ("coordination.k8s.io", "v1"): {"leases": "Lease"},
    ("apiextensions.k8s.io", "v1"): {"customresourcedefinitions": "CustomResourceDefinition"},
    ("authentication.k8s.io", "v1"): {"tokenreviews": "TokenReview"},
    ("authorization.k8s.io", "v1"): {"subjectaccessreviews": "SubjectAccessReview"},
}  # fmt: skip


@dataclass
class Faults:
    """What goes wrong; numbers count down as they strike."""

    deny: set[tuple[str, str]] = field(default_factory=set)  # (verb, resource): 403
    missing: set[str] = field(default_factory=set)  # resources that are not served: 404
    delay_s: float = 0.0  # before every answer
    busy: int = 0  # so many requests get 429 with Retry-After
    retry_after: str = "0.05"
    unknown: int = 0  # so many requests get 401
    broken: int = 0  # so many requests get 500
    gone_watches: int = 0  # so many watches begin with 410
    garbage: int = 0  # so many events of watches are no JSON
    half_lines: int = 0  # so many watches end in the middle of an event
    huge_lists: int = 0  # so many lists are cut off in the middle


@dataclass
class _Change:
    version: int
    key: str  # "group/resource"
    old: Json | None
    new: Json | None


class FakeApi:
    """One server. Everything may be called from the test's thread."""

    def __init__(self) -> None:
        self.faults = Faults()
        self.requests: list[tuple[str, str]] = []  # (verb, resource), in order of arrival
        self.problems: list[str] = []  # mistakes of this server's own
        self.bodies: list[int] = []  # bytes of each answer to a list
        self.tokens: dict[str, tuple[str, list[str]]] = {}  # token → user, groups
        self.rights: set[tuple[str, str, str, str]] = set()  # user, verb, resource, namespace
        self._kinds = {where: dict(kinds) for where, kinds in KINDS.items()}
        self._cluster_scoped = {"nodes", "namespaces", "customresourcedefinitions"}
        self._objects: dict[str, dict[tuple[str, str], Json]] = {}
        self._version = 100
        self._oldest = 0
        self._log: list[_Change] = []
        self._pages: dict[str, tuple[list[Json], int]] = {}
        self._lock = threading.RLock()
        self._watchers: set[_Watcher] = set()
        self._sock = socket.socket()
        self._sock.bind(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._sock.getsockname()[1]}"
        config = uvicorn.Config(
            self._guarded,
            interface="asgi3",
            log_level="critical",
            lifespan="off",
            ws="none",
            access_log=False,
        )
        self._server = uvicorn.Server(config)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="fake-api", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.should_exit = True
        self.drop_watches()
        self._thread.join(30)
        assert not self._thread.is_alive()
        self._sock.close()
        assert not self.problems, self.problems

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._server.serve(sockets=[self._sock]))
        self._loop.close()

    def login(self, token: str = "") -> Login:
        return Login(
            server=self.url,
            credential=Fixed(f"Bearer {token}" if token else ""),
            trust=None,
            namespace="default",
        )

    # ---------------------------------------------------------------- what a test does behind the client's back

    def serve_kind(
        self, group: str, version: str, plural: str, kind: str, *, namespaced: bool = True
    ) -> None:
        """A custom resource without the ceremony of its definition."""
        with self._lock:
            self._kinds.setdefault((group, version), {})[plural] = kind
            if not namespaced:
                self._cluster_scoped.add(plural)

    def put(self, path: str, body: Json) -> Json:
        """Create or replace the object at `path` (status included); returns what is kept."""
        where = self._where(path)
        with self._lock:
            old = self._objects.get(where.key, {}).get((where.namespace, where.name))
            new = self._completed(where, copy.deepcopy(body))
            if old is not None:
                new["metadata"] = {
                    **old["metadata"],
                    **body.get("metadata", {}),
                    "uid": body.get("metadata", {}).get("uid", old["metadata"]["uid"]),
                }
            return self._store(where, old, new)

    def fill(self, objects: Mapping[str, Json]) -> None:
        """Many at once, by path: quicker, and they are not copied."""
        with self._lock:
            for path, body in objects.items():
                where = self._where(path)
                self._version += 1
                made = self._completed(where, body)
                made["metadata"]["resourceVersion"] = str(self._version)
                self._objects.setdefault(where.key, {})[where.namespace, where.name] = made

    def change(self, path: str, patch: Json) -> Json:
        """Merge-patch it, status included."""
        where = self._where(path)
        with self._lock:
            old = self._objects[where.key][where.namespace, where.name]
            return self._store(where, old, _merged(old, patch))

    def remove(self, path: str) -> None:
        where = self._where(path)
        with self._lock:
            self._store(where, self._objects[where.key][where.namespace, where.name], None)

    def find(self, path: str) -> Json | None:
        where = self._where(path)
        return self._objects.get(where.key, {}).get((where.namespace, where.name))

    def all(self, path: str) -> list[Json]:
        where = self._where(path)
        return [
            each
            for (namespace, _), each in self._objects.get(where.key, {}).items()
            if where.namespace in ("", namespace)
        ]

    def compact(self) -> None:
        """Every version so far is forgotten: who comes with an old one hears 410."""
        with self._lock:
            self._oldest = self._version
            self._log.clear()
            self._pages.clear()

    def drop_watches(self) -> None:
        """Break every connection that watches."""
        with self._lock:
            for each in self._watchers:
                each.broken = True
        self._wake()

    def bookmark(self) -> None:
        """Every watch is told the version that is current."""
        with self._lock:
            for each in self._watchers:
                each.bookmark = True
        self._wake()

    @property
    def watching(self) -> int:
        return len(self._watchers)

    def count(self, verb: str, resource: str) -> int:
        """How often that was asked for."""
        return self.requests.count((verb, resource))

    # ---------------------------------------------------------------- objects

    def _where(self, path: str) -> _Where:
        parts = path.strip("/").split("/")
        if parts[0] == "api":
            group, version, rest = "", parts[1], parts[2:]
        else:
            group, version, rest = parts[1], parts[2], parts[3:]
        namespace = ""
        if rest[0] == "namespaces" and len(rest) > 2:
            namespace, rest = rest[1], rest[2:]
        rest = [*rest, "", ""]
        return _Where(group, version, rest[0], namespace, rest[1], rest[2])

    def _completed(self, where: _Where, body: Json) -> Json:
        meta = body.setdefault("metadata", {})
        meta["name"] = (
            where.name or meta.get("name") or meta.get("generateName", "x-") + uuid.uuid4().hex[:5]
        )
        if where.namespace:
            meta["namespace"] = where.namespace
        meta.setdefault("uid", str(uuid.uuid4()))
        meta.setdefault("creationTimestamp", datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"))
        body.setdefault("apiVersion", f"{where.group}/{where.version}".lstrip("/"))
        body.setdefault("kind", self._kinds[where.group, where.version][where.resource])
        return body

    def _store(self, where: _Where, old: Json | None, new: Json | None) -> Json:
        if old is not None and new is not None and _unversioned(old) == _unversioned(new):
            return old
        self._version += 1
        kept = self._objects.setdefault(where.key, {})
        if new is None:
            assert old is not None
            name = (old["metadata"].get("namespace", ""), old["metadata"]["name"])
            kept.pop(name)
            last = copy.deepcopy(old)
            last["metadata"]["resourceVersion"] = str(self._version)
            self._log.append(_Change(self._version, where.key, last, None))
            if where.resource == "customresourcedefinitions":
                spec = old["spec"]
                for each in spec["versions"]:
                    self._kinds.pop((spec["group"], each["name"]), None)
        else:
            new["metadata"]["resourceVersion"] = str(self._version)
            kept[new["metadata"].get("namespace", ""), new["metadata"]["name"]] = new
            self._log.append(_Change(self._version, where.key, old, new))
            if where.resource == "customresourcedefinitions":
                spec = new["spec"]
                for each in spec["versions"]:
                    self.serve_kind(
                        spec["group"],
                        each["name"],
                        spec["names"]["plural"],
                        spec["names"]["kind"],
                        namespaced=spec["scope"] == "Namespaced",
                    )
        self._wake()
        return new or last

    def _wake(self) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._wake_all)

    def _wake_all(self) -> None:
        for each in tuple(self._watchers):
            each.event.set()

    # ---------------------------------------------------------------- HTTP

    async def _guarded(self, scope: Any, receive: Any, send: Any) -> None:
        try:
            await self._serve(scope, receive, send)
        except ConnectionError:
            raise  # broken on purpose
        except Exception:
            self.problems.append(traceback.format_exc())
            raise

    async def _serve(self, scope: Any, receive: Any, send: Any) -> None:
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        headers = {key.decode(): value.decode() for key, value in scope["headers"]}
        query = dict(parse_qsl(scope["query_string"].decode(), keep_blank_values=True))
        method, path = scope["method"], unquote(scope["path"])
        if path in ("/version", "/readyz"):
            return await _answer(send, 200, {"gitVersion": "v0.0.0-fake"})
        if re.fullmatch("/apis/[^/]+", path):
            group = path.removeprefix("/apis/")
            versions = [{"version": each[1]} for each in self._kinds if each[0] == group]
            return await _answer(
                send, 200 if versions else 404, {"versions": versions} if versions else None
            )
        try:
            where = self._where(path)
        except IndexError:
            return await _answer(send, 404, None)
        verb = {"POST": "create", "PATCH": "patch", "PUT": "update", "DELETE": "delete"}.get(
            method, "get" if where.name else "watch" if "watch" in query else "list"
        )
        resource = f"{where.resource}/{where.sub}" if where.sub else where.resource
        self.requests.append((verb, resource))
        if self.faults.delay_s:
            await asyncio.sleep(self.faults.delay_s)
        if self.faults.busy > 0:
            self.faults.busy -= 1
            status = _status(429, "TooManyRequests", "please wait")
            return await _answer(send, 429, status, {"retry-after": self.faults.retry_after})
        if self.faults.unknown > 0:
            self.faults.unknown -= 1
            return await _answer(send, 401, _status(401, "Unauthorized", "Unauthorized"))
        if self.faults.broken > 0:
            self.faults.broken -= 1
            return await _answer(send, 500, _status(500, "InternalError", "etcd is away"))
        if (
            where.resource not in self._kinds.get((where.group, where.version), {})
            or where.resource in self.faults.missing
        ):
            return await _answer(send, 404, None)
        if (verb, resource) in self.faults.deny:
            words = f'{resource} is forbidden: User "fake" cannot {verb} resource "{resource}" in API group "{where.group}"'
            return await _answer(send, 403, _status(403, "Forbidden", words))
        try:
            if verb == "watch":
                return await self._watch(where, query, send)
            if verb == "list":
                return await self._list(where, query, send)
            with self._lock:
                code, answer = self._one(where, verb, query, body, headers)
        except _No as no:
            code, answer = no.code, _status(no.code, no.reason, str(no))
        return await _answer(send, code, answer)

    def _one(
        self, where: _Where, verb: str, query: Mapping[str, str], body: bytes, headers: Json
    ) -> tuple[int, Json]:
        given: Any = json.loads(body) if body else {}
        if where.resource in ("tokenreviews", "subjectaccessreviews"):
            return 201, self._review(where, given)
        kept = self._objects.get(where.key, {})
        name = (
            where.name or (given.get("metadata", {}).get("name") if verb == "create" else "") or ""
        )
        old = kept.get((where.namespace, name)) if name else None
        if verb == "create":
            if old is not None:
                raise _No(409, "AlreadyExists", f'{where.resource} "{name}" already exists')
            if name and not re.fullmatch(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?", name):
                raise _No(422, "Invalid", f'{where.resource} "{name}" is invalid')
            given.pop("status", None)
            given.setdefault("metadata", {}).pop("uid", None)
            new = self._completed(where, given)
            if where.resource == "pods":
                new["status"] = {"phase": "Pending"}
            return 201, self._store(where, None, new)
        kind = headers.get("content-type", "")
        if verb == "patch" and old is None and "apply-patch" in kind:
            return 201, self._store(where, None, self._completed(where, given))
        if old is None:
            raise _No(404, "NotFound", f'{where.resource} "{name}" not found')
        if verb == "get":
            return 200, old
        if verb == "delete":
            wanted = (given.get("preconditions") or {}).get("uid")
            if wanted and wanted != old["metadata"]["uid"]:
                raise _No(409, "Conflict", "the UID in the precondition does not match")
            if old["metadata"].get("finalizers"):
                new = copy.deepcopy(old)
                new["metadata"].setdefault("deletionTimestamp", datetime.now(UTC).isoformat())
                return 200, self._store(where, old, new)
            return 200, self._store(where, old, None)
        if verb == "patch":
            new = _json_patched(old, given) if "json-patch" in kind else _merged(old, given)
        else:
            new = copy.deepcopy(given)
        wanted = (
            (given.get("metadata") or {}).get("resourceVersion") if isinstance(given, dict) else ""
        )
        if wanted and wanted != old["metadata"]["resourceVersion"]:
            raise _No(409, "Conflict", "the object has been modified")
        if where.sub == "status":
            new = {**copy.deepcopy(old), "status": new.get("status", {})}
        elif "status" in old:
            new["status"] = copy.deepcopy(old["status"])
        else:
            new.pop("status", None)
        new["metadata"] = {
            **new.get("metadata", {}),
            **{key: old["metadata"][key] for key in ("uid", "name", "creationTimestamp")},
        }
        if old["metadata"].get("deletionTimestamp") and not new["metadata"].get("finalizers"):
            return 200, self._store(where, old, None)
        return 200, self._store(where, old, new)

    def _review(self, where: _Where, given: Json) -> Json:
        spec = given["spec"]
        if where.resource == "tokenreviews":
            known = self.tokens.get(spec["token"])
            user = {"username": known[0], "uid": known[0], "groups": known[1]} if known else {}
            return {**given, "status": {"authenticated": known is not None, "user": user}}
        asked = spec["resourceAttributes"]
        allowed = any(
            (who, asked["verb"], asked["resource"], where_) in self.rights
            for who in (spec["user"], *spec.get("groups", ()))
            for where_ in ("", asked.get("namespace", ""))
        )
        return {**given, "status": {"allowed": allowed}}

    async def _list(self, where: _Where, query: Mapping[str, str], send: Any) -> None:
        with self._lock:
            limit = int(query.get("limit", "0"))
            if token := query.get("continue"):
                if token not in self._pages:
                    raise _No(410, "Expired", "The provided continue parameter is too old")
                items, version = self._pages.pop(token)
            else:
                asked = query.get("resourceVersion", "")
                if asked.isdigit() and int(asked) > self._version:
                    raise _No(504, "Timeout", "Too large resource version")
                if asked:
                    limit = 0  # answered from the cache, which knows no pages
                version = self._version
                fits = _selector(query)
                items = [
                    each
                    for (namespace, _), each in sorted(self._objects.get(where.key, {}).items())
                    if where.namespace in ("", namespace) and fits(each)
                ]
            meta: Json = {"resourceVersion": str(version)}
            if limit and len(items) > limit:
                token = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode()
                self._pages[token] = (items[limit:], version)
                meta["continue"] = token
                meta["remainingItemCount"] = len(items) - limit
                items = items[:limit]
            kind = self._kinds[where.group, where.version][where.resource]
            body = json.dumps({"kind": f"{kind}List", "metadata": meta, "items": items}).encode()
        self.bodies.append(len(body))
        if self.faults.huge_lists > 0:
            self.faults.huge_lists -= 1
            await _start(send, 200)
            await send(
                {"type": "http.response.body", "body": body[: len(body) // 2], "more_body": True}
            )
            raise ConnectionError("cut off")
        await _start(send, 200)
        await send({"type": "http.response.body", "body": body})

    async def _watch(self, where: _Where, query: Mapping[str, str], send: Any) -> None:
        fits = _selector(query)
        inside: Callable[[Json | None], bool] = lambda each: (  # noqa: E731 (two conditions that belong together)
            each is not None
            and where.namespace in ("", each["metadata"].get("namespace", ""))
            and fits(each)
        )
        asked = query.get("resourceVersion", "")
        until = self._loop.time() + float(query.get("timeoutSeconds", "1800"))
        watcher = _Watcher()
        await _start(send, 200)

        async def say(kind: str, what: Json) -> None:
            line = json.dumps({"type": kind, "object": what}).encode() + b"\n"
            if self.faults.garbage > 0 and kind in ("ADDED", "MODIFIED", "DELETED"):
                self.faults.garbage -= 1
                line = b'{"type": "ADDED", "obj\xff\xfe\n'
            if self.faults.half_lines > 0 and kind in ("ADDED", "MODIFIED", "DELETED"):
                self.faults.half_lines -= 1
                await send(
                    {
                        "type": "http.response.body",
                        "body": line[: len(line) // 2],
                        "more_body": True,
                    }
                )
                watcher.broken = True
                raise ConnectionError("cut off")
            await send({"type": "http.response.body", "body": line, "more_body": True})

        async def end() -> None:
            await send({"type": "http.response.body", "body": b""})

        with self._lock:
            version = int(asked) if asked.isdigit() and int(asked) else self._version
            too_old = asked not in ("", "0") and version < self._oldest
            if self.faults.gone_watches > 0:
                self.faults.gone_watches -= 1
                too_old = True
            first = (
                []
                if asked not in ("", "0")
                else [each for each in self._objects.get(where.key, {}).values() if inside(each)]
            )
            self._watchers.add(watcher)
        try:
            if too_old:
                await say("ERROR", _status(410, "Expired", f"too old resource version: {asked}"))
                return await end()
            for each in first:
                await say("ADDED", each)
            while True:
                watcher.event.clear()
                if watcher.broken:
                    raise ConnectionError("cut off")
                with self._lock:
                    # changes are numbered without gaps, the log may have lost its beginning
                    news = [each for each in self._log if each.version > version] if (
                        self._log and self._log[-1].version > version
                    ) else []  # fmt: skip
                    now = self._version
                for each in news:
                    if each.key != where.key:
                        continue
                    was, is_ = inside(each.old), inside(each.new)
                    if is_:
                        assert each.new is not None
                        await say("MODIFIED" if was else "ADDED", each.new)
                    elif was:
                        last = copy.deepcopy(each.old or {})
                        last["metadata"]["resourceVersion"] = str(each.version)
                        await say("DELETED", last)
                version = now
                if watcher.bookmark:
                    watcher.bookmark = False
                    kind = self._kinds[where.group, where.version][where.resource]
                    await say(
                        "BOOKMARK",
                        {
                            "kind": kind,
                            "metadata": {"resourceVersion": str(now), "creationTimestamp": None},
                        },
                    )
                left = until - self._loop.time()
                if left <= 0 or self._server.should_exit:
                    return await end()
                try:
                    async with asyncio.timeout(min(left, 1.0)):
                        await watcher.event.wait()
                except TimeoutError:
                    continue
        finally:
            self._watchers.discard(watcher)


@dataclass(frozen=True)
class _Where:
    group: str
    version: str
    resource: str
    namespace: str
    name: str
    sub: str

    @property
    def key(self) -> str:
        return f"{self.group}/{self.resource}"


class _Watcher:
    def __init__(self) -> None:
        self.event = asyncio.Event()
        self.broken = False
        self.bookmark = False


class _No(Exception):
    def __init__(self, code: int, reason: str, words: str) -> None:
        super().__init__(words)
        self.code = code
        self.reason = reason


def _status(code: int, reason: str, words: str) -> Json:
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": words,
        "reason": reason,
        "code": code,
    }


async def _start(send: Any, code: int, headers: Mapping[str, str] | None = None) -> None:
    listed = [(b"content-type", b"application/json")]
    listed += [(key.encode(), value.encode()) for key, value in (headers or {}).items()]
    await send({"type": "http.response.start", "status": code, "headers": listed})


async def _answer(
    send: Any, code: int, body: Json | None, headers: Mapping[str, str] | None = None
) -> None:
    await _start(send, code, headers)
    content = b"404 page not found\n" if body is None else json.dumps(body).encode()
    await send({"type": "http.response.body", "body": content})


def _unversioned(value: Json) -> Json:
    meta = {key: each for key, each in value["metadata"].items() if key != "resourceVersion"}
    return {**value, "metadata": meta}


def _merged(old: Any, patch: Any) -> Any:
    """RFC 7386."""
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    new = dict(copy.deepcopy(old)) if isinstance(old, dict) else {}
    for key, value in patch.items():
        if value is None:
            new.pop(key, None)
        else:
            new[key] = _merged(new.get(key), value)
    return new


def _json_patched(old: Json, steps: list[Json]) -> Json:
    """RFC 6902, as far as it is used."""
    new = copy.deepcopy(old)
    for step in steps:
        *path, last = (
            each.replace("~1", "/").replace("~0", "~") for each in step["path"].split("/")[1:]
        )
        inner: Any = new
        for each in path:
            inner = inner[int(each)] if isinstance(inner, list) else inner.setdefault(each, {})
        at: Any = int(last) if isinstance(inner, list) and last != "-" else last
        match step["op"]:
            case "test":
                if (inner.get(at) if isinstance(inner, dict) else inner[at]) != step["value"]:
                    raise _No(422, "Invalid", "the server rejected our request: test failed")
            case "remove":
                del inner[at]
            case "add" if isinstance(inner, list):
                inner.insert(len(inner) if at == "-" else at, step["value"])
            case _:
                inner[at] = step["value"]
    return new


def _selector(query: Mapping[str, str]) -> Callable[[Json], bool]:
    """Label and field selectors, all of them."""
    labels, fields = query.get("labelSelector", ""), query.get("fieldSelector", "")
    parts = re.findall(r"(?:[^,(]|\([^)]*\))+", labels)

    def fits(each: Json) -> bool:
        own = each["metadata"].get("labels") or {}
        return all(_label_fits(part.strip(), own) for part in parts) and all(
            _field_fits(part, each) for part in fields.split(",") if part
        )

    return fits


def _label_fits(part: str, own: Mapping[str, str]) -> bool:
    if found := re.fullmatch(r"(\S+) (in|notin) \(([^)]*)\)", part):
        key, how, values = found.groups()
        inside = own.get(key) in [each.strip() for each in values.split(",")]
        return inside if how == "in" else not inside
    if "!=" in part:
        key, _, value = part.partition("!=")
        return own.get(key) != value
    if "=" in part:
        key, _, value = part.replace("==", "=").partition("=")
        return own.get(key) == value
    return part[1:] not in own if part.startswith("!") else part in own


def _field_fits(part: str, each: Any) -> bool:
    differs = "!=" in part
    path, _, value = part.replace("!=", "=").replace("==", "=").partition("=")
    if path == "status.podIP":
        ips = [ip.get("ip") for ip in (each.get("status") or {}).get("podIPs") or ()]
        return (value in [*ips, (each.get("status") or {}).get("podIP")]) != differs
    for key in path.split("."):
        each = (each or {}).get(key)
    return ((each or "") == value) != differs


@contextmanager
def fake_server() -> Iterator[FakeApi]:
    with FakeApi() as made:
        yield made
