"""What somebody who signed in may do: roles, each over some namespaces or over all."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from tripshark.model.incident import EVERY

ANYBODY: Final = "*"
"""As a group: whoever signed in."""

_READ: Final = frozenset({"get", "list", "watch"})
_RESPOND: Final = frozenset({"captures", "notes", "exports", "hunts"})


class Role(StrEnum):
    """From least to most."""

    VIEWER = "viewer"  # incidents, findings, packets
    RESPONDER = "responder"  # and captures, notes, exports, hunts
    ADMIN = "admin"  # and whatever else there is

    def allows(self, verb: str, resource: str) -> bool:
        """This deed on this kind of thing."""
        if self is Role.ADMIN or verb in _READ:
            return True
        return self is Role.RESPONDER and verb == "create" and resource in _RESPOND


@dataclass(frozen=True, slots=True, kw_only=True)
class Right:
    """A role over namespaces; None: over all of them, and whole machines."""

    role: Role
    namespaces: tuple[str, ...] | None = None

    def allows(self, verb: str, resource: str, namespace: str) -> bool:
        """In this namespace; `EVERY` is what nobody has who is given a list."""
        if self.namespaces is not None and (
            namespace == EVERY or namespace not in self.namespaces
        ):
            return False
        return self.role.allows(verb, resource)


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """Somebody by name, with everything they may do. `name` says how they signed in: `oidc:alice@example.org`."""

    name: str
    rights: tuple[Right, ...] = ()

    def may(self, verb: str, resource: str, namespace: str) -> bool:
        """Any one of their rights allows it."""
        return any(each.allows(verb, resource, namespace) for each in self.rights)

    @property
    def role(self) -> Role:
        """The highest one, somewhere."""
        held = {each.role for each in self.rights}
        return max(held, key=list(Role).index, default=Role.VIEWER)

    @property
    def namespaces(self) -> tuple[str, ...] | None:
        """Where they may do anything at all; None: everywhere."""
        names: set[str] = set()
        for each in self.rights:
            if each.namespaces is None:
                return None
            names |= set(each.namespaces)
        return tuple(sorted(names))


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """One line of the operator's list: whoever has this name or is in this group has this right."""

    right: Right
    user: str = ""
    group: str = ""

    def means(self, user: str, groups: Iterable[str]) -> bool:
        """Names and groups are compared exactly."""
        if self.user:
            return self.user == user
        return self.group == ANYBODY or self.group in groups


def granted(
    way: str, user: str, groups: Iterable[str], assignments: Iterable[Assignment]
) -> Grant:
    """Everything that the list gives to this person; nothing, where it does not name them."""
    groups = frozenset(groups)
    rights = tuple(each.right for each in assignments if each.means(user, groups))
    return Grant(name=f"{way}:{shown_name(user)}", rights=rights)


def shown_name(user: str) -> str:
    """A foreign name as it stands in custody and in pages: bounded, and nothing in it that cannot be seen."""
    plain = "".join(each if each.isprintable() else "�" for each in user.strip())
    return plain[:180] or "nobody"


def groups_in(value: object) -> tuple[str, ...]:
    """Groups as a claim or a header has them: a list, or text with commas. At most 512."""
    if isinstance(value, str):
        found = [each.strip() for each in value.split(",")]
    elif isinstance(value, list | tuple):
        found = [each for each in value if isinstance(each, str)]
    else:
        found = []
    return tuple(each for each in found[:512] if each)


def claim(claims: Mapping[str, object], path: str) -> object:
    """A claim by its name, or by a path of names (Keycloak: `realm_access.roles`); None: it is not there."""
    if path in claims:  # a name may hold dots itself, as URLs do
        return claims[path]
    value: object = claims
    for name in path.split("."):
        if not isinstance(value, Mapping) or name not in value:
            return None
        value = value[name]
    return value
