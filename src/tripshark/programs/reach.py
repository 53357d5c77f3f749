"""Keeps our own code within reach of a user who may not walk to it (a checkout or a Python below /root).

Whoever gives up root can still import what is already open: folders that others cannot reach are opened first, and
from then on found as /proc/self/fd/N, which needs no right on the folders above them.
"""

from __future__ import annotations

import importlib
import os
import stat
import sys
from pathlib import Path


def keep_reach() -> None:
    """To be called before privileges are given up. Does nothing where everyone may read our code."""
    moved: dict[str, str] = {}
    for entry in {sys.prefix, sys.base_prefix, *sys.path}:
        folder = os.path.realpath(entry) if entry else ""
        if folder and Path(folder).is_dir() and not _open_to_all(Path(folder)):
            descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            for name in {entry, folder}:
                moved[name] = f"/proc/self/fd/{descriptor}"
    if not moved:
        return

    def found_now(path: str) -> str:
        for old in sorted(moved, key=len, reverse=True):
            if path == old or path.startswith(old + os.sep):
                return moved[old] + path[len(old) :]
        return path

    sys.path[:] = [found_now(path) for path in sys.path]
    for module in list(sys.modules.values()):
        path = getattr(module, "__path__", None)
        if isinstance(path, list):
            path[:] = [found_now(each) for each in path]
    sys.path_importer_cache.clear()
    importlib.invalidate_caches()


def _open_to_all(folder: Path) -> bool:
    """Everybody may enter it and every folder above it."""
    return all(
        each.stat().st_mode & stat.S_IXOTH
        and (each != folder or each.stat().st_mode & stat.S_IROTH)
        for each in (folder, *folder.parents)
    )
