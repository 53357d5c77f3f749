"""API servers for the tests of this folder, real and fake."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from tests.cluster.control import Plane
from tests.cluster.fake import FakeApi
from tests.cluster.node import real_node
from tripshark.cluster.api import KubeApi

__all__ = ["real_node"]


@pytest.fixture
def fake_api() -> Iterator[FakeApi]:
    """A server that misbehaves on demand, see tests.cluster.fake."""
    with FakeApi() as made:
        yield made


@pytest.fixture
async def fake(fake_api: FakeApi) -> AsyncIterator[KubeApi]:
    """A client of the fake server."""
    async with KubeApi(fake_api.login(), timeout_s=10) as api:
        yield api


@pytest.fixture
async def real(real_api: Plane) -> AsyncIterator[KubeApi]:
    """A client of the real server, as administrator."""
    async with KubeApi(real_api.login(), timeout_s=30) as api:
        yield api


@pytest.fixture(params=["fake", "real"])
async def any_api(request: pytest.FixtureRequest) -> AsyncIterator[KubeApi]:
    """A client of each kind of server in turn: what is true of one must be true of the other."""
    if request.param == "fake":
        login = request.getfixturevalue("fake_api").login()
    else:
        login = request.getfixturevalue("real_api").login()
    async with KubeApi(login, timeout_s=30) as api:
        yield api
