"""The life of one incident: alerts on the same target, one running capture, as a transition table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from tripshark.model.alert import Json
from tripshark.model.evidence import IncidentId, Word
from tripshark.model.target import Target, TargetKey, TargetKind

EVERY: Final = "*"
"""Stands for all namespaces: packets of a whole machine, or of nobody knows whom."""


class State(StrEnum):
    OPEN = "open"  # frozen, following
    SEALING = "sealing"
    SEALED = "sealed"  # evidence is final; analysis may still add findings
    EMPTY = "empty"  # ended without one packet: evidence of absence is sealed too
    FAILED = "failed"  # no evidence could be written; the reason is kept
    REMOVED = "removed"  # deleted by retention, the record stays


@dataclass(frozen=True, slots=True, kw_only=True)
class Incident:
    """One incident as the catalogue keeps it."""

    id: IncidentId
    state: State
    target: TargetKey
    title: str  # namespace/pod or the namespace's own name
    namespace: str
    pod: str
    rule: str  # Tripshark rule of the first alert
    falco_rule: str
    priority: str
    t0_ns: int
    opened_ns: int
    sealed_ns: int = 0
    alerts: int = 1  # every copy counted
    packets: int = 0
    bytes: int = 0
    word: Word = Word.COMPLETE
    folder: str = ""
    summary: str = ""
    manifest_sha256: str = ""
    plan: Mapping[str, Json] = field(default_factory=dict)  # as planned, for salvage and display
    problem: str = ""
    namespaces: tuple[str, ...] = ()  # whose packets are in the evidence; `held` is what counts

    @property
    def held(self) -> tuple[str, ...]:
        """The namespaces on which a reader needs rights; `EVERY` where not all of them are known."""
        return self.namespaces or ((self.namespace,) if self.namespace else (EVERY,))


def namespaces_of(targets: Iterable[Target]) -> tuple[str, ...]:
    """Whose packets the rings of these targets hold: the host's ring holds everybody's."""
    names = {
        EVERY if each.kind is TargetKind.HOST else each.identity.namespace or EVERY
        for each in targets
    }
    return tuple(sorted(names)) or (EVERY,)
