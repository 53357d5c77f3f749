"""Fuzzes what `verify` reads of a stranger's folder: manifest, signature and custody."""

from __future__ import annotations

import contextlib

from tripshark.errors import BadInput, NotVerified
from tripshark.model.evidence import manifest_json, read_manifest
from tripshark.store import custody, signature


def target(data: bytes) -> None:
    """Each parser reads the bytes or raises the documented error; what is read can be written and read again."""
    with contextlib.suppress(BadInput):
        manifest = read_manifest(data)
        if read_manifest(manifest_json(manifest)).files != manifest.files:
            raise AssertionError("a manifest changed by being written")
    with contextlib.suppress(NotVerified):
        signature.signers(data)
    with contextlib.suppress(NotVerified):
        custody.read(data)
