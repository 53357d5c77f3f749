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
from tripshark.programs.parts import recorder_config, scout_config
from tripshark.programs.supervisor import Program, Supervisor, python
from tripshark.settings import Settings

ALL = ("recorder", "scout", "analyst", "responder")
HUB = ("analyst", "hub")
_ORDER = (*ALL, "hub")
NO_ALERTS = "127.0.0.1:0"  # never bound


@dataclass(frozen=True, slots=True)
class Cast:
    """Who plays what. Started by an ordinary user, that user plays everything."""

    responder: Account
    analyst: Account
    shared_gid: int
    separate: bool


def cast(settings: Settings, only: Sequence[str] = ALL) -> Cast:
    if not accounts.may_change_user():
        me = accounts.current()
        if set(only) in (set(ALL), set(HUB)):
            return Cast(responder=me, analyst=me, shared_gid=me.gid, separate=False)
        # the others run elsewhere, as who they are there: a container each, meeting in the shared group
        gid = accounts.group(settings.recorder.group, accounts.RESPONDER_ID)
        return Cast(
            responder=me
            if "responder" in only or "hub" in only
            else accounts.account(settings.user, accounts.RESPONDER_ID),
            analyst=me,
            shared_gid=gid if gid in os.getgroups() else me.gid,
            separate=False,
        )
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
    players = cast(settings, only)
    _prepare(settings, players, only)
    responder = {
        "config": settings.config_file,
        "overrides": {"data": str(settings.data), "listen": str(settings.listen)},
        "uid": players.responder.uid,
        "gid": players.responder.gid,
        "groups": [players.shared_gid],
    }
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
        "scout": Program(
            name="scout",
            argv=python(
                "tripshark.programs.scout",
                scout_config(
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
            argv=python("tripshark.programs.node", responder),
            inherits_stdin=settings.events.stdin,
        ),
        "hub": Program(name="hub", argv=python("tripshark.programs.hub", _hub(responder))),
    }
    idle = {"scout"} if settings.containers.enabled == "off" else set()
    chosen = [programs[name] for name in _ORDER if name in only and name not in idle]
    meet = {
        "recorder": settings.recorder_socket,
        "scout": settings.scout_socket,
        "analyst": settings.analyst_socket,
    }
    folders = {each.name: meet.get(each.name, settings.api_socket).parent for each in chosen}
    with _only_one(folders):
        return asyncio.run(Supervisor(chosen, tell).run())


def _hub(responder: Mapping[str, object]) -> Mapping[str, object]:
    """As a responder, but for alerts: none come in, so nobody needs credentials for them."""
    overrides = responder["overrides"]
    assert isinstance(overrides, dict)  # noqa: S101 (made above)
    return {**responder, "overrides": {**overrides, "ingest.listen": NO_ALERTS}}


@contextmanager
def _only_one(folders: Mapping[str, Path]) -> Iterator[None]:
    """Nobody else runs these, by name, where their sockets are; the kernel forgets the locks with us. Raises `Permanent`."""
    with ExitStack() as held:
        for name, folder in folders.items():
            path = folder / f"{name}.lock"
            try:
                lock = held.enter_context(path.open("w"))
                path.chmod(0o640)  # whatever the umask
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as taken:
                raise Permanent(
                    f"a {name} runs on this data folder already",
                    where=str(folder),
                    hint="stop it first, or name another folder with --data",
                ) from taken
            except OSError as problem:
                raise Permanent(
                    f"cannot be locked: {problem.strerror}", where=str(path)
                ) from problem
        yield


def _prepare(settings: Settings, players: Cast, only: Sequence[str]) -> None:
    """The data folder belongs to the responder; the folders of sockets to root, for those who may use them.

    Whoever runs the recorder or the analyst alone needs no data folder, only the one of its socket.
    """
    root = 0 if players.separate else -1
    owned: dict[Path, int] = {}
    if "responder" in only or "hub" in only:
        owned[settings.data] = players.responder.uid if players.separate else -1
        owned[settings.api_socket.parent] = root
    for name, socket in (
        ("recorder", settings.recorder_socket),
        ("scout", settings.scout_socket),
        ("analyst", settings.analyst_socket),
    ):
        if name in only:
            owned.setdefault(socket.parent, root)
            if settings.data in socket.parents:
                owned.setdefault(settings.data, players.responder.uid if players.separate else -1)
    for folder in sorted(owned):  # all of them first: a folder given away may be closed to us
        _make(folder)
    for folder in sorted(owned):
        _own(folder, owned[folder], players.shared_gid if players.separate else -1)


def _make(folder: Path) -> None:
    """Raises `Permanent`."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        raise _unusable(folder, problem) from problem


def _own(folder: Path, uid: int, gid: int) -> None:
    """Close the folder to the world, and give it away (-1: to nobody). Raises `Permanent`."""
    try:
        info = folder.stat()
        if (uid not in (-1, info.st_uid)) or (gid not in (-1, info.st_gid)):
            os.chown(folder, uid, gid)
        if info.st_mode & 0o7777 != 0o750:
            folder.chmod(0o750)
    except OSError as problem:
        if isinstance(problem, PermissionError) and os.access(folder, os.W_OK | os.X_OK):
            return  # somebody else's, such as a volume that was given to our group: it will do
        raise _unusable(folder, problem) from problem


def _unusable(folder: Path, problem: OSError) -> Permanent:
    return Permanent(
        f"the data folder cannot be used: {problem.strerror}",
        where=str(folder),
        hint="name another with --data, or `data:` in the settings",
    )
