"""What several nodes' answers come to, and how the resource that asks them is called."""

from __future__ import annotations

import itertools
import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tripshark.model.evidence import IncidentId
from tripshark.model.fleet import (
    SECOND,
    Aim,
    Aimed,
    FleetRequest,
    PartKey,
    PartReport,
    Phase,
    Problem,
    Stage,
    Whole,
    labels,
    resource_name,
)

POD = Aim(kind=Aimed.POD, namespace="payments", name="checkout-7d9f", uid="u1")
REQUEST = FleetRequest(
    aims=(POD,), t0_ns=1_000, after_ns=10 * SECOND, incident=IncidentId("20261123t101502-7kq3f2")
)
LATER = 1_000 * SECOND
HERE, THERE = PartKey(node="n1", uid="u1"), PartKey(node="n2", uid="u2")


def a_part(
    stage: Stage = Stage.SEALED, node: str = "n1", uid: str = "u1", **more: str
) -> PartReport:
    return PartReport(node=node, uid=uid, stage=stage, frozen_ns=5, **more)


def whole(*parts: PartReport, expected: tuple[PartKey, ...] | None = (), **more: object) -> Whole:
    return Whole(request=REQUEST, since_ns=0, parts=parts, expected=expected, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("parts", "expected", "now_s", "phase"),
    [
        ((), (), 1, Phase.PENDING),  # a node may yet know of a dead pod
        ((), (), 11, Phase.FAILED),
        ((), None, 11, Phase.PENDING),  # the API could not say who it is about
        ((), None, 121, Phase.FAILED),
        ((), (HERE,), 11, Phase.PENDING),
        ((), (HERE,), 121, Phase.FAILED),
        ((a_part(),), (HERE,), 1, Phase.CAPTURING),
        ((a_part(),), (HERE,), 11, Phase.COMPLETE),
        ((a_part(),), (), 11, Phase.COMPLETE),  # a dead pod: the API does not know it any more
        ((a_part(Stage.EMPTY),), (HERE,), 11, Phase.COMPLETE),
        ((a_part(),), (HERE, THERE), 11, Phase.CAPTURING),
        ((a_part(),), (HERE, THERE), 121, Phase.PARTIAL),
        ((a_part(Stage.CAPTURING),), (HERE,), 500, Phase.CAPTURING),
        ((a_part(Stage.CAPTURING),), (HERE,), 911, Phase.FAILED),  # it fell silent
        ((a_part(), a_part(Stage.FAILED, "n2", "u2")), (HERE, THERE), 11, Phase.PARTIAL),
        ((a_part(Stage.REFUSED),), (HERE,), 11, Phase.REFUSED),
        ((a_part(Stage.REFUSED), a_part(Stage.FAILED, "n2")), (), 11, Phase.FAILED),
    ],
)
def test_the_phase_follows_from_what_was_said(
    parts: tuple[PartReport, ...], expected: tuple[PartKey, ...] | None, now_s: int, phase: Phase
) -> None:
    """Parts, who was expected and the time decide, nothing else."""
    said = whole(*parts, expected=expected)
    assert said.phase(now_s * SECOND) is phase
    complete = said.conditions(now_s * SECOND)[2]
    assert complete.status is (phase is Phase.COMPLETE)
    assert complete.reason == phase.value


def test_a_request_that_is_no_request_is_refused_at_once() -> None:
    """With its own reason, and nothing is waited for."""
    said = whole(problem=Problem(reason="OutsideNamespace", message="no"))
    assert said.phase(0) is Phase.REFUSED
    assert said.next_ns(0) is None
    accepted = said.conditions(0)[0]
    assert (accepted.status, accepted.reason) == (False, "OutsideNamespace")


def test_nobody_concerned_says_what_was_not_found() -> None:
    """By the kind of what was asked for, or as a target where there are several."""
    pod = whole().conditions(LATER)[0]
    assert (pod.reason, pod.status) == ("NoSuchPod", False)
    assert "payments/checkout-7d9f" in pod.message
    node = Aim(kind=Aimed.NODE, name="n7")
    both = replace(REQUEST, aims=(POD, node))
    assert replace(whole(), request=both).conditions(LATER)[0].reason == "NoSuchTarget"
    assert "node n7" in replace(whole(), request=both).conditions(LATER)[0].message
    assert whole().conditions(1)[0].reason == "Waiting"


