"""An incident as OCSF 1.4 events, one JSON object per line: flows, DNS, HTTP, and findings as detections.

Classes: Network Activity (4001), HTTP Activity (4002), DNS Activity (4003), Detection Finding (2004). An alert of Falco
and a finding are both detections. Times are milliseconds since 1970; ids are made from the content.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from tripshark.model.alert import Json
from tripshark.model.attack import TACTICS, technique, techniques_in
from tripshark.model.evidence import canonical
from tripshark.model.finding import KINDS, Conversation, Finding, Severity
from tripshark.report.case import (
    AlertTold,
    Case,
    Flow,
    flow_of,
    group,
    host_of,
    is_address,
    number,
    port_of,
    sequence,
    text,
    url_of,
)

VERSION: Final = "1.4.0"
_SEVERITIES: Final = {
    Severity.INFO: (1, "Informational"),
    Severity.LOW: (2, "Low"),
    Severity.MEDIUM: (3, "Medium"),
    Severity.HIGH: (4, "High"),
    Severity.CRITICAL: (5, "Critical"),
}
_PROTOCOLS: Final = {"icmp": 1, "tcp": 6, "udp": 17, "gre": 47, "icmpv6": 58, "sctp": 132}
_METHODS: Final = {
    "CONNECT": 1,
    "DELETE": 2,
    "GET": 3,
    "HEAD": 4,
    "OPTIONS": 5,
    "POST": 6,
    "PUT": 7,
    "TRACE": 8,
}
_RCODES: Final = {
    "no error": (0, "NoError"),
    "format error": (1, "FormError"),
    "server failure": (2, "ServError"),
    "no such name": (3, "NXDomain"),
    "not implemented": (4, "NotImp"),
    "refused": (5, "Refused"),
}
_CLASSES: Final = {
    2004: ("Detection Finding", 2, "Findings"),
    4001: ("Network Activity", 4, "Network Activity"),
    4002: ("HTTP Activity", 4, "Network Activity"),
    4003: ("DNS Activity", 4, "Network Activity"),
}
_HEX: Final = re.compile(r"[0-9a-f]{32}", re.ASCII)
_IP, _HOST, _HASH, _URL = 2, 1, 8, 6  # kinds of observables

Event = dict[str, Json]
Row = Mapping[str, Json]


def write(cases: Sequence[Case]) -> bytes:
    """Every event on a line of its own, in the order of time."""
    lines = [
        (number(each["time"]), canonical(each) + b"\n") for case in cases for each in events(case)
    ]
    return b"".join(line for _, line in sorted(lines))


def events(case: Case) -> Iterator[Event]:
    """Each with an id of its own."""
    for made in _events(case):
        whole = _tidy(made)
        digest = hashlib.sha256(canonical(whole)).hexdigest()
        whole["metadata"] = {**group(whole["metadata"]), "uid": digest[:32]}
        yield whole


def _events(case: Case) -> Iterator[Event]:
    yield from (_alert(case, each) for each in case.alerts)
    if case.findings is None:
        return
    yield from (_finding(case, each) for each in case.findings.findings)
    yield from (_flow(case, each) for each in case.conversations)
    yield from (_dns(case, row) for row in case.findings.dns)
    yield from (_tls(case, row) for row in case.findings.tls)
    yield from (_http(case, row) for row in case.findings.http)


def _base(
    case: Case,
    of_class: int,
    activity: tuple[int, str],
    at_ns: int,
    severity: Severity = Severity.INFO,
) -> Event:
    name, category, category_name = _CLASSES[of_class]
    level, word = _SEVERITIES[severity]
    tools = group(group(case.manifest.details.get("how")).get("tools"))
    return {
        "activity_id": activity[0],
        "activity_name": activity[1],
        "category_uid": category,
        "category_name": category_name,
        "class_uid": of_class,
        "class_name": name,
        "type_uid": of_class * 100 + activity[0],
        "type_name": f"{name}: {activity[1]}",
        "severity_id": level,
        "severity": word,
        "time": at_ns // 1_000_000,
        "timezone_offset": 0,
        "metadata": {
            "version": VERSION,
            "product": {
                "name": "Tripshark",
                "vendor_name": "Tripshark",
                "version": text(tools.get("tripshark")),
            },
            "correlation_uid": case.id,
            "original_time": str(at_ns),
            "labels": [f"manifest_sha256:{case.manifest_sha256}"],
        },
    }


# ------------------------------------------------------------------------------------------ detections


def _alert(case: Case, each: AlertTold) -> Event:
    base = _base(case, 2004, (1, "Create"), each.time_ns, each.severity)
    return {
        **base,
        "message": f"{each.priority}: {each.rule}",
        "is_alert": True,
        "status_id": 1,
        "status": "New",
        "finding_info": {
            "uid": f"{case.id}/{each.id}",
            "title": each.rule or "alert",
            "desc": f"Falco alert {each.rule}, {each.priority}",
            "types": ["falco-alert"],
            "analytic": {"type_id": 1, "type": "Rule", "name": each.rule or "alert"},
            "attacks": _attacks(techniques_in(each.tags)),
            "first_seen_time": each.time_ns // 1_000_000,
            "created_time": each.received_ns // 1_000_000,
            "data_sources": ["falco"],
        },
        "count": 1 + each.repeats,
        "raw_data": each.verbatim[:60_000],
        "resources": _resources(case),
    }


def _finding(case: Case, each: Finding) -> Event:
    at_ns = each.first_ns or case.t0_ns
    base = _base(case, 2004, (1, "Create"), at_ns, each.severity)
    about = each.about
    address, peer = about.get("address", ""), about.get("peer", "")
    evidence: dict[str, Json] = {
        "src_endpoint": _endpoint(case, address, 0),
        "dst_endpoint": _endpoint(case, peer, port_of(about.get("port", ""))),
        "data": {
            "frames": list(each.frames),
            "filter": each.filter,
            "matches": each.matches,
            "checked": each.checked,
            "about": dict(about),
        },
    }
    return {
        **base,
        "message": f"{each.title}. {each.text}",
        "is_alert": bool(each.frames),
        "status_id": 1,
        "status": "New",
        "confidence_id": 3 if each.checked else 0,
        "confidence": "High" if each.checked else "Unknown",
        "finding_info": {
            "uid": f"{case.id}/{each.id}",
            "title": each.title,
            "desc": each.text,
            "types": [each.kind],
            "analytic": {
                "type_id": 2,
                "type": "Behavioral",
                "name": each.kind,
                "desc": KINDS.get(each.kind, ""),
            },
            "attacks": _attacks(each.techniques),
            "first_seen_time": at_ns // 1_000_000,
            "last_seen_time": max(at_ns, each.last_ns) // 1_000_000,
            "data_sources": [case.manifest.files[0].name] if case.manifest.files else [],
        },
        "evidences": [evidence],
        "resources": _resources(case),
        "observables": [
            *_addresses(evidences_0_src_endpoint=address, evidences_0_dst_endpoint=peer),
        ],
    }


def _attacks(ids: Sequence[str]) -> list[Json]:
    made: list[Json] = []
    for id in ids:
        known = technique(id)
        parent = technique(id.partition(".")[0])
        tactics: list[Json] = [{"uid": each, "name": TACTICS[each]} for each in known.tactics]
        attack: dict[str, Json] = {
            "version": "16",
            "technique": {"uid": parent.id, "name": parent.name},
            "tactics": tactics,
        }
        if "." in id:
            attack["sub_technique"] = {"uid": known.id, "name": known.name}
        made.append(attack)
    return made


def _resources(case: Case) -> list[Json]:
    return [
        {
            "type": "Pod" if pod.name else "Network namespace",
            "name": pod.title,
            "uid": pod.uid,
            "namespace": pod.namespace,
            "labels": [f"{key}={value}" for key, value in sorted(pod.labels.items())],
            "data": {
                "node": pod.node,
                "owner": pod.owner,
                "service_account": pod.service_account,
                "images": list(pod.images),
            },
        }
        for pod in case.pods
    ]


# --------------------------------------------------------------------------------------------- activity


def _flow(case: Case, each: Conversation) -> Event:
    flow = flow_of(each)
    refused = each.proto == "tcp" and each.resets and not flow.packets_back
    activity = (5, "Refuse") if refused else (6, "Traffic")
    base = _base(case, 4001, activity, each.first_ns)
    return {
        **base,
        **_between(case, flow, each.proto, each.community_id),
        "message": f"{each.proto} {flow.client} to {flow.server}, {each.app}",
        "start_time": each.first_ns // 1_000_000,
        "end_time": each.last_ns // 1_000_000,
        "duration": max(0, each.last_ns - each.first_ns) // 1_000_000,
        "app_name": each.app,
        "traffic": {
            "bytes": each.bytes,
            "bytes_out": flow.bytes_sent,
            "bytes_in": flow.bytes_back,
            "packets": each.packets,
            "packets_out": flow.packets_sent,
            "packets_in": flow.packets_back,
        },
        "unmapped": {
            "frame": each.frame,
            "filter": each.filter,
            "named_by_alert": each.named,
            "retransmissions": each.retransmissions,
            "resets": each.resets,
            "tunnel": each.tunnel,
        },
        "observables": _addresses(src_endpoint=flow.client, dst_endpoint=flow.server),
    }


def _between(case: Case, flow: Flow, proto: str, community_id: str = "") -> Event:
    word = proto.split(" ")[0].lower()
    client, server = flow.client in case.addresses, flow.server in case.addresses
    direction = (
        (2, "Outbound")
        if client and not server
        else (1, "Inbound")
        if server and not client
        else (0, "Unknown")
    )
    address = flow.client if is_address(flow.client) else flow.server
    version = (6, "Internet Protocol version 6 (IPv6)") if ":" in address else None
    version = version or ((4, "Internet Protocol version 4 (IPv4)") if address else (0, "Unknown"))
    return {
        "src_endpoint": _endpoint(case, flow.client, flow.client_port),
        "dst_endpoint": _endpoint(case, flow.server, flow.server_port),
        "connection_info": {
            "direction_id": direction[0],
            "direction": direction[1],
            "protocol_name": word,
            "protocol_num": _PROTOCOLS.get(word),
            "protocol_ver_id": version[0],
            "protocol_ver": version[1],
            "community_uid": community_id,
        },
    }


def _endpoint(case: Case, address: str, port: int) -> Event:
    name = case.name_of(address)
    pod = case.pod if address and address in case.addresses else None
    return {
        "ip": address if is_address(address) else "",
        "name": name or ("" if is_address(address) else address),
        "hostname": name if _is_hostname(name) else "",
        "port": port or None,
        "uid": pod.uid if pod else "",
    }


def _is_hostname(name: str) -> bool:
    """A DNS name, and not a pod's."""
    labels = name.rstrip(".").split(".")
    return len(labels) > 1 and all(
        each.replace("-", "").replace("_", "").isalnum() and each.isascii() for each in labels
    )


