"""What to record for one match: a Plan, or a Refusal that says what would change the answer."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from enum import StrEnum

from tripshark.model.alert import Address, Alert
from tripshark.model.filter import Rung, Scope, ladder
from tripshark.model.recording import HEADERS_BYTES, Mode
from tripshark.model.rule import Capture, Rule, Verdict
from tripshark.model.target import Resolution, Target, TargetKey, TargetKind


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
    ELSEWHERE = "elsewhere"  # another node records what is meant, and was asked
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
    t0_ns: int  # the event's time, never one that is still to come
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Defaults:
    """What a capture is where its rule does not say."""

    before_ns: int = (
        30_000_000_000  # Falco tells of a connect when it ends: DNS came seconds before
    )
    after_ns: int = 10_000_000_000
    idle_ns: int = 0  # silence is evidence too: never end early unless asked to
    snaplen: int = 262_144
    limits: Limits = Limits()


def within_policy(plan: Plan, target: Target) -> Plan | Refusal:
    """The plan as far as the recording policy lets it go: what was recorded before the policy was known is no loophole."""
    if target.mode == Mode.OFF:
        return Refusal(
            reason=Reason.NOT_RECORDED,
            message=f"{target.title} is not recorded: {target.note or 'the policy says so'}",
            hint="record.selectors, record.privacy and the pod's annotation tripshark.dev/record decide",
            rule=plan.rule,
        )
    if target.mode == Mode.HEADERS and plan.snaplen > HEADERS_BYTES:
        return replace(
            plan, snaplen=HEADERS_BYTES, reason=f"{plan.reason}; the policy keeps headers alone"
        )
    return plan


FUTURE_NS = 5_000_000_000
"""How far an event may lie ahead of our clock before it is taken for one of now, and the plan says so."""


def decide(
    alert: Alert,
    verdict: Verdict,
    resolution: Resolution,
    *,
    now_ns: int,
    defaults: Defaults = Defaults(),
    host: Target | None = None,
    own_pids: Collection[int] = (),
    own_containers: Collection[str] = (),
    also: Collection[Address] = (),
    fleet: bool = False,
) -> Plan | Refusal:
    """What to record for one alert, or why nothing.

    `resolution` is the target the alert means, `host` the target that stands for this machine (for
    rules of scope node), `own_pids` and `own_containers` (ids, 12 digits or more) Tripshark's own,
    `also` what stands for the peer's address as well; `fleet`: somebody can tell who belongs to a workload.
    """
    if alert.is_internal:
        return Refusal(
            reason=Reason.INTERNAL,
            message="this is Falco's report about itself",
            hint="it is watched as a heartbeat: see `tripshark doctor`",
        )
    if _is_own(alert, own_pids, own_containers):
        return Refusal(
            reason=Reason.OWN_PROCESS,
            message=f"the alert is about Tripshark itself ({alert.process or alert.rule})",
            hint="load deploy/falco/tripshark-exceptions.yaml into Falco, and it stays silent",
        )
    rule, capture = verdict.rule, verdict.capture
    if rule is None or capture is None:
        return _no_rule(alert, verdict)
    if rule.dry_run:
        return Refusal(
            reason=Reason.DRY_RUN,
            message=f"the rule {rule.name!r} is on trial: nothing is recorded",
            hint='set dry_run: "false" in the rule',
            rule=rule.name,
        )
    return _plan(alert, verdict, rule, capture, resolution, now_ns, defaults, host, also, fleet)


_ANALYSTS = frozenset({"tshark", "dumpcap", "sharkd", "capinfos", "mergecap"})


def _is_own(alert: Alert, own_pids: Collection[int], own_containers: Collection[str]) -> bool:
    """Whether Tripshark caused this itself: by pid, by container, or by what its processes alone do.

    A name can be borrowed: whoever calls his malware `tripshark` must not become invisible. So names
    count only for the two things our processes do that Falco reports: a process of ours opens a
    socket, and a process of ours starts an analysis tool.
    """
    if alert.pid is not None and alert.pid in own_pids:
        return True
    container = alert.container_id
    if container is not None and any(own.startswith(container[:12]) for own in own_containers):
        return True
    process, parent = alert.process or "", alert.fields.get("proc.pname")
    if process.startswith("tripshark"):
        return alert.fields.get("evt.type") == "socket"
    return process in _ANALYSTS and isinstance(parent, str) and parent.startswith("tripshark")


def _no_rule(alert: Alert, verdict: Verdict) -> Refusal:
    if verdict.matched:
        names = ", ".join(repr(rule.name) for rule in verdict.matched)
        return Refusal(
            reason=Reason.NO_RULE,
            message=f"the matching rules ask for no packets: {names}",
            hint="give one of them a `capture`",
            rule=verdict.matched[0].name,
        )
    return Refusal(
        reason=Reason.NO_RULE,
        message=f"none of {len(verdict.traces)} rules matches {alert.rule!r}",
        hint="`tripshark rules test EVENT.json` says why for each of them",
    )


def _plan(
    alert: Alert,
    verdict: Verdict,
    rule: Rule,
    capture: Capture,
    resolution: Resolution,
    now_ns: int,
    defaults: Defaults,
    host: Target | None,
    also: Collection[Address],
    fleet: bool,
) -> Plan | Refusal:
    target = resolution.target
    if capture.scope is Scope.NODE:
        target = host or target
        if target is None or target.kind is not TargetKind.HOST:
            return Refusal(
                reason=Reason.NOT_RECORDED,
                message="the rule asks for the whole node, and the host is not recorded",
                hint="let the recorder record the host (recorder.host)",
                rule=rule.name,
            )
    if target is None:
        return Refusal(
            reason=Reason.NO_TARGET,
            message=resolution.reason,
            hint=resolution.hint or "`tripshark targets` lists what is recorded",
            rule=rule.name,
        )
    if not target.rings:
        return Refusal(
            reason=Reason.NOT_RECORDED,
            message=f"{target.title} is known but not recorded"
            + (f": {target.note}" if target.note else ""),
            hint="raise recorder.total, or let the recorder's policy take this target in",
            rule=rule.name,
        )
    if capture.scope in (Scope.WORKLOAD, Scope.SERVICE) and not fleet:
        return Refusal(
            reason=Reason.UNSUPPORTED,
            message=f"the rule's scope is {capture.scope}: that needs a cluster to say which pods",
            hint="use scope: pod on a single machine",
            rule=rule.name,
        )
    rungs = ladder(alert, capture.scope, target.addresses, also=also)
    notes = [resolution.reason, rungs[0].reason, *_time_notes(alert, target, now_ns)]
    return Plan(
        rule=rule.name,
        rule_hash=rule.hash,
        target=target.key,
        t0_ns=now_ns if _lies_ahead(alert, now_ns) else alert.time_ns,
        before_ns=_given(capture.before_ns, defaults.before_ns),
        after_ns=_given(capture.after_ns, defaults.after_ns),
        idle_ns=_given(capture.idle_ns, defaults.idle_ns),
        scope=rungs[0].scope,
        rungs=rungs,
        snaplen=min(_given(capture.snaplen, defaults.snaplen), defaults.snaplen),
        user_filter=capture.filter,
        limits=Limits(
            max_bytes=_given(capture.max_bytes, defaults.limits.max_bytes),
            max_packets=_given(capture.max_packets, defaults.limits.max_packets),
            extend_ns=_given(capture.extend_ns, defaults.limits.extend_ns),
        ),
        reason="; ".join(note for note in notes if note),
        actions=tuple(action.name for action in verdict.actions),
        notifiers=verdict.notifiers,
    )


def _given(value: int | None, default: int) -> int:
    return default if value is None else value


def _lies_ahead(alert: Alert, now_ns: int) -> bool:
    """An event that is still to come would let its capture run until then."""
    return alert.time_ns - now_ns > FUTURE_NS


def _time_notes(alert: Alert, target: Target, now_ns: int) -> list[str]:
    """T0 is what the alert says, unless that is still to come; where it looks wrong the plan says so."""
    notes = []
    if _lies_ahead(alert, now_ns):
        notes.append(
            f"the event lies {(alert.time_ns - now_ns) / 1e9:.0f} s in the future: check the clocks; "
            "the window is that of an event of now"
        )
    oldest_ns = min((ring.oldest_ns for ring in target.rings if ring.oldest_ns), default=0)
    if oldest_ns and alert.time_ns < oldest_ns:
        missed = (oldest_ns - alert.time_ns) / 1e9
        notes.append(f"the history begins {missed:.1f} s after the event")
    return notes
