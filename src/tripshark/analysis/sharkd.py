"""What may be asked about packets while they are looked at, and how sharkd is made to answer it.

A request is one of the seven kinds below, each word of it typed and bounded. None is passed on: what sharkd is told
(its `frames`, `frame`, `check`, `complete`, `intervals`, `follow` and `tap`) is written here. Its `load` and `setconf`
are told once, by us; `download`, `setcomment` and the rest never.

Measured with 4.0: a request longer than 2,047 bytes is read as two and every later answer is off by one, so none
is longer than `MAX_REQUEST`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Final, TypeAlias

import msgspec

from tripshark.errors import BadInput
from tripshark.model.alert import Json

MAX_REQUEST: Final = 2000  # bytes of one line to sharkd
MAX_FILTER: Final = 1800  # bytes of a display filter
MAX_PAGE: Final = 500
MAX_BINS: Final = 4000
MAX_FRAME: Final = (1 << 32) - 1

COLUMNS: Final = ("No.", "Time", "Source", "Destination", "Protocol", "Length", "Info")
BESIDE: Final = (  # what is asked of every frame beside Wireshark's own columns
    "frame.time_epoch",
    "frame.interface_name",
    "frame.comment",
    "systemd_journal.syslog_id",
    "systemd_journal.priority",
)
FOLLOWED: Final = {"tcp": "TCP", "udp": "UDP", "tls": "TLS", "http": "HTTP"}
_TAPS: Final = {
    "conversations": ("conv:TCP", "conv:UDP"),
    "endpoints": ("endpt:IPv4", "endpt:IPv6"),
    "expert": ("expert",),
}


class Page(msgspec.Struct, tag="page", tag_field="ask", forbid_unknown_fields=True, frozen=True):
    """Rows of the packet list."""

    filter: str = ""
    skip: int = 0
    limit: int = 100


class Packet(
    msgspec.Struct, tag="packet", tag_field="ask", forbid_unknown_fields=True, frozen=True
):
    """One packet with everything in it."""

    number: int


class Check(msgspec.Struct, tag="check", tag_field="ask", forbid_unknown_fields=True, frozen=True):
    """Whether a display filter is one."""

    filter: str


class Complete(
    msgspec.Struct, tag="complete", tag_field="ask", forbid_unknown_fields=True, frozen=True
):
    """Fields whose name begins so."""

    prefix: str


class Intervals(
    msgspec.Struct, tag="intervals", tag_field="ask", forbid_unknown_fields=True, frozen=True
):
    """Packets and bytes over time."""

    filter: str = ""
    step_ms: int = 0  # 0: as fits


class Follow(
    msgspec.Struct, tag="follow", tag_field="ask", forbid_unknown_fields=True, frozen=True
):
    """What both sides of one stream said."""

    proto: str
    stream: int


class Tap(msgspec.Struct, tag="tap", tag_field="ask", forbid_unknown_fields=True, frozen=True):
    """One of `_TAPS` over all packets."""

    name: str


Request: TypeAlias = Page | Packet | Check | Complete | Intervals | Follow | Tap
_REQUEST: Final[msgspec.json.Decoder[Request]] = msgspec.json.Decoder(Request)


def read_request(line: bytes) -> Request:
    """A request that is within bounds. Raises `BadInput`."""
    try:
        asked: Request = _REQUEST.decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as problem:
        raise BadInput(f"no request: {problem}", where="analyst") from problem
    if isinstance(asked, Page | Check | Intervals):
        filter_text(asked.filter)
    match asked:
        case Page():
            _within("skip", asked.skip, 0, MAX_FRAME)
            _within("limit", asked.limit, 1, MAX_PAGE)
        case Packet():
            _within("number", asked.number, 1, MAX_FRAME)
        case Complete():
            if not re.fullmatch(r"[A-Za-z0-9_.\-]{1,100}", asked.prefix):
                raise BadInput("a field's name begins otherwise", where="prefix", hint="tcp.fl")
        case Intervals():
            _within("step_ms", asked.step_ms, 0, 86_400_000)
        case Follow():
            _within("stream", asked.stream, 0, MAX_FRAME)
            if asked.proto not in FOLLOWED:
                raise BadInput(
                    f"{asked.proto[:20]!r} cannot be followed",
                    where="proto",
                    hint="one of " + ", ".join(FOLLOWED),
                )
        case Check():
            pass
        case Tap():
            if asked.name not in _TAPS:
                raise BadInput(
                    f"there is no tap {asked.name[:20]!r}",
                    where="name",
                    hint="one of " + ", ".join(_TAPS),
                )
    return asked


def filter_text(text: str) -> str:
    """A display filter that fits into one request. Raises `BadInput`; whether it means anything sharkd says."""
    try:
        size = len(json.dumps(text, ensure_ascii=False).encode())
    except UnicodeEncodeError as problem:
        raise BadInput("the filter is no text", where="filter") from problem
    if size > MAX_FILTER:
        raise BadInput(
            f"the filter is too long: {size:,} bytes, at most {MAX_FILTER:,} are read",
            where="filter",
            hint="use a set: ip.addr in {10.0.0.1, 10.0.0.2}",
        )
    if any(not letter.isprintable() for letter in text):
        raise BadInput("the filter holds what cannot be printed", where="filter")
    return text


def _within(name: str, value: int, least: int, most: int) -> None:
    if not least <= value <= most:
        raise BadInput(f"{name} is {least} to {most}", where=name)


def told(number: int, method: str, parameters: Mapping[str, Json]) -> bytes:
    """One line to sharkd. Raises `BadInput` when it would be cut in two."""
    request: dict[str, Json] = {"jsonrpc": "2.0", "id": number, "method": method}
    if parameters:
        request["params"] = dict(parameters)
    line = json.dumps(request, ensure_ascii=False, separators=(",", ":")).encode()
    if len(line) > MAX_REQUEST:
        raise BadInput("this is more than can be asked at once", where="filter")
    return line


def beside() -> dict[str, Json]:
    """The further columns of a page."""
    return {f"column{place}": f"{name}:1" for place, name in enumerate(BESIDE)}


def taps(name: str) -> dict[str, Json]:
    """The parameters of one tap."""
    return {f"tap{place}": each for place, each in enumerate(_TAPS[name])}
