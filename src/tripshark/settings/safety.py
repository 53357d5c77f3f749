"""Which settings would be unsafe together, and which should not stay as they are."""

from __future__ import annotations

import stat
from collections.abc import Iterator, Mapping
from pathlib import Path

from tripshark.settings.tree import Settings


def refusals(settings: Settings, sources: Mapping[tuple[str, ...], str]) -> list[str]:
    """Combinations that would be unsafe, each a sentence."""
    auth = settings.ingest.auth
    problems = []
    at = settings.alert_listen
    if not at.is_loopback and auth.is_none and settings.alert_tls.client_ca is None:
        name = "ingest.listen" if settings.ingest.listen else "listen"
        where = sources.get(tuple(name.split(".")), "default")
        problems.append(
            f"{where}: {name}: alerts would be taken from anyone who can reach {at}; set one of "
            "ingest.auth.bearer_files, ingest.auth.basic, ingest.auth.secret_path or "
            f"{'ingest.tls' if settings.ingest.listen else 'tls'}.client_ca, or listen on 127.0.0.1"
        )
    tls = settings.ingest.tls
    if settings.ingest.listen is None and (tls.cert or tls.client_ca):
        problems.append(
            f"{sources.get(('ingest', 'tls'), 'ingest.tls')}: ingest.tls belongs to ingest.listen, "
            "which is not set; use tls for the listener of both"
        )
    return problems


def concerns(settings: Settings) -> Iterator[str]:
    auth = settings.ingest.auth
    nobody = not auth.can_read and settings.tls.client_ca is None
    if not settings.listen.is_loopback and nobody and not settings.kubernetes.access:
        yield (
            f"nobody can read at {settings.listen}: reading off loopback needs a bearer token, a "
            "user or a client certificate; set ingest.auth.bearer_files"
        )
    secret = list(auth.bearer_files)
    if settings.config_file and (auth.bearer or auth.basic or auth.secret_path):
        secret.append(Path(settings.config_file))
    secret += [key for key in (settings.tls.key, settings.ingest.tls.key) if key is not None]
    for path in secret:
        try:
            mode = path.stat().st_mode
        except OSError:
            continue  # whoever opens it says what is wrong
        if mode & stat.S_IROTH:
            yield f"every user of this machine can read the secrets in {path}; chmod o-r {path}"
    if settings.rules is not None:
        for path in settings.rules:
            if not path.exists():
                yield f"there are no rules at {path}; see the setting rules"
