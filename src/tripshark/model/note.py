"""What an analyst wrote at one packet of the evidence; exported, it is that packet's comment."""

from __future__ import annotations

import re
from dataclasses import dataclass

from tripshark.errors import BadInput
from tripshark.model.alert import Json
from tripshark.model.evidence import IncidentId, rfc3339
from tripshark.model.text import visible

MAX_NOTE = 4_000  # characters of one note
MAX_NOTES = 2_000  # of one incident
_FILE = re.compile(r"(?:[a-z0-9][a-z0-9.-]{0,62}/)?[a-z][a-z0-9-]{0,40}\.pcapng")
_ID = re.compile(r"[0-9a-f]{16}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """Never part of what is sealed: it lies beside, and whoever wrote it may take it back."""

    id: str  # 16 hexadecimal digits
    incident: IncidentId
    file: str  # "evidence.pcapng", or "node-1/evidence.pcapng" of a fleet's part
    frame: int  # as Wireshark numbers the file's packets, from 1
    text: str  # lines of visible characters
    by: str
    at_ns: int

    def as_json(self) -> dict[str, Json]:
        """As the API shows it."""
        return {
            "id": self.id,
            "file": self.file,
            "frame": self.frame,
            "text": self.text,
            "by": self.by,
            "at": rfc3339(self.at_ns),
            "at_ns": self.at_ns,
        }


def note_text(text: str) -> str:
    """`text` as lines in which nothing is hidden. Raises `BadInput` when there are none or too many."""
    if len(text) > MAX_NOTE:
        raise BadInput(f"a note has at most {MAX_NOTE} characters", where="text")
    lines = [visible(line).rstrip() for line in re.split("\r\n|\r|\n", text)]
    made = "\n".join(lines).strip("\n")
    if not made.strip():
        raise BadInput("a note says something", where="text")
    return made


def note_file(name: str) -> str:
    """The name of a capture file of an incident. Raises `BadInput`."""
    if _FILE.fullmatch(name) is None:
        raise BadInput(
            "no such capture file", where="file", hint="evidence.pcapng, or NODE/evidence.pcapng"
        )
    return name


def note_frame(number: int) -> int:
    """A packet's number. Raises `BadInput`."""
    if not 0 < number <= 0xFFFFFFFF:
        raise BadInput("packets are counted from 1", where="frame")
    return number


def note_id(id: str) -> str:
    """Raises `BadInput`."""
    if _ID.fullmatch(id) is None:
        raise BadInput("not the id of a note", where="note", hint="16 hexadecimal digits")
    return id
