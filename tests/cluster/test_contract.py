"""What a client relies on, asked of the real API server and of the fake one alike."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import aclosing

import msgspec
import pytest

from tripshark.cluster.answers import Object
from tripshark.cluster.api import JSON_PATCH, STRATEGIC, KubeApi
from tripshark.cluster.problems import Conflict, Exists, Gone
from tripshark.errors import BadInput, NotFound, TooLarge


@pytest.fixture
async def space(any_api: KubeApi) -> AsyncIterator[str]:
    """The path of a namespace of one's own."""
    name = f"t-{uuid.uuid4().hex[:8]}"
    await any_api.create("/api/v1/namespaces", {"metadata": {"name": name}})
    yield f"/api/v1/namespaces/{name}"
    async for each in any_api.list(f"/api/v1/namespaces/{name}/pods"):
        await any_api.delete(
            f"/api/v1/namespaces/{name}/pods/{each['metadata']['name']}", grace_s=0
        )
    await any_api.delete(f"/api/v1/namespaces/{name}")


def config(name: str, data: dict[str, str] | None = None, **labels: str) -> Object:
    return {"metadata": {"name": name, "labels": labels}, "data": data or {}}


def pod(name: str, node: str = "n1", **labels: str) -> Object:
    return {
        "metadata": {"name": name, "labels": labels},
        "spec": {
            "nodeName": node,
            "automountServiceAccountToken": False,
            "containers": [{"name": "c", "image": "x"}],
        },
    }


async def test_what_is_created_has_a_uid_and_a_version_and_is_found(
    any_api: KubeApi, space: str
) -> None:
    """create, get, list and delete agree."""
    made = await any_api.create(f"{space}/configmaps", config("a", {"k": "1"}))
    assert made["metadata"]["uid"]
    assert made["metadata"]["resourceVersion"]
    assert (await any_api.get(f"{space}/configmaps/a"))["data"] == {"k": "1"}
    assert [each["metadata"]["name"] async for each in any_api.list(f"{space}/configmaps")] == [
        "a"
    ]
    await any_api.delete(f"{space}/configmaps/a")
    with pytest.raises(NotFound):
        await any_api.get(f"{space}/configmaps/a")


async def test_each_refusal_has_its_own_kind(any_api: KubeApi, space: str) -> None:
    """Twice the same name, a name nobody may have, a resource nobody serves, a stale version, another's uid."""
    made = await any_api.create(f"{space}/configmaps", config("a"))
    with pytest.raises(Exists):
        await any_api.create(f"{space}/configmaps", config("a"))
    with pytest.raises(BadInput):
        await any_api.create(f"{space}/configmaps", config("Not_A_Name"))
    with pytest.raises(NotFound, match="does not serve"):
        await any_api.get("/apis/nobody.example/v1/things/a")
    await any_api.replace(f"{space}/configmaps/a", {**made, "data": {"only": "2"}})
    with pytest.raises(Conflict):
        await any_api.replace(f"{space}/configmaps/a", made)
    with pytest.raises(Conflict):
        await any_api.delete(f"{space}/configmaps/a", uid="somebody-else")


async def test_patches_merge_delete_and_hold_to_a_version(any_api: KubeApi, space: str) -> None:
    """null deletes a key, lists of steps are tested first, a version that is not current conflicts."""
    made = await any_api.create(f"{space}/configmaps", config("a", {"only": "1", "x": "2"}))
    path = f"{space}/configmaps/a"
    assert (await any_api.patch(path, {"data": {"only": None, "m": "1"}}))["data"] == {
        "x": "2",
        "m": "1",
    }
    steps = [
        {"op": "test", "path": "/data/m", "value": "1"},
        {"op": "replace", "path": "/data/m", "value": "9"},
    ]
    assert (await any_api.patch(path, steps, kind=JSON_PATCH))["data"]["m"] == "9"
    with pytest.raises(BadInput):
        await any_api.patch(path, steps, kind=JSON_PATCH)
    stale = {"metadata": {"resourceVersion": made["metadata"]["resourceVersion"]}, "data": {}}
    with pytest.raises(Conflict):
        await any_api.patch(path, {**stale, "data": {"z": "1"}})
    assert (await any_api.patch(path, {"data": {"s": "1"}}, kind=STRATEGIC))["data"]["s"] == "1"


async def test_server_side_apply_makes_what_is_not_there(any_api: KubeApi, space: str) -> None:
    """The same call creates first and merges later."""
    body: Object = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "s"}}
    await any_api.apply(f"{space}/configmaps/s", {**body, "data": {"a": "1"}})
    again = await any_api.apply(f"{space}/configmaps/s", {**body, "data": {"a": "2"}}, force=True)
    assert again["data"] == {"a": "2"}


