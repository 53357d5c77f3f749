"""Verification notices every change, says what it could not check, and survives hostile folders."""

from __future__ import annotations

import hashlib
import json
import os
import struct
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.store.test_vault import ID, OPENED_NS, make_manifest, make_sealed, make_vault
from tripshark.errors import BadInput, NotFound
from tripshark.model.evidence import IncidentId, SealedFile, manifest_json, read_manifest
from tripshark.store import custody
from tripshark.store import verify as verify_module
from tripshark.store.signature import Signer
from tripshark.store.verify import State, Verification, verify


def _block(kind: int, body: bytes) -> bytes:
    size = 12 + len(body) + -len(body) % 4
    return struct.pack("<II", kind, size) + body + bytes(-len(body) % 4) + struct.pack("<I", size)


def make_pcapng(packets: int) -> bytes:
    """The smallest file with so many packets (pcapng: section header, interface, enhanced packets)."""
    data = _block(0x0A0D0D0A, struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1))
    data += _block(1, struct.pack("<HHI", 1, 0, 262144))
    for n in range(packets):
        data += _block(6, struct.pack("<IIIII", 0, 0, n, 60, 60) + bytes(60))
    return data


def _sealed(data: Path, *, content: bytes = b"", packets: int = 3) -> Path:
    vault = make_vault(data)
    draft = vault.begin(ID, OPENED_NS)
    with draft.create("evidence.pcapng") as file:
        file.write(content or make_pcapng(3))
    with draft.create("notes.bin") as file:
        file.write(b"0123456789" * 1000)
    draft.seal(make_manifest(what={"packets": packets}), ["evidence.pcapng", "notes.bin"])
    return Path(vault.folder(ID))


def _failed(result: Verification) -> list[str]:
    return [check.name for check in result.checks if check.state is State.FAILED]


def test_what_was_sealed_verifies(tmp_path: Path) -> None:
    """Every claim is checked, also in a copy elsewhere, with companions that name the manifest."""
    folder = _sealed(tmp_path)
    digest = hashlib.sha256((folder / "manifest.json").read_bytes()).hexdigest()
    make_vault(tmp_path).beside(
        ID, "findings.json", json.dumps({"manifest_sha256": digest}).encode()
    )
    result = verify(folder, data=tmp_path)
    assert result.ok, result.checks
    result.require()
    assert (result.incident, result.manifest_sha256) == (ID, digest)
    assert {check.name for check in result.checks} == {
        "manifest",
        "names",
        "file evidence.pcapng",
        "file notes.bin",
        "packets evidence.pcapng",
        "packets",
        "signature",
        "custody",
        "beside findings.json",
    }
    folder.rename(tmp_path / "copy")
    assert verify(tmp_path / "copy", key=tmp_path / "keys" / "signing.pub").ok


def test_a_hubs_custody_may_lie_beside_and_is_checked(tmp_path: Path) -> None:
    """What a hub hands out has its own custody with it; one line changed and the chain does not hold."""
    folder = _sealed(tmp_path)
    lines = (folder / "custody.jsonl").read_bytes()
    (folder / "viewed.jsonl").write_bytes(lines)
    assert verify(folder).ok
    (folder / "viewed.jsonl").write_bytes(lines.replace(b"sealed", b"viewed", 1))
    assert _failed(verify(folder)) == ["custody viewed.jsonl"]


def test_without_a_key_the_manifests_own_is_used_and_said(tmp_path: Path) -> None:
    """Nothing changed since the sealing; whose key it was only a key that is given can tell."""
    folder = _sealed(tmp_path)
    result = verify(folder)
    assert result.ok
    (signed,) = [check for check in result.checks if check.name == "signature"]
    assert "--key FILE says whose" in signed.words
    assert Signer.of(tmp_path / "keys").key_id[:16] in signed.words
    stranger = Signer.of(tmp_path / "elsewhere")
    assert stranger.key_id[:16] not in signed.words
    assert not verify(folder, key=tmp_path / "elsewhere" / "signing.pub").ok


def test_another_key_does_not_verify(tmp_path: Path) -> None:
    """The key that is given is the one that counts; a file that is no key is said to be none."""
    folder = _sealed(tmp_path / "a")
    Signer.of(tmp_path / "b")
    assert _failed(verify(folder, key=tmp_path / "b" / "signing.pub", data=tmp_path / "a")) == [
        "signature"
    ]
    with pytest.raises(NotFound):
        verify(folder, key=tmp_path / "missing.pub")
    with pytest.raises(BadInput, match="Ed25519"):
        verify(folder, key=folder / "manifest.json")
    with pytest.raises(BadInput, match="Ed25519"):
        verify(folder, key=tmp_path / "b" / "signing.key")


