"""Listening: slow clients are let go, both event loops serve TLS, a taken address is said."""

from __future__ import annotations

import asyncio
import ssl
import time
from pathlib import Path

import pytest
import trustme
import uvloop

from tripshark.errors import Permanent
from tripshark.web import body, serve
from tripshark.web.app import App
from tripshark.web.serve import Tls, bind, serving


@pytest.mark.parametrize("sent", [b"", b"GET / HTTP/1.1\r\nHost: x\r\n"])
async def test_a_client_that_never_finishes_its_headers_is_let_go(
    monkeypatch, sent: bytes
) -> None:
    """Neither an idle connection nor a half request holds a descriptor for long."""
    monkeypatch.setattr(serve, "HEAD_SECONDS", 0.2)
    async with serving(App(None, None), bind("127.0.0.1", 0)) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(sent)
        began = time.monotonic()
        assert await asyncio.wait_for(reader.read(), 60) == b""
        assert time.monotonic() - began >= 0.1
        writer.close()


async def test_a_second_slow_request_on_a_connection_is_let_go_too(monkeypatch) -> None:
    """The time begins anew with each request."""
    monkeypatch.setattr(serve, "HEAD_SECONDS", 0.3)
    async with serving(App(None, None), bind("127.0.0.1", 0)) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /x HTTP/1.1\r\nHost: x\r\n\r\nGET /x HTTP/1.1\r\nHo")
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 60)
        assert head.startswith(b"HTTP/1.1 404 ")
        await asyncio.wait_for(reader.read(), 60)
        writer.close()


def test_a_taken_address_is_said_with_what_to_do() -> None:
    """The message names the address and the option."""
    first = bind("127.0.0.1", 0)
    first.listen()
    with pytest.raises(Permanent) as caught:
        bind("127.0.0.1", first.getsockname()[1])
    first.close()
    assert "--listen" in caught.value.hint
    with pytest.raises(Permanent):
        bind("no.such.host.invalid", 0)


def test_client_certificates_are_required_under_uvloop(tmp_path: Path) -> None:
    """The program's event loop has a TLS implementation of its own: the handshake decides there too."""
    authority = trustme.CA()
    server = authority.issue_cert("127.0.0.1")
    server.private_key_pem.write_to_path(tmp_path / "key.pem")
    server.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    tls = Tls(cert=tmp_path / "cert.pem", key=tmp_path / "key.pem", client_ca=tmp_path / "ca.pem")

    async def ask(port: int, with_certificate: bool) -> bytes:
        context = ssl.create_default_context()
        authority.configure_trust(context)
        if with_certificate:
            authority.issue_cert("falco@node").configure_cert(context)
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
        try:
            writer.write(b"GET /x HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            return await asyncio.wait_for(reader.read(), 60)
        finally:
            writer.close()

    async def both() -> None:
        async with serving(App(None, None), bind("127.0.0.1", 0), tls) as port:
            assert (await ask(port, with_certificate=True)).startswith(b"HTTP/1.1 404 ")
            try:
                refused = await ask(port, with_certificate=False)
            except (ssl.SSLError, ConnectionError):
                refused = b""
            assert refused == b""

    uvloop.run(both())


async def test_a_body_that_drips_is_let_go(world, monkeypatch) -> None:
    """A byte now and then neither holds memory nor a connection for long; the caller is told why."""
    monkeypatch.setattr(body, "BODY_SECONDS", 0.2)
    async with world.served() as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(
            b"POST /v1/captures HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Content-Length: 4000\r\n\r\n{"
        )
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 60)
        assert head.startswith(b"HTTP/1.1 408 ")
        assert b"too_slow" in await asyncio.wait_for(reader.read(), 60)
        writer.close()
