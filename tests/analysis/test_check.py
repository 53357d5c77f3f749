"""A report with one wrong finding is refused, whatever is wrong with it; a true one passes."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from tests.analysis.asking import BOUNDS, analyse, flow, question
from tests.analysis.crafted import C2, DNS, POD, PUSH, Capture, beacon, ip, tcp
from tripshark.analysis import check as checking
from tripshark.analysis import dissect as dissecting
from tripshark.analysis.check import accept, check, examine, settle
from tripshark.analysis.dissect import find_tshark
from tripshark.errors import Permanent
from tripshark.model.claim import NOT_CAPTURED
from tripshark.model.finding import Finding, Findings


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return beacon().write(tmp_path_factory.mktemp("check"))


@pytest.fixture(scope="module")
def true(path: Path) -> Findings:
    return asyncio.run(analyse(path, question(flow(C2, 4444))))


async def checked(path: Path, findings: Findings) -> Findings:
    evidence = os.open(path, os.O_RDONLY)
    try:
        return await check(
            evidence, findings, program=find_tshark(), policy=BOUNDS.policy, wall_s=60.0
        )
    finally:
        os.close(evidence)


def changed(findings: Findings, **changes: object) -> Findings:
    (claim,) = findings.findings
    return replace(findings, findings=(replace(claim, **changes),))  # type: ignore[arg-type]


async def test_what_the_analysis_says_holds(path: Path, true: Findings) -> None:
    """The analysis' own report passes the check that refuses others, and nothing in it changes."""
    unchecked = changed(true, checked=False)
    assert await checked(path, unchecked) == true
    assert true.findings[0].checked


ABOUT: Mapping[str, str] = {"address": POD, "peer": C2, "peer_name": "c2.evil.example"}
WRONG: list[tuple[dict[str, object], str]] = [
    ({"frames": (1, 3)}, "cites frames that do not show it"),
    ({"frames": (99,)}, "cites frames that do not show it"),
    ({"frames": ()}, "cites no frame"),
    ({"matches": 6}, "says 6 frames where its filter shows 5"),
    ({"matches": 4}, "says 4 frames where its filter shows 5"),
    ({"filter": "udp.stream == 0"}, "cites frames that do not show it"),
    ({"filter": "ip"}, "says 5 frames where its filter shows 7"),
    ({"filter": "tcp.port =="}, "tshark could not run its filters"),
    ({"filter": "no.such.field == 1"}, "tshark could not run its filters"),
    ({"filter": ""}, "no filter that could be run"),
    ({"filter": "tcp\n|| udp"}, "no filter that could be run"),
    ({"filter": "tcp || " * 400 + "tcp"}, "no filter that could be run"),
    ({"about": {**ABOUT, "peer": "203.0.113.67"}}, "cites frames that do not show it|names"),
    ({"about": {**ABOUT, "peer": "not an address"}}, "what is no address"),
    ({"about": {**ABOUT, "port": "4445"}}, "cites frames that do not show it"),
    ({"about": {**ABOUT, "port": "4444 || 1 == 1"}}, "port of what is none"),
    ({"about": {**ABOUT, "proto": "udp"}}, "cites frames that do not show it"),
    ({"about": {**ABOUT, "name": "bank.example"}}, "cites frames that do not show it"),
    ({"about": {**ABOUT, "domain": "bank.example"}}, "cites frames that do not show it"),
    ({"about": {**ABOUT, "bytes": "999999"}}, "says 999999 bytes where its filter shows"),
    ({"text": "It also spoke with 198.51.100.7."}, "names 198.51.100.7"),
    ({"text": "It also spoke with [fd00::7]:443."}, "names fd00::7"),
    ({"title": "Traffic to bank.example"}, "names bank.example"),
    ({"kind": NOT_CAPTURED, "text": "No packet of 198.51.100.7."}, "names 198.51.100.7"),
]


@pytest.mark.parametrize(("changes", "why"), WRONG)
async def test_one_wrong_finding_refuses_the_report(
    changes: dict[str, object], why: str, path: Path, true: Findings
) -> None:
    """Frames, count, filter, address, port, protocol, name, bytes or words: the report is refused and says which."""
    with pytest.raises(Permanent, match=f"the report was refused: .*({why})"):
        await checked(path, changed(true, **changes))


