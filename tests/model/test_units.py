"""Sizes, counts and durations as people write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tripshark.model import units


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("16MB", 16_000_000),
        ("16MiB", 16 << 20),
        ("1_000", 1000),
        (5, 5),
        ("1gb500mb", 1_500_000_000),
    ],
)
def test_sizes(text: object, wanted: int) -> None:
    """Decimal and binary units, sums, plain numbers."""
    assert units.bytes_of(text) == wanted


@pytest.mark.parametrize(
    ("text", "wanted"),
    [("30s", 30.0), ("1m30s", 90.0), ("500ms", 0.5), (2.5, 2.5), ("7d", 604_800.0)],
)
def test_durations(text: object, wanted: float) -> None:
    """Units may be added up; nothing means seconds."""
    assert units.seconds_of(text) == wanted
    assert units.ns_of(text) == round(wanted * 1_000_000_000)


@pytest.mark.parametrize(("text", "wanted"), [("200k", 200_000), ("2m", 2_000_000), (7, 7)])
def test_counts(text: object, wanted: int) -> None:
    """Thousands and millions."""
    assert units.count_of(text) == wanted


@pytest.mark.parametrize(
    "bad", ["", "x", "12parsecs", "5 5x", True, None, [1], "-3s", "9" * 400, float("inf")]
)
def test_what_is_no_number_is_refused_with_an_example(bad: object) -> None:
    """The message shows how it is written."""
    for read in (units.bytes_of, units.seconds_of, units.count_of):
        with pytest.raises(ValueError, match=r"such as|like"):
            read(bad)


@given(st.text(max_size=30))
def test_any_text_is_read_or_refused(text: str) -> None:
    """Nothing else is ever raised."""
    for read in (units.bytes_of, units.seconds_of, units.count_of, units.ns_of):
        try:
            assert read(text) >= 0
        except ValueError:
            continue
