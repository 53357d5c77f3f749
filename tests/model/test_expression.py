"""Expressions answer for every alert, in bounded time, and say what was missing."""

from __future__ import annotations

import time
from ipaddress import ip_address
from typing import Any

import pytest

from tripshark.errors import BadInput
from tripshark.model import expression
from tripshark.model.alert import Alert, Connection, Endpoint, Priority, Proto
from tripshark.model.target import Identity, Target, TargetKey, TargetKind

TARGET = Target(
    key=TargetKey("t"),
    kind=TargetKind.NETNS,
    name="netns:shop0",
    inode=1,
    since_ns=1,
    identity=Identity(
        namespace="payments",
        pod="checkout",
        labels={"tier": "payments"},
        owner="Deployment/checkout",
    ),
)
ALERT = Alert(
    rule="R",
    priority=Priority.WARNING,
    time_ns=5,
    tags=("network",),
    hostname="n1",
    fields={
        "fd.sport": 4444,
        "a": [1, 2],
        "d": {"x": {"y": 1}},
        "none": None,
        "big": 2**70,
        "f": 1.5,
    },
    connection=Connection(
        client=Endpoint(ip_address("10.0.0.7"), 40000),
        server=Endpoint(ip_address("203.0.113.66"), 4444),
        proto=Proto.TCP,
    ),
    process="nc",
    cmdline="nc 203.0.113.66 4444",
    pid=7,
)


def ask(text: str, alert: Alert = ALERT, target: Target | None = TARGET) -> expression.Answer:
    return expression.holds(expression.compile(text), expression.values_of(alert, target))


@pytest.mark.parametrize(
    "text",
    [
        'server.port in [4444, 8443] && target.labels["tier"] == "payments"',
        'client.address == "10.0.0.7" && proto == "tcp"',
        'process.name == "nc" && process.cmdline.contains("203") && process.pid == 7',
        'target.namespace == "payments" && target.pod.startsWith("check")',
        'target.name == "payments/checkout" && target.kind == "netns"',
        'target.owner == "Deployment/checkout"',
        'alert.priority == "Warning" && alert.severity <= 4 && alert.time == 5',
        '"network" in alert.tags && alert.hostname == "n1" && alert.source == "syscall"',
        'fields["fd.sport"] == 4444 && fields.a.exists(x, x == 2) && fields.d.x.y == 1',
        'in_network(server.address, "203.0.113.0/24")',
        '!in_network(server.address, "10.0.0.0/8") && !in_network("x", "y")',
        'server.address.matches("^203[.]")',
        "!has(fields.nope) && has(server.port)",
        'fields.big == "1180591620717411303424" && fields.f == 1.5',
        "server.port == 4444 || fields.nope == 1",
    ],
)
def test_expressions_see_the_normalised_values(text: str) -> None:
    """Everything the documentation promises."""
    assert ask(text) == expression.Answer(holds=True)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("server.port == 1", "where: `server.port == 1` is false"),
        ('fields["zz"] != "x"', 'where: fields["zz"] is missing in this alert'),
        ('target.labels["nope"] == "x"', 'where: target.labels["nope"] is missing in this alert'),
        ("fields.none == 1", "where: fields.none is missing in this alert"),
        ("fields[process.name] == 1", "where: the key 'nc' is missing in this alert"),
        ("server.port", "where: gives int, neither true nor false"),
    ],
)
def test_a_no_says_why(text: str, why: str) -> None:
    """A missing key makes it false and is named."""
    assert ask(text) == expression.Answer(holds=False, why=why)


def test_an_alert_without_connection_or_target_lacks_their_keys() -> None:
    """They are absent, not empty: `server.port != 80` does not hold for a shell."""
    shell = Alert(rule="R", priority=Priority.DEBUG, time_ns=1)
    assert "server.port is missing" in ask("server.port != 80", shell, None).why
    assert "target.pod is missing" in ask('target.pod == "x"', shell, None).why
    assert "proto is missing" in ask('proto == "tcp"', shell, None).why
    no_ports = Alert(
        rule="R",
        priority=Priority.DEBUG,
        time_ns=1,
        connection=Connection(client=Endpoint(), server=Endpoint()),
    )
    assert "server.address is missing" in ask('server.address == ""', no_ports, None).why


def test_types_that_do_not_compare_are_a_no() -> None:
    """CEL converts nothing by itself."""
    answer = ask('server.port > "80"')
    assert not answer.holds
    assert "cannot be evaluated" in answer.why


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("server.port ==", "no CEL expression", "cel.dev"),
        ("server.prt == 1", "no value of server `prt`", "`port`"),
        ("sever.port == 1", "no value `sever`", "`server`"),
        ("startswith(proto)", "no function `startswith`", "`startsWith`"),
        ("zzz(proto)", "no function `zzz`", "known: all"),
        ("true" + " " * 2000, "2004 characters", "split"),
        ("[1].all(a, [1].all(b, [1].all(c, true)))", "3 times", "split"),
        ("(" * 500 + "true" + ")" * 500, "no CEL expression", "cel.dev"),
    ],
)
def test_mistakes_are_found_when_the_rule_is_loaded(text: str, message: str, hint: str) -> None:
    """With the nearest name that exists."""
    with pytest.raises(BadInput, match=message) as refusal:
        expression.compile(text)
    assert hint in refusal.value.hint


def test_a_syntax_error_has_its_place() -> None:
    """Line and column within the expression."""
    with pytest.raises(BadInput) as refusal:
        expression.compile("server.port == 1\n && ]")
    assert refusal.value.where == "2:5"


def test_names_in_strings_are_no_names() -> None:
    """Nor are the variables a list is gone through with."""
    expression.compile('"server.prt" == "it" && [1].exists(item, item == 1)')
    assert expression.compile("true") == expression.compile("true")


@pytest.mark.parametrize(
    "text",
    [
        'process.cmdline.matches("^(a+)+$")',
        'fields["s"].matches("(.*)*(.*)*(.*)*x")',
        "fields.l.all(x, fields.l.all(y, x == y || x != y))",
        'size(fields["s"] + fields["s"] + fields["s"] + fields["s"]) > 1',
        'process.cmdline.matches(fields["s"])',
        "fields.deep == 1",
    ],
)
def test_hostile_values_cost_bounded_time(text: str) -> None:
    """Long strings, long lists, many keys, deep nesting."""
    deep: Any = 1
    for _ in range(30):
        deep = {"a": [deep]}
    hostile = Alert(
        rule="R",
        priority=Priority.DEBUG,
        time_ns=1,
        cmdline="a" * 1_000_000 + "b",
        process="x" * 1_000_000,
        fields={"s": "(" * 500_000, "l": list(range(100_000)), "deep": deep}
        | {f"k{n}": n for n in range(50_000)},
    )
    started = time.process_time()
    ask(text, hostile)
    assert time.process_time() - started < 2
