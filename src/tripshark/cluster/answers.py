"""What an answer of the Kubernetes API server says, and what its "no" means to us."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from typing import Any, TypeVar

import httpx2
import msgspec
from msgspec import Raw

from tripshark.cluster.problems import Conflict, Exists, Gone
from tripshark.errors import (
    BadInput,
    NotFound,
    Permanent,
    TooLarge,
    Transient,
    TripsharkError,
)

Object = dict[str, Any]


_T = TypeVar("_T")


MAX_LINE = 4 << 20  # bytes of one event of a watch; etcd holds no object above 1.5 MiB


AGAIN = (429, 500, 502, 503, 504)


class ListMeta(msgspec.Struct, rename={"continue_": "continue", "version": "resourceVersion"}):
    """What a list says of itself."""

    version: str = ""
    continue_: str = ""


class List(msgspec.Struct):
    metadata: ListMeta
    items: list[Raw] | None = None


class Event(msgspec.Struct):
    type: str
    object: Raw


class Status(msgspec.Struct):
    message: str | None = None
    reason: str | None = None
    code: int | None = None


LIST = msgspec.json.Decoder(List)


EVENT = msgspec.json.Decoder(Event)


STATUS = msgspec.json.Decoder(Status)


_OBJECT = msgspec.json.Decoder(Object)


def refusal(code: int, reason: str, words: str, where: str) -> TripsharkError:
    """An answer that no other account and no patience would change."""
    match code:
        case 404:
            # a path that is not served at all, rather than an object that is not there
            unknown = not reason or words.startswith("the server could not find")
            words = "the API server does not serve that" if not reason else words
            hint = "is the custom resource definition installed?" if unknown else ""
            return NotFound(words, where=where, hint=hint)
        case 409:
            return (Exists if reason == "AlreadyExists" else Conflict)(words, where=where)
        case 410:
            return Gone(words, where=where)
        case 413:
            return TooLarge(words, where=where)
        case 400 | 422:
            return BadInput(words, where=where)
        case _:
            return Permanent(f"{code}: {words}", where=where)


def from_status(status: Status, where: str) -> TripsharkError:
    """An ERROR event of a watch."""
    code = status.code or 500
    words = (status.message or "")[:500]
    if code in AGAIN:
        return Transient(f"the watch ended: {words}", where=where)
    return refusal(code, status.reason or "", words, where)


def away(kind: type[Transient], server: str, problem: Exception) -> Transient:
    words = str(problem) or type(problem).__name__
    hint = ""
    if "CERTIFICATE_VERIFY_FAILED" in words:
        hint = "the authority in our service account or kubeconfig did not sign this server's certificate"
    return kind(f"the API server is away: {words}", where=server, hint=hint)


def seconds_of(header: str) -> float | None:
    """Retry-After in seconds, at most two minutes; None where it is absent or a date."""
    try:
        value = float(header)
    except ValueError:
        return None
    return min(max(value, 0.0), 120.0) if math.isfinite(value) else None


async def lines(response: httpx2.Response, path: str) -> AsyncIterator[bytes]:
    """Whole lines; half a one at the end was cut off and means nothing."""
    rest = bytearray()
    async for chunk in response.aiter_bytes():
        start = 0
        while (end := chunk.find(b"\n", start)) >= 0:
            line = bytes(rest) + chunk[start:end] if rest else chunk[start:end]
            rest.clear()
            start = end + 1
            if line.strip():
                yield line
        rest += chunk[start:]
        if len(rest) > MAX_LINE:
            raise TooLarge(f"an event longer than {MAX_LINE:,} bytes", where=path)
    if rest.strip():
        raise Transient("the watch ended amid an event", where=path)


def decoded(body: bytes | Raw, how: msgspec.json.Decoder[_T], path: str) -> _T:
    try:
        return how.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as problem:
        raise Transient(
            f"the API server's answer is not understood: {problem}", where=path
        ) from problem


def object_of(body: bytes | Raw, path: str) -> Object:
    return decoded(body, _OBJECT, path)
