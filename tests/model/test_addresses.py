"""Who held which address when."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from tripshark.model.addresses import AddressBook, Holder, HolderKind, Tenure, plain

A = "10.0.0.7"


def pod(name: str, *, uid: str = "", guest: bool = False) -> Holder:
    return Holder(
        kind=HolderKind.POD, name=f"shop/{name}", uid=uid or name, node="n1", guest=guest
    )


NODE = Holder(kind=HolderKind.NODE, name="n1", uid="node-n1", node="n1")
SERVICE = Holder(kind=HolderKind.SERVICE, name="shop/web")


def told(book: AddressBook, since_ns: int = 0, until_ns: int = 1000) -> list[tuple[str, int, int]]:
    return [
        (each.holder.title, each.from_ns, each.to_ns)
        for each in book.between(A, since_ns, until_ns)
    ]


def test_titles_are_the_analysts() -> None:
    """Pods by namespace and name, services and nodes so that nobody takes them for pods."""
    assert [each.title for each in (pod("a"), SERVICE, NODE)] == [
        "shop/a",
        "shop/svc/web",
        "node/n1",
    ]


def test_a_new_pod_ends_the_tenure_of_the_one_before() -> None:
    """Nobody need say that the old one left; both are told for a time that spans the hand-over."""
    book = AddressBook()
    book.holds(A, pod("old"), 10)
    book.holds(A, pod("new"), 50)
    assert (book.at(A, 49), book.at(A, 50)) == (pod("old"), pod("new"))
    assert told(book) == [("shop/old", 10, 50), ("shop/new", 50, 0)]
    assert told(book, 50) == [("shop/new", 50, 0)]
    assert told(book, 0, 49) == [("shop/old", 10, 50)]
    assert told(book, 0, 9) == []


def test_who_left_holds_nothing_any_more() -> None:
    """By uid or as a holder; leaving before the tenure began leaves a moment of it; others stay."""
    book = AddressBook()
    for address in (A, "10.0.0.8", "2001:db8::1"):
        book.holds(address, pod("a"), 10)
    book.holds("10.0.0.9", pod("b"), 10)
    book.leaves("a", 20)
    book.leaves("a", 30)
    book.leaves("never seen", 30)
    assert (book.at(A, 19), book.at(A, 20), book.at("2001:DB8::0:1", 20)) == (pod("a"), None, None)
    book.leaves(pod("b"), 5)
    assert (book.at("10.0.0.9", 10), book.at("10.0.0.9", 11)) == (pod("b"), None)
    book.holds(A, SERVICE, 40)
    book.leaves(SERVICE, 50)
    assert told(book) == [("shop/a", 10, 20), ("shop/svc/web", 40, 50)]


def test_news_may_come_late() -> None:
    """What began earlier is put before what began later; the same holder's time is one."""
    book = AddressBook()
    book.holds(A, pod("new"), 50)
    book.holds(A, pod("old"), 10)
    book.holds(A, pod("new"), 40)
    book.holds(A, pod("new"), 60)
    assert told(book) == [("shop/old", 10, 40), ("shop/new", 40, 0)]
    book.holds(A, pod("replaced at its first moment"), 40)
    assert told(book) == [("shop/old", 10, 40), ("shop/replaced at its first moment", 40, 0)]


def test_a_nodes_address_stays_the_nodes() -> None:
    """Pods in its network are noted as guests, in whichever order they and the node become known."""
    book = AddressBook()
    book.holds(A, pod("early"), 5)
    book.holds(A, NODE, 10)
    book.holds(A, pod("late"), 20)
    book.holds(A, pod("early"), 25)
    assert told(book) == [("shop/early", 5, 10), ("node/n1", 10, 0)]
    assert [each.holder for each in book.guests(A, 0, 100)] == [pod("late"), pod("early")]
    book.leaves("early", 30)
    assert [each.to_ns for each in book.guests(A, 0, 100)] == [0, 30]
    assert book.guests(A, 0, 10) == ()
    book.leaves(NODE, 40)
    assert told(book, 40) == [("shop/late", 40, 0)]  # alone left there


def test_a_node_is_known_while_it_holds_an_address() -> None:
    """By its name: an alert's hostname may be one, or anything else."""
    book = AddressBook()
    assert not book.is_node("n1")
    book.holds(A, NODE, 1)
    book.holds("2001:db8::7", NODE, 1)
    book.holds("10.0.0.8", pod("n2"), 1)
    assert (book.is_node("n1"), book.is_node("shop/n2")) == (True, False)
    book.leaves(NODE, 2)
    assert not book.is_node("n1")


