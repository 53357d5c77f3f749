"""Rule files load with every problem at once, each where it stands, and print as what they mean."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tripshark.errors import BadInput
from tripshark.formats import bpf, rulefile
from tripshark.formats.rulefile import Loaded
from tripshark.model.alert import Priority
from tripshark.model.filter import Scope
from tripshark.model.rule import Capture, FieldTest, PriorityTest

FUZZ = runpy.run_path(str(Path(__file__).parents[1] / "fuzz" / "rules.py"))["target"]


def load(*texts: str) -> Loaded:
    files = [(f"{number}.yaml", text) for number, text in enumerate(texts, start=1)]
    return rulefile.load(files, check_filter=lambda text: bpf.compile(text, 1))


def said(loaded: Loaded) -> list[str]:
    return [f"{p.file[:1]}:{p.line}:{p.column} {p.severity} {p.message}" for p in loaded.problems]


def only(loaded: Loaded) -> rulefile.Rule:
    (rule,) = loaded.rules
    return rule


FULL = """\
# everything the documentation shows
- rule: Beacon to a command-and-control server
  description: A beacon.
  match:
    rules: ["Outbound Connection to C2 Servers"]
    priority: ">=Warning"
    tags: ["network, mitre_command_and_control", c2]
    source: syscall
    output_fields: ["k8s.ns.name!=kube-system, fd.sport=4444"]
    where: 'server.port in [4444, 8443] && target.labels["tier"] == "payments"'
  capture:
    scope: peer
    before: 30s
    after: 1m30s
    idle: 500ms
    max: {bytes: 50MB, packets: 200k, extend: 2m}
    snaplen: headers
    filter: "not port 9100"
  notifiers: [slack, slack]
  continue: "false"
  dry_run: true
"""


def test_every_key_of_a_rule_arrives_in_the_model() -> None:
    """The example of the documentation."""
    loaded = load(FULL)
    assert loaded.problems == ()
    assert loaded.ok
    rule = only(loaded)
    assert (rule.name, rule.description) == ("Beacon to a command-and-control server", "A beacon.")
    assert (rule.file, rule.line) == ("1.yaml", 2)
    match = rule.match
    assert match.rules == ("Outbound Connection to C2 Servers",)
    assert match.priority == PriorityTest(">=", Priority.WARNING)
    assert match.tags == (("network", "mitre_command_and_control"), ("c2",))
    assert match.source == "syscall"
    assert match.output_fields == (
        (FieldTest("k8s.ns.name", False, "kube-system"), FieldTest("fd.sport", True, "4444")),
    )
    assert match.where is not None
    assert rule.capture == Capture(
        scope=Scope.PEER,
        before_ns=30_000_000_000,
        after_ns=90_000_000_000,
        idle_ns=500_000_000,
        max_bytes=50_000_000,
        max_packets=200_000,
        extend_ns=120_000_000_000,
        snaplen=128,
        filter="not port 9100",
    )
    assert rule.notifiers == ("slack",)
    assert (rule.proceed, rule.dry_run) == (False, True)
    assert len(rule.hash) == 64


def test_defaults_record_and_false_does_not() -> None:
    """A rule without `capture` records; `capture: false` asks for no packets; empty values count as absent."""
    loaded = load(
        "- rule: a\n  match: {rules: x, priority: ''}\n- rule: b\n  match: {rules: [x]}\n  capture: false\n"
    )
    first, second = loaded.rules
    assert first.capture == Capture()
    assert first.match.rules == ("x",)
    assert first.match.priority is None
    assert (first.proceed, first.dry_run) == (True, False)
    assert second.capture is None
    assert (
        only(load("- rule: a\n  description:\n  match: {rules: [x]}\n  capture:\n")).capture
        == Capture()
    )


def test_all_problems_are_told_at_once_with_file_line_and_column() -> None:
    """Types, words, unknown keys with the nearest known one, expressions, filters, unknown actions."""
    loaded = load(
        FULL,
        """\
- action: Quarantine
  actionner: kubernetes:networkpolicy
- rule: broken
  match:
    ruls: [x]
    priority: bad
    output_fields: [x]
    where: server.prt == 1
  capture:
    befor: 1s
    after: 3 parsecs
    scope: pood
    filter: "(("
    max: {bytes: 0}
    snaplen: 3
  actions:
    - action: Quarantin
    - action: Quarantine
      foo: 1
    - 7
  continue: perhaps
