"""Wireshark display filters that a single value leads to; "" where none would be certain to show it."""

from __future__ import annotations

from ipaddress import ip_address


def address(value: str) -> str:
    """Everything of one address."""
    try:
        version = ip_address(value).version
    except ValueError:
        return f"eth.addr == {value}" if _is_mac(value) else ""
    return f"ip.addr == {value}" if version == 4 else f"ipv6.addr == {value}"


def text(field: str, value: str) -> str:
    """A field that is exactly this text. What was made visible or cut (`\\x1b`, `…`) is not what stands in the packet."""
    if not value or "\\" in value or value.endswith("…") or not value.isprintable():
        return ""
    quoted = value.replace('"', '\\"')
    return f'{field} == "{quoted}"'


def port(proto: str, number: int) -> str:
    """Everything to or from a port."""
    return f"{proto}.port == {number}" if proto in ("tcp", "udp") and 0 < number < 65536 else ""


def every(*parts: str) -> str:
    """All of these at once; the empty ones are left out."""
    given = [each for each in parts if each] or [""]
    return given[0] if len(given) == 1 else " && ".join(f"({each})" for each in given)


def _is_mac(value: str) -> bool:
    pieces = value.split(":")
    return len(pieces) == 6 and all(
        len(each) == 2 and set(each.lower()) <= set("0123456789abcdef") for each in pieces
    )
