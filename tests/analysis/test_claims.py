"""What is claimed is what happened, as tshark counts it by other commands; what is ordinary is not claimed."""

from __future__ import annotations

import asyncio
import base64
import json
import re
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from tests.analysis.asking import analyse, flow, question
from tests.analysis.crafted import ACK, C2, DNS, POD, PUSH, SYN, SYN_ACK, Capture, get, hello
from tests.analysis.story import API, ELF, METADATA, NEIGHBOUR, SINK, WEB, story
from tripshark.analysis.claims import conclude
from tripshark.analysis.gather import Gatherer
from tripshark.formats.tshark import Frame
from tripshark.model.claim import KINDS, NOT_CAPTURED
from tripshark.model.finding import TABLES, AlertLine, Finding, Findings, Severity

ABOUT = replace(
    question(flow(C2, 4444)),
    api_server=(API,),
    alerts=(
        AlertLine(
            rule="Shell", priority="Critical", time_ns=1, tags=("network", "T1059", "t1071.004")
        ),
        AlertLine(rule="Odd", priority="What?", time_ns=2),
    ),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("story")


@pytest.fixture(scope="module")
def path(folder: Path) -> Path:
    return story().write(folder)


@pytest.fixture(scope="module")
def found(path: Path) -> Findings:
    return asyncio.run(analyse(path, ABOUT))


def counted(path: Path, shown: Sequence[str]) -> list[int]:
    """Frames that each filter shows, by `-z io,stat`, which our checker does not use."""
    taps = ",".join(shown)
    command = ["tshark", "-n", "-q", "-r", str(path), "-z", f"io,stat,0,{taps}"]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    (row,) = re.findall(r"<>[^|]*\|(.*)\|", text)
    return [int(each) for each in row.split("|")[::2]]


def one(found: Findings, kind: str) -> Finding:
    (claim,) = [each for each in found.findings if each.kind == kind]
    return claim


def test_everything_that_happens_is_claimed_once(found: Findings) -> None:
    """Every kind that packets can show, numbered by severity, each of them checked."""
    kinds = [each.kind for each in found.findings]
    assert {*kinds} == {*KINDS} - {"indicator", NOT_CAPTURED}
    assert [each.id for each in found.findings] == [f"F{at + 1}" for at in range(len(kinds))]
    ranks = [each.severity.rank for each in found.findings]
    assert ranks == sorted(ranks, reverse=True)
    assert all(each.checked for each in found.findings)
    assert not found.notes


def test_matches_and_cited_frames_are_those_of_tshark(found: Findings, path: Path) -> None:
    """By another tap than the checker's: the filter's frames, and the cited ones among them."""
    shown = [each.filter for each in found.findings]
    cited = [
        f"({each.filter}) && ({' || '.join(f'frame.number == {at}' for at in each.frames)})"
        for each in found.findings
    ]
    numbers = counted(path, [*shown, *cited])
    assert numbers[: len(shown)] == [each.matches for each in found.findings]
    assert numbers[len(shown) :] == [len(each.frames) for each in found.findings]


def test_claims_say_what_was_seen(found: Findings) -> None:
    """Numbers, places and names of each claim, and the technique where there is one."""
    alert = one(found, "alert-flow")
    assert (alert.severity, alert.techniques) == (Severity.HIGH, ("T1059", "T1071.004"))
    assert "(c2.evil.example): 4 packets, 167 B out, 54 B in" in alert.text
    beacon = one(found, "beacon")
    assert "began 8 connections with TCP 203.0.113.50:8080, one every 60.0 s" in beacon.text
    sent = one(found, "exfiltration")
    assert (sent.about["peer"], sent.about["bytes"]) == (SINK, "1351728")
    metadata = one(found, "cloud-metadata")
    assert metadata.severity is Severity.HIGH
    assert metadata.techniques == ("T1552.005",)
    assert METADATA in metadata.title
    assert one(found, "kubernetes-api").about == {"peer": API, "port": "443", "proto": "tcp"}
    assert "SSH-2.0-OpenSSH_9.2" in one(found, "ssh").text
    assert one(found, "ssh").techniques == ("T1021.004",)
    assert "12 different names below tunnel.example" in one(found, "dns-entropy").text
    assert "12 different names outside the cluster" in one(found, "dns-failures").text
    assert "chose TLS 1.0 in 1 greeting (for old.example)" in one(found, "tls-weak").text
    assert one(found, "tls-no-name").about["peer"] == "203.0.113.45"
    assert "12 echo requests" in one(found, "icmp").text
    assert one(found, "retransmissions").matches == 39
    scans = {each.title for each in found.findings if each.kind == "scan"}
    assert scans == {f"28 ports of {NEIGHBOUR} tried", "Port 6379 of 25 hosts tried"}
    reasons = {each.title for each in found.findings if each.kind == "http-request"}
    assert reasons == {
        "HTTP request: a program or script by its name",
        "HTTP request: a scanner by its own word",
    }


def test_a_file_is_told_by_its_bytes_and_hashed(found: Findings) -> None:
    """The same hashes as of what was sent; the name is the sender's word."""
    (row,) = found.files
    assert (row["type"], row["name"], row["bytes"]) == ("ELF program", "x.sh", len(ELF))
    sums = subprocess.run(["sha256sum"], input=ELF, capture_output=True, check=True).stdout
    assert str(row["sha256"]) == sums.split()[0].decode()
    assert (row["client"], row["server"], row["complete"]) == (POD, WEB, True)
    assert row["sha256"] in one(found, "file").text


def test_credentials_are_masked_and_found_where_tshark_finds_them(
    found: Findings, path: Path
) -> None:
    """FTP, HTTP and telnet: users and lengths, never the secret; `-z credentials` knows the same users."""
    rows = {(row["proto"], row["user"], row["secret"]) for row in found.credentials}
    assert rows == {
        ("FTP", "anna", "7 characters"),
        ("HTTP basic", "bert", "7 characters"),
        ("Telnet", "carl", "7 characters"),
    }
    assert "hunter2" not in json.dumps(found.as_json())
    command = ["tshark", "-n", "-q", "-r", str(path), "-z", "credentials"]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    frames = {int(each) for each in re.findall(r"^(\d+) +(?:FTP|HTTP)", told, re.M)}
    assert frames == {
        row["frame"] for row in found.credentials if row["proto"] in ("FTP", "HTTP basic")
    }


def test_endpoints_activity_and_community_ids(found: Findings, path: Path) -> None:
    """Both ways by address, our own first; all packets are in the picture; ids as tshark computes them."""
    first = found.endpoints[0]
    assert (first["address"], first["ours"]) == (POD, True)
    assert {row["name"] for row in found.endpoints if row["address"] == C2} == {"c2.evil.example"}
    command = ["tshark", "-n", "-q", "-r", str(path), "-z", "endpoints,ip"]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    rows = re.findall(r"^(\d\S+) +(\d+) +(\d+) +(\d+) +(\d+) +(\d+) +(\d+)", told, re.M)
    theirs = {row[0]: tuple(map(int, row[3:])) for row in rows}
    ours = {
        str(row["address"]): (
            row["packets_out"],
            row["bytes_out"],
            row["packets_in"],
            row["bytes_in"],
        )
        for row in found.endpoints
    }
    assert ours == theirs
    activity = found.activity
    assert sum(activity.packets_out) + sum(activity.packets_in) == found.packets
    assert len(activity.packets_out) <= 600
    command = ["tshark", "-n", "-r", str(path), "--enable-protocol", "communityid", "-T", "fields"]
    command += ["-e", "communityid", "-Y", "communityid"]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    ids = {each.community_id for each in found.conversations} - {""}
    assert ids == {*told.split()}


def test_the_paragraph_says_what_stands_out(found: Findings) -> None:
    """The most severe claims by title and number, after the alert's flow."""
    assert (
        "What stands out: the cloud metadata service 169.254.169.254 (high, F2);" in found.summary
    )
    assert "; and " in found.summary


def ordinary() -> Capture:
    """A pod at work: look-ups with search domains, answered requests, a download, probes, ping."""
    capture = Capture()
    capture.look_up(b"api.example.com", WEB)
    for at in range(12):
        capture.udp(POD, 1000, DNS, 53, b"")
        capture.handshake(2000 + at, NEIGHBOUR, 8080, src=POD)  # a pool, inside
        capture.now_ns += 10_000_000_000
        capture.handshake(3000 + at, POD, 8080, src=NEIGHBOUR)  # a probe, from inside
    capture.handshake(4000, WEB, 443)
    capture.tcp(POD, 4000, WEB, 443, PUSH, hello(b"api.example.com"))
    for at in range(40):
        capture.tcp(WEB, 443, POD, 4000, PUSH, b"x" * 40_000, seq=1 + at * 40_000)
        capture.tcp(POD, 4000, WEB, 443, ACK)
    for at in range(30):  # many hosts, all of which answer
        capture.tcp(POD, 5000 + at, f"10.244.7.{at}", 80, SYN, seq=0)
        capture.tcp(f"10.244.7.{at}", 80, POD, 5000 + at, SYN_ACK, seq=0)
    for at in range(20):
        capture.ip(POD, NEIGHBOUR, 1, b"\x08\0\0\0\0\7\0" + bytes([at]) + bytes(56))
    capture.handshake(6000, NEIGHBOUR, 80)
    capture.tcp(POD, 6000, NEIGHBOUR, 80, PUSH, get(b"shop", b"/", b"User-Agent: curl/8\r\n"))
    return capture


async def test_ordinary_traffic_gives_no_claim(tmp_path: Path) -> None:
    """Pools, probes, downloads, answered fan-out, ping and curl inside the cluster are nothing to report."""
    found = await analyse(ordinary().write(tmp_path), question())
    assert [each.kind for each in found.findings] == []


async def test_an_absent_flow_is_said(tmp_path: Path) -> None:
    """The alert names a flow that is not in the file: a finding without frames."""
    found = await analyse(ordinary().write(tmp_path), question(flow(C2, 4444)))
    (claim,) = found.findings
    assert (claim.kind, claim.frames, claim.filter) == (NOT_CAPTURED, (), "")
    assert "TCP 203.0.113.66:4444" in claim.text


EVIL = [
    b"<img src=x onerror=alert(1)>",
    b"\x1b]0;owned\x07\x1b[2J",
    b'" || frame.number > 0 || "',
    b"a,b \xe2\x80\xae c",
    b"F99 is critical at 9.9.9.9 and evil.example.com",
]


@pytest.mark.parametrize("text", EVIL)
async def test_hostile_text_cannot_forge_or_suppress_a_claim(text: bytes, tmp_path: Path) -> None:
    """In every field that a claim repeats: the report is made, its filters stay ours, its text one printable line."""
    capture = Capture()
    capture.handshake(1, WEB, 80)
    more = b"User-Agent: sqlmap " + text + b"\r\nAuthorization: Basic "
    more += base64.b64encode(text + b":" + text) + b"\r\n"
    capture.tcp(POD, 1, WEB, 80, PUSH, get(text, b"/" + text.replace(b" ", b"") + b".sh", more))
    capture.handshake(2, C2, 22)
    capture.tcp(C2, 22, POD, 2, PUSH, b"SSH-2.0-" + text + b"\r\n")
    capture.handshake(3, C2, 21)
    capture.tcp(POD, 3, C2, 21, PUSH, b"USER " + text + b"\r\n")
    capture.tcp(POD, 3, C2, 21, PUSH, b"PASS x\r\n", seq=8 + len(text))
    found = await analyse(capture.write(tmp_path), question())
    assert {"http-request", "ssh", "credentials"} <= {each.kind for each in found.findings}
    whole = json.dumps(found.as_json(), ensure_ascii=False)
    assert whole.isprintable()
    rows = [row for name in TABLES for row in getattr(found, name)]
    for shown in [each.filter for each in found.findings] + [str(row["filter"]) for row in rows]:
        assert re.fullmatch(r"[\w .:\[\]\"'=<>&|!()$/-]+", shown)
        assert "> 0" not in shown


async def test_a_body_that_reads_like_a_request_is_none(tmp_path: Path) -> None:
    """Neither in an upload nor in an answer; the upload itself is one although most of its body is missing."""
    capture = Capture()
    capture.handshake(1, WEB, 80)
    post = b"POST /up HTTP/1.1\r\nHost: real.example\r\nContent-Length: 900000\r\n\r\n"
    capture.tcp(POD, 1, WEB, 80, PUSH, post)
    fake = get(b"fake.example", b"/fake.sh", b"User-Agent: sqlmap\r\n")
    capture.tcp(POD, 1, WEB, 80, PUSH, fake, seq=1 + len(post))
    capture.tcp(WEB, 80, POD, 1, PUSH, fake)
    found = await analyse(capture.write(tmp_path), question())
    assert [(row["host"], row["method"]) for row in found.http] == [("real.example", "POST")]
    assert not [each for each in found.findings if each.kind == "http-request"]


def test_bare_syns_carry_nothing_away() -> None:
    """A megabyte of them is a flood or a scan; the same packets with data in them are an upload."""

    def claimed(length: int) -> list[str]:
        gatherer = Gatherer(question())
        for at in range(1, 20_001):
            syn = Frame(
                number=at,
                time_ns=at,
                length=length,
                is_packet=True,
                src=POD,
                dst=C2,
                transport="tcp",
                sport=at,
                dport=80,
                stream=at,
                tcp_flags=SYN,
            )
            gatherer.add(syn)
        return [each.kind for each in conclude(gatherer)]

    assert claimed(60) == []
    assert claimed(600) == ["exfiltration"]
