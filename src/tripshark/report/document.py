"""What a report says, before it is HTML or Markdown: sections of sentences, facts, tables, findings and one picture.

All text in here is printable (`model.text.printable`) and none of it is markup: whoever writes it out escapes it.
Tables are cut at `MAX_ROWS`, and earlier where their text would be too long to be read, and say how much is left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from tripshark.model.finding import Severity
from tripshark.report.picture import Picture

MAX_ROWS = 500
TABLE_BYTES = 150_000  # of one table's text, about
VERBATIM_BYTES = 300_000  # of all verbatim text together


class As(StrEnum):
    """How a column's values look."""

    TEXT = "text"
    NUMBER = "number"
    MONO = "mono"  # addresses, hashes, names of files
    FILTER = "filter"  # a display filter, to be copied whole


@dataclass(frozen=True, slots=True)
class Paragraph:
    """Sentences."""

    text: str


@dataclass(frozen=True, slots=True)
class Points:
    """A list of sentences."""

    items: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Facts:
    """Name and value, one below the other. A value that begins with a space is never made."""

    rows: tuple[tuple[str, str, As], ...]


@dataclass(frozen=True, slots=True)
class Column:
    name: str
    style: As = As.TEXT


@dataclass(frozen=True, slots=True)
class Table:
    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[str, ...], ...]
    left_out: int = 0


@dataclass(frozen=True, slots=True)
class Verbatim:
    """Something quoted as it came."""

    caption: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """One finding."""

    id: str
    severity: Severity
    title: str
    text: str
    facts: Facts
    checked: bool
    filter: str


Block = Paragraph | Points | Facts | Table | Verbatim | Claim | Picture


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    id: str  # of the place in the page: letters and dashes
    title: str
    blocks: tuple[Block, ...]
    fresh_page: bool = False  # on paper
    is_broad: bool = False  # its tables need paper laid on its side


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One of the first questions a reader has."""

    question: str
    sentences: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Chapter:
    """What is told of one part of an incident; most incidents have one."""

    prefix: str  # of ids, so that several fit into one page; "" of the first
    heading: str  # which part this is; "" where there is one
    answers: tuple[Answer, ...]
    sections: tuple[Section, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    title: str
    incident: str
    severity: Severity
    lead: str  # the one paragraph
    facts: Facts
    chapters: tuple[Chapter, ...]
    manifests: tuple[str, ...]  # SHA-256 of each part's manifest
    made_by: str


def table(
    caption: str, columns: Sequence[Column], rows: Iterable[Sequence[str]], *, all_of: int = 0
) -> Table:
    """A table that fits. `all_of`: how many rows there would have been, where the caller has cut before."""
    kept: list[tuple[str, ...]] = []
    seen = size = 0
    for row in rows:
        seen += 1
        size += sum(map(len, row)) + 12 * len(row)
        if len(kept) < MAX_ROWS and size <= TABLE_BYTES:
            kept.append(tuple(row))
    return Table(caption, tuple(columns), tuple(kept), max(seen, all_of) - len(kept))
