"""Catalogues of both engines, stores of both kinds, and a vault with sealed evidence in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.store.swift import S3
from tripshark.store.objects import Objects


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Path | str:
    """Where a catalogue is kept: a file, or a database of a real server."""
    if request.param == "sqlite":
        return tmp_path / "deep" / "catalogue.db"
    server = request.getfixturevalue("postgres")
    return str(server.new())


@pytest.fixture(params=["folder", "s3"])
def objects(request: pytest.FixtureRequest, tmp_path: Path) -> Objects:
    """An empty object store: a folder, or a bucket of a real S3 server, below a prefix."""
    if request.param == "folder":
        (tmp_path / "volume").mkdir()
        return Objects(f"file://{tmp_path}/volume")
    server: S3 = request.getfixturevalue("s3")
    return Objects(f"s3://{server.bucket()}/some/prefix", server.options)
