"""Runs a piece of Python where it has a small disk of its own: a tmpfs in a private mount namespace."""

from __future__ import annotations

import subprocess
import sys
import textwrap


def in_private_tmpfs(size: str, program: str, timeout: float = 60) -> str:
    """Run `program` with `FOLDER` naming a tmpfs of `size`; the mount ends with the process. Gives its output."""
    script = f"FOLDER = '/mnt'\n{textwrap.dedent(program)}"
    mount = f'mount -t tmpfs -o size={size} none /mnt && exec "$0" -c "$1"'
    done = subprocess.run(
        [
            "unshare",
            "--mount",
            "--propagation",
            "private",
            "sh",
            "-c",
            mount,
            sys.executable,
            script,
        ],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
