"""Incidents are told as events of pods: once, counted, never a storm, never a failure of whoever tells."""

from __future__ import annotations

import time

from tests.cluster.control import Plane
from tests.cluster.fake import FakeApi
from tripshark.cluster.api import KubeApi
from tripshark.cluster.events import MAX_MESSAGE, Events
from tripshark.formats import kube
from tripshark.model.pod import PodFacts

EVENTS = "/api/v1/namespaces/shop/events"


class Now:
    """The machine's clock."""

    def now_ns(self) -> int:
        return time.time_ns()


POD = PodFacts(namespace="shop", name="web", uid="u1", node="n1")


async def test_the_same_again_is_counted(fake_api: FakeApi, fake: KubeApi) -> None:
    """One event with a count; other words are another event; one that has expired is told anew."""
    events = Events(fake, Now(), node="n1")
    for _ in range(3):
        assert await events.tell(POD, "CaptureSealed", "Incident A was sealed", warning=True)
    assert await events.tell(POD, "CaptureSealed", "Incident B was sealed")
    first, second = fake_api.all(EVENTS)
    assert (first["count"], second["count"]) == (3, 1)
    assert (first["type"], second["type"]) == ("Warning", "Normal")
    assert first["involvedObject"] == {
        "apiVersion": "v1",
        "kind": "Pod",
        "namespace": "shop",
        "name": "web",
        "uid": "u1",
    }
    fake_api.remove(f"{EVENTS}/{first['metadata']['name']}")
    assert await events.tell(POD, "CaptureSealed", "Incident A was sealed", warning=True)
    assert len(fake_api.all(EVENTS)) == 2


async def test_a_storm_is_no_storm_of_events(fake_api: FakeApi, fake: KubeApi) -> None:
    """A pod has a few at once, then one now and then; what was not told is counted."""
    events = Events(fake, Now(), node="n1")
    told = [await events.tell(POD, "Capture", f"Incident {n}") for n in range(100)]
    assert sum(told) == events.told == len(fake_api.all(EVENTS)) == 10
    assert events.suppressed == 90


async def test_words_of_others_are_tamed(fake_api: FakeApi, fake: KubeApi) -> None:
    """No control characters, no more than the server takes."""
    events = Events(fake, Now(), node="n1")
    assert await events.tell(POD, "Capture", "a\x1b[31m\nb" + "x" * 5000)
    (event,) = fake_api.all(EVENTS)
    assert event["message"].startswith("a [31m b")
    assert len(event["message"]) == MAX_MESSAGE


async def test_who_may_not_tell_goes_on(fake_api: FakeApi, fake: KubeApi) -> None:
    """The reason stands in the state."""
    fake_api.faults.deny.add(("create", "events"))
    events = Events(fake, Now(), node="n1")
    assert not await events.tell(POD, "Capture", "x")
    assert 'resources: ["events"], verbs: ["create"]' in str(events.state()["problem"])


async def test_the_real_server_takes_them(real_api: Plane, real: KubeApi) -> None:
    """With names at the limit, and counted there, too."""
    with real_api.namespace() as space:
        made = kube.pod(b'{"metadata":{"name":"%s"},"spec":{}}' % (b"p" * 253))
        pod = PodFacts(namespace=space, name=made.name, uid="u1")
        events = Events(real, Now(), node="n1")
        for _ in range(2):
            assert await events.tell(pod, "CaptureSealed", "Incident A … was sealed")
        (event,) = [each async for each in real.list(f"/api/v1/namespaces/{space}/events")]
        assert event["count"] == 2
        assert event["source"] == {"component": "tripshark", "host": "n1"}
