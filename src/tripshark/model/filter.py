"""Packet filters as small typed values that print themselves as BPF, and the ladder flow → peer → pod."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


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
