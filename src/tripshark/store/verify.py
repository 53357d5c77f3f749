"""Whether evidence is still what was sealed: every claim of a folder recomputed, each with its own answer.

The folder is hostile: it may come from anybody. Only regular files directly within it are opened (no links, pipes or
devices), each one once and up to a bound, and nothing outside it is read.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from tripshark.errors import NotFound, NotVerified, TripsharkError
from tripshark.formats import pcapng
from tripshark.model.evidence import (
    MAX_MANIFEST_BYTES,
    IncidentId,
    Manifest,
    SealedFile,
    read_manifest,
)
from tripshark.store import custody, signature
from tripshark.store.folder import COMPANIONS, HOLD, MANIFEST, OWN, VIEWED

MAX_ENTRIES = 5000  # names in one folder
MAX_FILE = 64 << 30  # bytes hashed of one file
MAX_PARSED = 2 << 30  # bytes of a pcapng that is read to its end
MAX_COMPANION = 256 << 20
_PIECE = 1 << 20


class State(StrEnum):
    OK = "ok"
    FAILED = "failed"
    UNKNOWN = "unknown"  # it could not be checked here


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One claim and what became of it."""

    name: str
    state: State
    words: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """Every check of one folder, in the order they were made."""

    incident: IncidentId | None  # None: no manifest that could be read
    manifest_sha256: str
    checks: tuple[Check, ...]

    @property
    def ok(self) -> bool:
        """Everything was checked and holds."""
        return all(check.state is State.OK for check in self.checks)

    def require(self) -> None:
        """Raises `NotVerified`, naming the first check that does not hold."""
        for check in self.checks:
            if check.state is not State.OK:
                raise NotVerified(
                    f"{check.name}: {check.words}", hint="`tripshark verify` says all"
                )


@dataclass(slots=True)
class _Report:
    checks: list[Check] = field(default_factory=list)

    def ok(self, name: str, words: str) -> None:
        self.checks.append(Check(name=name, state=State.OK, words=words))

    def failed(self, name: str, words: str) -> None:
        self.checks.append(Check(name=name, state=State.FAILED, words=words))

    def unknown(self, name: str, words: str) -> None:
        self.checks.append(Check(name=name, state=State.UNKNOWN, words=words))


def verify(folder: Path, *, key: Path | None = None, data: Path | None = None) -> Verification:
    """Recompute everything. Takes as long as reading the files does: call it in a thread.

    The signature is checked with the public key in `key`, else with the one in the data folder `data` (trusted
    because it was there first), else with the one that the manifest names (which proves that nothing changed since
    the sealing, not who sealed). Raises `NotFound` where there is no folder, and for a `key`
    that cannot be read what `signature.public_key` raises; whatever is wrong with the evidence is in the answer.
    """
    try:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise NotFound(
            f"no evidence folder there: {error.strerror}",
            where=str(folder),
            hint="`tripshark incidents --json` names the folder of each incident",
        ) from error
    try:
        return _verify(fd, key, data)
    finally:
        os.close(fd)


def _verify(fd: int, key: Path | None, data: Path | None) -> Verification:
    report = _Report()
    digest, manifest, content = "", None, b""
    try:
        content = _content(fd, MANIFEST, MAX_MANIFEST_BYTES)
        digest = hashlib.sha256(content).hexdigest()
        manifest = read_manifest(content)
    except TripsharkError as error:
        report.failed("manifest", str(error))
    else:
        report.ok("manifest", f"incident {manifest.incident}, SHA-256 {digest}")
        _check_names(report, fd, manifest)
        for file in manifest.files:
            _check_file(report, fd, file)
        _check_packets(report, fd, manifest)
        _check_signature(report, fd, manifest, content, key, data)
        _check_custody(report, fd, digest)
        _check_viewed(report, fd)
        _check_companions(report, fd, digest)
    return Verification(
        incident=manifest.incident if manifest else None,
        manifest_sha256=digest,
        checks=tuple(report.checks),
    )


