"""Display filters for what was seen. Hostile text never becomes filter text: it is then shown by its frame's number.

No filter here holds a comma or a line break, so that `tshark -z io,stat` can count it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from tripshark.formats.tshark import Frame
from tripshark.model.alert import Json

SYN = "tcp.flags.syn == 1 && tcp.flags.ack == 0"
_PLAIN = re.compile(r"[A-Za-z0-9._:-]{1,253}")
_SENTENCE = re.compile(r"[A-Za-z0-9._:' ()/-]{1,200}")
_PROTOCOL = re.compile(r"[a-z][a-z0-9._-]{0,30}")


def place(frame: Frame, field: str = "", value: str = "") -> dict[str, Json]:
    """Where it was seen, and a display filter that shows it."""
    plain = field and _PLAIN.fullmatch(value) is not None
    shown = f'{field} == "{value}"' if plain else number(frame.number)
    return {"frame": frame.number, "first_ns": frame.time_ns, "filter": shown}


def sentence(field: str, value: str) -> str:
    """`field == "value"` for a sentence of tshark's own, "" where it holds anything that would need care."""
    return f'{field} == "{value}"' if _SENTENCE.fullmatch(value) else ""


def is_plain(text: str) -> bool:
    """Whether it may stand within a filter."""
    return _PLAIN.fullmatch(text) is not None


def number(frame: int) -> str:
    """One frame."""
    return f"frame.number == {frame}"


def numbers(frames: Iterable[int]) -> str:
    """Exactly these frames."""
    return " || ".join(map(number, frames))


def source(address: str) -> str:
    """What this address sent."""
    return f"{_kind(address)}.src == {address}"


def destination(address: str) -> str:
    """What was sent to this address."""
    return f"{_kind(address)}.dst == {address}"


def either(address: str) -> str:
    """What this address sent or was sent."""
    return f"{_kind(address)}.addr == {address}"


def below(domain: str) -> str:
    """DNS messages about names below a plain domain."""
    dotted = domain.replace(".", "[.]")
    return f'dns.qry.name matches "[.]{dotted}$"'


def conversation(first: Frame) -> str:
    """All packets between the two ends of `first`, and at least these."""
    match first.transport:
        case "tcp" | "udp" if first.stream >= 0:
            return f"{first.transport}.stream == {first.stream}"
        case "sctp":
            ports = f"sctp.port == {first.sport} && sctp.port == {first.dport}"
        case known if known.endswith(" fragment") or not _PROTOCOL.fullmatch(known):
            ports = ""
        case known:
            ports = known
    both = f"{either(first.src)} && {either(first.dst)}"
    return f"{both} && {ports}" if ports else both


def _kind(address: str) -> str:
    return "ipv6" if ":" in address else "ip"
