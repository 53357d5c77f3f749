"""Packets made to measure: a small pcapng writer that can say anything, hostile things above all."""

from __future__ import annotations

import struct
from ipaddress import ip_address
from pathlib import Path

START_NS = 1_790_000_000_000_000_000
POD, DNS, C2 = "10.244.1.7", "10.96.0.10", "203.0.113.66"
SYN, SYN_ACK, ACK, PUSH, FIN = 0x02, 0x12, 0x10, 0x18, 0x11


class Capture:
    """One pcapng file in the making; each packet comes `step_ns` after the one before."""

    def __init__(self, start_ns: int = START_NS, step_ns: int = 1_000_000) -> None:
        self.now_ns = start_ns
        self.step_ns = step_ns
        self._blocks = [
            _block(0x0A0D0D0A, struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1)),
            _block(1, struct.pack("<HHIHHB3xHH", 1, 0, 262_144, 9, 1, 9, 0, 0)),
        ]

    def frame(self, frame: bytes, original: int = 0) -> None:
        """An Ethernet frame as it is; `original` is its length on the wire where it was cut."""
        head = struct.pack(
            "<IIIII",
            0,
            self.now_ns >> 32,
            self.now_ns & 0xFFFFFFFF,
            len(frame),
            original or len(frame),
        )
        self._blocks.append(_block(6, head + frame))
        self.now_ns += self.step_ns

    def ip(self, src: str, dst: str, proto: int, payload: bytes) -> None:
        self.frame(ethernet(ip(src, dst, proto, payload), v6=":" in src))

    def udp(self, src: str, sport: int, dst: str, dport: int, payload: bytes = b"") -> None:
        self.ip(src, dst, 17, udp(sport, dport, payload))

    def tcp(
        self,
        src: str,
        sport: int,
        dst: str,
        dport: int,
        flags: int,
        payload: bytes = b"",
        seq: int = 1,
    ) -> None:
        self.ip(src, dst, 6, tcp(sport, dport, flags, payload, seq))

    def alert_row(self, message: str = "Terminal shell in container") -> None:
        """A systemd-journal block: a row in Wireshark, and no packet."""
        entry = f"__REALTIME_TIMESTAMP={self.now_ns // 1000}\nMESSAGE={message}\n".encode()
        self._blocks.append(_block(9, entry))

    def name(self, address: str, name: str) -> None:
        """A name resolution record."""
        packed = ip_address(address).packed
        record = packed + name.encode() + b"\0"
        kind = 1 if len(packed) == 4 else 2
        body = struct.pack("<HH", kind, len(record)) + record + bytes(-len(record) % 4) + bytes(4)
        self._blocks.append(_block(4, body))

    def handshake(self, sport: int, dst: str, dport: int, src: str = POD) -> None:
        self.tcp(src, sport, dst, dport, SYN, seq=0)
        self.tcp(dst, dport, src, sport, SYN_ACK, seq=0)
        self.tcp(src, sport, dst, dport, ACK)

    def look_up(self, name: bytes, address: str, *, id: int = 7, sport: int = 40001) -> None:
        """A question and its answer."""
        self.udp(POD, sport, DNS, 53, dns_question(id, name))
        self.udp(DNS, 53, POD, sport, dns_answer(id, name, [(name, address)]))

    def bytes(self) -> bytes:
        return b"".join(self._blocks)

    def write(self, folder: Path, name: str = "evidence.pcapng") -> Path:
        path = folder / name
        path.write_bytes(self.bytes())
        return path


def ethernet(payload: bytes, *, v6: bool = False) -> bytes:
    return bytes.fromhex("020000000002020000000001") + (b"\x86\xdd" if v6 else b"\x08\0") + payload


def ip(src: str, dst: str, proto: int, payload: bytes, fragment: int = 0) -> bytes:
    a, b = ip_address(src).packed, ip_address(dst).packed
    if len(a) == 16:
        return struct.pack("!IHBB", 6 << 28, len(payload), proto, 64) + a + b + payload
    length = 20 + len(payload)
    return struct.pack("!BBHHHBBH", 0x45, 0, length, 9, fragment, 64, proto, 0) + a + b + payload


def udp(sport: int, dport: int, payload: bytes) -> bytes:
    return struct.pack("!HHHH", sport, dport, 8 + len(payload), 0) + payload


def tcp(sport: int, dport: int, flags: int, payload: bytes = b"", seq: int = 1) -> bytes:
    return struct.pack("!HHIIBBHHH", sport, dport, seq, 1, 0x50, flags, 64_000, 0, 0) + payload


def labels(name: bytes) -> bytes:
    """A name as it stands in a DNS message; a label may hold any byte but a dot."""
    return b"".join(bytes([len(each)]) + each for each in name.split(b".")) + b"\0"


def dns_question(id: int, name: bytes, kind: int = 1) -> bytes:
    return struct.pack("!6H", id, 0x0100, 1, 0, 0, 0) + labels(name) + struct.pack("!HH", kind, 1)


def dns_answer(
    id: int,
    name: bytes,
    answers: list[tuple[bytes, str | bytes]],
    additional: list[tuple[bytes, str]] | None = None,
) -> bytes:
    """`answers` are (owner, address) or, for a CNAME, (owner, name)."""
    extra = additional or []
    head = struct.pack("!6H", id, 0x8180, 1, len(answers), 0, len(extra))
    records = b"".join(_record(owner, value) for owner, value in [*answers, *extra])
    return head + labels(name) + struct.pack("!HH", 1, 1) + records


def hello(name: bytes) -> bytes:
    """A TLS client hello."""
    sni = struct.pack("!HHHBH", 0, len(name) + 5, len(name) + 3, 0, len(name)) + name
    alpn = struct.pack("!HHH", 16, 5, 3) + b"\x02h2"
    extensions = sni + alpn
    body = b"\x03\x03" + bytes(32) + b"\0\0\x02\x13\x01\x01\0"
    body += struct.pack("!H", len(extensions)) + extensions
    message = b"\x01" + struct.pack("!I", len(body))[1:] + body
    return b"\x16\x03\x01" + struct.pack("!H", len(message)) + message


def get(host: bytes, uri: bytes = b"/", more: bytes = b"") -> bytes:
    return b"GET " + uri + b" HTTP/1.1\r\nHost: " + host + b"\r\n" + more + b"\r\n"


def beacon() -> Capture:
    """The demo's story: a look-up, a handshake to port 4444, a few bytes each way, the alert among them."""
    capture = Capture()
    capture.name(POD, "payments/checkout-7d9f")
    capture.look_up(b"c2.evil.example", C2)
    capture.handshake(41_000, C2, 4444)
    capture.alert_row()
    capture.tcp(POD, 41_000, C2, 4444, PUSH, b"hello")
    capture.tcp(C2, 4444, POD, 41_000, PUSH, b"id; uname -a", seq=1)
    return capture


def _record(owner: bytes, value: str | bytes) -> bytes:
    if isinstance(value, bytes):
        kind, data = 5, labels(value)
    else:
        data = ip_address(value).packed
        kind = 1 if len(data) == 4 else 28
    return labels(owner) + struct.pack("!HHIH", kind, 1, 60, len(data)) + data


def _block(kind: int, body: bytes) -> bytes:
    body += bytes(-len(body) % 4)
    length = len(body) + 12
    return struct.pack("<II", kind, length) + body + struct.pack("<I", length)
