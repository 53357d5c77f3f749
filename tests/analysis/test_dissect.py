"""Findings agree with what tshark says when asked by other commands, whatever the file holds."""

from __future__ import annotations

import gzip
import json
import re
import struct
import subprocess
from collections import Counter
from pathlib import Path

import pytest

from tests.analysis.asking import BOUNDS, analyse, bounded, flow, question
from tests.analysis.crafted import (
    ACK,
    C2,
    DNS,
    POD,
    PUSH,
    Capture,
    beacon,
    dns_question,
    ethernet,
    get,
    hello,
    ip,
    labels,
    tcp,
)
from tripshark.analysis import dissect as dissect_module
from tripshark.analysis.sandbox import Policy
from tripshark.errors import Permanent
from tripshark.model.finding import Findings

CAPTURES = sorted((Path(__file__).parent.parent / "captures").glob("*.pcap*"))
ROW = re.compile(r"(\S+):(\d+)\s+<->\s+(\S+):(\d+)\s+(\d+) (\d+) bytes\s+(\d+) (\d+) bytes")

Side = tuple[str, int, int, int]


def told_by_tshark(path: Path) -> dict[str, Counter[frozenset[Side]]]:
    """Conversations of `-z conv`, by protocol: per conversation the two ends with what each sent."""
    command = ["tshark", "-n", "-q", "-r", str(path), "-z", "conv,tcp", "-z", "conv,udp"]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found: dict[str, Counter[frozenset[Side]]] = {}
    for title, table in re.findall(r"(TCP|UDP) Conversations(.*?)={60}\n(?=={60}|\Z)", text, re.S):
        rows = found[title.lower()] = Counter()
        for a, a_port, b, b_port, back, back_bytes, there, there_bytes in ROW.findall(table):
            one = (a, int(a_port), int(there), int(there_bytes))
            other = (b, int(b_port), int(back), int(back_bytes))
            rows[frozenset({one, other})] += 1
    return found


def found_by_us(findings: Findings, proto: str) -> Counter[frozenset[Side]]:
    return Counter(
        frozenset(
            {
                (each.a, each.a_port, each.packets_ab, each.bytes_ab),
                (each.b, each.b_port, each.packets_ba, each.bytes_ba),
            }
        )
        for each in findings.conversations
        if each.proto == proto
    )


def fields(path: Path, show: str, *names: str) -> list[list[str]]:
    command = ["tshark", "-n", "-r", str(path), "-Y", show, "-T", "fields"]
    for name in names:
        command += ["-e", name]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return [line.split("\t") for line in text.splitlines()]


@pytest.mark.parametrize("path", CAPTURES, ids=lambda path: path.stem)
async def test_numbers_and_names_are_those_of_tshark(path: Path) -> None:
    """Conversations equal `-z conv`, both ways; DNS, SNI, HTTP and SSH equal `-T fields`; all is counted."""
    findings = await analyse(path, question())
    told = told_by_tshark(path)
    assert {proto: found_by_us(findings, proto) for proto in ("tcp", "udp")} == told
    assert findings.complete
    assert not findings.notes
    shown = ("dns.qry.name", "tls.handshake.extensions_server_name", "http.host", "ssh.protocol")
    packets = fields(path, "!systemd_journal", *shown)
    assert findings.packets == len(packets)
    counted = sum(each.packets for each in findings.conversations)
    assert counted + findings.other_packets == findings.packets
    ours = (
        {row["name"] for row in findings.dns},
        {row["name"] for row in findings.tls},
        {row["host"] for row in findings.http},
        {row["banner"] for row in findings.ssh},
    )
    assert ours == tuple({row[at] for row in packets} - {""} for at in range(4))


@pytest.mark.parametrize("path", CAPTURES[::2], ids=lambda path: path.stem)
async def test_every_filter_shows_what_it_stands_for(path: Path) -> None:
    """The display filter of each entry, given to tshark, shows the entry's own frame among others."""
    findings = await analyse(path, question())
    rows = [*findings.dns, *findings.tls, *findings.http, *findings.ssh]
    expected = [(str(row["filter"]), str(row["frame"])) for row in rows]
    expected += [(each.filter, str(each.frame)) for each in findings.conversations]
    for show, frame in list(dict.fromkeys(expected))[:6]:
        assert [frame] in fields(path, show, "frame.number"), show