- rule: twice
  rule: twice
  match: {rules: [x]}
""",
    )
    assert not loaded.ok
    assert [rule.name for rule in loaded.rules] == ["Beacon to a command-and-control server"]
    lines = [line.split(" ", 2) for line in said(loaded)]
    assert {(place, word) for place, word, _ in lines} == {
        ("2:5:5", "error"), ("2:6:5", "error"), ("2:7:21", "error"), ("2:8:5", "error"),
        ("2:10:5", "error"), ("2:11:5", "error"), ("2:12:5", "error"), ("2:13:5", "error"),
        ("2:14:11", "error"), ("2:15:5", "error"), ("2:17:7", "error"), ("2:19:7", "error"),
        ("2:20:7", "error"), ("2:21:3", "error"), ("2:23:3", "error"),
    }  # fmt: skip
    hints = {problem.line: problem.hint for problem in loaded.problems}
    assert hints[5] == "did you mean 'rules'?"
    assert hints[8] == "did you mean `port`?"
    assert hints[10] == "did you mean 'before'?"
    assert hints[17] == "did you mean 'Quarantine'?"
    assert hints[19].startswith("known: action")
    assert str(loaded.problems[0]).startswith(
        "2.yaml:5:5: error: unknown key 'ruls' in match → did"
    )


@pytest.mark.parametrize(
    ("text", "place", "message"),
    [
        ("rule: x", "1:1:1", "a list of rules"),
        ("- rule: x\n  desc: y\n  condition: z\n", "1:2:3", "belongs to a rule of Falco"),
        ("- list: x\n  items: []\n", "1:1:3", "neither a rule nor an action: it has 'list', 'items'"),
        ("- just text", "1:1:3", "neither a rule nor an action"),
        ("- rule: [x]", "1:1:3", "neither a rule nor an action"),
        ("- rule: ''", "1:1:3", "rule: String should have at least 1 character"),
        ("- rule: x\n   bad: indent", "1:2:7", "this is not YAML"),
        ("- rule: 'x", "1:1:11", "this is not YAML"),
        ("- rule: \x00", "1:1:1", "this is not YAML"),
        ("- rule: x\n- rule: x", "1:2:3", "the rule 'x' is in this file already"),
        ("- action: x\n- action: x", "1:2:3", "the action 'x' is in this file already"),
        ("- " * 5000, "1:1:1", "nests more than"),
        ("- rule: x\n  match: " + "{a: " * 30 + "1" + "}" * 30, "1:1:1", "nests more than"),
        ("- &a [*a]", "1:1:1", "nests more than"),
        ("- &a {rule: x, <<: *a}", "1:1:1", "nests more than"),
        ("#" * 300_000, "1:1:1", "more than 262144 characters"),
        ("- action: x\n  actionner: Shell", "1:2:3", "actionner: String should match"),
        ("- rule: x\n  match: {rules: [{}]}", "1:2:19", "match.rules.0: Input should be a valid string"),
        ("- rule: x\n  actions: 7", "1:2:3", "actions: Input should be a valid list"),
        ("- rule: x\n  actions: [{}]", "1:2:13", "actions.0.action: Field required"),
        ("- rule: x\n  match: {priority: '>=Loud'}", "1:2:11", "is no priority"),
        ("- rule: x\n  match: {priority: '=>'}", "1:2:11", "is no priority"),
        ("- rule: x\n  capture: flow", "1:2:3", "capture: Input should be"),
        ("- rule: x\n  capture: {after: 2d}", "1:2:13", "capture.after: '2d' cannot be used"),
        (f"- rule: x\n  capture: {{after: {'9' * 400}}}", "1:2:13", "cannot be used"),
        ("- rule: x\n  dry_run: 7", "1:2:3", "dry_run: '7' is neither true nor false"),
        ("- rule: x\n  match: {where: '1 +'}", "1:2:11", "match.where: this is no CEL expression"),
        ("- rule: x\n  match: {where: zzz()}", "1:2:11", "match.where: there is no function `zzz`"),
        ("- rule: x\n  match: {}\n  match: {}", "1:3:3", "'match' is given twice"),
    ],
)  # fmt: skip
def test_each_mistake_has_its_place(text: str, place: str, message: str) -> None:
    """Nothing that a file holds raises; everything is told."""
    loaded = load(text)
    assert not loaded.ok
    assert len(loaded.rules) == 0 or "x" not in {rule.name for rule in loaded.rules}
    line = next(line for line in said(loaded) if message in line)
    assert line.split(" ")[0] == place


def test_an_alias_bomb_is_refused() -> None:
    """Every use of an alias counts like what it stands for."""
    bomb = "- rule: x\n  match:\n    rules: &a [x, x, x, x, x, x, x, x, x, x]\n"
    for inner, outer in zip("abcde", "bcdef", strict=True):
        bomb += f"    {outer}: &{outer} [{', '.join([f'*{inner}'] * 10)}]\n"
    loaded = load(bomb)
    assert "more than 50000 values" in said(loaded)[0]


def test_anchors_and_merge_keys_work() -> None:
    """What people use them for."""
    loaded = load(
        """\
