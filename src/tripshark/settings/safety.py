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
    problems += _of_reading(settings, sources)
    return problems


def _of_reading(settings: Settings, sources: Mapping[tuple[str, ...], str]) -> Iterator[str]:
    """Off loopback: who reads has to say who they are, and nobody in between may listen."""
    at = settings.listen
    if at.is_loopback:
        return
    where = f"{sources.get(('listen',), 'default')}: listen"
    mutual = settings.tls.client_ca is not None
    if settings.ingest.auth.is_none and not (mutual or can_sign_in(settings)):
        yield (
            f"{where}: everybody who reaches {at} could read all evidence; set signin.tokens, signin.oidc, "
            "signin.proxy, kubernetes.access or tls.client_ca, or listen on 127.0.0.1"
        )
    elif (
        (settings.ingest.auth.can_read or can_sign_in(settings))
        and settings.tls.cert is None
        and not settings.signin.proxy.trusted
        and not settings.web.cleartext
    ):
        yield (
            f"{where}: tokens and evidence would pass in clear to whoever reaches {at}; set tls.cert and tls.key, or "
            "signin.proxy.trusted to the address of the proxy that speaks TLS in front of it, or web.cleartext where "
            "the network in between is trusted, or listen on 127.0.0.1"
        )


def can_sign_in(settings: Settings) -> bool:
    """Readers have a way to say who they are, beside what alerts come in with."""
    return settings.signin.is_set or settings.kubernetes.access


def concerns(settings: Settings) -> Iterator[str]:
    auth = settings.ingest.auth
    nobody = not auth.can_read and settings.tls.client_ca is None
    if not settings.listen.is_loopback and nobody and not can_sign_in(settings):
        yield (
            f"nobody can read at {settings.listen}: reading off loopback needs a way to sign in or a client "
            "certificate; set signin.tokens"
        )
    proxy = settings.signin.proxy
    if proxy.user_header and auth.is_none and settings.ingest.listen is None:
        yield (
            "whoever signs in at the proxy can send alerts too; set ingest.auth, or ingest.listen to an address that "
            "the proxy does not serve"
        )
    if settings.web.cleartext and not settings.listen.is_loopback and settings.tls.cert is None:
        yield (
            f"tokens and evidence pass in clear at {settings.listen}, as web.cleartext says; set tls.cert and tls.key"
        )
    secret = list(auth.bearer_files)
    signin = settings.signin
    tokens = any(each.token is not None for each in signin.tokens)
    if settings.config_file and (
        auth.bearer or auth.basic or auth.secret_path or tokens or signin.oidc.client_secret
    ):
        secret.append(Path(settings.config_file))
    secret += [each.file for each in signin.tokens if each.file is not None]
    keys = (settings.tls.key, settings.ingest.tls.key, signin.oidc.client_secret_file)
    secret += [key for key in keys if key is not None]
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
