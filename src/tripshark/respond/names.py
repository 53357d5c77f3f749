"""Which name each address gets in the evidence: one per address, and honest when it changed hands.

A name is that of whoever held the address when its packets were seen. An address that had several holders
within the evidence gets a joint name, and each of its packets says whose it was then.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from ipaddress import ip_address
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from tripshark.formats.ends import Ends
from tripshark.formats.packets import Packets
from tripshark.model.addresses import Holder, HolderKind, Tenure, plain
from tripshark.model.alert import Json
from tripshark.model.target import Target, TargetKind
from tripshark.model.text import visible

MAX_NAME = 63  # bytes that Wireshark 4.0 to 4.4 shows; longer names are cut there without a word
_MOST = 6  # owners told in a joint name
_NOBODY = -1


class Book(Protocol):
    """What is asked of the history of addresses. Called from another thread than it is written in."""

    def between(self, address: str, since_ns: int, until_ns: int) -> tuple[Tenure, ...]:
        """Whose address it was within this time, oldest first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """An address in the evidence."""

    address: str
    name: str
    tenures: tuple[Tenure, ...]  # of those whose packets are in the evidence, oldest first

    @property
    def changed_hands(self) -> bool:
        return len({each.holder.title for each in self.tenures}) > 1


def names(targets: Iterable[Target], *, since_ns: int, until_ns: int) -> dict[str, str]:
    """Address → `namespace/pod` of whoever held it between `since_ns` and `until_ns`, of these targets alone.

    Two owners share a joint name `a|b`, oldest first; who it was when stands in the manifest.
    """
    return {
        address: _joint_of(_within(tenures, since_ns, until_ns))
        for address, tenures in _of_targets(targets).items()
        if _within(tenures, since_ns, until_ns)
    }


def named(
    targets: Sequence[Target],
    book: Book | None,
    *,
    packets: Packets,
    ends: Ends,
    rings: Sequence[Target],
    since_ns: int,
    until_ns: int,
    mentioned: Iterable[str] = (),
) -> dict[str, Named]:
    """Everybody's name, by address: of the targets, of both ends of the packets, of what alerts mention.

    `packets` are the evidence's, in time order, `ends` theirs, `rings` whose each `source` is; `since_ns` to
    `until_ns` is the window. Where packets tell who is meant they decide; an address without packets is called
    by who held it while others were seen.
    """
    local = _of_targets(targets)
    seen = set(ends.addresses())
    first_ns, last_ns = since_ns, until_ns
    if len(packets):
        first_ns, last_ns = int(packets.time_ns[0]), int(packets.time_ns[-1])
    found: dict[str, Named] = {}
    asked = dict.fromkeys((*local, *sorted(seen), *filter(None, map(plain, mentioned))))
    since, until = min(since_ns, first_ns), max(until_ns, last_ns)
    for address in asked:
        known = local.get(address, ())
        others = book.between(address, since, until) if book is not None else ()
        if not (known or others) or _means_nothing(address):
            continue
        history = _filled(known, others) if others else known
        wide = _within(history, since, until)
        narrow = _within(wide, first_ns, last_ns) or wide
        if address in seen and len({each.holder.title for each in narrow}) > 1:
            owners = _owners(address, narrow, packets.take(ends.of(address)), rings)
            narrow = [each for number, each in enumerate(narrow) if (owners == number).any()]
            narrow = narrow or wide
        if narrow:
            found[address] = Named(address=address, name=_joint_of(narrow), tenures=tuple(narrow))
    return found


def comments(
    book: Mapping[str, Named], *, packets: Packets, ends: Ends, rings: Sequence[Target]
) -> dict[int, list[str]]:
    """What each packet says of an address that changed hands within the evidence: whose it was then."""
    said: dict[int, list[str]] = {}
    for each in book.values():
        if not each.changed_hands:
            continue
        rows = ends.of(each.address)
        texts = [
            f"{each.address} then belonged to {visible(tenure.holder.title)}"
            for tenure in each.tenures
        ] + [f"{each.address} then belonged to nobody that is known"]
        owners = _owners(each.address, each.tenures, packets.take(rows), rings)
        for row, owner in zip(rows.tolist(), owners.tolist(), strict=True):
            said.setdefault(row, []).append(texts[owner])
    return said


