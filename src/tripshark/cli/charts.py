"""Tiny charts of one line, for terminals."""

from __future__ import annotations

from collections.abc import Sequence

from tripshark.model.activity import Activity

HEIGHTS = " ▁▂▃▄▅▆▇█"
EIGHTHS = " ▏▎▍▌▋▊▉█"
WIDTH = 60
BAR = 12


def line(counts: Sequence[int], top: int) -> str:
    """One letter for each count, as high as it is of `top`; what is not 0 can be seen."""
    return "".join(HEIGHTS[(count * 8 + top - 1) // top] if top else " " for count in counts)


def bar(count: int, most: int) -> str:
    """A bar as long as `count` is of `most`, on a ground of `BAR` letters."""
    eighths = (count * BAR * 8 + most - 1) // most if most else 0
    whole, rest = divmod(min(eighths, BAR * 8), 8)
    return ("█" * whole + (EIGHTHS[rest] if rest else "")).ljust(BAR)


def traffic(activity: Activity, at_ns: int) -> tuple[str, str, str]:
    """What was sent, what was received, on one scale, and where `at_ns` lies below them."""
    bins = len(activity.packets_out)
    each = max(1, -(-bins // WIDTH))
    sent = _joined(activity.packets_out, each)
    received = _joined(activity.packets_in, each)
    top = max((*sent, *received), default=0)
    step_ns = activity.step_ns * each
    place = (at_ns - activity.start_ns) // step_ns if step_ns else 0
    mark = " " * min(max(place, 0), WIDTH - 1) + "▲ alert"
    if place < 0:
        mark = "◀ alert"
    elif place >= WIDTH:
        mark = " " * (WIDTH - 7) + "alert ▶"
    return line(sent, top), line(received, top), mark


def _joined(counts: Sequence[int], each: int) -> list[int]:
    return [sum(counts[at : at + each]) for at in range(0, len(counts), each)]
