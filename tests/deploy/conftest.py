"""A real API server and Helm for the tests of this folder, where they can be had."""

from __future__ import annotations

import runpy
import subprocess
from typing import Any

import pytest

from tests.cluster.control import real_api
from tests.deploy.pods import ROOT

__all__ = ["generate", "helm", "real_api"]


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
