"""Charts of one line show what is there, on one scale, and where the alert lies."""

from __future__ import annotations

from tripshark.cli import charts
from tripshark.model.activity import Activity


def test_a_line_is_as_high_as_its_counts() -> None:
    """The largest fills its letter, one packet can be seen beside a million, none is blank."""
    assert charts.line([0, 1, 500_000, 1_000_000], 1_000_000) == " ▁▄█"
    assert charts.line([0, 0], 0) == "  "


def test_a_bar_is_as_long_as_its_share() -> None:
    """Within its ground; something is never nothing."""
    assert charts.bar(10, 10) == "█" * charts.BAR
    assert charts.bar(5, 10) == ("█" * 6).ljust(charts.BAR)
    assert charts.bar(1, 10**9) == "▏".ljust(charts.BAR)
    assert charts.bar(0, 0) == " " * charts.BAR


def test_traffic_is_joined_to_the_width_and_the_alert_marked() -> None:
    """600 bins become 60 letters; an alert before or after them points there."""
    one = (1,) * 600
    activity = Activity(
        start_ns=1000, step_ns=10, packets_out=one, packets_in=(0,) * 600, bytes_out=one,
        bytes_in=one,
    )  # fmt: skip
    sent, received, mark = charts.traffic(activity, 1000 + 30 * 100)
    assert (sent, received) == ("█" * 60, " " * 60)
    assert mark == " " * 30 + "▲ alert"
    assert charts.traffic(activity, 0)[2] == "◀ alert"
    assert charts.traffic(activity, 10**9)[2] == " " * 53 + "alert ▶"
    assert charts.traffic(Activity(), 5)[:2] == ("", "")
