"""Who may sign in, by which way, and what they may do then."""

from __future__ import annotations

from ipaddress import ip_network
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr, model_validator

from tripshark.model.role import Role
from tripshark.settings.group import Group
from tripshark.settings.words import Seconds, Unit

MIN_TOKEN = 20  # characters: `openssl rand -hex 16` has 32


def _network(value: str) -> str:
    try:
        return str(ip_network(value))
    except ValueError as error:
        raise ValueError(f"{value!r} is not an address or network, such as 10.0.0.0/24") from error


def _header(value: str) -> str:
    if value and not (value.isascii() and value.replace("-", "").isalnum() and len(value) < 64):
        raise ValueError(f"{value!r} is not the name of a header")
    return value


def _site(value: str) -> str:
    parts = urlsplit(value)
    if value and (
        parts.scheme not in ("http", "https")
        or not parts.hostname
        or parts.path.strip("/")
        or parts.query
        or parts.fragment
        or "@" in parts.netloc
    ):
        raise ValueError(f"{value!r} is not https://HOST or https://HOST:PORT")
    return value.rstrip("/")


Network = Annotated[str, AfterValidator(_network), Unit("network")]
Header = Annotated[str, AfterValidator(_header)]


class TokenSettings(Group):
    """A token that somebody, or a program, has: give `token` or `file`."""

    name: str = Field(min_length=1, max_length=100, description="Who has it, for custody.")
    token: SecretStr | None = Field(
        default=None, description=f"The token, {MIN_TOKEN} characters or more."
    )
    file: Path | None = Field(default=None, description="A file that holds it.")
    role: Role = Field(default=Role.VIEWER, description="viewer, responder or admin.")
    namespaces: tuple[str, ...] = Field(
        default=("*",), min_length=1, description="Kubernetes namespaces; *: all of them."
    )

    @model_validator(mode="after")
    def _is_one_token(self) -> TokenSettings:
        if (self.token is None) == (self.file is None):
            raise ValueError("give token or file, one of them")
        if self.token is not None and len(self.token.get_secret_value()) < MIN_TOKEN:
            raise ValueError(
                f"the token has fewer than {MIN_TOKEN} characters; openssl rand -hex 16 makes one"
            )
        return self


class OidcSettings(Group):
    """An identity provider that speaks OpenID Connect."""

    issuer: str = Field(
        default="", description="Its address, as its discovery document says; empty: none."
    )
    client_id: str = Field(default="", description="Who Tripshark is there.")
    client_secret: SecretStr | None = Field(
        default=None, description="Its secret there; none: a public client."
    )
    client_secret_file: Path | None = Field(
        default=None, description="A file that holds the secret."
    )
    scopes: tuple[str, ...] = Field(
        default=("openid", "profile", "email"), description="What is asked of it."
    )
    name_claim: str = Field(
        default="email", description="The claim that names a person; where it is missing, sub."
    )
    groups_claim: str = Field(
        default="groups",
        description="The claim that lists groups; a path with dots works (realm_access.roles).",
    )
    ca: Path | None = Field(
        default=None, description="Authorities of its certificate, PEM; default: the system's."
    )

    @model_validator(mode="after")
    def _belongs_together(self) -> OidcSettings:
        if self.issuer and not self.client_id:
            raise ValueError("issuer needs client_id beside it")
        if self.client_secret is not None and self.client_secret_file is not None:
            raise ValueError("give client_secret or client_secret_file, one of them")
        return self


class ProxySettings(Group):
    """A reverse proxy in front of Tripshark."""

    trusted: tuple[Network, ...] = Field(
        default=(), description="Its addresses: connections from there are believed."
    )
    user_header: Header = Field(
        default="",
        description="Header in which it says who signed in with it, replacing what clients send; empty: it says nothing.",
    )
    groups_header: Header = Field(
        default="X-Forwarded-Groups", description="Header with their groups, separated by commas."
    )

    @model_validator(mode="after")
    def _is_somewhere(self) -> ProxySettings:
        if self.user_header and not self.trusted:
            raise ValueError("user_header needs trusted: from which addresses it is believed")
        return self


class RoleSettings(Group):
    """What somebody may do who came through oidc or proxy: give `group` (*: everybody) or `user`."""

    group: str = Field(default="", description="Whoever is in this group; *: whoever signed in.")
    user: str = Field(default="", description="Whoever has this name.")
    role: Role = Field(default=Role.VIEWER, description="viewer, responder or admin.")
    namespaces: tuple[str, ...] = Field(
        default=("*",), min_length=1, description="Kubernetes namespaces; *: all of them."
    )

    @model_validator(mode="after")
    def _means_somebody(self) -> RoleSettings:
        if bool(self.group) == bool(self.user):
            raise ValueError("give group or user, one of them")
        return self


class SigninSettings(Group):
    """Who may read and respond, beside Kubernetes (`kubernetes.access`). Without any of it `ingest.auth` lets readers in."""

    url: Annotated[str, AfterValidator(_site)] = Field(
        default="", description="How browsers reach Tripshark: https://tripshark.example.com."
    )
    tokens: tuple[TokenSettings, ...] = Field(default=(), description="Tokens.")
    oidc: OidcSettings = Field(default_factory=OidcSettings, description="An identity provider.")
    proxy: ProxySettings = Field(
        default_factory=ProxySettings, description="A reverse proxy in front."
    )
    roles: tuple[RoleSettings, ...] = Field(
        default=(),
        description="Who of oidc and proxy may do what; all that fit add up, and whom none fits may do nothing.",
    )
    idle: Seconds = Field(
        default=3600.0, ge=60, description="A browser's session ends when it rests this long."
    )
    longest: Seconds = Field(
        default=12 * 3600.0, ge=60, description="A browser's session ends after this in any case."
    )
    sessions: int = Field(
        default=10_000, ge=1, description="Sessions at once; the one that rests longest gives way."
    )
    failures: int = Field(
        default=10, ge=1, description="Wrong tokens per minute and address; beyond it 429."
    )

    @model_validator(mode="after")
    def _can_be_used(self) -> SigninSettings:
        if self.oidc.issuer and not self.url:
            raise ValueError("oidc needs signin.url, to which the provider sends browsers back")
        if (self.oidc.issuer or self.proxy.user_header) and not self.roles:
            raise ValueError(
                "nobody could do anything: roles says who may do what, "
                "such as [{group: '*', role: viewer}]"
            )
        return self

    @property
    def is_set(self) -> bool:
        """Somebody can sign in by one of these ways."""
        return bool(self.tokens or self.oidc.issuer or self.proxy.user_header)
