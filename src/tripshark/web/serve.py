"""Listens: one uvicorn server per listener, with TLS that really asks for client certificates where they are wanted."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from asyncio.events import TimerHandle
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from tripshark.errors import Permanent

HEAD_SECONDS = (
    15.0  # from the first byte of a request to the end of its headers, and from connecting to it
)
IDLE_SECONDS = 75  # Falco keeps one connection; libcurl opens another when it finds it closed
GRACE_SECONDS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """Files of one TLS listener, PEM. `client_ca`: nobody without a certificate of this authority gets in."""

    cert: Path
    key: Path
    client_ca: Path | None = None

    def context(self) -> ssl.SSLContext:
        """Raises `Permanent` when a file cannot be used."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            context.load_cert_chain(self.cert, self.key)
            if self.client_ca is not None:
                context.load_verify_locations(self.client_ca)
                context.verify_mode = ssl.CERT_REQUIRED
        except (OSError, ssl.SSLError) as error:
            raise Permanent(
                f"TLS cannot be set up: {error}",
                where=", ".join(
                    str(each) for each in (self.cert, self.key, self.client_ca) if each
                ),
                hint="see the settings tls and ingest.tls",
            ) from error
        return context


def bind(host: str, port: int) -> socket.socket:
    """A listening address, bound; may be done before privileges are given up. Raises `Permanent`."""
    try:
        family, _, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        bound = socket.socket(family, socket.SOCK_STREAM)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            bound.bind(address)
        except OSError:
            bound.close()
            raise
    except OSError as error:
        raise Permanent(
            f"cannot listen: {error.strerror or error}",
            where=f"{host}:{port}",
            hint="is another Tripshark (or Talon) running? --listen names another address",
        ) from error
    return bound


def bind_here(path: Path, *, group: int) -> socket.socket:
    """A unix socket that root, ourselves and the group may use; bound while we still may. Raises `Permanent`."""
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o117)
    try:
        path.unlink(missing_ok=True)  # an earlier life's; the data folder is ours alone
        bound.bind(str(path))
        if os.geteuid() == 0 or group in os.getgroups():
            os.chown(path, -1, group)
    except OSError as error:
        bound.close()
        raise Permanent(
            f"cannot listen: {error.strerror or error}",
            where=str(path),
            hint="choose a data folder with a shorter path that allows sockets",
        ) from error
    finally:
        os.umask(before)
    return bound


@asynccontextmanager
async def serving(
    app: ASGIApp, bound: socket.socket, tls: Tls | ssl.SSLContext | None = None
) -> AsyncIterator[int]:
    """Serve while the block runs; yields the port (0: a unix socket). At its end open requests get a few seconds."""
    config = uvicorn.Config(
        app,
        http=_Patient,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,  # a secret path must not be logged
        proxy_headers=False,  # nobody may say where a request came from
        server_header=False,
        timeout_keep_alive=IDLE_SECONDS,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )
    config.load()
    if tls is not None:
        config.ssl = tls.context() if isinstance(tls, Tls) else tls
    server = _Server(config)
    bound.listen(1024)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(server.serve([bound]))
        await server.ready.wait()
        try:
            yield 0 if bound.family is socket.AF_UNIX else int(bound.getsockname()[1])
        finally:
            getattr(app, "close", lambda: None)()  # answers that do not end by themselves
            server.should_exit = True


class _Server(uvicorn.Server):
    """Says when it listens, and leaves signals to the program that owns the process."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.ready.set()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class _Patient(HttpToolsProtocol):
    """Gives up on clients that never finish their headers: each would hold a descriptor."""

    _deadline: TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in the parent
        super().connection_made(transport)
        self._deadline = self.loop.call_later(HEAD_SECONDS, self._give_up)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        if self._deadline is None:
            self._deadline = self.loop.call_later(HEAD_SECONDS, self._give_up)

    def on_headers_complete(self) -> None:
        self._settle()
        super().on_headers_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        self._settle()
        super().connection_lost(exc)

    def _settle(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _give_up(self) -> None:
        self._deadline = None
        self.transport.close()
