"""Makes the images of test pods from busybox alone: no registry, no network, no other tool."""

from __future__ import annotations

import hashlib
import io
import json
import os
import platform
import subprocess
import tarfile
from pathlib import Path

PAUSE, WORK = "localhost/pause:1", "localhost/work:1"
BUSYBOX = "/bin/busybox"  # Debian's busybox-static

# the first process of a pod must handle TERM, or stopping it takes as long as it is allowed to
_PAUSE_COMMAND = "trap 'exit 0' TERM INT; while :; do busybox sleep 100000 & wait $!; done"
_MACHINE = {"x86_64": "amd64", "aarch64": "arm64"}


def write_images(path: Path) -> None:
    """Both images in one archive that `ctr images import` reads."""
    busybox = Path(BUSYBOX).read_bytes()
    listed = subprocess.run([BUSYBOX, "--list"], capture_output=True, text=True, check=True)
    links = [name for name in listed.stdout.split() if name != "busybox"]
    files = {
        "bin/busybox": (busybox, 0o755),
        "etc/passwd": (b"root:x:0:0:root:/:/bin/sh\n", 0o644),
        "www/index.html": (b"hello from pod\n", 0o644),
    }
    folders = ["bin", "etc", "tmp", "www", "proc", "sys", "dev"]
    pause = {"bin/busybox": (busybox, 0o755), "bin/sh": (busybox, 0o755)}
    made = [
        (PAUSE, _layer(pause, [], ["bin", "proc", "sys", "dev", "etc"]), ["/bin/sh", "-c", _PAUSE_COMMAND]),
        (WORK, _layer(files, links, folders), ["/bin/sh"]),
    ]  # fmt: skip
    manifest = []
    with tarfile.open(path, "w") as archive:
        for tag, layer, entrypoint in made:
            digest = hashlib.sha256(layer).hexdigest()
            config = json.dumps(
                {
                    "architecture": _MACHINE.get(platform.machine(), platform.machine()),
                    "os": "linux",
                    "created": "1970-01-01T00:00:00Z",
                    "config": {
                        "Env": ["PATH=/bin:/sbin:/usr/bin"],
                        "Entrypoint": entrypoint,
                        "WorkingDir": "/",
                    },
                    "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
                    "history": [{"created": "1970-01-01T00:00:00Z"}],
                }
            ).encode()
            name = hashlib.sha256(config).hexdigest()
            _add(archive, f"{name}.json", config)
            _add(archive, f"{digest}/layer.tar", layer)
            entry = {
                "Config": f"{name}.json",
                "RepoTags": [tag],
                "Layers": [f"{digest}/layer.tar"],
            }
            manifest.append(entry)
        _add(archive, "manifest.json", json.dumps(manifest).encode())


def _layer(files: dict[str, tuple[bytes, int]], links: list[str], folders: list[str]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name in folders:
            entry = tarfile.TarInfo(name)
            entry.type = tarfile.DIRTYPE
            entry.mode = 0o1777 if name == "tmp" else 0o755
            archive.addfile(entry)
        for name, (data, mode) in files.items():
            _add(archive, name, data, mode)
        for name in links:
            entry = tarfile.TarInfo(os.path.join("bin", name))
            entry.type = tarfile.SYMTYPE
            entry.linkname = "busybox"
            archive.addfile(entry)
    return buffer.getvalue()


def _add(archive: tarfile.TarFile, name: str, data: bytes, mode: int = 0o644) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(data)
    entry.mode = mode
    archive.addfile(entry, io.BytesIO(data))
