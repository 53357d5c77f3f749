"""Fuzz target: what tshark writes, line by line, and the findings made of it."""

from __future__ import annotations

import json
from dataclasses import replace

from tripshark.analysis.claims import conclude
from tripshark.analysis.gather import Gatherer
from tripshark.analysis.prose import summary
from tripshark.errors import BadInput
from tripshark.formats import tshark
from tripshark.model.finding import Findings, Question

_QUESTION = Question(t0_ns=10**18, target="a/b", addresses=("10.0.0.1",), connections=())


def target(data: bytes) -> None:
    """Parse or `BadInput`; whatever parses makes claims and findings that are printable and survive their JSON form."""
    gatherer = Gatherer(_QUESTION)
    for line in data.split(b"\n"):
        try:
            frame = tshark.decode(line)
        except BadInput:
            continue
        if frame is not None:
            gatherer.add(frame)
    findings = replace(gatherer.findings(tool="", sandbox=()), findings=conclude(gatherer))
    assert summary(findings, _QUESTION).isprintable()
    document = json.loads(json.dumps(findings.as_json()))
    assert Findings.from_json(document) == findings
    tshark.complaint(data)
    try:
        tshark.version(data)
    except BadInput:
        return