def _replace(name: str, old: bytes, new: bytes) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / name
        content = path.read_bytes()
        assert old in content
        path.chmod(0o600)
        path.write_bytes(content.replace(old, new, 1))

    return change


def _write(name: str, content: bytes) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        (folder / name).write_bytes(content)

    return change


def _link(name: str, target: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(target)

    return change


def _fifo(name: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        os.mkfifo(folder / name)

    return change


def _folder_instead(name: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / name).unlink()
        (folder / name).mkdir()

    return change


def _sparse(name: str, size: int) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / name).touch()
        os.truncate(folder / name, size)

    return change


@pytest.mark.parametrize(
    ("change", "failed"),
    [
        (_replace("notes.bin", b"5", b"6"), ["file notes.bin"]),
        (_replace("notes.bin", b"5", b""), ["file notes.bin"]),
        (lambda folder: (folder / "notes.bin").unlink(), ["file notes.bin"]),
        (_write("extra", b"x"), ["names"]),
        (_write(".hidden\x1b[2J", b"x"), ["names"]),
        (lambda folder: (folder / "sub").mkdir(), ["names"]),
        (_replace("manifest.json", b"truncated", b"complete"), ["manifest"]),
        (_replace("manifest.json", b'"m"', b'"n"'), ["signature", "custody"]),
        (lambda folder: (folder / "manifest.json").unlink(), ["manifest"]),
        (_write("manifest.json", b"[" * 1_000_000), ["manifest"]),
        (_sparse("manifest.json", 1 << 40), ["manifest"]),
        (_fifo("manifest.json"), ["manifest"]),
        (_link("manifest.json", "/dev/zero"), ["manifest"]),
        (_fifo("notes.bin"), ["file notes.bin"]),
        (_link("notes.bin", "/etc/passwd"), ["file notes.bin"]),
        (_link("notes.bin", "notes.bin"), ["file notes.bin"]),
        (_folder_instead("notes.bin"), ["file notes.bin"]),
        (_sparse("notes.bin", 1 << 42), ["file notes.bin"]),
        (lambda folder: (folder / "manifest.sig").unlink(), ["signature"]),
        (_write("manifest.sig", b"{}"), ["signature"]),
        (_write("manifest.sig", b"[" * 50_000), ["signature"]),
        (_sparse("manifest.sig", 1 << 40), ["signature"]),
        (_fifo("manifest.sig"), ["signature"]),
        (_replace("manifest.sig", b'"payload": "', b'"payload": "!'), ["signature"]),
        (_replace("manifest.sig", b"in-toto", b"in-tota"), ["signature"]),
        (_replace("manifest.sig", b'"sig": "', b'"sig": "AAAA'), ["signature"]),
        (_replace("manifest.sig", b'"sig"', b'"sog"'), ["signature"]),
        (lambda folder: (folder / "custody.jsonl").unlink(), ["custody"]),
        (_replace("custody.jsonl", b"tests", b"other"), ["custody"]),
        (_link("custody.jsonl", "/dev/zero"), ["custody"]),
        (_fifo("custody.jsonl"), ["custody"]),
        (
            _write(
                "custody.jsonl", custody.first_line(manifest_sha256="0" * 64, time_ns=1, who="x")
            ),
            ["custody"],
        ),
        (_write("findings.json", b"{}"), ["beside findings.json"]),
        (_fifo("report.html"), ["beside report.html"]),
        (_link("timeline.jsonl", "/dev/zero"), ["beside timeline.jsonl"]),
        (_sparse("report.html", 1 << 42), ["beside report.html"]),
    ],
)
def test_every_change_is_noticed(
    tmp_path: Path, change: Callable[[Path], object], failed: list[str]
) -> None:
    """Exactly the claim that was broken fails, at once, whatever lies there instead."""
    folder = _sealed(tmp_path)
    change(folder)
    began = time.monotonic()
    result = verify(folder, data=tmp_path)
    assert time.monotonic() - began < 60
    assert _failed(result) == failed
    assert not result.ok


@pytest.mark.parametrize(
    ("content", "packets", "failed"),
    [
        (make_pcapng(3), 4, ["packets"]),
        (make_pcapng(3), 2, ["packets"]),
        (make_pcapng(3)[:-7], 3, ["packets evidence.pcapng"]),
        (b"no capture at all" * 10, 3, ["packets evidence.pcapng"]),
    ],
)
def test_packets_are_counted_again(
    tmp_path: Path, content: bytes, packets: int, failed: list[str]
) -> None:
    """A capture that was sealed broken, or with another count than it holds, is found out."""
    folder = _sealed(tmp_path, content=content, packets=packets)
    assert _failed(verify(folder, data=tmp_path)) == failed


def test_a_manifest_without_a_count_leaves_it_unknown(tmp_path: Path) -> None:
    """Nothing is claimed, so nothing can be confirmed."""
    vault = make_vault(tmp_path)
    vault.begin(ID, OPENED_NS).seal(make_manifest(what={}), [])
    result = verify(Path(vault.folder(ID)), data=tmp_path)
    assert [
        (check.name, check.state) for check in result.checks if check.state is not State.OK
    ] == [("packets", State.UNKNOWN)]


def _forged(folder: Path, *files: SealedFile) -> None:
    """A manifest, custody and signature made by somebody else who owns the folder."""
    manifest = read_manifest((folder / "manifest.json").read_bytes())
    content = manifest_json(replace(manifest, files=files))
    _write("manifest.json", content)(folder)
    _write("manifest.sig", Signer.of(folder.parent / "their-keys").envelope(ID, content))(folder)
    digest = hashlib.sha256(content).hexdigest()
    _write("custody.jsonl", custody.first_line(manifest_sha256=digest, time_ns=1, who="x"))(folder)


def test_a_whole_forgery_fails_at_the_signature(tmp_path: Path) -> None:
    """Whoever rewrites manifest and custody still lacks the key."""
    folder = _sealed(tmp_path)
    data = b"forged"
    _write("notes.bin", data)(folder)
    evidence = (folder / "evidence.pcapng").read_bytes()
    _forged(
        folder,
        SealedFile(name="notes.bin", sha256=hashlib.sha256(data).hexdigest(), bytes=len(data)),
        SealedFile(
            name="evidence.pcapng",
            sha256=hashlib.sha256(evidence).hexdigest(),
            bytes=len(evidence),
        ),
    )
    assert _failed(verify(folder, data=tmp_path)) == ["signature"]


def test_the_signature_of_another_manifest_does_not_count(tmp_path: Path) -> None:
    """Same key, other incident: refused."""
    folder = _sealed(tmp_path)
    other = make_sealed(make_vault(tmp_path), IncidentId("i-other"))
    _write("manifest.sig", (other / "manifest.sig").read_bytes())(folder)
    assert _failed(verify(folder, data=tmp_path)) == ["signature"]


@pytest.mark.parametrize("name", ["manifest.sig", "custody.jsonl", "findings.json"])
def test_a_manifest_cannot_seal_what_is_never_sealed(tmp_path: Path, name: str) -> None:
    """A file that changes by its nature, named as sealed, is a contradiction."""
    folder = _sealed(tmp_path)
    _forged(folder, SealedFile(name=name, sha256="0" * 64, bytes=1))
    assert "names" in _failed(verify(folder, data=tmp_path))


def test_a_manifest_cannot_lead_out_of_the_folder(tmp_path: Path) -> None:
    """Paths in file names make the manifest unreadable, and nothing there is opened."""
    folder = _sealed(tmp_path)
    for name in ("../../x", "/etc/passwd", "sub/x", ".."):
        content = (folder / "manifest.json").read_bytes()
        _write("manifest.json", content.replace(b'"notes.bin"', json.dumps(name).encode()))(folder)
        assert _failed(verify(folder, data=tmp_path)) == ["manifest"]
        _write("manifest.json", content)(folder)


def test_a_folder_with_very_many_files_is_not_read_to_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beyond a bound it is enough to say so."""
    folder = _sealed(tmp_path)
    monkeypatch.setattr(verify_module, "MAX_ENTRIES", 20)
    for n in range(30):
        (folder / f"x{n}").touch()
    assert _failed(verify(folder, data=tmp_path)) == ["names"]


def test_files_too_large_to_be_checked_are_unknown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was not recomputed is not called good."""
    folder = _sealed(tmp_path)
    monkeypatch.setattr(verify_module, "MAX_FILE", 100)
    monkeypatch.setattr(verify_module, "MAX_PARSED", 100)
    result = verify(folder, data=tmp_path)
    assert not result.ok
    assert {check.name for check in result.checks if check.state is State.UNKNOWN} == {
        "file evidence.pcapng",
        "file notes.bin",
        "packets evidence.pcapng",
    }


def test_no_folder_is_not_found(tmp_path: Path) -> None:
    """A missing folder and a file in its place are told as such."""
    (tmp_path / "file").touch()
    for path in (tmp_path / "missing", tmp_path / "file"):
        with pytest.raises(NotFound, match="no evidence folder"):
            verify(path)
