"""Who held which address when: pods, services and nodes, for as long as evidence may ask."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import lru_cache
from ipaddress import IPv6Address, ip_address

MAX_TENURES = 32_768  # about 1 KB each
_EVICT = 8  # when full, one part in so many of what has ended goes at once


class HolderKind(StrEnum):
    """What an address can belong to. Whoever comes first here is believed before the others."""

    NODE = "node"
    POD = "pod"
    SERVICE = "service"


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """Who an address belongs to."""

    kind: HolderKind
    name: str  # "namespace/name"; of a node its name alone
    uid: str = ""
    node: str = ""  # where it runs; "" for a service
    guest: bool = False
    """A pod in its node's own network: it uses the address and does not own it."""

    @property
    def title(self) -> str:
        """As evidence calls it: `payments/checkout-7d9f`, `payments/svc/ledger`, `node/worker-2`."""
        if self.kind == HolderKind.NODE:
            return f"node/{self.name}"
        if self.kind == HolderKind.SERVICE:
            return self.name.replace("/", "/svc/", 1)
        return self.name

    @property
    def _id(self) -> str:
        return self.uid or f"{self.kind}:{self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tenure:
    """One holder's time at one address: from `from_ns` on, and no more at `to_ns`."""

    address: str
    holder: Holder
    from_ns: int
    to_ns: int = 0  # 0: still

    def covers(self, at_ns: int) -> bool:
        return self.from_ns <= at_ns and (self.to_ns == 0 or at_ns < self.to_ns)

    def overlaps(self, since_ns: int, until_ns: int) -> bool:
        return self.from_ns <= until_ns and (self.to_ns == 0 or since_ns < self.to_ns)


_GUESTS = "guest"
_Held = dict[str, tuple[Tenure, ...]]  # layer → tenures, oldest first


