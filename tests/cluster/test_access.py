"""Readers are who the cluster says, and may what it says; whoever cannot be asked about gets nothing."""

from __future__ import annotations

import asyncio

import pytest

from tests.cluster.control import Plane
from tests.cluster.fake import FakeApi
from tripshark.cluster.access import MAX_TOKEN, Access, User
from tripshark.cluster.api import KubeApi
from tripshark.errors import Transient


async def test_a_token_is_its_users(fake_api: FakeApi, fake: KubeApi) -> None:
    """Somebody, or nobody; asked once for many requests."""
    fake_api.tokens["t0"] = ("alice", ["dev"])
    access = Access(fake)
    for _ in range(3):
        assert await access.who("t0") == User(name="alice", uid="alice", groups=("dev",))
        assert await access.who("wrong") is None
    assert access.asked == 2
    assert await access.who("") is None
    assert await access.who("x" * (MAX_TOKEN + 1)) is None
    assert await access.who("näh") is None
    assert access.asked == 2


async def test_rights_are_asked_for_each_namespace_and_verb(
    fake_api: FakeApi, fake: KubeApi
) -> None:
    """What is allowed in one place is not allowed in another, nor for another."""
    fake_api.rights.add(("dev", "get", "captures", "shop"))
    access = Access(fake)
    alice, mallory = User(name="alice", groups=("dev",)), User(name="mallory")
    assert await access.may(alice, "get", "captures", "shop")
    assert not await access.may(alice, "get", "captures", "other")
    assert not await access.may(alice, "create", "captures", "shop")
    assert not await access.may(mallory, "get", "captures", "shop")
    assert not await access.may(alice, "get", "captures", "")


@pytest.mark.parametrize("fault", ["deny", "missing", "broken"])
async def test_who_cannot_be_asked_about_is_not_let_in(
    fake_api: FakeApi, fake: KubeApi, fault: str
) -> None:
    """Neither a missing right of ours nor a broken server opens a door."""
    fake_api.tokens["t0"] = ("alice", ["dev"])
    if fault == "broken":
        fake_api.faults.broken = 2
    for each in ("tokenreviews", "subjectaccessreviews"):
        if fault == "deny":
            fake_api.faults.deny.add(("create", each))
        elif fault == "missing":
            fake_api.faults.missing.add(each)
    access = Access(fake)
    with pytest.raises(Transient):
        await access.who("t0")
    with pytest.raises(Transient):
        await access.may(User(name="alice"), "get", "captures", "shop")


async def test_scopes_narrow_a_user(fake: KubeApi, fake_api: FakeApi) -> None:
    """The same name with other scopes is asked about anew."""
    access = Access(fake)
    fake_api.rights.add(("a", "get", "captures", "shop"))
    assert await access.may(User(name="a"), "get", "captures", "shop")
    fake_api.rights.clear()
    narrow = User(name="a", extra=(("scopes.authorization.openshift.io", ("user:info",)),))
    assert not await access.may(narrow, "get", "captures", "shop")


async def test_the_real_server_knows_accounts_and_rights(real_api: Plane, real: KubeApi) -> None:
    """A real token of a service account, a real Role; a right given to it in one namespace is none in another."""
    with real_api.namespace() as space:
        token = (real_api.service_account(space, "reader") / "token").read_text()
        access = Access(real)
        user = await access.who(token)
        assert user is not None
        assert user.name == f"system:serviceaccount:{space}:reader"
        assert f"system:serviceaccounts:{space}" in user.groups
        assert await access.who(token + "x") is None
        rule = {"apiGroups": ["tripshark.dev"], "resources": ["evidence"], "verbs": ["get"]}
        undo = real_api.grant(user.name, [rule], space)

        async def becomes(answer: bool) -> Access:
            """Servers learn of roles a moment after they took them; each asked anew, for answers are remembered."""
            async with asyncio.timeout(60):
                while await (asked := Access(real)).may(user, "get", "evidence", space) != answer:
                    await asyncio.sleep(0.05)
            return asked

        access = await becomes(True)
        assert not await access.may(user, "get", "evidence", "default")
        assert not await access.may(user, "delete", "evidence", space)
        undo()
        await becomes(False)


async def test_a_token_made_for_us_is_good_for_nothing_else(
    real_api: Plane, real: KubeApi
) -> None:
    """With an audience of ours the API server's own tokens are nobody's here, and ours are nobody's there: whoever takes
    over a node gains no reader's rights in the cluster."""
    with real_api.namespace() as space:
        general = (real_api.service_account(space, "reader") / "token").read_text()
        asked = {"spec": {"audiences": ["tripshark"]}}
        path = f"/api/v1/namespaces/{space}/serviceaccounts/reader/token"
        token = real_api.call("POST", path, asked)["status"]["token"]
        ours, everybodys = Access(real, audiences=("tripshark",)), Access(real)
        reader = await ours.who(token)
        assert reader is not None
        assert reader.name == f"system:serviceaccount:{space}:reader"
        assert await everybodys.who(token) is None
        assert await everybodys.who(general) is not None
        assert await ours.who(general) is None
