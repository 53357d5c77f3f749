"""A file is known by its first bytes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tripshark.formats.magic import HEAD, kind_of

KINDS = [
    (b"\x7fELF\x02", "ELF program", True),
    (b"#!/bin/sh\n", "script", True),
    (b"MZ" + bytes(62), "Windows program", True),
    (b"MZ as text", "text", False),
    (b"\xca\xfe\xba\xbe\0\0\0\x41", "Java class", True),
    (b"\xca\xfe\xba\xbe\0\0\0\x02", "Mach-O program", True),
    (b"PK\x03\x04", "ZIP archive", False),
    (bytes(257) + b"ustar", "tar archive", False),
    (b"\n<!DOCTYPE HTML>", "HTML page", False),
    (b'{"a": 1}', "JSON text", False),
    (b" [1]", "JSON text", False),
    (b"hello\n", "text", False),
    (b"\0\1\2", "data", False),
    (b"", "nothing", False),
]


@pytest.mark.parametrize(("head", "name", "runs"), KINDS)
def test_files_are_told_by_their_first_bytes(head: bytes, name: str, runs: bool) -> None:
    """What it is, and whether something can run it."""
    assert kind_of(head) == (name, runs)


@given(head=st.binary(max_size=HEAD))
def test_any_bytes_are_something(head: bytes) -> None:
    """A short plain name, whatever comes."""
    assert kind_of(head).name.isprintable()
