"""Every export is what its format's own library or schema says it must be, whatever the evidence says."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from functools import cache
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import stix2
from ocsf_json_schema import OcsfJsonSchemaEmbedded, get_ocsf_schema
from stix2validator import ValidationOptions, validate_string

from tests.report import cases
from tests.report.test_page import HOSTILE
from tripshark.model.evidence import Ledger
from tripshark.report import exports
from tripshark.report.case import Case
from tripshark.web.exports import FORMATS

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of what it imports
    import pymisp

CASES = {
    "rich": cases.rich(),
    "unread": cases.unread(),
    "empty": cases.empty(),
    "bare": cases.bare(),
    **{f"hostile-{at}": cases.hostile(each) for at, each in enumerate(HOSTILE)},
}
every_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


def _lines(name: str, case: Case) -> list[dict[str, Any]]:
    content = exports.FORMATS[name].write([case])
    return [json.loads(line) for line in content.splitlines()]


def test_the_web_offers_exactly_what_there_is() -> None:
    """Two rooms that are strangers to each other, one list."""
    assert tuple(exports.FORMATS) == FORMATS


@pytest.mark.parametrize("name", FORMATS)
def test_the_same_evidence_is_the_same_export(name: str) -> None:
    """Byte for byte, ids included; other evidence has other ids."""
    write = exports.FORMATS[name].write
    first = write([cases.rich()])
    assert first == write([Case(**vars_of(cases.rich()))])


def vars_of(case: Case) -> dict[str, Any]:
    return {
        name: getattr(case, name)
        for name in ("manifest", "manifest_sha256", "findings", "problem", "deeds", "node")
    }


# ------------------------------------------------------------------------------------------------ timeline


@every_case
def test_timesketch_has_what_it_demands(case: Case) -> None:
    """`message`, `datetime` and `timestamp_desc` in every line, oldest first, every line naming the manifest."""
    lines = _lines("timeline", case)
    assert lines
    for line in lines:
        assert line["message"]
        assert line["timestamp_desc"]
        assert line["manifest_sha256"] == cases.DIGEST
        at = datetime.fromisoformat(line["datetime"])
        assert abs(at.timestamp() * 1e6 - line["timestamp"]) < 2
        assert all(len(json.dumps(each)) < 32_766 for each in line.values())
    assert [each["timestamp"] for each in lines] == sorted(each["timestamp"] for each in lines)


def test_the_timeline_tells_every_kind_of_thing() -> None:
    """Alerts, pods, hand-overs, gaps, flows, protocols, findings, sealing."""
    kinds = {each["timestamp_desc"] for each in _lines("timeline", cases.rich())}
    assert kinds >= {
        "Falco alert", "Pod seen first", "Pod ended", "Address changed hands", "Ledger: kernel_drops",
        "First packet", "Last packet", "Flow start", "Flow end", "DNS query", "TLS handshake", "HTTP request",
        "SSH banner", "ICMP message", "Credentials in clear text", "File transferred", "Finding", "Evidence sealed",
    }  # fmt: skip


# ----------------------------------------------------------------------------------------------------- ECS

ECS = json.loads((Path(__file__).parent / "ecs.json").read_text())
OWN = ("tripshark", "kubernetes")  # fields beside ECS: our own, and those of Elastic's agents


def _flat(value: Any, at: str = "") -> Iterator[tuple[str, Any]]:
    """Field name and value, as Elasticsearch flattens them."""
    kind = ECS["fields"].get(at, {}).get("type")
    if isinstance(value, dict) and not (kind in ("object", "flattened") and at == "labels"):
        for name, each in value.items():
            yield from _flat(each, f"{at}.{name}" if at else name)
    elif isinstance(value, list) and value and isinstance(value[0], dict):
        yield at, value
        for each in value:
            yield from _flat(each, at)
    else:
        yield at, value


def _fits(kind: str, value: Any) -> bool:
    match kind:
        case "keyword" | "text" | "match_only_text" | "wildcard" | "constant_keyword":
            return isinstance(value, str)
        case "long" | "integer" | "short" | "byte":
            return type(value) is int
        case "float" | "double" | "scaled_float":
            return isinstance(value, int | float)
        case "boolean":
            return isinstance(value, bool)
        case "date":
            return bool(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z", value))
        case "ip":
            return bool(ip_address(value))
        case "object" | "nested" | "flattened":
            return isinstance(value, dict)
    return False


@every_case
def test_documents_are_those_of_ecs(case: Case) -> None:
    """Every field is defined, of its type, a list only where one is expected, of the allowed values."""
    documents = _lines("ecs", case)
    assert [each["event"]["dataset"] for each in documents].count("tripshark.incident") == 1
    for document in documents:
        assert {"@timestamp", "ecs", "event"} <= document.keys()
        assert document["ecs"]["version"] == ECS["version"]
        fields = dict(_flat(document))
        for name, value in fields.items():
            if name.split(".")[0] in OWN:
                continue
            defined = ECS["fields"].get(name)
            assert defined is not None, name
            assert isinstance(value, list) == bool(defined.get("array")) or not isinstance(
                value, list
            ), name
            for each in value if isinstance(value, list) else [value]:
                assert _fits(defined["type"], each), (name, each)
                if "allowed" in defined:
                    assert each in defined["allowed"], (name, each)
        types = ECS["fields"]["event.category"]["allowed"]
        expected = {kind for category in fields["event.category"] for kind in types[category]}
        assert set(fields["event.type"]) <= expected


def test_ids_of_ecs_tell_documents_apart() -> None:
    """So that the same incident sent twice is the same documents."""
    ids = [each["event"]["id"] for each in _lines("ecs", cases.rich())]
    assert len(set(ids)) == len(ids)


# ---------------------------------------------------------------------------------------------------- OCSF


@cache
def _schema(version: str, class_uid: int) -> jsonschema.Draft202012Validator:
    schema = OcsfJsonSchemaEmbedded(get_ocsf_schema(version=version))
    name = schema.lookup_class_name_from_uid(class_uid=class_uid)
    return jsonschema.Draft202012Validator(schema.get_class_schema(class_name=name, profiles=[]))


@every_case
def test_events_are_those_of_ocsf(case: Case) -> None:
    """By the schema of the version that they name, and by that of a later one."""
    for event in _lines("ocsf", case):
        assert event["metadata"]["version"] == "1.4.0"
        assert event["type_uid"] == event["class_uid"] * 100 + event["activity_id"]
        for version in ("1.4.0", "1.7.0"):
            _schema(version, event["class_uid"]).validate(event)


def test_ocsf_has_the_four_classes() -> None:
    """Network, HTTP and DNS activity, and detections, with the pod and the technique."""
    events = _lines("ocsf", cases.rich())
    assert {each["class_uid"] for each in events} == {2004, 4001, 4002, 4003}
    exfiltration = next(each for each in events if "eight times" in each.get("message", ""))
    assert exfiltration["severity_id"] == 5
    assert exfiltration["finding_info"]["attacks"][0]["technique"]["uid"] == "T1041"
    assert exfiltration["resources"][0]["name"] == "payments/checkout-7d9f"
    assert exfiltration["evidences"][0]["data"]["filter"] == "tcp.stream eq 2"


# ---------------------------------------------------------------------------------------------------- STIX


@every_case
def test_bundles_are_those_of_stix(case: Case) -> None:
    """The official validator in its strict mode finds nothing, and the official library reads it."""
    content = exports.FORMATS["stix"].write([case]).decode()
    # ICMP has no ports, which the strict mode would like to have
    options = ValidationOptions(
        strict=True, strict_properties=True, version="2.1", disabled="network-traffic-ports"
    )
    result = validate_string(content, options)
    assert result.is_valid, [str(each) for each in result.errors or ()]
    assert stix2.parse(content, allow_custom=False)


def test_observables_have_the_ids_that_the_standard_prescribes() -> None:
    """As the official library makes them, so that the same address is the same object everywhere."""
    bundle = json.loads(exports.FORMATS["stix"].write([cases.rich()]))
    kinds = {"ipv4-addr", "ipv6-addr", "domain-name", "url", "file", "network-traffic"}
    observables = [each for each in bundle["objects"] if each["type"] in kinds]
    assert {each["type"] for each in observables} == kinds
    for each in observables:
        made = stix2.parse({k: v for k, v in each.items() if k != "id"}, version="2.1")
        assert made.id == each["id"]


@pytest.mark.parametrize(
    ("host", "uri", "url"),
    [
        ("evil.example", "/index.html?\u2026", "http://evil.example/index.html"),
        (
            "evil.example",
            '/<b> "x"%zz\\x1b%20',
            "http://evil.example/%3Cb%3E%20%22x%22%25zz%5Cx1b%20",
        ),
        ("evil.example", "http://other.example:8080/a", "http://other.example:8080/a"),
        ("evil.example:443", "evil.example:443", "http://evil.example:443"),
        ("evil.example", "*", "http://evil.example"),
    ],
)
def test_urls_are_written_as_urls(host: str, uri: str, url: str) -> None:
    """Whatever is asked for, by whatever form of request, is a URL that the validator knows as one."""
    case = cases.rich()
    assert case.findings is not None
    row = {**case.findings.http[0], "host": host, "uri": uri}
    case = replace(case, findings=replace(case.findings, http=(row,)))
    test_bundles_are_those_of_stix(case)
    objects = json.loads(exports.FORMATS["stix"].write([case]))["objects"]
    assert [each["value"] for each in objects if each["type"] == "url"] == [url]


def test_protocols_are_those_of_iana() -> None:
    """Also of a ping over IPv6."""
    case = cases.rich()
    assert case.findings is not None
    ping = replace(
        case.findings.conversations[0],
        proto="icmpv6", app="ICMPv6", a="fd00::1", b="fd00::2", a_port=0, b_port=0,
    )  # fmt: skip
    case = replace(case, findings=replace(case.findings, conversations=(ping,)))
    test_bundles_are_those_of_stix(case)


def test_the_bundle_sights_techniques_and_accuses_nobody() -> None:
    """Sightings of attack patterns with observed data; no indicators; nothing refers to what is not there."""
    objects = json.loads(exports.FORMATS["stix"].write([cases.rich()]))["objects"]
    by_id = {each["id"]: each for each in objects}
    assert len(by_id) == len(objects)
    kinds = {each["type"] for each in objects}
    assert "indicator" not in kinds
    assert {"identity", "observed-data", "note", "sighting", "attack-pattern", "report"} <= kinds
    for each in objects:
        for name, value in each.items():
            if name.endswith(("_ref", "_refs")):
                assert set([value] if isinstance(value, str) else value) <= set(by_id)


# ---------------------------------------------------------------------------------------------------- MISP

MISP = Path(pymisp.__file__).parent / "data"


@every_case
def test_events_are_those_of_misp(case: Case) -> None:
    """By MISP's schema, its list of types and categories, and the templates of its objects; PyMISP reads it."""
    content = exports.FORMATS["misp"].write([case]).decode()
    schema = json.loads((MISP / "schema-lax.json").read_text())
    jsonschema.Draft4Validator(schema).validate(json.loads(content))
    event = pymisp.MISPEvent(strict_validation=True)
    event.load(content)
    allowed = json.loads((MISP / "describeTypes.json").read_text())["result"][
        "category_type_mappings"
    ]
    for attribute in event.attributes:
        assert attribute.type in allowed[attribute.category]
    for made in event.objects:
        template = json.loads(
            (MISP / "misp-objects" / "objects" / made.name / "definition.json").read_text()
        )
        assert made.template_uuid == template["uuid"]
        assert int(made.template_version) == template["version"]
        relations = {attribute.object_relation for attribute in made.attributes}
        assert set(template.get("required", ())) <= relations
        assert relations & set(template.get("requiredOneOf") or relations)
        for attribute in made.attributes:
            told = template["attributes"][attribute.object_relation]
            assert told["misp-attribute"] == attribute.type
            assert attribute.type in allowed[attribute.category]