def _check_names(report: _Report, fd: int, manifest: Manifest) -> None:
    known = {file.name for file in manifest.files} | OWN
    if clash := {file.name for file in manifest.files} & OWN:
        report.failed("names", f"the manifest seals {min(clash)}, which is never sealed")
        return
    names: list[str] = []
    with os.scandir(fd) as entries:
        for entry in entries:
            names.append(entry.name)
            if len(names) > MAX_ENTRIES:
                report.failed("names", f"more than {MAX_ENTRIES} files lie in the folder")
                return
    strange = sorted(name for name in names if name not in known)
    if strange:
        shown = ", ".join(ascii(name)[:80] for name in strange[:5])
        report.failed("names", f"{len(strange)} files that nobody sealed: {shown}")
    else:
        report.ok("names", "nothing lies in the folder that does not belong there")


def _check_file(report: _Report, fd: int, file: SealedFile) -> None:
    name = f"file {file.name}"
    try:
        with _opened(fd, file.name) as (opened, size):
            if size != file.bytes:
                report.failed(name, f"has {size} bytes, {file.bytes} were sealed")
            elif size > MAX_FILE:
                report.unknown(
                    name, f"is larger than {MAX_FILE >> 30} GiB: too large to be hashed here"
                )
            elif _hash(opened, size) != file.sha256:
                report.failed(name, "was changed: its SHA-256 is not the one that was sealed")
            else:
                report.ok(name, f"{size} bytes, SHA-256 {file.sha256}")
    except NotVerified as error:
        report.failed(name, error.message)


def _check_packets(report: _Report, fd: int, manifest: Manifest) -> None:
    """Every pcapng can be read to its end, and holds as many packets as the manifest says."""
    found = 0
    for file in manifest.files:
        if not file.name.endswith(".pcapng"):
            continue
        name = f"packets {file.name}"
        if file.bytes > MAX_PARSED:
            report.unknown(name, f"larger than {MAX_PARSED >> 30} GiB: too large to be read here")
            return
        try:
            read = pcapng.read(_content(fd, file.name, MAX_PARSED))
        except TripsharkError as error:
            report.failed(name, str(error))
            return
        if read.truncated_at is not None:
            report.failed(name, f"ends within a block, at byte {read.truncated_at}")
            return
        report.ok(name, f"{len(read.packets)} packets, readable to the end")
        found += len(read.packets)
    what = manifest.details.get("what")
    said = what.get("packets") if isinstance(what, dict) else None
    if said is None:
        report.unknown("packets", "the manifest does not say how many there are")
    elif said != found:
        report.failed("packets", f"{found} in the files, {str(said)[:40]} in the manifest")
    else:
        report.ok("packets", f"{found}, as the manifest says")


def _check_signature(
    report: _Report,
    fd: int,
    manifest: Manifest,
    content: bytes,
    key: Path | None,
    data: Path | None,
) -> None:
    try:
        envelope = _content(fd, signature.NAME, signature.MAX_BYTES)
        public, trusted = _trusted(manifest, signature.signers(envelope), key, data)
        if public is None:
            names = ", ".join(each[:16] for each in signature.signers(envelope)) or "nobody"
            report.unknown(
                "signature", f"claims to be by key {names}; no public key was given (--key FILE)"
            )
            return
        signature.check(envelope, incident=manifest.incident, manifest=content, key=public)
    except NotVerified as error:
        report.failed("signature", error.message)
    else:
        report.ok("signature", f"by key {signature.key_id(public)[:16]} ({trusted})")


