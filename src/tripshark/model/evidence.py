"""What was kept, what is missing, and how we know that nothing was changed since.

`manifest.json` is a manifest written by `manifest_json`: JSON with sorted keys, ASCII only (a name that
reorders the reader's screen stays visible as its escape), so the same manifest is always the same bytes.
Every time stands twice: `…_ns` (integer nanoseconds since 1970, UTC) for programs, and without the
suffix as RFC 3339 for people. Both must agree, or `read_manifest` refuses the file.

Its `details` are groups, named after the questions a reader has:

| group  | holds |
|---|---|
| `what`  | `packets` (in all sealed pcapng files together; `verify` counts them again), `bytes`, link types |
| `why`   | the alerts verbatim, the rule and its hash, the plan and the reason for its scope |
| `who`   | namespace, pod, uid, labels, owner, service account, images |
| `where` | node, inode of the network namespace, interfaces |
| `when`  | T0, the window asked for and the window covered, the node's clock |
| `how`   | scope, filter, counters of the rings, versions of the tools |

What is missing is no group but the ledger. Sealing adds the group `signature`.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import NewType

from tripshark.errors import BadInput
from tripshark.model.alert import Json

IncidentId = NewType("IncidentId", str)

FORMAT = "tripshark-evidence/1"
MAX_MANIFEST_BYTES = 64 << 20
MAX_FILES = 1000
MAX_DEPTH = 64  # of nesting, in what is written

_INCIDENT = re.compile(r"[a-z0-9][a-z0-9-]{0,63}", re.ASCII)
_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", re.ASCII)
_SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)
_INT64 = range(-(2**63), 2**63)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Word(StrEnum):
    """The ledger in one word, worst last."""

    COMPLETE = "complete"
    TRUNCATED = "truncated"  # a limit was reached, or packets were lost or cut
    EXPIRED = "expired"  # the history asked for was no longer there
    INTERRUPTED = "interrupted"  # the capture was cut off and salvaged


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One thing that is missing, or one thing said for honesty's sake."""

    kind: str  # "kernel_drops", "overwritten", "window_start", "limit", "recorder_restart", "tunnel", …
    message: str
    word: Word = Word.COMPLETE  # what this entry makes of the whole
    count: int = 0
    from_ns: int = 0
    to_ns: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Ledger:
    """Everything known to be missing. Empty and *complete* is a claim we stake a case on."""

    entries: tuple[Entry, ...] = ()

    @property
    def word(self) -> Word:
        order = list(Word)
        return max((entry.word for entry in self.entries), key=order.index, default=Word.COMPLETE)


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedFile:
    name: str  # within the evidence folder, never a path
    sha256: str
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What, why, who, where, when, how, and what is missing. `details` is plain JSON, grouped so."""

    incident: IncidentId
    created_ns: int
    ledger: Ledger
    files: tuple[SealedFile, ...]
    details: Mapping[str, Json] = field(default_factory=dict)


def incident_id(text: str) -> IncidentId:
    """The text as an incident's id: 1 to 64 of a-z, 0-9 and `-`. Raises `BadInput`.

    Ids become folder names; this is the only gate through which text becomes one.
    """
    if _INCIDENT.fullmatch(text) is None:
        raise BadInput(
            "that is no incident id",
            where=repr(text[:80]),
            hint="ids are 1 to 64 of a-z, 0-9 and -; `tripshark incidents` lists them",
        )
    return IncidentId(text)


def file_name(text: str) -> str:
    """The text as a name within an evidence folder, never a path. Raises `BadInput`."""
    if _FILE_NAME.fullmatch(text) is None:
        raise BadInput(
            "that is no file name of an evidence folder",
            where=repr(text[:120]),
            hint="1 to 100 of letters, digits, dot, dash and underscore, not beginning with a dot",
        )
    return text


def rfc3339(ns: int) -> str:
    """Nanoseconds since 1970 as people read them: `2026-11-23T10:15:00.123456789Z`.

    A time outside the years 1 to 9999 stays a number of nanoseconds: a hostile clock must not stop us.
    """
    seconds, fraction = divmod(ns, 1_000_000_000)
    try:
        moment = _EPOCH + timedelta(seconds=seconds)
    except OverflowError:
        return f"{ns} ns"
    return f"{moment.replace(tzinfo=None).isoformat()}.{fraction:09d}Z"


def canonical(value: object, *, indent: int | None = None) -> bytes:
    """JSON with sorted keys in ASCII: the same value is always the same bytes. Never raises.

    What JSON cannot say is written as text (`"nan"`), and what is nested deeper than `MAX_DEPTH` is cut there:
    nothing in an alert may keep evidence from being sealed.
    """
    separators = (",", ":") if indent is None else (",", ": ")
    text = json.dumps(_plain(value, 0), sort_keys=True, indent=indent, separators=separators)
    return text.encode("ascii")


def manifest_json(manifest: Manifest) -> bytes:
    """`manifest.json`, byte for byte; `read_manifest` reads it back. Times beyond 64 bits are cut to them."""
    created_ns = _within(manifest.created_ns)
    return (
        canonical(
            {
                "format": FORMAT,
                "incident": manifest.incident,
                "created": rfc3339(created_ns),
                "created_ns": created_ns,
                "ledger": {
                    "word": manifest.ledger.word,
                    "entries": [_entry_out(entry) for entry in manifest.ledger.entries],
                },
                "files": [
                    {"name": file.name, "sha256": file.sha256, "bytes": file.bytes}
                    for file in manifest.files
                ],
                "details": manifest.details,
            },
            indent=2,
        )
        + b"\n"
    )


def read_manifest(data: bytes) -> Manifest:
    """What `manifest_json` wrote. Raises `BadInput` for anything that contradicts itself or is out of bounds."""
    if len(data) > MAX_MANIFEST_BYTES:
        raise _bad(f"larger than {MAX_MANIFEST_BYTES >> 20} MiB")
    root = _mapping(read_json(data, "manifest.json"), "")
    form = root.get("format")
    if form != FORMAT:
        raise _bad(
            f"the format is {str(form)[:60]!r}, not {FORMAT!r}",
            "format",
            "a newer Tripshark may read it",
        )
    ledger = _mapping(root.get("ledger"), "ledger")
    manifest = Manifest(
        incident=incident_id(_text(root.get("incident"), "incident")),
        created_ns=_time(root, "created", ""),
        ledger=Ledger(
            entries=tuple(
                _entry_in(_mapping(each, f"ledger.entries[{at}]"), f"ledger.entries[{at}].")
                for at, each in enumerate(_list(ledger.get("entries"), "ledger.entries"))
            )
        ),
        files=tuple(
            _file_in(_mapping(each, f"files[{at}]"), f"files[{at}].")
            for at, each in enumerate(_list(root.get("files"), "files"))
        ),
        details=_mapping(root.get("details"), "details"),
    )
    if ledger.get("word") != manifest.ledger.word:
        raise _bad("the word is not that of its entries", "ledger.word")
    names = [file.name for file in manifest.files]
    if len(names) > MAX_FILES or len(set(names)) != len(names):
        raise _bad(f"a name twice, or more than {MAX_FILES} files", "files")
    return manifest


def read_json(data: bytes, where: str) -> Json:
    """One JSON document in UTF-8, read strictly: no name twice, no NaN, no infinity. Raises `BadInput`."""
    try:
        value: Json = json.loads(
            data.decode("utf-8"),
            object_pairs_hook=_object,
            parse_constant=_no_constant,
            parse_float=_finite,
        )
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError is a ValueError
        reason = "too deeply nested" if isinstance(error, RecursionError) else str(error)[:200]
        raise BadInput(f"not the JSON it should be: {reason}", where=where) from None
    return value


def _plain(value: object, depth: int) -> Json:
    if depth > MAX_DEPTH:
        return "(nested too deeply to be kept here)"
    match value:
        case None | bool():
            return value
        case int():
            return int(value) if value.bit_length() <= 1024 else hex(value)
        case str():
            return str(value)
        case float():
            return value if math.isfinite(value) else repr(value)
        case Mapping():
            return {str(key): _plain(each, depth + 1) for key, each in value.items()}
        case bytes():
            return value.decode("utf-8", "backslashreplace")
        case Iterable():
            return [_plain(each, depth + 1) for each in value]
        case _:
            return str(value)


def _object(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name stands twice in one object")
    return found


def _no_constant(text: str) -> Json:
    raise ValueError(f"{text} is no JSON")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("a number is out of range")
    return number


def _entry_out(entry: Entry) -> dict[str, Json]:
    told: dict[str, Json] = {
        "kind": entry.kind,
        "message": entry.message,
        "word": entry.word,
        "count": max(0, entry.count),
    }
    for name, ns in (("from", _within(entry.from_ns)), ("to", _within(entry.to_ns))):
        if ns:  # 0: this entry is not about a time
            told |= {name: rfc3339(ns), f"{name}_ns": ns}
    return told


def _entry_in(told: Mapping[str, Json], where: str) -> Entry:
    word = _text(told.get("word"), f"{where}word")
    if word not in list(Word):
        raise _bad(f"{word[:40]!r} is no word of a ledger", f"{where}word")
    return Entry(
        kind=_text(told.get("kind"), f"{where}kind"),
        message=_text(told.get("message"), f"{where}message"),
        word=Word(word),
        count=_number(told.get("count"), f"{where}count"),
        from_ns=_time(told, "from", where) if "from_ns" in told else 0,
        to_ns=_time(told, "to", where) if "to_ns" in told else 0,
    )


def _file_in(told: Mapping[str, Json], where: str) -> SealedFile:
    sha256 = _text(told.get("sha256"), f"{where}sha256")
    if _SHA256.fullmatch(sha256) is None:
        raise _bad("not 64 hexadecimal digits", f"{where}sha256")
    return SealedFile(
        name=file_name(_text(told.get("name"), f"{where}name")),
        sha256=sha256,
        bytes=_number(told.get("bytes"), f"{where}bytes"),
    )


def _time(told: Mapping[str, Json], name: str, where: str) -> int:
    ns = told.get(f"{name}_ns")
    if type(ns) is not int or ns not in _INT64:
        raise _bad("not a whole number of nanoseconds", f"{where}{name}_ns")
    if told.get(name) != rfc3339(ns):
        raise _bad(f"{name} and {name}_ns are not the same moment", f"{where}{name}")
    return ns


def _within(ns: int) -> int:
    return min(max(ns, _INT64[0]), _INT64[-1])


def _number(value: Json, where: str) -> int:
    if type(value) is not int or not 0 <= value < _INT64.stop:
        raise _bad("not a whole number from 0 to 2⁶³-1", where)
    return value


def _text(value: Json, where: str) -> str:
    if not isinstance(value, str):
        raise _bad("not a text", where)
    return value


def _mapping(value: Json, where: str) -> dict[str, Json]:
    if not isinstance(value, dict):
        raise _bad("not an object", where)
    return value


def _list(value: Json, where: str) -> list[Json]:
    if not isinstance(value, list):
        raise _bad("not a list", where)
    return value


def _bad(reason: str, where: str = "", hint: str = "") -> BadInput:
    return BadInput(f"not a manifest: {reason}", where=f"manifest.json {where}".strip(), hint=hint)
