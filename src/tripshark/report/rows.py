"""How rows of findings and of the manifest become the rows of a table: columns, times, packets and filters."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from tripshark.model.alert import Json
from tripshark.report import words
from tripshark.report.case import Case, number, sequence, text
from tripshark.report.document import As, Block, Column, Table, table

Row = Mapping[str, Json]

_STYLES = {"n": As.NUMBER, "m": As.MONO, "f": As.FILTER}


def _columns(said: str) -> tuple[Column, ...]:
    parts = (each.partition(":") for each in said.split("|"))
    return tuple(Column(name.strip(), _STYLES.get(style, As.TEXT)) for name, _, style in parts)


def filled(caption: str, columns: str, rows: Iterator[tuple[str, ...]]) -> Table:
    """`columns` as `Name:m|Type`: n a number, m of one width, f a filter."""
    return table(caption, _columns(columns), rows)


def listed(
    case: Case, name: str, caption: str, columns: str, cells: Callable[[Row], tuple[str, ...]]
) -> Sequence[Block]:
    """One table of the findings, where it has rows."""
    rows: Sequence[Row] = getattr(case.findings, name) if case.findings is not None else ()
    if not rows:
        return []
    return [filled(caption, columns, ((*cells(row), *where(row)) for row in rows))]


def where(row: Row) -> tuple[str, str]:
    """Its packet and the filter that shows it."""
    return str(number(row.get("frame")) or ""), text(row.get("filter"), 2000)


def from_t0(case: Case, value: Json) -> str:
    """A time as its distance from T0; nothing where there is none."""
    at = number(value)
    return words.offset(at, case.t0_ns) if at else ""


def texts(value: Json) -> list[str]:
    """The first 20 of a list that are text."""
    return [text(each) for each in sequence(value)[:20] if isinstance(each, str)]


def any_of(value: Json) -> str:
    """A number or a text, whichever it is."""
    return str(value) if type(value) is int else text(value)
