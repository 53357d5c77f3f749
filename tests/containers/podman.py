"""A real Podman for tests, in a private folder and with a bridge of its own; skipped, saying why, where it is not installed."""

from __future__ import annotations

import contextlib
import glob
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from tests.containers.image import BUSYBOX, PAUSE, WORK, write_images
from tests.containers.runtime import forwarding_restored, slot
from tests.processes import ended_with_us

_CONFIG = f"""
[containers]
default_ulimits = ["nofile=1024:4096", "nproc=1024:4096"]
[network]
network_backend = "cni"
cni_plugin_dirs = ["/usr/lib/cni"]
[engine]
infra_image = "{PAUSE}"
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
"""
_SLEEP = ["-c", "trap 'exit 0' TERM; while :; do sleep 1000 & wait $!; done"]


def why_not_podman() -> str:
    if os.geteuid() != 0:
        return "containers need root"
    needed = ("/usr/bin/podman", "/usr/sbin/runc", "/usr/lib/cni/bridge", BUSYBOX)
    missing = [path for path in needed if not os.access(path, os.X_OK)]
    return f"not installed: {', '.join(missing)}" if missing else ""


class Podman:
    """`podman` with a root of its own, and its API on `socket`."""

    def __init__(self, folder: Path, number: int) -> None:
        self.folder = folder
        self.socket = str(folder / "podman.sock")
        self.bridge = f"ts-pod{number}"
        self._number = number
        self._child: subprocess.Popen[bytes] | None = None

    def __call__(self, *arguments: str) -> str:
        done = subprocess.run(
            [*self._command(), *arguments], env=self._environment(), capture_output=True, text=True, timeout=60
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def run(self, name: str, *options: str) -> str:
        """A container that sleeps; its id."""
        return self("run", "-d", "--name", name, *options, WORK, *_SLEEP)

    def start(self) -> None:
        (self.folder / "networks").mkdir(parents=True)
        (self.folder / "containers.conf").write_text(_CONFIG)
        network = {
            "cniVersion": "0.4.0",
            "name": "podman",
            "plugins": [
                {
                    "type": "bridge",
                    "bridge": self.bridge,
                    "isGateway": True,
                    "ipMasq": False,
                    "ipam": {
                        "type": "host-local",
                        "dataDir": str(self.folder / "addresses"),
                        "ranges": [[{"subnet": f"10.214.{self._number}.0/24"}]],
                        "routes": [{"dst": "0.0.0.0/0"}],
                    },
                }
            ],
        }
        (self.folder / "networks" / "87-podman.conflist").write_text(json.dumps(network))
        write_images(self.folder / "images.tar")
        self("load", "-q", "-i", str(self.folder / "images.tar"))
        self.serve()

    def serve(self) -> None:
        """Start the API; containers need it as little as Docker's do."""
        self._child = subprocess.Popen(
            [*self._command(), "system", "service", "--time=0", f"unix://{self.socket}"],
            env=self._environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            preexec_fn=ended_with_us,
        )
        deadline = time.monotonic() + 30
        while not os.path.exists(self.socket):
            assert self._child.poll() is None, "podman's service ended"
            assert time.monotonic() < deadline, "podman's service did not begin"
            time.sleep(0.02)

    def close(self) -> None:
        for what in (
            "pod rm",
            "rm",
            "rm",
        ):  # the first time it refuses those that others depend on
            with contextlib.suppress(AssertionError, subprocess.TimeoutExpired):
                self(*what.split(), "-fa", "-t", "0")
        if self._child is not None:
            self._child.terminate()
            self._child.wait(30)
        subprocess.run(["ip", "link", "del", self.bridge], capture_output=True, check=False)
        mounts = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
        for mount in reversed([each for each in mounts if each.startswith(f"{self.folder}/")]):
            subprocess.run(["umount", "-l", mount], capture_output=True, check=False)
        for path in glob.glob("/sys/fs/cgroup/*/libpod_parent"):
            for each, _, _ in os.walk(path, topdown=False):
                with contextlib.suppress(OSError):
                    os.rmdir(each)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _command(self) -> list[str]:
        folder = self.folder
        return [
            "podman", "--root", f"{folder}/root", "--runroot", f"{folder}/run", "--tmpdir", f"{folder}/tmp",
            "--storage-driver", "overlay", "--network-config-dir", f"{folder}/networks",
        ]  # fmt: skip

    def _environment(self) -> dict[str, str]:
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.folder),
            "CONTAINERS_CONF": str(self.folder / "containers.conf"),
        }


@contextlib.contextmanager
def start_podman() -> Iterator[Podman]:
    with slot("podman") as number, forwarding_restored():
        folder = Path(f"/tmp/ts-podman-{number}")
        made = Podman(folder, number)
        if folder.exists():  # of a run that was killed
            made.close()
        try:
            made.start()
            yield made
        finally:
            made.close()
