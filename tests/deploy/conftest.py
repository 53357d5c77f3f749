"""A real API server and Helm for the tests of this folder, where they can be had."""

from __future__ import annotations

import contextlib
import runpy
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.cluster.control import Answer, Plane
from tests.deploy.pods import ROOT, documents


@pytest.fixture(scope="session")
def generate() -> dict[str, Any]:
    """What `deploy/generate` defines."""
    return runpy.run_path(str(ROOT / "deploy/generate"))


@pytest.fixture(scope="session")
def helm() -> str:
    """The path of Helm; it is not built here, because that takes minutes."""
    done = subprocess.run(
        [ROOT / "deploy/test-tools", "--if-there"], capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.skip("Helm is not there: deploy/test-tools builds it once, with a Go toolchain")
    return done.stdout.strip()


@pytest.fixture
def roles(real_api: Plane) -> Iterator[Callable[[], None]]:
    """Applies the chart's cluster roles when called; they are not there before, nor after the test."""
    made = [
        each
        for each in documents((ROOT / "deploy/manifests/generic.yaml").read_text())
        if each["kind"] in ("ClusterRole", "ClusterRoleBinding")
    ]

    def remove() -> None:
        for each in made:
            path = f"/apis/rbac.authorization.k8s.io/v1/{each['kind'].lower()}s"
            with contextlib.suppress(Answer):
                real_api.call("DELETE", f"{path}/{each['metadata']['name']}")

    def apply() -> None:
        real_api.apply(made)

    remove()
    yield apply
    remove()
