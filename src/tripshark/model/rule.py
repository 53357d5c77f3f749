"""Which rules match an alert, why the others do not, and what the matching ones ask for together.

Falco Talon's semantics: in `match` every given key must hold; a list is *or*, a comma inside an entry
is *and*. Rules are tried in order; each matching one contributes, until one says `continue: "false"`.

Several matching rules make one capture, and each gets at least what it asked for: the first one that
captures gives its name and its scope, later ones can lengthen the window, raise the limits and widen
the scope (among flow, peer and pod), and add their actions and notifiers. A `filter` holds only where
all of them have the same one.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Literal

from tripshark.model import expression
from tripshark.model.alert import Alert, Json, Priority, missing
from tripshark.model.expression import Expression
from tripshark.model.filter import Scope
from tripshark.model.target import Target

Relation = Literal["=", "<", "<=", ">", ">="]
_COMPARE: Mapping[Relation, Callable[[int, int], bool]] = MappingProxyType(
    {
        "=": operator.eq,
        "<": operator.lt,
        "<=": operator.le,
        ">": operator.gt,
        ">=": operator.ge,
    }
)


@dataclass(frozen=True, slots=True)
class PriorityTest:
    """`>=Warning`: at least as bad as Warning."""

    relation: Relation
    priority: Priority

    def __str__(self) -> str:
        return f"{'' if self.relation == '=' else self.relation}{self.priority.title}"

    def holds(self, priority: Priority) -> bool:
        worse = int(self.priority) - int(priority)  # Falco counts downwards: 0 is an emergency
        return _COMPARE[self.relation](worse, 0)


@dataclass(frozen=True, slots=True)
class FieldTest:
    """`fd.sport=4444` or `k8s.ns.name!=kube-system`, compared as text."""

    key: str
    equal: bool
    value: str

    def __str__(self) -> str:
        return f"{self.key}{'=' if self.equal else '!='}{self.value}"

    def holds(self, fields: Mapping[str, Json]) -> bool:
        """A key that is missing equals nothing."""
        present = lookup(fields, self.key)
        same = not missing(present) and self.value in texts(present)
        if not same and present is not None:
            same = present == self.value  # a rule may ask for "" or "<NA>" by name
        return same is self.equal


def lookup(fields: Mapping[str, Json], key: str) -> Json:
    """`proc.aname[2]` reaches us as `proc.aname_2` where Falcosidekick rewrote the brackets."""
    if key not in fields and "[" in key:
        key = key.replace("[", "_").replace("]", "")
    return fields.get(key)


def texts(value: Json) -> tuple[str, ...]:
    """How a rule's author may write a JSON value: integers in full, whole floats also without `.0`."""
    match value:
        case str():
            return (value,)
        case bool():
            return ("true" if value else "false",)
        case float():
            return (repr(value), str(int(value))) if value.is_integer() else (repr(value),)
        case int():
            # Python refuses to print integers of thousands of digits; no rule asks for one.
            return (str(value),) if value.bit_length() <= 256 else ()
        case _:
            return ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """What an alert must be; an empty tuple asks for nothing."""

    rules: tuple[str, ...] = ()
    priority: PriorityTest | None = None
    tags: tuple[tuple[str, ...], ...] = ()  # or of ands
    source: str = ""
    output_fields: tuple[tuple[FieldTest, ...], ...] = ()  # or of ands
    where: Expression | None = None

    def why_not(self, alert: Alert, target: Target | None) -> tuple[str, ...]:
        """Every reason why the alert does not match, in words; () when it does."""
        reasons = []
        if self.rules and alert.rule not in self.rules:
            near = [rule for rule in self.rules if rule.casefold() == alert.rule.casefold()]
            hint = f" (but {near[0]!r}: rule names are compared exactly)" if near else ""
            reasons.append(f"rules: {alert.rule!r} is not among them{hint}")
        if self.priority is not None and not self.priority.holds(alert.priority):
            reasons.append(f"priority: {alert.priority.title} is not {self.priority}")
        if self.tags and not any(set(tags) <= set(alert.tags) for tags in self.tags):
            lacking = [tag for tags in self.tags for tag in tags if tag not in alert.tags]
            reasons.append(f"tags: the alert lacks {', '.join(dict.fromkeys(lacking))}")
        if self.source and alert.source != self.source:
            reasons.append(f"source: {alert.source!r} is not {self.source!r}")
        if self.output_fields:
            failed = [
                next((test for test in tests if not test.holds(alert.fields)), None)
                for tests in self.output_fields
            ]
            if None not in failed:
                said = "; ".join(_field_says(test, alert.fields) for test in failed if test)
                reasons.append(f"output_fields: {said}")
        if self.where is not None and not reasons:  # the dear one last, and only if it matters
            answer = expression.holds(self.where, expression.values_of(alert, target))
            if not answer.holds:
                reasons.append(answer.why)
        return tuple(reasons)


def _field_says(test: FieldTest, fields: Mapping[str, Json]) -> str:
    value = lookup(fields, test.key)
    if missing(value):
        return f"{test.key} is missing, {test} does not hold"
    shown = next(iter(texts(value)), type(value).__name__)
    return f"{test.key} is {shown[:80]!r}, {test} does not hold"


