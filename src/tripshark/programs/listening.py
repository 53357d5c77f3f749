"""Where a program is reached, with which certificate, and which credentials let a caller in."""

from __future__ import annotations

from tripshark.ingest.auth import Credentials
from tripshark.settings import Listen, Settings, TlsSettings
from tripshark.web.serve import Tls


def credentials_of(settings: Settings) -> Credentials:
    """What callers may show. Raises `BadInput` for a token file that cannot be read."""
    auth = settings.ingest.auth
    return Credentials(
        bearer=settings.bearer_tokens(),
        basic={user: word.get_secret_value() for user, word in auth.basic.items()},
        secret_path=auth.secret_path.get_secret_value() if auth.secret_path else "",
    )


def tls_of(given: TlsSettings) -> Tls | None:
    """None: plain HTTP."""
    if given.cert is None or given.key is None:
        return None
    return Tls(cert=given.cert, key=given.key, client_ca=given.client_ca)


def url_of(listen: Listen, port: int, *, tls: bool) -> str:
    """Under which whoever started us reaches `listen` from this machine; `port` is the one we got."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(listen.host, listen.host)  # noqa: S104 (a comparison)
    return f"{'https' if tls else 'http'}://{Listen(host, port)}"
