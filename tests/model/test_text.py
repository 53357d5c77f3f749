"""Foreign text made safe to look at."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tripshark.model.text import INVISIBLE, visible


@pytest.mark.parametrize(
    ("hostile", "shown"),
    [
        ("\x1b[2J", "\\x1b[2J"),
        ("a\nb", "a\\x0ab"),
        ("abc\u202ecba", "abc\\u202ecba"),
        ("\U000e0001", "\\U000e0001"),
        ("ünï → code", "ünï → code"),
    ],
)
def test_what_cannot_be_seen_is_spelled(hostile: str, shown: str) -> None:
    """Controls, line ends, changes of direction; everything visible stays."""
    assert visible(hostile) == shown


@given(st.text())
def test_nothing_invisible_is_left(text: str) -> None:
    """Whatever the text, and a second look changes nothing."""
    safe = visible(text)
    assert not any(unicodedata.category(each) in INVISIBLE for each in safe)
    assert visible(safe) == safe
