"""Asks the running service of a data folder, as commands do: over its own socket, else over HTTP with credentials."""

from __future__ import annotations

import base64
import http.client
import json
import re
import socket
import ssl
from collections.abc import Mapping
from pathlib import Path

from tripshark.errors import (
    BadInput,
    Denied,
    NotFound,
    Permanent,
    Refused,
    Transient,
    TripsharkError,
)
from tripshark.settings import Settings

TIMEOUT = 40.0  # seconds; a capture by hand is answered within 30
MAX_ANSWER = 64 << 20

_KINDS: dict[str, type[TripsharkError]] = {
    each.code: each for each in (BadInput, Denied, NotFound, Permanent, Refused, Transient)
}
_PEM = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)


class Service:
    """The service behind the settings; `at` (ADDRESS:PORT) asks another one, with the credentials of the settings.

    No proxy of the environment is ever used: what is asked here lies on this machine or beside it.
    """

    def __init__(self, settings: Settings, *, at: str | None = None) -> None:
        self._settings = settings
        self._at = at

    @property
    def where(self) -> str:
        """Where it listens for others: as it said itself, else as it is configured."""
        scheme = "https" if self._settings.tls.cert else "http"
        if self._at is not None:
            return f"{scheme}://{self._settings.listen}"
        try:
            return (self._settings.data / "listening").read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError):
            return f"{scheme}://{self._settings.listen}"

    def call(self, path: str, body: Mapping[str, object] | None = None) -> dict[str, object]:
        """GET, or POST where there is a body. Raises the error that was answered, or `Transient` for no answer."""
        status, answer = self.ask(path, body)
        if status >= 400:
            raise _told(status, answer, self.where)
        return answer

    def ask(
        self, path: str, body: Mapping[str, object] | None = None
    ) -> tuple[int, dict[str, object]]:
        """Status and JSON of the answer, whatever the status. Raises `Transient` when nobody answers."""
        connection, headers = self._connection()
        headers["Content-Type"] = "application/json"
        try:
            connection.request(
                "GET" if body is None else "POST",
                path,
                None if body is None else json.dumps(body).encode(),
                headers,
            )
            response = connection.getresponse()
            answer = json.loads(response.read(MAX_ANSWER) or b"null")
        except (OSError, http.client.HTTPException, ValueError) as problem:
            raise Transient(
                f"the service does not answer: {problem}",
                where=self.where,
                hint="is `tripshark run` running? name its --data or --listen",
            ) from problem
        finally:
            connection.close()
        return response.status, answer if isinstance(answer, dict) else {}

    def _connection(self) -> tuple[http.client.HTTPConnection, dict[str, str]]:
        if self._at is None:
            here = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            here.settimeout(TIMEOUT)
            try:
                here.connect(str(self._settings.api_socket))
            except OSError:  # not running, or not ours to open: then like anybody else
                here.close()
            else:
                connection = http.client.HTTPConnection("localhost", timeout=TIMEOUT)
                connection.sock = here
                return connection, {}
        scheme, _, place = self.where.partition("://")
        if scheme == "https":
            context = _knows_own(self._settings.tls.cert)
            return http.client.HTTPSConnection(
                place, timeout=TIMEOUT, context=context
            ), self._shown()
        return http.client.HTTPConnection(place, timeout=TIMEOUT), self._shown()

    def _shown(self) -> dict[str, str]:
        """The first credential that the settings know."""
        for token in self._settings.bearer_tokens()[:1]:
            return {"Authorization": f"Bearer {token}"}
        for user, password in self._settings.ingest.auth.basic.items():
            pair = f"{user}:{password.get_secret_value()}".encode()
            return {"Authorization": f"Basic {base64.b64encode(pair).decode()}"}
        return {}


def _knows_own(cert: Path | None) -> ssl.SSLContext:
    """Trusts the very certificate that the settings name, whatever name it is for; else what this machine trusts."""
    if cert is None:
        return ssl.create_default_context()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    try:
        found = _PEM.search(cert.read_text(encoding="ascii"))
        context.load_verify_locations(cadata=found[0] if found else "")
    except (OSError, ValueError) as problem:
        raise BadInput(
            f"the certificate cannot be read: {problem}", where=str(cert), hint="see tls.cert"
        ) from problem
    return context


def _told(status: int, answer: Mapping[str, object], where: str) -> TripsharkError:
    error = answer.get("error")
    if not isinstance(error, dict):
        return Permanent(f"the service answered {status}", where=where)
    kind = _KINDS.get(str(error.get("code")), BadInput if status in (400, 413, 415) else Permanent)
    return kind(
        str(error.get("message", "")),
        where=str(error.get("where") or where),
        hint=str(error.get("hint", "")),
    )
