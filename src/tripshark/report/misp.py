"""An incident as one MISP event, ready for *Add event from JSON* or the REST API: objects of MISP's own templates.

Attributes are marked for detection (`to_ids`) only where a finding of medium severity or worse names them and they are
not the target's own; everything else is context. The event is not published, and for the importing organisation alone.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Final
from uuid import UUID

from tripshark.model.alert import Json
from tripshark.model.attack import technique
from tripshark.model.evidence import canonical, rfc3339
from tripshark.model.finding import Conversation, Severity
from tripshark.report import words
from tripshark.report.case import (
    Case,
    flow_of,
    host_of,
    is_address,
    number,
    sequence,
    text,
    url_of,
)

_THREAT: Final = {  # MISP's threat levels: 1 is high
    Severity.CRITICAL: "1",
    Severity.HIGH: "1",
    Severity.MEDIUM: "2",
    Severity.LOW: "3",
    Severity.INFO: "4",
}
_TEMPLATES: Final = {  # name: (uuid, version, meta-category)
    "network-connection": ("af16764b-f8e5-4603-9de1-de34d272f80b", "7", "network"),
    "dns-record": ("f023c8f0-81ab-41f3-9f5d-fa597a34a9b9", "2", "network"),
    "http-request": ("b4a8d163-8110-4239-bfcf-e08f3a9fdf7b", "4", "network"),
    "file": ("688c46fb-5edb-40a3-8273-1af7923e2215", "25", "file"),
    "ja3": ("09b45449-5d6e-492c-a68a-cb2e188cbfac", "4", "network"),
    "ja4-plus": ("2c15c75e-e7db-4b62-8d17-633e7571818f", "2", "network"),
    "forensic-evidence": ("fe44c648-63ef-43fc-b3de-af71a2e023e4", "2", "misc"),
}
_CATEGORIES: Final = {  # attribute type: category
    "filename": "Payload delivery",
    "md5": "Payload delivery",
    "sha256": "Payload delivery",
    "size-in-bytes": "Other",
    "counter": "Other",
    "datetime": "Other",
    "port": "Network activity",
    "text": "Other",
}
_DETECTS: Final = frozenset(
    {"ip-dst", "domain", "hostname", "url", "md5", "sha256", "ja3-fingerprint-md5"}
)
_RECORDS: Final = {
    "A": ("a-record", "ip-dst"),
    "AAAA": ("aaaa-record", "ip-dst"),
    "CNAME": ("cname-record", "domain"),
}
_HEX: Final = re.compile(r"[0-9a-f]{32}|[0-9a-f]{64}", re.ASCII)

Object = dict[str, Json]
Told = tuple[str, str, Json]  # relation, type, value


def write(cases: Sequence[Case]) -> bytes:
    """`{"Event": …}` of all parts together."""
    first = cases[0]
    event = _Event(first)
    for case in cases:
        _fill(event, case)
    worst = max((each.severity for each in cases), key=lambda each: each.rank)
    made: Object = {
        "uuid": event.uuid("event"),
        "info": f"Tripshark: {first.title}, incident {first.id}",
        "date": words.day(first.t0_ns),
        "timestamp": str(first.manifest.created_ns // 1_000_000_000),
        "threat_level_id": _THREAT[worst],
        "analysis": "1" if any(each.findings for each in cases) else "0",
        "distribution": "0",
        "published": False,
        "Attribute": event.attributes,
        "Object": event.objects,
        "Tag": _tags(cases),
    }
    return canonical({"Event": made}, indent=1) + b"\n"


def _tags(cases: Iterable[Case]) -> list[Json]:
    names = ["tlp:amber", 'workflow:state="incomplete"']
    ids = dict.fromkeys(id for each in cases for id in each.techniques)
    for id in ids:
        known = technique(id)
        name = known.name.rpartition(": ")[2]
        if name:
            names.append(f'misp-galaxy:mitre-attack-pattern="{name} - {id}"')
    return [{"name": each} for each in names]


class _Event:
    """Attributes and objects as they are added, each with an id of its own."""

    def __init__(self, case: Case) -> None:
        self._of = case
        self._at = str(case.manifest.created_ns // 1_000_000_000)
        self.attributes: list[Json] = []
        self.objects: list[Json] = []

    def uuid(self, what: str) -> str:
        seed = f"misp {self._of.id} {self._of.manifest_sha256} {what}"
        return str(UUID(bytes=hashlib.sha256(seed.encode()).digest()[:16], version=4))

    def attribute(self, type: str, category: str, value: str, comment: str) -> None:
        if not value:
            return
        self.attributes.append(
            {
                "uuid": self.uuid(f"attribute {len(self.attributes)} {type} {value}"),
                "type": type,
                "category": category,
                "value": value,
                "comment": comment,
                "to_ids": False,
                "distribution": "5",
                "timestamp": self._at,
            }
        )

    def object(
        self, name: str, told: Iterable[Told], comment: str, accused: frozenset[str]
    ) -> None:
        """One object of a template; values that are not there are left out."""
        template, version, meta = _TEMPLATES[name]
        what = f"object {len(self.objects)} {name}"
        attributes: list[Json] = [
            {
                "uuid": self.uuid(f"{what} {at} {relation}"),
                "object_relation": relation,
                "type": type,
                "category": _CATEGORIES.get(type, "Network activity"),
                "value": str(value),
                "to_ids": type in _DETECTS and str(value) in accused,
                "disable_correlation": type in ("counter", "datetime", "size-in-bytes", "port"),
                "distribution": "5",
                "timestamp": self._at,
            }
            for at, (relation, type, value) in enumerate(told)
            if value not in (None, "", 0)
        ]
        if attributes:
            self.objects.append(
                {
                    "uuid": self.uuid(what),
                    "name": name,
                    "meta-category": meta,
                    "template_uuid": template,
                    "template_version": version,
                    "description": "",
                    "comment": comment,
                    "distribution": "5",
                    "timestamp": self._at,
                    "Attribute": attributes,
                }
            )


def _fill(event: _Event, case: Case) -> None:
    accused = _accused(case)
    for file in case.manifest.files:
        event.object(
            "forensic-evidence",
            (
                ("case-number", "text", case.id),
                ("evidence-number", "text", file.sha256),
                ("name", "text", file.name),
                ("type", "text", "Network"),
                (
                    "additional-comments",
                    "text",
                    f"SHA-256 of the manifest {case.manifest_sha256}; ledger: {case.manifest.ledger.word}",
                ),
            ),
            f"sealed packets of {case.title}",
            frozenset(),
        )
    for alert in case.alerts:
        said = f"{alert.priority} {alert.rule}"
        event.attribute("comment", "Other", said, f"Falco alert at {rfc3339(alert.time_ns)}")
    if case.findings is None:
        return
    for finding in case.findings.findings:
        cited = f"; packets {', '.join(map(str, finding.frames))}" if finding.frames else ""
        event.attribute(
            "comment",
            "Internal reference",
            f"{finding.id} ({finding.severity}): {finding.title}",
            f"{finding.text}{cited}",
        )
    for each in case.conversations:
        event.object("network-connection", _connection(case, each), each.filter, accused)
    _tables(event, case, accused)


def _accused(case: Case) -> frozenset[str]:
    """What findings of medium severity or worse speak of, without the target's own addresses."""
    found: set[str] = set()
    if case.findings is not None:
        for each in case.findings.findings:
            if each.severity.rank >= Severity.MEDIUM.rank and each.frames:
                found |= {
                    value
                    for name, value in each.about.items()
                    if name in ("peer", "name", "sha256", "md5", "ja3", "url")
                }
    return frozenset(found - case.addresses)


