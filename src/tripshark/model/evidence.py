"""What was kept, what is missing, and how we know that nothing was changed since."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NewType

from tripshark.model.alert import Json

IncidentId = NewType("IncidentId", str)


class Word(StrEnum):
    """The ledger in one word, worst last."""

    COMPLETE = "complete"
    TRUNCATED = "truncated"  # a limit was reached, or packets were lost or cut
    EXPIRED = "expired"  # the history asked for was no longer there
    INTERRUPTED = "interrupted"  # the capture was cut off and salvaged


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One thing that is missing, or one thing said for honesty's sake."""

    kind: str  # "kernel_drops", "overwritten", "window_start", "limit", "recorder_restart", "tunnel", …
    message: str
    word: Word = Word.COMPLETE  # what this entry makes of the whole
    count: int = 0
    from_ns: int = 0
    to_ns: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Ledger:
    """Everything known to be missing. Empty and *complete* is a claim we stake a case on."""

    entries: tuple[Entry, ...] = ()

    @property
    def word(self) -> Word:
        order = list(Word)
        return max((entry.word for entry in self.entries), key=order.index, default=Word.COMPLETE)


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedFile:
    name: str  # within the evidence folder, never a path
    sha256: str
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What, why, who, where, when, how, and what is missing. `details` is plain JSON, grouped so."""

    incident: IncidentId
    created_ns: int
    ledger: Ledger
    files: tuple[SealedFile, ...]
    details: Mapping[str, Json] = field(default_factory=dict)
