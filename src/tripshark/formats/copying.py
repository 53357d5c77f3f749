"""A pcapng file copied block by block, with comments or TLS secrets added; nothing else changes a bit.

Frames are counted as Wireshark counts them: every packet, and every journal entry, which it shows as a row too.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from tripshark.errors import BadInput
from tripshark.formats import blocks

SECRETS: Final = 10  # Decryption Secrets Block
TLS_KEY_LOG: Final = 0x544C534B
MAX_KEY_LOG: Final = 16 << 20
_CUSTOM: Final = frozenset({0x0BAD, 0x4000_0BAD})  # Wireshark gives each a row
_SYSDIG: Final = frozenset({0x204, 0x208, 0x216, 0x217, 0x221, 0x222})
ROWS: Final = (
    frozenset({blocks.PACKET, blocks.SIMPLE_PACKET, blocks.OLD_PACKET, blocks.JOURNAL})
    | _CUSTOM
    | _SYSDIG
)
_OPTIONS_AT: Final = 28  # of an enhanced packet block, before its packet
_KEY_LINE: Final = re.compile(rb"[A-Z][A-Z0-9_]{2,63} [0-9a-fA-F]{2,512} [0-9a-fA-F]{2,512}")


@dataclass(frozen=True, slots=True)
class _Block:
    kind: int
    raw: memoryview
    order: str  # "<" or ">"
    frame: int  # its row in Wireshark's list, 0 for a block that has none


def annotated(
    data: bytes | memoryview, notes: Mapping[int, Sequence[str]], said: Sequence[str] = ()
) -> bytes:
    """The file with comments: `notes` by frame, behind those a packet has; `said` of the whole file.

    A note at a row that can carry no comment (an alert's) becomes one of the whole file and names its frame.
    Raises `BadInput` for what is no pcapng file, and for a note at a frame that the file does not have.
    """
    whole = list(_walk(data))
    at = {each.frame: each for each in whole if each.frame}
    missing = sorted(set(notes) - set(at))
    if missing:
        raise BadInput(
            f"there is no frame {missing[0]}", where="notes", hint=f"the file has {len(at)}"
        )
    elsewhere = [
        f"Frame {frame}: {text}"
        for frame, texts in sorted(notes.items())
        if at[frame].kind != blocks.PACKET
        for text in texts
    ]
    made = bytearray()
    for each in whole:
        if each is whole[0]:
            made += _with_options(each, 24, _comments([*said, *elsewhere], each.order))
        elif each.kind == blocks.PACKET and each.frame in notes:
            (caplen,) = struct.unpack_from(each.order + "I", each.raw, 20)
            options_at = _OPTIONS_AT + (caplen + 3 & ~3)
            made += _with_options(each, options_at, _comments(notes[each.frame], each.order))
        else:
            made += each.raw
    return bytes(made)


def with_tls_keys(data: bytes | memoryview, key_log: bytes) -> bytes:
    """The file with a TLS key log in front of its packets, where Wireshark decrypts with it.

    Raises `BadInput` for what is no pcapng file or no key log.
    """
    keys = read_key_log(key_log)
    first, *rest = _walk(data)
    body = struct.pack(first.order + "II", TLS_KEY_LOG, len(keys)) + blocks.padded(keys)
    length = struct.pack(first.order + "I", len(body) + 12)
    secrets = struct.pack(first.order + "I", SECRETS) + length + body + length
    return b"".join([first.raw, secrets, *(each.raw for each in rest)])


def read_key_log(key_log: bytes) -> bytes:
    """The lines of an SSLKEYLOGFILE that hold keys; comments go. Raises `BadInput`, naming the first bad line."""
    if len(key_log) > MAX_KEY_LOG:
        raise BadInput(f"a key log has at most {MAX_KEY_LOG >> 20} MiB", where="key log")
    kept = []
    for number, line in enumerate(key_log.splitlines(), start=1):
        words = line.strip()
        if not words or words.startswith(b"#"):
            continue
        if _KEY_LINE.fullmatch(words) is None:
            raise BadInput(
                "not a line of a TLS key log",
                where=f"line {number}",
                hint="CLIENT_RANDOM <hex> <hex>, as SSLKEYLOGFILE has them",
            )
        kept.append(words + b"\n")
    if not kept:
        raise BadInput("the key log holds no key", where="key log")
    return b"".join(kept)


def _walk(data: bytes | memoryview) -> Iterator[_Block]:
    """Every block of a sound file, in order; what follows a torn one is left out. Raises `BadInput`."""
    view = memoryview(data).cast("B")
    order, at, frame = "", 0, 0
    while at + 12 <= len(view):
        if bytes(view[at : at + 4]) == b"\x0a\x0d\x0d\x0a":
            order = _order(view, at) or order
        if not order:
            break
        kind, length = struct.unpack_from(order + "II", view, at)
        if length < _least(kind) or length % 4 or at + length > len(view):
            break
        raw = view[at : at + length]
        has_row = kind in ROWS
        frame += has_row
        yield _Block(kind, raw, order, frame if has_row else 0)
        at += length
    if not at:
        raise BadInput("not a pcapng file", where="its first bytes")


def _order(view: memoryview, at: int) -> str:
    magic = bytes(view[at + 8 : at + 12])
    return {b"\x4d\x3c\x2b\x1a": "<", b"\x1a\x2b\x3c\x4d": ">"}.get(magic, "")


def _least(kind: int) -> int:
    """Bytes that a block has at least."""
    return {blocks.SECTION: 28, blocks.PACKET: 32}.get(kind, 12)


def _comments(texts: Sequence[str], order: str) -> bytes:
    """Options in the section's byte order: `blocks` writes little-endian."""
    made = b""
    for text in texts:
        raw = blocks.text(blocks.COMMENT, text.replace("\n", " ⏎ "))
        code, size = struct.unpack("<HH", raw[:4])
        made += struct.pack(order + "HH", code, size) + raw[4:]
    return made


def _with_options(block: _Block, options_at: int, more: bytes) -> bytes:
    """The block with further options behind those it has."""
    if not more:
        return bytes(block.raw)
    body = bytes(block.raw[8:-4])
    head = struct.Struct(block.order + "HH")
    at = options_at - 8
    while at + 4 <= len(body):
        code, size = head.unpack_from(body, at)
        if code == blocks.END:
            break
        at += 4 + (size + 3 & ~3)
    body = body[: min(at, len(body))] + more + bytes(4)
    length = struct.pack(block.order + "I", len(body) + 12)
    return struct.pack(block.order + "I", block.kind) + length + body + length