- rule: a
  match: &match
    rules: [x]
    priority: Notice
  capture: &capture {before: 5s, after: 5s}
- rule: b
  match:
    <<: *match
    priority: Error
  capture: {<<: [*capture, {after: 9s, idle: 1s}]}
- rule: c
  match: {<<: [[1]], rules: [x]}
"""
    )
    assert loaded.problems == ()
    second = loaded.rules.named("b")
    assert second is not None
    assert second.match.rules == ("x",)
    assert second.match.priority == PriorityTest("=", Priority.ERROR)
    assert second.capture == Capture(before_ns=5 * 10**9, after_ns=5 * 10**9, idle_ns=10**9)


def test_names_keep_their_spelling_and_parameters_their_types() -> None:
    """`1.10` is no number as a name, and `yes` no truth."""
    loaded = load(
        """\
- rule: 1.10
  match: {rules: [yes, 0x10]}
  actions:
    - action: a
      actionner: aws:lambda
      parameters: {n: 7, f: 1.5, b: yes, s: "7", none: ~, odd: !!int x, deep: {parameters: [1]}}
"""
    )
    rule = only(loaded)
    assert rule.name == "1.10"
    assert rule.match.rules == ("yes", "0x10")
    assert rule.actions[0].parameters == {
        "n": 7,
        "f": 1.5,
        "b": True,
        "s": "7",
        "none": None,
        "odd": "x",
        "deep": {"parameters": [1]},
    }


def test_comments_and_several_documents_are_fine() -> None:
    """An empty file has no rules and no problems."""
    assert load("# nothing yet\n", "", "---\n", "--- # c\n...\n").problems == ()
    assert (
        len(
            load(
                "---\n- rule: a\n  match: {rules: [x]}\n---\n- rule: b\n  match: {rules: [x]}\n"
            ).rules
        )
        == 2
    )


def test_filters_are_taken_as_they_stand_where_nothing_checks_them() -> None:
    """The caller decides what compiles them."""
    text = "- rule: a\n  match: {rules: [x]}\n  capture: {filter: '(('}\n"
    assert rulefile.load([("f", text)]).ok
    assert not load(text).ok


# ------------------------------------------------------------------------------- several files


def test_a_later_file_replaces_single_values_and_adds_to_lists() -> None:
    """Talon's merging; the limits of a capture key by key."""
    loaded = load(
        """\
- rule: a
  description: first
  match: {rules: [x], priority: Notice, source: syscall, tags: t, output_fields: [a=1]}
  capture: {before: 5s, max: {bytes: 1MB, packets: 10}}
  notifiers: [one]
""",
        """\
- rule: a
  description: second
  match: {rules: [x, y], tags: [u], where: "true"}
  capture: {after: 6s, max: {bytes: 2MB}}
  notifiers: [two]
  dry_run: "true"
""",
    )
    assert said(loaded) == [
        "2:3:3 warning priority stays 'Notice'; Falco Talon would drop it here",
        "2:3:3 warning source stays 'syscall'; Falco Talon would drop it here",
    ]
    rule = only(loaded)
    assert (rule.description, rule.file, rule.line, rule.dry_run) == ("second", "1.yaml", 1, True)
    assert rule.match.rules == ("x", "y")
    assert rule.match.tags == (("t",), ("u",))
    assert len(rule.match.output_fields) == 1
    assert rule.match.where is not None
    assert rule.capture == Capture(
        before_ns=5 * 10**9, after_ns=6 * 10**9, max_bytes=2_000_000, max_packets=10
    )
    assert rule.notifiers == ("one", "two")
    off = load("- rule: a\n  match: {rules: [x]}\n", "- rule: a\n  capture: false\n")
    assert only(off).capture is None
    on = load(
        "- rule: a\n  match: {rules: [x]}\n  capture: off\n",
        "- rule: a\n  capture: {before: 1s}\n",
    )
    assert only(on).capture == Capture(before_ns=10**9)


