"""A mirror holds what the server holds, whatever happens to either of them or to the line between."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.cluster.control import MERGE, Plane
from tests.cluster.fake import FakeApi
from tests.cluster.waiting import running, until
from tripshark.cluster.api import KubeApi
from tripshark.cluster.login import in_cluster
from tripshark.cluster.mirror import Mirror
from tripshark.formats import kube
from tripshark.model.pod import PodFacts

PODS = "/api/v1/namespaces/shop/pods"


class Changes(list[tuple[str, str]]):
    """What the mirror told, in order."""

    def __call__(self, old: PodFacts | None, new: PodFacts | None) -> None:
        known = new or old
        assert known is not None
        what = "came" if old is None else "went" if new is None else "changed"
        self.append((what, known.name))


def mirror_of(api: KubeApi, path: str = PODS, **options: Any) -> Mirror[PodFacts]:
    return Mirror(api, path, decode=kube.pod, **{"patience_s": 0.05, **options})


def names(mirror: Mirror[PodFacts]) -> set[str]:
    return {each.name for each in mirror.items.values()}


def pod(node: str = "n1", **meta: Any) -> dict[str, Any]:
    return {"metadata": meta, "spec": {"nodeName": node}}


async def test_it_lists_then_follows(fake_api: FakeApi, fake: KubeApi) -> None:
    """What was there, what comes, what changes in facts, what goes; other changes are no news."""
    fake_api.put(f"{PODS}/a", pod())
    told = Changes()
    mirror = mirror_of(fake, on_change=told)
    async with running(mirror.run()):
        await until(lambda: fake_api.watching, "the watch")
        assert mirror.synced
        fake_api.put(f"{PODS}/b", pod())
        fake_api.change(f"{PODS}/a", {"metadata": {"labels": {"x": "y"}}})
        fake_api.change(f"{PODS}/a", {"status": {"conditions": [{"type": "Ready"}]}})
        fake_api.remove(f"{PODS}/b")
        await until(lambda: ("went", "b") in told, "the end of b")
    assert told == [("came", "a"), ("came", "b"), ("changed", "a"), ("went", "b")]
    assert mirror.relists == 1


async def test_a_broken_watch_goes_on_where_it_was(fake_api: FakeApi, fake: KubeApi) -> None:
    """No list is needed, and nothing is missed."""
    fake_api.put(f"{PODS}/a", pod())
    told = Changes()
    mirror = mirror_of(fake, on_change=told)
    async with running(mirror.run()):
        await until(lambda: fake_api.watching, "the watch")
        fake_api.drop_watches()
        await until(lambda: not fake_api.watching, "its end")
        fake_api.put(f"{PODS}/b", pod())
        fake_api.remove(f"{PODS}/a")
        await until(lambda: names(mirror) == {"b"}, "what happened meanwhile")
    assert told == [("came", "a"), ("came", "b"), ("went", "a")]
    assert mirror.relists == 1


@pytest.mark.parametrize("fault", ["garbage", "half_lines"])
async def test_what_is_no_event_is_asked_for_again(
    fake_api: FakeApi, fake: KubeApi, fault: str
) -> None:
    """A line of rubbish, or half a line, costs one connection and no news."""
    fake_api.put(f"{PODS}/a", pod())
    mirror = mirror_of(fake)
    async with running(mirror.run()):
        await until(lambda: fake_api.watching, "the watch")
        setattr(fake_api.faults, fault, 1)
        fake_api.put(f"{PODS}/b", pod())
        await until(lambda: names(mirror) == {"a", "b"}, "the news")
    assert mirror.failures == 1


async def test_versions_that_are_gone_are_listed_afresh(fake_api: FakeApi, fake: KubeApi) -> None:
    """After a compaction what went meanwhile goes, what came comes, what was made again is another."""
    fake_api.put(f"{PODS}/a", pod())
    fake_api.put(f"{PODS}/again", pod())
    told = Changes()
    mirror = mirror_of(fake, on_change=told)
    async with running(mirror.run()):
        await until(lambda: fake_api.watching, "the watch")
        fake_api.faults.delay_s = 0.3
        fake_api.drop_watches()
        await until(lambda: not fake_api.watching, "its end")
        fake_api.remove(f"{PODS}/a")
        fake_api.remove(f"{PODS}/again")
        fake_api.put(f"{PODS}/again", pod(uid="another"))
        fake_api.put(f"{PODS}/b", pod())
        fake_api.compact()
        fake_api.faults.delay_s = 0
        await until(lambda: names(mirror) == {"again", "b"}, "the present")
        assert "another" in mirror.items
    assert mirror.relists == 2
    assert sorted(told[2:]) == [("came", "again"), ("came", "b"), ("went", "a"), ("went", "again")]


async def test_a_watch_that_is_gone_at_once_does_not_spin(
    fake_api: FakeApi, fake: KubeApi
) -> None:
    """Again and again 410: lists come with patience in between, and at last it works."""
    fake_api.put(f"{PODS}/a", pod())
    fake_api.faults.gone_watches = 3
    mirror = mirror_of(fake, patience_s=0.2)
    loop = asyncio.get_running_loop()
    began = loop.time()
    async with running(mirror.run()):
        await until(lambda: fake_api.watching and not mirror.problem, "peace")
    assert mirror.relists == 4
    assert loop.time() - began > 0.2 + 0.4 + 0.8


async def test_a_bookmark_moves_the_version(fake_api: FakeApi, fake: KubeApi) -> None:
    """After a quiet time the watch goes on from the bookmark, whatever was compacted before."""
    fake_api.put(f"{PODS}/a", pod())
    mirror = mirror_of(fake)
    async with running(mirror.run()):
        await until(lambda: fake_api.watching, "the watch")
        fake_api.put("/api/v1/namespaces/other/pods/x", pod())
        fake_api.bookmark()
        await until(lambda: mirror.state()["heard_age_s"] is not None, "a word")
        await until(lambda: mirror._version == str(fake_api._version), "the bookmark")
        fake_api.compact()
        fake_api.drop_watches()
        fake_api.put(f"{PODS}/b", pod())
        await until(lambda: "b" in names(mirror), "b")
    assert mirror.relists == 1


async def test_many_objects_never_are_one_answer(fake_api: FakeApi) -> None:
    """Where the whole list would be longer than an answer may be, it comes in pages."""
    for number in range(1200):
        fake_api.put(f"{PODS}/p{number}", pod(labels={"padding": "x" * 100}))
    async with KubeApi(fake_api.login(), max_body=200_000) as api:
        mirror = mirror_of(api)
        async with running(mirror.run()):
            await until(lambda: mirror.synced, "the list")
        assert len(mirror.items) == 1200
    assert len(fake_api.bodies) == 6  # one that was not read to its end, five of at most 250
    assert max(fake_api.bodies[1:]) < 200_000


async def test_a_list_that_breaks_off_drops_nobody(fake_api: FakeApi, fake: KubeApi) -> None:
    """Only a whole list says who is gone."""
    fake_api.put(f"{PODS}/a", pod())
    told = Changes()
    mirror = mirror_of(fake, on_change=told)
    async with running(mirror.run()):
        await until(lambda: fake_api.watching, "the watch")
        fake_api.faults.huge_lists = 2
        fake_api.compact()
        fake_api.drop_watches()
        fake_api.put(f"{PODS}/b", pod())
        fake_api.compact()
        await until(lambda: "b" in names(mirror), "b")
    assert told == [("came", "a"), ("came", "b")]


async def test_a_busy_or_broken_server_is_waited_for(fake_api: FakeApi, fake: KubeApi) -> None:
    """429 with Retry-After and 500 are weather."""
    fake_api.put(f"{PODS}/a", pod())
    fake_api.faults.busy, fake_api.faults.broken = 2, 2
    mirror = mirror_of(fake)
    async with running(mirror.run()):
        await until(lambda: names(mirror) == {"a"}, "a")
        await until(lambda: mirror.problem is None, "peace")


async def test_a_slow_server_is_still_a_server(fake_api: FakeApi) -> None:
    """Answers that come later than we wait are asked for again; the next may be quicker."""
    fake_api.put(f"{PODS}/a", pod())
    fake_api.faults.delay_s = 1.0
    async with KubeApi(fake_api.login(), timeout_s=0.3) as api:
        mirror = mirror_of(api)
        async with running(mirror.run()):
            await until(lambda: mirror.failures >= 1, "impatience")
            assert "did not answer" in str(mirror.problem)
            fake_api.faults.delay_s = 0
            await until(lambda: names(mirror) == {"a"}, "a")


async def test_what_cannot_be_read_is_counted_and_harms_nobody(
    fake_api: FakeApi, fake: KubeApi
) -> None:
    """Neither in the list nor in the watch; the others are known all the same."""
    fake_api.put(f"{PODS}/bad", {"metadata": {"labels": ["no"]}, "spec": {"nodeName": "n"}})
    fake_api.put(f"{PODS}/worse", {"metadata": {"uid": ""}, "spec": {}})
    fake_api.put(f"{PODS}/good", pod())
    mirror = mirror_of(fake)
    async with running(mirror.run()):
        await until(lambda: fake_api.watching, "the watch")
        fake_api.change(f"{PODS}/good", {"spec": {"nodeName": ["no"]}})
        fake_api.put(f"{PODS}/b", pod())
        await until(lambda: "b" in names(mirror), "b")
    assert names(mirror) == {"good", "b"}
    assert mirror.unreadable == 3
    assert mirror.relists == 1


async def test_a_resource_nobody_serves_is_asked_for_now_and_then(
    fake_api: FakeApi, fake: KubeApi
) -> None:
    """Until its definition is installed."""
    mirror = mirror_of(fake, "/apis/example.dev/v1/things", denied_s=0.1)
    async with running(mirror.run()):
        await until(lambda: mirror.failures >= 2, "patience")
        assert "custom resource definition" in str(mirror.problem)
        fake_api.serve_kind("example.dev", "v1", "things", "Thing")
        await until(lambda: mirror.synced and not mirror.problem, "things")


@pytest.mark.parametrize("verb", ["list", "watch"])
async def test_what_is_not_permitted_is_said_once_with_the_rule(
    fake_api: FakeApi, fake: KubeApi, verb: str, caplog: pytest.LogCaptureFixture
) -> None:
    """… and tried on, slowly, until it is."""
    fake_api.put(f"{PODS}/a", pod())
    fake_api.faults.deny.add((verb, "pods"))
    mirror = mirror_of(fake, denied_s=0.1)
    async with running(mirror.run()):
        await until(lambda: mirror.failures >= 3, "three tries")
        assert mirror.state()["denied"]
        rule = f'{{apiGroups: [""], resources: ["pods"], verbs: ["{verb}"]}}'
        assert caplog.text.count(rule) == 1
        fake_api.faults.deny.clear()
        await until(lambda: names(mirror) == {"a"} and not mirror.problem, "the right")
        assert not mirror.state()["denied"]


# ------------------------------------------------------------------------------ the real server


async def test_a_real_server_may_be_killed_and_its_past_compacted(real_api: Plane) -> None:
    """kill -9 amid a watch, changes by others since, etcd compacted: the mirror has the present again by itself."""
    with real_api.namespace() as space:
        real_api.pod(space, "stays")
        real_api.pod(space, "goes")
        async with KubeApi(real_api.login()) as api:
            told = Changes()
            mirror = mirror_of(api, f"/api/v1/namespaces/{space}/pods", on_change=told)
            async with running(mirror.run()):
                await until(lambda: mirror.watches and mirror.synced, "the watch")
                await asyncio.to_thread(real_api.kill)
                await until(lambda: mirror.failures >= 2, "its loss")
                assert mirror.problem is not None
                assert "away" in str(mirror.problem)
                assert names(mirror) == {"stays", "goes"}
                await asyncio.to_thread(real_api.start)
                await asyncio.to_thread(real_api.delete_pod, space, "goes")
                await asyncio.to_thread(real_api.pod, space, "comes")
                await asyncio.to_thread(real_api.compact)
                await until(lambda: names(mirror) == {"stays", "comes"}, "the present")
                await until(lambda: mirror.problem is None, "peace")
        assert told.count(("went", "goes")) == 1
        assert told.count(("came", "comes")) == 1
        assert ("went", "stays") not in told


async def test_a_version_that_etcd_forgot_is_listed_afresh(real_api: Plane) -> None:
    """A real 410 in answer to a watch: the server keeps no memory of its own of events."""
    with real_api.namespace() as space:
        path = f"/api/v1/namespaces/{space}/events"
        event = {
            "involvedObject": {"kind": "Pod", "name": "p", "namespace": space},
            "reason": "R",
        }
        async with KubeApi(real_api.login()) as api:
            mirror: Mirror[kube.Meta] = Mirror(api, path, decode=kube.meta, watch_s=1)
            async with running(mirror.run()):
                await until(lambda: mirror.synced, "the list")
                mirror._version = "1"  # as if it had slept through the compaction
                await asyncio.to_thread(
                    real_api.call, "POST", path, {**event, "metadata": {"name": "e"}}
                )
                await asyncio.to_thread(real_api.compact)
                mirror._version = "1"
                await until(lambda: mirror.relists >= 2, "another list")
                await until(lambda: [each.name for each in mirror.items.values()] == ["e"], "e")


async def test_a_right_that_is_taken_away_and_given_back(real_api: Plane) -> None:
    """A real service account: what it knew stays, what is missing is named, and it goes on when it may again."""
    with real_api.namespace() as space:
        folder = real_api.service_account(space, "agent")
        user = f"system:serviceaccount:{space}:agent"
        rules = [{"apiGroups": [""], "resources": ["pods"], "verbs": ["list", "watch"]}]
        revoke = real_api.grant(user, rules, namespace=space)
        real_api.pod(space, "a")
        host, _, port = real_api.url.removeprefix("https://").rpartition(":")
        async with KubeApi(in_cluster(host, port, folder)) as api:
            path = f"/api/v1/namespaces/{space}/pods"
            mirror = mirror_of(api, path, watch_s=1, denied_s=0.2)
            async with running(mirror.run()):
                await until(lambda: names(mirror) == {"a"}, "a")
                await asyncio.to_thread(revoke)
                await until(lambda: mirror.state()["denied"], "the refusal")
                assert 'verbs: ["' in str(mirror.problem)
                assert f"a Role in {space}" in str(mirror.problem)
                assert names(mirror) == {"a"}
                await asyncio.to_thread(real_api.pod, space, "b")
                revoke = await asyncio.to_thread(real_api.grant, user, rules, space)
                await until(lambda: names(mirror) == {"a", "b"}, "b")
                # a token that was renewed on disk is used from then on
                fresh = await asyncio.to_thread(real_api.service_account, space, "agent")
                assert (fresh / "token").read_text() in await api.login.credential.header()
                await asyncio.to_thread(
                    real_api.call,
                    "PATCH",
                    f"{path}/b",
                    {"metadata": {"labels": {"x": "y"}}},
                    MERGE,
                )
                await until(lambda: {"x": "y"} in [m.labels for m in mirror.items.values()], "x")
        revoke()
