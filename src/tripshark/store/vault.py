"""Sealed evidence on a local disk: folders that appear under their name only when complete, hashed and flushed.

    <data>/drafts/<incident>/            being filled; nothing here is evidence yet
    <data>/drafts/.seal-<incident>/      the folder to be, while it is hashed and flushed
    <data>/evidence/2026/11/23/<incident>/     sealed: one rename brought it here
    <data>/evidence/2026/11/23/<incident>.removed.jsonl     the custody of evidence that retention deleted
    <data>/keys/signing.key, signing.pub

Sealing links the kept files into a new folder beside the draft, so that until the rename the draft is as it was; a
crash leaves either the draft or the sealed folder. Whatever begins with a dot in `drafts` is half done, and
`drafts()` finishes or removes it.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import secrets
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from tripshark.errors import BadInput, NotFound, NotVerified, Permanent, TripsharkError
from tripshark.model.alert import Json
from tripshark.model.evidence import (
    MAX_MANIFEST_BYTES,
    IncidentId,
    Manifest,
    SealedFile,
    canonical,
    incident_id,
    manifest_json,
    read_manifest,
    rfc3339,
)
from tripshark.model.retention import Kept
from tripshark.ports import Clock
from tripshark.store import custody, signature
from tripshark.store.disk import make_folders, refused, remove_tree, sync_folder, write_all
from tripshark.store.draft import SEAL, FolderDraft
from tripshark.store.folder import COMPANIONS, HOLD, MANIFEST, OWN
from tripshark.store.signature import Signer

_OPENED = ".opened_ns"
_BEGIN, _REMOVE = ".begin-", ".remove-"
_DAY = re.compile(r"\d{4}|\d{2}", re.ASCII)
_TOMBSTONE = ".removed.jsonl"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lying:
    """One sealed folder as it lies there."""

    incident: IncidentId
    folder: Path
    day: str  # "2026/11/23"
    changed: tuple[int, int, int]  # differs after a companion was written or custody went on


class FolderVault:
    """`ports.Vault` below `<data>`. Every method may wait for the disk: call it in a thread.

    One process owns the drafts (the one that holds the journal); any other may read, add companions and custody.
    """

    def __init__(self, data: Path, *, clock: Clock, who: str = "tripshark") -> None:
        self._drafts = data / "drafts"
        self._evidence = data / "evidence"
        self._keys = data / "keys"
        self._clock = clock
        self._who = who
        self._signer: Signer | None = None
        self._folders: dict[IncidentId, Path] = {}
        self._sizes: dict[
            Path, tuple[int, Kept]
        ] = {}  # folder → (its mtime_ns then, what was found)

    def begin(self, incident: IncidentId, opened_ns: int) -> FolderDraft:
        """Start a folder; `opened_ns` decides under which day it will be filed.

        Raises `BadInput` for an id that is none, `Permanent` when there is such a draft or evidence already,
        `Transient` when the disk is full.
        """
        incident_id(incident)
        if self._find(incident):
            raise Permanent("that incident is sealed already", where=incident)
        folder, fresh = self._drafts / incident, self._drafts / f"{_BEGIN}{incident}"
        try:
            make_folders(self._drafts)
            if folder.exists():
                raise Permanent("that incident has a draft already", where=str(folder))
            shutil.rmtree(fresh, ignore_errors=True)
            fresh.mkdir()
            fresh.chmod(0o750)
            try:
                _new_file(fresh / _OPENED, str(opened_ns).encode(), 0o640)
                sync_folder(fresh)
                fresh.rename(folder)
            except OSError:
                shutil.rmtree(fresh, ignore_errors=True)
                raise
            sync_folder(self._drafts)
        except OSError as error:
            raise refused(error, folder) from error
        return FolderDraft(folder, incident, opened_ns, seal=self.seal)

    def drafts(self) -> Iterator[FolderDraft]:
        """What a crash left behind; seals and removals that it cut off are finished or undone first.

        Only for the one process that owns the drafts, before it begins its own.
        """
        try:
            there = self._drafts.is_dir()
            names = sorted(path.name for path in self._drafts.iterdir()) if there else []
            for name in names:
                self._mend(name)
        except OSError as error:
            raise refused(error, self._drafts) from error
        for name in names:
            folder = self._drafts / name
            if name.startswith(".") or not folder.is_dir() or folder.is_symlink():
                continue
            try:
                incident = incident_id(name)
                opened_ns = int((folder / _OPENED).read_text("ascii"))
            except (BadInput, OSError, ValueError):
                continue  # nobody's draft: not ours to touch
            yield FolderDraft(folder, incident, opened_ns, seal=self.seal)

    def folder(self, incident: IncidentId) -> str:
        """Where the sealed evidence lies. Raises `NotFound`."""
        return str(self._sealed(incident))

    def manifest(self, incident: IncidentId) -> Manifest:
        """The manifest of sealed evidence, read but not verified. Raises `NotFound`, `BadInput`."""
        return read_manifest(self._manifest_bytes(self._sealed(incident)))

    def beside(self, incident: IncidentId, name: str, content: bytes) -> None:
        """Write or replace a companion, atomically, and note it in custody.

        The name is one of `COMPANIONS`; the content should name the manifest's SHA-256, or `verify` objects.
        Raises `NotFound`, `BadInput` for another name, `Transient` when the disk refuses.
        """
        if name not in COMPANIONS:
            raise BadInput(
                f"{name[:80]!r} is no companion of evidence",
                hint=f"one of {', '.join(sorted(COMPANIONS))}",
            )
        digest = hashlib.sha256(content).hexdigest()
        self._companion(incident, name, content)
        self.custody(incident, "analysed", self._who, {"file": name, "sha256": digest})

    def custody(
        self, incident: IncidentId, what: str, who: str, details: Mapping[str, Json] | None = None
    ) -> None:
        """Note who did what with the evidence, durably. Raises `NotFound`, `NotVerified`, `Transient`."""
        custody.append(
            self._sealed(incident) / custody.NAME,
            time_ns=self._clock.now_ns(),
            what=what,
            who=who,
            details=details or {},
        )

    def hold(self, incident: IncidentId, who: str, why: str) -> None:
        """A legal hold: retention does not touch this evidence until `release`."""
        since_ns = self._clock.now_ns()
        told = {"who": who, "why": why, "since": rfc3339(since_ns), "since_ns": since_ns}
        self._companion(incident, HOLD, canonical(told, indent=2) + b"\n")
        self.custody(incident, "held", who, {"why": why})

    def release(self, incident: IncidentId, who: str, why: str) -> None:
        """End a legal hold. Releasing what is not held is harmless."""
        folder = self._sealed(incident)
        self.custody(incident, "released", who, {"why": why})
        try:
            (folder / HOLD).unlink(missing_ok=True)
            sync_folder(folder)
        except OSError as error:
            raise refused(error, folder) from error

    def kept(self) -> list[Kept]:
        """Everything sealed, as retention wants to know it, in no order."""
        return [kept for _, kept in self._inventory()]

    def lying(self) -> list[Lying]:
        """Every sealed folder, oldest day first, and whether anything in it changed since the last look."""
        found = []
        for day in reversed(list(self._days())):
            try:
                with os.scandir(day) as entries:
                    folders = sorted(
                        each.path for each in entries if each.is_dir(follow_symlinks=False)
                    )
            except OSError:
                continue
            for folder in map(Path, folders):
                with contextlib.suppress(
                    OSError, BadInput
                ):  # vanished meanwhile, or nothing of ours
                    custody_at = (folder / custody.NAME).stat()
                    if not (folder / MANIFEST).is_file():
                        continue
                    found.append(
                        Lying(
                            incident=incident_id(folder.name),
                            folder=folder,
                            day=day.relative_to(self._evidence).as_posix(),
                            changed=(
                                folder.stat().st_mtime_ns,
                                custody_at.st_mtime_ns,
                                custody_at.st_size,
                            ),
                        )
                    )
        return found

    def used_bytes(self) -> int:
        """Bytes of all evidence, drafts included."""
        return sum(kept.bytes for _, kept in self._inventory()) + self.draft_bytes()

    def draft_bytes(self) -> int:
        """Bytes of what is not sealed yet."""
        return _size(self._drafts)

    def free_bytes(self) -> int:
        """Bytes the file system still has for us. Raises `OSError` where there is no file system."""
        there = self._evidence
        while not there.exists() and there != there.parent:
            there = there.parent
        found = os.statvfs(there)
        return found.f_bavail * found.f_frsize

    def remove(self, incident: IncidentId, why: str) -> None:
        """Delete sealed evidence by retention; its custody stays, and its last line says why.

        Raises `NotFound`, `Permanent` under a legal hold, `Transient` when the disk refuses.
        """
        folder = self._sealed(incident)
        if (folder / HOLD).exists():
            raise Permanent("that evidence is under a legal hold", where=incident)
        with contextlib.suppress(NotVerified):  # a broken custody is kept as it is
            self.custody(incident, "deleted", self._who, {"why": why})
        day = folder.parent.relative_to(self._evidence).as_posix().replace("/", "-")
        going = self._drafts / f"{_REMOVE}{day}-{incident}"
        try:
            make_folders(self._drafts)
            folder.rename(going)
            self._folders.pop(incident, None)
            sync_folder(folder.parent)
            self._bury(going)
        except OSError as error:
            raise refused(error, folder) from error

    # ---------------------------------------------------------------------------------- for drafts

    def place(self, incident: IncidentId, opened_ns: int) -> Path:
        """Where that incident's evidence is filed, by the day it was opened (UTC)."""
        try:
            day = _EPOCH + timedelta(seconds=opened_ns // 1_000_000_000)
        except OverflowError:
            day = _EPOCH
        return self._evidence / f"{day.year:04}" / f"{day.month:02}" / f"{day.day:02}" / incident

    def seal(self, draft: FolderDraft, manifest: Manifest, keep: Sequence[str]) -> Manifest:
        """What `Draft.seal` promises."""
        if manifest.incident != draft.incident:
            raise BadInput("the manifest is of another incident", where=manifest.incident)
        if self._find(draft.incident):
            raise Permanent("that incident is sealed already", where=draft.incident)
        for name in keep:
            if name not in draft.names() or name in OWN:
                raise BadInput(f"{name[:80]!r} is no file of the draft", where=draft.incident)
        final = self.place(draft.incident, draft.opened_ns)
        fresh = self._drafts / f"{SEAL}{draft.incident}"
        try:
            if self._signer is None:
                self._signer = Signer.of(self._keys)
            make_folders(final.parent)
            shutil.rmtree(fresh, ignore_errors=True)
            fresh.mkdir()
            fresh.chmod(0o750)
            try:
                manifest = self._fill(fresh, draft, manifest, dict.fromkeys(keep), self._signer)
                self._publish(fresh, final)
            except BaseException:
                for name in keep:
                    with contextlib.suppress(OSError):
                        (draft.path / name).chmod(0o640)
                shutil.rmtree(fresh, ignore_errors=True)
                raise
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                raise Permanent("that incident is sealed already", where=str(final)) from error
            raise refused(error, final) from error
        self._folders[draft.incident] = final
        draft.discard()
        return manifest

    def _fill(
        self,
        fresh: Path,
        draft: FolderDraft,
        manifest: Manifest,
        keep: Mapping[str, None],
        signer: Signer,
    ) -> Manifest:
        """Everything the sealed folder holds, flushed; the manifest comes last."""
        files = []
        for name in keep:
            os.link(draft.path / name, fresh / name, follow_symlinks=False)
            files.append(_flushed(fresh / name))
        manifest = replace(
            manifest,
            files=tuple(files),
            details={
                **manifest.details,
                "signature": {
                    "algorithm": "Ed25519",
                    "file": signature.NAME,
                    "key_id": signer.key_id,
                    "public_key": signer.public_key,
                },
            },
        )
        content = manifest_json(manifest)
        if len(content) > MAX_MANIFEST_BYTES:
            raise BadInput(
                f"a manifest of {len(content)} bytes",
                where=manifest.incident,
                hint=f"at most {MAX_MANIFEST_BYTES >> 20} MiB can be read again; keep fewer alerts in it",
            )
        begun = custody.first_line(
            manifest_sha256=hashlib.sha256(content).hexdigest(),
            time_ns=manifest.created_ns,
            who=self._who,
        )
        _new_file(fresh / custody.NAME, begun, 0o640)
        _new_file(fresh / signature.NAME, signer.envelope(manifest.incident, content), 0o440)
        _new_file(fresh / MANIFEST, content, 0o440)
        sync_folder(fresh)
        return read_manifest(content)  # as it is written is as it is believed

    @staticmethod
    def _publish(fresh: Path, final: Path) -> None:
        fresh.rename(final)
        try:
            sync_folder(final.parent)
        except OSError:
            final.rename(fresh)  # not known to be durable, so not sealed
            raise

    # ------------------------------------------------------------------------------------ our own

    def _mend(self, name: str) -> None:
        """Finish or undo one thing that a crash left half done."""
        path = self._drafts / name
        if name.startswith(_REMOVE):
            self._bury(path)
        elif name.startswith("."):
            remove_tree(path)
        elif path.is_dir():
            with contextlib.suppress(BadInput):
                if self._find(incident_id(name)):  # sealed, and killed before the draft was gone
                    remove_tree(path)

    def _bury(self, going: Path) -> None:
        year, month, day, incident = going.name.removeprefix(_REMOVE).split("-", 3)
        grave = self._evidence / year / month / day
        make_folders(grave)
        if (going / custody.NAME).exists():
            (going / custody.NAME).rename(grave / f"{incident}{_TOMBSTONE}")
            sync_folder(grave)
        remove_tree(going)

    def _sealed(self, incident: IncidentId) -> Path:
        folder = self._find(incident_id(incident))
        if folder is None:
            raise NotFound(
                "there is no sealed evidence of that incident",
                where=incident,
                hint="`tripshark show` says what became of it",
            )
        return folder

    def _find(self, incident: IncidentId) -> Path | None:
        known = self._folders.get(incident)
        if known is not None and (known / MANIFEST).is_file():
            return known
        self._folders.pop(incident, None)
        for day in self._days():
            if (day / incident / MANIFEST).is_file():
                self._folders[incident] = day / incident
                return day / incident
        return None

    def _days(self) -> Iterator[Path]:
        """Folders of days, newest first."""
        for year in _subfolders(self._evidence):
            for month in _subfolders(year):
                yield from _subfolders(month)

    def _inventory(self) -> Iterator[tuple[Path, Kept]]:
        """Sealed folders; what did not change since the last look is not read again."""
        seen = {}
        for day in self._days():
            with os.scandir(day) as entries:
                folders = [each for each in entries if each.is_dir(follow_symlinks=False)]
            for each in folders:
                folder = Path(each.path)
                try:
                    changed_ns = each.stat(follow_symlinks=False).st_mtime_ns
                    known = self._sizes.get(folder)
                    if known is None or known[0] != changed_ns:
                        known = changed_ns, _look(folder)
                except (OSError, TripsharkError):
                    continue  # vanished meanwhile, or nothing of ours
                seen[folder] = known
                yield folder, known[1]
        self._sizes = seen

    def _companion(self, incident: IncidentId, name: str, content: bytes) -> None:
        folder = self._sealed(incident)
        fresh = self._drafts / f".{name}.{secrets.token_hex(6)}"  # same disk; never in the folder
        try:
            make_folders(self._drafts)
            try:
                _new_file(fresh, content, 0o640)
                fresh.rename(folder / name)
            except OSError:
                fresh.unlink(missing_ok=True)
                raise
            sync_folder(folder)
        except OSError as error:
            raise refused(error, folder / name) from error

    @staticmethod
    def _manifest_bytes(folder: Path) -> bytes:
        try:
            with (folder / MANIFEST).open("rb") as file:
                return file.read(MAX_MANIFEST_BYTES + 1)
        except OSError as error:
            raise refused(error, folder / MANIFEST) from error


def _flushed(path: Path) -> SealedFile:
    """Flush, hash and write-protect one file."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        os.fchmod(file.fileno(), 0o440)
        size = os.fstat(file.fileno()).st_size
    return SealedFile(name=path.name, sha256=digest, bytes=size)


def _new_file(path: Path, content: bytes, mode: int) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        write_all(fd, content, 0)
        os.fchmod(fd, mode)
        os.fsync(fd)
    finally:
        os.close(fd)


def _look(folder: Path) -> Kept:
    with (folder / custody.NAME).open("rb") as file:
        line = file.readline(custody.MAX_LINE)
    first = custody.read(line)[0]
    if not (folder / MANIFEST).is_file():
        raise NotFound("not sealed", where=str(folder))
    return Kept(
        incident=incident_id(folder.name),
        sealed_ns=first.time_ns,
        bytes=_size(folder),
        held=(folder / HOLD).exists(),
    )


def _size(folder: Path) -> int:
    """Bytes of all files below; what vanishes meanwhile does not count."""
    total, waiting = 0, [folder]
    while waiting:
        with contextlib.suppress(OSError), os.scandir(waiting.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(Path(entry.path))
                else:
                    total += entry.stat(follow_symlinks=False).st_size
    return total


def _subfolders(folder: Path) -> list[Path]:
    try:
        with os.scandir(folder) as entries:
            names = [e.name for e in entries if _DAY.fullmatch(e.name) and e.is_dir()]
    except OSError:
        return []
    return [folder / name for name in sorted(names, reverse=True)]
