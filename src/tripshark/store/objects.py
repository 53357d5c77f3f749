"""The operator's object store: S3, Google Cloud, Azure or a folder, by one URL; every answer in our own words.

What is sealed is created and never replaced: where the same name is there already its bytes are compared. Everything
that leaves is checked against its SHA-256 first. No error and no log names an option's value or a signed address.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import re
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, cast
from urllib.parse import unquote, urlsplit

import obstore
from obstore import exceptions
from obstore.store import from_url

from tripshark.errors import BadInput, NotFound, NotVerified, Permanent, Transient
from tripshark.store.disk import sync_folder

WHOLE: Final = 16 << 20  # bytes that are sent in one request; larger files go in pieces
_PIECE = 8 << 20
_READ = 1 << 20
_CONNECT, _REQUEST, _RETRY = "5s", "300s", timedelta(seconds=20)
_SCHEMES = frozenset({"s3", "s3a", "gs", "az", "azure", "abfs", "abfss", "adl", "file"})
_CLIENT = frozenset(  # options of the HTTP client and not of the store
    {
        "allow_http", "allow_invalid_certificates", "connect_timeout", "pool_idle_timeout",
        "pool_max_idle_per_host", "proxy_url", "timeout", "user_agent",
    }
)  # fmt: skip
_STATUS = re.compile(r"status code: (\d{3})")
_CODE = re.compile(r"<Code>(\w{1,60})</Code>")


@dataclass(frozen=True, slots=True)
class Found:
    """One object of a listing."""

    key: str
    size: int
    tag: str = ""  # another one when the object was replaced


class Objects:
    """Keys are below the URL's own path, which the operator chose. Every method raises `Transient` while the store is
    away, `Permanent` where credentials, bucket or options are wrong."""

    def __init__(self, url: str, options: Mapping[str, str] | None = None) -> None:
        """Raises `BadInput` for a URL or an option that is none. Nothing is connected yet."""
        parts = urlsplit(url)
        if parts.scheme not in _SCHEMES or parts.query or parts.fragment or "@" in parts.netloc:
            raise BadInput(
                "that is no URL of an object store",
                where="store.url",
                hint="s3://BUCKET/PREFIX, gs://BUCKET/PREFIX, az://CONTAINER/PREFIX or file:///FOLDER; "
                "credentials belong into store.options",
            )
        self.url = url.rstrip("/")
        self._options = dict(options or {})
        self._base = Path(unquote(parts.path)) if parts.scheme == "file" else None
        self._is_s3 = parts.scheme in ("s3", "s3a")
        self._made: Any = None
        self._creates = True  # the store knows `If-None-Match`, until it says otherwise
        if self._base is None:
            self._made = self._connect()

    def where(self, key: str) -> str:
        """An object as people and manifests name it."""
        return f"{self.url}/{key}"

    @property
    def is_folder(self) -> bool:
        """It is a folder of this machine, or one that is mounted."""
        return self._base is not None

    # ------------------------------------------------------------------------------------------ writing

    async def create(self, key: str, source: Path, *, sha256: str, size: int) -> bool:
        """Put a sealed file there, once: False when the very same bytes were there already.

        Raises `NotVerified` when the file is not what was sealed, or when other bytes lie there already.
        """
        data: bytes | None = None
        if size <= WHOLE:
            data = await asyncio.to_thread(_read, source, size)
            told = hashlib.sha256(data).hexdigest()
        else:
            told = await asyncio.to_thread(_hash, source)
        if told != sha256:
            raise NotVerified(
                "the file on this disk is not what was sealed: it is not sent",
                where=str(source),
                hint="`tripshark verify` says more",
            )
        if data is None or not self._creates:
            there = await self.head(key)
            if there is not None:
                await self._require_same(key, sha256)
                return False
        try:
            await self._put(key, source if data is None else data, create=data is not None)
        except _Exists:
            await self._require_same(key, sha256)
            return False
        if data is None:  # one request is checked by the store itself, pieces only each by itself
            await self._check_size(key, size)
        return True

    async def replace(self, key: str, data: bytes) -> None:
        """Put an unsealed companion there, in the place of an older one."""
        await self._put(key, data, create=False)

    async def _put(self, key: str, data: bytes | Path, *, create: bool) -> None:
        create = create and self._creates
        try:
            async with self._asking(key):
                await obstore.put_async(
                    self._store(),
                    key,
                    data,
                    mode="create" if create else "overwrite",
                    use_multipart=isinstance(data, Path),
                    chunk_size=_PIECE,
                    max_concurrency=2,
                )
        except _CannotDo:
            if not create:
                raise
            self._creates = False
            await self._put(key, data, create=False)
            return
        except NotFound as missing:  # of a put: not the object is missing but what should hold it
            raise Permanent(
                "the bucket or container is not there",
                where=self.url,
                hint="make it, or correct store.url",
            ) from missing
        if self._base is not None:
            await asyncio.to_thread(_flush, self._base, self._base / key)

    async def _require_same(self, key: str, sha256: str) -> None:
        digest = hashlib.sha256()
        async for piece in self.stream(key):
            digest.update(piece)
        if digest.hexdigest() != sha256:
            raise NotVerified(
                "another file lies there already, and sealed evidence is never replaced",
                where=self.where(key),
                hint="two machines of one name? give each its own, or look who wrote it",
            )

    async def _check_size(self, key: str, size: int) -> None:
        there = await self.head(key)
        if there is None or there.size != size:
            raise Transient(
                "the store did not keep what was sent", where=self.where(key), after=10.0
            )

    # ------------------------------------------------------------------------------------------ reading

    async def head(self, key: str) -> Found | None:
        """Whether it is there, and its size."""
        try:
            async with self._asking(key):
                told = await obstore.head_async(self._store(), key)
        except NotFound:
            return None
        return Found(key, int(told["size"]))

    async def read(self, key: str, *, most: int) -> bytes:
        """The whole of a small object. Raises `NotFound`, and `BadInput` when it is larger than `most` bytes."""
        pieces, size = [], 0
        async for piece in self.stream(key):
            size += len(piece)
            if size > most:
                raise BadInput(f"larger than {most} bytes", where=self.where(key))
            pieces.append(piece)
        return b"".join(pieces)

    async def stream(
        self, key: str, start: int = 0, end: int | None = None
    ) -> AsyncIterator[bytes]:
        """An object, or the bytes from `start` to before `end`, in pieces of about a megabyte. Raises `NotFound`."""
        options: dict[str, Any] = {}
        if end is not None:
            options["range"] = (start, end)
        elif start:
            options["range"] = {"offset": start}
        async with self._asking(key):
            answer = await obstore.get_async(self._store(), key, options=options)  # type: ignore[arg-type]  # a TypedDict
            pieces = aiter(answer.stream(min_chunk_size=_READ))
        while True:
            async with self._asking(key):
                try:
                    piece = await anext(pieces)
                except StopAsyncIteration:
                    return
            yield bytes(piece)

    async def folders(self, prefix: str) -> tuple[str, ...]:
        """Names directly below a prefix that hold something, in order."""
        async with self._asking(prefix):
            told = await obstore.list_with_delimiter_async(self._store(), prefix)
        return tuple(
            sorted(path.rstrip("/").rpartition("/")[2] for path in told["common_prefixes"])
        )

    async def list(self, prefix: str, *, after: str = "") -> AsyncIterator[Sequence[Found]]:
        """Everything below a prefix, a page at a time; with `after` only keys that sort behind it."""
        async with self._asking(prefix):
            pages = aiter(
                obstore.list(self._store(), prefix, offset=after or None, chunk_size=1000)
            )
        while True:
            async with self._asking(prefix):
                try:
                    page = await anext(pages)
                except StopAsyncIteration:
                    return
            yield [
                Found(each["path"], int(each["size"]), f"{each['last_modified']}-{each['size']}")
                for each in page
            ]

    async def presigned(self, key: str, seconds: float) -> str | None:
        """An address by which anybody can read this object for so long; None where the store has no such thing."""
        if self._base is not None:
            return None
        try:
            async with self._asking(key):
                return await obstore.sign_async(
                    self._store(), "GET", key, timedelta(seconds=seconds)
                )
        except _CannotDo:
            return None

    async def reach(self) -> None:
        """Ask for something that is not there: raises what any other call would."""
        await self.head("tripshark-is-here")

    # ------------------------------------------------------------------------------------------ within

    def _store(self) -> Any:  # noqa: ANN401  # one of five classes of obstore
        if self._base is not None and not self._base.is_dir():
            raise Transient(
                "the folder is not there: is the volume mounted?",
                where=self.url,
                hint="make the folder, or mount the volume at it",
                after=10.0,
            )
        if self._made is None:
            self._made = self._connect()
        return self._made

    def _connect(self) -> Any:  # noqa: ANN401  # see above
        client: dict[str, Any] = {"connect_timeout": _CONNECT, "timeout": _REQUEST}
        config: dict[str, Any] = {"aws_checksum_algorithm": "SHA256"} if self._is_s3 else {}
        for name, value in self._options.items():
            if name.lower() in _CLIENT:
                client[name.lower()] = (
                    value.lower() == "true" if name.lower().startswith("allow_") else value
                )
            else:
                config[name.lower()] = value
        try:
            if self._base is not None:
                return from_url(self.url)
            return cast("Callable[..., Any]", from_url)(
                self.url,
                config=config,
                client_options=client,
                retry_config={"max_retries": 2, "retry_timeout": _RETRY},
            )
        except exceptions.UnknownConfigurationKeyError as error:
            raise BadInput(
                self._clean(str(error)), where="store.options", hint="see docs/hub.md"
            ) from None
        except (exceptions.BaseError, ValueError) as error:
            raise BadInput(
                f"the store cannot be used: {self._clean(str(error))}",
                where="store.url, store.options",
                hint="see docs/hub.md",
            ) from None

    @contextlib.asynccontextmanager
    async def _asking(self, key: str) -> AsyncIterator[None]:
        try:
            yield
        except (exceptions.BaseError, OSError, NotImplementedError) as error:
            raise self._told(error, key) from None  # the cause's words may hold what is secret

    def _told(self, error: Exception, key: str) -> Exception:
        text = str(error)
        status = found[1] if (found := _STATUS.search(text)) else ""
        code = found[1] if (found := _CODE.search(text)) else ""
        where = self.where(key)
        if isinstance(error, exceptions.AlreadyExistsError):
            return _Exists("an object of that name is there", where=where)
        if status == "501" or isinstance(error, NotImplementedError):
            return _CannotDo("the store cannot do that", where=where)
        if "NoSuchBucket" in code or "ContainerNotFound" in text:
            return Permanent(
                "the bucket or container is not there",
                where=self.url,
                hint="make it, or correct store.url",
            )
        if isinstance(error, FileNotFoundError) or status == "404":
            return NotFound("the store has no such object", where=where)
        refused = (
            exceptions.PermissionDeniedError,
            exceptions.UnauthenticatedError,
            PermissionError,
        )
        if isinstance(error, refused) or status in ("401", "403"):
            return Permanent(
                f"the store refuses: {code or 'not allowed'}",
                where=where,
                hint="are the credentials in store.options right, and may they read, list and write there?",
            )
        if isinstance(error, exceptions.InvalidPathError):
            return BadInput("that is no name of an object", where=repr(key[:200]))
        return Transient(
            f"the store does not answer: {code or self._clean(text)}", where=where, after=5.0
        )

    def _clean(self, text: str) -> str:
        """The first line without queries of addresses, credentials or option values."""
        line = text.partition("\n")[0]
        line = re.sub(r"\?\S*", "", line)
        for value in self._options.values():
            if len(value) > 5:
                line = line.replace(value, "…")
        return line[:200]


class _Exists(Permanent):
    """An object of that name is there."""


class _CannotDo(Permanent):
    """The store has no such operation."""


def _read(source: Path, size: int) -> bytes:
    with source.open("rb") as file:
        return file.read(size + 1)


def _hash(source: Path) -> str:
    with source.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _flush(base: Path, path: Path) -> None:
    """A folder is a store only when what it took survives a power cut. Raises `Transient`."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
        folder = path.parent
        while folder != base.parent and folder != folder.parent:
            sync_folder(folder)
            folder = folder.parent
    except OSError as error:
        raise Transient(
            f"the folder of the store refused: {error.strerror}", where=str(path), after=10.0
        ) from error