async def test_the_beacon_story_is_told_whole(tmp_path: Path) -> None:
    """Look-up, flow, direction, names, alert rows skipped but numbered, and a paragraph that says it."""
    path = beacon().write(tmp_path)
    findings = await analyse(path, question(flow(C2, 4444)))
    assert findings.flow_captured is True
    assert findings.flow is not None
    assert findings.flow.from_start
    assert (findings.flow.a, findings.flow.b, findings.flow.b_port) == (POD, C2, 4444)
    assert (findings.flow.packets_ab, findings.flow.packets_ba) == (3, 2)
    assert findings.flow.frame == 3
    assert findings.packets == 7  # of eight rows
    assert findings.names == {C2: "c2.evil.example"}
    assert findings.seconds_before_alert == 0.01
    assert findings.manifest_sha256 == "ab" * 32
    assert {"uid", "seccomp", "capabilities"} <= set(findings.sandbox)
    assert findings.summary.startswith(
        "payments/checkout-7d9f looked up c2.evil.example (203.0.113.66) 10 ms before the alert and then "
        "opened TCP 203.0.113.66:4444: 5 packets, 167 B out, 120 B in. The flow named by the alert was "
        "captured from its first packet (SYN), 8 ms before the alert."
    )
    assert Findings.from_json(json.loads(json.dumps(findings.as_json()))) == findings


HOSTILE = [
    b'a\n{"layers":{"frame_number":["9"]}}',
    b"<script>alert(1)</script>",
    b"\x1b]0;owned\x07\x1b[2J",
    b"tab\there",
    b'quote"back\\slash',
    b"\xff\xfe\x80",
    "\u202eltr\u2066".encode(),
    b"x, y; z",
    b"' || 1 == 1",
    b"%s%n$(id)`id`",
]


@pytest.mark.parametrize("text", HOSTILE)
async def test_hostile_text_stays_inside_its_field(text: bytes, tmp_path: Path) -> None:
    """Names made of JSON, HTML, terminal codes or new lines add no packet, no row and no control character."""
    one_line = text.replace(b"\n", b"")
    capture = Capture()
    name = bytes([len(text)]) + text + b"\7example\0"
    question_ = dns_question(7, b"x").replace(labels(b"x"), name)
    capture.udp(POD, 1000, DNS, 53, question_)
    capture.tcp(POD, 2000, C2, 443, PUSH, hello(text))
    capture.tcp(POD, 3000, C2, 80, PUSH, get(one_line, b"/" + one_line.replace(b" ", b"")))
    capture.tcp(POD, 4000, C2, 22, PUSH, b"SSH-2.0-" + one_line + b"\r\n")
    path = capture.write(tmp_path)
    findings = await analyse(path, question(flow(C2, 4444)))
    assert findings.packets == 4
    assert not findings.notes
    assert len(findings.dns) == len(findings.tls) == len(findings.http) == len(findings.ssh) == 1
    everything = json.dumps(findings.as_json(), ensure_ascii=False)
    assert everything.isprintable()
    assert not re.search("[\u202a-\u202e\u2066-\u2069]", everything)
    assert "\n" not in findings.summary
    rows = (*findings.dns, *findings.tls, *findings.http, *findings.ssh)
    shown = fields(path, " || ".join(f"({row['filter']})" for row in rows), "frame.number")
    assert shown == [["1"], ["2"], ["3"], ["4"]]


async def test_no_credential_is_ever_repeated(tmp_path: Path) -> None:
    """Query strings, user parts, basic authentication and cookies stay in the evidence alone."""
    capture = Capture()
    more = b"Authorization: Basic c29tZW9uZTpodW50ZXIy\r\nCookie: s=hunter2\r\n"
    capture.tcp(POD, 1, C2, 80, PUSH, get(b"u:hunter2@h.example", b"/in?token=hunter2", more))
    capture.tcp(POD, 2, C2, 80, PUSH, get(b"h.example", b"http://u:hunter2@h.example/a#hunter2"))
    capture.tcp(POD, 3, C2, 21, PUSH, b"PASS hunter2\r\n")
    findings = await analyse(capture.write(tmp_path), question())
    assert [row["uri"] for row in findings.http] == ["/in?…", "http://h.example/a#…"]
    assert "hunter2" not in json.dumps(findings.as_json())
    assert "aHVudGVy" not in json.dumps(findings.as_json())


