"""Packet filters as small typed values that print themselves as BPF, and the ladder flow → peer → pod.

Nothing from an alert is ever pasted into a filter: an address is an `Address`, a port an `int`, and
only these nodes write pcap-filter(7) text. The ladder trusts what `formats.falco` calls trustworthy
and no more:

- Both endpoints are matched without a direction, because Falco flips client and server of accepted
  connections and of bound UDP sockets.
- Of UDP the client's address is a wildcard: for `sendto` on an unbound socket Falco reports the
  host's address instead of the pod's. The same where the alert does not say which protocol it was.
- Addresses from a command line match by host alone: their ports are guesses.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Address, IPv6Network
from types import MappingProxyType
from typing import Protocol

from tripshark.model.alert import Address, Alert, Connection, Proto


class Scope(StrEnum):
    """How much traffic a capture takes in, narrowest first."""

    FLOW = "flow"
    PEER = "peer"
    POD = "pod"
    WORKLOAD = "workload"
    SERVICE = "service"
    NODE = "node"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rung:
    """One step of the ladder: what would be kept at this scope, and why this scope.

    `core` is what the alert is about: if it matches nothing the next rung is taken. `also` is kept
    beside it (DNS of the window, ICMP errors, fragments) and does not count as a match. Both are
    pcap-filter(7) text written by our own typed nodes, or "" for everything (`core`) / nothing (`also`).
    """

    scope: Scope
    core: str
    also: str = ""
    reason: str = ""


# ---------------------------------------------------------------------------------- the nodes


class Filter(Protocol):
    """Anything that prints itself as a complete pcap-filter expression, in parentheses if it must."""

    def __str__(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Host:
    """Packets from or to one address; ARP about it is something else."""

    address: Address

    def __str__(self) -> str:
        family = "ip6" if self.address.version == 6 else "ip"
        return f"{family} host {self.address}"


@dataclass(frozen=True, slots=True)
class Net:
    """Packets from or to one network."""

    network: IPv4Network | IPv6Network

    def __str__(self) -> str:
        family = "ip6" if self.network.version == 6 else "ip"
        return f"{family} net {self.network}"


@dataclass(frozen=True, slots=True)
class Port:
    """Packets from or to one port of TCP, UDP or SCTP; of one of them where `proto` says so."""

    port: int
    proto: Proto | None = None

    def __str__(self) -> str:
        return f"{self.proto} port {self.port}" if self.proto else f"port {self.port}"


@dataclass(frozen=True, slots=True)
class Transport:
    """Packets of one protocol, given as a word of ours."""

    proto: Proto

    def __str__(self) -> str:
        return "(icmp or icmp6)" if self.proto is Proto.ICMP else str(self.proto)


@dataclass(frozen=True, slots=True)
class Carries:
    """IPv4 or IPv6 packets that carry one protocol number (IANA), as tunnels do."""

    number: int

    def __str__(self) -> str:
        return f"(ip proto {self.number} or ip6 proto {self.number})"


@dataclass(frozen=True, slots=True)
class EtherType:
    """Frames of one EtherType. (`vlan` and `mpls` would move the offsets of all that follows.)"""

    number: int

    def __str__(self) -> str:
        return f"ether proto {self.number:#06x}"


@dataclass(frozen=True, slots=True)
class Bytes:
    """A number at a fixed place of a header compared with another: `icmp[24:4] = 0x0a000001`."""

    layer: str  # "ip", "ip6", "icmp": a word of this module
    offset: int
    size: int  # 1, 2 or 4 bytes
    value: int
    mask: int = 0  # 0: compare as it stands
    relation: str = "="  # "=", "!=", "<"

    def __str__(self) -> str:
        place = f"{self.layer}[{self.offset}:{self.size}]"
        if self.mask:
            place = f"{place} & {self.mask:#x}"
        return f"{place} {self.relation} {self.value:#x}"


@dataclass(frozen=True, slots=True)
class And:
    parts: tuple[Filter, ...]

    def __str__(self) -> str:
        return _joined(" and ", self.parts)


@dataclass(frozen=True, slots=True)
class Or:
    parts: tuple[Filter, ...]

    def __str__(self) -> str:
        return _joined(" or ", self.parts)


@dataclass(frozen=True, slots=True)
class Not:
    part: Filter

    def __str__(self) -> str:
        return f"not ({self.part})"


def _joined(word: str, parts: Sequence[Filter]) -> str:
    # pcap-filter gives `and` and `or` the same precedence: every join gets its parentheses.
    return str(parts[0]) if len(parts) == 1 else f"({word.join(str(part) for part in parts)})"


# ---------------------------------------------------------------------------------- what is kept beside

DNS = Or((Port(53), Port(5353, Proto.UDP), Port(5355, Proto.UDP)))
"""Look-ups of the window: DNS, mDNS and LLMNR. TLS on port 853 names nothing and is left out."""

_UDP = Proto.UDP
_EXTENSIONS = (0, 43, 51, 60)  # hop-by-hop, routing, authentication, destination options
FRAGMENTS = Or((Bytes("ip", 6, 2, 0, 0x1FFF, "!="), Bytes("ip6", 6, 1, 44)))
"""IPv4 fragments but the first, and every IPv6 fragment: no port filter can see into them."""

EXTENSION_HEADERS = Or(tuple(Bytes("ip6", 6, 1, number) for number in _EXTENSIONS))
"""IPv6 packets whose transport header does not follow at once, where port filters look for it."""

_TUNNELS: Mapping[str, Filter] = MappingProxyType(
    {
        "vxlan": Or(
            (Port(4789, _UDP), Port(8472, _UDP))
        ),  # 8472: Linux before IANA, flannel, Cilium
        "geneve": Port(6081, _UDP),
        "gre": Carries(47),
        "ipip": Carries(4),
        "6in4": Carries(41),
        "wireguard": Port(51820, _UDP),
        "ipsec": Or((Carries(50), Carries(51), Port(4500, _UDP))),
        "gtp": Port(2152, _UDP),
    }
)
_ETHERNET_TUNNELS: Mapping[str, Filter] = MappingProxyType(
    {"mpls": EtherType(0x8847), "pppoe": EtherType(0x8864)}
)


def kinds(*, ethernet: bool = False) -> Mapping[str, str]:
    """Traffic that a flow or peer filter cannot look into, as name → pcap-filter text.

    Such packets are kept beside what the filter matches, so that nothing slips past it unsaid; the
    ledger counts and names those that were kept for this reason alone. With `ethernet` also what
    exists on such links only: elsewhere libpcap refuses to compile a filter that cannot match.
    """
    opaque: dict[str, Filter] = {
        "fragments": FRAGMENTS,
        "ipv6_extension_headers": EXTENSION_HEADERS,
        **_TUNNELS,
        **(_ETHERNET_TUNNELS if ethernet else {}),
    }
    return {name: str(kind) for name, kind in opaque.items()}


def icmp_errors(*addresses: Address) -> Filter:
    """ICMP errors that quote a packet from or to one of these addresses.

    IPv4 (RFC 792): unreachable 3, source quench 4, redirect 5, time exceeded 11, parameter problem
    12; the quoted header begins at ICMP byte 8, its addresses are at +12 and +16. IPv6 (RFC 4443):
    types below 128; the quoted header begins at byte 48 of the packet, addresses at +8 and +24.
    """
    errors: list[Filter] = []
    for address in addresses:
        if isinstance(address, IPv6Address):
            places = tuple(_quoted6(address, at) for at in (56, 72))
            kind: Filter = Bytes("ip6", 40, 1, 128, relation="<")
            errors.append(And((Bytes("ip6", 6, 1, 58), kind, Or(places))))
        else:
            quoted = tuple(Bytes("icmp", at, 4, int(address)) for at in (20, 24))
            kind = Or(tuple(Bytes("icmp", 0, 1, number) for number in (3, 4, 5, 11, 12)))
            errors.append(And((kind, Or(quoted))))
    return Or(tuple(errors))


def _quoted6(address: IPv6Address, at: int) -> Filter:
    words = (int(address) >> shift & 0xFFFFFFFF for shift in (96, 64, 32, 0))
    return And(tuple(Bytes("ip6", at + 4 * i, 4, word) for i, word in enumerate(words)))


# ---------------------------------------------------------------------------------- the ladder


MAX_ALSO = 32
"""More addresses behind one service would make a filter too long: the ladder then widens to the pod where its
address is not on the wire."""


def ladder(
    alert: Alert,
    scope: Scope | None = None,
    target_addresses: Collection[str] = (),
    *,
    also: Collection[Address] = (),
) -> tuple[Rung, ...]:
    """The filters to try, narrowest first; the last one matches everything.

    `scope` is what the rule asks for, None for the narrowest the alert supports. What it cannot
    support becomes the next wider rung, and that rung's reason says so. `workload` and `service`
    are as wide as `pod` here: which pods they mean is decided elsewhere. `target_addresses` are the
    target's own: they tell which end of a connection is the peer. `also` are other addresses that the
    peer may have on the wire: a service's own and those behind it. What is behind a service may listen
    on another port, so such a flow is told by the port of the target's end alone.
    """
    if scope is Scope.NODE:
        return (Rung(scope=Scope.NODE, core="", reason="the whole node was asked for"),)
    rungs: list[Rung] = []
    start = scope or Scope.FLOW
    missed = ""
    own = frozenset(target_addresses)
    others = tuple(dict.fromkeys(each for each in also if str(each) not in own))
    if len(others) > MAX_ALSO:
        others = ()
    if start is Scope.FLOW:
        if (flow := _flow(alert, own, others)) is not None:
            rungs.append(flow)
        elif scope is Scope.FLOW:
            missed = "the alert names no whole flow"
    if start in (Scope.FLOW, Scope.PEER):
        if (peer := _peer(alert, own, others)) is not None:
            rungs.append(peer)
        elif scope is not None and not rungs:
            missed = "the alert names no peer"
    rungs.append(_pod(alert, scope))
    if missed:
        first = rungs[0]
        rungs[0] = Rung(
            scope=first.scope,
            core=first.core,
            also=first.also,
            reason=f"{scope} was asked for, but {missed}: {first.reason}",
        )
    return tuple(rungs)


def _flow(
    alert: Alert, own: frozenset[str] = frozenset(), others: Sequence[Address] = ()
) -> Rung | None:
    """Exactly the connection the alert names, in both directions; with `others` in the peer's place too."""
    connection = alert.connection
    if connection is None:
        return None
    client, server, proto = connection.client, connection.server, connection.proto
    if connection.listening:
        if server.port is None:
            return None
        return Rung(
            scope=Scope.FLOW,
            core=str(_ports(proto, server.port)),
            also=_beside(()),
            reason=f"the alert names a socket listening on port {server.port}",
        )
    known = [address for address in (server.address, client.address) if address is not None]
    if proto is Proto.ICMP:
        if server.address is None or _mixed(known):
            return None
        exchange: Filter = And((Transport(proto), *map(Host, known)))
        others = _of_family(others, known)
        if others:
            exchange = Or((exchange, And((Transport(proto), Or(tuple(map(Host, others)))))))
        return Rung(
            scope=Scope.FLOW,
            core=str(exchange),
            also=_beside((*known, *others)),
            reason="the alert names an ICMP exchange" + _behind(others),
        )
    if not known or client.port is None or server.port is None:
        return None
    reason = "the alert names the whole flow"
    if proto not in (Proto.TCP, Proto.SCTP) and len(known) == 2:
        known = [server.address] if server.address is not None else known
        what = "of UDP" if proto is Proto.UDP else "where the protocol is not known"
        reason += f"; {what} the client's address is not relied on"
    if _mixed(known):
        return None
    core: Filter = And((*map(Host, known), _ports(proto, client.port), _ports(proto, server.port)))
    others = _of_family(others, known)
    if others:
        is_server = str(server.address) in own and str(client.address) not in own
        here = server if is_server else client
        ours = [Host(each) for each in known if len(known) == 2 and each == here.address]
        behind: Filter = And((Or(tuple(map(Host, others))), *ours, _ports(proto, here.port or 0)))
        core = Or((core, behind))
    return Rung(
        scope=Scope.FLOW,
        core=str(core),
        also=_beside((*known, *others)),
        reason=reason + _behind(others),
    )


