"""Who can be recorded: a network namespace and who lives in it, and which one an alert means."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NewType

TargetKey = NewType("TargetKey", str)
"""Given by the recorder to one namespace for its whole life; never used again (inodes are)."""


class TargetKind(StrEnum):
    NETNS = "netns"  # a named namespace below /run/netns
    HOST = "host"
    PID = "pid"
    CONTAINER = "container"  # a pod sandbox or container known to a runtime


@dataclass(frozen=True, slots=True, kw_only=True)
class Interface:
    """A network interface as it was inside its namespace when the ring was opened."""

    name: str
    ifindex: int
    hardware_type: int  # ARPHRD_*, linux/if_arp.h: 1 Ethernet, 772 loopback, 65534 none (tun)
    mac: str = ""
    mtu: int = 0
    addresses: tuple[str, ...] = ()  # "10.0.0.7/24", as last seen


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Who lives in a namespace, said in Kubernetes' words."""

    namespace: str = ""
    pod: str = ""
    uid: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    owner: str = ""  # "Deployment/checkout"
    node: str = ""
    service_account: str = ""
    images: tuple[str, ...] = ()
    containers: tuple[str, ...] = ()  # full container ids
    addresses: tuple[str, ...] = ()  # as runtime or API tell them; the recorder sees them later

    @property
    def name(self) -> str:
        """`namespace/pod`, the name an analyst knows."""
        return f"{self.namespace}/{self.pod}" if self.namespace else self.pod


@dataclass(frozen=True, slots=True, kw_only=True)
class RingState:
    """How one interface of a target is being recorded; counters since the ring was opened."""

    ring: str  # id, unique for the recorder's life
    interface: Interface
    live: bool  # False: a tombstone, or an earlier ring of the same interface
    bytes: int  # memory held
    snaplen: int
    packets: int = 0  # seen by the tap, drops included
    drops: int = 0
    blocks: int = 0  # blocks retired
    oldest_ns: int = 0  # 0: nothing recorded yet
    newest_ns: int = 0
    opened_ns: int = 0
    closed_ns: int = 0  # 0 while live
    flow_cut: int = 0  # bytes in full per flow and direction, of the rest headers; 0: all


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One recorded namespace with everything known locally about it."""

    key: TargetKey
    kind: TargetKind
    name: str  # as the user addresses it: "netns:shop0", "host", "pid:4242"
    inode: int  # of the network namespace
    since_ns: int
    gone_ns: int = (
        0  # 0 while alive; otherwise when it died (a tombstone remains until it expires)
    )
    seen_born: bool = False  # recording began when the namespace did: nothing came before it
    identity: Identity = Identity()
    rings: tuple[RingState, ...] = ()
    note: str = ""  # why it is not (fully) recorded, e.g. "over budget"
    mode: str = "full"  # what is to be recorded of it: "off", "headers" or "full"
    weight: int = 1  # its share of ring memory, compared with others'

    @property
    def alive(self) -> bool:
        return self.gone_ns == 0

    @property
    def title(self) -> str:
        """What an analyst calls it: `payments/checkout-7d9f`, or the namespace's own name."""
        return self.identity.name or self.name

    @property
    def addresses(self) -> tuple[str, ...]:
        """All addresses of all interfaces, without the prefix length, loopback left out, and what its runtime says."""
        seen = (
            address.partition("/")[0]
            for ring in self.rings
            if ring.interface.hardware_type != 772
            for address in ring.interface.addresses
        )
        return tuple(dict.fromkeys((*seen, *self.identity.addresses)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Elsewhere:
    """A pod (or, without one, a whole machine) that another node records."""

    node: str
    namespace: str = ""
    pod: str = ""
    uid: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    owner: str = ""

    @property
    def identity(self) -> Identity:
        """As far as it is known from here; rules may ask for it."""
        return Identity(
            namespace=self.namespace,
            pod=self.pod,
            uid=self.uid,
            labels=self.labels,
            owner=self.owner,
            node=self.node,
        )

    @property
    def title(self) -> str:
        """`payments/checkout-7d9f`, or `node/worker-2` where the machine itself is meant."""
        return f"{self.namespace}/{self.pod}" if self.pod else f"node/{self.node}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolution:
    """Which target an alert means, or why none."""

    target: Target | None
    reason: str  # "k8s.pod.name is payments/checkout-7d9f", or why nothing fits
    hint: str = ""
    elsewhere: Elsewhere | None = None  # who is meant, when another node records it
    members: Members | None = None  # everybody, where a workload or a service was asked for
    later: bool = False
    """Nothing fits yet, and another try within seconds may: a runtime was asked that did not know it so far."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerEnd:
    """The other end of an alert's connection: a pod that is recorded here, or on another node."""

    address: str  # the peer's own, behind a service's too
    target: Target | None = None
    elsewhere: Elsewhere | None = None
    via: str = ""  # "payments/svc/ledger", where the connection went to a service's address
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Members:
    """Who belongs to a workload, a service or a node: recorded here (also lately dead), and on other nodes."""

    targets: tuple[Target, ...] = ()
    elsewhere: tuple[Elsewhere, ...] = ()
    reason: str = ""  # "Deployment payments/checkout has 3 pods", or why there are none
