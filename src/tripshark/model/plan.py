"""What to record for one match: a Plan, or a Refusal that says what would change the answer."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from tripshark.model.filter import Rung, Scope
from tripshark.model.target import TargetKey


class Reason(StrEnum):
    """Why there is no capture. Stored, counted and shown."""

    NO_RULE = "no_rule"  # no rule matches
    DRY_RUN = "dry_run"
    INTERNAL = "internal"  # Falco about itself
    OWN_PROCESS = "own_process"  # the alert is about Tripshark's own sockets or children
    NO_TARGET = "no_target"  # the alert's namespace is not known
    NOT_RECORDED = "not_recorded"  # known, but without a ring (policy or budget)
    COOLDOWN = "cooldown"
    RATE = "rate"  # token bucket of the rule or target is empty
    BUSY = "busy"  # too many captures at once
    DISK = "disk"  # the disk budget is spent
    EXPIRED = "expired"  # the history is gone
    UNSUPPORTED = (
        "unsupported"  # a scope this machine cannot do (workload, service: needs a cluster)
    )
    RECORDER_AWAY = "recorder_away"


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A "no" that we expect: kept with the alert and shown, where an exception would be lost."""

    reason: Reason
    message: str
    hint: str = ""
    rule: str = ""  # the Tripshark rule that asked, where one did


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Where a capture stops, whatever else happens."""

    max_bytes: int = 50_000_000  # bytes of packets written
    max_packets: int = 200_000
    extend_ns: int = 120_000_000_000  # repeats may lengthen `after` by this much in all


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What one capture is to be."""

    rule: str  # name of the Tripshark rule
    rule_hash: str  # SHA-256 of the rule's document
    target: TargetKey
    t0_ns: int
    before_ns: int
    after_ns: int
    idle_ns: int  # 0: never end early
    scope: Scope
    rungs: tuple[Rung, ...]  # narrowest first; the last always matches
    snaplen: int  # bytes per packet kept in the evidence; 262144 is everything
    user_filter: str = ""  # the rule's own filter, and-ed with every rung
    limits: Limits = Limits()
    reason: str = ""
    actions: tuple[str, ...] = ()
    notifiers: tuple[str, ...] = ()