def _trusted(
    manifest: Manifest, signers: tuple[str, ...], key: Path | None, data: Path | None
) -> tuple[Ed25519PublicKey | None, str]:
    """The key to check with, and why it is believed. Only a key that was given says whose hand it was."""
    if key is not None:
        return signature.public_key(key), f"{key}, as given"
    own = None if data is None else data / "keys" / signature.PUBLIC
    if own is not None and own.is_file():
        public = signature.public_key(own)
        if signature.key_id(public) in signers:
            return public, f"{own}, trusted only because it was there first"
    told = manifest.details.get("signature")
    text = told.get("public_key") if isinstance(told, dict) else None
    if isinstance(text, str):
        words = "as the manifest itself names it; --key FILE says whose key it is"
        return signature.public_key_of(text), words
    return None, ""


def _check_custody(report: _Report, fd: int, digest: str) -> None:
    try:
        deeds = custody.read(_content(fd, custody.NAME, custody.MAX_BYTES))
    except NotVerified as error:
        report.failed("custody", str(error))
        return
    first = deeds[0]
    if first.what != "sealed" or first.details.get("manifest_sha256") != digest:
        report.failed("custody", "does not begin with the sealing of this manifest")
    else:
        report.ok("custody", f"{len(deeds)} entries, unbroken since the sealing")


def _check_viewed(report: _Report, fd: int) -> None:
    """A hub's custody is of the whole incident, of which this may be one part: its chain alone is checked."""
    try:
        os.stat(VIEWED, dir_fd=fd, follow_symlinks=False)
    except FileNotFoundError:
        return
    try:
        deeds = custody.read(_content(fd, VIEWED, custody.MAX_BYTES))
    except NotVerified as error:
        report.failed(f"custody {VIEWED}", str(error))
    else:
        report.ok(f"custody {VIEWED}", f"{len(deeds)} entries of the hub, unbroken")


def _check_companions(report: _Report, fd: int, digest: str) -> None:
    """What lies beside evidence must say which evidence it is about; its content is not vouched for."""
    for name in sorted(COMPANIONS | {HOLD}):
        try:
            os.stat(name, dir_fd=fd, follow_symlinks=False)
        except FileNotFoundError:
            continue
        try:
            content = _content(fd, name, MAX_COMPANION)
        except NotVerified as error:
            report.failed(f"beside {name}", error.message)
            continue
        if name == HOLD:
            report.ok(f"beside {name}", "a legal hold: retention does not remove this evidence")
        elif digest.encode() in content:
            report.ok(f"beside {name}", "is about this manifest")
        else:
            report.failed(
                f"beside {name}", "does not name this manifest: it is about other evidence"
            )


@contextlib.contextmanager
def _opened(folder: int, name: str) -> Iterator[tuple[int, int]]:
    """A regular file directly within the folder: descriptor and size. Raises `NotVerified`."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    try:
        if not stat.S_ISREG(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
            raise NotVerified("is no regular file", where=name)  # devices are not even opened
        fd = os.open(name, flags, dir_fd=folder)
    except FileNotFoundError:
        raise NotVerified("is missing", where=name) from None
    except OSError as error:
        raise NotVerified(f"cannot be opened: {error.strerror}", where=name) from error
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            raise NotVerified("is no regular file", where=name)
        try:
            yield fd, found.st_size
        except OSError as error:
            raise NotVerified(f"cannot be read: {error.strerror}", where=name) from error
    finally:
        os.close(fd)


def _content(folder: int, name: str, most: int) -> bytes:
    """The whole of a small enough file. Raises `NotVerified`."""
    with _opened(folder, name) as (fd, size):
        if size > most:
            raise NotVerified(f"has {size} bytes, more than can be believed", where=name)
        pieces = []
        left = size
        while left and (piece := os.read(fd, min(left, _PIECE))):
            pieces.append(piece)
            left -= len(piece)
        return b"".join(pieces)


def _hash(fd: int, size: int) -> str:
    """SHA-256 of the first `size` bytes; a file that grows meanwhile does not keep us for ever."""
    digest = hashlib.sha256()
    while size and (piece := os.read(fd, min(size, _PIECE))):
        digest.update(piece)
        size -= len(piece)
    return digest.hexdigest()
