"""What matches an indicator is claimed only once tshark has borne it out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from tests.analysis.asking import analyse
from tests.analysis.crafted import C2, beacon
from tests.analysis.test_service import ABOUT, serving
from tripshark.analysis.client import AnalystClient
from tripshark.model.indicator import Indicator, Indicators, Sought, Term
from tripshark.respond.watching import watched

LIST = Indicators(
    [Indicator.of([(Term(Sought.ADDRESS, C2),)], name=C2, source="c2.txt:1", note="at c2.example")]
)


async def test_a_match_is_checked_with_tsharks_counts(tmp_path: Path) -> None:
    """The claim's filter shows exactly as many frames as it says; a list without a match changes nothing."""
    path = beacon().write(tmp_path)
    findings = await analyse(path, ABOUT)
    async with serving(tmp_path) as (_, at):
        client = AnalystClient(at)
        found = await watched(findings, LIST, client, str(path))
        assert await watched(findings, Indicators(), client, str(path)) is findings
        wrong = replace(
            findings,
            endpoints=tuple({**each, "filter": "udp.port == 1"} for each in findings.endpoints),
        )
        refused = await watched(wrong, LIST, client, str(path))
    (claim,) = [each for each in found.findings if each.kind == "indicator"]
    (endpoint,) = [each for each in findings.endpoints if each["address"] == C2]
    assert claim.checked
    assert claim.matches == endpoint["packets_out"] + endpoint["packets_in"]  # type: ignore[operator]
    assert claim.frames == (endpoint["frame"],)
    assert not [each for each in refused.findings if each.kind == "indicator"]
    assert "1 indicators match, but could not be checked" in refused.notes[-1]
