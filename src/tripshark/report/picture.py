"""How the packets lie in time, out above the line and in below it, with what happened around them: one picture as SVG.

It is drawn twice, for wide and for narrow pages, because text in a scaled picture cannot be read. Colours are classes:
the page decides what they look like by day, by night and on paper. No text in it comes from packets.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tripshark.model.finding import Activity
from tripshark.report import words

_WIDE, _NARROW = 960, 360
_HEIGHT = 288
_TOP, _BOTTOM = 44, 50  # room for marks above, for the axis and a line of words below
_LEFT, _RIGHT = 34, 8
_MARKS = 40  # marks of one kind that are drawn


@dataclass(frozen=True, slots=True)
class Mark:
    """Something that happened at a moment."""

    at_ns: int
    kind: str  # "alert", "born", "gone"
    text: str


@dataclass(frozen=True, slots=True)
class Gap:
    """A time of which something is missing; `to_ns` may be the same moment."""

    from_ns: int
    to_ns: int
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """What is to be drawn, and the same in words."""

    title: str
    description: str
    t0_ns: int
    from_ns: int
    to_ns: int
    covered: tuple[int, int]
    activity: Activity
    marks: tuple[Mark, ...] = ()
    gaps: tuple[Gap, ...] = ()

    def svg(self, width: int, name: str) -> str:
        """One `<svg>`; `name` makes its ids unique in the page. Every text in it is escaped."""
        return _Drawing(self, width, name).svg()


def drawings(picture: Picture, name: str) -> tuple[str, str]:
    """The wide and the narrow one."""
    return picture.svg(_WIDE, f"{name}-wide"), picture.svg(_NARROW, f"{name}-narrow")


@dataclass(frozen=True, slots=True)
class Bins:
    """Packets out and in, per bin of `step_ns` from `start_ns` on."""

    start_ns: int
    step_ns: int
    out: tuple[int, ...]
    into: tuple[int, ...]


def bins(activity: Activity, most: int, t0_ns: int) -> Bins:
    """At most `most` + 1 bins, of which none begins before T0 and ends after it where that can be had."""
    length = len(activity.packets_out)
    if not length or activity.step_ns <= 0:
        return Bins(0, 0, (), ())
    by = -(-length // most)
    early = -(-(t0_ns - activity.start_ns) // activity.step_ns) % by  # in a first bin of their own
    lead = by - early if early else 0
    return Bins(
        activity.start_ns - lead * activity.step_ns,
        activity.step_ns * by,
        _joined(activity.packets_out, by, lead),
        _joined(activity.packets_in, by, lead),
    )


def _joined(column: Sequence[int], by: int, lead: int) -> tuple[int, ...]:
    padded = [0] * lead + list(column)
    return tuple(sum(padded[at : at + by]) for at in range(0, len(padded), by))


def ticks(from_ns: int, to_ns: int, t0_ns: int, most: int) -> list[int]:
    """Round offsets from T0 within the span, as moments; at most `most` + 1."""
    width = to_ns - from_ns
    step = 1_000
    while width / step > most:
        digit = int(str(step)[0])
        step = step * 2 if digit != 2 else step * 5 // 2
    first = -((t0_ns - from_ns) // step)
    found: list[int] = []
    while t0_ns + first * step <= to_ns and len(found) <= most:
        found.append(t0_ns + first * step)
        first += 1
    return found


class _Drawing:
    def __init__(self, picture: Picture, width: int, name: str) -> None:
        self._of = picture
        self._width = width
        self._name = name
        self._middle = _TOP + (_HEIGHT - _TOP - _BOTTOM) / 2
        self._half = (_HEIGHT - _TOP - _BOTTOM) / 2 - 6
        self._made: list[str] = []

    def svg(self) -> str:
        of = self._of
        self._add(
            f'<svg class="plot {"wide" if self._width == _WIDE else "narrow"}" viewBox="0 0 {self._width} {_HEIGHT}" role="img" '
            f'aria-labelledby="{self._name}-t {self._name}-d">'
            f'<title id="{self._name}-t">{_escaped(of.title)}</title>'
            f'<desc id="{self._name}-d">{_escaped(of.description)}</desc>'
            f'<defs><pattern id="{self._name}-h" width="6" height="6" patternUnits="userSpaceOnUse" '
            'patternTransform="rotate(45)"><line class="hatch" y2="6"/></pattern></defs>'
        )
        self._window()
        self._axis()
        self._bars()
        self._gaps()
        self._marks()
        self._add("</svg>")
        return "".join(self._made)

    def _add(self, markup: str) -> None:
        self._made.append(markup)

    def _x(self, ns: int) -> float:
        of = self._of
        inside = min(max(ns, of.from_ns), of.to_ns) - of.from_ns
        share = inside / max(1, of.to_ns - of.from_ns)
        return round(_LEFT + share * (self._width - _LEFT - _RIGHT), 1)

    def _text(self, x: float, y: float, text: str, kind: str, anchor: str = "middle") -> None:
        self._add(
            f'<text class="{kind}" x="{x:g}" y="{y:g}" text-anchor="{anchor}">{_escaped(text)}</text>'
        )

    def _window(self) -> None:
        since, until = self._of.covered
        if until > since:
            x, end = self._x(since), self._x(until)
            self._add(
                f'<rect class="covered" x="{x:g}" y="{_TOP}" width="{max(1.0, end - x):g}" '
                f'height="{_HEIGHT - _TOP - _BOTTOM}"/>'
            )

    def _gaps(self) -> None:
        for gap in self._of.gaps[:_MARKS]:
            if gap.to_ns < self._of.from_ns or gap.from_ns > self._of.to_ns:
                continue
            x, end = self._x(gap.from_ns), self._x(gap.to_ns)
            self._add(
                f'<rect class="gap" x="{x:g}" y="{_TOP}" width="{max(3.0, end - x):g}" '
                f'height="{_HEIGHT - _TOP - _BOTTOM}" fill="url(#{self._name}-h)">'
                f"<title>{_escaped(gap.text)}</title></rect>"
                f'<rect class="loss" x="{x:g}" y="{_TOP - 5}" width="{max(3.0, end - x):g}" height="4"/>'
            )

    def _axis(self) -> None:
        of, y = self._of, _HEIGHT - _BOTTOM
        self._add(
            f'<path class="axis" d="M{_LEFT} {self._middle:g}H{self._width - _RIGHT}'
            f'M{_LEFT} {y}H{self._width - _RIGHT}"/>'
        )
        last = -1e9
        for at in ticks(of.from_ns, of.to_ns, of.t0_ns, 9 if self._width == _WIDE else 4):
            x = self._x(at)
            self._add(f'<path class="axis" d="M{x:g} {y}v4"/>')
            label = "T0" if at == of.t0_ns else words.offset(at, of.t0_ns)
            half = 3.4 * len(label)
            if x - half < max(last + 6, 0) or x + half > self._width:
                continue
            last = x + half
            self._text(x, y + 18, label, "tick")

    def _bars(self) -> None:
        plot = self._width - _LEFT - _RIGHT
        shown = bins(self._of.activity, plot // 6, self._of.t0_ns)
        most = max([*shown.out, *shown.into], default=0)
        if not most:
            self._text(self._width / 2, self._middle - 10, "no packets", "note")
            return
        for column, sign, kind in ((shown.out, -1, "out"), (shown.into, 1, "in")):
            path = []
            for at, packets in enumerate(column):
                if packets:
                    x = self._x(shown.start_ns + at * shown.step_ns)
                    width = max(1.5, self._x(shown.start_ns + (at + 1) * shown.step_ns) - x - 1)
                    height = max(1.5, self._half * packets / most)
                    path.append(
                        f"M{x:g} {self._middle:g}v{sign * height:.1f}h{width:.1f}v{-sign * height:.1f}z"
                    )
            if path:
                self._add(f'<path class="{kind}" d="{"".join(path)}"/>')
        self._scale(shown.step_ns, most)

    def _scale(self, step: int, most: int) -> None:
        for y, label in (
            (self._middle - self._half + 4, f"{most:,}"),
            (self._middle + 4, "0"),
            (self._middle + self._half + 4, f"{most:,}"),
        ):
            self._text(_LEFT - 5, y, label, "tick", "end")
        rate = f"{most * 1e9 / step:,.0f} per second" if step < 10**9 else ""
        wide = self._width == _WIDE
        bar = f"One bar is {words.span(step)}; the tallest is {words.count(most, 'packet')}"
        if not wide:
            bar, rate = f"bar: {words.span(step)}, tallest: {words.count(most, 'packet')}", ""
        self._text(_LEFT, _HEIGHT - 6, bar + (f" ({rate})" if rate else ""), "tick", "start")
        if wide:
            self._text(
                self._width - _RIGHT, _HEIGHT - 6, "out above the line, in below it", "tick", "end"
            )

    def _marks(self) -> None:
        bottom = _HEIGHT - _BOTTOM
        for kind in ("born", "gone", "alert"):
            for mark in [each for each in self._of.marks if each.kind == kind][:_MARKS]:
                if not self._of.from_ns <= mark.at_ns <= self._of.to_ns:
                    continue
                x = self._x(mark.at_ns)
                y = _TOP - 12 if kind == "alert" else _TOP - 2
                self._add(
                    f'<g class="{kind}"><title>{_escaped(mark.text)}</title>'
                    f'<path class="stem" d="M{x:g} {y}V{bottom}"/>'
                )
                if kind == "alert":
                    self._add(f'<path class="head" d="M{x:g} {_TOP - 8}l-5 -9h10z"/>')
                self._add("</g>")
        self._labels()

    def _labels(self) -> None:
        """Words above the marks, each where there is room left."""
        taken: list[tuple[float, float, int]] = []
        names = {"alert": "alert", "born": "pod starts", "gone": "pod ends"}
        for kind, name in names.items():
            here = [
                each
                for each in self._of.marks
                if each.kind == kind and self._of.from_ns <= each.at_ns <= self._of.to_ns
            ]
            if not here:
                continue
            label = name if len(here) == 1 else f"{len(here)} × {name}"
            x, half = self._x(here[0].at_ns), 3.3 * len(label)
            x = min(max(x, half + 2), self._width - half - 2)
            for line in (0, 1):
                free = all(
                    line != other or abs(x - middle) > half + reach + 6
                    for middle, reach, other in taken
                )
                if free:
                    taken.append((x, half, line))
                    self._text(x, 24 - 13 * line, label, f"label {kind}")
                    break


def _escaped(text: str) -> str:
    return (
        text.replace("&", "&amp;")
        .replace("<", "&lt;")
        .replace(">", "&gt;")
        .replace('"', "&quot;")
        .replace("'", "&#39;")
    )
