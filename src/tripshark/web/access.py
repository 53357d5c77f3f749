"""Who is asking, and what of everything they may see: rights for every route, and nothing without an answer.

Rights are Kubernetes' (`Access`) or those that `signin` gives (`Granted`); handlers ask a `Caller` and know neither. The resources are of the group tripshark.dev: `get incidents` shows that something was captured, `get evidence` shows
packets, `create captures` starts one. They need not exist in the cluster: a right is only asked for. Where the
cluster cannot be asked, nobody is let in.
"""

from __future__ import annotations

import asyncio
from base64 import b64decode
from binascii import Error as NotBase64
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Protocol

from starlette.requests import Request

from tripshark.errors import Denied, NotFound, Permanent, Transient, TripsharkError
from tripshark.model.filter import Scope
from tripshark.model.incident import EVERY, namespaces_of
from tripshark.model.role import Grant, Role
from tripshark.ports import CaptureRequest, Catalogue, Targets

GROUP: Final = "tripshark.dev"
INCIDENTS, EVIDENCE, CAPTURES = "incidents", "evidence", "captures"
CHALLENGE = 'Bearer realm="tripshark", Basic realm="tripshark", charset="UTF-8"'
PATIENCE = 5.0  # seconds in which the cluster must answer
_AT_ONCE = 16
_MAX_TOKEN = 16_384


class Access(Protocol):
    """Asks the cluster. `cluster.access` is one; both raise `Transient` while it is away."""

    async def who(self, token: str) -> Any | None:  # noqa: ANN401  # only handed back; its `name` is shown
        """Whose token that is, None when it is nobody's."""

    async def may(self, user: Any, verb: str, resource: str, namespace: str) -> bool:  # noqa: ANN401  # see above
        """Whether they have this right on a resource of `GROUP`; namespace "" asks for all namespaces at once."""


class Forbidden(Denied):
    """Known, and not allowed."""

    http_status = 403


class Caller:
    """Whoever asks. Without `Access` everybody who got through the gate may do everything."""

    role = "kubernetes"

    def __init__(self, name: str, access: Access | None = None, user: object = None) -> None:
        self.name = name
        self.session = ""  # of which browser, where there are several of one name
        self._access = access
        self._user = user

    async def may(self, verb: str, resource: str, namespace: str) -> bool:
        """In one namespace, or with `EVERY` in all of them."""
        if self._access is None:
            return True
        everywhere = "" if namespace == EVERY else namespace
        return bool(await _asked(self._access.may(self._user, verb, resource, everywhere)))

    async def require(self, verb: str, resource: str, namespaces: Iterable[str]) -> None:
        """Raises `Forbidden`, naming the first right that is missing."""
        for namespace in sorted(set(namespaces)):
            if not await self.may(verb, resource, namespace):
                everywhere = namespace == EVERY
                where = "in all namespaces" if everywhere else f"in namespace {namespace}"
                raise Forbidden(
                    f"{self.name} may not {verb} {resource}.{GROUP} {where}",
                    where=namespace,
                    hint=self._remedy(verb, resource, namespace),
                )

    def _remedy(self, verb: str, resource: str, namespace: str) -> str:
        flag = "--all-namespaces" if namespace == EVERY else f"--namespace {namespace}"
        return f"kubectl auth can-i {verb} {resource}.{GROUP} {flag}; a RoleBinding gives it"

    @property
    def is_unlimited(self) -> bool:
        """Nothing is ever refused: nobody has to be asked about anything."""
        return self._access is None

    async def visible(self, catalogue: Catalogue) -> tuple[str, ...] | None:
        """The namespaces of whose incidents the caller may know; None: of all."""
        if await self.may("get", INCIDENTS, EVERY):
            return None
        return await self.among(await catalogue.namespaces())

    async def among(self, namespaces: Sequence[str]) -> tuple[str, ...]:
        """Those of the namespaces of whose incidents the caller may know."""
        names = [each for each in dict.fromkeys(namespaces) if each and each != EVERY]
        few = asyncio.Semaphore(_AT_ONCE)

        async def ask(name: str) -> bool:
            async with few:
                return await self.may("get", INCIDENTS, name)

        answers = await asyncio.gather(*(ask(name) for name in names))
        return tuple(name for name, yes in zip(names, answers, strict=True) if yes)

    async def sees_everything(self) -> bool:
        """They may know of every incident."""
        return await self.may("get", INCIDENTS, EVERY)


class Granted(Caller):
    """Whoever signed in, with what the operator's settings give them."""

    is_unlimited = False

    def __init__(self, grant: Grant, *, session: str = "") -> None:
        super().__init__(grant.name)
        self.session = session
        self.role = grant.role.value
        self.namespaces = grant.namespaces
        self._grant = grant

    async def may(self, verb: str, resource: str, namespace: str) -> bool:
        return self._grant.may(verb, resource, namespace)

    def _remedy(self, verb: str, resource: str, namespace: str) -> str:
        least = next(each.value for each in Role if each.allows(verb, resource))
        where = "all namespaces" if namespace == EVERY else f"namespace {namespace}"
        return f"the role {least} over {where} gives it; signin.tokens and signin.roles say who has which"


