"""What a file is by its first bytes, whatever its name says."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

HEAD = 512  # bytes that are looked at


class Kind(NamedTuple):
    """`ELF program`; `runs`: a machine or an interpreter can run it as it is."""

    name: str
    runs: bool = False


_STARTS: Final = (
    (b"\x7fELF", Kind("ELF program", runs=True)),
    (b"#!", Kind("script", runs=True)),
    (b"\0asm", Kind("WebAssembly program", runs=True)),
    (b"<?php", Kind("PHP script", runs=True)),
    (b"\xcf\xfa\xed\xfe", Kind("Mach-O program", runs=True)),
    (b"\xce\xfa\xed\xfe", Kind("Mach-O program", runs=True)),
    (b"PK\x03\x04", Kind("ZIP archive")),
    (b"\x1f\x8b", Kind("gzip archive")),
    (b"BZh", Kind("bzip2 archive")),
    (b"\xfd7zXZ\0", Kind("xz archive")),
    (b"\x28\xb5\x2f\xfd", Kind("zstd archive")),
    (b"7z\xbc\xaf\x27\x1c", Kind("7-Zip archive")),
    (b"Rar!\x1a\x07", Kind("RAR archive")),
    (b"!<arch>\ndebian", Kind("Debian package")),
    (b"\xed\xab\xee\xdb", Kind("RPM package")),
    (b"%PDF-", Kind("PDF document")),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", Kind("old Office document")),
    (b"\x89PNG\r\n\x1a\n", Kind("PNG picture")),
    (b"\xff\xd8\xff", Kind("JPEG picture")),
    (b"GIF8", Kind("GIF picture")),
    (b"SQLite format 3\0", Kind("SQLite database")),
    (b"-----BEGIN ", Kind("PEM key or certificate")),
)
_JAVA_OR_MACH: Final = b"\xca\xfe\xba\xbe"
_FEWEST_JAVA = 45  # of a class file's major versions; a universal Mach-O has fewer programs in it
_TAR_AT = 257
_HTML = re.compile(rb"\s*(?:<!doctype html|<html)", re.IGNORECASE)
_TEXT = re.compile(rb"[\t\n\r\x20-\x7e\x80-\xff]*")


def kind_of(head: bytes) -> Kind:
    """By the first `HEAD` bytes."""
    for start, kind in _STARTS:
        if head.startswith(start):
            return kind
    if head.startswith(_JAVA_OR_MACH) and len(head) >= 8:
        is_java = int.from_bytes(head[6:8], "big") >= _FEWEST_JAVA
        return Kind("Java class" if is_java else "Mach-O program", runs=True)
    if head.startswith(b"MZ") and len(head) >= 64:
        return Kind("Windows program", runs=True)
    if head[_TAR_AT : _TAR_AT + 5] == b"ustar":
        return Kind("tar archive")
    if _HTML.match(head):
        return Kind("HTML page")
    if not head:
        return Kind("nothing")
    if _TEXT.fullmatch(head[:HEAD]):
        return Kind("JSON text" if head.lstrip()[:1] in (b"{", b"[") else "text")
    return Kind("data")
