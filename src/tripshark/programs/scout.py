"""The small privileged process that alone opens container runtimes' sockets, and tells facts to whoever may ask.

On standard output comes one JSON line, `{"ready": true, …}` or `{"ready": false, "error": {…}}`.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import json
import logging
import os
import signal
import socket
import stat
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tripshark.errors import Denied, Permanent, TripsharkError
from tripshark.recorder import capabilities
from tripshark.recorder.peer import may_connect
from tripshark.scout.config import ScoutConfig
from tripshark.scout.scout import Scout
from tripshark.scout.service import Service

log = logging.getLogger("tripshark.scout")

# as root it opens root's own sockets without any; only the namespaces of other users' processes need one
KEPT = (capabilities.SYS_PTRACE,)
_READY_S = 8.0  # a runtime that has not answered by then is waited for while we serve


def main(argv: Sequence[str] | None = None) -> int:
    """`python -m tripshark.programs.scout --json-config '{"socket": …}'`; the exit code."""
    parser = argparse.ArgumentParser(prog="tripshark scout", description=__doc__)
    parser.add_argument("--json-config", required=True, help="see ScoutConfig")
    given = parser.parse_args(argv)
    _log_to_stderr()
    try:
        config = ScoutConfig.from_json(given.json_config)
        listener = _listen(config)
    except TripsharkError as problem:
        _say({"ready": False, **problem.as_json()})
        return problem.exit_code
    capabilities.drop(KEPT)
    try:
        with listener:
            asyncio.run(_run(config, listener))
    finally:
        with contextlib.suppress(OSError):  # the directory may be closed to us by now
            Path(config.socket).unlink()
    return 0


async def _run(config: ScoutConfig, listener: socket.socket) -> None:
    """Until SIGTERM or SIGINT."""
    scout = Scout(config, now=time.time_ns)
    uids = {0, os.geteuid(), *config.allowed_uids}
    service = Service(
        scout,
        listener,
        admit=lambda sock: may_connect(sock, uids=tuple(uids), gid=config.group),
        started_ns=time.time_ns(),
    )
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with asyncio.TaskGroup() as tasks:
        parts = [tasks.create_task(scout.run()), tasks.create_task(service.run())]
        await scout.wait_until_tried(_READY_S)
        gc.freeze()
        _say({"ready": True, "socket": config.socket, "pid": os.getpid(), **scout.state()})
        await stop.wait()
        for each in parts:
            each.cancel()


def _listen(config: ScoutConfig) -> socket.socket:
    path = Path(config.socket)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
    mask = os.umask(0o117)
    try:
        if path.exists() and stat.S_ISSOCK(path.stat().st_mode):
            _refuse_second(path)
            path.unlink()
        listener.bind(config.socket)
        path.chmod(0o660)
        if config.group >= 0:
            os.chown(path, -1, config.group)
        listener.listen(64)
    except PermissionError as problem:
        listener.close()
        raise Denied(
            f"may not make the socket: {problem.strerror}",
            where=str(path),
            hint=f"is the directory ours, and may we give files to group {config.group}?",
        ) from problem
    except OSError as problem:
        listener.close()
        raise Permanent(
            f"cannot make the socket: {problem.strerror}", where=str(path)
        ) from problem
    except TripsharkError:
        listener.close()
        raise
    finally:
        os.umask(mask)
    return listener


def _refuse_second(path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return
    raise Permanent("a scout is running already", where=str(path), hint="stop it first")


def _say(message: dict[str, object]) -> None:
    """The line that whoever started us waits for."""
    with contextlib.suppress(OSError):
        os.write(1, json.dumps(message).encode() + b"\n")


class _AsJson(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(record.created)),
            "level": record.levelname.lower(),
            "program": "scout",
            "pid": record.process,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line)


def _log_to_stderr() -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(_AsJson())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)


if __name__ == "__main__":
    sys.exit(main())