def told(book: Mapping[str, Named]) -> dict[str, Json]:
    """The manifest's section: every name, and who it was from when to when."""
    return {
        each.address: {
            "name": each.name,
            "holders": [
                {
                    "name": tenure.holder.title,
                    "kind": str(tenure.holder.kind),
                    "uid": tenure.holder.uid,
                    "node": tenure.holder.node,
                    "from_ns": tenure.from_ns,
                    "to_ns": tenure.to_ns,
                }
                for tenure in each.tenures
            ],
        }
        for each in book.values()
    }


def _owners(
    address: str, tenures: Sequence[Tenure], packets: Packets, rings: Sequence[Target]
) -> NDArray[np.intp]:
    """The index of each packet's tenure, the youngest where several cover its moment; -1 for nobody's.

    What was seen within the namespace of one of the holders is that one's, whoever else has the same address
    elsewhere.
    """
    owners = np.full(len(packets), _NOBODY, np.intp)
    for number, each in enumerate(tenures):
        owners[_during(each, packets.time_ns)] = number
    for number, each in enumerate(tenures):
        own = [
            ring
            for ring, target in enumerate(rings)
            if _holder(target) == each.holder and address in map(plain, target.addresses)
        ]
        if own:
            owners[np.isin(packets.source, own) & _during(each, packets.time_ns)] = number
    return owners


def _during(tenure: Tenure, time_ns: NDArray[np.int64]) -> NDArray[np.bool_]:
    inside = time_ns >= tenure.from_ns
    return inside & (time_ns < tenure.to_ns) if tenure.to_ns else inside


def _of_targets(targets: Iterable[Target]) -> dict[str, list[Tenure]]:
    """Everybody's time at their addresses, as the recorder saw it; oldest first."""
    found: dict[str, list[Tenure]] = {}
    for target in sorted(targets, key=lambda each: each.since_ns):
        holder = _holder(target)
        if holder is None:
            continue
        for text in target.addresses:
            address = plain(text)
            tenure = Tenure(
                address=address, holder=holder, from_ns=target.since_ns, to_ns=target.gone_ns
            )
            held = found.setdefault(address, [])
            if not _means_nothing(address) and tenure not in held:
                held.append(tenure)
    return found


def _holder(target: Target) -> Holder | None:
    """A host's addresses are the node's, also where its rings stand for a pod in its network."""
    identity = target.identity
    if target.kind is TargetKind.HOST:
        if not identity.node:
            return None
        return Holder(kind=HolderKind.NODE, name=identity.node, node=identity.node)
    if not identity.name:
        return None
    return Holder(kind=HolderKind.POD, name=identity.name, uid=identity.uid, node=identity.node)


def _filled(known: Sequence[Tenure], others: Sequence[Tenure]) -> list[Tenure]:
    """What the recorder saw itself is exact; the history fills in the time when none of its targets was there."""
    rest = list(others)
    for own in known:
        rest = [part for each in rest for part in _without(each, own)]
    return sorted((*known, *rest), key=lambda each: each.from_ns)


def _without(tenure: Tenure, own: Tenure) -> list[Tenure]:
    """The parts of a tenure before and after another."""
    parts = []
    end_ns, own_end_ns = tenure.to_ns or 1 << 62, own.to_ns or 1 << 62
    if tenure.from_ns < own.from_ns:
        parts.append(replace(tenure, to_ns=min(end_ns, own.from_ns)))
    if end_ns > own_end_ns:
        parts.append(replace(tenure, from_ns=max(tenure.from_ns, own_end_ns)))
    return parts


def _within(tenures: Sequence[Tenure], since_ns: int, until_ns: int) -> list[Tenure]:
    return [each for each in tenures if each.overlaps(since_ns, until_ns)]


def _means_nothing(address: str) -> bool:
    """Everybody has these: they name nobody."""
    if not address:
        return True
    found = ip_address(address)
    return found.is_link_local or found.is_loopback or found.is_unspecified or found.is_multicast


def _joint_of(tenures: Sequence[Tenure]) -> str:
    return joint(list(dict.fromkeys(each.holder.title for each in tenures)))


def joint(owners: list[str]) -> str:
    """All owners in at most 63 bytes, each shortened by the same measure; of many the first and the last."""
    if len(owners) > _MOST:
        owners = [owners[0], f"+{len(owners) - 2}", owners[-1]]
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
