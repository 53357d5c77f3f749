"""Everything that has a time, as JSON lines that Timesketch imports: `message`, `datetime`, `timestamp_desc`, and more.

A line is one event: alerts, flows' beginnings and ends, DNS, TLS, HTTP, findings, files, pods' lives, addresses that
changed hands, and what is missing. Every line names the manifest, so a line found alone still says whose it is.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence

from tripshark.model.alert import Json
from tripshark.model.evidence import Word, rfc3339
from tripshark.model.text import printable
from tripshark.report import words
from tripshark.report.case import Case, flow_of, number, sequence, text

MAX_TEXT = 8_000  # of one value; Timesketch's keywords end at 32,766 bytes

Event = tuple[int, str, str, Mapping[str, Json]]  # time, what kind of time it is, message, more


def write(cases: Sequence[Case]) -> bytes:
    """One event per line, oldest first."""
    lines = sorted(
        (at_ns, kind, message, _line(case, at_ns, kind, message, more))
        for case in cases
        for at_ns, kind, message, more in _events(case)
        if at_ns > 0
    )
    return b"".join(line for *_, line in lines)


def _line(case: Case, at_ns: int, kind: str, message: str, more: Mapping[str, Json]) -> bytes:
    told: dict[str, Json] = {
        "message": printable(message, MAX_TEXT),
        "datetime": _datetime(at_ns),
        "timestamp": at_ns // 1000,
        "timestamp_desc": kind,
        "time_ns": at_ns,
        "data_type": "tripshark:"
        + kind.partition(":")[0].lower().replace(", ", "_").replace(" ", "_"),
        "incident": case.id,
        "target": case.title,
        "node": case.node or case.host,
        "manifest_sha256": case.manifest_sha256,
        **{name: value for name, value in more.items() if value not in (None, "", [])},
    }
    return json.dumps(told).encode() + b"\n"


def _datetime(ns: int) -> str:
    """ISO 8601 to the microsecond, which every reader of Timesketch's takes."""
    at = rfc3339(ns)
    return f"{at[:26]}+00:00" if "T" in at else "1970-01-01T00:00:00.000000+00:00"


def _events(case: Case) -> Iterator[Event]:
    yield from _of_alerts(case)
    yield from _of_pods(case)
    yield from _of_hands(case)
    yield from _of_ledger(case)
    yield from _of_packets(case)
    if case.findings is not None:
        yield from _of_findings(case)
        yield from _of_flows(case)
        yield from _of_tables(case)
    yield case.manifest.created_ns, "Evidence sealed", f"evidence of {case.title} sealed", {}


def _of_alerts(case: Case) -> Iterator[Event]:
    for each in case.alerts:
        message = f"{each.priority}: {each.rule}"
        more: dict[str, Json] = {
            "rule": each.rule,
            "priority": each.priority,
            "alert": each.id,
            "via": each.via,
            "repeats": each.repeats or None,
            "process": each.process,
            "command": each.cmdline,
            "tag": list(each.tags),
        }
        yield each.time_ns, "Falco alert", message, more


def _of_pods(case: Case) -> Iterator[Event]:
    for pod in case.pods:
        more: dict[str, Json] = {
            "namespace": pod.namespace,
            "pod": pod.name,
            "owner": pod.owner,
            "pod_node": pod.node,
        }
        yield pod.since_ns, "Pod seen first", f"{pod.title} was seen first", more
        yield pod.gone_ns, "Pod ended", f"{pod.title} ended", more


def _of_hands(case: Case) -> Iterator[Event]:
    """Who held an address from when to when, where more than one did within the evidence."""
    owners: dict[str, set[str]] = {}
    for each in case.holders:
        owners.setdefault(each.address, set()).add(each.name)
    for each in case.holders:
        if len(owners[each.address]) > 1:
            for at, verb in ((each.from_ns, "belongs to"), (each.to_ns, "no longer belongs to")):
                yield (
                    at,
                    "Address changed hands",
                    f"{each.address} {verb} {each.name}",
                    {"address": each.address, "holder": each.name},
                )


def _of_ledger(case: Case) -> Iterator[Event]:
    for entry in case.entries:
        kind = f"Ledger: {entry.kind}"
        missing = "missing: " if entry.word is not Word.COMPLETE else ""
        more: dict[str, Json] = {"word": entry.word.value, "count": entry.count or None}
        yield entry.from_ns, kind, f"{missing}{entry.message}", more
        if entry.to_ns > entry.from_ns:
            yield entry.to_ns, f"{kind}, end", f"until here {missing}{entry.message}", more


def _of_packets(case: Case) -> Iterator[Event]:
    first, last = case.seen
    yield first, "First packet", f"first packet of {case.title}", {}
    yield last, "Last packet", f"last packet of {case.title}", {}
    begin, end = case.covered
    if end:
        yield (
            begin,
            "Recording covered",
            f"from here on the recording of {case.title} is whole",
            {},
        )
        yield end, "Recording ended", f"the recording of {case.title} ends", {}