async def test_a_name_from_the_file_cannot_pass_for_an_address(tmp_path: Path) -> None:
    """A name resolution record that renames an address changes nothing: addresses stay addresses."""
    capture = Capture()
    capture.name(C2, "198.51.100.1")
    capture.handshake(41_000, C2, 4444)
    findings = await analyse(capture.write(tmp_path), question(flow(C2, 4444)))
    assert [each.b for each in findings.conversations] == [C2]
    assert findings.flow_captured


async def test_a_file_cut_short_gives_what_came_before(tmp_path: Path) -> None:
    """Findings up to the cut, *incomplete*, with tshark's own words in the note and the paragraph."""
    whole = beacon().bytes()
    path = tmp_path / "cut.pcapng"
    path.write_bytes(whole[:-30])
    findings = await analyse(path, question(flow(C2, 4444)))
    assert findings.packets == 6
    assert findings.flow_captured
    assert not findings.complete
    assert "cut short" in findings.notes[0]
    assert "did not get to the end" in findings.summary


async def test_a_file_that_turns_bad_half_way_gives_what_came_before(tmp_path: Path) -> None:
    """A broken block in the middle makes tshark exit non-zero; what it said before is kept."""
    path = tmp_path / "bad.pcapng"
    path.write_bytes(beacon().bytes() + b"\x06\0\0\0\x0d\0\0\0garbage" + bytes(64))
    findings = await analyse(path, question())
    assert findings.packets == 7
    assert not findings.complete
    assert "exit code 2" in findings.notes[0]


@pytest.mark.parametrize("content", [b"", b"root:x:0:0:root", bytes(1000)])
async def test_garbage_is_refused_with_the_reason(content: bytes, tmp_path: Path) -> None:
    """No packets to speak of and a failing tshark: an error, no empty findings."""
    path = tmp_path / "garbage"
    path.write_bytes(content)
    with pytest.raises(Permanent, match=r"tshark could not read the file|the file is empty"):
        await analyse(path, question())


async def test_evidence_of_absence_is_told(tmp_path: Path) -> None:
    """A file without packets is no error."""
    capture = Capture()
    capture.alert_row()
    findings = await analyse(capture.write(tmp_path), question(flow(C2, 4444)))
    assert (findings.packets, findings.flow_captured) == (0, False)
    assert findings.summary.startswith("No packet of payments/checkout-7d9f was found")


async def test_a_tshark_that_runs_out_of_time_leaves_its_findings(tmp_path: Path) -> None:
    """Stopped by the wall clock half-way: what was read so far, incomplete, and why."""
    capture = Capture()
    for number in range(60_000):
        capture.udp(POD, 1000 + number % 50_000, C2, 9, b"x" * 10)
    path = capture.write(tmp_path)
    findings = None
    for wall_s in (0.4, 0.6, 1.0, 1.5):  # until the machine, however busy, has told something
        try:
            findings = await analyse(path, question(), bounded(wall_s=wall_s))
        except Permanent:
            continue
        break
    assert findings is not None
    if not findings.complete:
        assert "stopped after" in findings.notes[0]
        assert 0 < findings.packets < 60_000


async def test_a_tshark_killed_by_its_limits_is_an_answer(tmp_path: Path) -> None:
    """Too little memory to start is told as an error with the way it ended."""
    path = beacon().write(tmp_path)
    small = bounded(policy=Policy(uid=65_534, memory_bytes=40 << 20))
    with pytest.raises(Permanent, match=r"could not (read the file|start)"):
        await analyse(path, question(), small)


