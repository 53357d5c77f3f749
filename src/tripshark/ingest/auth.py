"""Who may send alerts and read, and whether this caller does: bearer, basic, secret path or client certificate.

Falco's own `http_output` can send no header of its own: it has basic authentication in the URL, a secret path
and client certificates. Falcosidekick has bearer tokens too; a browser, which cannot send one, gives it as the password
of any user. Any one of what is configured lets a caller in.

A client certificate is checked where it can be: in the TLS handshake (`CERT_REQUIRED`). Behind such a listener
every request is authenticated by construction, which `Gate(tls_clients=True)` says.
"""

from __future__ import annotations

import hmac
from base64 import b64decode
from binascii import Error as NotBase64
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256

from tripshark.errors import Denied

Headers = Iterable[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """What callers may show. Never printed."""

    bearer: tuple[str, ...] = field(default=(), repr=False)
    basic: Mapping[str, str] = field(default_factory=dict, repr=False)
    secret_path: str = field(default="", repr=False)


class Gate:
    """Decides for one listener. Compares in constant time, and digests, so that length tells nothing."""

    def __init__(
        self, credentials: Credentials | None = None, *, tls_clients: bool = False
    ) -> None:
        given = credentials or Credentials()
        self._tls_clients = tls_clients
        self._shown = [_digest(b"bearer", token.encode()) for token in given.bearer]
        self._shown += [
            _digest(b"basic", f"{user}:{password}".encode())
            for user, password in given.basic.items()
        ]
        self._path = _digest(b"path", given.secret_path.encode()) if given.secret_path else b""
        self._challenge = ", ".join(
            ['Bearer realm="tripshark"'] * bool(given.bearer)
            + ['Basic realm="tripshark", charset="UTF-8"'] * bool(given.basic or given.bearer)
        )

    @property
    def is_open(self) -> bool:
        """Nobody is asked for anything: settings allow this on loopback only."""
        return not (self._tls_clients or self._shown or self._path)

    @property
    def has_secret_path(self) -> bool:
        return bool(self._path)

    @property
    def challenge(self) -> str:
        """The value of `WWW-Authenticate`; RFC 9110 wants one with every 401."""
        return self._challenge or 'Bearer realm="tripshark"'

    def is_secret_path(self, segment: str) -> bool:
        """This path segment is the secret one."""
        return bool(self._path) and hmac.compare_digest(
            self._path, _digest(b"path", segment.encode())
        )

    def refuse(self, headers: Headers) -> Denied | None:
        """None lets the caller in; otherwise why not, without a word about what would have been right."""
        if self._tls_clients or self.is_open:
            return None
        offered = [value for name, value in headers if name == b"authorization"]
        if len(offered) == 1 and self._is_known(offered[0]):
            return None
        return Denied(
            "credentials are missing or wrong" if self._shown else "this needs credentials",
            hint="send a bearer token or user and password"
            if self._shown
            else "alerts come in by the secret path; for reading set ingest.auth.bearer_files",
        )

    def _is_known(self, value: bytes) -> bool:
        scheme, _, rest = value.partition(b" ")
        rest = rest.strip()
        match scheme.lower():
            case b"bearer":
                digests = [_digest(b"bearer", rest)]
            case b"basic":
                try:
                    told = b64decode(rest, validate=True)
                except (NotBase64, ValueError):
                    return False
                _, _, password = told.partition(b":")
                digests = [_digest(b"basic", told), _digest(b"bearer", password)]
            case _:
                return False
        # No early end: how many comparisons were made would tell which credential is nearly right.
        return sum(hmac.compare_digest(one, known) for one in digests for known in self._shown) > 0


def _digest(kind: bytes, secret: bytes) -> bytes:
    return sha256(kind + b"\0" + secret).digest()
