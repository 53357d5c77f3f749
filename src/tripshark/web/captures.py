"""A capture by hand over HTTP: the body read, bounded and checked before anything is frozen."""

from __future__ import annotations

import msgspec
from starlette.requests import Request

from tripshark.errors import BadInput
from tripshark.model.filter import Scope
from tripshark.model.units import bytes_of
from tripshark.ports import CaptureRequest
from tripshark.web import checked
from tripshark.web.body import decoded

MAX_BODY = 16_384  # bytes


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
    asked = await decoded(
        request,
        _BODY,
        most=MAX_BODY,
        what="a capture request",
        example='{"target": "payments/checkout", "before": "30s", "after": "10s", "peer": "203.0.113.66"}',
    )
    for name in ("target", "peer", "filter"):
        checked.line(getattr(asked, name), name)
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
    return None if value is None else checked.duration(value, name)


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
