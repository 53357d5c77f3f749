"""Recognises the flows that alerts name, whichever way their packets go."""

from __future__ import annotations

from ipaddress import IPv6Address, ip_address
from typing import NamedTuple

from tripshark.formats.tshark import Frame
from tripshark.model.alert import Address, Connection, Endpoint, Proto

_WITH_PORTS = frozenset({"tcp", "udp", "sctp"})


class Wanted(NamedTuple):
    """A flow that an alert names, ready for comparison: canonical addresses; None where it does not say."""

    client: tuple[str | None, int | None]
    server: tuple[str | None, int | None]
    proto: str | None
    icmp: bool

    @classmethod
    def of(cls, connection: Connection) -> Wanted | None:
        """None for a connection that names nothing a packet could be recognised by."""
        client, server = _side(connection.client), _side(connection.server)
        if client == server == (None, None):
            return None
        icmp = connection.proto is Proto.ICMP
        proto = None if connection.proto is None or icmp else connection.proto.value
        return cls(client, server, proto, icmp)

    def is_met(self, frame: Frame) -> bool:
        """Whichever way the packet goes: Falco may have flipped client and server."""
        if self.icmp:
            if frame.transport not in {"icmp", "icmpv6"}:
                return False
        elif frame.transport != self.proto if self.proto else frame.transport not in _WITH_PORTS:
            return False
        one, other = (frame.src, frame.sport), (frame.dst, frame.dport)
        return any(
            self._fits(self.client, a) and self._fits(self.server, b)
            for a, b in ((one, other), (other, one))
        )

    def _fits(self, wanted: tuple[str | None, int | None], side: tuple[str, int]) -> bool:
        address, port = wanted
        return address in (None, side[0]) and (self.icmp or port in (None, side[1]))


def address_or_none(text: str) -> str | None:
    """The canonical form of an address; an IPv4 address within an IPv6 one is itself."""
    try:
        return _canonical(ip_address(text))
    except ValueError:
        return None


def _side(endpoint: Endpoint) -> tuple[str | None, int | None]:
    """The unspecified address and port 0 say nothing: a UDP socket that is bound to no address has them."""
    address = endpoint.address
    known = None if address is None or address.is_unspecified else _canonical(address)
    return known, endpoint.port or None


def _canonical(address: Address) -> str:
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return str(mapped or address)
