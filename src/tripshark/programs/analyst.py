"""The process that dissects packets: its own user, no network, no credential, no file but the one it is handed.

Started by `tripshark run` as `python -m tripshark.programs.analyst --json-config '{…}'` with
`{"socket": PATH, "uid": N, "gid": N, "group": N, "allowed_uids": [N, …]}`; it prints one line of JSON when it
can be asked: `{"ready": true, "tool": "TShark 4.0.17", "sandbox": ["uid", …]}`. Without tshark `tool` is empty
and `hint` says what to do; it then answers every question with that error until tshark appears.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import signal
import socket
import stat
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import tripshark
from tripshark.analysis.analyst import Analyst
from tripshark.analysis.sandbox import SYSTEM_READ, hold_service
from tripshark.errors import Permanent, TripsharkError
from tripshark.formats import startup
from tripshark.programs.orphans import still_mortal

_FIRST_TO_GO = "700"  # oom_score_adj: when memory runs short, analysis goes before any recording


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """What the supervisor says; who and where, nothing else. Ids left out are those we have."""

    socket: str
    uid: int = field(default_factory=os.getuid)  # to become, where we are root
    gid: int = field(default_factory=os.getgid)
    group: int = field(default_factory=os.getgid)  # of the socket: whoever is in it may connect
    allowed_uids: tuple[int, ...] = field(
        default_factory=lambda: (os.getuid(),)
    )  # and is of these


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="tripshark-analyst", description=__doc__)
    parser.add_argument("--json-config", required=True, metavar="JSON")
    try:
        config = startup.from_json(
            Config, parser.parse_args(argv).json_config, where="--json-config"
        )
        with _listen(config) as listening:
            held = _give_up(config)
            asyncio.run(_serve(listening, config, held))
    except TripsharkError as problem:
        print(json.dumps({"ready": False, **problem.as_json()}), flush=True)  # noqa: T201 - as above
        return problem.exit_code
    return 0


def _listen(config: Config) -> socket.socket:
    """The socket, bound while we still may: 0660, owned by the shared group."""
    path = Path(config.socket)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o117)
    try:
        with contextlib.suppress(FileNotFoundError):
            if stat.S_ISSOCK(path.lstat().st_mode):  # an earlier life's
                path.unlink()
        listening.bind(config.socket)
        if os.geteuid() == 0:
            os.chown(config.socket, config.uid, config.group)
        elif config.group in os.getgroups():  # a user may give his files to a group he is in
            os.chown(config.socket, -1, config.group)
        listening.listen(64)
    except OSError as problem:
        listening.close()
        raise Permanent(f"cannot listen: {problem.strerror}", where=config.socket) from problem
    finally:
        os.umask(before)
    return listening


def _give_up(config: Config) -> tuple[str, ...]:
    """Become the analyst's user and close the house behind us. Returns what holds for the service itself."""
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(_FIRST_TO_GO)
    code = {str(Path(tripshark.__file__).parent.parent), sys.prefix, sys.base_prefix}
    with still_mortal():
        return hold_service(uid=config.uid, gid=config.gid, read=(*SYSTEM_READ, *code))


async def _serve(listening: socket.socket, config: Config, held: tuple[str, ...]) -> None:
    analyst = Analyst(allowed_uids=config.allowed_uids)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    say: dict[str, object] = {"ready": True, "tool": "", "service": held}
    try:
        _, say["tool"] = await analyst.tool()
    except TripsharkError as problem:
        say["problem"], say["hint"] = problem.message, problem.hint
        print(json.dumps(problem.as_json()), file=sys.stderr, flush=True)  # noqa: T201
    async with asyncio.TaskGroup() as tasks:
        serving = tasks.create_task(analyst.serve(listening))
        print(json.dumps(say), flush=True)  # noqa: T201 - the supervisor waits for this line
        await stop.wait()
        serving.cancel()


if __name__ == "__main__":
    sys.exit(main())