def _of_family(others: Sequence[Address], known: Sequence[Address]) -> tuple[Address, ...]:
    """Those that can stand in a packet beside what is known, and are not known already."""
    versions = {address.version for address in known}
    return tuple(each for each in others if each.version in versions and each not in known)


def _behind(others: Sequence[Address]) -> str:
    if not others:
        return ""
    word = "address" if len(others) == 1 else "addresses"
    return f", with {len(others)} more {word} of the same service"


def _mixed(addresses: Sequence[Address]) -> bool:
    """IPv4 and IPv6 together: no packet has both, and libpcap refuses a filter that matches nothing."""
    return len({address.version for address in addresses}) > 1


def _ports(proto: Proto | None, port: int) -> Filter:
    return Port(port, None if proto is Proto.ICMP else proto)


def _peer(alert: Alert, own: frozenset[str], behind: Sequence[Address] = ()) -> Rung | None:
    """Everything exchanged with the other end, whichever end of the connection that is."""
    connection = alert.connection
    hints = list(
        dict.fromkeys(
            hint.address
            for hint in alert.hints
            if hint.address is not None
            and str(hint.address) not in own  # our own address: that is the whole pod
        )
    )
    named = None if connection is None or connection.listening else _other_end(connection, own)
    if named is None:
        if not hints or (connection is not None and connection.listening):
            return None
        addresses = ", ".join(str(address) for address in hints)
        return Rung(
            scope=Scope.PEER,
            core=str(Or(tuple(map(Host, hints)))),
            also=_beside(tuple(hints)),
            reason=f"the alert names no connection; its command line mentions {addresses}",
        )
    address, port, proto = named
    core: Filter = Host(address)
    reason = f"everything exchanged with {address}"
    if port is not None:
        core = And((Host(address), _ports(proto, port)))
        reason += f" on port {port}"
    others = [hint for hint in hints if hint != address]
    if others:
        core = Or((core, *map(Host, others)))
        reason += " and the addresses its command line mentions"
    behind = [each for each in behind if each not in (address, *others)]
    if behind:
        core = Or((core, *map(Host, behind)))
        reason += _behind(behind)
    return Rung(
        scope=Scope.PEER,
        core=str(core),
        also=_beside((address, *others, *behind)),
        reason=reason,
    )


