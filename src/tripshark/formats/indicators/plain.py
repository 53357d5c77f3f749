"""Plain lists: one indicator per line, the first column of a CSV, or a hosts file; # begins a comment."""

from __future__ import annotations

import re

from tripshark.formats.indicators.loaded import Loaded, Why
from tripshark.formats.indicators.values import patterns_of
from tripshark.model.observable import address_of

MAX_LINE = 10_000
_QUOTED = re.compile(r'\s*"((?:[^"]|"")*)"\s*')
_HEADINGS = frozenset(
    {"indicator", "indicators", "ioc", "value", "ip", "ip_address", "domain", "url", "hash", "sha256", "md5",
     "dst_ip", "host", "hostname", "ja3", "ja3_md5", "ja4", "address", "first_seen", "id", "type"}
)  # fmt: skip
_NOWHERE = frozenset({"0.0.0.0", "127.0.0.1", "::", "::1"})  # noqa: S104 (as hosts files block names)


def read_plain(text: str, name: str, into: Loaded) -> None:
    """Read a list. `name` is what the reader calls it; places are told as `name:line`."""
    seen_any = False
    for number, line in enumerate(text.splitlines(), 1):
        where = f"{name}:{number}"
        stripped = line.strip().lstrip("\ufeff")
        if not stripped or stripped[0] in "#;" or stripped.startswith("//"):
            continue
        if len(line) > MAX_LINE:
            into.tell(Why.UNREADABLE, where, stripped, f"longer than {MAX_LINE} characters")
            continue
        value, note = _columns(stripped)
        if not seen_any and value.lower().strip() in _HEADINGS:
            seen_any = True
            continue
        seen_any = True
        patterns = patterns_of(value)
        if patterns:
            into.add(patterns, name=value, source=where, note=note)
        else:
            into.tell(Why.UNREADABLE, where, value, _why_not(value))


def _columns(line: str) -> tuple[str, str]:
    """The value, and what the line says of it."""
    body, hash, comment = line.partition(" #")
    body = body.strip()
    if re.match(r"(?:user_agent|file):", body, re.IGNORECASE):  # may hold anything
        return body, comment.strip()
    words = body.split()
    if len(words) > 1 and words[0] in _NOWHERE and not address_of(words[1]):
        return words[1], comment.strip()
    cells = _cells(body, next((each for each in "\t;," if each in body), ","))
    rest = ", ".join(each.strip() for each in cells[1:] if each.strip())
    value = cells[0].strip()
    told = "; ".join(each for each in (rest, comment.strip() if hash else "") if each)
    return value, told


def _cells(body: str, delimiter: str) -> list[str]:
    """The columns of one line; a column in double quotes may hold the delimiter."""
    found, at = [], 0
    while at <= len(body):
        quoted = _QUOTED.match(body, at)
        if quoted and body[quoted.end() : quoted.end() + 1] in ("", delimiter):
            found.append(quoted[1].replace('""', '"'))
            at = quoted.end() + 1
            continue
        plain, _, _ = body[at:].partition(delimiter)
        found.append(plain)
        at += len(plain) + 1
    return found


def _why_not(value: str) -> str:
    if re.fullmatch(r"[0-9a-fA-F]{40}", value.strip()):
        return "SHA-1 is not computed of transferred files: give SHA-256 or MD5"
    if "@" in value:
        return "mail addresses are not looked for"
    return "no address, network, domain, URL, hash, JA3, JA4 or community ID"