def _row(
    case: Case, of_class: int, activity: tuple[int, str], row: Row, proto: str, at_ns: int
) -> Event:
    client, server = text(row.get("client")), text(row.get("server"))
    port = number(row.get("port")) or (53 if of_class == 4003 else 0)
    known = case.flow(client, server, port, number(row.get("first_ns")))
    at = at_ns or number(row.get("first_ns")) or case.t0_ns
    count = number(row.get("count") or row.get("asked"))
    client_port = flow_of(known).client_port if known is not None and count <= 1 else 0
    flow = Flow(client, client_port, server, port, 0, 0, 0, 0)
    return {
        **_base(case, of_class, activity, at),
        **_between(case, flow, known.proto if known else proto),
        "count": count or 1,
        "unmapped": {
            "frame": number(row.get("frame")),
            "filter": text(row.get("filter"), 2000),
        },
        "observables": _addresses(src_endpoint=client, dst_endpoint=server),
    }


def _dns(case: Case, row: Row) -> Event:
    answered = bool(row.get("answered"))
    activity = (6, "Traffic") if answered else (1, "Query")
    made = _row(case, 4003, activity, row, "udp", number(row.get("asked_ns")))
    name, kind = text(row.get("name")), text(row.get("type"))
    rcode, word = _RCODES.get(text(row.get("rcode")).lower(), (99, text(row.get("rcode"))))
    said: Event = {
        "query": {"hostname": name or ".", "type": kind, "class": "IN"},
        "answers": [
            {"rdata": text(each), "type": kind, "class": "IN"}
            for each in sequence(row.get("answers"))[:50]
            if text(each)
        ],
        "message": f"DNS {kind} {name}",
    }
    if word:
        said |= {"rcode_id": rcode, "rcode": word}
    if asked_ns := number(row.get("asked_ns")):
        said["query_time"] = asked_ns // 1_000_000
    observed = sequence(made["observables"])
    return {
        **made,
        **said,
        "observables": [*observed, _observable("query.hostname", _HOST, "Hostname", name)],
    }


