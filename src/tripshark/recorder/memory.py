"""Who gets how much ring memory. Pure arithmetic, decided anew when a target appears, vanishes or is assigned."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

from tripshark.recorder.links import Link
from tripshark.recorder.recorded import Recorded
from tripshark.recorder.ring import HEADER_BLOCK, LOOPBACK, MIN_BLOCKS, Ring, Shape, shape

LEAST = MIN_BLOCKS * (128 << 10)  # bytes of the smallest ring
LEAST_HEADERS = MIN_BLOCKS * HEADER_BLOCK
FLOOR = 9 * (128 << 10)  # of a target: a ring for eth0, the smallest for lo, a table of flows
FLOOR_HEADERS = 8 * HEADER_BLOCK
_CALM = (
    3,
    4,
)  # a target gets more only if that much of the total suffices: or rings change with every pod

Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What is known of a target when memory is divided."""

    weight: int = 1
    headers: bool = False  # asked for: that is no reduction
    halvings: int = 0  # how often its memory was halved up to now
    reduced: bool = False  # headers only up to now, for lack of memory
    out: bool = False  # nothing up to now


class Share(NamedTuple):
    """What a target gets. `size` 0: there is no memory for it."""

    size: int
    halvings: int
    reduced: bool

    @property
    def out(self) -> bool:
        return self.size == 0


def divide(claims: Mapping[Key, Claim], *, per_target: int, total: int) -> dict[Key, Share]:
    """Bytes for each target's rings, at most `total` together; claims in the order in which the targets appeared.

    Each wants `per_target` × weight. When that is too much, all are halved in turn down to a floor, then the lightest
    are reduced to headers, then the lightest get nothing; among equals it is whoever came last. To keep rings from being
    opened anew all the time, nobody gets more than he has before everybody could at three quarters of the total.
    """
    order = sorted(claims, key=lambda each: -claims[each].weight)
    last = max((_halvings(each, per_target) for each in claims.values()), default=0)
    tight = _steps(order, claims, per_target, total, last)
    calm = _steps(order, claims, per_target, total * _CALM[0] // _CALM[1], last)
    shares = {}
    for key, claim in claims.items():
        now = last + 2 if claim.out else last + 1 if claim.reduced else min(claim.halvings, last)
        step = min(max(now, tight[key]), calm[key])
        size = _size(claim, per_target, step, last)
        shares[key] = Share(
            size if size >= (LEAST_HEADERS if claim.headers or step > last else LEAST) else 0,
            min(step, _halvings(claim, per_target)),
            step == last + 1 and not claim.headers,
        )
    return shares


def _steps(
    order: list[Key], claims: Mapping[Key, Claim], per_target: int, total: int, last: int
) -> dict[Key, int]:
    """How far down each has to go: so many halvings, one more for headers, two more for nothing."""
    steps = dict.fromkeys(order, 0)
    used = sum(_size(claims[each], per_target, 0, last) for each in order)
    for step in range(1, last + 3):
        for key in reversed(order):
            if used <= total:
                return steps
            used -= _size(claims[key], per_target, steps[key], last)
            steps[key] = step
            used += _size(claims[key], per_target, step, last)
    return steps


def _size(claim: Claim, per_target: int, step: int, last: int) -> int:
    whole = per_target * claim.weight
    if step == last + 2:
        return 0
    if step == last + 1:
        return min(whole, FLOOR_HEADERS)
    return max(whole >> step, min(whole, _floor(claim)))


def _halvings(claim: Claim, per_target: int) -> int:
    """After how many its memory is at the floor."""
    whole, count = per_target * claim.weight, 0
    while whole >> count > _floor(claim):
        count += 1
    return count


def _floor(claim: Claim) -> int:
    return FLOOR_HEADERS if claim.headers else FLOOR


def ring_shape(target: Recorded, link: Link, fresh: int, snaplen: int) -> Shape | None:
    """The ring for one of `fresh` new interfaces, None when the target's memory is spent.

    An eighth is for loopback, most for the interfaces found first, half of what is left for each later one.
    """
    rest = target.quota - target.ring_bytes
    if link.interface.hardware_type == LOOPBACK:
        sizes = [_for_loopback(target)]
    elif any(each.interface.hardware_type != LOOPBACK for each in target.rings.values()):
        sizes = [rest // 2, rest]
    else:
        sizes = [target.quota * 5 // 8 if fresh == 1 else target.quota * 6 // 8 // fresh, rest]
    for size in sizes:
        form = shape(
            min(size, rest),
            largest_frame=link.largest_frame,
            snaplen=snaplen,
            headers=target.headers,
        )
        if form is not None:
            return form
    return None


def reshaped(target: Recorded, snaplen: int) -> dict[Ring, Shape | None]:
    """The rings that a target has, as they would be within its memory now; None for those that there is none for."""
    rest = target.quota - (target.flows.bytes if target.flows else 0)
    rings = sorted(
        target.rings.values(),
        key=lambda each: (each.interface.hardware_type == LOOPBACK, -each.shape.bytes),
    )
    others = [each for each in rings if each.interface.hardware_type != LOOPBACK]
    held = sum(each.shape.bytes for each in others)
    part = target.quota * (5 if len(others) == 1 else 6) // 8
    least = LEAST_HEADERS if target.headers else LEAST
    found: dict[Ring, Shape | None] = {}
    for ring in rings:
        if ring in others:
            size = max(least, part * ring.shape.bytes // held)
        else:
            size = _for_loopback(target)
        form = shape(
            min(size, rest),
            largest_frame=target.frames.get(ring.interface.ifindex, 65_536),
            snaplen=snaplen,
            headers=target.headers,
        )
        rest -= form.bytes if form is not None else 0
        found[ring] = form
    return found


def _for_loopback(target: Recorded) -> int:
    """An eighth, or the smallest ring where that leaves enough for others."""
    least = LEAST_HEADERS if target.headers else LEAST
    return max(target.quota // 8, least if target.quota >= 2 * least else 0)
