"""Which sealed evidence must go, and whether one more capture fits on the disk."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from tripshark.model.evidence import IncidentId
from tripshark.model.plan import Reason, Refusal

_DAY_NS = 86_400_000_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """Sealed evidence as retention sees it."""

    incident: IncidentId
    sealed_ns: int
    bytes: int
    held: bool = False  # a legal hold: retention never touches it
    unsent: bool = False  # it should lie in the object store, and does not yet


@dataclass(frozen=True, slots=True, kw_only=True)
class Removal:
    """One incident's evidence that must go."""

    incident: IncidentId
    bytes: int
    why: str  # goes into the custody's last entry
    unsent: bool = False  # the only copy goes


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """What evidence may cost on disk. 0 means no bound."""

    max_age_ns: int = 0
    max_bytes: int = 0  # all evidence together, drafts included
    reserve_bytes: int = 0  # of the disk's free space that is never touched


def overdue(
    kept: Iterable[Kept], *, now_ns: int, budget: Budget, other_bytes: int = 0
) -> tuple[Removal, ...]:
    """What must go now, oldest first: all that is too old, then as much as brings the rest within the budget.

    What is not in the object store yet goes last, for want of space alone, never for its age. `other_bytes` counts against the budget and cannot be removed (drafts of running captures). Held evidence
    counts too and never goes, so the budget can stay exceeded: `room` then refuses new captures.
    """
    oldest_first = sorted(kept, key=lambda each: (each.unsent, each.sealed_ns, each.incident))
    excess = sum(each.bytes for each in oldest_first) + other_bytes - budget.max_bytes
    removals = []
    for each in oldest_first:
        if each.held:
            continue
        age_ns = now_ns - each.sealed_ns
        if budget.max_age_ns and age_ns > budget.max_age_ns and not each.unsent:
            why = f"older than {_days(budget.max_age_ns)}"
        elif budget.max_bytes and excess > 0:
            why = f"the oldest, and all evidence together exceeds {_size(budget.max_bytes)}"
        else:
            continue
        if each.unsent:
            why += "; it was never sent to the object store, which was away too long"
        removals.append(
            Removal(incident=each.incident, bytes=each.bytes, why=why, unsent=each.unsent)
        )
        excess -= each.bytes
    return tuple(removals)


def room(
    wanted_bytes: int,
    *,
    budget: Budget,
    used_bytes: int,
    free_bytes: int,
    promised_bytes: int = 0,
    removable_bytes: int = 0,
) -> Refusal | None:
    """Whether one more capture fits: None, or the refusal that says what would change the answer.

    `wanted_bytes` is the most it may write, spool and final file together; `promised_bytes` is what running
    captures may still write; `removable_bytes` is what `overdue` could free (sealed and not held).
    """
    needed = wanted_bytes + promised_bytes
    if budget.max_bytes and used_bytes - removable_bytes + needed > budget.max_bytes:
        return Refusal(
            reason=Reason.DISK,
            message=(
                f"evidence may take {_size(budget.max_bytes)}, and {_size(used_bytes)} of it are used"
                f" ({_size(removable_bytes)} removable, {_size(promised_bytes)} promised to"
                f" running captures); this one may need {_size(wanted_bytes)}"
            ),
            hint="raise bounds.disk, lower the rule's max bytes, or lift a legal hold",
        )
    if free_bytes + removable_bytes - needed < budget.reserve_bytes:
        return Refusal(
            reason=Reason.DISK,
            message=(
                f"the disk has {_size(free_bytes)} left, of which {_size(budget.reserve_bytes)} are"
                f" kept in reserve; this capture may need {_size(wanted_bytes)}"
            ),
            hint="free space on the disk, lower bounds.reserve, or lower the rule's max bytes",
        )
    return None


def _size(count: int) -> str:
    for unit, factor in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= factor:
            return f"{count / factor:.1f} {unit}"
    return f"{count} bytes"


def _days(ns: int) -> str:
    return f"{ns / _DAY_NS:.3g} days"
