"""A real S3 server for tests: OpenStack Swift's, which checks signatures, checksums and preconditions.

It comes from PyPI into a virtual environment of its own, kept in ~/.cache/tripshark-tests: its dependencies are none of
ours. One node, one replica, on loopback, in a folder of its own.
"""

from __future__ import annotations

import configparser
import contextlib
import fcntl
import io
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import obstore
import pytest
from obstore.store import S3Store

from tests.processes import killed_with_us

VERSION = "2.38.3"
CACHE = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "tripshark-tests"
KEY, SECRET = "test:tester", "a-secret-nobody-may-see"
TYPES = ("account", "container", "object")
PIPELINE = "catch_errors cache listing_formats s3api tempauth bulk slo versioned_writes symlink"
FILTERS = {
    "s3api": {"location": "us-east-1", "s3_acl": "false"},
    "tempauth": {"user_test_tester": f"{SECRET} .admin"},
    "cache": {"use": "egg:swift#memcache"},
    "versioned_writes": {"allow_object_versioning": "true"},
} | {name: {} for name in ("catch_errors", "listing_formats", "bulk", "slo", "symlink")}

RINGS = """
import sys
from swift.common.ring import RingBuilder
for name, port in (word.split("=") for word in sys.argv[1:]):
    builder = RingBuilder(4, 1, 0)
    place = {"ip": "127.0.0.1", "port": int(port), "device": "d1", "weight": 1, "region": 1, "zone": 1}
    builder.add_dev(place | {"replication_ip": "127.0.0.1", "replication_port": int(port), "meta": ""})
    builder.rebalance()
    builder.get_ring().save(name + ".ring.gz")
"""


def _environment() -> Path:
    """The virtual environment, made once. Skips where PyPI cannot be reached."""
    CACHE.mkdir(parents=True, exist_ok=True)
    made = CACHE / f"swift-{VERSION}-py{sys.version_info.major}{sys.version_info.minor}"
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (made / "done").exists():
            shutil.rmtree(made, ignore_errors=True)
            subprocess.run([sys.executable, "-m", "venv", made], check=True, capture_output=True)
            done = subprocess.run(
                [made / "bin/pip", "install", "-q", "--disable-pip-version-check",
                 f"swift=={VERSION}"],
                check=False, capture_output=True, text=True,
            )  # fmt: skip
            if done.returncode:
                pytest.skip(f"needs swift=={VERSION} from PyPI: {done.stderr[-300:]}")
            (made / "done").touch()
    return made


class S3:
    """One S3 server; `stop` and `start` make the store go away and come back with all it held."""

    def __init__(self, environment: Path, folder: Path) -> None:
        self._bin = environment / "bin"
        self._folder = folder
        self._processes: list[subprocess.Popen[bytes]] = []
        self._buckets = 0
        self.port, *self._ports = _free_ports(4)
        self._configure()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def options(self) -> dict[str, str]:
        return {
            "aws_endpoint": self.endpoint,
            "aws_access_key_id": KEY,
            "aws_secret_access_key": SECRET,
            "aws_region": "us-east-1",
            "allow_http": "true",
        }

    def bucket(self) -> str:
        """The name of a fresh bucket."""
        self._buckets += 1
        name = f"bucket-{os.getpid()}-{self._buckets}"
        made = S3Store(
            bucket=name,
            config={k: v for k, v in self.options.items() if k != "allow_http"},
            client_options={"allow_http": True, "timeout": "60s"},
        )
        url = obstore.sign(made, "PUT", "", timedelta(minutes=5))  # of the bucket itself
        urllib.request.urlopen(urllib.request.Request(url, method="PUT"), timeout=60).close()
        return name

    def start(self) -> None:
        for name in (*TYPES, "proxy"):
            self._processes.append(
                subprocess.Popen(
                    [
                        self._bin / f"swift-{name}-server",
                        self._folder / "etc" / f"{name}-server.conf",
                    ],
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    env={**os.environ, "PATH": f"{self._bin}:{os.environ['PATH']}"},
                    start_new_session=True,
                    preexec_fn=killed_with_us,
                )
            )
        deadline = time.monotonic() + 90
        for port in (*self._ports, self.port):
            while True:
                try:
                    socket.create_connection(("127.0.0.1", port), 1).close()
                    break
                except OSError:
                    if time.monotonic() > deadline:
                        raise
                    time.sleep(0.05)

    def stop(self) -> None:
        for process in self._processes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        for process in self._processes:
            process.wait(30)
        self._processes.clear()

    def _configure(self) -> None:
        etc = self._folder / "etc"
        for folder in (etc, self._folder / "dev" / "d1"):
            folder.mkdir(parents=True)
        _write(
            etc / "swift.conf",
            {
                "swift-hash": {"swift_hash_path_prefix": "x", "swift_hash_path_suffix": "y"},
                "storage-policy:0": {"name": "one", "default": "yes"},
            },
        )
        me = pwd.getpwuid(os.geteuid()).pw_name
        common = {"swift_dir": str(etc), "bind_ip": "127.0.0.1", "user": me, "workers": "0",
                  "log_level": "CRITICAL"}  # fmt: skip
        rings = [f"{name}={port}" for name, port in zip(TYPES, self._ports, strict=True)]
        subprocess.run(
            [self._bin / "python", "-c", RINGS, *rings], check=True, cwd=etc, capture_output=True
        )
        for name, port in zip(TYPES, self._ports, strict=True):
            _write(
                etc / f"{name}-server.conf",
                {
                    "DEFAULT": common
                    | {"devices": str(self._folder / "dev"), "mount_check": "false", "bind_port": str(port)},
                    "pipeline:main": {"pipeline": f"{name}-server"},
                    f"app:{name}-server": {"use": f"egg:swift#{name}"},
                },
            )  # fmt: skip
        _write(
            etc / "proxy-server.conf",
            {
                "DEFAULT": common | {"bind_port": str(self.port)},
                "pipeline:main": {"pipeline": f"{PIPELINE} proxy-server"},
                "app:proxy-server": {
                    "use": "egg:swift#proxy",
                    "account_autocreate": "true",
                    "allow_account_management": "true",
                },
            }
            | {
                f"filter:{name}": {"use": f"egg:swift#{name}"} | more
                for name, more in FILTERS.items()
            },
        )


def _write(path: Path, sections: dict[str, dict[str, str]]) -> None:
    parser = configparser.RawConfigParser(default_section="no such section")
    parser.read_dict(sections)
    text = io.StringIO()
    parser.write(text)
    path.write_text(text.getvalue())


def _free_ports(number: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(number)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


@pytest.fixture(scope="session")
def s3() -> Iterator[S3]:
    """A running S3 server for all tests."""
    environment = _environment()
    folder = Path(tempfile.mkdtemp(prefix="ts-s3-"))
    try:
        os.setxattr(folder, "user.swift", b"x")
    except OSError:
        shutil.rmtree(folder)
        pytest.skip("Swift needs user xattrs, which the temporary folder does not have")
    server = S3(environment, folder)
    try:
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)
