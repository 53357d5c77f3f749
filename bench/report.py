"""Tables, targets and how to read them: the same words on the terminal and in docs/performance.md."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(kw_only=True)
class Table:
    """The first column is text, the others are numbers unless it says otherwise."""

    columns: Sequence[str]
    rows: list[Sequence[str]] = field(default_factory=list)
    title: str = ""
    numbers: bool = True

    def text(self) -> str:
        widths = [
            max(len(str(row[i])) for row in [self.columns, *self.rows])
            for i in range(len(self.columns))
        ]

        def line(cells: Sequence[str]) -> str:
            padded = [
                cell.ljust(width) if i == 0 or not self.numbers else cell.rjust(width)
                for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
            ]
            return "| " + " | ".join(padded) + " |"

        rule = "|" + "|".join(
            ("-" * (width + 2)) if i == 0 or not self.numbers else ("-" * (width + 1) + ":")
            for i, width in enumerate(widths)
        )
        head = [f"**{self.title}**", ""] if self.title else []
        return "\n".join([*head, line(self.columns), rule + "|", *map(line, self.rows)])


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Something that was to be reached, and whether it was."""

    what: str
    wanted: str
    found: str
    reached: bool

    @property
    def word(self) -> str:
        return "reached" if self.reached else "missed"


@dataclass(kw_only=True)
class Section:
    """One question: its tables, what was to be reached, and an honest reading."""

    title: str
    tables: list[Table] = field(default_factory=list)
    verdicts: list[Verdict] = field(default_factory=list)
    reading: list[str] = field(default_factory=list)

    def explain(self, text: str) -> None:
        """Add to the reading: one point per paragraph."""
        self.reading += [" ".join(each.split()) for each in text.split("\n\n") if each.strip()]

    def text(self) -> str:
        parts = [f"## {self.title}", *(table.text() for table in self.tables)]
        if self.verdicts:
            parts.append("\n".join(map(_sentence, self.verdicts)))
        if self.reading:
            parts.append("\n".join(map(_bullet, self.reading)))
        return "\n\n".join(parts) + "\n"


def _sentence(verdict: Verdict) -> str:
    return _bullet(
        f"**{verdict.word}**: {verdict.what}: {verdict.found} (to reach: {verdict.wanted})"
    )


def _bullet(text: str) -> str:
    return textwrap.fill(
        text, 110, initial_indent="- ", subsequent_indent="  ", break_long_words=False,
        break_on_hyphens=False,
    )  # fmt: skip


def document(
    sections: Sequence[Section], *, command: str, facts: Sequence[tuple[str, str]], seconds: float
) -> str:
    """The whole page."""
    summary = Table(columns=("what", "to reach", "found", ""), numbers=False)
    for section in sections:
        for verdict in section.verdicts:
            summary.rows.append((verdict.what, verdict.wanted, verdict.found, verdict.word))
    machine = Table(columns=("machine", ""), rows=list(facts), numbers=False)
    about = f"""\
Written by the bench itself; every figure below comes from one run of

    {command}

which took {seconds / 60:.1f} minutes. All programs ran on the same machine in the same run, taking turns within
each repetition, with a fixed amount of work; figures are medians. All traffic stayed in network namespaces."""
    parts = ["# Performance", about, machine.text(), summary.text()]
    return "\n\n".join([*parts, *(section.text().rstrip() for section in sections)]) + "\n"
