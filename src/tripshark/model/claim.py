"""One thing the analysis claims, with the frames that show it and the display filter that shows them again."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from tripshark.errors import BadInput
from tripshark.model.alert import Json
from tripshark.model.reading import Reader

MAX_FINDINGS = 200
MAX_FRAMES = 20  # cited by one finding
MAX_FILTER = 2_000
MAX_CLAIM = 600  # characters of a finding's text
_MAX_ABOUT = 40
_TECHNIQUE = re.compile(r"T\d{4}(?:\.\d{3})?", re.ASCII)
_ID = re.compile(r"F\d{1,4}", re.ASCII)

NOT_CAPTURED: Final = "not-captured"
"""The only kind that cites no frame: it is about packets that are not there."""

KINDS: Final[Mapping[str, str]] = {
    "alert-flow": "the flow that the alert names, as the packets show it",
    "beacon": "connections to one place at regular intervals",
    "exfiltration": "much more sent to one place outside than received from it",
    "scan": "many ports of one host, or one port of many hosts, tried without success",
    "cloud-metadata": "packets to or from the cloud's metadata service",
    "kubernetes-api": "packets to or from the Kubernetes API",
    "credentials": "a password or token that was sent in clear text",
    "dns-failures": "many names that do not exist or could not be resolved",
    "dns-entropy": "many long random-looking names below one domain",
    "tls-weak": "a TLS or SSL version that is no longer safe was agreed on",
    "tls-no-name": "TLS to an address outside without a server name",
    "http-request": "an HTTP request whose client, method or target stands out",
    "file": "a program or script that was transferred",
    "ssh": "an SSH connection",
    "icmp": "more, or larger, ICMP echo than ping sends",
    "expert": "what tshark itself calls an error",
    "retransmissions": "many segments that had to be sent again",
    "indicator": "something on the operator's list of indicators",
    NOT_CAPTURED: "what the ledger knows to be missing",
}


class Severity(StrEnum):
    """How soon somebody should look, least first."""

    INFO = "info"
    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    CRITICAL = "critical"

    @property
    def rank(self) -> int:
        """0 (info) to 4 (critical), for sorting."""
        return list(Severity).index(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What the analysis claims. `checked` only after the checker has seen it hold (see `analysis.check`)."""

    id: str  # "F1", "F2", …
    kind: str  # one of `KINDS`
    severity: Severity
    title: str
    text: str  # one or two sentences: what was seen
    frames: tuple[int, ...] = ()  # at most `MAX_FRAMES`, ascending, as Wireshark numbers them
    filter: str = ""  # a display filter that shows exactly the frames meant
    matches: int = 0  # how many frames that filter shows in the whole file
    first_ns: int = 0
    last_ns: int = 0
    techniques: tuple[str, ...] = ()  # of MITRE ATT&CK: "T1071.004"
    about: Mapping[str, str] = field(default_factory=dict)  # address, peer, name, port, proto, …
    checked: bool = False

    def as_json(self) -> dict[str, Json]:
        """Plain JSON; `from_json` reads it back unchanged."""
        return {
            "id": self.id,
            "kind": self.kind,
            "severity": self.severity.value,
            "title": self.title,
            "text": self.text,
            "frames": list(self.frames),
            "filter": self.filter,
            "matches": self.matches,
            "first_ns": self.first_ns,
            "last_ns": self.last_ns,
            "techniques": list(self.techniques),
            "about": dict(self.about),
            "checked": self.checked,
        }

    @classmethod
    def from_json(cls, document: Json) -> Finding:
        """Raises `BadInput`, also for a claim that cites no frame or says a kind or technique nobody knows."""
        of = Reader(document, "finding")
        id, kind, severity = of.text("id"), of.text("kind"), of.text("severity")
        frames, techniques = of.numbers("frames"), of.texts("techniques")
        if _ID.fullmatch(id) is None:
            raise BadInput("expected F and a number", where="finding.id")
        if kind not in KINDS:
            raise BadInput("not a kind of finding", where="finding.kind")
        if severity not in list(Severity):
            raise BadInput("not a severity", where="finding.severity")
        if frames != tuple(sorted({*frames}))[:MAX_FRAMES] or (not frames) != (
            kind == NOT_CAPTURED
        ):
            raise BadInput(f"expected 1 to {MAX_FRAMES} frames, ascending", where="finding.frames")
        if not all(map(_TECHNIQUE.fullmatch, techniques)):
            raise BadInput("expected names like T1071.004", where="finding.techniques")
        return cls(
            id=id,
            kind=kind,
            severity=Severity(severity),
            title=of.text("title"),
            text=of.text("text", MAX_CLAIM),
            frames=frames,
            filter=of.text("filter", MAX_FILTER),
            matches=of.number("matches"),
            first_ns=of.number("first_ns"),
            last_ns=of.number("last_ns"),
            techniques=techniques,
            about=of.pairs("about", _MAX_ABOUT),
            checked=of.flag("checked"),
        )
