"""A capture by hand over HTTP: the body read, bounded and checked before anything is frozen."""

from __future__ import annotations

import msgspec
from starlette.requests import Request

from tripshark.errors import BadInput, TooLarge, Unsupported
from tripshark.model.filter import Scope
from tripshark.model.units import bytes_of, ns_of
from tripshark.ports import CaptureRequest

MAX_BODY = 16_384
MAX_NS = 24 * 3600 * 1_000_000_000


class _Body(msgspec.Struct, forbid_unknown_fields=True):
    target: str
    before: str | float | None = None
    after: str | float | None = None
    scope: str = ""
    peer: str = ""
    filter: str = ""
    max_bytes: str | int | None = None


_BODY = msgspec.json.Decoder(_Body)


async def read(request: Request, by: str) -> CaptureRequest:
    """The request in the body. Raises `BadInput` and its kinds."""
    # Only this media type makes a browser ask first: a web page elsewhere cannot start captures on loopback.
    media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media != "application/json":
        raise Unsupported(
            "the body must be JSON",
            where="Content-Type",
            hint="send Content-Type: application/json",
        )
    body = b""
    async for piece in request.stream():
        body += piece
        if len(body) > MAX_BODY:
            raise TooLarge(f"the body is longer than {MAX_BODY} bytes")
    try:
        asked = _BODY.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BadInput(
            f"not a capture request: {error}",
            where="body",
            hint='{"target": "payments/checkout", "before": "30s", "after": "10s", "peer": "203.0.113.66"}',
        ) from error
    for name in ("target", "peer", "filter"):
        value: str = getattr(asked, name)
        if len(value) > 1024 or any(ord(each) < 32 for each in value):
            raise BadInput(f"{name} is too long or has control characters", where=name)
    if not asked.target:
        raise BadInput("target is empty", where="target", hint="GET /v1/targets lists them")
    if asked.scope and asked.scope not in {each.value for each in Scope}:
        raise BadInput(
            f"no scope {asked.scope[:40]!r}",
            where="scope",
            hint="one of " + ", ".join(each.value for each in Scope),
        )
    return CaptureRequest(
        target=asked.target,
        by=by,
        before_ns=_duration(asked.before, "before"),
        after_ns=_duration(asked.after, "after"),
        scope=Scope(asked.scope) if asked.scope else None,
        peer=asked.peer,
        filter=asked.filter,
        max_bytes=_bytes(asked.max_bytes),
    )


def _duration(value: str | float | None, name: str) -> int | None:
    if value is None:
        return None
    try:
        ns = ns_of(value)
    except (ValueError, OverflowError) as error:
        raise BadInput(str(error), where=name) from error
    if not 0 <= ns <= MAX_NS:
        raise BadInput(f"{name} is 0 s to 24 h", where=name)
    return ns


def _bytes(value: str | int | None) -> int | None:
    if value is None:
        return None
    try:
        number = bytes_of(value)
    except (ValueError, OverflowError) as error:
        raise BadInput(str(error), where="max_bytes") from error
    if not 0 < number < 2**50:
        raise BadInput("max_bytes is a size such as 50MB", where="max_bytes")
    return number