def test_several_guests_of_an_unknown_node_are_nobody() -> None:
    """None of them owns the address; each is noted once, from its first moment on."""
    book = AddressBook()
    book.holds(A, pod("a", guest=True), 20)
    assert book.at(A, 25) == pod("a", guest=True)
    book.holds(A, pod("a", guest=True), 30)
    book.holds(A, pod("b", guest=True), 30)
    book.holds(A, pod("a", guest=True), 10)
    assert book.at(A, 35) is None
    assert told(book) == [("shop/a", 10, 30)]
    assert [each.from_ns for each in book.guests(A, 0, 100)] == [10, 30]


def test_a_pod_is_believed_before_a_service() -> None:
    """A service may claim any external address: it takes no pod's name away."""
    book = AddressBook()
    book.holds(A, SERVICE, 0)
    book.holds(A, pod("a"), 10)
    book.leaves("a", 20)
    assert told(book) == [("shop/svc/web", 0, 10), ("shop/a", 10, 20), ("shop/svc/web", 20, 0)]


def test_what_is_no_address_is_passed_over() -> None:
    """Hostile text neither raises nor takes room; every way of writing means the same address."""
    book = AddressBook()
    for text in ("", "no", "10.0.0.256", "x" * 10_000, "fe80::1%" + "y" * 50):
        book.holds(text, pod("a"), 0)
    assert [plain(each) for each in ("::ffff:10.0.0.7", "10.0.0.7/24", "FE80::1%eth0")] == [
        A,
        A,
        "fe80::1",
    ]
    assert [each.address for each in book] == ["fe80::" + "1"]


def test_what_ended_before_is_forgotten() -> None:
    """Of what still lasts nothing goes."""
    book = AddressBook()
    book.holds(A, pod("a"), 0)
    book.holds(A, pod("b"), 10)
    book.holds("10.0.0.8", pod("c"), 0)
    book.leaves("c", 5)
    book.forget(5)
    assert len(book) == 2
    book.forget(1000)
    assert [each.holder for each in book] == [pod("b")]


def test_the_book_is_bounded_and_the_living_stay() -> None:
    """What ended longest ago makes room; where all live, news is refused and counted."""
    book = AddressBook(max_tenures=16)
    for number in range(100):
        book.holds(A, pod(str(number)), number + 1)
    assert len(book) <= 16
    assert book.at(A, 1000) == pod("99")
    assert book.at(A, 99) == pod("98")
    assert book.at(A, 1) is None
    for number in range(100):
        book.holds(f"10.0.1.{number}", pod(f"x{number}"), 1000)
    assert len(book) == 16
    assert book.refused
    assert book.at(A, 1000) == pod("99")


News = tuple[str, int, int]
NEWS = st.lists(
    st.tuples(
        st.sampled_from(["a", "b", "c", "guest", "node", "svc", "-a", "-b", "-node", "-guest"]),
        st.integers(0, 30),
        st.integers(1, 2),
    ),
    max_size=25,
)
WHO: dict[str, Holder] = {
    "a": pod("a"),
    "b": pod("b"),
    "c": pod("c"),
    "guest": pod("g", guest=True),
    "node": NODE,
    "svc": SERVICE,
}


def read(book: AddressBook, news: list[News]) -> AddressBook:
    for word, at_ns, address in news:
        if word.startswith("-"):
            book.leaves(WHO[word[1:]], at_ns)
        else:
            book.holds(f"10.0.0.{address}", WHO[word], at_ns)
    return book


@given(NEWS, st.integers(0, 30), st.integers(0, 30))
def test_between_tells_the_same_as_at(news: list[News], one: int, other: int) -> None:
    """Tenures within a window do not overlap, are in order, and name whom `at` names at each moment."""
    book = read(AddressBook(), news)
    since, until = min(one, other), max(one, other)
    found = book.between("10.0.0.1", since, until)
    for before, after in pairwise(found):
        assert before.to_ns
        assert before.to_ns <= after.from_ns
    for moment in range(since, until + 1):
        there: list[Tenure] = [each for each in found if each.covers(moment)]
        assert [each.holder for each in there] == [
            holder for holder in [book.at("10.0.0.1", moment)] if holder
        ]


@given(NEWS)
def test_the_last_word_holds(news: list[News]) -> None:
    """Whatever was before: the stronger holder is believed, and of two pods the one said last."""
    book = read(AddressBook(), news)
    for holder in WHO.values():
        book.leaves(holder, 39)
    for word in ("guest", "svc", "a", "b", "node"):
        book.holds(A, WHO[word], 40)
        assert book.at(A, 40) == WHO[word]


@given(NEWS, st.integers(1, 8))
def test_the_count_is_kept_and_bounded(news: list[News], most: int) -> None:
    """`len` is the number of tenures, at most what is allowed, and whoever leaves leaves nothing behind."""
    book = read(AddressBook(max_tenures=most), news)
    assert len(book) == len(list(book)) <= most
    for holder in WHO.values():
        book.leaves(holder, 100)
    assert all(each.to_ns for each in book)
    book.forget(101)
    assert len(book) == 0
    assert not book._open
    assert not book._held