def _tls(case: Case, row: Row) -> Event:
    made = _row(case, 4001, (1, "Open"), row, text(row.get("proto")) or "tcp", 0)
    name, ja3, ja4 = (text(row.get(each)) for each in ("name", "ja3", "ja4"))
    server = {**group(made["dst_endpoint"])}
    if name and _is_hostname(name):
        server["hostname"] = name
    fingerprints: list[Json] = [{"type_id": 1, "type": "JA4", "value": ja4}] if ja4 else []
    observed = sequence(made["observables"])
    return {
        **made,
        "dst_endpoint": server,
        "message": f"TLS to {name or 'no server name'}",
        "tls": {
            "version": text(row.get("version")) or "Unknown",
            "cipher": text(row.get("cipher")),
            "sni": name,
            "ja3_hash": {"algorithm_id": 1, "algorithm": "MD5", "value": ja3}
            if _HEX.fullmatch(ja3)
            else None,
        },
        "ja4_fingerprint_list": fingerprints,
        "observables": [
            *observed,
            _observable("tls.sni", _HOST, "Hostname", name),
            _observable("tls.ja3_hash.value", _HASH, "Hash", ja3),
        ],
    }


def _http(case: Case, row: Row) -> Event:
    method = text(row.get("method")).upper()
    activity = (_METHODS.get(method, 99), method.capitalize() if method in _METHODS else "Other")
    made = _row(case, 4002, activity, row, "tcp", 0)
    host, path = text(row.get("host")), text(row.get("uri")) or "/"
    url = url_of(host, path)
    status = number(row.get("status"))
    observed = sequence(made["observables"])
    return {
        **made,
        "message": f"{method} {url}",
        "unmapped": {**group(made["unmapped"]), "method": method},
        "http_request": {
            "http_method": method if method in _METHODS else "",
            "user_agent": text(row.get("user_agent")),
            "url": {
                "scheme": "http",
                "hostname": host_of(host) if _is_hostname(host_of(host)) else "",
                "path": path,
                "port": number(row.get("port")) or None,
                "url_string": url,
            },
        },
        "http_response": {"code": status} if status else None,
        "observables": [
            *observed,
            *(
                [_observable("http_request.url.url_string", _URL, "URL String", url)]
                if url
                else []
            ),
        ],
    }


# ------------------------------------------------------------------------------------------ observables


def _addresses(**named: str) -> list[Json]:
    return [
        _observable(f"{name.replace('_0_', '[0].')}.ip", _IP, "IP Address", address)
        for name, address in named.items()
        if is_address(address)
    ]


def _observable(name: str, kind: int, word: str, value: str) -> Json:
    return {"name": name, "type_id": kind, "type": word, "value": value} if value else None


def _tidy(value: Mapping[str, Json]) -> Event:
    """Without what is empty."""
    kept: Event = {}
    for name, each in value.items():
        made: Json = each
        if isinstance(each, dict):
            made = _tidy(each)
        elif isinstance(each, list):
            made = [
                _tidy(one) if isinstance(one, dict) else one for one in each if one is not None
            ]
        if made not in (None, "", [], {}):
            kept[name] = made
    return kept
