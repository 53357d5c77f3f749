"""Catalogues of both engines, and stores of both kinds."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.store.postgres import postgres

__all__ = ["postgres"]


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Path | str:
    """Where a catalogue is kept: a file, or a database of a real server."""
    if request.param == "sqlite":
        return tmp_path / "deep" / "catalogue.db"
    server = request.getfixturevalue("postgres")
    return str(server.new())
