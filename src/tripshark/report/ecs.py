"""An incident as documents of the Elastic Common Schema, one JSON object per line.

Fields are ECS 9.4's; what it has no name for stands below `tripshark.`, and Kubernetes' own names are also given as
Elastic's agents write them (`kubernetes.`). Ids are made from the content: sending the same incident twice adds nothing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

from tripshark.model.alert import Json
from tripshark.model.attack import TACTICS, technique
from tripshark.model.evidence import canonical, rfc3339
from tripshark.model.finding import Conversation, Finding, Severity
from tripshark.report.case import (
    AlertTold,
    Case,
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

VERSION: Final = "9.4.0"
_MODULE: Final = "tripshark"
_SCORE: Final = {  # `event.severity`, as Elastic's own rules have it
    Severity.INFO: 10,
    Severity.LOW: 21,
    Severity.MEDIUM: 47,
    Severity.HIGH: 73,
    Severity.CRITICAL: 99,
}
_IANA: Final = {"icmp": "1", "tcp": "6", "udp": "17", "gre": "47", "icmpv6": "58", "sctp": "132"}

Document = dict[str, Json]
Row = Mapping[str, Json]


def write(cases: Sequence[Case]) -> bytes:
    """Every document on a line of its own, in the order of time."""
    lines = [
        (str(each["@timestamp"]), canonical(each) + b"\n")
        for case in cases
        for each in documents(case)
    ]
    return b"".join(line for _, line in sorted(lines))


def documents(case: Case) -> Iterator[Document]:
    """Nested, as they are indexed."""
    common = _common(case)
    for made in _events(case):
        whole = _merged(common, made)
        event = group(whole["event"])
        digest = hashlib.sha256(canonical(whole)).hexdigest()
        whole["event"] = {**event, "id": digest[:32]}
        yield _tidy(whole)


def _events(case: Case) -> Iterator[Document]:
    yield _incident(case)
    yield from (_alert(each) for each in case.alerts)
    for entry in case.entries:
        made = _event(entry.from_ns or case.t0_ns, "ledger", "event", ["network"], ["info"])
        yield _merged(
            made,
            {
                "message": entry.message,
                "event": {"end": _time(entry.to_ns)},
                "tripshark": {
                    "ledger": {"kind": entry.kind, "word": entry.word, "count": entry.count}
                },
            },
        )
    if case.findings is None:
        return
    yield from (_finding(case, each) for each in case.findings.findings)
    yield from (_flow(case, each) for each in case.conversations)
    yield from (_dns(case, row) for row in case.findings.dns)
    yield from (_tls(case, row) for row in case.findings.tls)
    yield from (_http(case, row) for row in case.findings.http)
    yield from (_file(case, row) for row in case.findings.files)
    yield from (_credential(case, row) for row in case.findings.credentials)


def _common(case: Case) -> Document:
    pod = case.pod
    addresses: list[Json] = [*sorted(case.addresses)]
    tools = group(group(case.manifest.details.get("how")).get("tools"))
    images = [image.rpartition(":") for image in pod.images]
    made: Document = {
        "ecs": {"version": VERSION},
        "event": {"module": _MODULE, "provider": _MODULE},
        "observer": {
            "product": "Tripshark",
            "type": "sensor",
            "vendor": "Tripshark",
            "version": text(tools.get("tripshark")),
            "hostname": case.host,
        },
        "host": {"hostname": case.host, "name": pod.node or case.host},
        "labels": {
            "incident": case.id,
            "manifest_sha256": case.manifest_sha256,
            "target": case.title,
        },
    }
    if pod.namespace:
        made |= {
            "orchestrator": {
                "type": "kubernetes",
                "namespace": pod.namespace,
                "resource": {
                    "id": pod.uid,
                    "name": pod.name,
                    "type": "pod",
                    "ip": addresses,
                    "label": [*(f"{key}:{value}" for key, value in sorted(pod.labels.items()))],
                    "parent": {"type": pod.owner.partition("/")[0].lower()},
                },
            },
            "kubernetes": {
                "namespace": pod.namespace,
                "pod": {"name": pod.name, "uid": pod.uid, "ip": min(case.addresses, default="")},
                "node": {"name": pod.node},
            },
        }
    if images or pod.containers:
        made["container"] = {
            "id": pod.containers[0] if pod.containers else "",
            "image": {
                "name": images[0][0] or images[0][2] if images else "",
                "tag": [each[2] for each in images[:1] if each[0]],
            },
        }
    return made


def _event(
    at_ns: int, dataset: str, kind: str, category: Sequence[str], type: Sequence[str]
) -> Document:
    return {
        "@timestamp": _time(at_ns) or _time(1),
        "event": {
            "kind": kind,
            "category": list(category),
            "type": list(type),
            "dataset": f"{_MODULE}.{dataset}",
        },
    }


def _incident(case: Case) -> Document:
    """The whole of it in one document: what was captured, and what of it is missing in one word."""
    first, last = case.seen
    findings = case.findings
    summary = findings.summary if findings is not None else case.problem
    made = _event(case.t0_ns, "incident", "event", ["network"], ["info"])
    return _merged(
        made,
        {
            "message": summary or f"{case.packets} packets of {case.title} were captured",
            "event": {
                "start": _time(first),
                "end": _time(last),
                "severity": _SCORE[case.severity],
                "created": _time(case.manifest.created_ns),
            },
            "network": {"packets": case.packets},
            "tripshark": {"ledger": {"word": case.manifest.ledger.word.value}, "rule": case.rule},
        },
    )


def _alert(each: AlertTold) -> Document:
    made = _event(each.time_ns, "alert", "alert", ["intrusion_detection"], ["info"])
    return _merged(
        made,
        {
            "message": f"{each.priority}: {each.rule}",
            "event": {
                "severity": _SCORE[each.severity],
                "original": each.verbatim[:30_000],
                "created": _time(each.received_ns),
            },
            "rule": {"name": each.rule, "ruleset": "falco"},
            "process": {"name": each.process, "command_line": each.cmdline},
            "tags": list(each.tags),
        },
    )


def _finding(case: Case, each: Finding) -> Document:
    made = _event(
        each.first_ns or case.t0_ns,
        "finding",
        "event" if not each.frames else "alert",
        ["network"] if not each.frames else ["intrusion_detection", "network"],
        ["info"],
    )
    known = [technique(id) for id in each.techniques]
    tactics = list(dict.fromkeys(id for one in known for id in one.tactics))
    parents = [one for one in known if "." not in one.id] + [
        technique(one.id.partition(".")[0]) for one in known if "." in one.id
    ]
    sub = [one for one in known if "." in one.id]
    about = each.about
    pair = {
        "source": _end(case, about.get("address", ""), 0),
        "destination": _end(case, about.get("peer", ""), port_of(about.get("port", ""))),
    }
    threat: Document = {
        "framework": "MITRE ATT&CK",
        "tactic": {"id": list(tactics), "name": [TACTICS[id] for id in tactics]},
        "technique": {
            "id": [one.id for one in parents],
            "name": [one.name for one in parents],
            "subtechnique": {
                "id": [one.id for one in sub],
                "name": [one.name for one in sub],
            },
        },
    }
    return _merged(
        made,
        {
            "message": f"{each.title}. {each.text}",
            "event": {
                "severity": _SCORE[each.severity],
                "reason": each.text,
                "start": _time(each.first_ns),
                "end": _time(each.last_ns),
                "action": each.kind,
            },
            "rule": {"name": each.kind, "ruleset": _MODULE, "description": each.title},
            "threat": threat if known else {},
            **pair,
            "related": _related(about.get("address", ""), about.get("peer", "")),
            "tripshark": {
                "finding": {
                    "id": each.id,
                    "kind": each.kind,
                    "checked": each.checked,
                    "frames": list(each.frames),
                    "filter": each.filter,
                    "matches": each.matches,
                    "about": [f"{name}={value}" for name, value in about.items()],
                }
            },
        },
    )


def _flow(case: Case, each: Conversation) -> Document:
    flow = flow_of(each)
    client, server = (flow.client, flow.client_port), (flow.server, flow.server_port)
    made = _event(each.first_ns, "flow", "event", ["network"], ["connection", "start", "end"])
    return _merged(
        made,
        _network(case, client, server, each.proto),
        {
            "event": {
                "start": _time(each.first_ns),
                "end": _time(each.last_ns),
                "duration": max(0, each.last_ns - each.first_ns),
                "action": "network_flow",
            },
            "source": {"bytes": flow.bytes_sent, "packets": flow.packets_sent},
            "destination": {"bytes": flow.bytes_back, "packets": flow.packets_back},
            "network": {
                "bytes": each.bytes,
                "packets": each.packets,
                "community_id": each.community_id,
                "protocol": _application(each.app),
            },
            "tripshark": {
                "frame": each.frame,
                "filter": each.filter,
                "named_by_alert": each.named,
                "retransmissions": each.retransmissions,
                "resets": each.resets,
                "tunnel": each.tunnel,
            },
        },
    )


def _application(app: str) -> str:
    """`TLSv1.3` as `tls`; nothing where only the transport is known."""
    word = app.lower()
    if word.startswith(("tls", "ssl")):
        return "tls"
    return "" if word in ("tcp", "udp", "icmp", "icmpv6", "data", "") else word.split("/")[0]


def _said(case: Case, row: Row, dataset: str, proto: str, at_ns: int, protocol: str) -> Document:
    """What all rows about two ends have in common."""
    client, server = text(row.get("client")), text(row.get("server"))
    port = number(row.get("port")) or (53 if dataset == "dns" else 0)
    made = _event(
        at_ns or number(row.get("first_ns")) or case.t0_ns,
        dataset,
        "event",
        ["network"],
        ["protocol"],
    )
    flow = case.flow(client, server, port, number(row.get("first_ns")))
    one = flow is not None and not _many(row)
    client_port = flow_of(flow).client_port if flow is not None and one else 0
    return _merged(
        made,
        _network(case, (client, client_port), (server, port), flow.proto if flow else proto),
        {
            "network": {
                "protocol": protocol,
                "community_id": flow.community_id if flow is not None and one else "",
            },
            "tripshark": {
                "frame": number(row.get("frame")),
                "filter": text(row.get("filter"), 2000),
                "count": number(row.get("count") or row.get("asked")),
            },
        },
    )


def _many(row: Row) -> bool:
    """The row stands for several, perhaps of several flows."""
    return number(row.get("count") or row.get("asked")) > 1


def _dns(case: Case, row: Row) -> Document:
    made = _said(case, row, "dns", "udp", number(row.get("asked_ns")), "dns")
    answers = [text(each) for each in sequence(row.get("answers"))[:50]]
    addresses = [each for each in answers if is_address(each)]
    asked: dict[str, Json] = {
        "type": "answer" if row.get("answered") else "query",
        "question": {"name": text(row.get("name")), "type": text(row.get("type")), "class": "IN"},
        "answers": [{"data": each} for each in answers],
        "resolved_ip": list(addresses),
        "response_code": _rcode(text(row.get("rcode"))),
    }
    return _merged(
        made,
        {"dns": asked, "related": {"hosts": [text(row.get("name"))], "ip": list(addresses)}},
    )


_RCODES: Final = {
    "no error": "NOERROR",
    "no such name": "NXDOMAIN",
    "server failure": "SERVFAIL",
    "refused": "REFUSED",
    "format error": "FORMERR",
    "not implemented": "NOTIMP",
}


def _rcode(said: str) -> str:
    """As RFC 1035 and its successors spell it."""
    return _RCODES.get(said.lower(), said.upper())


def _tls(case: Case, row: Row) -> Document:
    proto = text(row.get("proto")) or "tcp"
    made = _said(case, row, "tls", proto, 0, "quic" if proto == "udp" else "tls")
    alpn = [text(each) for each in sequence(row.get("alpn"))]
    version = text(row.get("version")).removeprefix("TLS ").removeprefix("SSL ")
    return _merged(
        made,
        {
            "tls": {
                "version": version,
                "version_protocol": text(row.get("version")).partition(" ")[0].lower(),
                "cipher": text(row.get("cipher")),
                "next_protocol": alpn[0] if alpn else "",
                "client": {"server_name": text(row.get("name")), "ja3": text(row.get("ja3"))},
            },
            "destination": {"domain": text(row.get("name"))},
            "tripshark": {"ja4": text(row.get("ja4")), "alpn": list(alpn)},
            "related": {
                "hosts": [text(row.get("name"))],
                "hash": [text(row.get("ja3")), text(row.get("ja4"))],
            },
        },
    )


def _http(case: Case, row: Row) -> Document:
    made = _said(case, row, "http", "tcp", 0, "http")
    host, path = text(row.get("host")), text(row.get("uri"))
    name = host_of(host)
    return _merged(
        made,
        {
            "http": {
                "request": {"method": text(row.get("method"))},
                "response": {"status_code": number(row.get("status")) or None},
            },
            "url": {
                "scheme": "http",
                "domain": name,
                "path": path,
                "port": number(row.get("port")) or None,
                "original": url_of(host, path),
            },
            "user_agent": {"original": text(row.get("user_agent"))},
            "related": {"hosts": [name]},
        },
    )


def _file(case: Case, row: Row) -> Document:
    made = _said(case, row, "file", "tcp", 0, text(row.get("source")).lower())
    sha256, md5 = text(row.get("sha256")), text(row.get("md5"))
    return _merged(
        made,
        {
            "event": {"category": ["network", "file"], "type": ["info"]},
            "file": {
                "name": text(row.get("name")),
                "size": number(row.get("bytes")),
                "hash": {"sha256": sha256, "md5": md5},
            },
            "related": {"hash": [sha256, md5]},
            "tripshark": {
                "file": {"kind": text(row.get("type")), "complete": bool(row.get("complete"))}
            },
        },
    )


def _credential(case: Case, row: Row) -> Document:
    """Who signed in in clear text; never with what."""
    made = _said(case, row, "credentials", "tcp", 0, text(row.get("proto")).split(" ")[0].lower())
    return _merged(
        made,
        {
            "event": {"category": ["network", "authentication"], "type": ["info"]},
            "source": {"user": {"name": text(row.get("user"))}},
            "related": {"user": [text(row.get("user"))]},
        },
    )


def _network(case: Case, client: tuple[str, int], server: tuple[str, int], proto: str) -> Document:
    address = _ip(client[0]) or _ip(server[0])
    word = proto.split(" ")[0].lower()
    ours = (client[0] in case.addresses, server[0] in case.addresses)
    direction = {(True, False): "egress", (False, True): "ingress"}.get(ours, "")
    return {
        "source": _end(case, *client),
        "destination": _end(case, *server),
        "client": _end(case, *client),
        "server": _end(case, *server),
        "network": {
            "transport": "ipv6-icmp" if word == "icmpv6" else word,
            "iana_number": _IANA.get(word, ""),
            "type": "ipv6" if ":" in address else "ipv4" if address else "",
            "direction": direction,
        },
        "related": _related(client[0], server[0]),
    }


def _end(case: Case, address: str, port: int) -> Document:
    return {
        "address": address,
        "ip": _ip(address),
        "port": port or None,
        "domain": case.name_of(address) if "/" not in case.name_of(address) else "",
    }


def _related(*addresses: str) -> Document:
    return {"ip": [each for each in map(_ip, addresses) if each]}


def _ip(address: str) -> str:
    return address if is_address(address) else ""


def _time(ns: int) -> str:
    return rfc3339(ns) if ns > 0 and "T" in rfc3339(ns) else ""


def _merged(*parts: Mapping[str, Json]) -> Document:
    """Later ones win; objects are merged, lists joined."""
    whole: Document = {}
    for part in parts:
        for name, value in part.items():
            before = whole.get(name)
            if isinstance(before, dict) and isinstance(value, dict):
                whole[name] = _merged(before, value)
            elif name in ("ip", "hosts", "hash", "user") and isinstance(before, list):
                whole[name] = [*before, *(value if isinstance(value, list) else [value])]
            else:
                whole[name] = value
    return whole


def _tidy(value: Mapping[str, Json]) -> Document:
    """Without what is empty, and each entry of a list once."""
    kept: Document = {}
    for name, each in value.items():
        made: Json = each
        if isinstance(each, dict):
            made = _tidy(each)
        elif isinstance(each, list):
            made = _once(each)
        if made not in (None, "", [], {}):
            kept[name] = made
    return kept


def _once(values: Iterable[Json]) -> list[Json]:
    found: dict[str, Json] = {}
    for each in values:
        if each not in (None, ""):
            found.setdefault(json.dumps(each, sort_keys=True), each)
    return list(found.values())
