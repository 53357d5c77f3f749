"""What is remembered of sandboxes: the living as their runtimes tell, the dead for a while."""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace

import pytest

from tripshark.errors import BadInput
from tripshark.model.pod import Container, Sandbox
from tripshark.scout import book as book_module
from tripshark.scout.book import Book

SECOND = 1_000_000_000
ID, OTHER = "a" * 64, "b" * 64


class Clock:
    def __init__(self) -> None:
        self.ns = 1_000 * SECOND

    def __call__(self) -> int:
        return self.ns


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def book(clock: Clock) -> Book:
    return Book(tombstone_ns=600 * SECOND, now=clock)


def pod(
    id: str = ID, *, inode: int = 7, gone_ns: int = 0, containers: tuple[str, ...] = ()
) -> Sandbox:
    made = tuple(Container(id=each, pid=3) for each in containers)
    return Sandbox(
        id=id, runtime="containerd", pod=id[:3], inode=inode, gone_ns=gone_ns, containers=made
    )


def test_the_dead_are_remembered_for_a_while(book: Book, clock: Clock) -> None:
    """A pod that is listed no more has died now, and is forgotten after the tombstone time."""
    book.take("one", [pod(containers=("c1",))])
    clock.ns += SECOND
    book.take("one", [])
    (dead,) = book.sandboxes()
    assert (dead.gone_ns, dead.pid, dead.containers[0].ended_ns) == (clock.ns, 0, clock.ns)
    assert book.find("c1") == dead
    clock.ns += 600 * SECOND
    assert book.sandboxes() == ()


def test_a_runtime_that_keeps_listing_the_dead_changes_nothing(book: Book, clock: Clock) -> None:
    """Listed as dead again and again, it is one tombstone with the first time, and none after its time."""
    book.take("one", [pod()])
    gone = pod(gone_ns=clock.ns)
    assert book.take("one", [gone])
    edition = book.edition
    clock.ns += SECOND
    assert not book.take("one", [gone])
    assert book.edition == edition
    clock.ns += 700 * SECOND
    book.take("one", [gone])
    assert book.sandboxes() == ()


def test_a_new_namespace_is_a_new_life(book: Book) -> None:
    """The same id with another inode: the life before it is dead."""
    book.take("one", [pod(inode=7)])
    book.take("one", [pod(inode=8)])
    assert [(each.inode, bool(each.gone_ns)) for each in book.sandboxes()] == [
        (8, False),
        (7, True),
    ]


def test_a_container_that_its_runtime_removed_is_found_for_a_while(
    book: Book, clock: Clock
) -> None:
    """A crash loop's earlier containers stay with their pod until the tombstone time is over."""
    book.take("one", [pod(containers=("c1",))])
    clock.ns += SECOND
    book.take("one", [pod(containers=("c2",))])
    found = book.find("c1")
    assert found is not None
    assert [(each.id, each.ended_ns) for each in found.containers] == [("c1", clock.ns), ("c2", 0)]
    clock.ns += 601 * SECOND
    book.take("one", [pod(containers=("c2",))])
    assert book.find("c1") is None


def test_two_runtimes_that_tell_of_one_sandbox_are_joined(book: Book) -> None:
    """The one that knows the pod names it, the other adds the process and the namespace."""
    book.take("docker", [replace(pod(containers=("c1",)), pid=9)])
    shim = Sandbox(
        id=ID,
        runtime="docker",
        namespace="shop",
        pod="checkout",
        uid="u",
        containers=(Container(id="c1", name="main"),),
    )
    book.take("cri-dockerd", [shim])
    (joined,) = book.sandboxes()
    assert (joined.pod, joined.uid, joined.pid, joined.inode) == ("checkout", "u", 9, 7)
    assert joined.containers == (Container(id="c1", name="main", pid=3),)


def test_doubtful_digits_are_refused(book: Book) -> None:
    """Two that begin with them; but the living are preferred to the dead."""
    book.take("one", [pod("ab" + "1" * 62), pod("ab" + "2" * 62)])
    with pytest.raises(BadInput):
        book.find("ab")
    book.take("one", [pod("ab" + "2" * 62)])
    found = book.find("ab")
    assert found is not None
    assert not found.gone_ns


def test_memory_is_bounded(book: Book, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under endless churn the oldest dead go first, and are counted."""
    monkeypatch.setattr(book_module, "MAX_GONE", 50)
    for n in range(200):
        clock.ns += 1
        book.take("one", [pod(f"{n:064x}", inode=n + 1)])
    assert len(book.sandboxes()) == 51
    assert book.forgotten == 149


def test_churn_is_told_truly(book: Book, clock: Clock) -> None:
    """Whatever comes and goes: who is listed lives, who was is dead, every change is a new edition."""
    choose = random.Random(1)
    known: set[str] = set()
    for _ in range(300):
        clock.ns += SECOND
        listed = {f"{n:064x}" for n in range(20) if choose.random() < 0.5}
        before = book.edition
        book.take("one", [pod(each, inode=int(each, 16) + 1) for each in sorted(listed)])
        assert (book.edition != before) or listed == known
        known = listed
        assert {each.id for each in book.sandboxes() if not each.gone_ns} == listed


async def test_waiting_ends_with_the_next_edition(book: Book) -> None:
    """At once for an old edition, with the change for the present one, and with its time otherwise."""
    await asyncio.wait_for(book.wait(book.edition - 1, 600), 60)
    waiting = asyncio.gather(book.wait(book.edition, 60))
    await asyncio.sleep(0)
    book.take("one", [pod()])
    await asyncio.wait_for(waiting, 60)
    await asyncio.wait_for(book.wait(book.edition, 0.01), 60)


def test_beside_a_cri_nobody_else_says_which_pod_it_is(book: Book) -> None:
    """Whoever may start a container of Docker's can call it like the API server's pod; without a CRI that is dockershim."""
    forged = replace(
        pod(OTHER), runtime="docker", namespace="kube-system", uid="u", annotations={"a": "b"}
    )
    book.take("docker", [forged])
    assert [each.namespace for each in book.sandboxes()] == ["kube-system"]
    book.take("docker", [])
    book.tells_pods("cri")
    for living in ([forged], []):
        book.take("docker", living)
        (found,) = book.sandboxes()
        assert (found.namespace, found.uid, found.annotations) == ("", "", {})
        assert found.pod == f"docker-{OTHER[:12]}"
        assert bool(found.gone_ns) is not bool(living)


def test_a_cri_in_front_of_docker_names_the_same_pod(book: Book) -> None:
    """Docker lists it too, under names that are not believed: alive and dead it is the CRI's."""
    true = replace(pod(), runtime="cri", namespace="shop", uid="u")
    forged = replace(true, runtime="docker", namespace="kube-system")
    book.tells_pods("cri")
    for gone in (False, True):
        for source, told in (("docker", forged), ("cri", true)):
            book.take(source, [] if gone else [told])
        (found,) = book.sandboxes()
        assert (found.namespace, found.uid, bool(found.gone_ns)) == ("shop", "u", gone)
