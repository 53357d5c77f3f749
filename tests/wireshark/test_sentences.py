"""No name, however hostile, becomes more than the value of one sentence."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from tripshark.wireshark.sentences import (
    ANY,
    Listed,
    interfaces,
    options,
    quoted,
    unquoted,
    values,
)

_FIELD = re.compile(r"\{([a-zA-Z_-]*?)=(.*?)\}")  # as Wireshark reads it


@given(value=st.text(), display=st.text())
def test_a_sentence_stays_one(value: str, display: str) -> None:
    """Braces, line ends and fields within a name make neither a line nor a field."""
    lines = list(interfaces([Listed(value=quoted(value), display=display)]))
    assert all(len(each.splitlines()) == 1 for each in lines)
    (found,) = (each for each in lines if each.startswith("interface "))
    assert [name for name, _ in _FIELD.findall(found)] == ["value", "display"]
    assert _FIELD.sub("", found) == "interface "


@given(name=st.text(alphabet=st.characters(exclude_categories=["Cs"])))
def test_a_quoted_name_comes_back(name: str) -> None:
    """What Wireshark hands back is the name that was listed; it holds nothing that shells or braces could mean."""
    assert unquoted(quoted(name)) == name
    assert re.fullmatch(r"[A-Za-z0-9_.~/:@+%-]*", quoted(name))


def test_an_old_wireshark_is_told_what_it_knows() -> None:
    """4.0 refuses a list that can be typed into; later ones get it, with what is there."""
    old, new = (list(options(ANY, version, {"a/b": "Pod a/b"})) for version in ((4, 0), (4, 4)))
    assert not any("editselector" in line for line in old)
    assert any("{type=editselector}{reload=true}" in line for line in new)
    assert "value {arg=3}{value=a/b}{display=Pod a/b}" in new
    assert not any("--target" in line for line in options("tripshark:a/b", (4, 4), {}))
    assert list(values(3, {"x}{y=z": "}"})) == ["value {arg=3}{value=x)(y=z}{display=)}"]
