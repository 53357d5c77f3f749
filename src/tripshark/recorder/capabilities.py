"""Gives up every privilege that recording does not need, and says exactly what is missing."""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Collection

from tripshark.errors import Denied
from tripshark.recorder.kernel import check, libc

NET_RAW, SYS_PTRACE, SYS_ADMIN, DAC_READ_SEARCH, SETPCAP = 13, 19, 21, 2, 8
KEPT = {
    NET_RAW: "CAP_NET_RAW (packet sockets)",
    SYS_ADMIN: "CAP_SYS_ADMIN (entering network namespaces)",
    SYS_PTRACE: "CAP_SYS_PTRACE (namespaces of other users' processes)",
    DAC_READ_SEARCH: "CAP_DAC_READ_SEARCH (namespace files of other users)",
}
NEEDED = (NET_RAW, SYS_ADMIN)

_VERSION_3 = 0x2008_0522
_PR_CAPBSET_READ, _PR_CAPBSET_DROP = 23, 24
_PR_SET_NO_NEW_PRIVS = 38
_PR_CAP_AMBIENT, _RAISE, _CLEAR_ALL = 47, 2, 4


def held() -> int:
    """The effective capabilities of this thread, as a bit mask."""
    return _get()[0]


def missing() -> tuple[str, ...]:
    """Which of the kept capabilities this thread does not have, in words."""
    have = held()
    return tuple(words for number, words in KEPT.items() if not have >> number & 1)


def require() -> None:
    """Raises `Denied`, naming what is missing, when recording is impossible."""
    have = held()
    lacking = [KEPT[number] for number in NEEDED if not have >> number & 1]
    if lacking:
        raise Denied(
            f"recording needs {' and '.join(lacking)}",
            where="tripshark recorder",
            hint="start it as root, give the service AmbientCapabilities, or try it without privileges "
            "in a user namespace: unshare --user --map-root-user --net --mount",
        )


def drop(keep: Collection[int] = tuple(KEPT)) -> None:
    """Leave only `keep` (what was held of it) in the permitted, effective and bounding sets, nothing elsewhere.

    Applies to the calling thread and the threads and processes it starts later: call it before any.
    """
    _, permitted, _ = _get()
    kept = sum(1 << number for number in keep) & permitted
    drop_bounding_set(keep)
    _prctl(_PR_CAP_AMBIENT, _CLEAR_ALL)
    _set(effective=kept, permitted=kept, inheritable=0)
    check(_prctl(_PR_SET_NO_NEW_PRIVS, 1), "PR_SET_NO_NEW_PRIVS")


def drop_bounding_set(keep: Collection[int]) -> None:
    """No program executed from here on can gain more than `keep`. Needs CAP_SETPCAP; without it there is no way."""
    if not held() >> SETPCAP & 1:
        return
    number = 0
    while (known := _prctl(_PR_CAPBSET_READ, number)) >= 0:
        if known and number not in keep:
            check(_prctl(_PR_CAPBSET_DROP, number), "PR_CAPBSET_DROP")
        number += 1


def pass_on() -> None:
    """Let the program executed next keep what is held, also where it is not root. It calls `drop` at once."""
    effective, permitted, _ = _get()
    _set(effective=effective, permitted=permitted, inheritable=permitted)
    for number in KEPT:
        if permitted >> number & 1:
            _prctl(_PR_CAP_AMBIENT, _RAISE, number)


def _prctl(option: int, *arguments: int) -> int:
    rest = [ctypes.c_ulong(each) for each in (*arguments, 0, 0, 0, 0)[:4]]
    return int(libc().prctl(option, *rest))


def _get() -> tuple[int, int, int]:
    header = ctypes.create_string_buffer(struct.pack("=Ii", _VERSION_3, 0), 8)
    data = ctypes.create_string_buffer(24)
    check(libc().capget(header, data), "capget")
    low = struct.unpack_from("=3I", data, 0)
    high = struct.unpack_from("=3I", data, 12)
    effective, permitted, inheritable = (a | b << 32 for a, b in zip(low, high, strict=True))
    return effective, permitted, inheritable


def _set(*, effective: int, permitted: int, inheritable: int) -> None:
    sets = (effective, permitted, inheritable)
    header = ctypes.create_string_buffer(struct.pack("=Ii", _VERSION_3, 0), 8)
    data = struct.pack("=6I", *(s & 0xFFFF_FFFF for s in sets), *(s >> 32 for s in sets))
    check(libc().capset(header, data), "capset")
