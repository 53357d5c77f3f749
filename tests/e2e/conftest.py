"""Fixtures of whole-machine tests; they need root for namespaces and packet sockets."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.machine import Machine, Network

requires_root = pytest.mark.skipif(os.geteuid() != 0, reason="namespaces need root")


@pytest.fixture
def network(request: pytest.FixtureRequest) -> Iterator[Network]:
    number = abs(hash(request.node.nodeid)) % 46_656
    made = Network(f"e{number:x}")
    yield made
    made.close()


@pytest.fixture
def machine() -> Iterator[Callable[..., Machine]]:
    """Starts `tripshark run` with the given configuration; stopped with the test.

    Its folder is not below pytest's own, which only root may enter: the responder is not root.
    """
    with tempfile.TemporaryDirectory(prefix="ts-machine-") as base:
        os.chmod(base, 0o755)
        started: list[Machine] = []

        def start(**config: object) -> Machine:
            folder = Path(base) / f"machine{len(started)}"
            folder.mkdir(mode=0o755)
            made = Machine(folder, **config)
            started.append(made)
            return made.start()

        yield start
        for each in started:
            each.stop()
