"""Capture resources on a real API server: who captures, who reports, who may ask, and what survives whose absence."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster.control import Answer, Plane
from tripshark.cluster.api import Asked, KubeApi
from tripshark.cluster.captures import Captures, FolderAsks, Ways
from tripshark.cluster.permissions import PERMISSIONS
from tripshark.errors import BadInput, NotFound, Refused
from tripshark.formats.capture_schema import definitions
from tripshark.model.evidence import IncidentId
from tripshark.model.fleet import (
    SECOND,
    Aim,
    Aimed,
    FleetRequest,
    PartKey,
    PartReport,
    Patience,
    Stage,
    resource_name,
)
from tripshark.model.target import Identity, Target, TargetKey, TargetKind
from tripshark.respond.orders import Order

ROOT = Path(__file__).parents[2]
GROUP = "/apis/tripshark.dev/v1alpha1"
HASTY = Ways(
    patience=Patience(grace_ns=SECOND, silence_ns=2 * SECOND),
    turn_s=0.3,
    sweep_s=0.2,
    denied_s=0.5,
    per_minute=100,
)
DEADLINE_S = 60.0
DECLARED = [each for each in PERMISSIONS if each.feature == "captures"]
NEEDS = [
    {"apiGroups": [each.group], "resources": [each.resource], "verbs": list(each.verbs)}
    for each in DECLARED
]


class Now:
    """`ports.Clock`, the real one, which a test may put forward."""

    ahead_ns = 0

    def now_ns(self) -> int:
        return time.time_ns() + self.ahead_ns


class Pods:
    """The pods of one node as a `LocalSide`: captures that freeze at once and end when the test says so."""

    def __init__(self, node: str, *names: str, hold: bool = False) -> None:
        self.node = node
        self.targets = [self.pod(*name.split("/")) for name in names]
        self.members: set[str] = set()  # pods that a workload or service means
        self.hold = hold
        self.started: list[str] = []  # every call
        self.states: dict[str, PartReport] = {}
        self.orders: dict[str, Order] = {}
        self.started_at: dict[str, float] = {}
        self.everywhere: tuple[PartKey, ...] = ()
        self._moved = asyncio.Condition()

    def pod(self, namespace: str, name: str, kind: TargetKind = TargetKind.CONTAINER) -> Target:
        return Target(
            key=TargetKey(f"{self.node}-{name}"),
            kind=kind,
            name=f"container:{name}",
            inode=1,
            since_ns=1,
            identity=Identity(namespace=namespace, pod=name, uid=f"uid-{name}", node=self.node),
        )

    async def targets_of(self, request: FleetRequest) -> tuple[Target, ...]:
        return tuple(t for t in self.targets if any(self._means(aim, t) for aim in request.aims))

    def _means(self, aim: Aim, target: Target) -> bool:
        match aim.kind:
            case Aimed.POD:
                return (aim.namespace, aim.name) == (
                    target.identity.namespace,
                    target.identity.pod,
                )
            case Aimed.NODE:
                return target.kind is TargetKind.HOST and aim.name == self.node
            case _:
                return target.identity.pod in self.members

    async def expected(self, request: FleetRequest) -> tuple[PartKey, ...]:
        return self.everywhere

    async def start(self, id: str, order: Order) -> PartReport:
        self.started.append(id)
        if order.request.filter == "nonsense":
            raise BadInput("no such filter", where="filter")
        if order.request.filter == "busy":
            raise Refused("the disk budget is spent", hint="make room")
        self.started_at.setdefault(id, time.time())
        self.orders.setdefault(id, order)
        stage = Stage.CAPTURING if self.hold else Stage.SEALED
        return self.states.setdefault(
            id,
            PartReport(
                node="", uid="", incident="i-1", stage=stage, packets=7, frozen_ns=time.time_ns()
            ),
        )

    async def changed(self, id: str, known: PartReport) -> PartReport:
        async with self._moved:
            if id not in self.states:
                raise NotFound("never started here")
            await self._moved.wait_for(lambda: self.states[id].stage is not known.stage)
            return self.states[id]

    async def finish(self) -> None:
        """Every capture is sealed."""
        async with self._moved:
            self.hold = False
            for id, state in self.states.items():
                self.states[id] = replace(
                    state,
                    stage=Stage.SEALED,
                    word="complete",
                    packets=9,
                    bytes=900,
                    sha256="ab" * 32,
                )
            self._moved.notify_all()


@pytest.fixture(scope="session")
def defined(real_api: Plane) -> Plane:
    """The server with both definitions, as they are for a server of its age."""
    old = real_api.call("GET", "/version")["minor"].rstrip("+") < "25"
    for each in definitions(cel=not old):
        real_api.apply(each)  # type: ignore[arg-type]
    for plural in ("captures", "clustercaptures"):
        wait(lambda plural=plural: _serves(real_api, plural))  # type: ignore[misc]
    return real_api


def _serves(plane: Plane, plural: str) -> bool:
    try:
        plane.call("GET", f"{GROUP}/{plural}")
    except Answer:
        return False
    return True


def wait(condition: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + DEADLINE_S
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.05)
    return found


async def soon(condition: Callable[[], Any]) -> Any:
    """The same beside running agents; the condition may ask the server."""
    deadline = time.monotonic() + DEADLINE_S
    while not (found := await asyncio.to_thread(condition)):
        assert time.monotonic() < deadline, "it did not come about"
        await asyncio.sleep(0.05)
    return found


@pytest.fixture
def space(defined: Plane) -> Iterator[str]:
    """A namespace of the test's own; its captures go with it."""
    with defined.namespace() as name:
        yield name
        defined.call("DELETE", f"{GROUP}/namespaces/{name}/captures")
        defined.call("DELETE", f"{GROUP}/clustercaptures")


