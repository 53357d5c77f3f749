"""By hand: real evidence in the real window of a newer Wireshark, as a picture for the documentation.

    sudo .venv/bin/python -m tests.wireshark.gui [--root FOLDER] [--suite trixie]

Debian's packages are unpacked into FOLDER (mmdebstrap or debootstrap; about 1.3 GB), unless they are there. Wireshark
runs in it as an ordinary user under Xvfb, with nothing but what `tripshark wireshark install` wrote, and opens what
`tripshark demo` sealed. It is not told which profile to take: from 4.4 on it must find that out.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.e2e.machine import wait_for as until

HERE = Path(__file__).parent.parent.parent
PACKAGES = "wireshark,tshark,xvfb,xauth,xdotool,imagemagick,fonts-dejavu-core,libqt6svg6"
MIRROR = "http://deb.debian.org/debian"
DISPLAY = ":97"
SIZE = (1500, 700)
USER = 1000
HOME = "/home/analyst"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=Path, default=Path("/var/tmp/tripshark-gui"))
    parser.add_argument("--suite", default="trixie")
    parser.add_argument("--picture", type=Path, help="default: docs/images/wireshark-VERSION.png")
    asked = parser.parse_args()
    if os.geteuid() != 0:
        print("needs root: for chroot and for the demo's namespaces", file=sys.stderr)
        return 1
    root: Path = asked.root
    if not (root / "usr/bin/wireshark").exists():
        unpack(root, asked.suite)
    with mounted(root):
        version = inside(root, "wireshark", "--version").split()[1].rstrip(".")
        picture = asked.picture or HERE / f"docs/images/wireshark-{version.rpartition('.')[0]}.png"
        picture.parent.mkdir(parents=True, exist_ok=True)
        prepare(root, evidence())
        with screen(root):
            photograph(root, picture)
    print(f"Wireshark {version}: {picture}, {picture.stat().st_size} bytes")
    return 0


def unpack(root: Path, suite: str) -> None:
    tool = next((each for each in ("mmdebstrap", "debootstrap") if shutil.which(each)), None)
    if tool is None:
        raise SystemExit("mmdebstrap or debootstrap is needed to unpack a newer Debian")
    variant = "--variant=apt" if tool == "mmdebstrap" else "--variant=minbase"
    subprocess.run([tool, variant, f"--include={PACKAGES}", suite, str(root), MIRROR], check=True)


@contextmanager
def mounted(root: Path) -> Iterator[None]:
    """With /proc, which Qt asks, for as long as it is needed."""
    there = os.path.ismount(root / "proc")
    if not there:
        subprocess.run(["mount", "-t", "proc", "proc", root / "proc"], check=True)
    try:
        yield
    finally:
        if not there:
            subprocess.run(["umount", root / "proc"], check=False)


def evidence() -> Path:
    """What a demo sealed just now."""
    demo = [sys.executable, "-m", "tripshark", "demo", "--keep", "--json"]
    done = subprocess.run(demo, check=True, capture_output=True, text=True)
    return Path(json.loads(done.stdout.splitlines()[-1])["folder"]) / "evidence.pcapng"


def prepare(root: Path, file: Path) -> None:
    home = root / HOME.lstrip("/")
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True)
    shutil.copy(file, home / "evidence.pcapng")
    (home / "evidence.pcapng").chmod(0o644)
    kept = {name: each for name, each in os.environ.items() if not name.startswith("XDG_")}
    subprocess.run(
        [sys.executable, "-m", "tripshark", "wireshark", "install", "--profile-only"],
        check=True,
        stdout=subprocess.DEVNULL,
        env={**kept, "HOME": str(home)},
    )
    for path in (home, *home.rglob("*")):
        os.chown(path, USER, USER)


@contextmanager
def screen(root: Path) -> Iterator[None]:
    size = f"{SIZE[0]}x{SIZE[1]}x24"
    with started(root, "Xvfb", DISPLAY, "-screen", "0", size, "-nolisten", "tcp"):
        until(lambda: (root / f"tmp/.X11-unix/X{DISPLAY[1:]}").exists(), "the screen")
        yield


def photograph(root: Path, picture: Path) -> None:
    with started(root, "wireshark", "-r", f"{HOME}/evidence.pcapng"):
        found = until(lambda: windows(root, "evidence.pcapng"), "the window")
        inside(root, "xdotool", "windowmove", found[0], "0", "0")
        inside(root, "xdotool", "windowsize", found[0], *map(str, SIZE))
        time.sleep(4)  # nothing tells when a window has painted itself
        inside(
            root,
            "import",
            "-window",
            "root",
            "-dither",
            "None",
            "-colors",
            "48",
            f"{HOME}/picture.png",
        )
        shutil.copy(root / HOME.lstrip("/") / "picture.png", picture)


def windows(root: Path, name: str) -> list[str]:
    try:
        return inside(root, "xdotool", "search", "--name", name).split()
    except subprocess.CalledProcessError:
        return []


def command(root: Path, argv: Sequence[str]) -> list[str]:
    kept = [f"HOME={HOME}", f"DISPLAY={DISPLAY}", "PATH=/usr/bin:/bin", "LC_ALL=C.UTF-8",
            "XDG_RUNTIME_DIR=/tmp", "QT_QPA_PLATFORM=xcb"]  # fmt: skip
    return ["chroot", f"--userspec={USER}:{USER}", str(root), "/usr/bin/env", "-i", *kept, *argv]


def inside(root: Path, *argv: str) -> str:
    done = subprocess.run(
        command(root, argv), check=True, capture_output=True, text=True, timeout=60
    )
    return done.stdout


@contextmanager
def started(root: Path, *argv: str) -> Iterator[None]:
    process = subprocess.Popen(
        command(root, argv), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        yield
    finally:
        process.terminate()
        process.wait(20)


if __name__ == "__main__":
    sys.exit(main())