def test_misp_detects_what_findings_accuse_and_never_our_own() -> None:
    """Attributes for detection are peers of findings of medium severity or worse."""
    event = json.loads(exports.FORMATS["misp"].write([cases.rich()]))["Event"]
    attributes = [a for o in event["Object"] for a in o["Attribute"]] + event["Attribute"]
    marked = {each["value"] for each in attributes if each["to_ids"]}
    assert marked == {cases.C2, "c2.evil.example", cases.SHA256}
    assert event["published"] is False
    assert event["distribution"] == "0"
    ids = [each["uuid"] for each in (*attributes, *event["Object"])]
    assert len(set(ids)) == len(ids)


# ---------------------------------------------------------------------------------------------------- Zeek

_BASE = {
    "ts": float, "uid": str, "id.orig_h": "addr", "id.orig_p": int, "id.resp_h": "addr", "id.resp_p": int,
    "count": int, "frame": int, "filter": str,  # ours
}  # fmt: skip
ZEEK: dict[str, dict[str, Any]] = {  # of base/protocols of Zeek 7: Conn::Info, DNS::Info, SSL::Info, HTTP::Info
    "conn": {
        "proto": {"tcp", "udp", "icmp", "unknown_transport"}, "service": str, "duration": float, "conn_state": {
            "S0", "S1", "SF", "REJ", "S2", "S3", "RSTO", "RSTR", "RSTOS0", "RSTRH", "SH", "SHR", "OTH"},
        "local_orig": bool, "local_resp": bool, "history": str, "orig_pkts": int, "resp_pkts": int,
        "community_id": str, "orig_wire_bytes": int, "resp_wire_bytes": int,
    },
    "dns": {
        "proto": {"tcp", "udp"}, "query": str, "qclass": int, "qclass_name": str, "qtype": int, "qtype_name": str,
        "rcode": int, "rcode_name": str, "answers": list, "rejected": bool,
    },
    "ssl": {
        "version": str, "cipher": str, "server_name": str, "client_alpn": list, "ja3": str, "ja4": str,
    },
    "http": {
        "method": str, "host": str, "uri": str, "user_agent": str, "status_code": int, "tags": list,
    },
}  # fmt: skip


