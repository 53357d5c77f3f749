"""The JA4 fingerprint of a TLS client: how a program greets, whoever it greets.

`t13d1516h2_8daaf6152771_e5627efa2ab1` is: over TCP (`t`; `q` over QUIC), TLS 1.3, with a server name (`d`; `i`
without), 15 cipher suites, 16 extensions, first and last character of the first ALPN, then a hash of the sorted
suites and one of the sorted extensions (server name and ALPN left out) with the signature algorithms in the order
sent. GREASE values (RFC 8701) count nowhere. As FoxIO's technical details of JA4 say; the client part is free of
its patent and under BSD licence. tshark computes it itself from 4.2 on, and then gives the same.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Final

_SERVER_NAME, _ALPN = 0x0000, 0x0010
_VERSIONS: Final = {
    0x0304: "13",
    0x0303: "12",
    0x0302: "11",
    0x0301: "10",
    0x0300: "s3",
    0x0002: "s2",
}
_NONE: Final = "0" * 12


def ja4(
    *,
    quic: bool,
    version: int,
    versions: Sequence[int],
    ciphers: Sequence[int],
    extensions: Sequence[int],
    alpn: str | None,
    signatures: Sequence[int],
) -> str:
    """The fingerprint of one client hello; "" where the ALPN is no ASCII text and its bytes are not known to us.

    `version` is the hello's own field, `versions` the list of its supported_versions extension, `alpn` the first
    protocol offered (None: no such extension), `signatures` those of the signature_algorithms extension alone.
    """
    known = [each for each in versions if not grease(each)]
    suites = [f"{each:04x}" for each in ciphers if not grease(each)]
    kinds = [each for each in extensions if not grease(each)]
    first = _first_and_last(alpn)
    if first is None:
        return ""
    named = "d" if _SERVER_NAME in kinds else "i"
    head = (
        f"{'q' if quic else 't'}{_VERSIONS.get(max(known, default=version), '00')}{named}"
        f"{min(len(suites), 99):02d}{min(len(kinds), 99):02d}{first}"
    )
    told = ",".join(sorted(f"{each:04x}" for each in kinds if each not in (_SERVER_NAME, _ALPN)))
    signed = ",".join(f"{each:04x}" for each in signatures if not grease(each))
    rest = f"{told}_{signed}" if signed else told
    return f"{head}_{_digest(','.join(sorted(suites)))}_{_digest(rest if kinds else '')}"


def grease(value: int) -> bool:
    """Whether this is one of the sixteen values that mean nothing (0x0a0a, 0x1a1a, …)."""
    return value & 0x0F0F == 0x0A0A and value >> 8 == value & 0xFF


def _first_and_last(alpn: str | None) -> str | None:
    if not alpn:
        return "00"
    if not alpn.isascii():
        return None
    if alpn[0].isalnum() and alpn[-1].isalnum():
        return alpn[0] + alpn[-1]
    told = alpn.encode().hex()
    return told[0] + told[-1]


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12] if text else _NONE