@dataclass(frozen=True, slots=True, kw_only=True)
class Capture:
    """What a rule wants recorded; None leaves it to the settings."""

    scope: Scope | None = None  # None: the narrowest the alert supports
    before_ns: int | None = None
    after_ns: int | None = None
    idle_ns: int | None = None
    max_bytes: int | None = None
    max_packets: int | None = None
    extend_ns: int | None = None
    snaplen: int | None = None  # bytes per packet
    filter: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """Something to be done once the packets are safe. Kept and shown; nothing here performs it."""

    name: str
    actionner: str  # "kubernetes:terminate"
    parameters: Mapping[str, Json] = field(default_factory=dict)
    proceed: bool = True  # whether the actions after it are still run
    ignore_errors: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One rule, merged over all files that mention it."""

    name: str
    description: str = ""
    match: Match = Match()
    capture: Capture | None = Capture()  # None: it asks for no packets
    actions: tuple[Action, ...] = ()
    notifiers: tuple[str, ...] = ()
    proceed: bool = True  # False: rules after this one are not tried (`continue: "false"`)
    dry_run: bool = False
    file: str = ""
    line: int = 0
    hash: str = ""  # SHA-256 of the canonical document
    document: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RuleSet:
    """All rules in the order they are tried."""

    rules: tuple[Rule, ...] = ()

    def __iter__(self) -> Iterator[Rule]:
        return iter(self.rules)

    def __len__(self) -> int:
        return len(self.rules)

    def named(self, name: str) -> Rule | None:
        return next((rule for rule in self.rules if rule.name == name), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """What became of one rule."""

    rule: Rule
    matched: bool
    why: tuple[str, ...] = ()  # why not


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What all rules together say about one alert."""

    traces: tuple[Trace, ...]
    rule: Rule | None = None  # the one that decides, None when no capture is asked for
    capture: Capture | None = None  # of all matching rules together
    actions: tuple[Action, ...] = ()
    notifiers: tuple[str, ...] = ()

    @property
    def matched(self) -> tuple[Rule, ...]:
        return tuple(trace.rule for trace in self.traces if trace.matched)


def evaluate(rules: RuleSet, alert: Alert, target: Target | None) -> Verdict:
    """Try every rule; `target` is what the alert means, None when that is not known."""
    traces: list[Trace] = []
    stopped_by = ""
    for rule in rules:
        if stopped_by:
            why = (f"not tried: {stopped_by!r} says continue: false",)
            traces.append(Trace(rule=rule, matched=False, why=why))
            continue
        reasons = rule.match.why_not(alert, target)
        traces.append(Trace(rule=rule, matched=not reasons, why=reasons))
        if not reasons and not rule.proceed:
            stopped_by = rule.name
    matching = [trace.rule for trace in traces if trace.matched]
    live = [rule for rule in matching if not rule.dry_run]
    # Where only rules on trial match, they decide too, so that what they would do can be shown.
    deciding = [rule for rule in live or matching if rule.capture is not None]
    actors = live or matching
    return Verdict(
        traces=tuple(traces),
        rule=deciding[0] if deciding else None,
        capture=_together([rule.capture for rule in deciding if rule.capture is not None]),
        actions=_actions(actors),
        notifiers=tuple(dict.fromkeys(name for rule in actors for name in rule.notifiers)),
    )


def _actions(rules: Sequence[Rule]) -> tuple[Action, ...]:
    """In the order of the rules; the same action asked for twice is one."""
    return tuple({action.name: action for rule in rules for action in rule.actions}.values())


_WIDENS = (Scope.FLOW, Scope.PEER, Scope.POD)


def _together(captures: Sequence[Capture]) -> Capture | None:
    """One capture that gives each rule at least what it asked for."""
    if not captures:
        return None
    union = captures[0]
    for other in captures[1:]:
        union = replace(
            union,
            scope=_wider(union.scope, other.scope),
            before_ns=_larger(union.before_ns, other.before_ns),
            after_ns=_larger(union.after_ns, other.after_ns),
            idle_ns=_longer_idle(union.idle_ns, other.idle_ns),
            max_bytes=_larger(union.max_bytes, other.max_bytes),
            max_packets=_larger(union.max_packets, other.max_packets),
            extend_ns=_larger(union.extend_ns, other.extend_ns),
            snaplen=None if union.snaplen is None else _all_of(union.snaplen, other.snaplen),
            filter=union.filter if union.filter == other.filter else "",
        )
    return union


def _wider(first: Scope | None, second: Scope | None) -> Scope | None:
    if second is None or second not in _WIDENS:
        return first
    if first is None or first not in _WIDENS:
        return second if first is None else first
    return max(first, second, key=_WIDENS.index)


def _larger(first: int | None, second: int | None) -> int | None:
    if first is None or second is None:
        return first if second is None else second
    return max(first, second)


def _all_of(first: int, second: int | None) -> int | None:
    return None if second is None else max(first, second)


def _longer_idle(first: int | None, second: int | None) -> int | None:
    """0 means: never end early, which is the longest."""
    return 0 if 0 in (first, second) else _larger(first, second)
