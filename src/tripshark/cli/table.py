"""Tables that fit: what must be whole stays whole, what explains is folded, what matters least goes first."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tripshark.cli.common import err, out

GAP = 2  # spaces between columns
LONG_WORD = 32  # characters; longer ones are folded within
UNLIMITED = 4096  # columns of a "terminal" that is a file or a pipe


@dataclass(frozen=True, slots=True)
class Column:
    """One column. Cells are rich markup: foreign text in them has gone through `printable`."""

    heading: str
    right: bool = False
    least: int = 0  # may be folded down to this many characters; 0: never folded, never cut
    rank: int = 0  # with too little room the highest rank is left out first; 0: never left out


def show(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> None:
    """Print the rows as wide as the terminal allows; a pipe gets everything on one line each."""
    cells = [
        [line for row in rows for line in Text.from_markup(row[number]).plain.split("\n")]
        for number in range(len(columns))
    ]
    chosen, widths = fit(columns, cells, _room())
    table = Table(box=None, padding=(0, GAP, 0, 0), pad_edge=False, header_style="bold")
    for number in chosen:
        column = columns[number]
        justify: Literal["left", "right"] = "right" if column.right else "left"
        table.add_column(
            column.heading, justify=justify, width=widths[number], overflow="fold", no_wrap=False
        )
    for row in rows:
        table.add_row(*(row[number] for number in chosen))
    width = sum(widths[n] + GAP for n in chosen)
    Console(highlight=False, emoji=False, width=width).print(table)
    left_out = [c.heading for n, c in enumerate(columns) if n not in chosen]
    if left_out and err.is_terminal:
        err.print(f"[dim]left out for width: {', '.join(left_out)}[/]")


def fit(
    columns: Sequence[Column], cells: Sequence[Sequence[str]], room: int
) -> tuple[list[int], dict[int, int]]:
    """Which columns are shown, and how wide each is; `cells` are those of each column."""
    natural = [
        max([cell_len(column.heading), *map(cell_len, own)])
        for column, own in zip(columns, cells, strict=True)
    ]
    floors = [
        _floor(column, own, most)
        for column, own, most in zip(columns, cells, natural, strict=True)
    ]
    chosen = list(range(len(columns)))
    while True:
        floor = {n: floors[n] for n in chosen}
        spare = room - sum(floor.values()) - GAP * (len(chosen) - 1)
        dispensable = [n for n in chosen if columns[n].rank]
        if spare >= 0 or not dispensable:
            break
        chosen.remove(max(dispensable, key=lambda n: columns[n].rank))
    widths = dict(floor)
    # with too little room even so, long words are folded within, those of the widest column first
    for number in sorted((n for n in chosen if columns[n].least), key=lambda n: -floor[n]):
        taken = min(max(0, -spare), max(0, floor[number] - columns[number].least))
        widths[number] -= taken
        spare += taken
    # what is left goes to those that are folded, the one that needs least first
    wanting = sorted((n for n in chosen if natural[n] > floor[n]), key=lambda n: natural[n])
    for place, number in enumerate(wanting):
        share = max(0, spare) // (len(wanting) - place)
        given = min(share, natural[number] - floor[number])
        widths[number] += given
        spare -= given
    return chosen, widths


def _floor(column: Column, cells: Sequence[str], natural: int) -> int:
    """A column that may be folded is folded between words, unless they are very long."""
    if not column.least:
        return natural
    words = (cell_len(word) for cell in cells for word in cell.split())
    longest = min(LONG_WORD, max(words, default=0))
    return min(natural, max(column.least, cell_len(column.heading), longest))


def _room() -> int:
    """Characters of a line: those of the terminal; `COLUMNS` where it is set."""
    return out.width if out.is_terminal or os.environ.get("COLUMNS") else UNLIMITED
