"""Roles: what each allows, where, and who has them."""

from __future__ import annotations

import pytest

from tripshark.model.incident import EVERY
from tripshark.model.role import (
    Assignment,
    Grant,
    Right,
    Role,
    claim,
    granted,
    groups_in,
    shown_name,
)

DEEDS = {  # (verb, resource) → the least role
    ("get", "incidents"): Role.VIEWER, ("get", "evidence"): Role.VIEWER, ("list", "notes"): Role.VIEWER,
    ("create", "captures"): Role.RESPONDER, ("create", "notes"): Role.RESPONDER,
    ("delete", "notes"): Role.ADMIN, ("create", "exports"): Role.RESPONDER,
    ("create", "hunts"): Role.RESPONDER, ("delete", "evidence"): Role.ADMIN,
    ("update", "rules"): Role.ADMIN,
}  # fmt: skip


@pytest.mark.parametrize(("deed", "least"), DEEDS.items())
def test_each_role_allows_what_the_ones_below_do(deed: tuple[str, str], least: Role) -> None:
    """Whoever may more may also less."""
    order = list(Role)
    allowed = [role.allows(*deed) for role in order]
    assert allowed == [order.index(role) >= order.index(least) for role in order]


def test_a_list_of_namespaces_never_means_all() -> None:
    """Not even an administrator of every namespace that there is has a right on whole machines."""
    some = Right(role=Role.ADMIN, namespaces=("a", "b"))
    assert some.allows("get", "incidents", "a")
    assert not some.allows("get", "incidents", "c")
    assert not some.allows("get", "incidents", EVERY)
    assert not Right(role=Role.ADMIN, namespaces=(EVERY,)).allows("get", "incidents", EVERY)
    assert Right(role=Role.VIEWER).allows("get", "incidents", EVERY)


def test_rights_add_up_and_do_not_mix() -> None:
    """To respond in one namespace and to view another is not to respond in both."""
    alice = granted(
        "oidc",
        "alice",
        ["a-team", "others"],
        [
            Assignment(right=Right(role=Role.RESPONDER, namespaces=("a",)), group="a-team"),
            Assignment(right=Right(role=Role.VIEWER, namespaces=("b",)), group="*"),
            Assignment(right=Right(role=Role.ADMIN), user="bob"),
            Assignment(right=Right(role=Role.ADMIN), group="alice"),
        ],
    )
    assert alice.name == "oidc:alice"
    assert alice.may("create", "captures", "a")
    assert alice.may("get", "evidence", "b")
    assert not alice.may("create", "captures", "b")
    assert alice.role is Role.RESPONDER
    assert alice.namespaces == ("a", "b")
    bob = granted("proxy", "bob", (), [Assignment(right=Right(role=Role.ADMIN), user="bob")])
    assert (bob.role, bob.namespaces) == (Role.ADMIN, None)
    assert not Grant(name="nobody").may("get", "incidents", "a")
    assert Grant(name="nobody").role is Role.VIEWER
    assert Grant(name="nobody").namespaces == ()


def test_foreign_names_and_groups_are_bounded() -> None:
    """What an identity provider says becomes a name that can be seen, and a list of texts."""
    assert shown_name(" al\nice\u202e\x1b[1m ") == "al�ice��[1m"
    assert shown_name("") == "nobody"
    assert len(shown_name("x" * 1000)) == 180
    assert groups_in("a, b,,c ") == ("a", "b", "c")
    assert groups_in(["a", 1, None, "", "b"]) == ("a", "b")
    assert groups_in({"a": 1}) == ()
    assert len(groups_in(["g"] * 9999)) == 512


def test_claims_are_found_by_name_or_path() -> None:
    """A name with dots in it wins over a path."""
    claims = {"realm_access": {"roles": ["x"]}, "https://a.b/groups": ["y"], "flat": "z"}
    assert claim(claims, "realm_access.roles") == ["x"]
    assert claim(claims, "https://a.b/groups") == ["y"]
    assert claim(claims, "flat.more") is None
    assert claim(claims, "none") is None
