"""How a privileged process listens, speaks to whoever started it, and logs: with the standard library alone."""

from __future__ import annotations

import contextlib
import grp
import json
import logging
import os
import socket
import stat
import time
from collections.abc import Mapping
from pathlib import Path

from tripshark.errors import Denied, Permanent


def listen(socket_path: str, group: int, *, whose: str) -> socket.socket:
    """Mode 0660, of `group` where it is not -1; what an earlier life left there is replaced.

    Raises `Denied`, and `Permanent` where a recorder or scout (`whose`) answers there already.
    """
    path = Path(socket_path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
    mask = os.umask(0o117)
    try:
        if path.exists() and stat.S_ISSOCK(path.stat().st_mode):
            _refuse_second(path, whose)
            path.unlink()
        listener.bind(socket_path)
        path.chmod(0o660)
        if group >= 0:
            os.chown(path, -1, group)
        listener.listen(64)
    except PermissionError as problem:
        listener.close()
        raise Denied(
            f"may not make the socket: {problem.strerror}",
            where=str(path),
            hint=f"is the directory ours, and may we give files to group {_group(group)}?",
        ) from problem
    except OSError as problem:
        listener.close()
        raise Permanent(
            f"cannot make the socket: {problem.strerror}", where=str(path)
        ) from problem
    except BaseException:
        listener.close()
        raise
    finally:
        os.umask(mask)
    return listener


def _refuse_second(path: Path, whose: str) -> None:
    """Two recorders on one socket would record everything twice."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return
    raise Permanent(f"a {whose} is running already", where=str(path), hint="stop it first")


def _group(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except (KeyError, OverflowError):
        return str(gid)


def say(message: Mapping[str, object]) -> None:
    """The line that whoever started us waits for."""
    with contextlib.suppress(OSError):
        os.write(1, json.dumps(message).encode() + b"\n")


def log_to_stderr(program: str) -> None:
    """One JSON object a line, also of what libraries log."""
    handler = logging.StreamHandler()
    handler.setFormatter(_AsJson(program))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)


class _AsJson(logging.Formatter):
    def __init__(self, program: str) -> None:
        super().__init__()
        self._program = program

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(record.created)),
            "level": record.levelname.lower(),
            "program": self._program,
            "pid": record.process,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line)
