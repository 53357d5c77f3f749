"""What goes wrong between us and a server comes out as one of our own errors, after as much patience as makes sense."""

from __future__ import annotations

import asyncio
import socket

import pytest

from tests.cluster.fake import FakeApi
from tests.cluster.waiting import running, until
from tripshark.cluster.api import Asked, KubeApi
from tripshark.cluster.login import Fixed, Login
from tripshark.cluster.problems import Exists, NotPermitted, Unsent
from tripshark.errors import BadInput, Denied, TooMany, Transient

NODES = "/api/v1/nodes"


@pytest.mark.parametrize(
    ("method", "path", "params", "said"),
    [
        ("GET", "/api/v1/pods", {}, ("list", "", "pods", "", "")),
        ("GET", "/api/v1/pods", {"watch": "1"}, ("watch", "", "pods", "", "")),
        ("GET", "/api/v1/namespaces", {}, ("list", "", "namespaces", "", "")),
        ("GET", "/api/v1/namespaces/shop", {}, ("get", "", "namespaces", "", "shop")),
        ("GET", "/api/v1/namespaces/shop/pods/web", {}, ("get", "", "pods", "shop", "web")),
        (
            "PATCH",
            "/apis/tripshark.dev/v1alpha1/namespaces/shop/captures/c/status",
            {},
            ("patch", "tripshark.dev", "captures/status", "shop", "c"),
        ),
        (
            "POST",
            "/apis/apps/v1/namespaces/shop/deployments",
            {},
            ("create", "apps", "deployments", "shop", ""),
        ),
        ("DELETE", "/api/v1/nodes/n1", {}, ("delete", "", "nodes", "", "n1")),
        ("GET", "/version", {}, ("list", "", "", "", "")),
        ("GET", "", {}, ("list", "", "", "", "")),
    ],
)
def test_a_request_in_the_words_of_rbac(
    method: str, path: str, params: dict[str, str], said: tuple[str, ...]
) -> None:
    """Verb, group, resource with its part, namespace and name."""
    asked = Asked.of(method, path, params)
    assert (asked.verb, asked.group, asked.resource, asked.namespace, asked.name) == said
    assert asked.verb in str(asked)


async def test_a_busy_server_gets_the_time_it_asks_for(fake_api: FakeApi, fake: KubeApi) -> None:
    """429 is repeated whatever was asked; who has no more tries hears how long to wait."""
    fake_api.faults.busy, fake_api.faults.retry_after = 2, "0.2"
    loop = asyncio.get_running_loop()
    began = loop.time()
    await fake.create(NODES, {"metadata": {"name": "n"}})
    assert loop.time() - began > 0.4
    fake_api.faults.busy, fake_api.faults.retry_after = 1, "7"
    async with KubeApi(fake_api.login(), tries=1) as impatient:
        with pytest.raises(TooMany) as busy:
            await impatient.get(f"{NODES}/n")
    assert busy.value.after == 7


async def test_what_may_have_been_done_is_not_done_twice(fake_api: FakeApi, fake: KubeApi) -> None:
    """A create that the server failed at is not repeated; everything else is."""
    fake_api.faults.broken = 1
    with pytest.raises(Transient):
        await fake.create(NODES, {"metadata": {"name": "n"}})
    assert fake_api.count("create", "nodes") == 1
    await fake.create(NODES, {"metadata": {"name": "n"}})
    fake_api.faults.broken = 2
    await fake.patch(f"{NODES}/n", {"metadata": {"labels": {"a": "b"}}})
    fake_api.faults.broken = 2
    assert (await fake.get(f"{NODES}/n"))["metadata"]["labels"] == {"a": "b"}
    with pytest.raises(Exists):
        await fake.create(NODES, {"metadata": {"name": "n"}})


async def test_a_server_that_is_not_there(fake_api: FakeApi) -> None:
    """Nothing was said to it: `Unsent`, which whoever creates may repeat."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))  # and never listens
        login = Login(
            server=f"http://127.0.0.1:{held.getsockname()[1]}", credential=Fixed(), trust=None
        )
        async with KubeApi(login, tries=2) as api:
            with pytest.raises(Unsent, match="away"):
                await api.create(NODES, {"metadata": {"name": "n"}})
            assert api.failures == 2


async def test_a_server_that_says_nothing_is_not_waited_for_for_ever(fake_api: FakeApi) -> None:
    """Within the time that was given, for all of the answer and not for each byte of it."""
    fake_api.faults.delay_s = 1
    async with KubeApi(fake_api.login(), timeout_s=0.2, tries=2) as api:
        with pytest.raises(Transient, match=r"did not answer within 0.2 s"):
            await api.get(f"{NODES}/n")
    fake_api.faults.delay_s = 0


async def test_a_refusal_names_the_rule(fake_api: FakeApi, fake: KubeApi) -> None:
    """As it is written into a role."""
    fake_api.faults.deny.add(("patch", "nodes/status"))
    fake_api.put(f"{NODES}/n", {})
    with pytest.raises(NotPermitted) as denied:
        await fake.apply_status(f"{NODES}/n", {"phase": "x"})
    assert isinstance(denied.value, Denied)
    assert denied.value.http_status == 403
    rule = '{apiGroups: [""], resources: ["nodes/status"], verbs: ["patch"]}'
    assert denied.value.hint == f"missing from a ClusterRole: {rule}"
    assert (denied.value.verb, denied.value.resource) == ("patch", "nodes/status")


async def test_a_path_that_is_none(fake: KubeApi) -> None:
    """Is no request."""
    with pytest.raises(BadInput, match="no path"):
        await fake.get("/api/v1/\x00")


async def test_closing_ends_what_is_under_way(fake_api: FakeApi) -> None:
    """A watch hears that its connection is gone."""
    api = KubeApi(fake_api.login())
    ended: list[str] = []
    closing = asyncio.Event()

    async def look() -> None:
        while True:
            try:
                async for _ in api.watch("/api/v1/pods", "", seconds=60):
                    pass
            except Transient as problem:
                if closing.is_set():
                    ended.append(problem.message)
                    return
            await asyncio.sleep(0.02)  # the server has only just begun

    async with running(look()):
        await until(lambda: fake_api.watching, "the watch")
        closing.set()
        await api.close()
        await until(lambda: ended, "its end")
