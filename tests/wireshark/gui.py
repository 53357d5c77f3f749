"""By hand: real evidence in the real window of a newer Wireshark, as a picture for the documentation.

    sudo .venv/bin/python -m tests.wireshark.gui [--root FOLDER] [--suite trixie]

Debian's packages are unpacked into FOLDER (mmdebstrap or debootstrap; about 1.3 GB), unless they are there. Wireshark
runs in it as an ordinary user under Xvfb, with nothing but what `tripshark wireshark install` wrote, and opens what
`tripshark demo` sealed. It is not told which profile to take: from 4.4 on it must find that out. Then it watches a pod
live, as an interface of its own, while an alert arrives.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.e2e.machine import Machine, Network, falco_event
from tests.e2e.machine import wait_for as until
from tests.wireshark.conftest import SENDER
from tripshark.wireshark.installer import wrapper

HERE = Path(__file__).parent.parent.parent
PACKAGES = "python3,wireshark,tshark,xvfb,xauth,xdotool,imagemagick,fonts-dejavu-core,libqt6svg6"
MIRROR = "http://deb.debian.org/debian"
DISPLAY = ":97"
SIZE = (1500, 700)
USER = 1000
HOME = "/home/analyst"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=Path, default=Path("/var/tmp/tripshark-gui"))
    parser.add_argument("--suite", default="trixie")
    asked = parser.parse_args()
    if os.geteuid() != 0:
        print("needs root: for chroot and for the demo's namespaces", file=sys.stderr)
        return 1
    root: Path = asked.root
    if not (root / "usr/bin/wireshark").exists():
        unpack(root, asked.suite)
    with mounted(root):
        version = inside(root, "wireshark", "--version").split()[1].rstrip(".")
        picture = HERE / f"docs/images/wireshark-{version.rpartition('.')[0]}.png"
        picture.parent.mkdir(parents=True, exist_ok=True)
        prepare(root, evidence())
        with screen(root):
            opening = ("-r", f"{HOME}/evidence.pcapng")
            photograph(root, opening, "evidence.pcapng", picture)
            live = picture.with_stem(f"{picture.stem}-live")
            with machine() as watched:
                tell_of(root, watched)
                opening = ("-k", "-i", "tripshark-at:payments/checkout-7d9f")

                def alarm() -> None:
                    watched.post(falco_event(rule="Terminal shell in container"))

                photograph(root, opening, "Capturing from", live, alarm)
    print(f"Wireshark {version}: {picture}, {live}")
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


@contextmanager
def machine() -> Iterator[Machine]:
    """A running Tripshark with the pod payments/checkout-7d9f, which sends."""
    folder = Path("/tmp") / f"ts-gui-{os.getpid()}"
    folder.mkdir(mode=0o755)
    network = Network("gui")
    pod, far = network.namespace("pod"), network.namespace("far")
    network.veth(pod, far)
    rules = "- rule: All\n  match: {priority: '>=Debug'}\n  capture: {before: 5s, after: 300ms}\n"
    pods = [{"netns": pod, "namespace": "payments", "pod": "checkout-7d9f"}]
    made = Machine(folder, rules_text=rules, recorder={"include": [pod]}, targets={"static": pods})
    try:
        made.start()
        made.wait_recorded(pod)
        network.python(pod, SENDER.replace("0.02", "0.25"))  # so that the alert stays in view
        yield made
    finally:
        made.stop()
        network.close()
        shutil.rmtree(folder)


def tell_of(root: Path, watched: Machine) -> None:
    """What the installer writes, but for the Python of the other Debian, over HTTP, with our code beside it."""
    there = root / HOME.lstrip("/")
    shutil.copytree(HERE / "src", there / "src", ignore=shutil.ignore_patterns("__pycache__"))
    program = there / ".local/lib/wireshark/extcap/tripshark"
    program.parent.mkdir(parents=True)
    argv = ["env", f"PYTHONPATH={HOME}/src", "python3", "-m", "tripshark.programs.extcap"]
    program.write_text(wrapper([*argv, "--at", watched.url], later=True))
    program.chmod(0o755)


def photograph(
    root: Path,
    opening: Sequence[str],
    title: str,
    picture: Path,
    then: Callable[[], object] = lambda: None,
) -> None:
    with started(root, "wireshark", *opening, *(["-C", "Tripshark"] if "-k" in opening else [])):
        found = until(lambda: windows(root, title), f"the window {title!r}", 120)
        inside(root, "xdotool", "windowmove", found[0], "0", "0")
        inside(root, "xdotool", "windowsize", found[0], *map(str, SIZE))
        time.sleep(2)
        then()
        time.sleep(3)  # nothing tells when a window has painted itself
        shot = ("import", "-window", "root", "-dither", "None", "-colors", "48")
        inside(root, *shot, f"{HOME}/picture.png")
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
