"""Rules match as Falco Talon's do, say why they do not, and give each its due when several match."""

from __future__ import annotations

from typing import Any

import pytest

from tripshark.model import expression
from tripshark.model.alert import Alert, Connection, Endpoint, Json, Priority
from tripshark.model.filter import Scope
from tripshark.model.rule import (
    Action,
    Capture,
    FieldTest,
    Match,
    PriorityTest,
    Rule,
    RuleSet,
    evaluate,
    texts,
)


def alert(**said: Any) -> Alert:
    return Alert(**({"rule": "R", "priority": Priority.WARNING, "time_ns": 1} | said))


def rule(name: str = "r", **said: Any) -> Rule:
    return Rule(name=name, **said)


@pytest.mark.parametrize(
    ("relation", "holding"),
    [
        (">=", {"Emergency", "Alert", "Critical", "Error", "Warning"}),
        (">", {"Emergency", "Alert", "Critical", "Error"}),
        ("=", {"Warning"}),
        ("<", {"Notice", "Informational", "Debug"}),
        ("<=", {"Warning", "Notice", "Informational", "Debug"}),
    ],
)
def test_priorities_compare_by_severity(relation: Any, holding: set[str]) -> None:
    """`>=Warning` is at least as bad as Warning."""
    test = PriorityTest(relation, Priority.WARNING)
    assert {each.title for each in Priority if test.holds(each)} == holding
    assert str(test) == f"{'' if relation == '=' else relation}Warning"


@pytest.mark.parametrize(
    ("fields", "key", "value", "equal"),
    [
        ({"proc.pid": 1234567}, "proc.pid", "1234567", True),
        ({"evt.time": 1762516573181395500}, "evt.time", "1762516573181395500", True),
        ({"fd.sport": 4444}, "fd.sport", "4444", True),
        ({"x": 1.0}, "x", "1", True),
        ({"x": 1.0}, "x", "1.0", True),
        ({"x": 1.5}, "x", "1.5", True),
        ({"x": True}, "x", "true", True),
        ({"x": False}, "x", "false", True),
        ({"x": "a,b=c"}, "x", "a,b=c", True),
        ({"proc.aname_2": "bash"}, "proc.aname[2]", "bash", True),
        ({"proc.aname[2]": "bash"}, "proc.aname[2]", "bash", True),
        ({"x": ""}, "x", "", True),
        ({"x": "<NA>"}, "x", "<NA>", True),
        ({"x": "<NA>"}, "x", "y", False),
        ({"x": None}, "x", "None", False),
        ({}, "x", "", False),
        ({"x": ["a"]}, "x", "a", False),
        ({"x": 10**5000}, "x", "1", False),
    ],
)
def test_fields_compare_as_their_author_writes_them(
    fields: dict[str, Json], key: str, value: str, equal: bool
) -> None:
    """Integers in full, not as 1.234567e+06; a missing key equals nothing and differs from all."""
    assert FieldTest(key, True, value).holds(fields) is equal
    assert FieldTest(key, False, value).holds(fields) is not equal


def test_texts_of_composites_are_none() -> None:
    """A list or an object has no spelling a rule could mean."""
    assert texts({}) == texts([]) == texts(None) == ()


def test_every_reason_why_a_rule_does_not_match_is_given() -> None:
    """What `rules test` shows."""
    match = Match(
        rules=("r", "S"),
        priority=PriorityTest(">=", Priority.CRITICAL),
        tags=(("a", "b"), ("c",)),
        source="k8s_audit",
        output_fields=(
            (FieldTest("fd.sport", True, "80"),),
            (FieldTest("x", False, "1"), FieldTest("nope", True, "1")),
        ),
        where=expression.compile("false"),
    )
    reasons = match.why_not(alert(tags=("a",), fields={"fd.sport": 81}), None)
    assert reasons == (
        "rules: 'R' is not among them (but 'r': rule names are compared exactly)",
        "priority: Warning is not >=Critical",
        "tags: the alert lacks b, c",
        "source: 'syscall' is not 'k8s_audit'",
        (
            "output_fields: fd.sport is '81', fd.sport=80 does not hold; "
            "nope is missing, nope=1 does not hold"
        ),
    )
    assert match.why_not(alert(rule="X"), None)[0] == "rules: 'X' is not among them"
    composite = Match(output_fields=((FieldTest("x", True, "1"),),))
    assert "x is 'list'" in composite.why_not(alert(fields={"x": [1]}), None)[0]


def test_a_list_is_or_and_a_comma_is_and() -> None:
    """In tags and in output_fields."""
    match = Match(
        tags=(("a", "b"), ("c",)),
        output_fields=(
            (FieldTest("x", True, "1"), FieldTest("y", True, "2")),
            (FieldTest("z", True, "3"),),
        ),
    )
    for tags, fields, matches in [
        (("a", "b"), {"x": "1", "y": "2"}, True),
        (("c",), {"z": "3"}, True),
        (("a",), {"z": "3"}, False),
        (("c",), {"x": "1"}, False),
    ]:
        assert (not match.why_not(alert(tags=tags, fields=fields), None)) is matches


