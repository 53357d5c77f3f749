"""The index finds what findings say, in both databases, for whoever may see it, and keeps in step with the evidence."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import text

from tests.store.evidence import START, Clock, S, other, seal
from tripshark.model.evidence import IncidentId
from tripshark.model.incident import Incident, State
from tripshark.model.indicator import Indicator, Indicators, Pattern, Sought, Term
from tripshark.model.observable import Kind, Observable, Place, Role, Sighting
from tripshark.model.search import Search, understood
from tripshark.store import search as store_search
from tripshark.store.catalogue import SqlCatalogue
from tripshark.store.indexing import Indexing
from tripshark.store.search import SearchIndex
from tripshark.store.vault import FolderVault


def incident(number: int, **changes: object) -> Incident:
    opened_ns = START + number * S
    made = Incident(
        id=IncidentId(f"20261124t1030{number:02}-aaaaaa"), state=State.SEALED, target="t",  # type: ignore[arg-type]
        title=f"payments/checkout-{number}", namespace="payments", pod="checkout", rule="r", falco_rule="f",
        priority="Warning", t0_ns=opened_ns, opened_ns=opened_ns, namespaces=("payments",),
    )  # fmt: skip
    return replace(made, **changes)  # type: ignore[arg-type]


def sighting(place: Place, *values: tuple[Kind, str], frame: int = 1, **more: object) -> Sighting:
    its = tuple(Observable(kind, value) for kind, value in values)
    return Sighting(place=place, observables=its, frame=frame, filter=f"frame.number == {frame}", first_ns=START, **more)  # type: ignore[arg-type]  # fmt: skip


ROWS = (
    sighting(Place.DNS, (Kind.DOMAIN, "www.evil.example"), (Kind.ADDRESS, "203.0.113.66")),
    sighting(Place.TLS, (Kind.DOMAIN, "Evil_%.example".lower()), (Kind.JA3, "c" * 32), frame=2),
    sighting(Place.HTTP, (Kind.URL, "a.example/Pay%5f\\x"), (Kind.USER_AGENT, "Ünï/1"), frame=3),
    sighting(Place.ENDPOINT, (Kind.ADDRESS, "2001:db8::7"), (Kind.POD, "payments/checkout"), frame=4),
)  # fmt: skip


@pytest.fixture
async def catalogue(place: Path | str) -> AsyncIterator[SqlCatalogue]:
    its = await SqlCatalogue.open(place)
    yield its
    await its.close()


@pytest.fixture
def index(catalogue: SqlCatalogue) -> SearchIndex:
    return SearchIndex(catalogue.database)


async def _put(index: SearchIndex, id: IncidentId, *rows: Sighting, node: str = "") -> None:
    await index.put(id, node, file="evidence.pcapng", tag="1", rows=rows, now_ns=START)


async def _found(index: SearchIndex, asked: str, kind: str = "", **more: object) -> list[str]:
    hits = await index.find(Search(clauses=understood(asked, kind), **more))  # type: ignore[arg-type]
    return [f"{each.shelf}={each.value}" for each in hits]


async def test_values_are_found_whole_and_in_part(
    catalogue: SqlCatalogue, index: SearchIndex
) -> None:
    """Exact, as network, as domain with all below, by beginning, end and middle; % and _ mean themselves."""
    its = incident(1)
    await catalogue.put(incidents=[its])
    await _put(index, its.id, *ROWS)
    assert await _found(index, "203.0.113.66") == ["address=203.0.113.66"]
    assert await _found(index, "203.0.113.0/24") == ["address=203.0.113.66"]
    assert await _found(index, "203.0.112.0/24") == []
    assert await _found(index, "2001:db8::/64") == ["address=2001:db8::7"]
    assert await _found(index, "*.evil.example") == ["dns=www.evil.example"]
    assert await _found(index, "*.vil.example") == []
    assert await _found(index, "www*", "domain") == ["dns=www.evil.example"]
    assert await _found(index, "_%.", "domain") == ["sni=evil_%.example"]
    assert await _found(index, "PAY%5F\\X") == ["url=a.example/Pay%5f\\x"]
    assert await _found(index, "ünï") == ["user_agent=Ünï/1"]
    assert await _found(index, "checkout", "pod") == ["pod=payments/checkout"]
    assert await _found(index, "c" * 32) == ["ja3=" + "c" * 32]
    assert await _found(index, "d" * 32) == []
    (hit,) = await index.find(Search(clauses=understood("c" * 32)))
    assert (hit.incident, hit.file, hit.frame, hit.filter, hit.title, hit.t0_ns) == (
        its.id, "evidence.pcapng", 2, "frame.number == 2", its.title, its.t0_ns,
    )  # fmt: skip


async def test_pages_follow_each_other_newest_first(
    catalogue: SqlCatalogue, index: SearchIndex
) -> None:
    """Every hit once, whatever the size of the page, and nothing older than asked for."""
    every = [incident(number) for number in range(5)]
    await catalogue.put(incidents=every)
    for each in every:
        await _put(index, each.id, *ROWS, node="n-1")
        await _put(index, each.id, *ROWS, node="n-2")
    clauses = understood("example")
    whole = await index.find(Search(clauses=clauses))
    assert len(whole) == 5 * 2 * 3
    assert [each.incident for each in whole] == sorted(
        (each.incident for each in whole), reverse=True
    )
    paged, after = [], None
    while page := await index.find(Search(clauses=clauses, after=after, limit=7)):
        paged += page
        after = page[-1].cursor
    assert paged == list(whole)
    young = await index.find(Search(clauses=clauses, since_ns=every[4].opened_ns))
    assert {each.incident for each in young} == {every[4].id}


async def test_only_evidence_of_visible_namespaces_is_searched(
    catalogue: SqlCatalogue, index: SearchIndex
) -> None:
    """Who may see one namespace sees neither another's nor what both are in."""
    theirs, both, mine = (
        incident(1, namespaces=("shop",)), incident(2, namespaces=("payments", "shop")), incident(3),
    )  # fmt: skip
    await catalogue.put(incidents=[theirs, both, mine])
    for each in (theirs, both, mine):
        await _put(index, each.id, *ROWS)
    seen = await index.find(Search(clauses=understood("evil"), visible=("payments",)))
    assert {each.incident for each in seen} == {mine.id}
    assert await index.find(Search(clauses=understood("evil"), visible=())) == ()
    evil = Indicators(
        [Indicator.of([(Term(Sought.DOMAIN, "evil.example"),)], name="x", source="l")]
    )
    found, more = await index.hunt(evil, visible=("payments",))
    assert ([each.incident for each in found], more) == ([mine.id], False)
    assert (await index.hunt(evil, visible=()))[0] == ()
    assert len((await index.hunt(evil))[0]) == 3
    assert len((await index.hunt(evil, since_ns=both.opened_ns))[0]) == 2


