"""A real PostgreSQL for tests: Debian's, in a folder of its own, over a unix socket alone."""

from __future__ import annotations

import itertools
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from tests.processes import killed_with_us


def _programs() -> Path | None:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return found[-1].parent if found else None


class Server:
    """One running server. `new()` is the URL of a fresh, empty database."""

    def __init__(self, bin: Path, folder: Path, who: dict[str, object]) -> None:
        self._bin = bin
        self._folder = folder
        self._who = who
        self._numbers = itertools.count()
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._process = subprocess.Popen(
            [
                self._bin / "postgres", "-D", self._folder / "data", "-k", self._folder,
                "-c", "listen_addresses=", "-c", "fsync=off", "-c", "max_connections=30",
                "-c", "shared_buffers=16MB",
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=self._folder,
            preexec_fn=killed_with_us,
            **self._who,
        )  # fmt: skip
        deadline = time.monotonic() + 60
        while True:
            try:
                psycopg.connect(self._url("postgres")).close()
            except psycopg.OperationalError:
                if time.monotonic() > deadline or self._process.poll() is not None:
                    raise
                time.sleep(0.05)
            else:
                return

    def stop(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)  # "fast": open transactions are undone
            self._process.wait(30)
            self._process = None

    def new(self) -> str:
        name = f"test_{next(self._numbers)}"
        with psycopg.connect(self._url("postgres"), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return self._url(name)

    def _url(self, name: str) -> str:
        return f"postgresql://postgres:no-secret-here@/{name}?host={self._folder}"


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    """A server for all tests; skipped where Debian's postgresql is not installed."""
    bin = _programs()
    if bin is None:
        pytest.skip("needs Debian's package postgresql")
    who: dict[str, object] = {}
    if os.geteuid() == 0:  # PostgreSQL refuses to run as root
        entry = pwd.getpwnam("postgres")
        who = {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
    folder = Path(tempfile.mkdtemp(prefix="ts-pg-"))  # short: a unix socket lies in it
    folder.chmod(0o755)  # a hub that gave up root connects too
    if who:
        os.chown(folder, entry.pw_uid, entry.pw_gid)
    try:
        subprocess.run(
            [bin / "initdb", "-D", folder / "data", "-U", "postgres", "-A", "trust", "-N",
             "--locale=C", "-E", "UTF8"],
            check=True, capture_output=True, cwd=folder, **who,
        )  # fmt: skip
        server = Server(bin, folder, who)
        server.start()
        yield server
        server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
