"""A request's body: of the media type that is meant, bounded while it comes, and decoded."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import Final, TypeVar

import msgspec
from starlette.requests import Request

from tripshark.errors import BadInput, TooLarge, TooSlow, Unsupported

T = TypeVar("T")

BODY_SECONDS = 30.0  # all of it: who drips holds memory

JSON: Final = ("application/json",)
"""Makes a browser ask first: a web page elsewhere can neither start, change nor write anything on loopback."""


async def bounded(
    request: Request,
    media: Collection[str],
    *,
    most: int,
    says: str = "the body must be JSON",
    hint: str = "",
) -> bytes:
    """At most `most` bytes.

    Raises `Unsupported`, which `says` what it should be, for a type that is not among `media`; `TooLarge`, with
    `hint`; and `TooSlow`.
    """
    sent = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if sent not in media:
        raise Unsupported(
            says, where="Content-Type", hint=f"send Content-Type: {next(iter(media))}"
        )
    pieces, size = [], 0
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for piece in request.stream():
                size += len(piece)
                if size > most:
                    raise TooLarge(
                        f"the body is longer than {most} bytes", where="body", hint=hint
                    )
                pieces.append(piece)
    except TimeoutError:
        raise TooSlow(
            f"the body did not come within {BODY_SECONDS:g} s",
            where="body",
            hint="send it at once",
        ) from None
    return b"".join(pieces)


async def decoded(
    request: Request, decoder: msgspec.json.Decoder[T], *, most: int, what: str, example: str
) -> T:
    """What the JSON in it says. Raises `BadInput`, which names `what` was expected, and what `bounded` raises."""
    body = await bounded(request, JSON, most=most)
    try:
        return decoder.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BadInput(f"not {what}: {error}", where="body", hint=example) from error