@every_case
@pytest.mark.parametrize("log", ZEEK)
def test_logs_are_those_of_zeek(log: str, case: Case) -> None:
    """Every field has Zeek's name and type, and uids look like Zeek's."""
    for line in _lines(f"zeek-{log}", case):
        assert {"ts", "uid", "id.orig_h", "id.orig_p", "id.resp_h", "id.resp_p"} <= line.keys()
        assert re.fullmatch(r"C[0-9A-Za-z]{17}", line["uid"])
        for name, value in line.items():
            kind = {**_BASE, **ZEEK[log]}[name]
            if kind == "addr":
                assert ip_address(value)
            elif isinstance(kind, set):
                assert value in kind
            else:
                assert isinstance(value, kind), (name, value)


def test_rows_of_zeek_belong_to_their_connections() -> None:
    """A row's uid is its connection's; conn_state only where it is certain."""
    conn = _lines("zeek-conn", cases.rich())
    c2 = next(each for each in conn if each["id.resp_h"] == cases.C2)
    assert (c2["orig_pkts"], c2["resp_pkts"], c2["community_id"]) == (
        610, 540, "1:wCb3OG7yAFWelaUydu0D+125CLM=",
    )  # fmt: skip
    assert "conn_state" not in c2  # how it ended is not known
    inbound = next(each for each in conn if each["id.orig_h"] == cases.LEDGER)
    assert (inbound["id.resp_p"], inbound["local_orig"], inbound["local_resp"]) == (
        8080,
        False,
        True,
    )
    [tls] = _lines("zeek-ssl", cases.rich())
    web = next(each for each in conn if each["id.resp_p"] == 443)
    assert tls["uid"] == web["uid"]
    assert (tls["version"], tls["id.orig_p"]) == ("TLSv13", 40990)
    by_name = {each["query"]: each for each in _lines("zeek-dns", cases.rich())}
    assert by_name["gone.example"]["rcode_name"] == "NXDOMAIN"