class SessionView(Protocol):
    """One browser of somebody who signed in; `signin.sessions.Session` is one."""

    @property
    def key(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def grant(self) -> Grant | None:
        """None: whoever the Kubernetes `token` is of."""

    @property
    def csrf(self) -> str: ...
    @property
    def token(self) -> str: ...
    @property
    def id_token(self) -> str: ...


class ArrivalView(Protocol):
    """Whom the identity provider sent back; `signin.desk.Arrival` is one."""

    @property
    def grant(self) -> Grant: ...
    @property
    def next(self) -> str: ...
    @property
    def id_token(self) -> str: ...


Headers = Iterable[tuple[bytes, bytes]]


class SignIn(Protocol):
    """Every way to sign in but Kubernetes'; `signin.desk.Desk` is one. `peer` is the address of the other end."""

    @property
    def origin(self) -> str:
        """`https://tripshark.example.com` as browsers reach it, "" where that is not known."""

    @property
    def secure(self) -> bool:
        """Browsers reach it by https."""

    @property
    def by_token(self) -> bool: ...
    @property
    def by_provider(self) -> bool: ...
    @property
    def counted(self) -> Mapping[tuple[str, str], int]:
        """Attempts by way and outcome."""

    @property
    def foreign_headers(self) -> int: ...
    @property
    def sessions(self) -> int: ...
    def of_token(self, token: str) -> Grant | None: ...
    def of_proxy(self, peer: str, headers: Headers) -> Grant | None:
        """Who the proxy at this address says is asking. Raises `BadInput`."""

    def csrf_of(self, name: str) -> str: ...
    def session(self, id: str, now_ns: int) -> SessionView | None: ...
    def begin(
        self,
        name: str,
        now_ns: int,
        *,
        way: str,
        grant: Grant | None = None,
        token: str = "",
        id_token: str = "",
    ) -> tuple[str, SessionView]: ...
    def end(self, id: str) -> SessionView | None: ...
    def require_patience(self, peer: str, headers: Headers, now_ns: int, *, way: str) -> None:
        """Raises `TooMany`."""

    def failed(self, peer: str, headers: Headers, now_ns: int, *, way: str) -> None: ...
    async def depart(self, next: str, now_ns: int) -> tuple[str, str]:
        """Where the browser goes, and the cookie it takes along. Raises `NotFound`, `Transient`, `Permanent`."""

    async def arrive(self, cookie: str, answer: Mapping[str, str], now_ns: int) -> ArrivalView:
        """Who came back. Raises `Denied`, `Transient`, `Permanent`."""

    async def farewell(self, session: Any, now_ns: int) -> str:  # noqa: ANN401  # its own session
        """Where to sign out at the provider too; "" where there is nothing."""


async def identify(request: Request, access: Access) -> Caller:
    """The caller by the token in the request: as bearer, or as password of any user, which browsers can send.

    Raises `Denied` without a token that the cluster knows, `Transient` when it cannot be asked.
    """
    token = token_in(request)
    found = await of_cluster(token, access) if token else None
    if found is None:
        raise Denied(
            "that token is nobody's" if token else "this needs a Kubernetes token",
            hint="send `Authorization: Bearer TOKEN`; kubectl create token NAME makes one",
        )
    return found


async def of_cluster(token: str, access: Access) -> Caller | None:
    """Whose Kubernetes token this is; None: nobody's. Raises `Transient`, `Permanent`."""
    user = await _asked(access.who(token))
    if user is None:
        return None
    name = user if isinstance(user, str) else str(getattr(user, "name", ""))
    return Caller(f"kubernetes:{name[:180]}", access, user)


async def require_capture(caller: Caller, asked: CaptureRequest, targets: Targets) -> None:
    """`create captures` on whatever the target turns out to be. Raises `Forbidden`, `Transient`."""
    if await caller.may("create", CAPTURES, EVERY):
        return
    head, slash, _ = asked.target.partition("/")
    if asked.scope is Scope.NODE or asked.target.startswith(("pid:", "node:", "host")):
        await caller.require("create", CAPTURES, [EVERY])
    if (
        slash and ":" not in head
    ):  # the name is asked about first: not even whether it exists is told without
        await caller.require("create", CAPTURES, [head])
    try:
        found = await targets.find(asked.target)
    except NotFound:
        found = None
    needed: set[str] = {head} if slash and ":" not in head else set()
    if found is not None and found.target is not None:
        needed |= set(namespaces_of([found.target]))
        if found.members is not None:  # all of them are captured
            needed |= set(namespaces_of(found.members.targets))
            needed |= {each.namespace or EVERY for each in found.members.elsewhere}
    elif found is not None and found.elsewhere is not None:
        needed.add(found.elsewhere.namespace or EVERY)
    elif not needed:  # nobody knows what would be captured
        needed.add(EVERY)
    await caller.require("create", CAPTURES, needed)


def token_in(request: Request) -> str:
    """The token that the request shows; "" where it shows none, or something else."""
    offered = request.headers.getlist("authorization")
    if len(offered) != 1 or len(offered[0]) > _MAX_TOKEN:
        return ""
    scheme, _, rest = offered[0].partition(" ")
    rest = rest.strip()
    if scheme.lower() == "bearer":
        return rest
    if scheme.lower() == "basic":
        try:
            return b64decode(rest, validate=True).decode("ascii").partition(":")[2]
        except (NotBase64, ValueError):
            return ""
    return ""


async def _asked(answer: Any) -> Any:  # noqa: ANN401  # whatever is asked
    """The cluster's answer in time, or an error that lets nobody in and says whose fault it is."""
    try:
        async with asyncio.timeout(PATIENCE):
            return await answer
    except TimeoutError:
        raise Transient(
            "the Kubernetes API does not answer, so nobody's rights are known",
            hint="it is asked again with the next request",
            after=5.0,
        ) from None
    except Transient:
        raise
    except TripsharkError as error:  # not the caller's fault: ours
        raise Permanent(
            f"rights cannot be asked for: {error.message}",
            where=error.where,
            hint="Tripshark needs to create tokenreviews and subjectaccessreviews; see docs/hub.md",
        ) from error
