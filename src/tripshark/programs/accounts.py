"""Under which users the processes run, and whether this process may choose at all."""

from __future__ import annotations

import grp
import os
import pwd
from dataclasses import dataclass
from pathlib import Path

RESPONDER_ID = (
    61_803  # used where no such user exists; of the range that systemd gives to services
)
ANALYST_ID = 61_804


@dataclass(frozen=True, slots=True)
class Account:
    """A user for one process; the name is only for people."""

    name: str
    uid: int
    gid: int


def account(name: str, fallback: int) -> Account:
    """The user of that name, else a number that nobody has."""
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        return Account(name=str(fallback), uid=fallback, gid=fallback)
    return Account(name=name, uid=entry.pw_uid, gid=entry.pw_gid)


def group(name: str, fallback: int) -> int:
    """The group of that name, else `fallback`."""
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        return fallback


def may_change_user() -> bool:
    """Root, with more users than itself: in a user namespace there is often only one."""
    if os.geteuid() != 0:
        return False
    lines = Path("/proc/self/uid_map").read_text(encoding="ascii").splitlines()
    return sum(int(line.split()[2]) for line in lines) > ANALYST_ID


def current() -> Account:
    uid = os.geteuid()
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:
        name = str(uid)
    return Account(name=name, uid=uid, gid=os.getegid())
