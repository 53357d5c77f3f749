"""What an analyst's way of writing a value means: defanged or not, with or without its kind before it."""

from __future__ import annotations

import re
from ipaddress import ip_network

from tripshark.model.indicator import Pattern, Sought, Term
from tripshark.model.observable import (
    MAX_VALUE,
    Role,
    address_of,
    domain_of,
    hash_of,
    is_domain,
    refanged,
    text_of,
    url_of,
)

_JA4 = re.compile(r"[tqd][0-9]{2}[di][0-9]{4}[0-9a-z]{2}_[0-9a-f]{12}_[0-9a-f]{12}", re.ASCII)
_COMMUNITY_ID = re.compile(r"1:[A-Za-z0-9+/]{27}=", re.ASCII)
_PORT = re.compile(r"[0-9]{1,5}", re.ASCII)
_NAMED = {
    "ip": Sought.ADDRESS, "address": Sought.ADDRESS, "network": Sought.NETWORK, "cidr": Sought.NETWORK,
    "domain": Sought.DOMAIN, "hostname": Sought.HOSTNAME, "url": Sought.URL, "user_agent": Sought.USER_AGENT,
    "ja3": Sought.JA3, "ja4": Sought.JA4, "sha256": Sought.SHA256, "md5": Sought.MD5, "file": Sought.FILE,
    "community_id": Sought.COMMUNITY_ID,
}  # fmt: skip


def patterns_of(text: str) -> tuple[Pattern, ...]:
    """What a value on a list means, by its looks, or by its kind before it (`ja3:…`); empty when nothing.

    32 hex digits may be an MD5 or a JA3: either is enough.
    """
    text = text.strip()
    named, _, rest = text.partition(":")
    if (sought := _NAMED.get(named.lower())) and not rest.startswith("//"):
        term = term_of(sought, rest)
        return () if term is None else (Pattern(((term,),)),)
    plain = refanged(text)
    return _by_looks(plain)


def _by_looks(text: str) -> tuple[Pattern, ...]:
    if _COMMUNITY_ID.fullmatch(text):
        return _any(Term(Sought.COMMUNITY_ID, text))
    if "://" in text:
        return _any(term_of(Sought.URL, text))
    if digest := hash_of(text):
        kinds = {32: (Sought.MD5, Sought.JA3), 64: (Sought.SHA256,)}.get(len(digest), ())
        return _any(*(Term(kind, digest) for kind in kinds))
    if _JA4.fullmatch(text.lower()):
        return _any(Term(Sought.JA4, text.lower()))
    if address := address_of(text):
        return _any(Term(Sought.ADDRESS, address))
    if term := term_of(Sought.NETWORK, text):
        return _any(term)
    host, colon, port = text.rpartition(":")
    if colon and _PORT.fullmatch(port):
        at = term_of(Sought.ADDRESS, host) or term_of(Sought.DOMAIN, host)
        return (Pattern(((at, Term(Sought.PORT, str(int(port)), Role.SERVER)),)),) if at else ()
    if "/" in text and is_domain(domain_of(text.partition("/")[0].partition(":")[0])):
        return _any(term_of(Sought.URL, text))
    return _any(term_of(Sought.DOMAIN, text))


def term_of(sought: Sought, text: str, role: Role | None = None) -> Term | None:
    """A value of that kind, spelled as findings spell it; None when it is none."""
    text = text.strip()
    value = _spelled(sought, text)
    return Term(sought, value, role) if value else None


def _spelled(sought: Sought, text: str) -> str:
    match sought:
        case Sought.ADDRESS:
            return address_of(refanged(text))
        case Sought.NETWORK:
            return _network(refanged(text))
        case Sought.DOMAIN:
            name = domain_of(refanged(text).removeprefix("*.").removeprefix("."))
            return name if is_domain(name) or _is_label(name) else ""
        case Sought.HOSTNAME:
            name = domain_of(refanged(text))
            return name if is_domain(name) else ""
        case Sought.URL:
            return url_of(refanged(text))
        case Sought.SHA256 | Sought.MD5 | Sought.JA3:
            digest = hash_of(text)
            return digest if len(digest) == (64 if sought is Sought.SHA256 else 32) else ""
        case Sought.JA4:
            return text.lower() if _JA4.fullmatch(text.lower()) else ""
        case Sought.COMMUNITY_ID:
            return text if _COMMUNITY_ID.fullmatch(text) else ""
        case Sought.PORT:
            return str(int(text)) if _PORT.fullmatch(text) and 0 < int(text) < 65_536 else ""
        case Sought.PROTO:
            return text.lower() if text.isascii() and text.isalnum() else ""
        case _:  # a user agent, a file's name: they may hold anything
            return text_of(text) if len(text) <= MAX_VALUE else ""


def _is_label(name: str) -> bool:
    """A single label: refused later with a reason, where anything else is just unreadable."""
    return bool(re.fullmatch(r"[a-z][a-z0-9-]{1,62}", name))


def _network(text: str) -> str:
    if "/" not in text:
        return ""
    try:
        return str(ip_network(text.strip(), strict=False))
    except ValueError:
        return ""


def _any(*terms: Term | None) -> tuple[Pattern, ...]:
    return tuple(Pattern(((term,),)) for term in terms if term is not None)
