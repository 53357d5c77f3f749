"""What a search over all evidence asks for, and how values are spelled so that the asking is a range of an index.

Names are kept back to front (`moc.live.www`), so that everything below a domain lies together; addresses as
hexadecimal digits, so that a network does.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import ip_address, ip_network
from typing import Final

from tripshark.errors import BadInput
from tripshark.model.evidence import IncidentId
from tripshark.model.indicator import Match, Sought, Term
from tripshark.model.observable import (
    UNSELECTIVE,
    Kind,
    Observable,
    Place,
    Sighting,
    address_of,
    domain_of,
    hash_of,
    refanged,
    url_of,
)

MAX_QUERY = 253
_HIGHEST: Final = "\U0010ffff"  # sorts behind everything that can follow
_OCTETS = re.compile(r"(?:[0-9]{1,3}\.){1,3}\*?", re.ASCII)
_JA4 = re.compile(r"[tqd][0-9]{2}[di][0-9]{4}[0-9a-z]{2}_[0-9a-f_]*\*?", re.ASCII)
_COMMUNITY_ID = re.compile(r"1:[A-Za-z0-9+/]{27}=", re.ASCII)


class Shelf(StrEnum):
    """Under what a value is filed. Names are filed by where they were seen."""

    ADDRESS = "address"
    DNS = "dns"
    SNI = "sni"
    HOST = "host"
    NAME = "name"  # what an endpoint was called
    URL = "url"
    USER_AGENT = "user_agent"
    JA3 = "ja3"
    JA4 = "ja4"
    SHA256 = "sha256"
    MD5 = "md5"
    FILE = "file"
    COMMUNITY_ID = "community_id"
    POD = "pod"


NAMES: Final = (Shelf.DNS, Shelf.SNI, Shelf.HOST, Shelf.NAME)
KINDS: Final[dict[str, tuple[Shelf, ...]]] = {
    **{each.value: (each,) for each in Shelf},
    "domain": NAMES,
    "hash": (Shelf.SHA256, Shelf.MD5),
}
"""What `kind=` may say, and the shelves that are looked through then."""
_OF_PLACE: Final = {Place.DNS: Shelf.DNS, Place.TLS: Shelf.SNI, Place.HTTP: Shelf.HOST}
_CASED: Final = frozenset({Shelf.COMMUNITY_ID})
_TEXTS: Final = (Shelf.POD, Shelf.URL, Shelf.FILE, Shelf.USER_AGENT, Shelf.JA4)
_PLACES_FIRST: Final = (
    Place.ENDPOINT, Place.FILE, Place.TLS, Place.HTTP, Place.DNS, Place.SSH, Place.FLOW, Place.TARGET,
)  # fmt: skip


class How(StrEnum):
    IS = "is"
    BETWEEN = "between"  # at least `key`, below `to`
    ENDS = "ends"  # with `key`
    CONTAINS = "contains"


@dataclass(frozen=True, slots=True)
class Clause:
    """One question to one shelf."""

    shelf: Shelf
    how: How
    key: str
    to: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """Any of the clauses, newest incidents first."""

    clauses: tuple[Clause, ...]
    since_ns: int = 0
    visible: tuple[str, ...] | None = None  # only evidence of these namespaces alone; None: any
    after: tuple[str, str, str, str] | None = None  # the last hit of the page before
    limit: int = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """One value of one file."""

    incident: IncidentId
    node: str  # "" where an incident has one part
    shelf: Shelf
    value: str
    frame: int  # 0: it is true of the whole file
    filter: str
    first_ns: int
    file: str
    title: str
    t0_ns: int
    key: str

    @property
    def cursor(self) -> tuple[str, str, str, str]:
        """Where the next page goes on."""
        return self.incident, self.node, self.shelf.value, self.key


@dataclass(frozen=True, slots=True, kw_only=True)
class Hunted:
    """One indicator that one file shows."""

    incident: IncidentId
    node: str
    file: str
    title: str
    t0_ns: int
    match: Match


@dataclass(frozen=True, slots=True, kw_only=True)
class Filed:
    """One value as the index keeps it."""

    shelf: Shelf
    key: str
    value: str
    frame: int
    filter: str
    first_ns: int


def filed(rows: Sequence[Sighting]) -> tuple[Filed, ...]:
    """Every value of these rows once, with the row that shows it best."""
    found: dict[tuple[Shelf, str], Filed] = {}
    for row in sorted(rows, key=lambda each: _PLACES_FIRST.index(each.place)):
        for each in row.observables:
            shelf = shelf_of(each, row.place)
            if shelf is None:
                continue
            key = key_of(shelf, each.value)
            found.setdefault(
                (shelf, key),
                Filed(
                    shelf=shelf,
                    key=key,
                    value=each.value,
                    frame=row.frame,
                    filter=row.filter,
                    first_ns=row.first_ns,
                ),
            )
    return tuple(found.values())


def shelf_of(each: Observable, place: Place) -> Shelf | None:
    """Where a value is filed; None: it is not looked for alone."""
    if each.kind in UNSELECTIVE:
        return None
    if each.kind is Kind.DOMAIN:
        return _OF_PLACE.get(place, Shelf.NAME)
    return Shelf(each.kind.value)


def key_of(shelf: Shelf, value: str) -> str:
    """How a value is spelled in the index."""
    if shelf is Shelf.ADDRESS:
        return _digits(value)
    if shelf in NAMES:
        return value.lower()[::-1]
    return value if shelf in _CASED else value.lower()


def _digits(address: str) -> str:
    found = ip_address(address)
    return f"{found.version}{int(found):0{found.max_prefixlen // 4}x}"


def clauses_of_term(term: Term) -> Iterator[Clause]:
    """The questions whose answers hold everything that this term can match."""
    match term.sought:
        case Sought.NETWORK:
            yield _network(term.value)
        case Sought.DOMAIN:
            for shelf in NAMES:
                yield Clause(shelf, How.IS, key_of(shelf, term.value))
                yield _below(shelf, term.value)
        case Sought.HOSTNAME:
            for shelf in NAMES:
                yield Clause(shelf, How.IS, key_of(shelf, term.value))
        case _:
            shelf = Shelf(term.sought.value)
            yield Clause(shelf, How.IS, key_of(shelf, term.value))


def _network(text: str) -> Clause:
    network = ip_network(text)
    first, last = _digits(str(network[0])), _digits(str(network[-1]))
    return Clause(Shelf.ADDRESS, How.BETWEEN, first, last + _HIGHEST)


def _below(shelf: Shelf, name: str) -> Clause:
    return _beginning(shelf, key_of(shelf, name) + ".")


def _beginning(shelf: Shelf, key: str) -> Clause:
    return Clause(shelf, How.BETWEEN, key, key + _HIGHEST)


# ------------------------------------------------------------------------------------------- what is typed


def understood(text: str, kind: str = "") -> tuple[Clause, ...]:
    """What somebody typed, as questions.

    An address, a network (`10.0.0.0/8`, `10.0.*`), a hash, a fingerprint, a community ID or a URL mean themselves.
    `*.evil.example` means the domain and everything below; `pay*`, `*pay` and `pay` are names that begin with,
    end with or contain it. Raises `BadInput`.
    """
    if kind and kind not in KINDS:
        raise BadInput(f"no kind {kind[:40]!r}", where="kind", hint="one of " + ", ".join(KINDS))
    asked = refanged(text.strip())
    if not asked.strip("*. ") or len(asked) > MAX_QUERY:
        raise BadInput(
            "what is looked for?",
            where="q",
            hint=f"a name, address or hash, at most {MAX_QUERY} characters",
        )
    shelves = KINDS[kind] if kind else tuple(Shelf)
    clauses = tuple(_plain(asked, shelves)) or tuple(_words(asked, shelves, kind=kind))
    if not clauses:
        raise BadInput(f"{asked[:60]!r} is no {kind}", where="q")
    return clauses


def _plain(asked: str, shelves: Sequence[Shelf]) -> Iterator[Clause]:
    """What can be nothing else."""
    if address := address_of(asked):
        if Shelf.ADDRESS in shelves:
            yield Clause(Shelf.ADDRESS, How.IS, _digits(address))
        return
    if network := _network_of(asked):
        if Shelf.ADDRESS in shelves:
            yield _network(network)
        return
    if digest := hash_of(asked):
        for shelf in (Shelf.MD5, Shelf.JA3) if len(digest) == 32 else (Shelf.SHA256,):
            if shelf in shelves:
                yield Clause(shelf, How.IS, digest)
        return
    if _COMMUNITY_ID.fullmatch(asked) and Shelf.COMMUNITY_ID in shelves:
        yield Clause(Shelf.COMMUNITY_ID, How.IS, asked)
    elif _JA4.fullmatch(asked.lower()) and Shelf.JA4 in shelves:
        yield _beginning(Shelf.JA4, asked.lower().rstrip("*"))
    elif "://" in asked and Shelf.URL in shelves and (url := url_of(asked.rstrip("*"))):
        key = key_of(Shelf.URL, url)
        yield _beginning(Shelf.URL, key) if asked.endswith("*") else Clause(Shelf.URL, How.IS, key)


def _network_of(asked: str) -> str:
    if _OCTETS.fullmatch(asked):
        octets = [each for each in asked.rstrip("*").split(".") if each]
        asked = ".".join((*octets, *["0"] * (4 - len(octets)))) + f"/{8 * len(octets)}"
    if "/" not in asked:
        return ""
    try:
        return str(ip_network(asked, strict=False))
    except ValueError:
        return ""


def _words(asked: str, shelves: Sequence[Shelf], *, kind: str) -> Iterator[Clause]:
    """Names and other texts, whole or in part."""
    body = asked.strip("*")
    for shelf in shelves:
        if shelf in NAMES:
            yield from _named(shelf, asked, body)
        elif shelf in _TEXTS or kind:
            if shelf is Shelf.ADDRESS:
                continue
            key = body if shelf in _CASED else body.lower()
            if asked.endswith("*") and not asked.startswith("*"):
                yield _beginning(shelf, key)
            else:
                ends = asked.startswith("*") and not asked.endswith("*")
                yield Clause(shelf, How.ENDS if ends else How.CONTAINS, key)


def _named(shelf: Shelf, asked: str, body: str) -> Iterator[Clause]:
    if asked.startswith((".", "*.")) and not asked.endswith("*"):
        name = domain_of(body.lstrip("."))
        yield Clause(shelf, How.IS, key_of(shelf, name))
        yield _below(shelf, name)
        return
    key = key_of(shelf, body if body.isascii() else domain_of(body))
    if asked.startswith("*") and not asked.endswith("*"):
        yield _beginning(shelf, key)  # the end of a name is the beginning of its key
    else:
        begins = asked.endswith("*") and not asked.startswith("*")
        yield Clause(shelf, How.ENDS if begins else How.CONTAINS, key)