def test_the_expression_is_asked_last_and_only_if_it_matters() -> None:
    """It is the dear one."""
    match = Match(rules=("Other",), where=expression.compile("false"))
    assert len(match.why_not(alert(), None)) == 1
    assert Match(where=expression.compile("false")).why_not(alert(), None) == (
        "where: `false` is false",
    )
    connection = Connection(client=Endpoint(), server=Endpoint(None, 4444))
    holds = Match(where=expression.compile("server.port == 4444"))
    assert holds.why_not(alert(connection=connection), None) == ()


def test_continue_false_ends_the_trying() -> None:
    """Only when that rule matched; its default is to go on."""
    no = Match(rules=("other",))
    rules = RuleSet((rule("a", match=no, proceed=False), rule("b", proceed=False), rule("c")))
    verdict = evaluate(rules, alert(), None)
    assert [trace.matched for trace in verdict.traces] == [False, True, False]
    assert verdict.traces[2].why == ("not tried: 'b' says continue: false",)
    assert [each.name for each in verdict.matched] == ["b"]
    assert len(rules) == 3
    assert rules.named("c") is not None
    assert rules.named("d") is None


def test_no_rule_no_capture() -> None:
    """Nor where the only matching rule asks for none."""
    assert evaluate(RuleSet(), alert(), None).capture is None
    verdict = evaluate(RuleSet((rule(capture=None),)), alert(), None)
    assert (verdict.rule, verdict.capture) == (None, None)
    assert len(verdict.matched) == 1


def test_a_rule_on_trial_decides_only_where_no_other_does() -> None:
    """What it would do can be shown, and it changes nothing for the rest."""
    trial = rule("trial", dry_run=True, notifiers=("slack",))
    live = rule("live", notifiers=("mail",))
    both = evaluate(RuleSet((trial, live)), alert(), None)
    assert both.rule is live
    assert both.notifiers == ("mail",)
    assert evaluate(RuleSet((trial,)), alert(), None).rule is trial


def test_matching_rules_add_their_actions_and_notifiers_once() -> None:
    """In the order of the rules."""
    one, two = (Action(name=name, actionner="a:b") for name in ("one", "two"))
    verdict = evaluate(
        RuleSet(
            (
                rule("a", actions=(one,), notifiers=("x",)),
                rule("b", actions=(one, two), notifiers=("y", "x"), capture=None),
            )
        ),
        alert(),
        None,
    )
    assert [action.name for action in verdict.actions] == ["one", "two"]
    assert verdict.notifiers == ("x", "y")


def together(*captures: Capture) -> Capture:
    rules = RuleSet(tuple(rule(str(n), capture=each) for n, each in enumerate(captures)))
    capture = evaluate(rules, alert(), None).capture
    assert capture is not None
    return capture


def test_each_matching_rule_gets_at_least_what_it_asked_for() -> None:
    """The longest window, the highest limits, the widest scope."""
    first = Capture(
        scope=Scope.FLOW,
        before_ns=1,
        after_ns=9,
        idle_ns=5,
        max_bytes=1,
        snaplen=100,
        filter="tcp",
    )
    second = Capture(
        scope=Scope.PEER,
        before_ns=7,
        after_ns=2,
        idle_ns=8,
        max_packets=3,
        extend_ns=4,
        snaplen=200,
    )
    assert together(first, second) == Capture(
        scope=Scope.PEER,
        before_ns=7,
        after_ns=9,
        idle_ns=8,
        max_bytes=1,
        max_packets=3,
        extend_ns=4,
        snaplen=200,
        filter="",
    )
    assert together(first, first) == first
    assert together(first, Capture(idle_ns=0)).idle_ns == 0
    assert together(first, Capture()).snaplen is None
    assert together(Capture(), first).snaplen is None


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        (None, None, None),
        (None, Scope.POD, Scope.POD),
        (Scope.POD, Scope.PEER, Scope.POD),
        (Scope.FLOW, Scope.NODE, Scope.FLOW),
        (Scope.FLOW, Scope.WORKLOAD, Scope.FLOW),
        (Scope.NODE, Scope.POD, Scope.NODE),
        (Scope.FLOW, None, Scope.FLOW),
    ],
)
def test_a_later_rule_widens_the_scope_within_the_target(
    first: Scope | None, second: Scope | None, expected: Scope | None
) -> None:
    """It never turns a capture of one pod into one of the node."""
    assert together(Capture(scope=first), Capture(scope=second)).scope == expected
