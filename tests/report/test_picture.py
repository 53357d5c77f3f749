"""The picture of time: its bins add up, its axis is round, and it is well-formed."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis.strategies import integers, lists

from tests.report import cases
from tripshark.model.finding import Activity
from tripshark.report import moments, picture


@given(
    column=lists(integers(0, 1000), max_size=600),
    most=integers(1, 200),
    offset=integers(-5_000_000_000, 40_000_000_000),
)
def test_joined_bins_add_up_and_none_lies_across_the_alert(
    column: list[int], most: int, offset: int
) -> None:
    """No packet is lost, and before and after T0 stay apart where the finer bins kept them apart."""
    step = 50_000_000
    start = cases.T0 - offset // step * step  # T0 is at the edge of one of the finer bins
    activity = Activity(
        start_ns=start,
        step_ns=step,
        packets_out=tuple(column),
        packets_in=tuple(column),
        bytes_out=tuple(column),
        bytes_in=tuple(column),
    )
    made = picture.bins(activity, most, cases.T0)
    assert sum(made.out) == sum(made.into) == sum(column)
    assert len(made.out) <= most + 1
    if column:
        assert (cases.T0 - made.start_ns) % made.step_ns == 0


@given(before=integers(0, 10**12), after=integers(1, 10**12))
def test_ticks_are_few_and_round(before: int, after: int) -> None:
    """T0 is one of them where it is in the picture."""
    found = picture.ticks(cases.T0 - before, cases.T0 + after, cases.T0, 9)
    assert len(found) <= 10
    if before + after > 20_000:
        assert cases.T0 in found
    assert all(cases.T0 - before <= each <= cases.T0 + after for each in found)


@pytest.mark.parametrize("make", [cases.rich, cases.unread, cases.empty, cases.bare])
def test_both_drawings_are_well_formed(make: object) -> None:
    """As XML, with a title and a description, and every place within the frame."""
    assert callable(make)
    for drawing in picture.drawings(moments.picture(make()), "p"):
        root = ElementTree.fromstring(drawing)
        assert root.get("role") == "img"
        assert [each.tag for each in root][:2] == ["title", "desc"]
        width = float(root.get("viewBox", "").split()[2])
        for each in root.iter("rect"):
            if each.get("x") is not None:
                assert 0 <= float(each.get("x", "")) <= width
        assert "nan" not in drawing


def test_a_long_window_around_few_packets_is_not_drawn() -> None:
    """The picture shows the packets, and the window only where they fill a good part of it."""
    case = cases.rich()
    shown = moments.picture(case)
    assert shown.from_ns < case.covered[0]
    assert shown.to_ns > case.covered[1]
    told = cases.details()
    told["when"] |= {
        "covered": {"from_ns": cases.at(-3600), "to_ns": cases.at(600)},
        "first_packet_ns": cases.at(-1),
        "last_packet_ns": cases.at(2),
    }
    from dataclasses import replace

    short = replace(cases.empty(), manifest=replace(cases.manifest(), details=told))
    shown = moments.picture(short)
    assert shown.to_ns - shown.from_ns < 10 * cases.SECOND
