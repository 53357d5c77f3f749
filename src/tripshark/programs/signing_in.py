"""How people sign in at this program's listener, out of its settings: secrets are read now, while they may be."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_network
from pathlib import Path

from tripshark.errors import BadInput
from tripshark.model.incident import EVERY
from tripshark.model.role import Assignment, Grant, Right, Role, shown_name
from tripshark.settings import Settings
from tripshark.signin.desk import CALLBACK, Desk
from tripshark.signin.failures import Failures
from tripshark.signin.oidc import Client, Provider
from tripshark.signin.proxy import Proxy
from tripshark.signin.sessions import Sessions
from tripshark.signin.tokens import Token, Tokens

MIN_TOKEN = 20


def desk_of(settings: Settings, *, kubernetes: bool) -> Desk | None:
    """None: nobody signs in; `ingest.auth` lets readers in, or nobody is asked. Raises `BadInput`, `Permanent`.

    `kubernetes`: the cluster knows readers' tokens too.
    """
    asked = settings.signin
    if not asked.is_set and not kubernetes:
        return None
    assignments = tuple(
        Assignment(right=_right(each.role, each.namespaces), user=each.user, group=each.group)
        for each in asked.roles
    )
    proxy = Proxy(
        trusted=tuple(ip_network(each) for each in asked.proxy.trusted),
        user_header=asked.proxy.user_header,
        groups_header=asked.proxy.groups_header,
        assignments=assignments,
    )
    return Desk(
        tokens=Tokens(_tokens(settings)),
        sessions=Sessions(idle_s=asked.idle, absolute_s=asked.longest, most=asked.sessions),
        failures=Failures(per_minute=asked.failures),
        proxy=proxy if proxy.trusted else None,
        provider=_provider(settings),
        assignments=assignments,
        url=asked.url,
        tls=settings.tls.cert is not None,
        kubernetes=kubernetes,
    )


def _tokens(settings: Settings) -> Iterable[Token]:
    for each in settings.signin.tokens:
        value = each.token.get_secret_value() if each.token else ""
        if each.file is not None:
            value = _secret(each.file, f"signin.tokens, {each.name}")
            if len(value) < MIN_TOKEN:
                raise BadInput(
                    f"the token has fewer than {MIN_TOKEN} characters",
                    where=str(each.file),
                    hint="openssl rand -hex 16 makes one",
                )
        right = _right(each.role, each.namespaces)
        yield Token(
            grant=Grant(name=f"token:{shown_name(each.name)}", rights=(right,)), value=value
        )


def _right(role: Role, namespaces: tuple[str, ...]) -> Right:
    return Right(role=role, namespaces=None if EVERY in namespaces else namespaces)


def _provider(settings: Settings) -> Provider | None:
    asked = settings.signin.oidc
    if not asked.issuer:
        return None
    secret = asked.client_secret.get_secret_value() if asked.client_secret else ""
    if asked.client_secret_file is not None:
        secret = _secret(asked.client_secret_file, "signin.oidc.client_secret_file")
    return Provider(
        Client(
            issuer=asked.issuer,
            client_id=asked.client_id,
            client_secret=secret,
            scopes=asked.scopes,
            name_claim=asked.name_claim,
            groups_claim=asked.groups_claim,
            ca=asked.ca,
        ),
        redirect_uri=settings.signin.url + CALLBACK,
    )


def _secret(path: Path, name: str) -> str:
    try:
        value = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise BadInput(
            f"cannot read the secret: {why}", where=str(path), hint=f"{name} names it"
        ) from error
    if not value:
        raise BadInput("the file holds no secret", where=str(path), hint=f"{name} names it")
    return value