def _of_findings(case: Case) -> Iterator[Event]:
    assert case.findings is not None  # noqa: S101  # the caller has looked
    for each in case.findings.findings:
        more: dict[str, Json] = {
            "finding": each.id,
            "finding_kind": each.kind,
            "severity": each.severity.value,
            "checked": each.checked,
            "technique": list(each.techniques),
            "frame": each.frames[0] if each.frames else None,
            "filter": each.filter,
            **{name: value for name, value in each.about.items() if name in _ABOUT},
        }
        at = each.first_ns or case.t0_ns
        yield at, "Finding", f"{each.id} {each.severity}: {each.title}. {each.text}", more
        if each.last_ns > at:
            yield (
                each.last_ns,
                "Finding, last seen",
                f"{each.id} {each.severity}: {each.title}",
                more,
            )


_ABOUT = frozenset({"address", "peer", "name", "port", "proto"})


def _of_flows(case: Case) -> Iterator[Event]:
    for each in case.conversations:
        flow = flow_of(each)
        client, client_port = flow.client, flow.client_port
        server, server_port = flow.server, flow.server_port
        sent, back = flow.bytes_sent, flow.bytes_back
        words_of = (
            f"{each.proto} {case.called(client, client_port)} → {case.called(server, server_port)}"
        )
        more: dict[str, Json] = {
            **_two(client, server, client_port, server_port),
            "proto": each.proto,
            "app": each.app,
            "community_id": each.community_id,
            "bytes_sent": sent,
            "bytes_received": back,
            "packets": each.packets,
            "frame": each.frame,
            "filter": each.filter,
        }
        yield each.first_ns, "Flow start", words_of, more
        said = f"{words_of}: {words.size(sent)} sent, {words.size(back)} received"
        yield each.last_ns, "Flow end", said, more


def _two(client: str, server: str, client_port: int, server_port: int) -> dict[str, Json]:
    return {
        "source_ip": client,
        "source_port": client_port or None,
        "destination_ip": server,
        "destination_port": server_port or None,
    }


def _of_tables(case: Case) -> Iterator[Event]:
    findings = case.findings
    assert findings is not None  # noqa: S101  # the caller has looked
    for row in findings.dns:
        answers = [text(each) for each in sequence(row.get("answers"))]
        outcome = ", ".join(answers) or text(row.get("rcode")) or "no answer seen"
        message = f"DNS {text(row.get('type'))} {text(row.get('name'))} → {outcome}"
        more: dict[str, Json] = {"query": text(row.get("name")), "answer": list(answers)}
        at = number(row.get("asked_ns")) or case.seen[0]
        yield _row(row, at, "DNS query", message, more)
    for row in findings.tls:
        name = text(row.get("name")) or "no server name"
        message = f"TLS {text(row.get('version'))} to {name}".replace("  ", " ")
        yield _row(row, 0, "TLS handshake", message, _some(row, "name", "ja3", "ja4", "version"))
    for row in findings.http:
        host, path = text(row.get("host")), text(row.get("uri"))
        status = number(row.get("status"))
        message = f"HTTP {text(row.get('method'))} {host}{path}" + (
            f" → {status}" if status else ""
        )
        yield _row(
            row, 0, "HTTP request", message, _some(row, "host", "method", "uri", "user_agent")
        )
    for row in findings.ssh:
        message = f"SSH: {text(row.get('address'))} says {text(row.get('banner'))}"
        yield _row(row, 0, "SSH banner", message, _some(row, "banner", "address"))
    for row in findings.icmp:
        message = f"ICMP type {row.get('type')} code {row.get('code')}"
        yield _row(row, 0, "ICMP message", message, {})
    for row in findings.credentials:
        message = f"{text(row.get('proto'))} credentials of {text(row.get('user'))} in clear text"
        yield _row(row, 0, "Credentials in clear text", message, _some(row, "user"))
    for row in findings.files:
        message = (
            f"{text(row.get('source'))} file {text(row.get('name'))}, {text(row.get('type'))}"
        )
        yield _row(
            row, 0, "File transferred", message, _some(row, "name", "sha256", "md5", "type")
        )


def _some(row: Mapping[str, Json], *names: str) -> dict[str, Json]:
    return {name: text(row.get(name)) for name in names}


def _row(
    row: Mapping[str, Json], at_ns: int, kind: str, message: str, more: Mapping[str, Json]
) -> Event:
    client, server = text(row.get("client")), text(row.get("server"))
    where: dict[str, Json] = {
        **_two(client, server, 0, number(row.get("port"))),
        "frame": number(row.get("frame")) or None,
        "filter": text(row.get("filter"), 2000),
        "count": number(row.get("count") or row.get("asked")) or None,
    }
    between = f" ({client} → {server})" if client and server else ""
    return at_ns or number(row.get("first_ns")), kind, message + between, {**where, **more}
