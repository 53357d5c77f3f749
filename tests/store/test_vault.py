"""Sealed evidence is whole or absent: through crashes, full disks, second attempts and hostile names."""

from __future__ import annotations

import hashlib
import json
import os
import random
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.store.private import in_private_tmpfs
from tripshark.errors import BadInput, NotFound, NotVerified, Permanent, Transient
from tripshark.model.evidence import (
    Entry,
    IncidentId,
    Ledger,
    Manifest,
    Word,
    manifest_json,
    read_manifest,
)
from tripshark.store import custody
from tripshark.store.signature import Signer
from tripshark.store.vault import FolderDraft, FolderVault
from tripshark.store.verify import State, verify

OPENED_NS = 1_795_429_500_000_000_000  # 2026-11-23T10:25:00Z
ID = IncidentId("i-20261123-abc")


class Ticking:
    """A clock that goes on by a second with every look."""

    def __init__(self) -> None:
        self.now = OPENED_NS

    def now_ns(self) -> int:
        self.now += 1_000_000_000
        return self.now


def make_vault(data: Path) -> FolderVault:
    return FolderVault(data, clock=Ticking(), who="tests")


def make_manifest(incident: IncidentId = ID, **details: object) -> Manifest:
    return Manifest(
        incident=incident,
        created_ns=OPENED_NS + 60_000_000_000,
        ledger=Ledger(entries=(Entry(kind="limit", message="m", word=Word.TRUNCATED),)),
        files=(),
        details={"what": {"packets": 0}} | details,  # type: ignore[dict-item]  # plain JSON
    )


def make_sealed(vault: FolderVault, incident: IncidentId = ID, opened_ns: int = OPENED_NS) -> Path:
    draft = vault.begin(incident, opened_ns)
    with draft.create("notes.bin") as file:
        file.write(b"0123456789" * 1000)
    with draft.create("spool-0.pcapng") as file:
        file.write(b"spool")
    draft.seal(make_manifest(incident), ["notes.bin"])
    return Path(vault.folder(incident))


def held(data: Path) -> list[str]:
    """Every file below, as text."""
    return sorted(str(path.relative_to(data)) for path in data.rglob("*") if path.is_file())


