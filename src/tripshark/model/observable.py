"""What in the findings can be looked for: names, addresses, hashes and fingerprints, each with its frame and filter.

The same rows feed the search index and are what indicators are compared with, so a search, a hunt and a finding can
never disagree about what was seen. Values are normalised once, here: addresses in their shortest form, names in
lower case without a final dot, URLs as `host[:port]/path` without scheme and query.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import ip_address
from typing import Final

from tripshark.model.alert import Json
from tripshark.model.finding import Conversation, Findings
from tripshark.model.text import printable

MAX_SIGHTINGS = 5_000  # of one file
MAX_VALUE = 400  # characters
_MAX_VALUES = 40  # of one row: a DNS answer may list many addresses
_PORT = re.compile(r"[0-9]{1,5}", re.ASCII)


class Kind(StrEnum):
    """What a value is."""

    ADDRESS = "address"
    DOMAIN = "domain"  # a DNS name, TLS server name or HTTP host
    URL = "url"
    USER_AGENT = "user_agent"
    JA3 = "ja3"
    JA4 = "ja4"
    SHA256 = "sha256"
    MD5 = "md5"
    FILE = "file"  # the name under which a file was transferred
    COMMUNITY_ID = "community_id"
    POD = "pod"  # what an address is called in the cluster: namespace/pod
    PORT = "port"  # never looked for alone
    PROTO = "proto"  # neither


UNSELECTIVE: Final = frozenset({Kind.PORT, Kind.PROTO})
"""In nearly every capture, so only looked for together with something else."""


class Place(StrEnum):
    """Which table of the findings a row is from."""

    FLOW = "flow"
    ENDPOINT = "endpoint"
    DNS = "dns"
    TLS = "tls"
    HTTP = "http"
    SSH = "ssh"
    FILE = "file"
    TARGET = "target"  # the incident's own pod: true of the whole file, so without a frame


class Role(StrEnum):
    """Which side of a connection a value belongs to."""

    CLIENT = "client"
    SERVER = "server"


@dataclass(frozen=True, slots=True)
class Observable:
    """One value of one row."""

    kind: Kind
    value: str  # normalised
    role: Role | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Sighting:
    """One row of the findings: what it says, and where the packets show it."""

    place: Place
    observables: tuple[Observable, ...]
    frame: int  # as Wireshark numbers them; 0 where the row is about the whole file
    filter: str  # a display filter that shows the row's packets
    first_ns: int
    packets: int = 0  # that the filter shows, where the row knows it; 0: it does not


def sightings(findings: Findings, *, target: str = "") -> tuple[Sighting, ...]:
    """Every row with something to look for; at most `MAX_SIGHTINGS`, the rarer kinds of rows first."""
    found = []
    for each in _rows(findings, target):
        if each.observables:
            found.append(each)
            if len(found) == MAX_SIGHTINGS:
                break
    return tuple(found)


def _rows(findings: Findings, target: str) -> Iterator[Sighting]:
    if target:
        its = (Observable(Kind.POD, text_of(target)),)
        yield Sighting(
            place=Place.TARGET, observables=its, frame=0, filter="", first_ns=findings.first_ns
        )
    for make, rows in (
        (_file, findings.files),
        (_http, findings.http),
        (_tls, findings.tls),
        (_dns, findings.dns),
        (_ssh, findings.ssh),
        (_endpoint, findings.endpoints),
    ):
        yield from map(make, rows)
    yield from map(_flow, findings.conversations)


def _file(row: Mapping[str, Json]) -> Sighting:
    return _sighting(
        Place.FILE,
        row,
        (
            *_one(Kind.SHA256, hash_of(_text(row, "sha256"))),
            *_one(Kind.MD5, hash_of(_text(row, "md5"))),
            *_one(Kind.FILE, text_of(_text(row, "name"))),
            *_ends(row),
        ),
    )


def _http(row: Mapping[str, Json]) -> Sighting:
    host, port = _text(row, "host"), _number(row, "port")
    name, _, told = host.partition(":") if host.count(":") == 1 else (host, "", "")
    at = f"{name or _bracketed(_text(row, 'server'))}:{told if _PORT.fullmatch(told) else port}"
    return _sighting(
        Place.HTTP,
        row,
        (
            *_one(Kind.DOMAIN, domain_of(name)),
            *_one(Kind.URL, url_of(f"{at}{_text(row, 'uri')}")),
            *_one(Kind.USER_AGENT, text_of(_text(row, "user_agent"))),
            *_ends(row),
        ),
    )


def _tls(row: Mapping[str, Json]) -> Sighting:
    return _sighting(
        Place.TLS,
        row,
        (
            *_one(Kind.DOMAIN, domain_of(_text(row, "name"))),
            *_one(Kind.JA3, hash_of(_text(row, "ja3"))),
            *_one(Kind.JA4, text_of(_text(row, "ja4")).lower()),
            *_ends(row),
        ),
    )


def _dns(row: Mapping[str, Json]) -> Sighting:
    answers = row.get("answers")
    told = [each for each in answers if isinstance(each, str)] if isinstance(answers, list) else []
    its = [*_one(Kind.DOMAIN, domain_of(_text(row, "name")))]
    for answer in told[:_MAX_VALUES]:
        address = address_of(answer)
        its += _one(Kind.ADDRESS, address) if address else _one(Kind.DOMAIN, domain_of(answer))
    return _sighting(Place.DNS, row, its, first_ns=_number(row, "asked_ns"))


def _ssh(row: Mapping[str, Json]) -> Sighting:
    return _sighting(
        Place.SSH, row, (*_one(Kind.ADDRESS, address_of(_text(row, "address"))), *_ends(row))
    )


def _endpoint(row: Mapping[str, Json]) -> Sighting:
    name = _text(row, "name")
    named = _one(Kind.POD, text_of(name)) if "/" in name else _one(Kind.DOMAIN, domain_of(name))
    return _sighting(
        Place.ENDPOINT,
        row,
        (*_one(Kind.ADDRESS, address_of(_text(row, "address"))), *named),
        packets=_number(row, "packets_out") + _number(row, "packets_in"),
    )


def _flow(flow: Conversation) -> Sighting:
    a, b = (Role.CLIENT, Role.SERVER) if flow.opened_by != flow.b else (Role.SERVER, Role.CLIENT)
    if not flow.opened_by:
        a = b = None  # type: ignore[assignment]  # nobody knows who began: either may be meant
    proto = flow.proto.partition(" ")[0].lower()
    its = (
        *_one(Kind.COMMUNITY_ID, text_of(flow.community_id)),
        *_one(Kind.ADDRESS, address_of(flow.a), a),
        *_one(Kind.ADDRESS, address_of(flow.b), b),
        *_one(Kind.PORT, str(flow.a_port or ""), a),
        *_one(Kind.PORT, str(flow.b_port or ""), b),
        *_one(Kind.PROTO, text_of(proto)),
    )
    return Sighting(
        place=Place.FLOW,
        observables=its,
        frame=flow.frame,
        filter=flow.filter,
        first_ns=flow.first_ns,
        packets=flow.packets,
    )


def _sighting(
    place: Place,
    row: Mapping[str, Json],
    observables: Iterable[Observable],
    *,
    first_ns: int = 0,
    packets: int = 0,
) -> Sighting:
    return Sighting(
        place=place,
        observables=tuple(dict.fromkeys(observables)),
        frame=_number(row, "frame"),
        filter=_text(row, "filter"),
        first_ns=first_ns or _number(row, "first_ns"),
        packets=packets,
    )


def _ends(row: Mapping[str, Json]) -> tuple[Observable, ...]:
    port = _number(row, "port")
    return (
        *_one(Kind.ADDRESS, address_of(_text(row, "client")), Role.CLIENT),
        *_one(Kind.ADDRESS, address_of(_text(row, "server")), Role.SERVER),
        *_one(Kind.PORT, str(port or ""), Role.SERVER),
    )


def _one(kind: Kind, value: str, role: Role | None = None) -> tuple[Observable, ...]:
    return (Observable(kind, value, role),) if value else ()


def _bracketed(address: str) -> str:
    return f"[{address}]" if ":" in address else address


def _text(row: Mapping[str, Json], name: str) -> str:
    value = row.get(name)
    return value if isinstance(value, str) else ""


def _number(row: Mapping[str, Json], name: str) -> int:
    value = row.get(name)
    return max(0, value) if type(value) is int else 0


# -------------------------------------------------------------------------------------------- one spelling

_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?|xn--[a-z0-9-]{1,59}", re.ASCII)
_DEFANGED = (
    (re.compile(r"^(?:hxxp|h\*\*p|meow)(s?)(?=\[?:)", re.IGNORECASE), r"http\1"),
    (re.compile(r"\[://\]"), "://"),
    (re.compile(r"\[:\]|\(:\)"), ":"),
    (re.compile(r"\[(?:\.|,)\]|\((?:\.|,)\)|\{\.\}|\\\.|\[dot\]|\(dot\)| dot ", re.IGNORECASE), "."),
    (re.compile(r"\[/\]"), "/"),
)  # fmt: skip
_HEX = re.compile(r"[0-9a-f]{32}|[0-9a-f]{40}|[0-9a-f]{64}", re.ASCII)


def refanged(text: str) -> str:
    """`hxxp://evil[.]example` as it was meant."""
    for found, meant in _DEFANGED:
        text = found.sub(meant, text)
    return text


def text_of(text: str) -> str:
    """As it stands, printable and not longer than `MAX_VALUE`."""
    return printable(text.strip(), MAX_VALUE)


def address_of(text: str) -> str:
    """The shortest spelling of an IP address, "" for anything else; an IPv4 address in IPv6's clothes is IPv4."""
    try:
        address = ip_address(text.strip().strip("[]").partition("%")[0])
    except ValueError:
        return ""
    mapped = getattr(address, "ipv4_mapped", None)
    return str(mapped or address)


