"""How numbers, times and names read on pages: `12 s ago`, `48.2 kB`, `2026-11-25 10:15:02.104 UTC`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from markupsafe import Markup, escape

from tripshark.model.evidence import rfc3339
from tripshark.model.incident import EVERY, Incident, State
from tripshark.model.text import visible


def ago(then_ns: int, now_ns: int) -> str:
    """A distance for people; "" for a time that never was."""
    if then_ns <= 0:
        return ""
    return f"{span((now_ns - then_ns) / 1e9)} ago"


def span(seconds: float) -> str:
    """A length of time: `12 s`, `3 min`, `5 h`, `2 d`."""
    seconds = max(0.0, seconds)
    for size, name in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {name}"
    return f"{seconds:.0f} s" if seconds >= 10 or seconds == int(seconds) else f"{seconds:.1f} s"


def moment(ns: int) -> str:
    """To the second, in UTC."""
    return f"{rfc3339(ns)[:19].replace('T', ' ')} UTC" if ns > 0 else ""


def exact(ns: int) -> str:
    """To the millisecond, in UTC."""
    return f"{rfc3339(ns)[:23].replace('T', ' ')} UTC" if ns > 0 else ""


def clock(ns: int) -> str:
    """The time of the day alone, to the millisecond."""
    return rfc3339(ns)[11:23] if ns > 0 else ""


def offset(ns: int, t0_ns: int) -> str:
    """Before or after T0: `−2.104 s`, `+0.141 ms`, `0`."""
    if ns <= 0 or t0_ns <= 0:
        return ""
    seconds = (ns - t0_ns) / 1e9
    sign = "−" if seconds < 0 else "+"
    if abs(seconds) < 0.01:
        return f"{sign}{abs(seconds) * 1000:.3f} ms" if seconds else "0"
    return f"{sign}{abs(seconds):.3f} s"


def size(count: int) -> str:
    """Bytes in SI units: `512 B`, `48.2 kB`, `1.3 GB`."""
    number = float(count)
    if abs(number) < 1000:
        return f"{count} B"
    for unit in ("kB", "MB", "GB"):
        number /= 1000
        if abs(number) < 999.5:
            return f"{number:.1f} {unit}" if abs(number) < 99.5 else f"{number:.0f} {unit}"
    return f"{number / 1000:.1f} TB"


def number(count: int) -> str:
    """Grouped by thousands with thin spaces: `17 204`."""
    return f"{count:,}".replace(",", "\N{THIN SPACE}")


def count(of: int, one: str, many: str = "") -> str:
    """`1 packet`, `17 204 packets`."""
    return f"{number(of)} {one if of == 1 else many or one + 's'}"


def severity(priority: str) -> str:
    """Falco's eight priorities in the five words by which findings are graded."""
    return _SEVERITY.get(priority.lower(), "info")


def word(it: Incident) -> str:
    """An incident's state in one word; of sealed evidence, its ledger's."""
    return it.word.value if it.state is State.SEALED else it.state.value


def others(it: Incident) -> str:
    """Whose packets are in it as well: the other end's, a workload's, a whole machine's."""
    names = ["others" if each == EVERY else each for each in it.namespaces if each != it.namespace]
    return f"with {', '.join(names)}" if it.namespace and names else ""


_SEVERITY: Final = {
    "emergency": "critical",
    "alert": "critical",
    "critical": "critical",
    "error": "high",
    "warning": "medium",
    "notice": "low",
}


def lines(text: str) -> Markup:
    """Text of several lines; within each, what cannot be seen is spelled out."""
    return Markup("\n").join(escape(visible(each)) for each in text.split("\n"))


FILTERS: Final[Mapping[str, Callable[..., str]]] = {
    "ago": ago,
    "span": span,
    "moment": moment,
    "exact": exact,
    "clock": clock,
    "offset": offset,
    "size": size,
    "number": number,
    "count": count,
    "severity": severity,
    "word": word,
    "others": others,
    "lines": lines,
}
