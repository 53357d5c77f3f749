"""Mutual TLS is decided in the handshake: who has no certificate of our authority never sends a request."""

from __future__ import annotations

import ssl
from pathlib import Path

import httpx2
import pytest
import trustme

from tripshark.errors import Permanent
from tripshark.ingest.auth import Gate
from tripshark.web.serve import Tls

JSON = {"content-type": "application/json"}


@pytest.fixture
def tls(tmp_path: Path) -> tuple[Tls, trustme.CA]:
    authority = trustme.CA()
    server = authority.issue_cert("127.0.0.1")
    server.private_key_pem.write_to_path(tmp_path / "key.pem")
    for number, pem in enumerate(server.cert_chain_pems):
        pem.write_to_path(tmp_path / "cert.pem", append=number > 0)
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    whole = Tls(
        cert=tmp_path / "cert.pem", key=tmp_path / "key.pem", client_ca=tmp_path / "ca.pem"
    )
    return whole, authority


def context(authority: trustme.CA, issuer: trustme.CA | None) -> ssl.SSLContext:
    made = ssl.create_default_context()
    authority.configure_trust(made)
    if issuer is not None:
        issuer.issue_cert("falco@node").configure_cert(made)
    return made


async def test_a_client_with_our_certificate_is_let_in(serve, event, tls, intake) -> None:
    """A certificate of the authority is all that is needed."""
    files, authority = tls
    async with (
        serve(Gate(tls_clients=True), tls=files) as port,
        httpx2.AsyncClient(verify=context(authority, authority)) as http,
    ):
        answer = await http.post(f"https://127.0.0.1:{port}/", content=event(), headers=JSON)
    assert answer.status_code == 202
    assert len(intake.taken) == 1


@pytest.mark.parametrize("stranger", [False, True])
async def test_a_client_without_our_certificate_gets_no_answer(
    serve, event, tls, intake, stranger
) -> None:
    """No certificate, or one of another authority: the handshake fails and no alert is taken."""
    files, authority = tls
    issuer = trustme.CA() if stranger else None
    async with (
        serve(Gate(tls_clients=True), tls=files) as port,
        httpx2.AsyncClient(verify=context(authority, issuer)) as http,
    ):
        with pytest.raises(httpx2.TransportError):
            await http.post(f"https://127.0.0.1:{port}/", content=event(), headers=JSON)
        with pytest.raises(httpx2.TransportError):
            await http.post(f"http://127.0.0.1:{port}/", content=event(), headers=JSON)
    assert intake.taken == []


def test_files_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    """A missing certificate says which file and which setting."""
    with pytest.raises(Permanent) as caught:
        Tls(cert=tmp_path / "none.pem", key=tmp_path / "none.key").context()
    assert "none.pem" in caught.value.where
    assert "tls" in caught.value.hint
