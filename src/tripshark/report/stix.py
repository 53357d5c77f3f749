"""An incident as a STIX 2.1 bundle: what was observed, whose it is, which techniques were sighted, and a report over all.

Ids of observables are those that the standard prescribes (UUIDv5 over what identifies them), so that other tools' objects
of the same thing are the same; ids of everything else are made from incident and content in the form of UUIDv4, which the
standard wants for them. The same incident is always the same bundle. It claims no
indicators: being observed is no accusation.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from ipaddress import ip_address
from typing import Final
from urllib.parse import quote
from uuid import UUID, uuid5

from tripshark.model.alert import Json
from tripshark.model.attack import TACTICS, technique
from tripshark.model.evidence import canonical, rfc3339
from tripshark.model.finding import Conversation, Finding
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

_OBSERVABLES: Final = UUID("00abedb4-aa42-466c-9c01-fed23315a9b7")  # the standard's namespace
_OF_URLS: Final = "/%:@!$&'()*+,;=-._~"
_HEX: Final = re.compile(r"[0-9a-f]{32}|[0-9a-f]{64}", re.ASCII)
_PROTOCOLS: Final = {  # what is spoken, as the standard's examples call it
    "dns": "dns",
    "http": "http",
    "icmp": "icmp",
    "icmpv6": "icmp",  # `ipv6` stands before it
    "quic": "quic",
    "ssh": "ssh",
}

Object = dict[str, Json]
Row = Mapping[str, Json]


def write(cases: Sequence[Case]) -> bytes:
    """One bundle."""
    objects: dict[str, Object] = {}
    for case in cases:
        made = _Bundle(case)
        made.fill()
        for id, each in made.objects.items():
            objects.setdefault(id, each)
    whole = _uuid(" ".join(sorted(objects)))
    bundle: Object = {
        "type": "bundle",
        "id": f"bundle--{whole}",
        "objects": [*objects.values()],
    }
    return canonical(bundle, indent=1) + b"\n"


def observable_id(kind: str, identifies: Mapping[str, Json]) -> str:
    """The id that the standard prescribes for an observable with these contributing properties."""
    said = json.dumps(identifies, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return f"{kind}--{uuid5(_OBSERVABLES, said)}"


class _Bundle:
    """Objects by id, in the order in which they were first needed."""

    def __init__(self, case: Case) -> None:
        self.objects: dict[str, Object] = {}
        self._case = case
        self._made = _time(case.manifest.created_ns)
        self._tool = self._own(
            "identity",
            "tripshark",
            {
                "name": "Tripshark",
                "description": "Records packets before Falco's alerts.",
                "identity_class": "system",
            },
            by=False,
        )
        self._flows: dict[int, str] = {}  # first frame → network-traffic

    def fill(self) -> None:
        """Everything that can be told of the case."""
        case = self._case
        for pod in case.pods:
            self._own(
                "identity",
                f"pod {pod.title} {pod.uid}",
                {
                    "name": pod.title,
                    "identity_class": "system",
                    "roles": ["recorded"],
                    "description": ", ".join(
                        f"{name} {value}"
                        for name, value in (
                            ("owner", pod.owner),
                            ("node", pod.node),
                            ("uid", pod.uid),
                            ("service account", pod.service_account),
                            ("images", ", ".join(pod.images)),
                        )
                        if value
                    ),
                },
            )
        self._evidence()
        for alert in case.alerts:
            self._own(
                "note",
                f"alert {alert.id}",
                {
                    "abstract": f"Falco alert: {alert.priority} {alert.rule}",
                    "content": alert.verbatim[:30_000] or "(empty)",
                    "object_refs": [self._tool],
                },
            )
        if case.findings is not None:
            for each in case.conversations:
                self._flow(each)
            self._names()
            self._requests()
            self._files()
            for finding in case.findings.findings:
                self._finding(finding)
        self._report()

    # ---------------------------------------------------------------------------------- what was observed

    def _add(self, kind: str, identifies: Mapping[str, Json], more: Mapping[str, Json]) -> str:
        id = observable_id(kind, identifies)
        made = {"type": kind, "spec_version": "2.1", "id": id, **identifies, **more}
        self.objects.setdefault(
            id, {name: each for name, each in made.items() if each not in ("", [], None)}
        )
        return id

    def _address(self, address: str) -> str:
        kind = "ipv6-addr" if ip_address(address).version == 6 else "ipv4-addr"
        return self._add(kind, {"value": address}, {})

    def _domain(self, name: str, addresses: Iterable[str] = ()) -> str:
        refs: list[Json] = [self._address(each) for each in addresses if is_address(each)]
        id = self._add("domain-name", {"value": name.rstrip(".")}, {"resolves_to_refs": refs})
        known = self.objects[id]
        if refs:
            joined = dict.fromkeys(
                [*map(str, sequence(known.get("resolves_to_refs"))), *map(str, refs)]
            )
            known["resolves_to_refs"] = [*joined]
        return id

    def _evidence(self) -> None:
        refs: list[Json] = []
        for each in self._case.manifest.files:
            refs.append(
                self._add(
                    "file",
                    {"hashes": {"SHA-256": each.sha256}, "name": each.name},
                    {"size": each.bytes},
                )
            )
        if refs:
            self._own(
                "note",
                "evidence",
                {
                    "abstract": "Sealed evidence",
                    "content": f"Incident {self._case.id}; SHA-256 of its manifest: {self._case.manifest_sha256}.",
                    "object_refs": refs,
                },
            )

    def _flow(self, each: Conversation) -> None:
        flow = flow_of(each)
        if not (is_address(flow.client) and is_address(flow.server)):
            return
        identifies: Object = {
            "start": _time(each.first_ns),
            "end": _time(max(each.last_ns, each.first_ns)),
            "src_ref": self._address(flow.client),
            "dst_ref": self._address(flow.server),
            "protocols": self._protocols(each, flow.client),
        }
        if flow.client_port or flow.server_port:
            identifies |= {"src_port": flow.client_port, "dst_port": flow.server_port}
        id = self._add(
            "network-traffic",
            identifies,
            {
                "is_active": False,
                "src_byte_count": flow.bytes_sent,
                "dst_byte_count": flow.bytes_back,
                "src_packets": flow.packets_sent,
                "dst_packets": flow.packets_back,
            },
        )
        self._flows[each.frame] = id
        refs: list[Json] = [id, identifies["src_ref"], identifies["dst_ref"]]
        self._observed(f"flow {each.frame}", each.first_ns, each.last_ns, 1, refs)

    def _protocols(self, each: Conversation, address: str) -> list[Json]:
        """From the network layer up."""
        under = "ipv6" if ":" in address else "ipv4"
        transport = each.proto.split(" ")[0].lower()
        transport = _PROTOCOLS.get(transport, transport)
        app = each.app.lower().split("/")[0]
        spoken = "tls" if app.startswith(("tls", "ssl")) else _PROTOCOLS.get(app, "")
        return [*dict.fromkeys(filter(None, (under, transport, spoken)))]

    def _observed(
        self, what: str, first_ns: int, last_ns: int, count: int, refs: Sequence[Json]
    ) -> str:
        return self._own(
            "observed-data",
            what,
            {
                "first_observed": _time(first_ns),
                "last_observed": _time(max(first_ns, last_ns)),
                "number_observed": max(1, min(count, 999_999_999)),
                "object_refs": [*dict.fromkeys(map(str, refs))],
            },
        )

    def _names(self) -> None:
        findings = self._case.findings
        assert findings is not None  # noqa: S101  # `fill` has looked
        for row in findings.dns:
            name = text(row.get("name"))
            if not _is_domain(name):
                continue
            answers = [text(each) for each in sequence(row.get("answers"))[:50]]
            id = self._domain(name, answers)
            at = number(row.get("asked_ns")) or self._case.seen[0]
            refs = [id, *(self._address(each) for each in answers if is_address(each))]
            self._observed(
                f"dns {number(row.get('frame'))}", at, at, number(row.get("asked")), [*refs]
            )
        for row in findings.tls:
            name = text(row.get("name"))
            if _is_domain(name):
                at = number(row.get("first_ns"))
                self._observed(
                    f"tls {number(row.get('frame'))}",
                    at,
                    at,
                    number(row.get("count")),
                    [self._domain(name)],
                )

    def _requests(self) -> None:
        findings = self._case.findings
        assert findings is not None  # noqa: S101  # `fill` has looked
        for row in findings.http:
            host, path = text(row.get("host")), text(row.get("uri"))
            if not host or not (_is_domain(host_of(host)) or is_address(host_of(host))):
                continue
            refs: list[Json] = [self._add("url", {"value": _url(url_of(host, path))}, {})]
            if _is_domain(host_of(host)):
                refs.append(self._domain(host_of(host)))
            at = number(row.get("first_ns"))
            self._observed(
                f"http {number(row.get('frame'))}", at, at, number(row.get("count")), refs
            )

    def _files(self) -> None:
        findings = self._case.findings
        assert findings is not None  # noqa: S101  # `fill` has looked
        for row in findings.files:
            found = {"MD5": text(row.get("md5")), "SHA-256": text(row.get("sha256"))}
            hashes: Object = {
                name: value for name, value in found.items() if _HEX.fullmatch(value)
            }
            if not hashes:
                continue
            # the standard: of several hashes the first of MD5, SHA-1, SHA-256 identifies
            name = text(row.get("name"))
            first: Object = dict([next(iter(hashes.items()))])
            id = observable_id("file", {"hashes": first, **({"name": name} if name else {})})
            self.objects.setdefault(
                id,
                {
                    "type": "file",
                    "spec_version": "2.1",
                    "id": id,
                    "hashes": hashes,
                    **({"name": name} if name else {}),
                    "size": number(row.get("bytes")),
                },
            )
            at = number(row.get("first_ns"))
            self._observed(f"file {number(row.get('frame'))}", at, at, 1, [id])

    # ----------------------------------------------------------------------------------------- what it means

    def _own(self, kind: str, what: str, said: Mapping[str, Json], *, by: bool = True) -> str:
        """An object of ours; without `by` it is the same in every bundle."""
        scope = f"{self._case.id} {self._case.manifest_sha256} " if by else ""
        id = f"{kind}--{_uuid(f'{scope}{kind} {what}')}"
        made = self._made if by else "2026-01-01T00:00:00.000Z"
        whole: Object = {
            "type": kind,
            "spec_version": "2.1",
            "id": id,
            "created": made,
            "modified": made,
            **({"created_by_ref": self._tool} if by else {}),
            **{name: each for name, each in said.items() if each not in ("", [], None)},
        }
        self.objects.setdefault(id, whole)
        return id

    def _finding(self, each: Finding) -> None:
        refs = self._about(each)
        content = each.text or each.title
        cited = ", ".join(map(str, each.frames))
        if each.frames:
            content += f"\n\nPackets: {cited}\nDisplay filter: {each.filter}"
        self._own(
            "note",
            f"finding {each.id}",
            {
                "abstract": f"{each.id} ({each.severity}): {each.title}",
                "content": content,
                "labels": [each.kind, each.severity.value],
                "object_refs": [*refs] or [self._tool],
            },
        )
        if not each.frames or not refs:
            return
        at = each.first_ns or self._case.t0_ns
        observed = self._observed(f"finding {each.id}", at, each.last_ns, each.matches, [*refs])
        for id in each.techniques:
            self._own(
                "sighting",
                f"{each.id} {id}",
                {
                    "description": f"{each.id}: {each.title}",
                    "first_seen": _time(at),
                    "last_seen": _time(max(at, each.last_ns)),
                    "count": 1,
                    "sighting_of_ref": self._technique(id),
                    "observed_data_refs": [observed],
                    "where_sighted_refs": [self._tool],
                },
            )

    def _about(self, each: Finding) -> list[str]:
        """The observables a finding speaks of."""
        about = each.about
        refs = [
            self._address(value)
            for name in ("address", "peer", "client", "server")
            if is_address(value := about.get(name, ""))
        ]
        if _is_domain(about.get("name", "")):
            refs.append(self._domain(about["name"]))
        refs += [self._flows[frame] for frame in each.frames if frame in self._flows]
        return list(dict.fromkeys(refs))

    def _technique(self, id: str) -> str:
        known = technique(id)
        return self._own(
            "attack-pattern",
            f"ATT&CK {id}",
            {
                "name": known.name or id,
                "external_references": [
                    {
                        "source_name": "mitre-attack",
                        "external_id": id,
                    }
                ],
                "kill_chain_phases": [
                    {
                        "kill_chain_name": "mitre-attack",
                        "phase_name": TACTICS[tactic].lower().replace(" ", "-"),
                    }
                    for tactic in known.tactics
                ],
            },
            by=False,
        )

    def _report(self) -> None:
        case = self._case
        summary = case.findings.summary if case.findings is not None else ""
        self._own(
            "report",
            "report",
            {
                "name": f"{case.title}: incident {case.id}",
                "description": summary or case.problem or "No packets were analysed.",
                "report_types": ["observed-data"],
                "published": self._made,
                "labels": [f"severity-{case.severity}", f"ledger-{case.manifest.ledger.word}"],
                "object_refs": [*self.objects],
            },
        )


def _uuid(text: str) -> UUID:
    """The same text, the same UUID, in the form of version 4."""
    return UUID(bytes=hashlib.sha256(f"tripshark {text}".encode()).digest()[:16], version=4)


def _url(said: str) -> str:
    """As a URL may be written; the query, which findings do not keep, is left out."""
    there = re.sub("%(?![0-9A-Fa-f]{2})", "%25", said.partition("?")[0])
    return quote(there, safe=_OF_URLS)


def _is_domain(name: str) -> bool:
    """A name of DNS as it may stand in a domain-name."""
    labels = name.rstrip(".").split(".")
    return (
        0 < len(name) <= 253
        and not is_address(name)
        and all(
            re.fullmatch(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?", each)
            for each in labels
        )
    )


def _time(ns: int) -> str:
    """RFC 3339 to the microsecond, as the standard wants it."""
    said = rfc3339(max(ns, 0))
    return f"{said[:26]}Z" if "T" in said else "1970-01-01T00:00:00.000Z"