def test_a_silent_node_is_named() -> None:
    """Who was expected and said nothing stands in the conditions, however many they are."""
    alone = whole(expected=(HERE,))
    assert alone.conditions(LATER)[0].reason == "NodeSilent"
    assert alone.conditions(LATER)[1].reason == "NodeSilent"
    assert "n1" in alone.conditions(LATER)[0].message
    many = tuple(PartKey(node=f"n{i}", uid="u") for i in range(9))
    assert "and 4 more" in whole(expected=many).conditions(LATER)[0].message


def test_frozen_means_every_history() -> None:
    """One frozen part of two is not yet."""
    one = whole(a_part(Stage.CAPTURING), expected=(HERE, THERE)).conditions(SECOND)
    assert (one[0].status, one[1].status) == (True, False)
    both = whole(
        a_part(Stage.CAPTURING), a_part(Stage.CAPTURING, "n2", "u2"), expected=(HERE, THERE)
    ).conditions(SECOND)
    assert both[1].status
    never = whole(replace(a_part(Stage.REFUSED, reason="TooMany"), frozen_ns=0))
    assert never.conditions(LATER)[1].reason == "NotFrozen"
    assert never.conditions(LATER)[0].reason == "TooMany"
    assert whole().conditions(LATER)[1].reason == "Nobody"


@given(
    stages=st.lists(st.sampled_from(Stage), max_size=4),
    missing=st.integers(0, 2),
    now_s=st.integers(0, 2000),
)
def test_every_request_comes_to_an_end(stages: list[Stage], missing: int, now_s: int) -> None:
    """Whatever is said or not said, the phase is final after the longest patience, and says until when it waits."""
    parts = tuple(a_part(stage, f"n{i}", f"u{i}") for i, stage in enumerate(stages))
    expected = tuple(p.key for p in parts) + tuple(
        PartKey(node=f"m{i}", uid="u") for i in range(missing)
    )
    said = whole(*parts, expected=expected)
    assert said.phase(2000 * SECOND).final
    now_ns = now_s * SECOND
    if not said.phase(now_ns).final:
        moment = said.next_ns(now_ns)
        assert moment is not None
        assert moment > now_ns
        assert said.phase(moment - 1) is said.phase(now_ns)


def test_the_same_ask_is_the_same_resource() -> None:
    """Whoever asks, and however often; anything else that is asked is another."""
    again = replace(REQUEST, origin="n9", by="n9", ttl_ns=1)
    assert resource_name(again) == resource_name(REQUEST)
    others = [
        replace(REQUEST, t0_ns=2),
        replace(REQUEST, peer="10.0.0.1"),
        replace(REQUEST, aims=(replace(POD, uid="u2"),)),
        replace(REQUEST, alert="{}"),
        replace(REQUEST, wide=True),
    ]
    names = [resource_name(each) for each in [REQUEST, *others]]
    assert all(a != b for a, b in itertools.combinations(names, 2))
    keyed = replace(REQUEST, key="k")
    assert resource_name(replace(keyed, t0_ns=2)) == resource_name(keyed)


@given(incident=st.text(max_size=80), alert=st.text(max_size=20))
def test_a_name_is_one_that_kubernetes_takes(incident: str, alert: str) -> None:
    """Whatever an incident or an alert holds."""
    name = resource_name(replace(REQUEST, incident=IncidentId(incident), alert=alert))
    assert re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", name)


def test_where_the_resource_belongs() -> None:
    """In the namespace of the one thing asked for; else to the cluster."""
    assert REQUEST.namespace == "payments"
    assert replace(REQUEST, wide=True).namespace == ""
    assert replace(REQUEST, aims=(POD, POD)).namespace == ""
    assert labels(REQUEST) == {"tripshark.dev/incident": "20261123t101502-7kq3f2"}
    assert labels(replace(REQUEST, incident=None)) == {}