@pytest.fixture
async def agent(defined: Plane) -> AsyncIterator[KubeApi]:
    """A client that may what the code declares for captures, and nothing else."""
    name = f"agent-{uuid.uuid4().hex[:6]}"
    undo = defined.grant(name, NEEDS)
    async with KubeApi(defined.login(name), timeout_s=30) as api:
        yield api
    undo()


@contextlib.asynccontextmanager
async def running(
    api: KubeApi, folder: Path, *sides: Pods, ways: Ways = HASTY
) -> AsyncIterator[list[Captures]]:
    """One controller per node."""
    made = [
        Captures(
            api,
            node=side.node,
            clock=Now(),
            local=side,
            asks=FolderAsks(folder / side.node),
            ways=ways,
        )
        for side in sides
    ]
    tasks = [asyncio.create_task(each.run()) for each in made]
    try:
        await asyncio.gather(*(mirror.wait_synced() for each in made for mirror in each.mirrors))
        yield made
    finally:
        for task in tasks:
            task.cancel()
        for task in tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task


def a_capture(space: str, name: str = "c1", **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "tripshark.dev/v1alpha1",
        "kind": "Capture",
        "metadata": {"name": name, "namespace": space},
        "spec": {"target": {"pod": "web"}, "after": "0s", **spec},
    }


def create(plane: Plane, body: dict[str, Any]) -> dict[str, Any]:
    space = body["metadata"].get("namespace")
    plural = "captures" if space else "clustercaptures"
    inner = f"/namespaces/{space}" if space else ""
    return plane.call("POST", f"{GROUP}{inner}/{plural}", body)


def status(plane: Plane, space: str, name: str = "c1") -> dict[str, Any]:
    inner = f"/namespaces/{space}/captures" if space else "/clustercaptures"
    try:
        found: dict[str, Any] = plane.call("GET", f"{GROUP}{inner}/{name}").get("status", {})
    except Answer as no:
        if no.code != 404:
            raise
        return {}
    return found


def phase_is(plane: Plane, space: str, phase: str, name: str = "c1") -> Callable[[], Any]:
    def told() -> Any:
        found = status(plane, space, name)
        return found if found.get("phase") == phase else None

    return told


def condition(found: dict[str, Any], type: str) -> dict[str, Any]:
    return next(each for each in found["conditions"] if each["type"] == type)


