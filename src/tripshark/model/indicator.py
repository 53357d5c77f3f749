"""What the operator looks for, and which rows of the findings are it.

An indicator has one or more *patterns*, any of which is enough. A pattern is a list of *observations*, each a list of
terms that must hold for one and the same row; all observations must be seen in the same file, in that order where the
pattern says so. A line `evil.example` is one pattern of one observation of one term.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Final

from tripshark.model.claim import MAX_FILTER, MAX_FINDINGS, MAX_FRAMES, Finding, Severity
from tripshark.model.finding import Findings
from tripshark.model.observable import Kind, Observable, Place, Role, Sighting, sightings
from tripshark.model.text import printable

MAX_MATCHES = 50  # findings of indicators in one file; the rest is counted in a note
MAX_INDICATORS = 500_000
_SHOWN = 3  # rows that a finding's text names


class Sought(StrEnum):
    """How a term compares."""

    ADDRESS = "address"
    NETWORK = "network"  # an address within it
    DOMAIN = "domain"  # the name itself, and every name below it
    HOSTNAME = "hostname"  # that very name
    URL = "url"
    USER_AGENT = "user_agent"
    JA3 = "ja3"
    JA4 = "ja4"
    SHA256 = "sha256"
    MD5 = "md5"
    FILE = "file"
    COMMUNITY_ID = "community_id"
    PORT = "port"
    PROTO = "proto"


_OBSERVED: Final[Mapping[Sought, Kind]] = {
    Sought.NETWORK: Kind.ADDRESS,
    Sought.HOSTNAME: Kind.DOMAIN,
    **{each: Kind(each.value) for each in Sought if each.value in list(Kind)},
}
_RAREST_FIRST: Final = (
    Sought.SHA256, Sought.MD5, Sought.COMMUNITY_ID, Sought.URL, Sought.JA4, Sought.JA3, Sought.HOSTNAME,
    Sought.DOMAIN, Sought.FILE, Sought.USER_AGENT, Sought.ADDRESS, Sought.NETWORK,
)  # fmt: skip
_BEST: Final = (  # of several rows that show the same value: the one whose filter says most
    Place.ENDPOINT, Place.FILE, Place.HTTP, Place.TLS, Place.DNS, Place.SSH, Place.FLOW, Place.TARGET,
)  # fmt: skip
_WORDS: Final = {
    Sought.ADDRESS: "the address",
    Sought.NETWORK: "an address in the network",
    Sought.DOMAIN: "the domain",
    Sought.HOSTNAME: "the name",
    Sought.URL: "the URL",
    Sought.USER_AGENT: "the user agent",
    Sought.JA3: "the JA3 fingerprint",
    Sought.JA4: "the JA4 fingerprint",
    Sought.SHA256: "a file with SHA-256",
    Sought.MD5: "a file with MD5",
    Sought.FILE: "a file called",
    Sought.COMMUNITY_ID: "the flow with community ID",
    Sought.PORT: "port",
    Sought.PROTO: "protocol",
}


@dataclass(frozen=True, slots=True)
class Term:
    """One comparison; the value is spelled as `model.observable` spells it."""

    sought: Sought
    value: str
    role: Role | None = None

    @property
    def is_selective(self) -> bool:
        """It means something by itself."""
        return self.sought not in (Sought.PORT, Sought.PROTO)

    def holds(self, row: Sighting) -> bool:
        """This row shows it."""
        kind = _OBSERVED[self.sought]
        return any(
            each.kind is kind
            and (self.role is None or each.role in (None, self.role))
            and self._is(each.value)
            for each in row.observables
        )

    def _is(self, value: str) -> bool:
        if self.sought is Sought.NETWORK:
            network, address = ip_network(self.value), ip_address(value)
            return address.version == network.version and address in network
        if self.sought is Sought.DOMAIN:
            return value == self.value or value.endswith("." + self.value)
        return value == self.value

    def __str__(self) -> str:
        return f"{_WORDS[self.sought]} {self.value}"


Observation = tuple[Term, ...]


@dataclass(frozen=True, slots=True)
class Pattern:
    """Observations that must all be seen."""

    observations: tuple[Observation, ...]
    ordered: bool = False  # each not before the one before it


@dataclass(frozen=True, slots=True, kw_only=True)
class Indicator:
    """One entry of a list."""

    name: str  # as the list writes it: "evil.example", or a STIX pattern
    patterns: tuple[Pattern, ...]
    source: str  # "feeds/c2.txt:12", "bundle.json: objects[3]"
    note: str = ""  # what the list says about it
    severity: Severity = Severity.HIGH
    techniques: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        terms: Iterable[Observation],
        *,
        name: str,
        source: str,
        note: str = "",
        severity: Severity = Severity.HIGH,
        techniques: tuple[str, ...] = (),
    ) -> Indicator:
        """An indicator that any of these observations is enough for."""
        return cls(
            name=printable(name),
            patterns=tuple(Pattern((each,)) for each in terms),
            source=printable(source),
            note=printable(note),
            severity=severity,
            techniques=techniques,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """An indicator that a file shows."""

    indicator: Indicator
    rows: tuple[Sighting, ...]  # at least one
    terms: tuple[Term, ...]  # of the pattern that was met


class Indicators:
    """A set of indicators, made for comparing many of them with many rows at once."""

    def __init__(self, indicators: Iterable[Indicator] = ()) -> None:
        self.all = tuple(indicators)
        self._patterns: list[tuple[int, Pattern]] = []  # with the indicator's number
        self._by_value: dict[Kind, dict[str, list[tuple[int, int]]]] = defaultdict(dict)
        self._networks: dict[tuple[int, int], dict[int, list[tuple[int, int]]]] = {}
        for number, indicator in enumerate(self.all):
            for pattern in indicator.patterns:
                self._add(number, pattern)

    def __len__(self) -> int:
        return len(self.all)

    @property
    def keys(self) -> Iterator[Term]:
        """For each observation the term by which it is looked up: where none of them is, nothing can match."""
        for _, pattern in self._patterns:
            for terms in pattern.observations:
                yield key_of(terms)

    def match(self, rows: Sequence[Sighting]) -> list[Match]:
        """What these rows of one file show, in the order of the list; each indicator at most once."""
        hits: dict[int, dict[int, list[Sighting]]] = defaultdict(lambda: defaultdict(list))
        for row in rows:
            for pattern, which in dict.fromkeys(self._candidates(row)):
                terms = self._patterns[pattern][1].observations[which]
                if all(term.holds(row) for term in terms):
                    hits[pattern][which].append(row)
        found: dict[int, Match] = {}
        for at in sorted(hits):
            number, pattern_ = self._patterns[at]
            if number in found or len(hits[at]) < len(pattern_.observations):
                continue
            seen = [hits[at][which] for which in range(len(pattern_.observations))]
            if pattern_.ordered and not _in_order(seen):
                continue
            shown = _best(seen)
            terms = tuple(term for each in pattern_.observations for term in each)
            found[number] = Match(indicator=self.all[number], rows=shown, terms=terms)
        return [found[number] for number in sorted(found)]

    def _add(self, number: int, pattern: Pattern) -> None:
        at = len(self._patterns)
        self._patterns.append((number, pattern))
        for which, terms in enumerate(pattern.observations):
            key = key_of(terms)
            if key.sought is Sought.NETWORK:
                network = ip_network(key.value)
                begin = int(network.network_address) >> (network.max_prefixlen - network.prefixlen)
                of_length = self._networks.setdefault((network.version, network.prefixlen), {})
                of_length.setdefault(begin, []).append((at, which))
            else:
                by_value = self._by_value[_OBSERVED[key.sought]]
                by_value.setdefault(key.value, []).append((at, which))

    def _candidates(self, row: Sighting) -> Iterator[tuple[int, int]]:
        for each in row.observables:
            by_value = self._by_value.get(each.kind, {})
            if each.kind is Kind.DOMAIN:
                for name in _upwards(each.value):
                    yield from by_value.get(name, ())
                continue
            yield from by_value.get(each.value, ())
            if each.kind is Kind.ADDRESS and self._networks:
                yield from self._within(each)

    def _within(self, each: Observable) -> Iterator[tuple[int, int]]:
        address = ip_address(each.value)
        for (version, length), begins in self._networks.items():
            if version == address.version:
                yield from begins.get(int(address) >> (address.max_prefixlen - length), ())


def key_of(terms: Observation) -> Term:
    """The rarest of the terms, by its kind."""
    selective = [term for term in terms if term.is_selective]
    return min(selective, key=lambda term: _RAREST_FIRST.index(term.sought))


def _upwards(name: str) -> Iterator[str]:
    """The name, and every name above it."""
    while name:
        yield name
        name = name.partition(".")[2]


def _in_order(seen: Sequence[Sequence[Sighting]]) -> bool:
    at = 0
    for rows in seen:
        later = [row.first_ns for row in rows if row.first_ns >= at]
        if not later:
            return False
        at = min(later)
    return True


def _best(seen: Sequence[Sequence[Sighting]]) -> tuple[Sighting, ...]:
    """Of each observation the rows of the place that says most, each row once."""
    shown: dict[Sighting, None] = {}
    for rows in seen:
        best = min((row.place for row in rows), key=_BEST.index)
        shown |= dict.fromkeys(row for row in rows if row.place is best)
    return tuple(shown)


# ------------------------------------------------------------------------------------------------ findings


def claims_of(findings: Findings, indicators: Indicators) -> tuple[tuple[Finding, ...], int]:
    """One claim for every indicator that the findings show, most severe first, and how many had no room.

    They are yet to be checked. Each cites rows that were: their filters show their frames.
    """
    rows = [row for row in sightings(findings) if row.frame and row.filter]
    matches = indicators.match(rows) if len(indicators) else []
    matches.sort(key=lambda each: -each.indicator.severity.rank)
    room = max(0, min(MAX_MATCHES, MAX_FINDINGS - len(findings.findings)))
    first = 1 + max((int(each.id[1:]) for each in findings.findings), default=0)
    claims = tuple(
        _finding(f"F{first + number}", match) for number, match in enumerate(matches[:room])
    )
    return claims, max(0, len(matches) - room)


def with_claims(findings: Findings, claims: Iterable[Finding], *notes: str) -> Findings:
    """The findings with those of the claims that were checked, most severe first."""
    together = [*findings.findings, *(each for each in claims if each.checked)]
    return replace(
        findings,
        findings=tuple(sorted(together, key=lambda each: -each.severity.rank)),
        notes=(*findings.notes, *notes),
    )


def _finding(id: str, match: Match) -> Finding:
    rows, filter = cited(match.rows)
    indicator = match.indicator
    where = ", ".join(f"{_SAID[row.place]} in frame {row.frame}" for row in rows[:_SHOWN])
    more = f" and {len(match.rows) - _SHOWN} more" if len(match.rows) > _SHOWN else ""
    said = f" ({indicator.note[:120]})" if indicator.note else ""
    return Finding(
        id=id,
        kind="indicator",
        severity=indicator.severity,
        title=printable(f"On a list of indicators: {indicator.name}", 120),
        text=printable(
            f"{indicator.source} names {match.terms[0]}{said}; seen as {where}{more}.", 500
        ),
        frames=tuple(sorted({row.frame for row in rows}))[:MAX_FRAMES],
        filter=filter,
        first_ns=min(row.first_ns for row in rows),
        last_ns=max(row.first_ns for row in rows),
        techniques=indicator.techniques,
        about={
            "indicator": indicator.name,
            "list": indicator.source,
            **({"note": indicator.note} if indicator.note else {}),
            "sought": str(match.terms[0]),
            "seen": _seen(match, rows),
        },
    )


_SAID: Final = {
    Place.FLOW: "a conversation",
    Place.ENDPOINT: "an endpoint",
    Place.DNS: "a DNS name or answer",
    Place.TLS: "a TLS handshake",
    Place.HTTP: "an HTTP request",
    Place.SSH: "an SSH banner",
    Place.FILE: "a transferred file",
    Place.TARGET: "the target",
}


def _seen(match: Match, rows: Sequence[Sighting]) -> str:
    """What the rows show of what was sought."""
    values = dict.fromkeys(
        each.value
        for term in match.terms
        for row in rows
        for each in row.observables
        if term.holds(replace(row, observables=(each,)))
    )
    return printable(", ".join(values))


def cited(rows: Sequence[Sighting]) -> tuple[tuple[Sighting, ...], str]:
    """The rows that one filter can show, at most `MAX_FRAMES`, and that filter."""
    filters: dict[str, None] = {}
    shown: list[Sighting] = []
    length = 0
    for row in rows[:MAX_FRAMES]:
        if row.filter not in filters:
            if filters and length + len(row.filter) + 8 > MAX_FILTER:
                break
            length += len(row.filter) + 8
            filters[row.filter] = None
        shown.append(row)
    one = len(filters) == 1
    return tuple(shown), next(iter(filters)) if one else " or ".join(
        f"({each})" for each in filters
    )


# ------------------------------------------------------------------------------------------------- sanity

_TOO_WIDE: Final = {4: 8, 6: 19}  # shorter prefixes are no indicator but a part of the Internet
_SHARED: Final = frozenset(
    {"1.1.1.1", "1.0.0.1", "8.8.8.8", "8.8.4.4", "9.9.9.9", "2606:4700:4700::1111", "2001:4860:4860::8888"}
)  # fmt: skip
_PRIVATE: Final = tuple(
    map(
        ip_network,
        ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "169.254.0.0/16", "fc00::/7", "fe80::/10"),
    )
)  # fmt: skip
_EMPTY: Final = frozenset(
    {
        "d41d8cd98f00b204e9800998ecf8427e",
        "da39a3ee5e6b4b0d3255bfef95601890afd80709",
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    }
)
_OWN_DOMAINS: Final = (
    "localhost",
    "local",
    "internal",
    "cluster.local",
    "svc.cluster.local",
    "in-addr.arpa",
    "ip6.arpa",
)


def refusal(term: Term) -> str:
    """Why a term would match what everybody does, so that it is not used; "" when it is fine."""
    match term.sought:
        case Sought.NETWORK:
            network = ip_network(term.value)
            if network.prefixlen < _TOO_WIDE[network.version]:
                return f"a network of /{network.prefixlen} is a part of the Internet, no indicator"
            return _special(network)
        case Sought.ADDRESS:
            return _special(ip_network(term.value))
        case Sought.DOMAIN if "." not in term.value:
            return "a whole top-level domain is no indicator"
        case Sought.DOMAIN if term.value in _OWN_DOMAINS:
            return "every machine uses that domain"
        case Sought.MD5 | Sought.SHA256 if term.value in _EMPTY:
            return "that is the hash of an empty file"
        case _:
            return ""


def _special(network: IPv4Network | IPv6Network) -> str:
    if network.is_unspecified or network.is_loopback or network.is_multicast:
        return "that is no host's address"
    return ""


def remark(term: Term) -> str:
    """What should be known of a term that is used all the same; "" when nothing."""
    if term.sought in (Sought.ADDRESS, Sought.NETWORK):
        network = ip_network(term.value)
        if any(network.overlaps(each) for each in _PRIVATE):
            return "a private address: it means somebody else in every network"
        if term.value in _SHARED:
            return "a public resolver that many machines use"
    return ""
