"""What an event would lead to, tried without doing it: which rules match and why, which target, window and filter."""

from __future__ import annotations

from dataclasses import dataclass, replace

from tripshark.formats import falco
from tripshark.model.alert import Alert, Json
from tripshark.model.plan import Defaults, Plan, Refusal, decide
from tripshark.model.rule import RuleSet, Verdict, evaluate
from tripshark.model.target import (
    Identity,
    Interface,
    Resolution,
    RingState,
    Target,
    TargetKey,
    TargetKind,
)
from tripshark.ports import Targets


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """What came of it."""

    alert: Alert
    resolution: Resolution
    verdict: Verdict
    answer: Plan | Refusal
    supposed: Plan | Refusal | None = (
        None  # on a machine that records the target, where this one does not
    )


async def attempt(
    body: bytes,
    *,
    rules: RuleSet,
    targets: Targets,
    now_ns: int,
    defaults: Defaults,
) -> Trial:
    """Nothing is frozen, counted or kept. Raises `BadInput` for what is no event, and what the targets raise."""
    alert = falco.decode(body)
    return judged(
        alert, await targets.resolve(alert), rules=rules, now_ns=now_ns, defaults=defaults
    )


def judged(
    alert: Alert, resolution: Resolution, *, rules: RuleSet, now_ns: int, defaults: Defaults
) -> Trial:
    """The same, where it is known already which target is meant."""
    verdict = evaluate(rules, alert, resolution.target)

    def decided(where: Resolution) -> Plan | Refusal:
        return decide(alert, verdict, where, now_ns=now_ns, defaults=defaults)

    return Trial(
        alert=alert,
        resolution=resolution,
        verdict=verdict,
        answer=decided(resolution),
        supposed=None if resolution.target else decided(_elsewhere(alert)),
    )


def as_json(it: Trial) -> dict[str, Json]:
    """As `tripshark rules test --json` and `POST /v1/rules/test` say it."""
    told: dict[str, Json] = {
        "alert": {
            "rule": it.alert.rule,
            "priority": it.alert.priority.title,
            "t0_ns": it.alert.time_ns,
        },
        "target": it.resolution.target.title if it.resolution.target else None,
        "target_reason": it.resolution.reason,
        "target_hint": it.resolution.hint,
        "rules": [
            {"rule": each.rule.name, "matched": each.matched, "why_not": list(each.why)}
            for each in it.verdict.traces
        ],
        "plan": None,
        "refusal": None,
        "where_it_is_recorded": None,
    }
    if isinstance(it.answer, Plan):
        told["plan"] = _plan(it.answer)
    else:
        told["refusal"] = {
            "reason": it.answer.reason.value,
            "message": it.answer.message,
            "hint": it.answer.hint,
            "rule": it.answer.rule,
        }
    if isinstance(it.supposed, Plan):
        told["where_it_is_recorded"] = _plan(it.supposed)
    return told


def _plan(it: Plan) -> dict[str, Json]:
    return {
        "rule": it.rule,
        "reason": it.reason,
        "scope": it.scope.value,
        "before_ns": it.before_ns,
        "after_ns": it.after_ns,
        "idle_ns": it.idle_ns,
        "snaplen": it.snaplen,
        "filter": it.user_filter,
        "max_bytes": it.limits.max_bytes,
        "max_packets": it.limits.max_packets,
        "rungs": [
            {
                "scope": each.scope.value,
                "core": each.core,
                "also": each.also,
                "reason": each.reason,
            }
            for each in it.rungs
        ],
    }


def _elsewhere(alert: Alert) -> Resolution:
    """The alert's target as a machine would know it that records it."""
    name = f"{alert.namespace}/{alert.pod}" if alert.pod else alert.container_id or "the target"
    target = supposed(name, TargetKind.NETNS)
    if alert.pod and alert.namespace:
        identity = Identity(namespace=alert.namespace, pod=alert.pod)
        target = replace(target, identity=identity)
    return Resolution(target=target, reason=f"{name} is supposed to be recorded")


def supposed(name: str, kind: TargetKind, *, snaplen: int = 262_144) -> Target:
    """A target as if it were recorded."""
    ring = RingState(
        ring="supposed",
        interface=Interface(name="eth0", ifindex=2, hardware_type=1),
        live=True,
        bytes=0,
        snaplen=snaplen,
    )
    return Target(key=TargetKey(name), kind=kind, name=name, inode=0, since_ns=0, rings=(ring,))