async def test_status_and_spec_are_written_apart(any_api: KubeApi, space: str) -> None:
    """A write to one leaves the other alone."""
    made = await any_api.create(f"{space}/pods", {**pod("p"), "status": {"phase": "Running"}})
    assert made["status"]["phase"] == "Pending"
    path = f"{space}/pods/p"
    assert (await any_api.apply_status(path, {"phase": "Running"}))["status"]["phase"] == "Running"
    kept = await any_api.patch(
        path, {"status": {"phase": "Failed"}, "metadata": {"labels": {"a": "b"}}}
    )
    assert kept["status"]["phase"] == "Running"
    assert kept["metadata"]["labels"] == {"a": "b"}
    with pytest.raises(Conflict):
        await any_api.apply_status(
            path, {"phase": "Failed"}, version=made["metadata"]["resourceVersion"]
        )


async def test_selectors_choose(any_api: KubeApi, space: str) -> None:
    """By label, by set, by field."""
    await any_api.create(f"{space}/pods", pod("p1", app="x"))
    await any_api.create(f"{space}/pods", pod("p2", "n2", app="z"))

    async def names(**params: str) -> list[str]:
        return [
            each["metadata"]["name"] async for each in any_api.list(f"{space}/pods", params=params)
        ]

    assert await names(labelSelector="app=x") == ["p1"]
    assert await names(labelSelector="app in (x,z),app!=x") == ["p2"]
    assert await names(labelSelector="nothing") == []
    assert await names(fieldSelector="spec.nodeName=n2") == ["p2"]
    await any_api.apply_status(
        f"{space}/pods/p1", {"podIP": "10.1.1.1", "podIPs": [{"ip": "10.1.1.1"}]}
    )
    assert await names(fieldSelector="status.podIP=10.1.1.1") == ["p1"]


async def test_a_list_in_pages_is_the_whole_list(any_api: KubeApi, space: str) -> None:
    """Every object once, in pages no longer than asked for, all of one version."""
    for number in range(7):
        await any_api.create(f"{space}/configmaps", config(f"c{number}"))
    pages = [each async for each in any_api.pages(f"{space}/configmaps", page=3)]
    assert [len(each.items) for each in pages] == [3, 3, 1]
    assert len({each.version for each in pages}) == 1


async def test_a_watch_tells_of_changes_after_a_version_and_ends_in_time(
    any_api: KubeApi, space: str
) -> None:
    """ADDED, MODIFIED, DELETED, also where an object only enters or leaves the selection."""
    (page,) = [each async for each in any_api.pages(f"{space}/pods")]
    seen: list[tuple[str, str]] = []

    selector = {"labelSelector": "app=x"}

    async def look() -> None:
        async with aclosing(
            any_api.watch(f"{space}/pods", page.version, params=selector, seconds=60)
        ) as events:
            async for event in events:
                meta = msgspec.json.decode(event.object)["metadata"]
                going = event.type == "MODIFIED" and "deletionTimestamp" in meta
                if event.type != "BOOKMARK" and not going:
                    seen.append((event.type, meta["name"]))
                if seen[-1:] == [("DELETED", "p1")]:
                    return

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(look())
        await any_api.create(f"{space}/pods", pod("p1", app="x"))
        await any_api.create(f"{space}/pods", pod("p2", app="other"))
        await any_api.patch(f"{space}/pods/p1", {"metadata": {"annotations": {"a": "b"}}})
        await any_api.patch(f"{space}/pods/p2", {"metadata": {"labels": {"app": "x"}}})
        await any_api.patch(f"{space}/pods/p2", {"metadata": {"labels": {"app": "y"}}})
        await any_api.delete(f"{space}/pods/p1", grace_s=0)
    assert seen == [
        ("ADDED", "p1"),
        ("MODIFIED", "p1"),
        ("ADDED", "p2"),
        ("DELETED", "p2"),
        ("DELETED", "p1"),
    ]


async def test_a_watch_ends_when_it_was_asked_to(any_api: KubeApi, space: str) -> None:
    """By itself, in good order."""
    (page,) = [each async for each in any_api.pages(f"{space}/configmaps")]
    opened: list[bool] = []
    async with asyncio.timeout(30):
        async for event in any_api.watch(
            f"{space}/configmaps", page.version, seconds=1, on_open=lambda: opened.append(True)
        ):
            assert event.type == "BOOKMARK"
    assert opened == [True]


async def test_a_version_from_before_the_servers_memory_is_gone(
    request: pytest.FixtureRequest, any_api: KubeApi, space: str
) -> None:
    """410, whatever way the server says it, and never silence."""
    name = "real_api" if any_api.login.trust else "fake_api"
    request.getfixturevalue(name).compact()
    # the real server keeps no memory of its own of events: what etcd forgot is forgotten
    with pytest.raises(Gone):
        async for _ in any_api.watch(f"{space}/events", "1", seconds=5):
            pass


async def test_an_answer_longer_than_allowed_is_not_read(any_api: KubeApi, space: str) -> None:
    """The rest of it is never taken into memory."""
    await any_api.create(f"{space}/configmaps", config("big", {"x": "y" * 100_000}))
    async with KubeApi(any_api.login, max_body=50_000) as small:
        with pytest.raises(TooLarge):
            await small.get(f"{space}/configmaps/big")
