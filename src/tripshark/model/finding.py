"""What the analysis concluded: who talked to whom, what it claims, and whether the alert's flow is there.

Everything here has a JSON form (`as_json`, `from_json`), because question and findings travel between the
responder and the analyst. Findings come from a process that has dissected hostile packets: `from_json` believes
no type, makes all text printable and keeps to the bounds (see `model.reading`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from tripshark.model.activity import Activity
from tripshark.model.alert import Json
from tripshark.model.claim import KINDS, MAX_FINDINGS, Finding, Severity
from tripshark.model.conversation import Conversation
from tripshark.model.question import AlertLine, Question
from tripshark.model.reading import MAX_ROWS, Reader, tidy_row

__all__ = [
    "KINDS",
    "MAX_ROWS",
    "MAX_SUMMARY",
    "TABLES",
    "Activity",
    "AlertLine",
    "Conversation",
    "Finding",
    "Findings",
    "Question",
    "Severity",
]

MAX_SUMMARY = 2_000
TABLES: Final = (
    "endpoints",
    "dns",
    "tls",
    "http",
    "ssh",
    "icmp",
    "credentials",
    "files",
    "experts",
)
"""The lists of plain rows; every row has a `frame` and a display `filter` that shows it among others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """One tshark pass over one evidence file."""

    manifest_sha256: str
    tool: str  # "TShark 4.0.17"
    sandbox: tuple[str, ...]  # what actually held: "uid", "landlock", "seccomp", …
    packets: int
    first_ns: int
    last_ns: int
    conversations: tuple[Conversation, ...] = ()  # in the order of their first packets
    findings: tuple[Finding, ...] = ()  # what the analysis claims, most severe first
    endpoints: tuple[Mapping[str, Json], ...] = ()
    """{address, name, ours, packets_out, packets_in, bytes_out, bytes_in, frame, filter}; *out* is what the
    address sent."""
    dns: tuple[Mapping[str, Json], ...] = ()
    """A row for each name, type and asker.

    {name, type, answers, asked_ns, frame, asked, answered, rcode, client, server, proven, entropy, filter};
    `proven`: an answer to a question that was asked in this capture; `asked_ns` is 0 where no question was
    seen; `entropy` is Shannon's, in bits per character of the longest label."""
    tls: tuple[Mapping[str, Json], ...] = ()
    """{name, client, server, port, proto, alpn, version, cipher, ja3, ja4, count, first_ns, frame, filter};
    `name` is "" where the client gave none; `proto` is "tcp" or "udp" (QUIC); `version` and `cipher` are what
    the server chose, "" where its answer was not seen."""
    http: tuple[Mapping[str, Json], ...] = ()
    """{host, method, uri, status, user_agent, client, server, port, count, first_ns, frame, filter}; the query
    string is left out; `status` is 0 where no answer was seen."""
    ssh: tuple[Mapping[str, Json], ...] = ()  # {banner, address, first_ns, frame, filter}
    icmp: tuple[Mapping[str, Json], ...] = ()
    """{type, code, client, server, count, bytes, first_ns, frame, filter}"""
    credentials: tuple[Mapping[str, Json], ...] = ()
    """{proto, user, secret, client, server, port, first_ns, frame, filter}; `secret` is masked: "6 characters"."""
    files: tuple[Mapping[str, Json], ...] = ()
    """{name, source, type, sha256, md5, bytes, complete, client, server, first_ns, frame, filter}; `type` by
    the first bytes, never by the name; `client` received or sent it, `server` is the other side."""
    experts: tuple[Mapping[str, Json], ...] = ()
    """{severity, group, summary, proto, count, frame, filter}: tshark's expert information."""
    activity: Activity = field(default_factory=Activity)
    names: Mapping[str, str] = field(
        default_factory=dict
    )  # address → DNS name the capture itself proves
    flow_captured: bool | None = None  # None: the alerts name no flow
    flow: Conversation | None = None  # the conversation that is the alert's flow
    seconds_before_alert: float = 0.0  # from the first packet to T0; below zero: it came after
    other_packets: int = 0  # without an IP header: ARP, LLDP, …
    truncated: bool = False  # lists were cut at their bound
    complete: bool = True  # False: tshark did not get to the end of the file, `notes` says why
    notes: tuple[str, ...] = ()  # what the reader should know about this analysis
    summary: str = ""  # the one paragraph

    def as_json(self) -> dict[str, Json]:
        """The document `findings.json`; `from_json` reads it back."""
        return {
            "manifest_sha256": self.manifest_sha256,
            "tool": self.tool,
            "sandbox": list(self.sandbox),
            "packets": self.packets,
            "other_packets": self.other_packets,
            "first_ns": self.first_ns,
            "last_ns": self.last_ns,
            "flow_captured": self.flow_captured,
            "flow": self.flow.as_json() if self.flow else None,
            "seconds_before_alert": self.seconds_before_alert,
            "summary": self.summary,
            "complete": self.complete,
            "truncated": self.truncated,
            "notes": list(self.notes),
            "findings": [each.as_json() for each in self.findings],
            "conversations": [each.as_json() for each in self.conversations],
            **{name: [dict(each) for each in getattr(self, name)] for name in TABLES},
            "activity": self.activity.as_json(),
            "names": dict(self.names),
        }

    @classmethod
    def from_json(cls, document: Json) -> Findings:
        """Read what the analyst said, believing no type and no length. Raises `BadInput`."""
        of = Reader(document, "findings")
        flow, activity = of.value("flow"), of.value("activity")
        return cls(
            manifest_sha256=of.text("manifest_sha256"),
            tool=of.text("tool"),
            sandbox=of.texts("sandbox"),
            packets=of.number("packets"),
            other_packets=of.number("other_packets"),
            first_ns=of.number("first_ns"),
            last_ns=of.number("last_ns"),
            flow_captured=None if of.value("flow_captured") is None else of.flag("flow_captured"),
            flow=None if flow is None else Conversation.from_json(flow),
            seconds_before_alert=of.seconds("seconds_before_alert"),
            summary=of.text("summary", MAX_SUMMARY),
            complete=of.flag("complete"),
            truncated=of.flag("truncated"),
            notes=of.texts("notes"),
            findings=tuple(Finding.from_json(each) for each in of.rows("findings")[:MAX_FINDINGS]),
            conversations=tuple(Conversation.from_json(each) for each in of.rows("conversations")),
            endpoints=tuple(tidy_row(each) for each in of.rows("endpoints")),
            dns=tuple(tidy_row(each) for each in of.rows("dns")),
            tls=tuple(tidy_row(each) for each in of.rows("tls")),
            http=tuple(tidy_row(each) for each in of.rows("http")),
            ssh=tuple(tidy_row(each) for each in of.rows("ssh")),
            icmp=tuple(tidy_row(each) for each in of.rows("icmp")),
            credentials=tuple(tidy_row(each) for each in of.rows("credentials")),
            files=tuple(tidy_row(each) for each in of.rows("files")),
            experts=tuple(tidy_row(each) for each in of.rows("experts")),
            activity=Activity() if activity is None else Activity.from_json(activity),
            names=of.pairs("names", MAX_ROWS),
        )
