"""The object store keeps what was sealed once and for ever, and its errors tell no secret."""

from __future__ import annotations

import hashlib
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from tests.store.swift import S3, SECRET
from tripshark.errors import BadInput, NotFound, NotVerified, Permanent, Transient
from tripshark.store.objects import WHOLE, Objects


def _file(folder: Path, content: bytes) -> tuple[Path, str, int]:
    path = folder / "file"
    path.write_bytes(content)
    return path, hashlib.sha256(content).hexdigest(), len(content)


@pytest.mark.parametrize("size", [0, 1000, WHOLE + 12345])
async def test_what_is_created_is_there_and_never_replaced(
    objects: Objects, tmp_path: Path, size: int
) -> None:
    """The same bytes again are no error and no second copy; other bytes under that name are refused, whatever the size."""
    content = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    path, sha256, size = _file(tmp_path, content)
    assert await objects.create("evidence/a/file", path, sha256=sha256, size=size)
    assert not await objects.create("evidence/a/file", path, sha256=sha256, size=size)
    other, other_sha256, _ = _file(tmp_path, content[1:] + b"y")
    with pytest.raises(NotVerified, match="another file lies there"):
        await objects.create("evidence/a/file", other, sha256=other_sha256, size=max(size, 1))
    found = await objects.head("evidence/a/file")
    assert found is not None
    assert found.size == size
    whole = b"".join([piece async for piece in objects.stream("evidence/a/file")])
    assert hashlib.sha256(whole).hexdigest() == sha256


async def test_a_file_that_changed_on_disk_is_not_sent(objects: Objects, tmp_path: Path) -> None:
    """What is not what was sealed stays here, and is told."""
    path, _, size = _file(tmp_path, b"rotten")
    with pytest.raises(NotVerified, match="not what was sealed"):
        await objects.create("evidence/a/file", path, sha256="0" * 64, size=size)
    assert await objects.head("evidence/a/file") is None


async def test_companions_are_replaced(objects: Objects) -> None:
    """The newest bytes are what is read; ranges are that part."""
    await objects.replace("evidence/a/findings.json", b"old")
    await objects.replace("evidence/a/findings.json", b"0123456789")
    assert await objects.read("evidence/a/findings.json", most=10) == b"0123456789"
    part = [p async for p in objects.stream("evidence/a/findings.json", 3, 6)]
    rest = [p async for p in objects.stream("evidence/a/findings.json", 8)]
    assert (b"".join(part), b"".join(rest)) == (b"345", b"89")
    with pytest.raises(BadInput, match="larger"):
        await objects.read("evidence/a/findings.json", most=9)
    with pytest.raises(NotFound):
        await objects.read("evidence/a/nothing", most=9)


async def test_listing_is_by_prefix_and_from_a_place_on(objects: Objects) -> None:
    """Folders, all keys below a prefix, and only those behind a name; nothing there is an empty list."""
    for name in ("a/1/x", "a/2/x", "a/2/y", "b/1/x"):
        await objects.replace(f"evidence/{name}", b"1")
    assert await objects.folders("evidence") == ("a", "b")
    assert await objects.folders("evidence/a") == ("1", "2")
    assert await objects.folders("nothing") == ()

    async def keys(prefix: str, after: str = "") -> list[str]:
        return sorted([e.key async for page in objects.list(prefix, after=after) for e in page])

    assert await keys("evidence/a") == ["evidence/a/1/x", "evidence/a/2/x", "evidence/a/2/y"]
    assert await keys("evidence/a", "evidence/a/2") == ["evidence/a/2/x", "evidence/a/2/y"]
    assert await keys("nothing") == []


async def test_presigned_addresses_read_one_object(s3: S3, tmp_path: Path) -> None:
    """Anybody reads that object by the address and no other; a folder has no such thing."""
    objects = Objects(f"s3://{s3.bucket()}/p", s3.options)
    await objects.replace("evidence/a/file", b"12345")
    url = await objects.presigned("evidence/a/file", 60)
    assert url is not None
    assert urllib.request.urlopen(url).read() == b"12345"
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(url.replace("/file?", "/other?"))
    assert await Objects(f"file://{tmp_path}").presigned("evidence/a/file", 60) is None


async def test_wrong_credentials_and_buckets_are_told_without_secrets(s3: S3) -> None:
    """No wait, no retry, a sentence and what to do; neither key nor secret is in it, nor in its causes."""
    right = s3.options
    wrong = right | {"aws_secret_access_key": "wrong-and-secret-too"}
    bucket = s3.bucket()
    for objects, words in (
        (Objects(f"s3://{bucket}/p", wrong), "refuses: SignatureDoesNotMatch"),
        (Objects("s3://no-such-bucket/p", right), "bucket"),
    ):
        for asking in (
            objects.replace("x", b"1"),
            objects.read("x", most=1),
            objects.folders("x"),
            _first(objects),
        ):
            with pytest.raises(Permanent, match=words) as told:
                await asking
            everything = repr([told.value, told.value.hint, told.value.__cause__])
            assert SECRET not in everything
            assert "wrong-and-secret-too" not in everything


async def _first(objects: Objects) -> None:
    async for _ in objects.list("x"):
        return


async def test_a_store_that_is_away_is_transient(tmp_path: Path) -> None:
    """Nobody listening, or a volume that is not mounted: both may pass, and nothing is made in their place."""
    away = Objects(
        "s3://bucket/p",
        {"aws_endpoint": "http://127.0.0.1:1", "allow_http": "true", "aws_region": "x",
         "aws_access_key_id": "a-key-nobody-may-see", "aws_secret_access_key": SECRET},
    )  # fmt: skip
    volume = Objects(f"file://{tmp_path}/not-mounted")
    for objects in (away, volume):
        with pytest.raises(Transient) as told:
            await objects.replace("x", b"1")
        assert SECRET not in str(told.value)
        with pytest.raises(Transient):
            await objects.head("x")
    assert not (tmp_path / "not-mounted").exists()
    (tmp_path / "not-mounted").mkdir()
    await volume.replace("x", b"1")
    assert await volume.read("x", most=1) == b"1"


@pytest.mark.parametrize(
    ("url", "options"),
    [("ftp://host/x", {}), ("s3://key:secret-word@bucket", {}), ("s3://b?secret-word", {}),
     ("s3://b", {"no_such_option": "secret-word"}), ("relative/path", {})],
)  # fmt: skip
def test_what_is_no_store_is_refused_at_once(url: str, options: dict[str, str]) -> None:
    """A wrong URL or option is told at the start, without the values."""
    with pytest.raises(BadInput) as told:
        Objects(url, options)
    assert "secret-word" not in str(told.value)
