"""What commands print: whole ids, readable widths, and nothing hostile."""

from __future__ import annotations

import io
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from tripshark.cli.common import paragraphs, printable, seen, size, span, when
from tripshark.cli.incidents import LIST
from tripshark.cli.table import GAP, Column, fit


@given(text=st.text())
def test_foreign_text_stays_on_its_line_and_moves_no_cursor(text: str) -> None:
    """No control, line end, direction or zero-width character survives."""
    shown = seen(text)
    assert all(unicodedata.category(each)[0] not in "C" for each in shown)
    assert len(shown.splitlines()) <= 1


@given(text=st.text(alphabet=st.characters(codec="utf-8")) | st.from_regex(r"\[/?[a-z #=]*\]"))
def test_foreign_text_is_no_markup(text: str) -> None:
    """Brackets, colours, links and emoji names of an alert are shown as they came."""
    console = Console(file=io.StringIO(), highlight=False, emoji=False, soft_wrap=True)
    console.print(f"<{printable(text)}>", end="")
    assert isinstance(console.file, io.StringIO)
    kept = seen(text).rstrip("\\")
    last = "\\x5c" * (len(seen(text)) - len(kept))  # else it would escape markup behind it
    assert console.file.getvalue() == f"<{kept}{last}>"


@pytest.mark.parametrize(
    ("hostile", "shown"),
    [
        ("a\x1b[31mred", "a\\x1b[31mred"),
        ("line\nforged: ok", "line\\x0aforged: ok"),
        ("abc\u202ecba", "abc\\u202ecba"),
        ("\ud800", "\\ud800"),
        ("[2001:db8::66]:4444", "[2001:db8::66]:4444"),
        (":a: :warning:", ":a: :warning:"),
    ],
)
def test_what_cannot_be_seen_is_spelled(hostile: str, shown: str) -> None:
    """Escapes are visible, addresses in brackets stay as they are."""
    assert seen(hostile) == shown


def test_our_own_words_may_have_several_lines() -> None:
    """Problems of a file stand one per line; within a line nothing hostile survives."""
    assert paragraphs("one\ntwo\x1b") == "one\ntwo\\x1b"


A_ROW = (
    "20261124t212554-50e5dc",
    "2026-11-24 21:25:54.620Z",
    "payments/checkout-7d9f",
    "Critical Outbound Connection to C2 Servers",
    "1",
    "18",
    "1.3 kB",
    "complete",
    "sealed",
)


@pytest.mark.parametrize("room", [80, 100, 120, 160])
def test_the_incident_list_fits_and_cuts_no_id(room: int) -> None:
    """At 80 and 120 columns every column shown is whole or folded between words, and the lines fit."""
    chosen, widths = fit(LIST, [[cell] for cell in A_ROW], room)
    assert sum(widths.values()) + GAP * (len(chosen) - 1) <= room
    for name in ("incident", "target", "alert", "ledger"):
        number = [column.heading for column in LIST].index(name)
        assert number in chosen
        longest = max(len(word) for word in A_ROW[number].split())
        assert widths[number] >= (longest if LIST[number].least else len(A_ROW[number]))


CELLS = st.lists(st.text(alphabet="ab ", max_size=40), min_size=1, max_size=4)


@given(
    columns=st.lists(
        st.builds(
            Column,
            st.text(alphabet="xyz", min_size=1, max_size=8),
            least=st.integers(0, 12),
            rank=st.integers(0, 3),
        ),
        min_size=1,
        max_size=7,
    ),
    cells=st.data(),
    room=st.integers(10, 200),
)
def test_columns_that_must_be_whole_are_whole_in_any_room(
    columns: list[Column], cells: st.DataObject, room: int
) -> None:
    """A column is as wide as its content, or folded, or left out; never cut; what has no rank is never left out."""
    own = [cells.draw(CELLS) for _ in columns]
    chosen, widths = fit(columns, own, room)
    for number, column in enumerate(columns):
        if not column.rank:
            assert number in chosen
        if number in chosen and not column.least:
            assert widths[number] >= max(map(cell_len, [column.heading, *own[number]]))
    total = sum(widths.values()) + GAP * (len(chosen) - 1)
    smaller = any(columns[number].rank for number in chosen)
    assert total <= room or not smaller


def test_numbers_and_times_are_for_people() -> None:
    """Units are spelled, an unknown time is a dash."""
    assert (size(12), size(48_200), size(2.5e15)) == ("12 B", "48.2 kB", "2500.0 TB")
    assert (span(1.25), span(90), span(7200)) == ("1.2 s", "1.5 min", "2.0 h")
    assert when(0) == "–"
    assert when(1_795_555_554_620_697_926) == "2026-11-24 21:25:54.620Z"
    assert Text.from_markup(printable("[b]")).plain == "[b]"
