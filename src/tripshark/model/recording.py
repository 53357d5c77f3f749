"""Which pods are recorded, how much of each packet, and with what share of the memory."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

ANNOTATION = "tripshark.dev/record"
WEIGHT_ANNOTATION = "tripshark.dev/weight"
MAX_WEIGHT = 16
MAX_WISH = 4
"""The most that a pod's annotation gets, or what a selector gives it: memory is shared, and what one pod takes others lack."""


class Mode(StrEnum):
    """How much of a target's packets is recorded; each word includes less than the one after it."""

    OFF = "off"
    HEADERS = "headers"
    FULL = "full"


_ORDER = tuple(Mode)
HEADERS_BYTES = 128
"""What `headers` keeps of a packet: Ethernet, two VLAN tags, IPv6, TCP with options: 14 + 8 + 40 + 60, rounded."""


def stricter(one: str, other: str) -> Mode:
    """Of two modes the one that keeps less."""
    return min(Mode(one), Mode(other), key=_ORDER.index)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """What is to be done with one target, and who said so."""

    mode: Mode
    weight: int = 1  # its share of ring memory, compared with others'
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Selector:
    """One line of the operator's policy: the first that fits a pod decides."""

    namespace: str = "*"  # with * and ?
    labels: Mapping[str, str] = field(default_factory=dict)  # all of them
    record: Mode = Mode.FULL
    weight: int = 1

    def fits(self, namespace: str, labels: Mapping[str, str]) -> bool:
        return fnmatch.fnmatchcase(namespace, self.namespace) and all(
            labels.get(name) == value for name, value in self.labels.items()
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """Who is recorded: `default` opts everybody in or out, the operator's selectors and pods' annotations refine it.

    `privacy` is a namespace's upper bound, which no selector and no annotation exceeds: whoever may annotate a pod
    must not be able to have more of it recorded than the operator allows.
    """

    default: Mode = Mode.FULL
    selectors: Sequence[Selector] = ()
    privacy: Mapping[str, Mode] = field(default_factory=dict)  # namespace, with * and ? → the most
    annotations: bool = True  # pods may ask for themselves

    def decide(
        self, namespace: str, labels: Mapping[str, str], annotations: Mapping[str, str]
    ) -> Recording:
        """What to record of a pod. An annotation that is not understood counts as none, and the reason says so."""
        mode, weight, reason = self.default, 1, "recorded by default"
        for selector in self.selectors:
            if selector.fits(namespace, labels):
                mode, weight = selector.record, selector.weight
                reason = f"a selector for {selector.namespace} says so"
                break
        if self.annotations and ANNOTATION in annotations:
            wish = annotations[ANNOTATION]
            if wish in _ORDER:
                mode, reason = Mode(wish), "its annotation says so"
            else:
                reason += f"; its annotation {ANNOTATION} is none of off, headers, full"
        if self.annotations and WEIGHT_ANNOTATION in annotations:
            wish = annotations[WEIGHT_ANNOTATION]
            most = max(MAX_WISH, weight)
            if wish.isascii() and wish.isdigit() and 1 <= int(wish[:4]) <= MAX_WEIGHT:
                if int(wish) > most:
                    reason += f"; its annotation {WEIGHT_ANNOTATION} gets {most}, more is the operator's to give"
                weight = min(int(wish), most)
            else:
                reason += f"; its annotation {WEIGHT_ANNOTATION} is no number of 1 to {MAX_WEIGHT}"
        bound = self._bound(namespace)
        if bound is not None and _ORDER.index(mode) > _ORDER.index(bound):
            mode, reason = bound, f"namespace {namespace} is recorded as {bound} at most"
        return Recording(mode=mode, weight=weight, reason=reason)

    def _bound(self, namespace: str) -> Mode | None:
        """The tightest of the bounds that name this namespace."""
        bounds = [
            most for glob, most in self.privacy.items() if fnmatch.fnmatchcase(namespace, glob)
        ]
        return min(bounds, key=_ORDER.index, default=None)
