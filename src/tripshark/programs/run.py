"""Which processes this machine needs, as whom each runs, and where they meet."""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tripshark.errors import Permanent
from tripshark.programs import accounts
from tripshark.programs.accounts import Account
from tripshark.programs.parts import recorder_config
from tripshark.programs.supervisor import Program, Supervisor, python
from tripshark.settings import Settings

ALL = ("recorder", "analyst", "responder")


@dataclass(frozen=True, slots=True)
class Cast:
    """Who plays what. Started by an ordinary user, that user plays everything."""

    responder: Account
    analyst: Account
    shared_gid: int
    separate: bool


def cast(settings: Settings) -> Cast:
    if not accounts.may_change_user():
        me = accounts.current()
        return Cast(responder=me, analyst=me, shared_gid=me.gid, separate=False)
    responder = accounts.account(settings.user, accounts.RESPONDER_ID)
    analyst = accounts.account(settings.analyst_user, accounts.ANALYST_ID)
    if 0 in (responder.uid, analyst.uid):
        raise Permanent(
            "responder and analyst must not be root",
            where="settings user, analyst_user",
            hint="name ordinary users, or leave the defaults",
        )
    gid = accounts.group(settings.recorder.group, responder.gid)
    return Cast(responder=responder, analyst=analyst, shared_gid=gid, separate=True)


def run(
    settings: Settings,
    *,
    tell: Callable[[str, Mapping[str, object]], None],
    only: Sequence[str] = ALL,
) -> int:
    """Until SIGTERM or SIGINT; the exit code."""
    players = cast(settings)
    _prepare(settings.data, players)
    programs = {
        "recorder": Program(
            name="recorder",
            argv=python(
                "tripshark.programs.recorder",
                recorder_config(
                    settings, gid=players.shared_gid, allowed_uids=(players.responder.uid,)
                ).to_json(),
            ),
        ),
        "analyst": Program(
            name="analyst",
            argv=python(
                "tripshark.programs.analyst",
                {
                    "socket": str(settings.analyst_socket),
                    "uid": players.analyst.uid,
                    "gid": players.analyst.gid,
                    "group": players.shared_gid,
                    "allowed_uids": [players.responder.uid, os.geteuid()],
                },
            ),
        ),
        "responder": Program(
            name="responder",
            argv=python(
                "tripshark.programs.node",
                {
                    "config": settings.config_file,
                    "overrides": {"data": str(settings.data), "listen": str(settings.listen)},
                    "uid": players.responder.uid,
                    "gid": players.responder.gid,
                    "groups": [players.shared_gid],
                },
            ),
            inherits_stdin=settings.events.stdin,
        ),
    }
    chosen = [programs[name] for name in ALL if name in only]
    with _only_one(settings.data, [each.name for each in chosen]):
        return asyncio.run(Supervisor(chosen, tell).run())


@contextmanager
def _only_one(data: Path, names: Sequence[str]) -> Iterator[None]:
    """Nobody else runs these on this data folder meanwhile; the kernel forgets the locks with us. Raises `Permanent`."""
    with ExitStack() as held:
        for name in names:
            path = data / "run" / f"{name}.lock"
            try:
                lock = held.enter_context(path.open("w"))
                path.chmod(0o640)  # whatever the umask
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as taken:
                raise Permanent(
                    f"a {name} runs on this data folder already",
                    where=str(data),
                    hint="stop it first, or name another folder with --data",
                ) from taken
            except OSError as problem:
                raise Permanent(
                    f"cannot be locked: {problem.strerror}", where=str(path)
                ) from problem
        yield


def _prepare(data: Path, players: Cast) -> None:
    """The data folder belongs to the responder; `run` to root, for the sockets that others may use."""
    try:
        data.mkdir(parents=True, exist_ok=True)
        (data / "run").mkdir(exist_ok=True)
        if players.separate:
            os.chown(data, players.responder.uid, players.shared_gid)
            os.chown(data / "run", 0, players.shared_gid)
        data.chmod(0o750)
        (data / "run").chmod(0o750)
    except OSError as problem:
        raise Permanent(
            f"the data folder cannot be used: {problem.strerror}",
            where=str(data),
            hint="name another with --data, or `data:` in the settings",
        ) from problem
