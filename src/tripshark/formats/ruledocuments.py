"""What one document of a rule file may say, key by key, and how its words become numbers."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Annotated, Any, cast

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    ValidationInfo,
    WithJsonSchema,
)

from tripshark.errors import BadInput
from tripshark.model import expression, units
from tripshark.model.alert import Priority
from tripshark.model.filter import Scope
from tripshark.model.recording import HEADERS_BYTES
from tripshark.model.rule import FieldTest, PriorityTest, Relation

SNAPLEN_FULL = 262_144
SNAPLEN_HEADERS = HEADERS_BYTES
MAX_DURATION_NS = 86_400_000_000_000  # a day: a capture ends by its own budget

# ---------------------------------------------------------------------------------- words to values


def duration(value: object) -> int:
    """`30s`, `2m`, `1m30s`, `500ms`, or plain seconds, in nanoseconds. Raises `ValueError`."""
    return _within(units.ns_of, value, 0, MAX_DURATION_NS, "at most a day, such as 30s or 2m")


def size(value: object) -> int:
    """`50MB`, `16MiB` or a plain number of bytes. Raises `ValueError`."""
    return _within(units.bytes_of, value, 1, 2**50, "a size such as 50MB")


def count(value: object) -> int:
    """`200k` or a plain number. Raises `ValueError`."""
    return _within(units.count_of, value, 1, 2**50, "a count such as 200k")


def snaplen(value: object) -> int:
    """`full`, `headers` or bytes per packet. Raises `ValueError`."""
    word = str(value).strip().lower()
    if word in ("full", "0"):  # 0 is tcpdump's word for it
        return SNAPLEN_FULL
    if word == "headers":
        return SNAPLEN_HEADERS
    expected = f"full, headers, or 14 to {SNAPLEN_FULL} bytes per packet"
    return _within(units.bytes_of, value, 14, SNAPLEN_FULL, expected)


def _within(
    read: Callable[[object], int], value: object, least: int, most: int, expected: str
) -> int:
    try:
        number = read(value)
    except (ValueError, OverflowError):  # no number, or one of hundreds of digits
        number = -1
    if not least <= number <= most:
        raise ValueError(f"{str(value)[:40]!r} cannot be used: {expected} is expected")
    return number


def flag(value: object) -> bool:
    """Talon writes `"true"` and `"false"` as text; YAML's own words do as well."""
    word = str(value).strip().lower()
    if word in ("true", "yes", "on"):
        return True
    if word in ("false", "no", "off"):
        return False
    raise ValueError(f"{word[:40]!r} is neither true nor false")


def priority(value: object) -> PriorityTest | None:
    """`Warning`, `>=Notice`, `<info`; empty asks for nothing. Raises `ValueError`."""
    if value in (None, ""):
        return None
    match = re.fullmatch(r"\s*([<>]?=?)\s*([A-Za-z]+)\s*", str(value))
    named = Priority.named(match[2]) if match is not None else None
    if match is None or named is None:
        words = ", ".join(each.title for each in Priority)
        raise ValueError(
            f"{str(value)[:40]!r} is no priority; <, <=, =, >= or > and one of {words}"
        )
    return PriorityTest(cast(Relation, match[1] or "="), named)


_TEST = re.compile(r"\s*([^\s=!,][^=!,]*?)\s*(!=|=)(.*)", re.DOTALL)


def field_tests(entry: str) -> tuple[tuple[FieldTest, ...], tuple[str, ...]]:
    """`k=v, k2!=v2` as tests, and warnings where Talon would read it otherwise.

    Talon splits at every `,` and `=`. A value that holds one would be lost there, and with it the
    test, so that the rule would match everything; here the value is what its author wrote.
    Raises `ValueError`.
    """
    tests: list[FieldTest] = []
    warnings: list[str] = []
    for piece in entry.split(","):
        match = _TEST.fullmatch(piece)
        if match is not None:
            value = match[3].strip()
            tests.append(FieldTest(match[1], match[2] == "=", value))
            if "=" in value:
                warnings.append(
                    f"{tests[-1].key}: the value is read as {value!r}; Falco Talon drops such a test"
                )
        elif tests:
            last = tests[-1]
            tests[-1] = FieldTest(last.key, last.equal, f"{last.value},{piece}")
            warnings.append(
                f"{last.key}: the value is read as {tests[-1].value!r}; Falco Talon splits it at the comma"
            )
        else:
            raise ValueError(f"{entry[:80]!r} is no test; write key=value or key!=value")
    return tuple(tests), tuple(warnings)