class AddressBook:
    """The history of addresses, bounded: what ended longest ago goes first, who still lives stays.

    A new pod at an address ends the tenure of the one before, whether or not anybody said that it left.
    A node's address stays the node's: pods in its network are noted as guests. News may come late and in
    any order: what is said to have begun earlier is put where it belongs.

    Reading is safe from another thread while this one writes: what is held is replaced, never changed.
    """

    def __init__(self, *, max_tenures: int = MAX_TENURES) -> None:
        self._max = max_tenures
        self._held: dict[str, _Held] = {}
        self._open: dict[str, frozenset[tuple[str, str]]] = {}
        """A holder's id → the addresses, and their layers, that it holds still."""
        self._nodes: Counter[str] = Counter()  # addresses each holds still
        self._count = 0
        self.refused = 0  # news that found no room because everybody in the book still lives

    def __len__(self) -> int:
        """Tenures kept."""
        return self._count

    # ------------------------------------------------------------------------------------- news

    def holds(self, address: str, holder: Holder, at_ns: int) -> None:
        """From this moment on (or since earlier, if that is known) the address is this holder's.

        What is no address is passed over: it comes from others.
        """
        key = plain(address)
        if not key:
            return
        has_room = self._has_room()
        held = self._held.get(key, {})
        layer = _layer(holder, held, at_ns)
        before = held.get(layer, ())
        if layer == _GUESTS:
            after = _joined_in(before, key, holder, at_ns)
        else:
            after = _taken_over(before, key, holder, at_ns)
        if after is before:
            return
        if len(after) > len(before) and not has_room:
            self.refused += 1
            return
        self._replace(key, layer, after)

    def leaves(self, who: str | Holder, at_ns: int) -> None:
        """A holder (or whoever has this uid) is gone: everything it held ends."""
        id = who if isinstance(who, str) else who._id  # noqa: SLF001 (of our own class)
        for address, layer in sorted(self._open.get(id, ())):
            after = tuple(
                replace(each, to_ns=max(at_ns, each.from_ns + 1))
                if each.to_ns == 0 and each.holder._id == id  # noqa: SLF001
                else each
                for each in self._held[address][layer]
            )
            self._replace(address, layer, after)

    def forget(self, before_ns: int) -> None:
        """Drop what had ended by then."""
        for address, held in tuple(self._held.items()):
            for layer, tenures in tuple(held.items()):
                after = tuple(each for each in tenures if not 0 < each.to_ns <= before_ns)
                if len(after) < len(tenures):
                    self._replace(address, layer, after)

    # ------------------------------------------------------------------------------------- answers

    def at(self, address: str, at_ns: int) -> Holder | None:
        """Whose address it was at that moment. Guests alone own it only where there is but one."""
        held = self._held.get(plain(address), {})
        for kind in HolderKind:
            tenures = held.get(kind, ())
            place = bisect_right(tenures, at_ns, key=_from) - 1
            if place >= 0 and tenures[place].covers(at_ns):
                return tenures[place].holder
        guests = [each.holder for each in held.get(_GUESTS, ()) if each.covers(at_ns)]
        return guests[0] if len(guests) == 1 else None

    def between(self, address: str, since_ns: int, until_ns: int) -> tuple[Tenure, ...]:
        """Everybody whose address it was within this time, oldest first, nobody at the same time as another.

        At every moment that `at` names a holder for, exactly the tenure of that holder covers it.
        """
        held = self._held.get(plain(address), {})
        found = [each for tenures in held.values() for each in tenures]
        told: list[Tenure] = []
        edges = sorted(
            {each.from_ns for each in found} | {each.to_ns for each in found if each.to_ns}
        )
        for number, start in enumerate(edges):
            end = edges[number + 1] if number + 1 < len(edges) else 0
            holder = self.at(address, start)
            if holder is None:
                continue
            if told and told[-1].holder == holder and told[-1].to_ns == start:
                told[-1] = replace(told[-1], to_ns=end)
            else:
                told.append(
                    Tenure(address=found[0].address, holder=holder, from_ns=start, to_ns=end)
                )
        return tuple(each for each in told if each.overlaps(since_ns, until_ns))

    def guests(self, address: str, since_ns: int, until_ns: int) -> tuple[Tenure, ...]:
        """Pods that used a node's address within this time."""
        held = self._held.get(plain(address), {})
        return tuple(each for each in held.get(_GUESTS, ()) if each.overlaps(since_ns, until_ns))

    def is_node(self, name: str) -> bool:
        """Whether a node of this name holds an address still."""
        return self._nodes[name] > 0

    def __iter__(self) -> Iterator[Tenure]:
        """Every tenure there is, by address."""
        for held in self._held.values():
            for tenures in held.values():
                yield from tenures

    # ------------------------------------------------------------------------------------- room

    def _replace(self, address: str, layer: str, after: tuple[Tenure, ...]) -> None:
        held = self._held.get(address, {})
        self._count += len(after) - len(held.get(layer, ()))
        told = {name: tenures for name, tenures in held.items() if name != layer}
        if after:
            told[layer] = after
        for each in held.get(layer, ()):
            self._note(each, (address, layer), held=False)
        for each in after:
            self._note(each, (address, layer), held=True)
        if told:
            self._held[address] = told
        else:
            del self._held[address]

    def _note(self, tenure: Tenure, place: tuple[str, str], *, held: bool) -> None:
        """Keep in mind who still holds what."""
        if tenure.to_ns:
            return
        if tenure.holder.kind == HolderKind.NODE:
            self._nodes[tenure.holder.name] += 1 if held else -1
        id = tenure.holder._id  # noqa: SLF001
        rest = self._open.pop(id, frozenset()) - {place}
        places = rest | {place} if held else rest
        if places:
            self._open[id] = places

    def _has_room(self) -> bool:
        """Whether one more fits, after dropping what ended longest ago where that helps."""
        if self._count < self._max:
            return True
        ended = sorted(each.to_ns for each in self if each.to_ns)
        if not ended:
            return False
        self.forget(ended[(len(ended) - 1) // _EVICT])
        return True


def _from(tenure: Tenure) -> int:
    return tenure.from_ns


def _layer(holder: Holder, held: _Held, at_ns: int) -> str:
    """Pods at an address that is their node's are guests there, whatever else is said of them."""
    if holder.kind != HolderKind.POD:
        return holder.kind
    is_node = any(each.covers(at_ns) for each in held.get(HolderKind.NODE, ()))
    return _GUESTS if holder.guest or is_node else HolderKind.POD


def _joined_in(
    tenures: tuple[Tenure, ...], address: str, holder: Holder, at_ns: int
) -> tuple[Tenure, ...]:
    """Guests come and go beside each other."""
    for each in tenures:
        if each.to_ns == 0 and each.holder._id == holder._id:  # noqa: SLF001
            if each.from_ns <= at_ns:
                return tenures
            return _sorted((*(t for t in tenures if t is not each), replace(each, from_ns=at_ns)))
    return _sorted((*tenures, Tenure(address=address, holder=holder, from_ns=at_ns)))


def _sorted(tenures: tuple[Tenure, ...]) -> tuple[Tenure, ...]:
    return tuple(sorted(tenures, key=_from))


def _taken_over(
    tenures: tuple[Tenure, ...], address: str, holder: Holder, at_ns: int
) -> tuple[Tenure, ...]:
    """One holder after the other: the news cuts off whoever was there, and reaches to whoever came next."""
    place = bisect_right(tenures, at_ns, key=_from)
    earlier, later = tenures[:place], tenures[place:]
    if earlier and earlier[-1].covers(at_ns):
        there = earlier[-1]
        if there.holder._id == holder._id:  # noqa: SLF001
            return tenures
        cut = (replace(there, to_ns=at_ns),) if there.from_ns < at_ns else ()
        earlier = (*earlier[:-1], *cut)
    if later and later[0].holder._id == holder._id:  # noqa: SLF001
        return (*earlier, replace(later[0], from_ns=at_ns), *later[1:])
    to_ns = later[0].from_ns if later else 0
    return (
        *earlier,
        Tenure(address=address, holder=holder, from_ns=at_ns, to_ns=to_ns),
        *later,
    )


def plain(address: str) -> str:
    """An address in its one usual way of writing; "" for what is none. IPv4 within IPv6 is IPv4 on the wire."""
    return _plain(address[:_LONGEST].partition("/")[0])


_LONGEST = 64  # what is longer is no address, and must not fill the cache


@lru_cache(maxsize=32_768)
def _plain(address: str) -> str:
    try:
        found = ip_address(address)
    except ValueError:
        return ""
    if isinstance(found, IPv6Address):
        if found.ipv4_mapped is not None:
            return str(found.ipv4_mapped)
        if found.scope_id is not None:
            return str(IPv6Address(int(found)))
    return str(found)