async def test_output_beyond_the_bound_is_cut_and_said(tmp_path: Path) -> None:
    """Findings up to the bound and a note."""
    capture = Capture()
    for _ in range(2000):
        capture.udp(POD, 1000, C2, 9)
    findings = await analyse(capture.write(tmp_path), question(), bounded(output_bytes=400_000))
    assert 0 < findings.packets < 2000
    assert "bytes of output" in findings.notes[0]


async def test_fragments_keep_their_conversation_and_say_what_they_are(tmp_path: Path) -> None:
    """A later fragment has no ports: it is told as a fragment, and no bytes are lost."""
    capture = Capture()
    whole = tcp(1000, 80, ACK, b"y" * 40)
    capture.frame(ethernet(ip(POD, C2, 17, whole[:24], fragment=0x2000)))
    capture.frame(ethernet(ip(POD, C2, 17, whole[24:], fragment=3)))
    capture.ip(POD, C2, 253, b"nobody knows")
    findings = await analyse(capture.write(tmp_path), question())
    protos = {each.proto for each in findings.conversations}
    assert "ip protocol 253" in protos
    assert any(proto.endswith("fragment") for proto in protos)
    assert sum(each.packets for each in findings.conversations) == 3


async def test_tunnels_are_told_by_their_outer_header(tmp_path: Path) -> None:
    """IP in GRE: the conversation is the tunnel's, and says what it carries."""
    capture = Capture()
    inner = ip("10.9.9.1", "10.9.9.2", 6, tcp(1, 4444, PUSH, b"hi"))
    capture.ip(POD, C2, 47, b"\0\0\x08\0" + inner)
    findings = await analyse(capture.write(tmp_path), question(flow("10.9.9.2", 4444)))
    (talk,) = findings.conversations
    assert (talk.a, talk.b, talk.proto, talk.tunnel) == (POD, C2, "gre", "gre")
    assert findings.flow_captured is False