class Unfit(ValueError):
    """A value that cannot be used, and what to write instead."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


def _field_test(entry: str) -> str:
    field_tests(entry)
    return entry


def _where(text: str) -> str:
    try:
        expression.compile(text)
    except BadInput as problem:
        place = f" (at {problem.where} of the expression)" if problem.where else ""
        raise Unfit(f"{problem.message}{place}", problem.hint) from problem
    return text


def _filter(text: str, info: ValidationInfo) -> str:
    """The loader's context holds what compiles filters; without it they are taken as they stand."""
    check = (info.context or {}).get("check_filter")
    if text and check is not None:
        try:
            check(text)
        except BadInput as problem:
            raise Unfit(problem.message, problem.hint) from problem
    return text


def _listed(value: object) -> object:
    """One entry may stand without its brackets."""
    return [value] if isinstance(value, str) else value


def _wanted(value: object) -> object:
    """`capture: false` asks for no packets."""
    if isinstance(value, str) and value.strip().lower() in ("false", "no", "off", "none"):
        return None
    return value


def _shown(*types: str, example: str) -> WithJsonSchema:
    return WithJsonSchema({"type": list(types), "examples": [example]})


Duration = Annotated[int, PlainValidator(duration), _shown("string", "number", example="30s")]
Size = Annotated[int, PlainValidator(size), _shown("string", "integer", example="50MB")]
Count = Annotated[int, PlainValidator(count), _shown("string", "integer", example="200k")]
Snaplen = Annotated[int, PlainValidator(snaplen), _shown("string", "integer", example="full")]
Flag = Annotated[bool, PlainValidator(flag), _shown("string", "boolean", example="true")]
Severity = Annotated[
    PriorityTest | None, PlainValidator(priority), _shown("string", example=">=Warning")
]
Words = Annotated[list[str], BeforeValidator(_listed)]
Name = Annotated[str, Field(min_length=1, max_length=500)]

# ---------------------------------------------------------------------------------- documents


class Document(BaseModel):
    """Any document: no key unknown to us, nothing converted behind the author's back."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class MatchDocument(Document):
    """Which alerts; all given keys must hold."""

    rules: Words = []
    priority: Severity = None
    tags: Words = []
    source: str = ""
    output_fields: Annotated[
        list[Annotated[str, AfterValidator(_field_test)]], BeforeValidator(_listed)
    ] = []
    where: Annotated[str, AfterValidator(_where)] | None = None


class MaxDocument(Document):
    """Where a capture stops whatever else happens."""

    bytes: Size | None = None
    packets: Count | None = None
    extend: Duration | None = None


class CaptureDocument(Document):
    """What to record."""

    scope: Annotated[Scope, Field(strict=False)] | None = None
    before: Duration | None = None
    after: Duration | None = None
    idle: Duration | None = None
    max: MaxDocument = MaxDocument()
    snaplen: Snaplen | None = None
    filter: Annotated[str, AfterValidator(_filter)] = ""


class OutputDocument(Document):
    """Talon's place for what an action yields."""

    target: str = ""
    parameters: dict[str, Any] = {}


class ActionDocument(Document):
    """An action by name; complete in itself or in another document of that name."""

    action: Name
    description: str = ""
    actionner: Annotated[str, Field(pattern="^[a-z]+:[a-z]+$")] | None = None
    proceed: Flag = Field(default=True, alias="continue")
    ignore_errors: Flag = False
    additional_contexts: Words = []
    parameters: dict[str, Any] = {}
    output: OutputDocument = OutputDocument()


class RuleDocument(Document):
    """A rule."""

    rule: Name
    description: str = ""
    match: MatchDocument = MatchDocument()
    capture: Annotated[CaptureDocument | None, BeforeValidator(_wanted)] = CaptureDocument()
    actions: list[ActionDocument] = []
    notifiers: Words = []
    proceed: Flag = Field(default=True, alias="continue")
    dry_run: Flag = False


_INNER: Mapping[str, type[Document]] = MappingProxyType(
    {
        "match": MatchDocument,
        "capture": CaptureDocument,
        "max": MaxDocument,
        "actions": ActionDocument,
        "output": OutputDocument,
    }
)
_FALCO_KEYS = frozenset({"condition", "desc", "output", "exceptions", "macro", "list", "items"})


def unknown_key(document: type[Document], path: tuple[str | int, ...]) -> tuple[str, str]:
    """What to say of a key nobody knows: message and hint with the nearest one known."""
    outer = [part for part in path[:-1] if isinstance(part, str)]
    model = _INNER[outer[-1]] if outer else document
    key = str(path[-1])
    known = sorted(field.alias or name for name, field in model.model_fields.items())
    if model is RuleDocument and key in _FALCO_KEYS:
        return (
            f"{key!r} belongs to a rule of Falco",
            "Tripshark's rules say which alerts of Falco are worth recording",
        )
    close = difflib.get_close_matches(key, known, n=1)
    where = f" in {outer[-1]}" if outer else ""
    hint = f"did you mean {close[0]!r}?" if close else "known: " + ", ".join(known)
    return f"unknown key {key[:80]!r}{where}", hint
