"""The small privileged process that alone opens container runtimes' sockets, and tells facts to whoever may ask.

On standard output comes one JSON line, `{"ready": true, …}` or `{"ready": false, "error": {…}}`.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import os
import signal
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tripshark.errors import TripsharkError
from tripshark.programs.privileged import listen, log_to_stderr, say
from tripshark.recorder import capabilities
from tripshark.recorder.peer import may_connect
from tripshark.scout.config import ScoutConfig
from tripshark.scout.scout import Scout
from tripshark.scout.service import Service

# as root it opens root's own sockets without any; only the namespaces of other users' processes need one
KEPT = (capabilities.SYS_PTRACE,)
_READY_S = 8.0  # a runtime that has not answered by then is waited for while we serve


def main(argv: Sequence[str] | None = None) -> int:
    """`python -m tripshark.programs.scout --json-config '{"socket": …}'`; the exit code."""
    parser = argparse.ArgumentParser(prog="tripshark scout", description=__doc__)
    parser.add_argument("--json-config", required=True, help="see ScoutConfig")
    given = parser.parse_args(argv)
    log_to_stderr("scout")
    try:
        config = ScoutConfig.from_json(given.json_config)
        listener = listen(config.socket, config.group, whose="scout")
    except TripsharkError as problem:
        say({"ready": False, **problem.as_json()})
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
        say({"ready": True, "socket": config.socket, "pid": os.getpid(), **scout.state()})
        await stop.wait()
        for each in parts:
            each.cancel()


if __name__ == "__main__":
    sys.exit(main())
