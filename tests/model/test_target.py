"""Who can be recorded, and what an analyst calls it."""

from __future__ import annotations

from tripshark.model.evidence import IncidentId, Word
from tripshark.model.incident import Incident, State
from tripshark.model.target import (
    Elsewhere,
    Identity,
    Interface,
    RingState,
    Target,
    TargetKey,
    TargetKind,
)


def ring(name: str, hardware_type: int, *addresses: str) -> RingState:
    return RingState(
        ring=name,
        interface=Interface(
            name=name, ifindex=1, hardware_type=hardware_type, addresses=addresses
        ),
        live=True,
        bytes=0,
        snaplen=0,
    )


def target(identity: Identity = Identity(), **fields: object) -> Target:  # noqa: B008
    return Target(
        key=TargetKey("k"),
        kind=TargetKind.NETNS,
        name="netns:shop0",
        inode=1,
        since_ns=1,
        identity=identity,
        **fields,  # type: ignore[arg-type]
    )


def test_a_pod_is_called_namespace_slash_pod() -> None:
    """Without a namespace by its pod's name, without either by the network namespace's."""
    assert target(Identity(namespace="payments", pod="checkout")).title == "payments/checkout"
    assert target(Identity(pod="checkout")).title == "checkout"
    assert target().title == "netns:shop0"


def test_addresses_are_those_that_others_see() -> None:
    """No prefix length, no loopback, each once."""
    found = target(
        rings=(ring("lo", 772, "127.0.0.1/8"), ring("eth0", 1, "10.0.0.7/24", "10.0.0.7/32"))
    ).addresses
    assert found == ("10.0.0.7",)


def test_a_target_with_an_end_is_dead() -> None:
    """`gone_ns` tells the two apart."""
    assert target().alive
    assert not target(gone_ns=5).alive


def test_a_new_incident_is_complete_until_something_is_known_to_be_missing() -> None:
    """Its defaults claim nothing that was not seen."""
    incident = Incident(
        id=IncidentId("i"),
        state=State.OPEN,
        target=TargetKey("k"),
        title="payments/checkout",
        namespace="payments",
        pod="checkout",
        rule="r",
        falco_rule="f",
        priority="Critical",
        t0_ns=1,
        opened_ns=2,
    )
    assert (incident.alerts, incident.packets, incident.word) == (1, 0, Word.COMPLETE)


def test_who_is_on_another_node_has_a_name_and_an_identity() -> None:
    """A pod is called as everywhere, a machine by its node's name; rules may ask for labels and owner."""
    there = Elsewhere(node="n2", namespace="shop", pod="web", uid="u", labels={"a": "b"})
    assert there.title == "shop/web"
    assert there.identity == Identity(
        namespace="shop", pod="web", uid="u", labels={"a": "b"}, node="n2"
    )
    assert Elsewhere(node="n2").title == "node/n2"
