"""What a caller may know of targets and refusals."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from tripshark.model.incident import namespaces_of
from tripshark.model.target import Target
from tripshark.ports import AlertRow
from tripshark.web.access import Caller
from tripshark.web.parts import Parts


async def seen(targets: Sequence[Target], caller: Caller) -> Sequence[Target]:
    """Those of the namespaces of which the caller may know; the host's ring is for who may know all."""
    if await caller.sees_everything():
        return targets
    named = [(each, namespaces_of([each])[0]) for each in targets]
    known = set(await caller.among([namespace for _, namespace in named]))
    return [each for each, namespace in named if namespace in known]


async def refusal_counts(
    parts: Parts, rows: Sequence[AlertRow], visible: Sequence[str] | None
) -> Mapping[str, int]:
    """By reason: of all alerts, or where only some may be seen, of those that are shown."""
    if visible is None:
        return await parts.catalogue.refusal_counts()
    counted: Counter[str] = Counter()
    for row in rows:
        if row.refusal is not None:
            counted[row.refusal.reason.value] += 1 + row.repeats
    return counted