def _connection(case: Case, each: Conversation) -> Iterable[Told]:
    flow = flow_of(each)
    under = "ICMP" if each.proto.startswith("icmp") else "IP"
    yield "ip-src", "ip-src", flow.client if is_address(flow.client) else ""
    yield "ip-dst", "ip-dst", flow.server if is_address(flow.server) else ""
    yield "src-port", "port", flow.client_port
    yield "dst-port", "port", flow.server_port
    yield "layer3-protocol", "text", under
    yield "layer4-protocol", "text", each.proto.split(" ")[0].upper() if under == "IP" else ""
    yield "layer7-protocol", "text", each.app
    yield "community-id", "community-id", each.community_id
    yield "first-packet-seen", "datetime", _datetime(each.first_ns)
    yield "last-packet-seen", "datetime", _datetime(each.last_ns)
    yield "src-bytes-count", "size-in-bytes", flow.bytes_sent
    yield "dst-bytes-count", "size-in-bytes", flow.bytes_back
    yield "src-packets-count", "counter", flow.packets_sent
    yield "dst-packets-count", "counter", flow.packets_back
    name = case.name_of(flow.server)
    yield "hostname-dst", "hostname", name if "/" not in name else ""


def _datetime(ns: int) -> str:
    said = rfc3339(ns)
    return f"{said[:26]}+00:00" if ns > 0 and "T" in said else ""