async def test_a_hunt_compares_rows_as_a_new_capture_is_compared(
    catalogue: SqlCatalogue, index: SearchIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Terms of one row, rows of one file; a long list gives the same as a short one; hits are bounded."""
    its = [incident(number) for number in range(3)]
    await catalogue.put(incidents=its)
    flow = Sighting(
        place=Place.FLOW, frame=1, filter="tcp", first_ns=START,
        observables=(
            Observable(Kind.ADDRESS, "203.0.113.66", Role.SERVER), Observable(Kind.PORT, "4444", Role.SERVER),
        ),
    )  # fmt: skip
    await _put(index, its[0].id, *ROWS)
    await _put(index, its[1].id, *ROWS, flow)
    await _put(index, its[2].id, sighting(Place.DNS, (Kind.DOMAIN, "fine.example")))
    port = Term(Sought.PORT, "4444", Role.SERVER)
    both = Indicator(
        name="both", source="l",
        patterns=(Pattern(((Term(Sought.HOSTNAME, "www.evil.example"),), (Term(Sought.ADDRESS, "203.0.113.66"), port))),),
    )  # fmt: skip
    network = Indicator.of([(Term(Sought.NETWORK, "203.0.0.0/16"),)], name="network", source="l")
    hunted = Indicators([both, network])
    found, _ = await index.hunt(hunted)
    names = [(each.incident, each.match.indicator.name) for each in found]
    assert names == [(its[1].id, "both"), (its[1].id, "network"), (its[0].id, "network")]
    assert [row.place for row in found[0].match.rows] == [Place.DNS, Place.FLOW]
    monkeypatch.setattr(store_search, "_MANY", 1)
    many = Indicators(
        [
            *hunted.all,
            *(
                Indicator.of([(Term(Sought.MD5, f"{n:032x}"),)], name="z", source="l")
                for n in range(9)
            ),
        ]
    )
    assert (await index.hunt(many))[0] == found
    assert await index.hunt(many, limit=2) == (found[:2], True)


async def test_a_file_is_replaced_and_forgotten_whole(
    catalogue: SqlCatalogue, index: SearchIndex
) -> None:
    """New findings take the place of the old; what is removed is found no more; another version is filled anew."""
    its = incident(1)
    await catalogue.put(incidents=[its])
    await _put(index, its.id, *ROWS)
    await index.put(its.id, "", file="f", tag="2", rows=ROWS[1:2], now_ns=START)
    assert await _found(index, "www") == []
    assert await index.known() == {(its.id, ""): "2"}
    await catalogue.database.write(
        lambda connection: connection.execute(text("UPDATE indexed SET tag = '0:2'"))
    )
    assert await index.known() == {(its.id, ""): ""}
    await index.remove([(its.id, "")])
    assert (await index.known(), await _found(index, "evil")) == ({}, [])
    await index.remove([])


# ----------------------------------------------------------------------------------------- in step with folders


def _findings(vault: FolderVault, its: Incident, name: str) -> None:
    told = {"manifest_sha256": its.manifest_sha256, "tool": "x", "sandbox": [], "packets": 7,
            "tls": [{"name": name, "frame": 2, "filter": "tls"}]}  # fmt: skip
    vault.beside(its.id, "findings.json", json.dumps(told).encode())


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[tuple[FolderVault, SqlCatalogue]]:
    catalogue = await SqlCatalogue.open(tmp_path / "catalogue.sqlite")
    yield FolderVault(tmp_path, clock=Clock()), catalogue
    await catalogue.close()


async def test_the_index_fills_itself_and_stays_in_step(
    node: tuple[FolderVault, SqlCatalogue],
) -> None:
    """Old evidence without an index, findings made anew, evidence that was never analysed, moved or removed."""
    vault, catalogue = node
    told: list[object] = []
    first, second, third = (seal(vault, number) for number in (1, 2, 3))
    await catalogue.put(incidents=[first, second])  # the third one's row comes later
    _findings(vault, first, "old.example")

    def indexing() -> Indexing:
        return Indexing(
            vault=vault,
            catalogue=catalogue,
            clock=Clock(),
            tell=lambda event, details: told.append(details),
        )

    its = indexing()
    assert await its.look() == 2
    assert await its.look() == 0
    assert await indexing().look() == 0
    assert await _found(its.index, "example") == ["sni=old.example"]
    assert await _found(its.index, "checkout-2") == ["pod=payments/checkout-2"]
    await catalogue.put(incidents=[third])
    _findings(vault, first, "new.example")
    os.utime(Path(vault.folder(first.id)) / "findings.json", ns=(1, 1))
    (Path(vault.folder(second.id)) / "findings.json").write_text("{")
    assert await its.look() == 3
    assert await _found(its.index, "example") == ["sni=new.example"]
    assert len(told) == 1  # broken findings are told, once
    assert await its.look() == 0
    vault.remove(first.id, "age")
    vault.remove(third.id, "it lies in s3://store/x")
    await catalogue.put(incidents=[other(third, folder="s3://store/x")])  # only moved
    await its.look()
    assert await _found(its.index, "example") == [
        "sni=new.example"
    ]  # nobody said yet that it is removed
    await catalogue.put(incidents=[other(first, state=State.REMOVED)])
    await its.look()
    assert await _found(its.index, "example") == []
    assert set(await its.index.known()) == {(second.id, ""), (third.id, "")}
