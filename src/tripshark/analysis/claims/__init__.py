"""What the analysis claims about a capture: each claim cites frames and a filter, and says only what was seen.

Thresholds are constants beside the claim that needs them, each with its reason. A claim is made only where an
ordinary workload rarely looks like that: better none than a wrong one.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from tripshark.analysis.claims import contents, flows, names, places
from tripshark.analysis.claims.view import View
from tripshark.analysis.gather import Gatherer
from tripshark.model.claim import MAX_FINDINGS, Finding
from tripshark.model.files import CarriedFile

MAX_OF_A_KIND = 10
"""Claims of one kind: who must read twenty scans reads none. The rest is in the tables."""


def conclude(gatherer: Gatherer, files: Iterable[CarriedFile] = ()) -> tuple[Finding, ...]:
    """Most severe first, then in the order of time; numbered. None of them is checked yet."""
    view = View(gatherer)
    claims = [
        *flows.claims(view),
        *places.claims(view),
        *names.claims(view),
        *contents.claims(view, tuple(files)),
    ]
    return numbered(claims)


def numbered(claims: Iterable[Finding]) -> tuple[Finding, ...]:
    """Sorted, bounded and numbered."""
    ordered = sorted(claims, key=lambda each: (-each.severity.rank, each.first_ns, each.kind))
    kinds: dict[str, int] = {}
    kept: list[Finding] = []
    for each in ordered:
        kinds[each.kind] = kinds.get(each.kind, 0) + 1
        if kinds[each.kind] <= MAX_OF_A_KIND and len(kept) < MAX_FINDINGS:
            kept.append(replace(each, id=f"F{len(kept) + 1}"))
    return tuple(kept)
