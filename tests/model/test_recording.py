"""Which pods are recorded: defaults, selectors, annotations, and the bound that none of them exceeds."""

from __future__ import annotations

import pytest

from tripshark.model.recording import Mode, Policy, Selector, stricter


def test_the_default_opts_everybody_in_or_out() -> None:
    """A pod that nothing else names is recorded as the default says."""
    assert Policy().decide("shop", {}, {}).mode is Mode.FULL
    assert Policy(default=Mode.OFF).decide("shop", {}, {}).mode is Mode.OFF


def test_the_first_selector_that_fits_decides() -> None:
    """Namespaces by glob, labels all of them."""
    policy = Policy(
        selectors=(
            Selector(namespace="pay*", labels={"tier": "db"}, record=Mode.HEADERS, weight=3),
            Selector(namespace="pay*", record=Mode.OFF),
        )
    )
    found = policy.decide("payments", {"tier": "db", "app": "x"}, {})
    assert (found.mode, found.weight) == (Mode.HEADERS, 3)
    assert policy.decide("payments", {"tier": "web"}, {}).mode is Mode.OFF
    assert policy.decide("shop", {"tier": "db"}, {}).mode is Mode.FULL


@pytest.mark.parametrize(
    ("annotations", "mode", "weight", "says"),
    [
        ({"tripshark.dev/record": "headers"}, Mode.HEADERS, 1, "its annotation says so"),
        ({"tripshark.dev/record": "all"}, Mode.FULL, 1, "none of off"),
        ({"tripshark.dev/weight": "4"}, Mode.FULL, 4, "default"),
        ({"tripshark.dev/weight": "16"}, Mode.FULL, 4, "gets 4, more is the operator's"),
        ({"tripshark.dev/weight": "0"}, Mode.FULL, 1, "no number"),
        ({"tripshark.dev/weight": "9" * 5000}, Mode.FULL, 1, "no number"),
        ({"tripshark.dev/weight": "\u0665"}, Mode.FULL, 1, "no number"),
    ],
)
def test_annotations_ask_and_nonsense_is_told(
    annotations: dict[str, str], mode: Mode, weight: int, says: str
) -> None:
    """A pod may ask for itself; what is not understood changes nothing and is said."""
    found = Policy().decide("shop", {}, annotations)
    assert (found.mode, found.weight) == (mode, weight)
    assert says in found.reason


def test_a_pod_takes_no_more_memory_from_others_than_the_operator_lets_it() -> None:
    """Its annotation goes up to 4, or as far as a selector has gone for it; down it always goes."""
    policy = Policy(selectors=(Selector(namespace="db", weight=9),))
    for namespace, wish, weight in (
        ("db", "16", 9), ("db", "2", 2), ("shop", "9", 4), ("shop", "3", 3),
    ):  # fmt: skip
        assert policy.decide(namespace, {}, {"tripshark.dev/weight": wish}).weight == weight


def test_annotations_count_only_where_the_operator_lets_them() -> None:
    """`annotations: false` ignores them."""
    policy = Policy(annotations=False)
    asked = {"tripshark.dev/record": "off", "tripshark.dev/weight": "9"}
    assert policy.decide("shop", {}, asked).mode is Mode.FULL


def test_privacy_is_a_bound_that_nobody_exceeds() -> None:
    """The tightest bound of a namespace holds against default, selectors and annotations."""
    policy = Policy(
        selectors=(Selector(namespace="hr", record=Mode.FULL),),
        privacy={"h*": Mode.HEADERS, "hr-?": Mode.OFF},
    )
    found = policy.decide("hr", {}, {"tripshark.dev/record": "full"})
    assert found.mode is Mode.HEADERS
    assert "at most" in found.reason
    assert policy.decide("hr-1", {}, {}).mode is Mode.OFF
    assert policy.decide("hr", {}, {"tripshark.dev/record": "off"}).mode is Mode.OFF


def test_of_two_modes_the_stricter_keeps_less() -> None:
    """Off before headers before full, whichever is named first."""
    assert stricter("full", "headers") is Mode.HEADERS
    assert stricter("off", "headers") is Mode.OFF
    assert stricter("full", "full") is Mode.FULL
