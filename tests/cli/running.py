"""Commands run as a person or a script runs them: another process, real streams."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Mapping
from typing import NamedTuple

from typer.testing import CliRunner

from tripshark.cli.main import build

COMMAND = [sys.executable, "-m", "tripshark"]


class Done(NamedTuple):
    code: int
    out: str
    err: str


def tripshark(*argv: str, stdin: bytes = b"", **environment: str) -> Done:
    """As a script: no terminal anywhere."""
    done = subprocess.run(
        [*COMMAND, *argv],
        input=stdin,
        capture_output=True,
        timeout=90,
        check=False,
        env={**clean(), **environment},
    )
    return Done(done.returncode, done.stdout.decode(), done.stderr.decode())


def inside(*argv: str) -> Done:
    """Within this process, where only words and the exit code matter."""
    done = CliRunner().invoke(build(), list(argv), prog_name="tripshark")
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return Done(done.exit_code, done.stdout, done.stderr)


def on_terminal(columns: int, *argv: str) -> str:
    """As a person sees it: standard output and error are a terminal of that width."""
    ours, theirs = pty.openpty()
    try:
        import fcntl
        import struct
        import termios

        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", 24, columns, 0, 0))
        process = subprocess.Popen(
            [*COMMAND, *argv],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env={**clean(), "TERM": "xterm"},
        )
        os.close(theirs)
        shown = b""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            if not select.select([ours], [], [], 0.2)[0]:
                continue
            try:
                piece = os.read(ours, 65_536)
            except OSError:  # the other side is closed
                break
            if not piece:
                break
            shown += piece
        process.wait(60)
        return shown.decode()
    finally:
        os.close(ours)


def clean() -> Mapping[str, str]:
    """This environment without what would change the answers."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("TRIPSHARK_") and name not in ("COLUMNS", "FORCE_COLOR", "NO_COLOR")
    }
