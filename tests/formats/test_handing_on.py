"""What is handed on names the file it was made of, and is that file where nothing was added."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from tripshark.errors import TooLarge
from tripshark.formats import handing_on, pcapng
from tripshark.formats.sharing.derived import Wish
from tripshark.model.evidence import IncidentId
from tripshark.model.note import Note

DEMO = (Path(__file__).parents[1] / "captures" / "incident-demo.pcapng").read_bytes()
KEYS = b"CLIENT_RANDOM " + b"ab" * 32 + b" " + b"cd" * 48 + b"\n"


def _note(file: str, frame: int = 1) -> Note:
    return Note(
        id="0" * 16, incident=IncidentId("i"), file=file, frame=frame, text="odd", by="ana", at_ns=1
    )  # fmt: skip


def test_notes_of_this_file_become_comments() -> None:
    """Those of another file do not, and without any nothing changes."""
    made = handing_on.with_notes(DEMO, "evidence.pcapng", [_note("evidence.pcapng")])
    assert "odd ⏎ (ana)" in pcapng.read(made).comments[0]
    assert hashlib.sha256(DEMO).hexdigest() in pcapng.read(made).section.comments[-1]
    assert handing_on.with_notes(DEMO, "evidence.pcapng", [_note("other.pcapng")]) == DEMO


def test_keys_go_in_front() -> None:
    """With or without notes."""
    assert pcapng.read(handing_on.with_notes(DEMO, "a.pcapng", [], KEYS)).skipped[10] == 1


def test_what_is_shared_names_its_origin(monkeypatch: pytest.MonkeyPatch) -> None:
    """By hash; a file that memory has no room for is refused."""
    made = handing_on.to_share(DEMO, "evidence.pcapng", Wish())
    assert hashlib.sha256(DEMO).hexdigest() in pcapng.read(made.content).section.comments[0]
    monkeypatch.setattr(handing_on, "MOST_BYTES", 10)
    with pytest.raises(TooLarge):
        handing_on.to_share(DEMO, "evidence.pcapng", Wish())


def test_what_is_told_is_the_wish_and_what_came_of_it() -> None:
    """Custody can be held against the file itself."""
    wish = Wish()
    made = handing_on.to_share(DEMO, "evidence.pcapng", wish)
    told = handing_on.told(wish, made)
    assert told["sha256"] == hashlib.sha256(made.content).hexdigest()
    assert (told["payloads"], told["pseudonyms"]) == (wish.payloads.value, False)
    assert told["packets"] == len(pcapng.read(DEMO).packets)