def _tables(event: _Event, case: Case, accused: frozenset[str]) -> None:
    findings = case.findings
    assert findings is not None  # noqa: S101  # the caller has looked
    for row in findings.dns:
        relation, kind = _RECORDS.get(text(row.get("type")), ("", ""))
        answers: list[Told] = [
            (relation if is_address(answer) == (kind == "ip-dst") else "", kind, answer)
            for answer in map(text, sequence(row.get("answers"))[:50])
        ]
        answers = [each for each in answers if each[0] and each[2]]
        name = text(row.get("name"))
        if answers and name:
            told: list[Told] = [("queried-domain", "domain", name), *answers]
            event.object("dns-record", told, text(row.get("filter"), 2000), accused)
        else:
            event.attribute(
                "domain", "Network activity", name, "asked for, no address was answered"
            )
    for row in findings.tls:
        client, server, name = (text(row.get(each)) for each in ("client", "server", "name"))
        where = f"TLS to {name or server}"
        event.attribute("hostname", "Network activity", name, "server name in TLS")
        if _HEX.fullmatch(text(row.get("ja3"))):
            event.object(
                "ja3",
                (
                    ("ja3-fingerprint-md5", "ja3-fingerprint-md5", text(row.get("ja3"))),
                    ("ip-src", "ip-src", client if is_address(client) else ""),
                    ("ip-dst", "ip-dst", server if is_address(server) else ""),
                    ("first-seen", "datetime", _datetime(number(row.get("first_ns")))),
                ),
                where,
                accused,
            )
        if ja4 := text(row.get("ja4")):
            event.object(
                "ja4-plus",
                (
                    ("ja4-fingerprint", "text", ja4),
                    ("ja4-type", "text", "JA4"),
                    ("ip-src", "ip-src", client if is_address(client) else ""),
                ),
                where,
                accused,
            )
    for row in findings.http:
        _request(event, row, accused)
    for row in findings.files:
        sha256, md5 = text(row.get("sha256")), text(row.get("md5"))
        event.object(
            "file",
            (
                ("filename", "filename", text(row.get("name"))),
                ("sha256", "sha256", sha256 if _HEX.fullmatch(sha256) else ""),
                ("md5", "md5", md5 if _HEX.fullmatch(md5) else ""),
                ("size-in-bytes", "size-in-bytes", number(row.get("bytes"))),
                ("text", "text", text(row.get("type"))),
            ),
            f"transferred by {text(row.get('source'))}",
            accused,
        )


def _request(event: _Event, row: Mapping[str, Json], accused: frozenset[str]) -> None:
    host, path = text(row.get("host")), text(row.get("uri"))
    client, server = text(row.get("client")), text(row.get("server"))
    if not host and not path:
        return
    event.object(
        "http-request",
        (
            ("method", "http-method", text(row.get("method"))),
            ("host", "hostname", host_of(host)),
            ("uri", "uri", path),
            ("url", "url", url_of(host, path)),
            ("user-agent", "user-agent", text(row.get("user_agent"))),
            ("ip-src", "ip-src", client if is_address(client) else ""),
            ("ip-dst", "ip-dst", server if is_address(server) else ""),
        ),
        text(row.get("filter"), 2000),
        accused,
    )
