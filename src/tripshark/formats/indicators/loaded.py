"""What reading a list gives: indicators, and every entry that is none, by place and reason. Nothing is skipped unsaid."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

from tripshark.model.claim import Severity
from tripshark.model.indicator import (
    MAX_INDICATORS,
    Indicator,
    Observation,
    Pattern,
    Term,
    refusal,
    remark,
)
from tripshark.model.text import printable

MAX_NAMED = 1_000  # entries that are told one by one; the rest is only counted


class Why(StrEnum):
    """What became of an entry that is told of."""

    UNREADABLE = "unreadable"  # not what its list says it is
    NOT_EVALUATED = "not evaluated"  # understood, and nothing that packets here could answer
    REFUSED = "refused"  # would match what everybody does
    REMARK = "remark"  # used all the same


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """One entry and what is to be said of it."""

    why: Why
    where: str  # "c2.txt:12", "bundle.json: objects[3].pattern"
    what: str  # the entry, printable
    message: str

    def __str__(self) -> str:
        return f"{self.where}: {self.why}: {self.what}: {self.message}"


@dataclass(slots=True)
class Loaded:
    """Everything read so far. `counts` is exact, `told` names at most `MAX_NAMED`."""

    indicators: list[Indicator] = field(default_factory=list)
    told: list[Told] = field(default_factory=list)
    counts: Counter[Why] = field(default_factory=Counter)
    _places: dict[tuple[str, tuple[Pattern, ...]], int] = field(default_factory=dict)

    def tell(self, why: Why, where: str, what: str, message: str) -> None:
        """Count an entry, and name it while there is room."""
        self.counts[why] += 1
        if len(self.told) < MAX_NAMED:
            told = Told(
                why=why, where=printable(where), what=printable(what, 120), message=message
            )
            self.told.append(told)

    def add(
        self,
        patterns: Iterable[Pattern],
        *,
        name: str,
        source: str,
        note: str = "",
        severity: Severity = Severity.HIGH,
        techniques: Sequence[str] = (),
    ) -> None:
        """Take an indicator in, without the patterns that would match what everybody does.

        What a list names again is the indicator it named before, as severe as it is anywhere.
        """
        good = []
        for pattern in patterns:
            whole = [term for terms in pattern.observations for term in terms]
            if problem := next(filter(None, map(self._refused, pattern.observations)), ""):
                self.tell(Why.REFUSED, source, name, problem)
                continue
            if said := next(filter(None, map(remark, whole)), ""):
                self.tell(Why.REMARK, source, name, said)
            good.append(pattern)
        if not good:
            return
        key = (source.partition(":")[0], tuple(good))
        if (place := self._places.get(key)) is not None:
            known = self.indicators[place]
            self.indicators[place] = replace(
                known,
                severity=max(known.severity, severity, key=lambda each: each.rank),
                techniques=tuple(dict.fromkeys((*known.techniques, *techniques))),
            )
            return
        if len(self.indicators) >= MAX_INDICATORS:
            self.tell(Why.REFUSED, source, name, f"more than {MAX_INDICATORS} indicators")
            return
        self._places[key] = len(self.indicators)
        self.indicators.append(
            Indicator(
                name=printable(name),
                patterns=tuple(good),
                source=printable(source),
                note=printable(note),
                severity=severity,
                techniques=tuple(dict.fromkeys(techniques)),
            )
        )

    @staticmethod
    def _refused(terms: Observation) -> str:
        """One narrow term makes an observation narrow; ports alone do not."""
        selective = [term for term in terms if term.is_selective]
        if not selective:
            return "a port or protocol alone is no indicator"
        problems = [refusal(term) for term in selective]
        return problems[0] if all(problems) else ""


def alone(*terms: Term) -> tuple[Pattern, ...]:
    """Any one of these terms is enough."""
    return tuple(Pattern(((term,),)) for term in terms)
