"""Which name each address gets in the evidence: one per address, and honest when it changed hands."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_address

from tripshark.model.target import Target

MAX_NAME = 63  # bytes that Wireshark 4.0 to 4.4 shows; longer names are cut there without a word


def names(targets: Iterable[Target], *, since_ns: int, until_ns: int) -> dict[str, str]:
    """Address → `namespace/pod` of whoever held it between `since_ns` and `until_ns`.

    Two owners share a joint name `a|b`, oldest first; who it was when stands in the manifest.
    """
    owners: dict[str, list[str]] = {}
    for target in sorted(targets, key=lambda each: each.since_ns):
        if target.since_ns > until_ns or (target.gone_ns and target.gone_ns < since_ns):
            continue
        if not target.identity.name:
            continue
        for address in target.addresses:
            if ip_address(address).is_link_local or ip_address(address).is_loopback:
                continue
            held = owners.setdefault(address, [])
            if target.title not in held:
                held.append(target.title)
    return {address: joint(held) for address, held in owners.items()}


def joint(owners: list[str]) -> str:
    """All owners in at most 63 bytes, each shortened by the same measure."""
    whole = "|".join(owners)
    if len(whole.encode()) <= MAX_NAME:
        return whole
    share = max(4, (MAX_NAME - len(owners) + 1) // len(owners))
    return "|".join(_shorten(owner, share) for owner in owners)


def _shorten(name: str, size: int) -> str:
    """Head and tail survive: the namespace, and the hash that tells pods apart."""
    raw = name.encode()
    if len(raw) <= size:
        return name
    head = (size - 1) // 2
    tail = size - 1 - head
    return f"{raw[:head].decode(errors='ignore')}~{raw[-tail:].decode(errors='ignore')}"
