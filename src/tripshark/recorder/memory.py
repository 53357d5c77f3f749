"""Who gets how much ring memory. Pure arithmetic, decided when a target or an interface appears."""

from __future__ import annotations

from tripshark.recorder.links import Link
from tripshark.recorder.recorded import Recorded
from tripshark.recorder.ring import LOOPBACK, MIN_BLOCKS, Shape, shape

LEAST = MIN_BLOCKS * (128 << 10)  # bytes of the smallest ring


def quota(*, per_target: int, total: int, granted: int, targets: int, late: bool) -> int:
    """Bytes for a target's rings: min(per_target, total/targets), 0 when there is no more to give.

    `granted` is what others have, `targets` counts it too. Who comes `late`, after those found at the start,
    leaves three quarters of the rest to those who come still later.
    """
    rest = total - granted
    share = min(per_target, total // max(1, targets))
    if late:
        share = min(share, max(rest // 4, LEAST))
    return share if LEAST <= share <= rest else 0


def ring_shape(target: Recorded, link: Link, fresh: int, snaplen: int) -> Shape | None:
    """The ring for one of `fresh` new interfaces, None when the target's memory is spent.

    An eighth is for loopback, most for the interfaces found first, half of what is left for each later one.
    """
    rest = target.quota - target.ring_bytes
    if link.interface.hardware_type == LOOPBACK:
        sizes = [target.quota // 8]
    elif any(each.interface.hardware_type != LOOPBACK for each in target.rings.values()):
        sizes = [rest // 2, rest]
    else:
        sizes = [target.quota * 5 // 8 if fresh == 1 else target.quota * 6 // 8 // fresh, rest]
    for size in sizes:
        form = shape(min(size, rest), largest_frame=link.largest_frame, snaplen=snaplen)
        if form is not None:
            return form
    return None
