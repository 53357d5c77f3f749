"""STIX patterns: what they look for as alternatives of our own terms, and which of their parts cannot be answered.

The whole language is understood (STIX 2.1, part 9); answered are equality, IN and ISSUBSET on what packets show.
An alternative that needs anything else is dropped, and said.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Final, TypeVar

from tripshark.errors import BadInput
from tripshark.formats.indicators.values import term_of
from tripshark.model.indicator import Observation, Pattern, Sought, Term
from tripshark.model.observable import Role

T = TypeVar("T")

MAX_PATTERN = 20_000  # characters
MAX_ALTERNATIVES = 1_000
_MAX_DEPTH = 50

_TOKEN = re.compile(
    r"""\s*(?:
      (?P<string>[thb]?'(?:[^'\\]|\\.)*')
    | (?P<number>[+-]?[0-9]+(?:\.[0-9]+)?)
    | (?P<path>[A-Za-z][A-Za-z0-9_-]*:[A-Za-z_'][A-Za-z0-9_.\-]*
        (?:'[^']*'|\[(?:[0-9]+|\*)\]|\.|[A-Za-z0-9_-]+)*)
    | (?P<word>[A-Za-z]+)
    | (?P<sign><=|>=|!=|<>|==|[=<>(),\[\]])
    )""",
    re.VERBOSE | re.ASCII | re.DOTALL,
)
_NOT_ANSWERED: Final = frozenset(
    {"LIKE", "MATCHES", "ISSUPERSET", "!=", "<>", "<", ">", "<=", ">="}
)
_HASHES: Final = {"sha-256": Sought.SHA256, "sha256": Sought.SHA256, "md5": Sought.MD5}
_TRANSPORT: Final = frozenset({"tcp", "udp", "icmp", "icmpv6", "sctp", "gre"})


@dataclass(frozen=True, slots=True)
class Unanswerable:
    """A part that packets here cannot answer."""

    why: str


Part = Term | Unanswerable
Parts = tuple[Part, ...]  # all of them, in one observation


@dataclass(frozen=True, slots=True)
class _Seen:
    """One alternative of the observations."""

    observations: tuple[Parts, ...]
    chained: bool = False  # by FOLLOWEDBY
    joined: bool = False  # by AND
    why_not: str = ""  # a qualifier that is not answered


@dataclass(frozen=True, slots=True)
class Understood:
    """What of a pattern can be looked for, and why the rest cannot."""

    patterns: tuple[Pattern, ...]
    unanswerable: tuple[str, ...]


def understand(text: str) -> Understood:
    """Raises `BadInput` for what is no STIX pattern, with the character at which it stops being one."""
    if len(text) > MAX_PATTERN:
        raise BadInput(f"a pattern of more than {MAX_PATTERN} characters")
    patterns, problems = [], []
    for each in _Parser(text).whole():
        problem = each.why_not or next(
            (part.why for parts in each.observations for part in parts
             if isinstance(part, Unanswerable)), ""
        )  # fmt: skip
        if not problem and each.chained and each.joined:
            problem = "AND and FOLLOWEDBY in one pattern"
        if problem:
            problems.append(problem)
            continue
        observations = tuple(_terms(parts) for parts in each.observations)
        patterns.append(Pattern(observations, ordered=each.chained))
    return Understood(tuple(dict.fromkeys(patterns)), tuple(dict.fromkeys(problems)))


def _terms(parts: Parts) -> Observation:
    return tuple(dict.fromkeys(part for part in parts if isinstance(part, Term)))


class _Parser:
    def __init__(self, text: str) -> None:
        self._tokens = list(_tokens(text))
        self._at = 0
        self._depth = 0

    def whole(self) -> list[_Seen]:
        found = self._followed()
        if self._at < len(self._tokens):
            raise self._wrong("the end")
        return found

    # observations -----------------------------------------------------------------------------------

    def _followed(self) -> list[_Seen]:
        self._deeper(1)
        found = self._either()
        while self._word("FOLLOWEDBY"):
            found = _combined(found, self._either(), chained=True)
        self._deeper(-1)
        return found

    def _either(self) -> list[_Seen]:
        found = self._both()
        while self._word("OR"):
            found = _bounded([*found, *self._both()])
        return found

    def _both(self) -> list[_Seen]:
        found = self._observation()
        while self._word("AND"):
            found = _combined(found, self._observation(), chained=False)
        return found

    def _observation(self) -> list[_Seen]:
        if self._sign("("):
            found = self._followed()
            self._expect(")")
        else:
            self._expect("[")
            found = [_Seen((parts,)) for parts in self._any_of()]
            self._expect("]")
        while why := self._qualifier():
            found = [_Seen(each.observations, each.chained, each.joined, why) for each in found]
        return found

    def _qualifier(self) -> str:
        if self._word("WITHIN"):
            self._take("number")
            self._wanted("SECONDS")
            return "WITHIN … SECONDS"
        if self._word("REPEATS"):
            self._take("number")
            self._wanted("TIMES")
            return "REPEATS … TIMES"
        if self._word("START"):
            self._take("string")
            self._wanted("STOP")
            self._take("string")
            return "START … STOP …"
        return ""

    # comparisons ------------------------------------------------------------------------------------

    def _any_of(self) -> list[Parts]:
        self._deeper(1)
        found = self._all_of()
        while self._word("OR"):
            found = _bounded([*found, *self._all_of()])
        self._deeper(-1)
        return found

    def _all_of(self) -> list[Parts]:
        found = self._comparison()
        while self._word("AND"):
            more = self._comparison()
            _fits(len(found) * len(more))
            found = [(*one, *other) for one, other in product(found, more)]
        return found

    def _comparison(self) -> list[Parts]:
        if self._sign("("):
            found = self._any_of()
            self._expect(")")
            return found
        if self._word("EXISTS"):
            return [(Unanswerable(f"EXISTS {self._take('path')}"),)]
        path = self._take("path")
        negated = self._word("NOT")
        kind, how = self._next("a comparison")
        if kind not in ("word", "sign"):
            raise self._wrong("a comparison", back=1)
        how = how.upper()
        if how == "IN":
            values = self._values()
        elif how in ("=", "==", "ISSUBSET") or how in _NOT_ANSWERED:
            values = [self._value()]
        else:
            raise self._wrong("a comparison", back=1)
        if negated or how in _NOT_ANSWERED:
            return [(Unanswerable(f"{path} {'NOT ' if negated else ''}{how}"),)]
        return _bounded([_meant(path, value, subset=how == "ISSUBSET") for value in values])

    def _values(self) -> list[str]:
        self._expect("(")
        found = [self._value()]
        while self._sign(","):
            found.append(self._value())
        self._expect(")")
        return found

    def _value(self) -> str:
        kind, token = self._next("a value")
        if kind == "string":
            if token[0] != "'":  # t'…', h'…', b'…'
                return ""
            return re.sub(r"\\(.)", r"\1", token[1:-1], flags=re.DOTALL)
        if kind == "number" or (kind == "word" and token.lower() in ("true", "false")):
            return token
        raise self._wrong("a value", back=1)

    # tokens -----------------------------------------------------------------------------------------

    def _next(self, wanted: str) -> tuple[str, str]:
        if self._at >= len(self._tokens):
            raise self._wrong(wanted)
        kind, token, _ = self._tokens[self._at]
        self._at += 1
        return kind, token

    def _take(self, kind: str) -> str:
        found, token = self._next(f"a {kind}")
        if found != kind:
            raise self._wrong(f"a {kind}", back=1)
        return token

    def _is(self, kind: str, text: str) -> bool:
        if self._at < len(self._tokens):
            found, token, _ = self._tokens[self._at]
            if found == kind and token.upper() == text:
                self._at += 1
                return True
        return False

    def _word(self, text: str) -> bool:
        return self._is("word", text)

    def _sign(self, text: str) -> bool:
        return self._is("sign", text)

    def _wanted(self, word: str) -> None:
        if not self._word(word):
            raise self._wrong(word)

    def _expect(self, sign: str) -> None:
        if not self._sign(sign):
            raise self._wrong(sign)

    def _wrong(self, wanted: str, back: int = 0) -> BadInput:
        at = self._at - back
        where = self._tokens[at][2] if at < len(self._tokens) else -1
        place = f"at character {where + 1}" if where >= 0 else "at its end"
        return BadInput(f"no STIX pattern: expected {wanted} {place}")

    def _deeper(self, by: int) -> None:
        self._depth += by
        if self._depth > _MAX_DEPTH:
            raise BadInput(f"no STIX pattern: nested more than {_MAX_DEPTH} deep")


def _tokens(text: str) -> Iterator[tuple[str, str, int]]:
    at, end = 0, len(text.rstrip())
    while at < end:
        found = _TOKEN.match(text, at)
        if found is None or found.lastgroup is None:
            raise BadInput(f"no STIX pattern: cannot be read at character {at + 1}")
        yield found.lastgroup, found[found.lastgroup], found.start(found.lastgroup)
        at = found.end()


def _combined(one: list[_Seen], other: list[_Seen], *, chained: bool) -> list[_Seen]:
    _fits(len(one) * len(other))
    return [
        _Seen(
            (*a.observations, *b.observations),
            a.chained or b.chained or chained,
            a.joined or b.joined or not chained,
            a.why_not or b.why_not,
        )
        for a, b in product(one, other)
    ]


def _bounded(found: list[T]) -> list[T]:
    _fits(len(found))
    return found


def _fits(count: int) -> None:
    if count > MAX_ALTERNATIVES:
        raise BadInput(f"a pattern of more than {MAX_ALTERNATIVES} alternatives")


# ------------------------------------------------------------------------------------------ what paths mean


def _meant(path: str, value: str, *, subset: bool) -> Parts:
    """What `path = value` is in our words."""
    kind, _, rest = path.partition(":")
    kind, steps = kind.lower(), _steps(rest)
    if kind == "network-traffic" and steps in (("src_ref", "type"), ("dst_ref", "type")):
        return ()  # the value beside it says as much
    sought, role = _sought(kind, steps)
    if sought is Sought.ADDRESS and "/" in value:
        sought = Sought.NETWORK
    elif subset and sought is not Sought.ADDRESS:
        return (Unanswerable(f"{path} ISSUBSET"),)
    if sought is Sought.ADDRESS and kind == "network-traffic":
        named = term_of(Sought.HOSTNAME, value)  # a reference may lead to a name as well
        if named is not None:
            return (named,)
    if sought is Sought.PROTO and value.lower() in ("ipv4", "ipv6", "ip"):
        return ()
    if sought is None or (sought is Sought.PROTO and value.lower() not in _TRANSPORT):
        return (Unanswerable(f"{path} = {value[:60]}"),)
    term = term_of(sought, value, role)
    return (Unanswerable(f"{path}: {value[:60]!r} is no {sought}"),) if term is None else (term,)


def _steps(path: str) -> tuple[str, ...]:
    """`extensions.'tls-ext'.ja3` as ("extensions", "tls-ext", "ja3"), without indices."""
    plain = re.sub(r"\[(?:[0-9]+|\*)\]", "", path)
    return tuple(each.strip("'").lower() for each in re.findall(r"'[^']*'|[^.']+", plain))


def _sought(kind: str, steps: tuple[str, ...]) -> tuple[Sought | None, Role | None]:
    match kind, steps:
        case (("ipv4-addr" | "ipv6-addr"), ("value",)):
            return Sought.ADDRESS, None
        case "domain-name", ("value",):
            return Sought.HOSTNAME, None
        case "domain-name", ("resolves_to_refs", "value"):
            return Sought.ADDRESS, None
        case "url", ("value",):
            return Sought.URL, None
        case (("file" | "artifact"), ("hashes", str(name))):
            return _HASHES.get(name), None
        case "file", ("name",):
            return Sought.FILE, None
        case "network-traffic", (*_, str(last)):
            return _of_traffic(steps, last)
        case _:
            return None, None


def _of_traffic(steps: tuple[str, ...], last: str) -> tuple[Sought | None, Role | None]:
    match steps:
        case ("src_ref", "value"):
            return Sought.ADDRESS, Role.CLIENT
        case ("dst_ref", "value"):
            return Sought.ADDRESS, Role.SERVER
        case ("src_port",):
            return Sought.PORT, Role.CLIENT
        case ("dst_port",):
            return Sought.PORT, Role.SERVER
        case ("protocols",):
            return Sought.PROTO, None
        case ("extensions", "http-request-ext", "request_header", "user-agent"):
            return Sought.USER_AGENT, None
        case ("extensions", "http-request-ext", "request_header", "host"):
            return Sought.HOSTNAME, None
        case _:
            return _fingerprint(last), None


def _fingerprint(name: str) -> Sought | None:
    """JA3, JA4 and community ID have no place of their own in STIX: extensions call them much alike."""
    plain = re.sub(r"[^a-z0-9]", "", name.removeprefix("x_"))
    plain = re.sub(r"(hash|md5|fingerprint|digest|value)+$", "", plain)
    return {
        "ja3": Sought.JA3, "tlsja3": Sought.JA3, "ja4": Sought.JA4, "tlsja4": Sought.JA4,
        "communityid": Sought.COMMUNITY_ID,
    }.get(plain)  # fmt: skip