def test_rows_belong_to_the_connection_that_was_going_on() -> None:
    """Of several between the same two ends it is the one in whose time the row's first packet lies."""
    case = cases.rich()
    assert case.findings is not None
    [web] = [each for each in case.findings.conversations if each.b_port == 443]
    later = replace(web, a_port=40991, first_ns=web.last_ns + 10, last_ns=web.last_ns + 20)
    row = {**case.findings.tls[0], "count": 1, "first_ns": later.first_ns + 1}
    findings = replace(
        case.findings, conversations=(*case.findings.conversations, later), tls=(row,)
    )
    case = replace(case, findings=findings)
    [tls] = _lines("zeek-ssl", case)
    assert tls["id.orig_p"] == 40991
    assert tls["uid"] in {
        each["uid"] for each in _lines("zeek-conn", case) if each["id.orig_p"] == 40991
    }
    [ecs] = [each for each in _lines("ecs", case) if each["event"]["dataset"] == "tripshark.tls"]
    assert ecs["source"]["port"] == 40991
    [both] = [each for each in _lines("ocsf", case) if each.get("tls")]
    assert both["src_endpoint"]["port"] == 40991


def test_a_ledger_alone_is_exported_too() -> None:
    """What is missing is worth a document where there is nothing else."""
    assert cases.empty().manifest.ledger == Ledger()
    documents = _lines("ecs", cases.unread())
    assert sum(each["event"]["dataset"] == "tripshark.ledger" for each in documents) == 3
