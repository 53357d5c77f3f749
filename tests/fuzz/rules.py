"""Fuzz target: rule files."""

from __future__ import annotations

from tripshark.formats import rulefile


def target(data: bytes) -> None:
    """Rules or problems, never an exception; rules that load print as rules that load the same."""
    loaded = rulefile.load([("fuzz.yaml", data.decode("utf-8", "replace"))])
    assert loaded.ok or loaded.problems
    for problem in loaded.problems:
        assert problem.line >= 1
        assert problem.column >= 1
        assert "\n" not in str(problem)
    again = rulefile.load([("again.yaml", rulefile.render(loaded.rules))])
    assert again.ok, [str(problem) for problem in again.problems]
    assert [rule.hash for rule in again.rules] == [rule.hash for rule in loaded.rules]