def kubectl(
    plane: Plane, *argv: str, config: Path | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["kubectl", f"--kubeconfig={config or plane.kubeconfig}", *argv],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


# ------------------------------------------------------------------------------ the definitions


WRONG: list[dict[str, Any]] = [
    {"target": {}},
    {"target": {"pod": "web", "service": "web"}},
    {"target": {"pod": "../etc"}},
    {"target": {"node": "n1"}},
    {"scope": "everything"},
    {"before": "soon"},
    {"maxBytes": 1},
    {"maxBytes": 10**12},
    {"t0": "yesterday"},
    {"filter": "x" * 3000},
    {"peer": "$(reboot)"},
    {"incident": "../../x"},
]


def test_the_server_refuses_what_the_schema_does_not_allow(defined: Plane, space: str) -> None:
    """Before any node sees it."""
    for spec in WRONG:
        with pytest.raises(Answer) as caught:
            create(defined, a_capture(space, **spec))
        assert caught.value.code == 422, spec


def test_no_request_says_where_to(defined: Plane, space: str) -> None:
    """Fields that other tools were robbed through are not even kept."""
    made = create(
        defined,
        a_capture(
            space,
            destination="s3://mine",
            hostPath="/",
            image="evil",
            command=["sh"],
            url="http://x",
        ),
    )
    assert set(made["spec"]) == {"target", "after"}


def test_the_example_is_accepted(defined: Plane) -> None:
    """By the server, as people write it."""
    for body in yaml.safe_load_all((ROOT / "examples" / "capture.yaml").read_text()):
        body["metadata"].pop("namespace", None)
        where = "namespaces/default/captures" if body["kind"] == "Capture" else "clustercaptures"
        kept = defined.call("POST", f"{GROUP}/{where}?dryRun=All", body)
        assert kept["spec"] == body["spec"]


# ------------------------------------------------------------------------------ one and several nodes


async def test_by_kubectl_to_evidence_and_status(
    defined: Plane, space: str, agent: KubeApi, tmp_path: Path
) -> None:
    """Created with kubectl, captured on the one node concerned, waited for and listed with kubectl."""
    here, there = Pods("n1", f"{space}/web"), Pods("n2", f"{space}/other")
    async with running(agent, tmp_path, here, there):
        file = tmp_path / "capture.yaml"
        file.write_text(
            yaml.safe_dump(a_capture(space, requestedBy="me", peer="203.0.113.66:4444"))
        )
        made = await asyncio.to_thread(kubectl, defined, "create", "-f", str(file))
        assert made.returncode == 0, made.stderr
        argv = ("wait", "-n", space, "capture/c1", "--for=condition=Complete", "--timeout=60s")
        waited = await asyncio.to_thread(kubectl, defined, *argv)
        assert waited.returncode == 0, waited.stderr
        listed = await asyncio.to_thread(kubectl, defined, "get", "captures", "-n", space)
    rows = [line.split() for line in listed.stdout.splitlines()]
    assert rows[0] == ["NAME", "PHASE", "TARGET", "PARTS", "PACKETS", "AGE"]
    assert rows[1][:-1] == ["c1", "Complete", "pod", f"{space}/web", "1/1", "7"]
    assert (len(here.started), there.started) == (1, [])
    order = next(iter(here.orders.values()))
    assert order.resource == f"{space}/c1"
    assert order.request.peer == "203.0.113.66:4444"
    assert order.request.by == "me"


async def test_all_replicas_on_both_nodes(
    defined: Plane, space: str, agent: KubeApi, tmp_path: Path
) -> None:
    """A workload's pods freeze on both nodes; each node owns its own parts, and nobody collides."""
    here = Pods("n1", f"{space}/web-1", f"{space}/web-2", hold=True)
    there = Pods("n2", f"{space}/web-3", hold=True)
    keys = [("n1", "uid-web-1"), ("n1", "uid-web-2"), ("n2", "uid-web-3")]
    for side in (here, there):
        side.members = {"web-1", "web-2", "web-3"}
        side.everywhere = tuple(PartKey(node=n, uid=u) for n, u in keys)
    async with running(agent, tmp_path, here, there):
        create(
            defined, a_capture(space, target={"workload": {"kind": "Deployment", "name": "web"}})
        )

        def frozen() -> Any:
            found = status(defined, space)
            return (
                found
                if found.get("conditions") and condition(found, "Frozen")["status"] == "True"
                else None
            )

        found = await soon(frozen)
        assert found["phase"] == "Capturing"
        assert found["progress"] == "0/3"
        await here.finish()
        await there.finish()
        found = await soon(phase_is(defined, space, "Complete"))
    assert sorted((p["node"], p["uid"]) for p in found["parts"]) == keys
    assert [(e["node"], e["uid"]) for e in found["expected"]] == keys
    assert (found["progress"], found["packets"]) == ("3/3", 27)
    assert {p["word"] for p in found["parts"]} == {"complete"}
    told = defined.call("GET", f"{GROUP}/namespaces/{space}/captures/c1")
    managers = {
        m["manager"] for m in told["metadata"]["managedFields"] if m["operation"] == "Apply"
    }
    assert managers == {"tripshark-n1", "tripshark-n2", "tripshark"}
    assert [len(side.started) for side in (here, there)] == [2, 1]


async def test_nothing_starts_twice(
    defined: Plane, space: str, agent: KubeApi, tmp_path: Path
) -> None:
    """Not when the agent is restarted amid the capture, nor when it comes back after it; the part is finished."""
    side = Pods("n1", f"{space}/web", hold=True)
    async with running(agent, tmp_path, side):
        create(defined, a_capture(space))
        await soon(
            lambda: [
                p for p in status(defined, space).get("parts", ()) if p["state"] == "Capturing"
            ]
        )
    assert len(side.started) == 1
    async with running(agent, tmp_path, side):
        await side.finish()
        found = await soon(phase_is(defined, space, "Complete"))
        assert found["parts"][0]["packets"] == 9
    async with running(agent, tmp_path, side) as (again,):
        await soon(lambda: not again._running)
    assert len(side.started) == 1


async def test_the_servers_restart_starts_nothing_twice_and_loses_no_ask(
    defined: Plane, space: str, agent: KubeApi, tmp_path: Path
) -> None:
    """Asked while the API server is away, by a node that is restarted meanwhile: it arrives, and once."""
    if not defined.own:
        pytest.skip("a foreign cluster is not stopped")
    side = Pods("n1", f"{space}/web", f"{space}/late", hold=True)
    aim = Aim(kind=Aimed.POD, namespace=space, name="late")
    request = FleetRequest(
        aims=(aim,), t0_ns=time.time_ns(), after_ns=0, incident=IncidentId("i-7"), origin="n1"
    )
    async with running(agent, tmp_path, side) as (captures,):
        create(defined, a_capture(space))
        await soon(lambda: status(defined, space).get("parts"))
        await asyncio.to_thread(defined.kill)
        name = await captures.ask(request)
        assert await captures.ask(replace(request, origin="n9")) == name
        await soon(lambda: captures.outbox.problem)
    try:
        async with running_late(agent, tmp_path, side) as captures:
            await asyncio.to_thread(defined.start)
            await soon(lambda: status(defined, space, name).get("parts"))
            assert await captures.ask(request) == name
            await soon(lambda: not list((tmp_path / "n1").glob("*.json")))
            await side.finish()
            await soon(phase_is(defined, space, "Complete", name))
            await soon(phase_is(defined, space, "Complete"))
    finally:
        await asyncio.to_thread(defined.start)
    assert len(side.started) == 2
    listed = defined.call("GET", f"{GROUP}/namespaces/{space}/captures")["items"]
    assert sorted(each["metadata"]["name"] for each in listed) == sorted(["c1", name])
    assert resource_name(request) == name


@contextlib.asynccontextmanager
async def running_late(api: KubeApi, folder: Path, side: Pods) -> AsyncIterator[Captures]:
    """A controller that begins while no server is there."""
    made = Captures(
        api,
        node=side.node,
        clock=Now(),
        local=side,
        asks=FolderAsks(folder / side.node),
        ways=HASTY,
    )
    task = asyncio.create_task(made.run())
    try:
        yield made
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def test_the_path_from_event_to_freeze_asks_nobody(
    defined: Plane, space: str, agent: KubeApi, tmp_path: Path
) -> None:
    """Ten captures, one after the other: the median delay from their creation to the start is far below a second."""
    side = Pods("n1", f"{space}/web")
    delays = []
    async with running(agent, tmp_path, side):
        for number in range(10):
            began = time.time()
            made = await asyncio.to_thread(create, defined, a_capture(space, f"c{number}"))
            await soon(lambda n=number: len(side.started) > n)
            delays.append(side.started_at[f"{made['metadata']['uid']}/uid-web"] - began)
    print(
        f"create to start: median {sorted(delays)[5] * 1000:.0f} ms, worst {max(delays) * 1000:.0f} ms"
    )
    assert sorted(delays)[5] < 0.5


# ------------------------------------------------------------------------------ who may what


async def test_a_capture_reaches_its_own_namespace_alone(
    defined: Plane, space: str, agent: KubeApi, tmp_path: Path
) -> None:
    """Not by naming another, not by a service whose endpoints lie elsewhere, not by a pod on the host's network."""
    side = Pods("n1", "victims/web", f"{space}/other")
    side.targets.append(side.pod(space, "hostly", TargetKind.HOST))
    side.members = {"web"}
    async with running(agent, tmp_path, side):
        create(defined, a_capture(space, "named", target={"pod": "web", "namespace": "victims"}))
        create(defined, a_capture(space, "pointed", target={"service": "mine"}))
        create(defined, a_capture(space, "hosted", target={"pod": "hostly"}))
        named = await soon(phase_is(defined, space, "Refused", "named"))
        pointed = await soon(phase_is(defined, space, "Failed", "pointed"))
        hosted = await soon(phase_is(defined, space, "Refused", "hosted"))
    assert side.started == []
    assert condition(named, "Accepted")["reason"] == "OutsideNamespace"
    assert condition(pointed, "Accepted")["reason"] == "NoSuchService"
    assert condition(hosted, "Accepted")["reason"] == "HostNetwork"


async def test_a_cluster_capture_reaches_nodes_and_namespaces(
    defined: Plane, space: str, agent: KubeApi, tmp_path: Path
) -> None:
    """What a namespaced one may not."""
    side = Pods("n1", f"{space}/web")
    side.targets.append(side.pod("", "", TargetKind.HOST))
    body = {
        "apiVersion": "tripshark.dev/v1alpha1",
        "kind": "ClusterCapture",
        "metadata": {"name": f"{space}-wide"},
        "spec": {"targets": [{"node": "n1"}, {"namespace": space, "pod": "web"}], "after": "0s"},
    }
    async with running(agent, tmp_path, side):
        create(defined, body)
        found = await soon(phase_is(defined, "", "Complete", f"{space}-wide"))
    assert sorted(p["uid"] for p in found["parts"]) == ["host", "uid-web"]


def test_rights_on_one_namespace_are_none_on_another(
    defined: Plane, space: str, tmp_path: Path
) -> None:
    """Who may create Captures in A can do so in A, not in B, and no ClusterCapture, and writes no status."""
    user = f"dev-{uuid.uuid4().hex[:6]}"
    rules = [
        {"apiGroups": ["tripshark.dev"], "resources": ["captures"], "verbs": ["create", "get"]}
    ]
    undo = defined.grant(user, rules, space)
    config = defined.user(user)
    try:
        with defined.namespace() as other:
            file = tmp_path / "c.json"
            file.write_text(json.dumps(a_capture(space)))
            own = kubectl(defined, "create", "-f", str(file), config=config)
            assert own.returncode == 0, own.stderr
            file.write_text(json.dumps(a_capture(other)))
            foreign = kubectl(defined, "create", "-f", str(file), config=config)
            assert "forbidden" in foreign.stderr.lower()
            file.write_text(
                json.dumps(
                    {
                        "apiVersion": "tripshark.dev/v1alpha1",
                        "kind": "ClusterCapture",
                        "metadata": {"name": "x"},
                        "spec": {"targets": [{"node": "n1"}]},
                    }
                )
            )
            wide = kubectl(defined, "create", "-f", str(file), config=config)
            assert "forbidden" in wide.stderr.lower()
    finally:
        undo()


async def test_a_flood_in_one_namespace_is_bounded(
    defined: Plane, space: str, agent: KubeApi, tmp_path: Path
) -> None:
    """Beyond what is allowed at once a request is refused with the reason; another namespace is not touched."""
    with defined.namespace() as other:
        side = Pods("n1", f"{space}/web", f"{other}/web", hold=True)
        async with running(agent, tmp_path, side, ways=replace(HASTY, at_once=2)) as (captures,):
            for number in range(4):
                create(defined, a_capture(space, f"c{number}"))
            create(defined, a_capture(other))
            await soon(lambda: captures._admission.refused == 2)
            await soon(lambda: status(defined, other).get("parts"))
            refused = [
                each
                for each in await soon(lambda: _finished(defined, space, 2))
                if each["phase"] == "Refused"
            ]
            await side.finish()
            await soon(lambda: _finished(defined, space, 4))
        assert len(side.started) == 3
        assert {condition(each, "Accepted")["reason"] for each in refused} == {"TooMany"}
        defined.call("DELETE", f"{GROUP}/namespaces/{other}/captures")


def _finished(plane: Plane, space: str, count: int) -> list[dict[str, Any]] | None:
    items = plane.call("GET", f"{GROUP}/namespaces/{space}/captures")["items"]
    final = [e["status"] for e in items if e.get("status", {}).get("finished")]
    return final if len(final) == count else None


class Heard(KubeApi):
    """A client that notes what it was asked for."""

    heard: set[tuple[str, str]]

    def _stream(self, method: str, path: str, *, params: Any, **more: Any) -> Any:
        asked = Asked.of(method, path, params)
        self.heard.add((asked.verb, asked.resource))
        return super()._stream(method, path, params=params, **more)


async def test_every_right_it_asks_for_is_used(defined: Plane, space: str, tmp_path: Path) -> None:
    """From the ask to the end of its ttl, what is declared suffices (else a step fails) and nothing more is."""
    name = f"agent-{uuid.uuid4().hex[:6]}"
    undo = defined.grant(name, NEEDS)
    side = Pods("n1", f"{space}/web")
    aim = Aim(kind=Aimed.POD, namespace=space, name="web")
    request = FleetRequest(aims=(aim,), t0_ns=time.time_ns(), after_ns=0, ttl_ns=60 * SECOND)
    async with Heard(defined.login(name), timeout_s=30) as api:
        api.heard = set()
        async with running(api, tmp_path, side) as (captures,):
            own = await captures.ask(request)
            wide = await captures.ask(replace(request, wide=True))
            await soon(phase_is(defined, space, "Complete", own))
            await soon(phase_is(defined, "", "Complete", wide))
        async with later(api, tmp_path, side):
            await soon(lambda: not status(defined, space, own) and not status(defined, "", wide))
        used = set(api.heard)
    undo()
    assert used == {(verb, each.resource) for each in DECLARED for verb in each.verbs}


class Later(Now):
    """Two minutes ahead: the shortest ttl is one."""

    def now_ns(self) -> int:
        return super().now_ns() + 120 * SECOND


@contextlib.asynccontextmanager
async def later(api: KubeApi, folder: Path, *sides: Pods) -> AsyncIterator[None]:
    """Controllers whose time has come."""
    tasks = [
        asyncio.create_task(
            Captures(
                api,
                node=side.node,
                clock=Later(),
                local=side,
                asks=FolderAsks(folder / side.node),
                ways=HASTY,
            ).run()
        )
        for side in sides
    ]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


# ------------------------------------------------------------------------------ nobody, nothing, never


async def test_nobody_concerned_is_said_with_a_reason(
    defined: Plane, space: str, agent: KubeApi, tmp_path: Path
) -> None:
    """No such pod; and a node that should answer and does not is named."""
    side = Pods("n1", f"{space}/web")
    async with running(agent, tmp_path, side):
        create(defined, a_capture(space, "nobody", target={"pod": "nobody"}))
        nobody = await soon(phase_is(defined, space, "Failed", "nobody"))
        side.everywhere = (PartKey(node="n9", uid="u9"),)
        create(defined, a_capture(space, "silent", target={"pod": "far"}))
        silent = await soon(phase_is(defined, space, "Failed", "silent"))
    assert condition(nobody, "Accepted")["reason"] == "NoSuchPod"
    assert condition(silent, "Accepted")["reason"] == "NodeSilent"
    assert "n9" in condition(silent, "Accepted")["message"]


@pytest.mark.parametrize(
    ("filter", "phase", "reason"),
    [("nonsense", "Failed", "Failed"), ("busy", "Refused", "Refused")],
)
async def test_a_node_that_cannot_says_why(
    defined: Plane,
    space: str,
    agent: KubeApi,
    tmp_path: Path,
    filter: str,
    phase: str,
    reason: str,
) -> None:
    """A filter that libpcap does not take, a spent budget: in the part and in the condition."""
    side = Pods("n1", f"{space}/web")
    async with running(agent, tmp_path, side):
        create(defined, a_capture(space, filter=filter))
        found = await soon(phase_is(defined, space, phase))
    assert found["parts"][0]["reason"] == reason
    assert found["parts"][0]["message"]


async def test_old_requests_are_not_captured_again(
    defined: Plane, space: str, agent: KubeApi, tmp_path: Path
) -> None:
    """One that is finished stays as it is; one that is older than any history is refused and says so."""
    side = Pods("n1", f"{space}/web")
    create(defined, a_capture(space, "old"))
    created_s = time.time()
    await soon(lambda: time.time() - created_s > 2.1)  # the server's time stamps are whole seconds
    async with running(agent, tmp_path, side, ways=replace(HASTY, reach_ns=SECOND)):
        found = await soon(phase_is(defined, space, "Refused", "old"))
    assert found["parts"][0]["reason"] == "TooOld"
    assert side.started == []


async def test_what_is_finished_goes_after_its_ttl(
    defined: Plane, space: str, agent: KubeApi, tmp_path: Path
) -> None:
    """By whichever node comes first; the shortest ttl is a minute, so the clock of the nodes runs ahead."""
    sides = [Pods("n1", f"{space}/web"), Pods("n2")]
    async with running(agent, tmp_path, *sides):
        create(defined, a_capture(space, ttl="1m"))
        create(defined, a_capture(space, "stays", ttl="1h"))
        await soon(phase_is(defined, space, "Complete"))
        await soon(phase_is(defined, space, "Complete", "stays"))

    async with later(agent, tmp_path, *sides):
        items = f"{GROUP}/namespaces/{space}/captures"
        await soon(
            lambda: (
                [e["metadata"]["name"] for e in defined.call("GET", items)["items"]] == ["stays"]
            )
        )
    assert len(sides[0].started) == 2


async def test_a_deleted_capture_ends_nothing(
    defined: Plane, space: str, agent: KubeApi, tmp_path: Path
) -> None:
    """Who deletes the resource cannot stop evidence from being taken; nobody is told of it any more."""
    side = Pods("n1", f"{space}/web", hold=True)
    async with running(agent, tmp_path, side) as (captures,):
        create(defined, a_capture(space))
        await soon(lambda: status(defined, space).get("parts"))
        defined.call("DELETE", f"{GROUP}/namespaces/{space}/captures/c1")
        await soon(lambda: not captures._running)
        assert [state.stage for state in side.states.values()] == [Stage.CAPTURING]
        create(defined, a_capture(space))
        await soon(lambda: len(side.started) == 2)  # of the same name, but another
        await side.finish()
        await soon(phase_is(defined, space, "Complete"))


# ------------------------------------------------------------------------------ asks


async def test_a_flood_of_alerts_is_no_flood_of_resources(tmp_path: Path) -> None:
    """So many asks about one pod and so many of a node in a minute; the same again is free, and a minute later all is well."""
    from tripshark.cluster.captures_asks import PER_MINUTE, PER_TARGET, Outbox
    from tripshark.errors import TooMany

    clock = Now()
    outbox = Outbox(None, FolderAsks(tmp_path), clock)  # type: ignore[arg-type]  # nothing is sent here

    async def ask(pod: int, number: int) -> str:
        aim = Aim(kind=Aimed.POD, namespace="a", name=f"p{pod}")
        return await outbox.ask(FleetRequest(aims=(aim,), t0_ns=1, alert=f"{pod} {number}"))

    for number in range(PER_TARGET):
        await ask(0, number)
    await ask(0, 0)
    with pytest.raises(TooMany, match="20 about pod a/p0"):
        await ask(0, PER_TARGET)
    for pod in range(1, PER_MINUTE - PER_TARGET + 1):
        await ask(pod, 0)
    with pytest.raises(TooMany, match=f"{PER_MINUTE} within"):
        await ask(10_000, 0)
    assert outbox.refused == 2
    assert len(await FolderAsks(tmp_path).pending()) == PER_MINUTE
    clock.ahead_ns += 61 * 10**9
    await ask(0, PER_TARGET)


async def test_an_ask_that_no_resource_can_say_is_refused_at_once(tmp_path: Path) -> None:
    """Without the server's help; an alert too long to travel stays behind where a rule has decided already."""
    from tripshark.cluster.captures_asks import Outbox

    outbox = Outbox(None, FolderAsks(tmp_path), Now())  # type: ignore[arg-type]  # nothing is sent here
    aim = Aim(kind=Aimed.POD, namespace="a", name="b")
    long = FleetRequest(aims=(aim,), t0_ns=1, alert="x" * 300_000)
    with pytest.raises(BadInput):
        await outbox.ask(long)
    name = await outbox.ask(replace(long, rule="C2"))
    assert await FolderAsks(tmp_path).pending() == [(name, replace(long, rule="C2", alert=""))]
    (tmp_path / "spoiled.json").write_text("{")
    assert len(await FolderAsks(tmp_path).pending()) == 1
    assert (tmp_path / "spoiled.unreadable").exists()