def test_a_rule_is_lost_if_any_file_breaks_it() -> None:
    """Half a rule could mean anything."""
    loaded = load("- rule: a\n  match: {rules: [x]}\n", "- rule: a\n  nonsense: 1\n")
    assert len(loaded.rules) == 0
    assert not loaded.ok


# ------------------------------------------------------------------------------- Talon's documents


def test_talons_actions_are_reused_and_merged() -> None:
    """A block by name, over several files, then what the rule says itself."""
    loaded = load(
        """\
- action: Label
  description: d
  actionner: kubernetes:label
  continue: "true"
  additional_contexts: [aws]
  parameters:
    labels: {a: "1"}
    allow: [x]
    level: pod
  output: {target: "aws:s3", parameters: {bucket: b}}
""",
        """\
- action: Label
  ignore_errors: true
  parameters: {level: node}
- rule: r
  match: {rules: [x]}
  actions:
    - action: Label
      continue: "false"
      additional_contexts: [k8snode]
      parameters: {labels: {b: "2"}, allow: [y]}
      output: {target: "local:file"}
    - action: Label
    - action: Inline
      actionner: calico:networkpolicy
""",
    )
    rule = only(loaded)
    label, inline = rule.actions
    assert (label.actionner, label.proceed, label.ignore_errors) == (
        "kubernetes:label",
        False,
        True,
    )
    assert label.parameters == {
        "labels": {"a": "1", "b": "2"},
        "allow": ["x", "y"],
        "level": "node",
    }
    assert inline.name == "Inline"
    document = rule.document["actions"]
    assert isinstance(document, list)
    assert document[0]["additional_contexts"] == ["aws", "k8snode"]
    assert document[0]["output"] == {"target": "local:file", "parameters": {"bucket": "b"}}
    messages = [problem.message for problem in loaded.problems]
    assert "the action 'Label' (kubernetes:label) is noted and not performed" in messages
    assert any("counts once" in message for message in messages)
    assert any("output 'local:file'" in message for message in messages)
    assert loaded.ok


def test_talons_tcpdump_becomes_the_capture_of_its_rule() -> None:
    """The whole pod, as Talon would, and what came before the alert as well."""
    loaded = load(
        """\
- action: Dump
  actionner: kubernetes:tcpdump
  parameters: {duration: 7, snaplen: 512, image: x}
- rule: a
  match: {rules: [x]}
  actions: [{action: Dump}]
- rule: b
  match: {rules: [x]}
  capture: {scope: flow}
  actions: [{action: Dump}]
- rule: c
  match: {rules: [x]}
  actions: [{action: Plain, actionner: "kubernetes:tcpdump"}]
"""
    )
    captures = [rule.capture for rule in loaded.rules]
    assert captures == [
        Capture(scope=Scope.POD, after_ns=7 * 10**9, snaplen=512),
        Capture(scope=Scope.FLOW),
        Capture(scope=Scope.POD, after_ns=5 * 10**9, snaplen=262_144),
    ]
    assert all(rule.actions == () for rule in loaded.rules)
    assert [problem.severity for problem in loaded.problems] == ["warning"] * 3
    assert "is read as a capture of the pod: 7 s after" in loaded.problems[0].message
    assert "yields to the rule's `capture`" in loaded.problems[1].message


def test_a_tcpdump_that_cannot_be_translated_is_an_error_of_its_rule() -> None:
    """Said where the action stands."""
    loaded = load(
        "- rule: a\n  match: {rules: [x]}\n  actions:\n"
        "    - {action: d, actionner: 'kubernetes:tcpdump', parameters: {duration: long}}\n"
    )
    assert said(loaded) == [
        "1:4:7 error after: 'long' cannot be used: at most a day, such as 30s or 2m is expected"
    ]
    assert len(loaded.rules) == 0


def test_an_action_nobody_knows_or_that_is_broken_takes_its_rule_with_it() -> None:
    """The broken one is told once, where it stands."""
    loaded = load(
        "- action: d\n  bad: 1\n- rule: a\n  match: {rules: [x]}\n  actions: [{action: d}]\n"
        "- rule: b\n  match: {rules: [x]}\n  actions: [{action: zzz}]\n"
    )
    assert said(loaded) == [
        "1:2:3 error unknown key 'bad'",
        "1:8:13 error there is no action 'zzz'",
    ]
    assert "add `actionner:`" in loaded.problems[1].hint
    assert len(loaded.rules) == 0


