"""Gives up all rights for good: another user, no capability, nothing to win back."""

from __future__ import annotations

import os
from collections.abc import Sequence

from tripshark.programs.orphans import still_mortal
from tripshark.recorder import capabilities


def give_up(*, uid: int, gid: int, groups: Sequence[int]) -> None:
    """Become `uid` (-1: stay who we are) and keep no capability in any set, also inside a user namespace."""
    capabilities.drop_bounding_set(keep=())
    if os.geteuid() == 0 and uid > 0:
        with still_mortal():
            os.setgroups(list(groups))
            os.setresgid(gid, gid, gid)
            os.setresuid(uid, uid, uid)
    capabilities.drop(keep=())
    os.umask(0o027)
