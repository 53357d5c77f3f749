"""Puts the profile and the extcap program where Wireshark finds them, and takes away no more than it put there.

What was written is known by its hash, in a list of our own. A file that is not as it was written belongs to whoever
changed it: it is neither replaced nor removed, and that is said.
"""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from hashlib import sha256
from pathlib import Path
from typing import Final

from tripshark.errors import Denied, Permanent
from tripshark.formats.wireshark_profile import files
from tripshark.wireshark.places import Places

LIST: Final = "tripshark-installed.json"  # in the profile's folder
STATE: Final = frozenset(
    {"recent"}
)  # Wireshark writes these itself: given once, removed with the rest
_MOST: Final = 1 << 20


class Outcome(StrEnum):
    WRITTEN = "written"
    SAME = "unchanged"
    REMOVED = "removed"
    KEPT = "kept: not as we wrote it"  # somebody's own
    ABSENT = "not there"


@dataclass(frozen=True, slots=True)
class Step:
    """What became of one file."""

    path: Path
    outcome: Outcome


def wrapper(command: Sequence[str], *, later: bool = False) -> str:
    """The extcap program: a few lines that find this installation, wherever Wireshark is started.

    Wireshark tells its version when it asks for interfaces, and not when it asks for their options: where only
    `later` ones look, the program says so itself.
    """
    if later:
        command = [*command, "--extcap-version", "4.4"]
    return (
        "#!/bin/sh\n"
        "# Written by `tripshark wireshark install`; `tripshark wireshark uninstall` removes it.\n"
        f'exec {shlex.join(command)} "$@"\n'
    )


def install(
    places: Places, command: Sequence[str], *, extcap: bool = True, force: bool = False
) -> list[Step]:
    """Write what is not there yet. With `force` also over what somebody changed. Raises `Denied`, `Permanent`."""
    wanted = {places.profile / name: (content, 0o644) for name, content in files().items()}
    if extcap:
        wanted |= {
            path: (wrapper(command, later=path.parent in places.later), 0o755)
            for path in places.programs
        }
    ours = _ours(places)
    steps: list[Step] = []
    try:
        for path, (content, mode) in wanted.items():
            raw = content.encode()
            there = _hash_of(path)
            if there == sha256(raw).hexdigest():
                outcome = Outcome.SAME
            elif path.name in STATE and there and str(path) in ours:
                outcome = Outcome.SAME
                steps.append(Step(path, outcome))
                continue
            elif there and there != ours.get(str(path)) and not force:
                steps.append(Step(path, Outcome.KEPT))
                continue
            else:
                _write(path, raw, mode)
                outcome = Outcome.WRITTEN
            ours[str(path)] = sha256(raw).hexdigest()
            steps.append(Step(path, outcome))
        _write(places.profile / LIST, json.dumps(ours, indent=1, sort_keys=True).encode(), 0o644)
    except PermissionError as problem:
        raise Denied(
            "this folder is not yours to write",
            where=str(problem.filename or places.profile),
            hint="without --system it is written into your own folders; with it, run it as root",
        ) from problem
    except OSError as problem:
        raise Permanent(
            f"cannot write: {problem.strerror}", where=str(problem.filename or places.profile)
        ) from problem
    return steps


def uninstall(places: Places) -> list[Step]:
    """Remove what `install` wrote and nobody changed since. Raises `Denied`, `Permanent`."""
    ours = _ours(places)
    steps: list[Step] = []
    try:
        for name, digest in sorted(ours.items()):
            path = Path(name)
            there = _hash_of(path)
            if not there:
                steps.append(Step(path, Outcome.ABSENT))
            elif there == digest or path.name in STATE:
                path.unlink()
                steps.append(Step(path, Outcome.REMOVED))
            else:
                steps.append(Step(path, Outcome.KEPT))
        (places.profile / LIST).unlink(missing_ok=True)
        _remove_empty((places.profile, *places.extcap))
    except PermissionError as problem:
        raise Denied(
            "this folder is not yours to write",
            where=str(problem.filename or places.profile),
            hint="what was installed with --system is removed as root, with --system",
        ) from problem
    except OSError as problem:
        raise Permanent(
            f"cannot remove: {problem.strerror}", where=str(problem.filename or places.profile)
        ) from problem
    return steps


def status(places: Places) -> list[Step]:
    """How each file that `install` would write is now; nothing is changed."""
    ours = _ours(places)
    steps = []
    for path in (*(places.profile / name for name in files()), *places.programs):
        there = _hash_of(path)
        known = there == ours.get(str(path)) or (path.name in STATE and str(path) in ours)
        outcome = Outcome.SAME if known else Outcome.KEPT
        steps.append(Step(path, outcome if there else Outcome.ABSENT))
    return steps


def has_profile(places: Places) -> bool:
    """Whether Wireshark finds a profile of our name there, whoever wrote it."""
    return (places.profile / "preferences").is_file()


def _ours(places: Places) -> dict[str, str]:
    """Path → hash of what was written; only paths that could have been ours are believed."""
    possible = {str(places.profile / name) for name in files()} | set(map(str, places.programs))
    try:
        told = json.loads((places.profile / LIST).read_bytes()[:_MOST])
    except (OSError, ValueError):
        return {}
    if not isinstance(told, Mapping):
        return {}
    return {
        path: digest
        for path, digest in told.items()
        if path in possible and isinstance(digest, str)
    }


def _hash_of(path: Path) -> str:
    """Of a file as it is now, "" where there is none; what a link points at is never ours."""
    try:
        if path.is_symlink():
            return "a link"
        return sha256(path.read_bytes()).hexdigest()
    except FileNotFoundError:
        return ""


def _write(path: Path, content: bytes, mode: int) -> None:
    """Whole or not at all: Wireshark may be starting."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        beside.write_bytes(content)
        beside.chmod(mode)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def _remove_empty(folders: Iterable[Path]) -> None:
    """Folders that hold nothing any more; Wireshark makes them again when it needs them."""
    for folder in folders:
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
