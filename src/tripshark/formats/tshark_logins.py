"""Names and secrets that one packet carries in clear text; of a secret only its length ever leaves this module."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator
from itertools import islice

import msgspec

from tripshark.formats.tshark_fields import Layers, Values

FORM = "HTTP form"
_MD5 = re.compile(r"md5[0-9a-f]{32}")  # how PostgreSQL sends a password that is no clear text
_USERS = frozenset({"user", "username", "login", "email", "usr", "userid", "user_id"})
_SECRETS = frozenset({"password", "passwd", "pass", "pwd", "passphrase"})
_MAX = 16  # of one packet


class Login(msgspec.Struct, frozen=True, gc=False):
    """Part of a login. `user` is None where this packet names nobody, `secret` where it gives none away."""

    proto: str  # "HTTP basic", "FTP", …
    user: str | None
    secret: int | None  # characters


def logins(of: Layers) -> tuple[Login, ...]:
    """What tshark found in this packet, at most 16."""
    return tuple(islice(_all(of), _MAX))


def _all(of: Layers) -> Iterator[Login]:
    if of.http_authbasic or of.http_authorization or of.http2_headers_authorization:
        yield from _http(of)
    if of.urlencoded_form_key:
        yield from _form(of)
    if of.ftp_request_command:
        yield from _commands("FTP", of.ftp_request_command, of.ftp_request_arg)
    if of.pop_request_command:
        yield from _commands("POP3", of.pop_request_command, of.pop_request_parameter)
    if of.imap_request_password:
        yield _pair("IMAP", of.imap_request_username, of.imap_request_password)
    if of.smtp_auth_username or of.smtp_auth_password or of.smtp_auth_username_password:
        yield from _smtp(of)
    if of.ldap_simple and of.ldap_simple[0]:
        yield _pair("LDAP", of.ldap_name, of.ldap_simple)
    if of.mqtt_passwd:
        yield _pair("MQTT", of.mqtt_username, of.mqtt_passwd)
    if of.socks_password:
        yield _pair("SOCKS", of.socks_username, of.socks_password)
    if of.pgsql_password and not _MD5.fullmatch(str(of.pgsql_password[0])):
        yield _pair("PostgreSQL", [], of.pgsql_password)


def _http(of: Layers) -> Iterator[Login]:
    for each in of.http_authbasic:
        user, _, secret = str(each).partition(":")
        yield Login("HTTP basic", user, len(secret))
    for each in of.http_authorization:
        kind, _, token = str(each).strip().partition(" ")
        if kind.lower() == "bearer" and token:
            yield Login("HTTP bearer", "", len(token.strip()))
    for each in of.http2_headers_authorization:
        kind, _, token = str(each).strip().partition(" ")
        if kind.lower() == "bearer" and token:
            yield Login("HTTP bearer", "", len(token.strip()))
        elif kind.lower() == "basic" and (pair := _base64(token)):
            user, _, secret = pair.partition(":")
            yield Login("HTTP basic", user, len(secret))


def _form(of: Layers) -> Iterator[Login]:
    keys, values = of.urlencoded_form_key, of.urlencoded_form_value
    if len(keys) != len(values):
        return
    pairs = [(str(key).lower(), str(value)) for key, value in zip(keys, values, strict=True)]
    user = next((value for key, value in pairs if key in _USERS), "")
    for key, value in pairs:
        if key in _SECRETS and value:
            yield Login(FORM, user, len(value))


def _commands(proto: str, commands: Values, arguments: Values) -> Iterator[Login]:
    """USER and PASS, each in a packet of its own as a rule; an argument is believed only where none is missing."""
    if len(commands) != len(arguments):
        return
    for command, argument in zip(map(str, commands), map(str, arguments), strict=True):
        if command.upper() == "USER":
            yield Login(proto, argument, None)
        elif command.upper() == "PASS":
            yield Login(proto, None, len(argument))


def _smtp(of: Layers) -> Iterator[Login]:
    for each in of.smtp_auth_username:
        yield Login("SMTP", _base64(str(each)) or str(each), None)
    for each in of.smtp_auth_password:
        yield Login("SMTP", None, len(_base64(str(each)) or str(each)))
    for each in of.smtp_auth_username_password:
        plain = _base64(str(each)) or str(each)
        _, _, rest = plain.partition("\0")
        user, _, secret = rest.partition("\0")
        yield Login("SMTP", user, len(secret))


def _pair(proto: str, users: Values, secrets: Values) -> Login:
    return Login(proto, str(users[0]) if users else "", len(str(secrets[0])))


def _base64(text: str) -> str:
    """Decoded; an empty text for what is none."""
    try:
        return base64.b64decode(text.strip(), validate=True).decode("utf-8", "replace")
    except (binascii.Error, ValueError):
        return ""
