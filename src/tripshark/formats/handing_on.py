"""What is handed on of sealed evidence: with notes and keys for analysts, without secrets and names for others."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence

from tripshark.errors import TooLarge
from tripshark.formats import copying
from tripshark.formats.sharing.derived import Shared, Wish, shared
from tripshark.model.alert import Json
from tripshark.model.note import Note

MOST_BYTES = 512 << 20  # of a file that is derived in memory


def with_notes(content: bytes, name: str, notes: Sequence[Note], key_log: bytes = b"") -> bytes:
    """The capture called `name` with its notes as comments and keys in front; without either the very same bytes.

    Raises `BadInput` for a key log that is none, and for a note at a packet that the file does not have.
    """
    of_it: dict[int, list[str]] = defaultdict(list)
    for note in notes:
        if note.file == name:
            of_it[note.frame].append(f"{note.text}\n({note.by})")
    if of_it:
        digest = hashlib.sha256(content).hexdigest()
        content = copying.annotated(
            content, of_it, [f"A copy with notes; without them it is {name}, SHA-256 {digest}"]
        )
    return copying.with_tls_keys(content, key_log) if key_log else content


def to_share(content: bytes, name: str, wish: Wish) -> Shared:
    """Derive a file that can be handed on. Raises `TooLarge`, `BadInput`."""
    if len(content) > MOST_BYTES:
        raise TooLarge(
            f"{name} has {len(content)} bytes; up to {MOST_BYTES} can be derived from",
            hint="cut a window out of it first: editcap -A TIME -B TIME FILE NEW",
        )
    digest = hashlib.sha256(content).hexdigest()
    return shared(content, wish, origin=name, sha256=digest)


def told(wish: Wish, made: Shared) -> dict[str, Json]:
    """What custody and whoever asked are told of a derived file: what was wished, its SHA-256, and the counts."""
    return {
        "payloads": wish.payloads.value,
        "pseudonyms": wish.pseudonyms is not None,
        "sha256": hashlib.sha256(made.content).hexdigest(),
        "packets": made.packets,
        "cut": made.cut,
        "blanked": made.blanked,
        "addresses": made.addresses,
    }
