"""The privileged process: records every namespace of this machine into memory, and hands blocks to whoever may ask.

Two processes: the holder, which keeps descriptors and restarts the recorder proper; and that one. On standard
output comes one JSON line, `{"ready": true, …}` or `{"ready": false, "error": {…}}`.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import logging
import os
import resource
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

from tripshark.errors import Permanent, TripsharkError
from tripshark.programs.privileged import listen, log_to_stderr, say
from tripshark.recorder import capabilities, kernel
from tripshark.recorder.config import RecorderConfig
from tripshark.recorder.holder import Holder
from tripshark.recorder.keeper import Keeper
from tripshark.recorder.loop import Loop
from tripshark.recorder.roster import Roster, summary
from tripshark.recorder.service import Service

log = logging.getLogger("tripshark.recorder")

_READY_S = 15.0  # what has not been attached by then is attached while we serve
_SAVE_S = 5.0
_TIDY_S = 60.0


def main(argv: Sequence[str] | None = None) -> int:
    """`python -m tripshark.programs.recorder --json-config '{"socket": …}'`; the exit code."""
    parser = argparse.ArgumentParser(prog="tripshark recorder", description=__doc__)
    parser.add_argument("--json-config", required=True, help="see RecorderConfig")
    parser.add_argument("--worker", help=argparse.SUPPRESS)  # descriptors, given by the holder
    given = parser.parse_args(argv)
    log_to_stderr("recorder")
    try:
        config = RecorderConfig.from_json(given.json_config)
    except TripsharkError as problem:
        say({"ready": False, **problem.as_json()})
        return problem.exit_code
    if given.worker:
        pair, listener = (int(each) for each in given.worker.split(","))
        return _work(config, pair, listener)
    return run(config)


def run(config: RecorderConfig) -> int:
    """Record until SIGTERM; the exit code. To be called in a process with one thread."""
    try:
        capabilities.require()
        for words in capabilities.missing():
            log.warning("without %s some processes cannot be recorded", words)
        _raise_limits()
        listener = listen(config.socket, config.group, whose="recorder")
    except TripsharkError as problem:
        say({"ready": False, **problem.as_json()})
        return problem.exit_code
    capabilities.drop()

    def command(pair: int, listener: int) -> list[str]:
        # -P: the directory we were started in must not provide modules to a privileged process
        module = ["-m", "tripshark.programs.recorder", "--json-config", config.to_json()]
        return [sys.executable, "-P", *module, "--worker", f"{pair},{listener}"]

    with listener:
        code = Holder(command, listener, say).run()
    with contextlib.suppress(OSError):  # the directory may be closed to us by now
        Path(config.socket).unlink()
    return code


def _raise_limits() -> None:
    """Descriptors: two for each ring and copy. Niceness: rings must be emptied while the machine is busy."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    for wanted in (1 << 20, most):
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, max(wanted, most)))
            break
    _, most = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    for wanted in (resource.RLIM_INFINITY, most):  # tables of flows count there before Linux 5.11
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_MEMLOCK, (wanted, wanted))
            break
    with contextlib.suppress(OSError):
        os.nice(-5)


# ---- the recorder proper --------------------------------------------------------------------------------


def _work(config: RecorderConfig, pair: int, listener: int) -> int:
    holder = socket.socket(fileno=pair)
    holder.set_inheritable(False)
    os.set_inheritable(listener, False)
    keeper = Keeper(holder)
    try:
        capabilities.drop()
        kernel.take_short_turns()
        return _record(config, keeper, socket.socket(fileno=listener))
    except TripsharkError as problem:
        keeper.tell("failed", error=problem.as_json()["error"])
        return problem.exit_code
    except Exception as problem:
        log.exception("the recorder cannot go on")
        error = Permanent(f"the recorder cannot start: {problem}").as_json()["error"]
        with contextlib.suppress(OSError):
            keeper.tell("failed", error=error)
        return 1


def _record(config: RecorderConfig, keeper: Keeper, listener: socket.socket) -> int:
    loop = Loop()
    roster = Roster(config, loop, keeper)
    stop, nudge = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(nudge, warn_on_full_buffer=False)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    loop.watch(stop, lambda _: _end(loop))
    loop.watch(keeper.sock.fileno(), lambda _: _end(loop))  # the holder is gone
    roster.start(keeper.restore())
    uids = {0, os.geteuid(), *config.allowed_uids}
    service = Service(loop, roster, listener, uids=uids, gid=config.group)
    waiting = [each for each in roster.targets.values() if not each.settled]
    state = {"ready": False}

    def ready() -> None:
        if not state["ready"] and all(each.settled for each in waiting):
            state["ready"] = True
            keeper.tell("ready", socket=config.socket, **summary(roster))

    def ready_anyway() -> None:
        waiting.clear()
        ready()

    for each in waiting:
        roster.when_settled(each, ready)
    ready()
    loop.later(_READY_S, ready_anyway)

    def save() -> None:
        roster.save()
        loop.later(_SAVE_S, save)

    def tidy() -> None:  # the collector is off, so that it never stops the sweep at a bad moment
        gc.collect()
        loop.later(_TIDY_S, tidy)

    save()
    tidy()
    gc.freeze()
    gc.disable()
    loop.run()
    service.close()
    with contextlib.suppress(OSError):
        roster.save()
    os._exit(0)  # closing hundreds of rings takes seconds that the kernel saves by itself


def _end(loop: Loop) -> None:
    loop.running = False


if __name__ == "__main__":
    sys.exit(main())
