"""What claims are made from: the gathered picture, seen from the target's side."""

from __future__ import annotations

import re
from collections.abc import Mapping
from ipaddress import ip_address, ip_network

from tripshark.analysis.gather import Gatherer
from tripshark.analysis.words import short
from tripshark.model.claim import MAX_CLAIM, MAX_FRAMES, Finding, Severity
from tripshark.model.text import printable

_TECHNIQUE = re.compile(r"T\d{4}(?:\.\d{3})?", re.ASCII)
_INSIDE = tuple(
    map(
        ip_network,
        (
            *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16"),
            *("172.16.0.0/12", "192.168.0.0/16", "224.0.0.0/4", "240.0.0.0/4"),
            *("::/127", "fc00::/7", "fe80::/10", "ff00::/8"),
        ),
    )
)
_SEVERITIES = (
    (Severity.HIGH,) * 3 + (Severity.MEDIUM,) * 2 + (Severity.LOW,) + (Severity.INFO,) * 2
)
_PRIORITIES = ("emergency", "alert", "critical", "error", "warning", "notice", "informational")


class View:
    """The gatherer and what the question says about whose address is whose."""

    def __init__(self, gatherer: Gatherer) -> None:
        self.gathered = gatherer
        self.talks = gatherer.talks
        self.said = gatherer.said
        self.resolved = gatherer.resolved
        self.own = gatherer.own
        question = gatherer.question
        self.question = question
        self._near = {*question.node_addresses, *question.api_server}
        named = gatherer.named()
        conversation = None if named is None else gatherer.conversation(named)
        self.flow, self.flow_talk = conversation, named
        self.suspect = conversation.b if conversation else ""
        """The other end of the flow that the alert names."""
        tags = (tag.upper() for alert in question.alerts for tag in alert.tags)
        self.techniques = tuple(dict.fromkeys(filter(_TECHNIQUE.fullmatch, tags)))
        """Those that the alerts' own tags say."""

    def ours(self, address: str) -> bool:
        """The target's own address; where none is known, any that is not outside."""
        return address in self.own if self.own else not self.outside(address)

    def outside(self, address: str) -> bool:
        """Not private, not link-local, and nothing of the cluster's.

        Networks kept for documentation count as outside, and so do public addresses that a cluster gives its
        pods, unless their name tells (`namespace/pod`).
        """
        if address in self.own or address in self._near:
            return False
        if "/" in self.question.names.get(address, ""):
            return False
        value = ip_address(address)
        return not any(value in network for network in _INSIDE)

    def priority(self) -> Severity:
        """How severe the worst alert says it is."""
        worst = min((_rank(each.priority) for each in self.question.alerts), default=5)
        return _SEVERITIES[worst]

    def named(self, address: str) -> str:
        """` (c2.example)` or nothing."""
        name = short(self.gathered.name_of(address))
        return f" ({name})" if name else ""

    def peer(self, address: str) -> dict[str, str]:
        """What `Finding.about` says of the other side."""
        name = printable(self.gathered.name_of(address))
        return {"peer": address, **({"peer_name": name} if name else {})}


def claim(
    kind: str,
    severity: Severity,
    title: str,
    text: str,
    *,
    frames: list[int],
    filter: str,
    matches: int,
    times: tuple[int, int],
    about: Mapping[str, str],
    techniques: tuple[str, ...] = (),
) -> Finding:
    """A finding before it has its number."""
    return Finding(
        id="F0",
        kind=kind,
        severity=severity,
        title=printable(title),
        text=printable(text, MAX_CLAIM),
        frames=tuple(sorted({*frames})[:MAX_FRAMES]),
        filter=filter,
        matches=matches,
        first_ns=times[0],
        last_ns=times[1],
        techniques=techniques,
        about=about,
    )


def _rank(priority: str) -> int:
    word = priority.lower()
    return _PRIORITIES.index(word) if word in _PRIORITIES else 7
