"""The life of one incident: alerts on the same target, one running capture, as a transition table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from tripshark.model.alert import Json
from tripshark.model.evidence import IncidentId, Word
from tripshark.model.target import TargetKey


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
