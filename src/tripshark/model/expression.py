"""Whether a CEL expression of a rule holds for one alert, and if not, why.

The expression is the rule author's, the values are the attacker's. Both are bounded: expressions in
length and in comprehensions (the parser and evaluator recurse on them), values in number, length and
depth. Regular expressions run in linear time in the engine. A missing key makes the expression false
and is named; `has(server.port)` asks without failing.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from types import MappingProxyType
from typing import Any

from tripshark.errors import BadInput
from tripshark.model.alert import Alert, Endpoint, Json
from tripshark.model.target import Target

MAX_LENGTH = (
    2000  # characters of an expression; ten times as many would exhaust the parser's stack
)
MAX_COMPREHENSIONS = 2  # all, exists, exists_one, filter, map: each may multiply the work
MAX_FIELDS = 512
MAX_TEXT = 65_536  # characters of one value; Falco cuts its own at 4096
MAX_ITEMS = 512
MAX_DEPTH = 8
_LARGEST = 2**63 - 1

NAMES: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        "client": frozenset({"address", "port"}),
        "server": frozenset({"address", "port"}),
        "process": frozenset({"name", "cmdline", "pid"}),
        "target": frozenset({"namespace", "pod", "name", "labels", "owner", "kind"}),
        "alert": frozenset(
            {"rule", "priority", "severity", "tags", "source", "hostname", "time", "output"}
        ),
        "proto": frozenset(),
        "fields": frozenset(),
    }
)
"""What an expression can ask about. `alert.priority` is the word, `alert.severity` the number (0 is
the worst), `alert.time` nanoseconds since 1970, `fields` whatever Falco sent."""

FUNCTIONS = frozenset(
    [
        "size",
        "contains",
        "startsWith",
        "endsWith",
        "matches",
        "has",
        "string",
        "int",
        "uint",
        "double",
        "bool",
        "type",
        "dyn",
        "min",
        "max",
        "in_network",
    ]
)
_COMPREHENSIONS = frozenset({"all", "exists", "exists_one", "filter", "map"})

_STRING = re.compile(r"\"(?:\\.|[^\"\\])*\"|'(?:\\.|[^'\\])*'", re.DOTALL)
_MEMBER = re.compile(r"(?<![\w.])([A-Za-z_]\w*)\s*\.\s*([A-Za-z_]\w*)(?!\s*\()")
_BINDING = re.compile(r"\.\s*(all|exists|exists_one|filter|map)\s*\(\s*([A-Za-z_]\w*)\s*,")
_PLACE = re.compile(r"<input>:(\d+):(\d+): (?:Syntax error: )?([^\n]*)")


@dataclass(frozen=True, slots=True)
class Expression:
    """One compiled expression; equal when its text is."""

    text: str
    program: Any = field(compare=False, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """Whether an expression holds; where it does not, `why` says it in words."""

    holds: bool
    why: str = ""


def compile(text: str) -> Expression:
    """Raises `BadInput`; its `where` is `line:column` within the expression, where that is known."""
    # 0.2 s of terminal tooling hang on this package: only processes that use expressions load it.
    import cel

    if len(text) > MAX_LENGTH:
        raise BadInput(
            f"the expression has {len(text)} characters, {MAX_LENGTH} are allowed",
            hint="split the rule in two",
        )
    bare = _STRING.sub(lambda found: '"' + " " * (len(found[0]) - 2) + '"', text)
    bindings = _BINDING.findall(bare)
    if len(bindings) > MAX_COMPREHENSIONS:
        raise BadInput(
            f"the expression goes through lists {len(bindings)} times, "
            f"{MAX_COMPREHENSIONS} times are allowed",
            hint="split the rule in two",
        )
    try:
        program = cel.compile(text)
    except ValueError as problem:
        place = _PLACE.search(str(problem))
        where, said = (f"{place[1]}:{place[2]}", place[3]) if place else ("", "it cannot be read")
        raise BadInput(
            f"this is no CEL expression: {said}",
            where=where,
            hint="the language: https://cel.dev/overview/cel-overview",
        ) from problem
    bound = {name for _, name in bindings}
    for name in program.variables():
        if name not in NAMES and name not in bound and not name.startswith("@"):
            raise _unknown("value", name, NAMES)
    for name in program.functions():
        if name[0].isalpha() and name not in FUNCTIONS | _COMPREHENSIONS:
            raise _unknown("function", name, FUNCTIONS | _COMPREHENSIONS)
    for owner, member in _MEMBER.findall(bare):
        known = NAMES.get(owner)
        if known and owner not in bound and member not in known:
            raise _unknown(f"value of {owner}", member, known)
    return Expression(text, program)


def _unknown(what: str, name: str, known: frozenset[str] | Mapping[str, object]) -> BadInput:
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean `{close[0]}`?" if close else "known: " + ", ".join(sorted(known))
    return BadInput(f"there is no {what} `{name}`", hint=hint)


def holds(expression: Expression, values: Mapping[str, Any]) -> Answer:
    """Evaluate over `values_of(…)`. Never raises for what an alert holds."""
    import cel

    context = cel.Context(variables=dict(values), functions={"in_network": in_network})
    try:
        result = expression.program.execute(context)
    except KeyError as missing:
        return Answer(
            holds=False,
            why=f"where: {_path(expression.text, str(missing.args[0]))} is missing in this alert",
        )
    except (TypeError, ValueError, RuntimeError, OverflowError) as problem:
        undefined = _UNDEFINED.search(str(problem))
        if undefined is not None:
            return Answer(holds=False, why=f"where: {undefined[1]} is missing in this alert")
        first_line = str(problem).partition("\n")[0][:200]
        return Answer(holds=False, why=f"where: cannot be evaluated: {first_line}")
    if result is True:
        return Answer(holds=True)
    if result is False:
        return Answer(holds=False, why=f"where: `{expression.text}` is false")
    return Answer(holds=False, why=f"where: gives {type(result).__name__}, neither true nor false")


_UNDEFINED = re.compile(r"Undefined variable or function: '(\w+)'")


def _path(text: str, key: str) -> str:
    """The whole name of a missing key as the expression writes it: `target.labels["tier"]`."""
    key = key.strip("'")
    chain = r"""[A-Za-z_]\w*(?:\.\w+|\[(?:"[^"]*"|'[^']*')\])*"""
    end = rf"""(?:\.{re.escape(key)}\b|\[["']{re.escape(key)}["']\])"""
    found = re.search(rf"(?<![\w.]){chain}?{end}", text)
    return found[0] if found is not None else f"the key {key[:80]!r}"


def in_network(address: str, network: str) -> bool:
    """`in_network(server.address, "10.0.0.0/8")`; false for what is no address."""
    try:
        return ip_address(address) in ip_network(network, strict=False)
    except ValueError:
        return False


def values_of(alert: Alert, target: Target | None) -> Mapping[str, Any]:
    """The normalised values an expression sees; what the alert does not say is absent, not empty."""
    connection = alert.connection
    values: dict[str, Any] = {
        "client": _side(connection.client) if connection else {},
        "server": _side(connection.server) if connection else {},
        "process": _said(name=alert.process, cmdline=alert.cmdline, pid=alert.pid),
        "target": {},
        "alert": _said(
            rule=alert.rule,
            priority=alert.priority.title,
            severity=int(alert.priority),
            tags=list(alert.tags[:MAX_ITEMS]),
            source=alert.source,
            hostname=alert.hostname,
            time=alert.time_ns,
            output=alert.output,
        ),
        "fields": {
            key: _bounded(value, MAX_DEPTH)
            for key, value in list(alert.fields.items())[:MAX_FIELDS]
            if value is not None
        },
    }
    if connection is not None and connection.proto is not None:
        values["proto"] = str(connection.proto)
    if target is not None:
        identity = target.identity
        values["target"] = _said(
            namespace=identity.namespace or alert.namespace,
            pod=identity.pod or alert.pod,
            name=target.title,
            owner=identity.owner or None,
            kind=str(target.kind),
        ) | {"labels": dict(identity.labels)}
    return values


def _side(endpoint: Endpoint) -> dict[str, Any]:
    address = endpoint.address
    return _said(address=None if address is None else str(address), port=endpoint.port)


def _said(**values: Any) -> dict[str, Any]:  # noqa: ANN401 - whatever CEL understands
    return {
        name: value[:MAX_TEXT] if isinstance(value, str) else value
        for name, value in values.items()
        if value is not None
    }


def _bounded(value: Json, depth: int) -> Json:
    """A foreign value cut to what the evaluator can take."""
    if isinstance(value, str):
        return value[:MAX_TEXT]
    if isinstance(value, list):
        return [_bounded(item, depth - 1) for item in value[:MAX_ITEMS]] if depth else []
    if isinstance(value, dict):
        items = list(value.items())[:MAX_ITEMS] if depth else []
        return {key: _bounded(item, depth - 1) for key, item in items}
    if isinstance(value, int) and not -_LARGEST <= value <= _LARGEST:
        return str(value)[:MAX_TEXT] if value.bit_length() <= 256 else 0
    return value