def domain_of(text: str) -> str:
    """The name in lower case and without a final dot, in ASCII (`xn--…`) where that is possible; "" for an address.

    What is seen on the wire need not be a valid name, so anything else printable is kept.
    """
    name = text.strip().rstrip(".").lower()
    if not name or address_of(name):
        return ""
    if not name.isascii():
        try:
            name = name.encode("idna").decode()
        except UnicodeError:
            return text_of(name)
    return text_of(name)


def is_domain(name: str) -> bool:
    """Two labels or more, each as DNS names are written, the last not a number."""
    labels = name.split(".")
    return (
        len(name) <= 253
        and len(labels) > 1
        and all(_LABEL.fullmatch(each) for each in labels)
        and not labels[-1].isdigit()
    )


def hash_of(text: str) -> str:
    """MD5, SHA-1 or SHA-256 in lower case; "" for what has another length."""
    digest = text.strip().lower()
    return digest if _HEX.fullmatch(digest) else ""


def url_of(text: str) -> str:
    """`host[:port]/path`: without scheme, user, query, fragment and the scheme's own port; "" where no host is.

    Findings keep no query string, so a URL is compared without one.
    """
    scheme, found, rest = text.strip().partition("://")
    if not found:
        scheme, rest = "http", text.strip()
    rest = re.split(r"[?#]", rest, maxsplit=1)[0]
    place, _, path = rest.partition("/")
    host, port = _host_and_port(place.rpartition("@")[2])
    name = address_of(host) or domain_of(host)
    if not name:
        return ""
    own = {"http": "80", "https": "443"}.get(scheme.lower(), "80")
    at = f"[{name}]" if address_of(name) and ":" in name else name
    return text_of(f"{at}{'' if port in ('', own, '0') else ':' + port}/{path}")


def _host_and_port(place: str) -> tuple[str, str]:
    host, colon, port = place.rpartition(":")
    if colon and (not port or _PORT.fullmatch(port)) and (":" not in host or host.endswith("]")):
        return host, str(int(port)) if port else ""
    return place, ""
