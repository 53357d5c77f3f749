"""One attempt to sign in at an identity provider: what ties its answer to the browser that asked.

It travels in a cookie of that browser, signed by us, and is kept nowhere else: somebody who begins a million attempts
fills nobody's memory but their own.
"""

from __future__ import annotations

import hmac
import secrets
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Final

import msgspec

LIFETIME_S: Final = 600
_MAX = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """Secrets of one attempt, and where the browser wants to be afterwards."""

    state: str = field(repr=False)
    nonce: str = field(repr=False)
    verifier: str = field(repr=False)
    next: str
    ends_ns: int

    @property
    def challenge(self) -> str:
        """The verifier's S256 (RFC 7636)."""
        return _text(sha256(self.verifier.encode()).digest())


_ATTEMPT = msgspec.json.Decoder(Attempt)


def begin(next: str, now_ns: int) -> Attempt:
    return Attempt(
        state=secrets.token_urlsafe(32),
        nonce=secrets.token_urlsafe(32),
        verifier=secrets.token_urlsafe(48),
        next=next,
        ends_ns=now_ns + LIFETIME_S * 1_000_000_000,
    )


def sealed(attempt: Attempt, key: bytes) -> str:
    """As a cookie's value."""
    body = msgspec.json.encode(attempt)
    return f"{_text(body)}.{_text(_mac(body, key))}"


def opened(value: str, key: bytes, now_ns: int) -> Attempt | None:
    """None: not ours, changed, or too old."""
    if len(value) > _MAX:
        return None
    told, _, mac = value.partition(".")
    try:
        body, given = _bytes(told), _bytes(mac)
    except ValueError:
        return None
    if not hmac.compare_digest(given, _mac(body, key)):
        return None
    attempt = _ATTEMPT.decode(body)
    return attempt if now_ns < attempt.ends_ns else None


def _mac(body: bytes, key: bytes) -> bytes:
    return hmac.digest(key, b"attempt\0" + body, "sha256")


def _text(value: bytes) -> str:
    return urlsafe_b64encode(value).rstrip(b"=").decode()


def _bytes(value: str) -> bytes:
    return urlsafe_b64decode(value + "=" * (-len(value) % 4))