def _other_end(
    connection: Connection, own: frozenset[str]
) -> tuple[Address, int | None, Proto | None] | None:
    """The peer's address, and its port where the address alone would mean too much."""
    client, server, proto = connection.client, connection.server, connection.proto
    port = None if proto is Proto.ICMP else server.port
    if server.address is None:
        return None if client.address is None else (client.address, None, proto)
    if server.address.is_loopback:
        return server.address, port, proto  # without the port: all of the pod's own chatter
    if str(server.address) in own:
        if client.address is None or str(client.address) in own:
            return server.address, port, proto  # the pod talks to itself
        return client.address, None, proto
    alone = client.address is None and client.port is None
    return server.address, port if alone else None, proto


def _pod(alert: Alert, scope: Scope | None) -> Rung:
    if scope in (Scope.POD, Scope.WORKLOAD, Scope.SERVICE):
        reason = f"{scope} was asked for"
    elif alert.connection is None and not alert.hints:
        reason = "the alert names no connection and no address: everything the target exchanged"
    else:
        reason = "everything the target exchanged"
    return Rung(scope=Scope.POD, core="", reason=reason)


_DNS_TEXT = str(DNS)
_OPAQUE_TEXTS = tuple(map(str, (*_TUNNELS.values(), *_ETHERNET_TUNNELS.values())))


@lru_cache(maxsize=256)
def _beside(addresses: tuple[Address, ...]) -> str:
    """What is kept beside a flow or a peer: look-ups, ICMP errors, and what no filter can look into."""
    parts: list[Filter] = []
    if addresses:
        hosts = Or(tuple(map(Host, addresses)))
        parts.append(icmp_errors(*addresses))
        parts.append(And((hosts, FRAGMENTS)))
        if any(address.version == 6 for address in addresses):
            parts.append(And((hosts, EXTENSION_HEADERS)))
    else:
        parts += [FRAGMENTS, EXTENSION_HEADERS]
    texts = (_DNS_TEXT, *map(str, parts), *_OPAQUE_TEXTS)
    return f"({' or '.join(texts)})"
