"""What a store's folder is called, what a manifest in it says of its part, and what several parts make together."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tripshark.errors import BadInput
from tripshark.model.evidence import Entry, IncidentId, Ledger, Manifest, Word
from tripshark.model.incident import EVERY, Incident, State, namespaces_of
from tripshark.model.part import (
    Part,
    Place,
    day_of,
    joined,
    namespaces_in,
    node_name,
    node_of,
    part_of,
    place_of,
)
from tripshark.model.target import Identity, Target, TargetKey, TargetKind

ID = IncidentId("20261124t101502-7kq3f2")
PLACE = Place(day="2026/11/24", incident=ID, node=node_name("worker-1"))


def manifest(details: Any, *entries: Entry, incident: IncidentId = ID) -> Manifest:
    return Manifest(
        incident=incident,
        created_ns=50,
        ledger=Ledger(entries=entries),
        files=(),
        details=details,
    )


def part(details: Any, *entries: Entry, node: str = "worker-1") -> Part:
    place = replace(PLACE, node=node_name(node))
    return part_of(place, manifest(details, *entries), digest="d", size=1, where="there")


@pytest.mark.parametrize("text", ["", "A", "a_b", "-a", "a" * 64, "a..b", "a/b", "å"])
def test_what_is_no_nodes_name_becomes_no_folder(text: str) -> None:
    """One gate for all text that becomes part of an object's name."""
    with pytest.raises(BadInput):
        node_name(text)


@pytest.mark.parametrize(
    ("machine", "name"), [("Web_01.Example", "web-01.example"), ("...", "node"), ("a..b", "a-b")]
)
def test_a_machines_name_becomes_one(machine: str, name: str) -> None:
    """What cannot be in it becomes a dash."""
    assert node_of(machine) == name


def test_an_objects_name_is_read_back() -> None:
    """Place and file; anything else is no part."""
    key = PLACE.key("evidence.pcapng")
    assert key == f"evidence/2026/11/24/{ID}/worker-1/evidence.pcapng"
    assert place_of(key) == (PLACE, "evidence.pcapng")
    assert day_of("2026/11/24") == "2026/11/24"
    for other in ("evidence/x", key.replace("2026/11", "26/1"), key.replace("evidence/", "e/", 1)):
        with pytest.raises(BadInput):
            place_of(other)


def test_a_manifest_tells_of_its_part() -> None:
    """Alerts that another node passed on are that node's to count."""
    found = part(
        {
            "what": {"title": "shop/web", "packets": 7, "bytes": 700},
            "why": {
                "rule": "All",
                "alerts": [{"rule": "C2", "via": "webhook"}, {"via": "capture:x"}],
                "alerts_counted": 5,
            },
            "who": {"namespace": "shop", "pod": "web", "namespaces": ["shop"]},
            "when": {"opened_ns": 40, "t0_ns": 30},
            "where": {"target": "k"},
        }
    )
    incident = found.incident
    assert (incident.state, incident.packets, incident.falco_rule) == (State.SEALED, 7, "C2")
    assert (incident.t0_ns, incident.opened_ns, found.own_alerts) == (30, 40, 4)
    assert incident.held == ("shop",)
    assert found.node == "worker-1"


@pytest.mark.parametrize(
    "details",
    [
        {},
        {"what": [], "why": {"alerts": "x", "alerts_counted": 2**70}, "when": {"t0_ns": "x"}},
        {"who": {"namespaces": []}, "why": {"alerts": [1, {"rule": 3}]}},
        {"who": {"namespaces": ["shop", "../x"]}},
        {"who": {"namespaces": "shop"}},
    ],
)
def test_a_hostile_manifest_is_read_as_little_as_it_says(details: Any) -> None:
    """What is not said clearly counts as everybody's packets."""
    found = part(details)
    assert found.incident.state is State.EMPTY
    assert found.incident.held == (EVERY,)
    assert namespaces_in(manifest(details)) == (EVERY,)


def test_an_older_manifest_names_one_namespace() -> None:
    """Its target's."""
    assert namespaces_in(manifest({"who": {"namespace": "shop"}})) == ("shop",)


def test_a_manifest_of_another_incident_is_refused() -> None:
    """It may not speak for this one."""
    other = manifest({}, incident=IncidentId("20261124t101502-aaaaaa"))
    with pytest.raises(BadInput):
        part_of(PLACE, other, digest="d", size=1, where="there")


def test_several_parts_are_one_incident() -> None:
    """Opened by the first, as bad as the worst, of all namespaces, with every packet."""
    cut = Entry(kind="cut", message="", word=Word.TRUNCATED)
    one = part(
        {"what": {"packets": 2}, "when": {"opened_ns": 9}, "who": {"namespace": "a"}}, node="n1"
    )
    two = part({"when": {"opened_ns": 5}, "who": {"namespace": "b"}}, cut, node="n2")
    two = replace(two, incident=replace(two.incident, summary="quiet", problem="disk"))
    whole = joined([one, two])
    assert (whole.opened_ns, whole.state, whole.packets) == (5, State.SEALED, 2)
    assert (whole.word, whole.namespaces) == (Word.TRUNCATED, ("a", "b"))
    assert (whole.summary, whole.problem) == ("quiet", "n2: disk")
    assert joined([one]) is one.incident
    nothing = part({}, node="n3")
    assert joined([two, nothing]).state is State.EMPTY


def test_whose_packets_a_ring_holds() -> None:
    """The host's ring holds everybody's; nobody's is everybody's too."""
    pod = Target(
        key=TargetKey("k"),
        kind=TargetKind.CONTAINER,
        name="container:x",
        inode=1,
        since_ns=1,
        identity=Identity(namespace="shop", pod="web"),
    )
    assert namespaces_of([pod]) == ("shop",)
    assert namespaces_of([pod, replace(pod, kind=TargetKind.HOST)]) == (EVERY, "shop")
    assert namespaces_of([]) == (EVERY,)
    bare = Incident(
        id=ID, state=State.OPEN, target=TargetKey("k"), title="", namespace="", pod="", rule="",
        falco_rule="", priority="", t0_ns=0, opened_ns=0,
    )  # fmt: skip
    assert bare.held == (EVERY,)
    assert replace(bare, namespace="shop").held == ("shop",)