async def test_a_row_whose_filter_does_not_show_its_frame_refuses_as_well(
    path: Path, true: Findings
) -> None:
    """In a finished report every row's filter shows the row's frame; the culprit's table is named."""
    rows = tuple({**row, "filter": "tcp"} for row in true.dns)
    with pytest.raises(Permanent, match="a filter in dns does not show its frame"):
        await checked(path, replace(true, dns=rows))
    with pytest.raises(Permanent, match="no frame or no filter"):
        await checked(path, replace(true, dns=({"name": "x"},)))
    talks = tuple(replace(each, filter="icmp") for each in true.conversations)
    with pytest.raises(Permanent, match="a filter in conversations"):
        await checked(path, replace(true, conversations=talks))


async def test_the_analysis_refuses_its_own_wrong_claim(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bug in a claim costs all claims and says so, never the truth; what tshark saw is still told."""

    def lying(*asked: object) -> tuple[Finding, ...]:
        (claim,) = conclude(*asked)  # type: ignore[arg-type]
        return (replace(claim, frames=(1,)),)

    conclude = dissecting.conclude
    monkeypatch.setattr(dissecting, "conclude", lying)
    told = await analyse(path, question(flow(C2, 4444)))
    assert not told.findings
    assert told.conversations
    assert told.dns
    (why,) = told.notes
    assert why.startswith("the report was refused: F1 cites frames")


async def test_tsharks_count_is_taken_where_it_is_larger(path: Path, true: Findings) -> None:
    """A filter may meet more than the first pass counted; a row's filter that fails gives way to its frame."""
    fewer = changed(true, matches=3, about={**ABOUT, "bytes": "1"})
    fewer = replace(fewer, dns=tuple({**row, "filter": "tcp"} for row in true.dns))
    talks = tuple(replace(each, filter="icmp") for each in true.conversations)
    fewer = replace(fewer, conversations=talks)
    evidence = os.open(path, os.O_RDONLY)
    try:
        verdict = await examine(
            evidence, fewer, program=find_tshark(), policy=BOUNDS.policy, wall_s=60.0
        )
    finally:
        os.close(evidence)
    settled = accept(settle(fewer, verdict), verdict)
    assert settled.findings[0].matches == 5
    assert settled.findings[0].about["bytes"] == "287"
    assert {str(row["filter"]) for row in settled.dns} == {
        f"frame.number == {row['frame']}" for row in true.dns
    }
    assert "3 display filters did not show their frame" in settled.notes[-1]
    assert (await checked(path, settled)).findings == settled.findings


async def test_many_rows_are_checked_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows beyond one argument and one command line: all are checked, and one wrong among them is found."""
    monkeypatch.setattr(checking, "_MAX_TREE", 2_000)
    monkeypatch.setattr(checking, "_MAX_ARGUMENTS", 10_000)
    capture = Capture()
    for at in range(300):
        capture.udp(POD, 1000 + at, DNS, 9, b"x")
    path = capture.write(tmp_path)
    found = await analyse(path, question())
    assert len(found.conversations) == 300
    assert await checked(path, found) == found
    talks = list(found.conversations)
    talks[137] = replace(talks[137], filter="udp.stream == 7")
    with pytest.raises(Permanent, match="a filter in conversations"):
        await checked(path, replace(found, conversations=tuple(talks)))


async def test_a_tunnels_inside_does_not_refuse_the_report(tmp_path: Path) -> None:
    """A quoted or tunnelled packet of the same flow is met by the flow's filter: the count is tshark's then."""
    capture = beacon()
    packet = ip(POD, C2, 6, tcp(41_000, 4444, PUSH, b"hello"))
    capture.ip("10.0.0.254", POD, 1, b"\x03\x01\0\0\0\0\0\0" + packet[:28])
    capture.ip(POD, "10.9.9.9", 4, packet)
    found = await analyse(capture.write(tmp_path), question(flow(C2, 4444)))
    (claim,) = found.findings
    assert claim.checked
    assert claim.matches >= 5
    assert found.flow is not None
    assert found.flow.packets == 5
