"""What the operator's indicators add to findings: claims like any other, checked like any other."""

from __future__ import annotations

from tripshark.errors import TripsharkError
from tripshark.model.finding import Findings
from tripshark.model.indicator import Indicators, claims_of, with_claims
from tripshark.ports import Analyst


async def watched(
    findings: Findings, indicators: Indicators, analyst: Analyst, path: str
) -> Findings:
    """The findings with what they show of these. What the analyst does not bear out is noted, never claimed."""
    claims, left = claims_of(findings, indicators)
    if not claims:
        return findings
    notes = [f"{left} more indicators match; `tripshark hunt` lists them"] if left else []
    try:
        checked = await analyst.check(path, findings, claims)
    except TripsharkError as problem:
        unproved = f"{len(claims)} indicators match, but could not be checked: {problem.message}"
        return with_claims(findings, (), unproved, *notes)
    return with_claims(findings, checked.findings, *notes)
