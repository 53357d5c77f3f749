"""Who a reader is and what they may, in the cluster's own terms: TokenReview and SubjectAccessReview.

Nothing is allowed because it cannot be asked: then both raise, and whoever asked gets nothing. Answers are kept for seconds only, so
that a right that is taken away is gone soon.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import msgspec

from tripshark.cluster.answers import Object
from tripshark.cluster.api import KubeApi
from tripshark.cluster.remembered import Remembered
from tripshark.errors import Denied, TooMany, Transient, TripsharkError

TOKEN_REVIEWS = "/apis/authentication.k8s.io/v1/tokenreviews"  # noqa: S105 (a path)
ACCESS_REVIEWS = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
MAX_TOKEN = 16 << 10
MAX_KEPT = 2048
USER_S = 30.0  # how long a token counts as known
NOBODY_S = 10.0  # … as unknown
RIGHT_S = 10.0
_ASKING = 4
_WAITING = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """Somebody the cluster knows."""

    name: str
    uid: str = ""
    groups: tuple[str, ...] = ()
    extra: tuple[
        tuple[str, tuple[str, ...]], ...
    ] = ()  # such as OpenShift's scopes: less may be allowed


class _UserInfo(msgspec.Struct):
    username: str = ""
    uid: str = ""
    groups: tuple[str, ...] | None = None
    extra: dict[str, tuple[str, ...]] | None = None


class _TokenStatus(msgspec.Struct):
    authenticated: bool = False
    user: _UserInfo | None = None
    audiences: list[str] | None = None


class _AccessStatus(msgspec.Struct):
    allowed: bool = False
    denied: bool = False


_TOKEN = msgspec.json.Decoder(_TokenStatus)
_ACCESS = msgspec.json.Decoder(_AccessStatus)
_T = TypeVar("_T")


class Access:
    """Asks the API server about people. `audiences`: what a token must be meant for; () leaves it to the server."""

    def __init__(self, api: KubeApi, *, audiences: Sequence[str] = ()) -> None:
        self.asked = 0
        self._api = api
        self._audiences = list(audiences)
        self._users: Remembered[User | str] = Remembered(MAX_KEPT)  # "": nobody
        self._rights: Remembered[bool] = Remembered(MAX_KEPT)
        self._asking = asyncio.Semaphore(_ASKING)
        self._waiting = 0

    async def who(self, token: str) -> User | None:
        """Whose token this is; None when it is nobody's. Raises `Transient` when it cannot be found out."""
        if not token or len(token) > MAX_TOKEN or not token.isascii():
            return None
        key = hashlib.sha256(token.encode()).digest()  # no token lies about in memory
        if (known := self._users.get(key)) is not None:
            return known if isinstance(known, User) else None
        spec: Object = {"token": token}
        if self._audiences:
            spec["audiences"] = self._audiences
        status = _status(await self._review(TOKEN_REVIEWS, "TokenReview", spec), _TOKEN)
        info = status.user
        meant = not self._audiences or bool(set(self._audiences) & set(status.audiences or ()))
        if status.authenticated is not True or info is None or not info.username or not meant:
            self._users.put(key, "", NOBODY_S)
            return None
        user = User(
            name=info.username,
            uid=info.uid,
            groups=info.groups or (),
            extra=tuple(sorted((info.extra or {}).items())),
        )
        self._users.put(key, user, USER_S)
        return user

    async def may(
        self,
        user: User,
        verb: str,
        resource: str,
        namespace: str,
        *,
        group: str = "tripshark.dev",
        name: str = "",
    ) -> bool:
        """Whether the cluster's rules allow it. `namespace` "" means all of them; `resource` may be "pods/log".

        Raises `Transient` when it cannot be found out.
        """
        key = (user, verb, group, resource, namespace, name)
        if (known := self._rights.get(key)) is not None:
            return known
        plural, _, sub = resource.partition("/")
        attributes = {
            "verb": verb,
            "group": group,
            "resource": plural,
            "subresource": sub,
            "namespace": namespace,
            "name": name,
        }
        spec: Object = {
            "user": user.name,
            "groups": list(user.groups),
            "resourceAttributes": {key: value for key, value in attributes.items() if value},
        }
        if user.uid:
            spec["uid"] = user.uid
        if user.extra:
            spec["extra"] = {key: list(value) for key, value in user.extra}
        answer = await self._review(ACCESS_REVIEWS, "SubjectAccessReview", spec)
        status = _status(answer, _ACCESS)
        allowed = status.allowed is True and not status.denied
        self._rights.put(key, allowed, RIGHT_S)
        return allowed

    async def _review(self, path: str, kind: str, spec: Object) -> bytes:
        """The status of a review, which is no object that stays."""
        if self._waiting >= _WAITING:
            raise TooMany("too many readers wait to be known", after=1.0)
        self._waiting += 1
        body = {"apiVersion": path.removeprefix("/apis/").rpartition("/")[0], "kind": kind}
        try:
            async with self._asking:
                self.asked += 1
                answer = await self._api.create(path, {**body, "spec": spec})
        except Transient:
            raise
        except TripsharkError as problem:
            raise _undecided(problem) from problem
        finally:
            self._waiting -= 1
        return msgspec.json.encode(answer.get("status") or {})


def _undecided(problem: TripsharkError) -> Transient:
    hint = problem.hint if isinstance(problem, Denied) else ""
    return Transient(
        f"the cluster cannot be asked who may: {problem.message}", where=problem.where, hint=hint
    )


def _status(body: bytes, how: msgspec.json.Decoder[_T]) -> _T:
    try:
        return how.decode(body)
    except msgspec.DecodeError as problem:
        raise Transient(f"the API server's review is not understood: {problem}") from problem
