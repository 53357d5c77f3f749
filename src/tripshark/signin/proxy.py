"""Whom a reverse proxy in front of us says is asking: believed only where the connection comes from its address."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address

from tripshark.errors import BadInput
from tripshark.model.role import Assignment, Grant, granted, groups_in

Network = IPv4Network | IPv6Network
Headers = Iterable[tuple[bytes, bytes]]
_MAX = 8192


@dataclass(frozen=True, slots=True, kw_only=True)
class Proxy:
    """Its addresses, and the headers in which it says who signed in with it."""

    trusted: tuple[Network, ...]
    user_header: str
    groups_header: str
    assignments: tuple[Assignment, ...]

    def trusts(self, peer: str) -> bool:
        """The connection comes from it; `peer` is the address of the other end, "" of a unix socket."""
        try:
            address = ip_address(peer.partition("%")[0])
        except ValueError:
            return False
        if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        return any(address in network for network in self.trusted)

    def names_somebody(self, headers: Headers) -> bool:
        """One of its headers is there, whoever wrote it."""
        if not self.user_header:
            return False
        own = {self.user_header.lower().encode(), self.groups_header.lower().encode()}
        return any(name in own for name, _ in headers)

    def grant(self, headers: Headers) -> Grant | None:
        """Who it says is asking; None: it names nobody. Ask `trusts` first. Raises `BadInput`: it says it twice."""
        if not self.user_header:
            return None
        said = _values(headers, (self.user_header, self.groups_header))
        users, groups = said[self.user_header], said[self.groups_header]
        if len(users) > 1:
            raise BadInput(
                "the proxy names more than one user",
                where=self.user_header,
                hint="it has to replace the header that clients send, not to add one",
            )
        if not users or not users[0]:
            return None
        given = groups_in(",".join(groups)) if len(groups) <= 1 else ()  # one of two may be forged
        return granted("proxy", users[0], given, self.assignments)

    def client(self, peer: str, headers: Headers) -> str:
        """The address that asks: what the proxy says of it, for counting failures; of others, the peer's."""
        if not self.trusts(peer):
            return peer
        chain = ",".join(_values(headers, ("x-forwarded-for",))["x-forwarded-for"]).split(",")
        for each in reversed([one.strip() for one in chain][-16:]):
            if each and not self.trusts(each):
                return each[:64]
        return peer


def _values(headers: Headers, names: Sequence[str]) -> Mapping[str, list[str]]:
    found: dict[str, list[str]] = {name: [] for name in names}
    wanted = {name.lower().encode(): name for name in names}
    for name, value in headers:
        if (known := wanted.get(name)) is not None:
            # nginx and others write UTF-8; whatever is none stays distinct and visible
            found[known].append(value[:_MAX].decode("utf-8", "replace").strip())
    return found