def test_sealing_gives_a_whole_folder_of_that_day(tmp_path: Path) -> None:
    """Files hashed and read-only, manifest with their hashes, custody begun, signature there, the rest gone."""
    vault = make_vault(tmp_path)
    draft = vault.begin(ID, OPENED_NS)
    with draft.create("notes.bin") as file:
        file.write(b"first ")
    with draft.create("notes.bin") as file:
        file.write(b"second")
    with draft.create("spool-0.pcapng") as file:
        file.write(b"x")
    assert bytes(draft.read("notes.bin")) == b"first second"
    assert draft.names() == ("notes.bin", "spool-0.pcapng")
    given = make_manifest()
    manifest = draft.seal(given, ["notes.bin"])
    folder = Path(vault.folder(ID))
    assert folder == tmp_path / "evidence/2026/11/23" / ID
    assert {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {
        "notes.bin": 0o440,
        "manifest.json": 0o440,
        "manifest.sig": 0o440,
        "custody.jsonl": 0o640,
    }
    assert [(file.name, file.bytes, file.sha256) for file in manifest.files] == [
        ("notes.bin", 12, hashlib.sha256(b"first second").hexdigest())
    ]
    content = (folder / "manifest.json").read_bytes()
    assert content == manifest_json(manifest)
    assert vault.manifest(ID) == manifest == read_manifest(content)
    assert manifest.ledger == given.ledger
    (deed,) = custody.read((folder / "custody.jsonl").read_bytes())
    assert (deed.what, deed.who, deed.time_ns) == ("sealed", "tests", given.created_ns)
    assert deed.details == {"manifest_sha256": hashlib.sha256(content).hexdigest()}
    assert list((tmp_path / "drafts").iterdir()) == []
    assert list(vault.drafts()) == []


def test_an_empty_file_and_no_file_can_be_sealed(tmp_path: Path) -> None:
    """Evidence of absence is evidence."""
    vault = make_vault(tmp_path)
    draft = vault.begin(ID, OPENED_NS)
    draft.create("empty").close()
    assert bytes(draft.read("empty")) == b""
    assert draft.seal(make_manifest(), ["empty"]).files[0].bytes == 0
    other = vault.begin(IncidentId("i-2"), OPENED_NS)
    assert other.seal(make_manifest(IncidentId("i-2")), []).files == ()


@pytest.mark.parametrize(
    "name", ["../x", "", ".", "..", "A", "a/b", "a\0", "é", "-", "a" * 65, "a b", "a.", "a\n"]
)
def test_nothing_but_an_id_becomes_a_folder(tmp_path: Path, name: str) -> None:
    """Text that is no incident id is refused before it touches the disk."""
    vault = make_vault(tmp_path)
    incident = IncidentId(name)
    for attempt in (
        lambda: vault.begin(incident, OPENED_NS),
        lambda: vault.folder(incident),
        lambda: vault.beside(incident, "findings.json", b""),
        lambda: vault.custody(incident, "viewed", "x"),
        lambda: vault.remove(incident, "x"),
        lambda: vault.hold(incident, "x", "x"),
    ):
        with pytest.raises(BadInput):
            attempt()
    assert held(tmp_path) == []


@pytest.mark.parametrize(
    "name", ["../x", "a/b", ".hidden", "", "manifest.json", "custody.jsonl", "x\0"]
)
def test_a_draft_holds_only_plain_names(tmp_path: Path, name: str) -> None:
    """Neither paths nor the vault's own files can be written into a draft, nor kept from it."""
    draft = make_vault(tmp_path).begin(ID, OPENED_NS)
    with pytest.raises(BadInput):
        draft.create(name)
    with pytest.raises(BadInput):
        draft.seal(make_manifest(), [name])
    with pytest.raises(NotFound):
        draft.read("missing")


def test_a_link_in_the_draft_is_not_followed(tmp_path: Path) -> None:
    """A file of the draft that was exchanged for a link is not written through."""
    draft = make_vault(tmp_path).begin(ID, OPENED_NS)
    (tmp_path / "outside").write_bytes(b"")
    (draft.path / "notes").symlink_to(tmp_path / "outside")
    with pytest.raises(Transient):
        draft.create("notes")
    assert (tmp_path / "outside").read_bytes() == b""


def test_one_incident_is_sealed_once(tmp_path: Path) -> None:
    """A second draft, and a second sealing, are refused and change nothing."""
    vault = make_vault(tmp_path)
    first = vault.begin(ID, OPENED_NS)
    with pytest.raises(Permanent, match="draft already"):
        vault.begin(ID, OPENED_NS)
    with pytest.raises(BadInput, match="another incident"):
        first.seal(make_manifest(IncidentId("i-other")), [])
    first.discard()
    folder = make_sealed(vault)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(Permanent, match="sealed already"):
        vault.begin(ID, OPENED_NS)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_a_crash_leaves_drafts_that_can_be_salvaged(tmp_path: Path) -> None:
    """A new vault finds the draft with its time and files, and finishes or removes what was half done."""
    draft = make_vault(tmp_path).begin(ID, OPENED_NS - 5)
    with draft.create("spool-0.pcapng") as file:
        file.write(b"kept")
    sealed = make_sealed(make_vault(tmp_path), IncidentId("i-done"))
    drafts = tmp_path / "drafts"
    (drafts / ".begin-x").mkdir()
    (drafts / ".seal-y").mkdir()
    (drafts / ".seal-y" / "evidence.pcapng").write_bytes(b"half")
    (drafts / ".findings.json.abc").write_bytes(b"half")
    (drafts / "i-done").mkdir()  # sealed, then killed before the draft was gone
    (drafts / "i-done" / ".opened_ns").write_text("5")
    (drafts / "Not Ours").mkdir()
    vault = make_vault(tmp_path)
    (found,) = vault.drafts()
    assert (found.incident, found.opened_ns, found.names()) == (
        ID,
        OPENED_NS - 5,
        ("spool-0.pcapng",),
    )
    assert sorted(path.name for path in drafts.iterdir()) == ["Not Ours", ID]
    assert sealed.is_dir()
    found.seal(make_manifest(), ["spool-0.pcapng"])
    assert Path(vault.folder(ID)).is_dir()
    assert list(vault.drafts()) == []


def test_a_file_begun_anew_holds_nothing_of_an_earlier_try(tmp_path: Path) -> None:
    """Also when a seal that was cut off had made it read-only already."""
    draft = make_vault(tmp_path).begin(ID, OPENED_NS)
    with draft.create("evidence.pcapng") as file:
        file.write(b"half")
    (tmp_path / "drafts" / ID / "evidence.pcapng").chmod(0o440)
    draft.remove("evidence.pcapng")
    draft.remove("never-there")
    with draft.create("evidence.pcapng") as file:
        file.write(b"whole")
    assert bytes(draft.read("evidence.pcapng")) == b"whole"


def test_a_discarded_draft_is_gone(tmp_path: Path) -> None:
    """Nothing of it stays, and the id may be used again."""
    vault = make_vault(tmp_path)
    draft = vault.begin(ID, OPENED_NS)
    draft.create("x").close()
    draft.discard()
    draft.discard()
    assert held(tmp_path) == []
    vault.begin(ID, OPENED_NS)


def test_companions_are_replaced_whole_and_noted(tmp_path: Path) -> None:
    """Only the known companions can be written; each time custody says which bytes."""
    vault = make_vault(tmp_path)
    folder = make_sealed(vault)
    vault.beside(ID, "findings.json", b"one")
    vault.beside(ID, "findings.json", b"two")
    assert (folder / "findings.json").read_bytes() == b"two"
    for name in ("evidence.pcapng", "manifest.json", "../x", "hold.json", "custody.jsonl"):
        with pytest.raises(BadInput, match="companion"):
            vault.beside(ID, name, b"x")
    deeds = custody.read((folder / "custody.jsonl").read_bytes())
    assert [deed.what for deed in deeds] == ["sealed", "analysed", "analysed"]
    assert deeds[2].details == {
        "file": "findings.json",
        "sha256": hashlib.sha256(b"two").hexdigest(),
    }
    with pytest.raises(NotFound):
        vault.beside(IncidentId("i-nobody"), "findings.json", b"x")


def test_custody_grows_in_order_from_many_hands(tmp_path: Path) -> None:
    """Threads of two vaults append at once, and the chain holds."""
    vault = make_vault(tmp_path)
    folder = make_sealed(vault)
    hands = [
        threading.Thread(
            target=lambda who: [
                each.custody(ID, "viewed", who, {"file": "x\n\ud800"})
                for each in (vault, make_vault(tmp_path)) * 5
            ],
            args=(f"user {n}",),
        )
        for n in range(8)
    ]
    for hand in hands:
        hand.start()
    for hand in hands:
        hand.join()
    deeds = custody.read((folder / "custody.jsonl").read_bytes())
    assert [deed.n for deed in deeds] == list(range(1, 82))
    assert {deed.who for deed in deeds[1:]} == {f"user {n}" for n in range(8)}


def test_a_torn_custody_line_is_cut_and_said(tmp_path: Path) -> None:
    """A crash in the middle of a line costs that line; the next says how many bytes were cut."""
    vault = make_vault(tmp_path)
    path = make_sealed(vault) / "custody.jsonl"
    vault.custody(ID, "viewed", "a")
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"n": 3, "tim')
    vault.custody(ID, "exported", "b", {"format": "zip"})
    deeds = custody.read(path.read_bytes())
    assert [deed.what for deed in deeds] == ["sealed", "viewed", "exported"]
    assert deeds[2].details == {"format": "zip", "torn_bytes_cut": 13}
    with pytest.raises(NotVerified, match="not written to its end"):
        custody.read(whole[:-1])


def test_a_changed_custody_is_not_continued(tmp_path: Path) -> None:
    """A line that was changed, removed, doubled or exchanged breaks the chain where it stands."""
    vault = make_vault(tmp_path)
    path = make_sealed(vault) / "custody.jsonl"
    for n in range(4):
        vault.custody(ID, "viewed", f"user {n}")
    whole = path.read_bytes()
    lines = whole.splitlines(keepends=True)
    for broken, at in (
        (whole.replace(b"user 1", b"user 9"), 3),
        (b"".join(lines[:2] + lines[3:]), 3),
        (b"".join([*lines[:2], lines[1], *lines[2:]]), 3),
        (b"".join([lines[0], lines[2], lines[1], *lines[3:]]), 2),
        (whole.replace(b'"who":"user 3"', b'"who":"user 3","x":1'), 5),
        (b"\n" + whole, 1),
        (b"", 1),
        (b"[" * 100_000 + b"\n", 1),
        (b"[" * 10_000 + b"\n", 1),
        (b"x" * 200_000, 1),
    ):
        with pytest.raises(NotVerified) as told:
            custody.read(broken)
        assert told.value.where == f"custody.jsonl:{at}"
    path.write_bytes(whole.replace(b"user 3", b"user 9"))
    with pytest.raises(NotVerified):
        vault.custody(ID, "viewed", "x")
    path.write_bytes(b"")
    with pytest.raises(NotVerified):
        vault.custody(ID, "viewed", "x")
    path.write_bytes(whole)
    with pytest.raises(BadInput, match="too much"):
        vault.custody(ID, "viewed", "x", {"long": "x" * 70_000})
    assert path.read_bytes() == whole


def test_used_bytes_are_those_on_disk(tmp_path: Path) -> None:
    """Sealed folders and drafts count, changes and removals by other hands are seen."""
    vault = make_vault(tmp_path)
    assert vault.used_bytes() == 0
    assert vault.free_bytes() > 0

    def truth() -> int:
        return sum(
            path.stat().st_size
            for part in ("drafts", "evidence")
            for path in (tmp_path / part).rglob("*")
            if path.is_file() and not path.name.endswith(".removed.jsonl")
        )

    make_sealed(vault)
    make_sealed(vault, IncidentId("i-2"), OPENED_NS - 86_400_000_000_000)
    draft = vault.begin(IncidentId("i-3"), OPENED_NS)
    with draft.create("spool-1.pcapng") as file:
        file.write(b"x" * 5000)
    assert vault.used_bytes() == truth() > 25_000
    make_vault(tmp_path).beside(ID, "findings.json", b"y" * 3000)
    assert vault.used_bytes() == truth()
    make_vault(tmp_path).remove(ID, "age")
    assert vault.used_bytes() == truth()
    assert vault.draft_bytes() > 5000


def test_retention_removes_all_but_the_custody(tmp_path: Path) -> None:
    """The folder goes in one step, and its custody says to the end what happened and why."""
    vault = make_vault(tmp_path)
    folder = make_sealed(vault)
    vault.custody(ID, "exported", "somebody")
    (kept,) = vault.kept()
    assert (kept.incident, kept.sealed_ns, kept.held) == (ID, OPENED_NS + 60_000_000_000, False)
    vault.remove(ID, "older than 30 days")
    assert held(tmp_path / "evidence") == [f"2026/11/23/{ID}.removed.jsonl"]
    deeds = custody.read((folder.parent / f"{ID}.removed.jsonl").read_bytes())
    assert [deed.what for deed in deeds] == ["sealed", "exported", "deleted"]
    assert deeds[2].details == {"why": "older than 30 days"}
    assert list(vault.kept()) == []
    for attempt in (vault.folder, vault.manifest):
        with pytest.raises(NotFound):
            attempt(ID)
    with pytest.raises(NotFound):
        vault.remove(ID, "again")


def test_a_removal_cut_off_by_a_crash_is_finished(tmp_path: Path) -> None:
    """What was on its way out goes, its custody comes to rest."""
    vault = make_vault(tmp_path)
    folder = make_sealed(vault)
    folder.rename(tmp_path / "drafts" / f".remove-2026-11-23-{ID}")
    assert list(make_vault(tmp_path).drafts()) == []
    assert held(tmp_path / "evidence") == [f"2026/11/23/{ID}.removed.jsonl"]
    assert held(tmp_path / "drafts") == []


def test_evidence_under_a_legal_hold_stays(tmp_path: Path) -> None:
    """Until it is released it cannot be removed; both are in its custody."""
    vault = make_vault(tmp_path)
    folder = make_sealed(vault)
    vault.hold(ID, "counsel", "case 17")
    assert vault.kept()[0].held
    with pytest.raises(Permanent, match="legal hold"):
        vault.remove(ID, "age")
    assert verify(folder, data=tmp_path).ok
    vault.release(ID, "counsel", "closed")
    vault.release(ID, "counsel", "closed")
    assert not vault.kept()[0].held
    vault.remove(ID, "age")


def test_the_day_of_an_impossible_time_is_the_first(tmp_path: Path) -> None:
    """A hostile clock cannot keep evidence from being filed."""
    vault = make_vault(tmp_path)
    assert make_sealed(vault, opened_ns=10**40) == tmp_path / "evidence/1970/01/01" / ID


def test_the_signing_key_is_made_once_and_kept_private(tmp_path: Path) -> None:
    """0600, the public half beside it, the same id each time; an unusable key is not replaced silently."""
    first = Signer.of(tmp_path)
    assert Signer.of(tmp_path).key_id == first.key_id
    key, public = tmp_path / "signing.key", tmp_path / "signing.pub"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert sorted(path.name for path in tmp_path.iterdir()) == ["signing.key", "signing.pub"]
    public.unlink()
    assert Signer.of(tmp_path).key_id == first.key_id
    der = subprocess.run(
        ["openssl", "pkey", "-pubin", "-in", str(public), "-outform", "DER"],
        capture_output=True,
        check=True,
    ).stdout
    assert hashlib.sha256(der).hexdigest() == first.key_id
    key.chmod(0o644)
    with pytest.raises(Permanent, match="others may read"):
        Signer.of(tmp_path)
    key.chmod(0o600)
    public.write_bytes(b"x")
    with pytest.raises(Permanent, match="another's"):
        Signer.of(tmp_path)
    key.write_bytes(b"rotten")
    with pytest.raises(Permanent, match="cannot be read"):
        Signer.of(tmp_path)


def test_an_unusable_key_leaves_the_draft(tmp_path: Path) -> None:
    """When signing is impossible nothing is sealed and nothing is lost."""
    vault = make_vault(tmp_path)
    draft = vault.begin(ID, OPENED_NS)
    with draft.create("notes.bin") as file:
        file.write(b"x")
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys" / "signing.key").write_bytes(b"rotten")
    (tmp_path / "keys" / "signing.key").chmod(0o600)
    with pytest.raises(Permanent, match="signing key"):
        draft.seal(make_manifest(), ["notes.bin"])
    assert draft.names() == ("notes.bin",)
    (tmp_path / "keys" / "signing.key").unlink()
    draft.seal(make_manifest(), ["notes.bin"])


CHILD = """
import sys
from pathlib import Path
sys.path.insert(0, {root!r})
from tests.store.test_vault import OPENED_NS, make_manifest, make_vault
from tripshark.model.evidence import IncidentId

vault = make_vault(Path(sys.argv[1]))
list(vault.drafts())
n = int(sys.argv[2])
while True:
    n += 1
    incident = IncidentId(f"i-{{n}}")
    draft = vault.begin(incident, OPENED_NS)
    for name in ("a.bin", "b.bin", "spool-0"):
        with draft.create(name) as file:
            for _ in range(20):
                file.write(name.encode() * 500)
    draft.seal(make_manifest(incident), ["a.bin", "b.bin"])
    print("sealed", n, flush=True)
    vault.beside(incident, "findings.json", vault.manifest(incident).details["signature"]["key_id"].encode())
    if n % 3 == 0:
        vault.remove(incident, "test")
        print("removed", n, flush=True)
"""


def test_kill_9_never_leaves_a_half_thing_under_a_final_name(tmp_path: Path) -> None:
    """Killed at random moments, what is called evidence verifies, and what was promised sealed is there."""
    chance = random.Random(7)
    code = CHILD.format(root=str(Path(__file__).parents[2]))
    sealed: set[int] = set()
    removed: set[int] = set()
    for round in range(8):
        with subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path), str(round * 100_000)],
            stdout=subprocess.PIPE,
        ) as child:
            assert child.stdout is not None
            lines = [child.stdout.readline()]
            until = time.monotonic() + chance.random() * 0.2
            while time.monotonic() < until:
                lines.append(child.stdout.readline())
            child.kill()
            lines += child.stdout.readlines()
        for line in lines:
            word, number = line.split()
            (sealed if word == b"sealed" else removed).add(int(number))
    for manifest in (tmp_path / "evidence").rglob("manifest.json"):
        states = {check.name: check for check in verify(manifest.parent, data=tmp_path).checks}
        broken = [
            check
            for check in states.values()
            if check.state is not State.OK and check.name != "beside findings.json"
        ]
        assert broken == []
    vault = make_vault(tmp_path)
    for draft in list(vault.drafts()):
        assert set(draft.names()) <= {"a.bin", "b.bin", "spool-0"}
        draft.discard()
    assert list((tmp_path / "drafts").iterdir()) == []
    here = {int(kept.incident.removeprefix("i-")) for kept in vault.kept()}
    assert here <= {number for number in here if number % 3} | sealed - removed
    assert {number for number in sealed if number % 3} <= here
    assert not here & removed
    for folder in (tmp_path / "evidence").glob("*/*/*/*"):
        assert folder.name.endswith(".removed.jsonl") or (folder / "manifest.json").exists()


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small tmpfs of its own, which needs root")
def test_a_full_disk_leaves_the_draft_as_it_was() -> None:
    """Writing, sealing, companions and custody say so with a hint; with space again all of them work."""
    in_private_tmpfs(
        "1m",
        f"""
        import sys
        from pathlib import Path
        sys.path.insert(0, {str(Path(__file__).parents[2])!r})
        from tests.store.test_vault import *
        from tripshark.errors import Transient

        data = Path(FOLDER)
        vault = make_vault(data)
        make_sealed(vault, IncidentId("i-before"))

        def refused(work):
            try:
                work()
            except Transient as error:
                assert "full" in error.message and error.hint, error
                return
            raise AssertionError("not refused")

        def fill():
            with (data / "filler").open("wb", buffering=0) as file:
                try:
                    while True:
                        file.write(bytes(4096))
                except OSError:
                    pass

        draft = vault.begin(ID, OPENED_NS)
        with draft.create("notes.bin") as file:
            file.write(b"x" * 9000)
        fill()
        before = held(data)
        spool = draft.create("spool")
        def write():
            for _ in range(100):
                spool.write(b"y" * 100_000)
            spool.close()
        refused(write)
        try:
            spool.close()
        except Transient:
            pass
        (draft.path / "spool").unlink()
        custody_before = (Path(vault.folder(IncidentId("i-before"))) / "custody.jsonl").read_bytes()
        for _ in range(3):
            refused(lambda: draft.seal(make_manifest(), ["notes.bin"]))
            refused(lambda: vault.begin(IncidentId("i-new"), OPENED_NS))
            refused(lambda: vault.beside(IncidentId("i-before"), "findings.json", b"z" * 10_000))
        assert held(data) == before, (held(data), before)
        assert (draft.path / "notes.bin").stat().st_mode & 0o777 == 0o640
        (data / "filler").unlink()
        fill_path = data / "evidence/2026/11/23/i-before/custody.jsonl"
        assert fill_path.read_bytes() == custody_before
        manifest = draft.seal(make_manifest(), ["notes.bin"])
        assert manifest.files[0].bytes == 9000
        assert verify(Path(vault.folder(ID)), data=data).ok
        fill()
        count = 0
        try:
            while True:
                vault.custody(ID, "viewed", "x", {{"n": "x" * 900}})
                count += 1
        except Transient as error:
            assert "full" in error.message
        (data / "filler").unlink()
        vault.custody(ID, "viewed", "x")
        deeds = custody.read((Path(vault.folder(ID)) / "custody.jsonl").read_bytes())
        assert len(deeds) == count + 2, (len(deeds), count)
        """,
    )


def test_a_draft_is_a_draft(tmp_path: Path) -> None:
    """The draft says which incident it is of and when that was opened."""
    draft = make_vault(tmp_path).begin(ID, 5)
    assert isinstance(draft, FolderDraft)
    assert (draft.incident, draft.opened_ns) == (ID, 5)
    assert json.loads((draft.path / ".opened_ns").read_text()) == 5
