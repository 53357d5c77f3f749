"""Asks a running Tripshark for Wireshark: over its socket on this machine, or over HTTP with a token out of a file.

The standard library alone, and that late: Wireshark asks for interfaces whenever it starts.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlencode, urlsplit

from tripshark.errors import BadInput, Denied, NotFound, Permanent, Transient, TripsharkError

if TYPE_CHECKING:
    from http.client import HTTPConnection, HTTPResponse

MAX_ANSWER: Final = 16 << 20
PIECE: Final = 1 << 16
_MAX_TOKEN: Final = 16_384


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """Where to ask. `socket` is tried first; then `url`, with what `token_file` holds."""

    socket: Path | None = None
    url: str = ""
    token_file: Path | None = None
    ca_file: Path | None = None

    @property
    def where(self) -> str:
        return self.url or str(self.socket or "")

    def json(self, path: str, *, seconds: float, **asked: str) -> dict[str, object]:
        """GET. Raises `Transient` when nobody answers within about this time, and what was answered."""
        with self._answer("GET", _with(path, asked), seconds) as (_, response):
            return _object(response)

    def post(self, path: str, body: Mapping[str, object], *, seconds: float) -> dict[str, object]:
        """POST with a JSON body; otherwise like `json`."""
        with self._answer("POST", path, seconds, json.dumps(body).encode()) as (_, response):
            return _object(response)

    def send(
        self, path: str, content: bytes, *, media: str, seconds: float, **asked: str
    ) -> dict[str, object]:
        """POST a body as it is; otherwise like `json`."""
        with self._answer("POST", _with(path, asked), seconds, content, media) as (_, response):
            return _object(response)

    @contextmanager
    def stream(
        self, path: str, *, seconds: float, **asked: str
    ) -> Iterator[tuple[Mapping[str, str], Iterator[bytes]]]:
        """GET an answer that may be endless: its headers (lower case) and its pieces as they come.

        What an object store hands out itself is fetched there, without the token.
        """
        with self._answer("GET", _with(path, asked), seconds) as (connection, response):
            if response.status == 307:
                there = Service(url=response.getheader("location", ""), ca_file=self.ca_file)
                with there.stream("", seconds=seconds) as elsewhere:
                    yield elsewhere
                return
            if connection.sock is not None:
                connection.sock.settimeout(None)  # nothing may come for hours
            headers = {name.lower(): value for name, value in response.getheaders()}
            yield headers, _pieces(response, self.where)

    @contextmanager
    def _answer(
        self,
        method: str,
        path: str,
        seconds: float,
        body: bytes | None = None,
        media: str = "application/json",
    ) -> Iterator[tuple[HTTPConnection, HTTPResponse]]:
        from http.client import HTTPException

        connection, target, headers = self._connected(path, seconds)
        if body is not None:
            headers["Content-Type"] = media
        try:
            connection.request(method, target, body, headers)
            response = connection.getresponse()
        except (OSError, HTTPException, ValueError) as problem:
            connection.close()
            raise Transient(
                f"the service does not answer: {problem}",
                where=self.where,
                hint="is `tripshark run` running?",
            ) from problem
        try:
            if response.status >= 400:
                raise _told(response, self.where)
            yield connection, response
        finally:
            response.close()
            connection.close()

    def _connected(self, path: str, seconds: float) -> tuple[HTTPConnection, str, dict[str, str]]:
        from http.client import HTTPConnection, HTTPSConnection

        if self.socket is not None and (here := _opened(self.socket, seconds)) is not None:
            connection = HTTPConnection("localhost", timeout=seconds)
            connection.sock = here
            return connection, path, {}
        if not self.url:
            raise Transient(
                "the service is away, or this user may not ask it",
                where=self.where,
                hint="start `tripshark run`, or join the group that owns its socket",
            )
        asked = urlsplit(self.url)
        if asked.scheme not in ("http", "https") or not asked.hostname or asked.username:
            raise BadInput(
                "not an address of a service", where=self.url[:200], hint="https://HOST:PORT"
            )
        target = (asked.path.rstrip("/") if path else asked.path or "/") + path
        target += f"?{asked.query}" if asked.query and not path else ""
        headers = {}
        if self.token_file is not None:
            if asked.scheme == "http" and not _is_loopback(asked.hostname):
                raise Denied(
                    "a token is not sent where everybody could read it on its way",
                    where=self.url[:200],
                    hint="use https, or kubectl port-forward and http://127.0.0.1:PORT",
                )
            headers["Authorization"] = f"Bearer {_token(self.token_file)}"
        if asked.scheme == "http":
            return HTTPConnection(asked.hostname, asked.port, timeout=seconds), target, headers
        import ssl

        try:
            context = ssl.create_default_context(cafile=self.ca_file)
        except OSError as problem:
            raise BadInput(
                f"the certificates cannot be read: {problem}", where=str(self.ca_file)
            ) from problem
        return (
            HTTPSConnection(asked.hostname, asked.port, timeout=seconds, context=context),
            target,
            headers,
        )


def _with(path: str, asked: Mapping[str, str]) -> str:
    words = {name: value for name, value in asked.items() if value}
    return f"{path}?{urlencode(words)}" if words else path


def _opened(path: Path, seconds: float) -> socket.socket | None:
    """None where the service is not running, or not ours to ask."""
    here = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    here.settimeout(seconds)
    try:
        here.connect(str(path))
    except OSError:
        here.close()
        return None
    return here


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _token(path: Path) -> str:
    try:
        with path.open("rb") as file:
            text = file.read(_MAX_TOKEN).decode("ascii").strip()
    except (OSError, UnicodeDecodeError) as problem:
        raise BadInput(f"the token cannot be read: {problem}", where=str(path)) from problem
    if not text or not text.isprintable() or " " in text:
        raise BadInput(
            "there is no token in the file", where=str(path), hint="one line, nothing else"
        )
    return text


def _pieces(response: HTTPResponse, where: str) -> Iterator[bytes]:
    from http.client import HTTPException

    try:
        while piece := response.read1(PIECE):
            yield piece
    except (OSError, HTTPException, ValueError) as problem:
        raise Transient(f"the service went away: {problem}", where=where) from problem


def _object(response: HTTPResponse) -> dict[str, object]:
    from http.client import HTTPException

    try:
        answer = json.loads(response.read(MAX_ANSWER) or b"null")
    except (OSError, HTTPException, ValueError) as problem:
        raise Transient(f"the answer cannot be read: {problem}") from problem
    return answer if isinstance(answer, dict) else {}


def _told(response: HTTPResponse, where: str) -> TripsharkError:
    """The error that was answered, as ours."""
    kinds = {
        401: Denied,
        403: Denied,
        404: NotFound,
        400: BadInput,
        503: Transient,
        429: Transient,
    }
    kind = kinds.get(response.status, Permanent)
    try:
        error = _object(response).get("error")
    except Transient:
        error = None
    told = error if isinstance(error, dict) else {}
    return kind(
        str(told.get("message") or f"the service answered {response.status}"),
        where=str(told.get("where") or where),
        hint=str(told.get("hint", "")),
    )