async def test_a_missing_tshark_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error carries the command that mends it."""
    monkeypatch.setattr(dissect_module, "PLACES", ("/nonexistent/tshark",))
    with pytest.raises(Permanent, match="apt-get install tshark"):
        dissect_module.find_tshark()


async def test_something_else_in_tsharks_place_is_found_out() -> None:
    """A program that does not say it is tshark is not asked to dissect."""
    with open("/dev/null", "rb") as null, pytest.raises(Permanent, match="does not run here"):
        await dissect_module.version("/usr/bin/true", null.fileno(), BOUNDS)


SAID = ("tls13", "tls-alpn-h2", "quicietf", "icmp-frame-relay", "smtp-data-250", "ssh2")


@pytest.mark.parametrize("stem", SAID)
async def test_fingerprints_echoes_remarks_and_logins_are_those_of_tshark(stem: str) -> None:
    """JA3 by field, ICMP by count, experts as `-z expert` counts them, logins where `-z credentials` sees them."""
    (path,) = [each for each in CAPTURES if each.stem == stem]
    findings = await analyse(path, question())
    shown = "tls.handshake.type == 1"
    ja3 = {row[0] for row in fields(path, shown, "tls.handshake.ja3")}
    assert {row["ja3"] for row in findings.tls} == ja3
    assert all(re.fullmatch(r"[tq]\w{9}_\w{12}_\w{12}", str(row["ja4"])) for row in findings.tls)
    echoes = Counter((row[0], row[1]) for row in fields(path, "icmp", "icmp.type", "icmp.code"))
    assert (
        Counter({(str(row["type"]), str(row["code"])): row["count"] for row in findings.icmp})
        == echoes
    )
    command = ["tshark", "-n", "-q", "-r", str(path), "-z", "expert,note", "-z", "credentials"]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    remarks = re.findall(r"^ +(\d+) +(\w+) +(\S+)  (\S.*)$", told, re.M)
    assert {(row["group"], row["summary"], row["count"]) for row in findings.experts} == {
        (group, summary, int(count)) for count, group, _, summary in remarks
    }
    seen = {int(each) for each in re.findall(r"^(\d+) +\S+ +\S+", told, re.M)}
    assert {row["frame"] for row in findings.credentials} <= seen or not seen


async def test_a_small_packet_cannot_unpack_without_end(tmp_path: Path) -> None:
    """A body that would unpack to a thousand times its size is not looked into, and costs no time."""
    packed = gzip.compress(bytes(60 << 20), 9)[:60_000]
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(packed)
    capture = Capture()
    capture.handshake(1, C2, 80)
    capture.tcp(POD, 1, C2, 80, PUSH, get(b"h.example"))
    capture.tcp(C2, 80, POD, 1, PUSH, head + packed[:50_000])
    capture.tcp(C2, 80, POD, 1, PUSH, packed[50_000:], seq=1 + len(head) + 50_000)
    findings = await analyse(capture.write(tmp_path), question())
    assert findings.complete
    assert findings.packets == 6
    assert [row["host"] for row in findings.http] == ["h.example"]
    assert findings.files == ()


async def test_bodies_in_packets_of_their_own_hide_nothing(tmp_path: Path) -> None:
    """As HTTP libraries send them: every request, status and form is told as tshark tells it, unfinished ones too."""
    capture = Capture()
    capture.handshake(40_000, C2, 80)
    sent, came = 1, 1

    def say(text: bytes) -> None:
        nonlocal sent
        capture.tcp(POD, 40_000, C2, 80, PUSH, text, sent)
        sent += len(text)

    def answer(text: bytes) -> None:
        nonlocal came
        capture.tcp(C2, 80, POD, 40_000, PUSH, text, came)
        came += len(text)

    form = b"user=bob&password=hunter2"
    for at in range(3):
        kind = b"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: %d\r\n"
        say(b"POST /login HTTP/1.1\r\nHost: api\r\n" + kind % len(form) + b"\r\n")
        say(form)
        answer(b"HTTP/1.1 %d Yes\r\nContent-Length: 2\r\n\r\n" % (201 + at))
        answer(b"ok")
        say(b"GET /%d HTTP/1.1\r\nHost: api\r\n\r\n" % at)
        answer(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    say(b"PUT /loot HTTP/1.1\r\nHost: api\r\nContent-Length: 9000\r\n\r\n")
    say(b"x" * 500)
    path = capture.write(tmp_path)
    findings = await analyse(path, question())
    told = {(row["method"], row["uri"], row["status"]): row["count"] for row in findings.http}
    by_tshark = Counter[tuple[str, str, int]]()
    fields = ("http.request.method", "http.request.uri", "http.response.code", "http.request_in")
    command = ["tshark", "-n", "-r", str(path), "-T", "fields", "-e", "frame.number"]
    command += [word for name in fields for word in ("-e", name)]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    rows = [line.split("\t") for line in text.splitlines()]
    asked = {row[0]: (row[1], row[2]) for row in rows if row[1]}
    for row in rows:
        if row[3]:
            by_tshark[(*asked[row[4]], int(row[3]))] += 1
    assert told == {**by_tshark, ("PUT", "/loot", 0): 1}
    assert len(by_tshark) == 6
    (login,) = findings.credentials
    assert (login["proto"], login["user"], login["secret"]) == ("HTTP form", "bob", "7 characters")
    assert login["count"] == 3


async def test_a_remark_made_twice_of_one_packet_is_one(tmp_path: Path) -> None:
    """An error that tshark notes twice in a packet counts its packets; a numbered remark is one row."""
    capture = Capture()
    capture.handshake(40_000, C2, 443)
    for _ in range(30):
        capture.tcp(POD, 40_000, C2, 443, ACK)
    bad = struct.pack("!6H", 7, 0x8180, 1, 0, 0, 0) + b"\x09cut"
    capture.handshake(40_001, DNS, 53)
    capture.tcp(DNS, 53, POD, 40_001, PUSH, 2 * (struct.pack("!H", len(bad)) + bad))
    findings = await analyse(capture.write(tmp_path), question())
    assert not [each for each in findings.notes if "refused" in each]
    remarks = {row["summary"]: row for row in findings.experts}
    assert remarks["Duplicate ACK"]["count"] == 32
    assert remarks["Duplicate ACK"]["filter"] == "tcp.analysis.duplicate_ack"
    (error,) = findings.findings
    assert (error.kind, error.matches) == ("expert", 1)
