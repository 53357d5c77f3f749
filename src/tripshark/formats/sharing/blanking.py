"""Which bytes of conversations in the clear are credentials or cookies.

Only what is understood is looked through: HTTP/1, SMTP, FTP, POP3, IMAP, Redis; TLS and SSH hold nothing in the clear.
Streams are put together first, so that a value is found wherever TCP cut it; values that a gap in the capture hides the
beginning of are taken for secrets up to the end of their line.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

Span = tuple[int, int]

_HEADERS: Final = (
    rb"authorization|proxy-authorization|cookie|set-cookie2?|x-api-key|x-auth-token|x-csrf-token|x-xsrf-token"
    rb"|x-amz-security-token|x-vault-token|x-access-token|x-goog-api-key|private-token|api-key|sec-websocket-key"
)
_NAMES: Final = (
    rb"password|passwd|passphrase|pass|pwd|secret|client_secret|token|access_token|refresh_token|id_token|auth_token"
    rb"|api[_-]?key|code|code_verifier|assertion|session|session_?id|sid|jsessionid|phpsessid|auth|sig|signature"
    rb"|x-amz-signature|x-amz-credential|x-amz-security-token"
)
_MECHANISMS: Final = rb"(?:PLAIN|LOGIN|CRAM-MD5|XOAUTH2|OAUTHBEARER|NTLM|SCRAM-[A-Z0-9-]+)"
_COMMANDS: Final = rb"QUIT|RSET|NOOP|DATA|EHLO|HELO|STARTTLS"
_SECRET: Final = tuple(
    re.compile(pattern, re.IGNORECASE | re.MULTILINE)
    for pattern in (
        rb"^(?:" + _HEADERS + rb")[ \t]*:[ \t]*([^\r\n]*(?:\r?\n[ \t][^\r\n]*)*)",
        rb"(?<![A-Za-z0-9_-])(?:" + _NAMES + rb")(?:=|%3d)([^&\s\"'<>;]*)",
        rb"\"(?:" + _NAMES + rb")\"\s*:\s*\"((?:[^\"\\]|\\.)*)",
        rb"(?<![a-z0-9+.-])[a-z][a-z0-9+.-]{1,20}://([^/\s@]{1,512})@",
        rb"^(?:USER|PASS|ACCT|APOP)[ \t]+([^\r\n]*)",
        rb"^\S+[ \t]+LOGIN[ \t]+([^\r\n]*)",
        # the mechanism stays, what follows goes: also lines of base64 that answer the server's questions
        rb"^(?:\S+[ \t]+)?AUTH(?:ENTICATE)?\b(?:[ \t]+"
        + _MECHANISMS
        + rb")?([^\r\n]*(?:\r?\n(?!"
        + _COMMANDS
        + rb")[A-Za-z0-9+/=]*(?=[\r\n]|\Z))*)",
        rb"\$\d+\r\nAUTH\r\n((?:\$\d+\r\n[^\r\n]*\r\n?){1,2})",
    )
)
_KNOWN: Final = re.compile(
    rb"(?:GET|HEAD|POST|PUT|DELETE|OPTIONS|PATCH|CONNECT|TRACE) \S+ HTTP/1\.|HTTP/1\.[01] "
    rb"|220[ -]|\+OK|\* OK|(?:EHLO|HELO|USER|CAPA) ?|SSH-|[\x14-\x17]\x03[\x00-\x04]|\*\d+\r\n\$\d+\r\n|\+PONG|-NOAUTH"
)
_LONGEST_LINE: Final = 16_384  # of a value that a gap hid the beginning of


@dataclass(slots=True)
class Stream:
    """One direction of one TCP connection: where which packet's bytes belong; there is at least one."""

    pieces: list[tuple[int, int, bytes]] = field(default_factory=list)  # (sequence, packet, bytes)

    def add(self, sequence: int, packet: int, payload: bytes) -> None:
        self.pieces.append((sequence, packet, payload))


def is_understood(one: Stream, other: Stream | None) -> bool:
    """The conversation begins as one of those that we look through, whichever side spoke first."""
    return any(
        _KNOWN.match(next(_runs(stream)).data) is not None
        for stream in (one, other)
        if stream is not None
    )


def secrets(stream: Stream) -> Iterator[tuple[int, Span]]:
    """`(packet, (from, to))` within each packet's payload; a packet that contradicts an earlier one is a secret whole."""
    gap = False
    for run in _runs(stream):
        spans = list(_spans(bytes(run.data)))
        if gap:
            end = _line_end(run.data)
            spans.append((0, end))
        gap = True
        for at, packet, length in run.places:
            for begin, end in spans:
                low, high = max(begin, at), min(end, at + length)
                if low < high:
                    yield packet, (low - at, high - at)
        yield from ((packet, (0, length)) for packet, length in run.contradicting)


def in_datagram(payload: bytes) -> Sequence[Span]:
    """Of one datagram by itself."""
    return list(_spans(payload))


def _spans(data: bytes) -> Iterable[Span]:
    for pattern in _SECRET:
        for found in pattern.finditer(data):
            if found.start(1) < found.end(1):
                yield found.span(1)


def _line_end(data: bytearray) -> int:
    end = data.find(b"\n", 0, _LONGEST_LINE)
    return min(len(data), _LONGEST_LINE) if end < 0 else end


@dataclass(slots=True)
class _Run:
    """Bytes without a gap, and which packets they came in."""

    start: int
    data: bytearray
    places: list[tuple[int, int, int]]  # (offset in data, packet, length)
    contradicting: list[tuple[int, int]]  # (packet, length)


def _runs(stream: Stream) -> Iterator[_Run]:
    """In the order of the sequence numbers, which may pass zero."""
    base = stream.pieces[0][0]
    pieces = sorted(
        (
            (_distance(sequence, base), packet, payload)
            for sequence, packet, payload in stream.pieces
        ),
        key=lambda piece: piece[:2],
    )
    (at, packet, payload), *rest = pieces
    run = _Run(at, bytearray(payload), [(0, packet, len(payload))], [])
    for at, packet, payload in rest:
        if at > run.start + len(run.data):
            yield run
            run = _Run(at, bytearray(payload), [(0, packet, len(payload))], [])
            continue
        offset = at - run.start
        here = bytes(run.data[offset : offset + len(payload)])
        if here != payload[: len(here)]:
            run.contradicting.append((packet, len(payload)))
            continue
        run.data += payload[len(here) :]
        run.places.append((offset, packet, len(payload)))
    yield run


def _distance(sequence: int, base: int) -> int:
    """How far after `base`, between -2**31 and 2**31: sequence numbers go round."""
    return (sequence - base + (1 << 31)) % (1 << 32) - (1 << 31)