def test_values_that_hold_equals_signs_and_commas_mean_what_their_author_wrote() -> None:
    """Talon would drop the test and match every alert."""
    loaded = load("- rule: a\n  match: {output_fields: ['proc.cmdline=a=b, c, k!=v', 'x= y ']}\n")
    assert only(loaded).match.output_fields == (
        (FieldTest("proc.cmdline", True, "a=b, c"), FieldTest("k", False, "v")),
        (FieldTest("x", True, "y"),),
    )
    assert [problem.severity for problem in loaded.problems] == ["warning", "warning"]


def test_a_rule_for_every_alert_is_allowed_and_remarked_upon() -> None:
    """Also where `match` is not there at all."""
    for text in ("- rule: a\n", "- rule: a\n  match: {}\n"):
        loaded = load(text)
        assert loaded.ok
        assert "every alert matches" in loaded.problems[0].message
        assert len(loaded.rules) == 1


# ------------------------------------------------------------------------------- printing


def test_printed_rules_load_to_the_same_rules() -> None:
    """With the same hashes, whatever was merged."""
    loaded = load(
        FULL,
        "- action: Q\n  actionner: kubernetes:terminate\n  parameters: {n: 7}\n"
        "- rule: yes\n  match: {rules: [x]}\n  actions: [{action: Q}]\n  capture: false\n"
        "- rule: dump\n  match: {rules: ['ünï: code']}\n"
        "  actions: [{action: d, actionner: 'kubernetes:tcpdump'}]\n",
    )
    printed = rulefile.render(loaded.rules)
    assert printed.startswith("# 1.yaml:2, sha256 ")
    again = rulefile.load([("again", printed)])
    assert again.ok
    assert [(rule.name, rule.hash) for rule in again.rules] == [
        (rule.name, rule.hash) for rule in loaded.rules
    ]
    assert rulefile.render(rulefile.RuleSet()) == ""


def test_the_hash_tells_every_change_of_a_rule_and_nothing_else() -> None:
    """It stands in the manifest as the reason for a capture."""
    one = only(load("- rule: a\n  match: {rules: [x]}\n"))
    same = only(load("# moved\n\n- {match: {rules: [x]}, rule: a}\n"))
    other = only(load("- rule: a\n  match: {rules: [y]}\n"))
    assert one.hash == same.hash != other.hash


def test_there_is_a_schema_for_editors() -> None:
    """Both kinds of document, every key of a capture."""
    text = str(rulefile.schema())
    for word in ("rule", "actionner", "output_fields", "where", "snaplen", "dry_run", "continue"):
        assert f"'{word}'" in text


# ------------------------------------------------------------------------------- hostile

WORDS = st.sampled_from(
    ["rule", "action", "match", "rules", "capture", "after", "30s", "actions", "parameters", "<<", "*a",
     "&a", "- ", ": ", "\n", "  ", "[", "]", "{", "}", "'", '"', "|", "x", "!!int", "true", "~", "---", "\\u"]
)  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(
    st.binary(max_size=300)
    | st.lists(WORDS, max_size=40).map(lambda words: "".join(words).encode())
)
@example(b'- rule: "\\ud800"')
@example(b'- rule: "a\\u2028b\\x07"\n  match: {rules: ["\\ud800"]}')
@example(
    b"- rule: a\n  actions: [{action: b, actionner: c:d, parameters: {x: .nan, y: .inf, z: 0x1}}]"
)
@example(b"- rule: 1e3\n  notifiers: [!!binary aGk=, 2026-01-01]")
@example(b"- ? [a, b]\n  : c\n  rule: x")
def test_any_bytes_are_rules_or_problems(data: bytes) -> None:
    """And what loads prints as what loads the same."""
    FUZZ(data)


def test_problems_are_bad_input_only_inside() -> None:
    """A filter checker may raise nothing else."""

    def refuse(text: str) -> None:
        raise BadInput("no", hint="never")

    text = "- rule: a\n  match: {rules: [x]}\n  capture: {filter: tcp}\n"
    (problem,) = rulefile.load([("f", text)], check_filter=refuse).problems
    assert (problem.message, problem.hint) == ("capture.filter: no", "never")
