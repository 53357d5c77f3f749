"""A capture in which everything happens that the analysis has a claim for."""

from __future__ import annotations

import base64
import struct

from tests.analysis.crafted import (
    ACK,
    C2,
    DNS,
    POD,
    PUSH,
    SYN,
    Capture,
    dns_answer,
    dns_question,
    get,
    hello,
)

API, METADATA, NEIGHBOUR = "10.96.0.1", "169.254.169.254", "10.244.9.9"
SINK, WEB, RST = "198.51.100.9", "198.51.100.80", 0x14
ELF = b"\x7fELF" + bytes(60)


def story() -> Capture:
    """Every packet with its own reason; the claims' tests say which."""
    capture = Capture()
    capture.name(POD, "payments/checkout-7d9f")
    capture.look_up(b"c2.evil.example", C2)
    capture.handshake(41_000, C2, 4444)
    capture.alert_row()
    capture.tcp(POD, 41_000, C2, 4444, PUSH, b"hello")
    beacon(capture)
    exfiltration(capture)
    scans(capture)
    places(capture)
    names(capture)
    greetings(capture)
    web(capture)
    logins(capture)
    pings(capture)
    again(capture)
    capture.udp(POD, 40_900, DNS, 53, dns_question(9, b"cut.example")[:20])  # malformed
    return capture


def beacon(capture: Capture) -> None:
    for at in range(8):
        capture.handshake(42_000 + at, "203.0.113.50", 8080)
        capture.now_ns += 60_000_000_000
        capture.tcp(POD, 42_000 + at, "203.0.113.50", 8080, RST)


def exfiltration(capture: Capture) -> None:
    capture.handshake(43_000, SINK, 9000)
    for at in range(30):
        capture.tcp(POD, 43_000, SINK, 9000, PUSH, b"x" * 45_000, seq=1 + 45_000 * at)


def scans(capture: Capture) -> None:
    for at in range(25):
        capture.tcp(POD, 44_000 + at, NEIGHBOUR, 100 + at, SYN, seq=0)
        capture.tcp(NEIGHBOUR, 100 + at, POD, 44_000 + at, RST, seq=0)
    for at in range(25):
        capture.tcp(POD, 45_000 + at, f"10.244.8.{at + 1}", 6379, SYN, seq=0)


def places(capture: Capture) -> None:
    capture.handshake(46_000, METADATA, 80)
    path = b"/latest/meta-data/iam/security-credentials/node"
    capture.tcp(POD, 46_000, METADATA, 80, PUSH, get(METADATA.encode(), path))
    capture.handshake(46_001, API, 443)
    capture.handshake(46_002, "203.0.113.22", 22)
    capture.tcp("203.0.113.22", 22, POD, 46_002, PUSH, b"SSH-2.0-OpenSSH_9.2\r\n")
    capture.tcp(POD, 46_002, "203.0.113.22", 22, PUSH, b"SSH-2.0-Go\r\n")


def names(capture: Capture) -> None:
    for at in range(12):
        missing = b"no-such-name-%d.example" % at
        capture.udp(POD, 47_000 + at, DNS, 53, dns_question(at, missing))
        answer = bytearray(dns_answer(at, missing, []))
        answer[3] = 0x83  # NXDOMAIN
        capture.udp(DNS, 53, POD, 47_000 + at, bytes(answer))
    for at in range(12):
        label = base64.b32encode(bytes([at * 7 % 256, *range(at, at + 25)])).rstrip(b"=")
        capture.udp(POD, 48_000 + at, DNS, 53, dns_question(at, label + b".tunnel.example"))


def greetings(capture: Capture) -> None:
    capture.handshake(49_000, "203.0.113.44", 443)
    capture.tcp(POD, 49_000, "203.0.113.44", 443, PUSH, hello(b"old.example"))
    capture.tcp("203.0.113.44", 443, POD, 49_000, PUSH, server_hello(0x0301, 0x002F))
    capture.handshake(49_001, "203.0.113.45", 443)
    capture.tcp(POD, 49_001, "203.0.113.45", 443, PUSH, nameless_hello())


def web(capture: Capture) -> None:
    capture.handshake(50_000, WEB, 80)
    capture.tcp(POD, 50_000, WEB, 80, PUSH, get(WEB.encode(), b"/x.sh?k=hunter2"))
    body = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(ELF) + ELF
    capture.tcp(WEB, 80, POD, 50_000, PUSH, body)
    capture.handshake(50_001, WEB, 80)
    agent = b"User-Agent: sqlmap/1.7\r\n"
    capture.tcp(POD, 50_001, WEB, 80, PUSH, get(b"shop.example", b"/?id=1", agent))


def logins(capture: Capture) -> None:
    capture.handshake(51_000, "203.0.113.21", 21)
    capture.tcp(POD, 51_000, "203.0.113.21", 21, PUSH, b"USER anna\r\n")
    capture.tcp(POD, 51_000, "203.0.113.21", 21, PUSH, b"PASS hunter2\r\n", seq=12)
    capture.handshake(51_001, NEIGHBOUR, 80)
    basic = b"Authorization: Basic " + base64.b64encode(b"bert:hunter2") + b"\r\n"
    capture.tcp(POD, 51_001, NEIGHBOUR, 80, PUSH, get(b"h.example", b"/", basic))
    capture.handshake(51_002, NEIGHBOUR, 23)
    said = [
        (False, b"login: "),
        *((True, bytes([each])) for each in b"carl\r"),
        (False, b"\r\nPassword: "),
        *((True, bytes([each])) for each in b"hunter2\r"),
    ]
    there = back = 1
    for from_pod, text in said:
        if from_pod:
            capture.tcp(POD, 51_002, NEIGHBOUR, 23, PUSH, text, seq=there)
            there += len(text)
        else:
            capture.tcp(NEIGHBOUR, 23, POD, 51_002, PUSH, text, seq=back)
            back += len(text)


def pings(capture: Capture) -> None:
    for at in range(12):
        echo = struct.pack("!BBHHH", 8, 0, 0, 7, at) + bytes(200 + 10 * at)
        capture.ip(POD, "203.0.113.77", 1, echo)


def again(capture: Capture) -> None:
    capture.handshake(52_000, NEIGHBOUR, 8080)
    for _ in range(40):
        capture.tcp(POD, 52_000, NEIGHBOUR, 8080, PUSH, b"again")
    capture.tcp(NEIGHBOUR, 8080, POD, 52_000, ACK)


def server_hello(version: int, cipher: int) -> bytes:
    body = struct.pack("!H32xBHB", version, 0, cipher, 0)
    message = b"\x02" + struct.pack("!I", len(body))[1:] + body
    return b"\x16\x03\x01" + struct.pack("!H", len(message)) + message


def nameless_hello() -> bytes:
    alpn = struct.pack("!HHH", 16, 5, 3) + b"\x02h2"
    body = (
        b"\x03\x03" + bytes(32) + b"\0\0\x02\x13\x01\x01\0" + struct.pack("!H", len(alpn)) + alpn
    )
    message = b"\x01" + struct.pack("!I", len(body))[1:] + body
    return b"\x16\x03\x01" + struct.pack("!H", len(message)) + message
