"""Takes alerts in over HTTP: checks who, what and how much, makes them durable, and only then answers 202.

A plain ASGI application without middleware, because Falco has one connection and waits for each answer: what takes
long here delays every alert behind it. Falco ignores the answers; they are for people and for Falcosidekick.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Mapping

import msgspec
from starlette.types import Receive, Scope, Send

from tripshark.errors import (
    BadInput,
    Denied,
    TooLarge,
    TooMany,
    TooSlow,
    Transient,
    TripsharkError,
    Unsupported,
)
from tripshark.formats import falco
from tripshark.ingest.auth import Gate
from tripshark.ingest.door import AlertMeter, Door, outcome_of
from tripshark.ingest.rate import ClientRate

PATHS = ("/", "/v1/alerts")
DRAIN_BYTES = (
    16 << 20
)  # of a body that is too long: read and dropped so that the sender hears the answer
BODY_SECONDS = 10.0


class Webhook:
    """`POST /` and `POST /v1/alerts`, and below both the secret path where there is one."""

    def __init__(
        self,
        door: Door,
        gate: Gate,
        meter: AlertMeter,
        *,
        max_body: int = 1 << 20,
        in_flight: int = 1024,
        rate: ClientRate | None = None,
    ) -> None:
        self._door = door
        self._gate = gate
        self._meter = meter
        self._max_body = max_body
        self._max_in_flight = in_flight
        self._rate = rate
        self.in_flight = 0

    def owns(self, scope: Scope) -> bool:
        """This request is an alert (or an attempt at one), whoever else answers on this listener."""
        if scope["type"] != "http" or scope["method"] != "POST":
            return False
        path: str = scope["path"]
        return path in PATHS or (self._gate.has_secret_path and _secret(path) != "")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        began = time.perf_counter()
        try:
            self._let_in(scope)
            headers = self._check(scope)
            body = await self._body(receive)
            began = time.perf_counter()
            alert = falco.decode(body, headers)
            self.in_flight += 1
            try:
                taken = await self._door.take(alert, body, "webhook")
            finally:
                self.in_flight -= 1
        except TripsharkError as error:
            outcome = _OUTCOMES.get(error.code) or outcome_of(error)
            await self._answer_error(error, send)
        else:
            outcome = taken.outcome
            receipt = taken.receipt
            answer = {
                "alert": receipt.alert,
                "duplicate": receipt.duplicate,
                "incident": receipt.incident,
            }
            await _answer(send, 202, msgspec.json.encode(answer))
        self._meter.alert("webhook", outcome, time.perf_counter() - began)

    def _let_in(self, scope: Scope) -> None:
        segment = _secret(scope["path"]) if scope["path"] not in PATHS else ""
        if not (segment and self._gate.is_secret_path(segment)):
            denied = self._gate.refuse(scope["headers"])
            if denied is None and segment:  # a certificate or token opens the door, not any path
                denied = Denied("credentials are missing or wrong", hint="post to /v1/alerts")
            if denied is not None:
                raise denied
        if self.in_flight >= self._max_in_flight:
            raise TooMany(
                f"{self.in_flight} alerts are being made durable; this one was not taken",
                hint="the disk is slow or the rate too high; ingest.in_flight is the bound",
                after=1.0,
            )
        if self._rate is not None:
            client = scope["client"][0] if scope.get("client") else ""
            wait = self._rate.wait(client, time.monotonic())
            if wait > 0:
                raise TooMany(
                    "this client sends too many alerts",
                    hint="ingest.rate.per_second and ingest.rate.burst are the bound",
                    after=wait,
                )

    def _check(self, scope: Scope) -> Mapping[str, str]:
        """Media type and announced length; returns the headers that say what the body is."""
        kept: dict[str, str] = {}
        announced = b""
        for name, value in scope["headers"]:
            if name == b"content-type" or name.startswith(b"ce-"):
                kept[name.decode("latin-1")] = value.decode("latin-1")
            elif name == b"content-length":
                announced = value
            elif name == b"content-encoding" and value.lower() not in (b"", b"identity"):
                raise Unsupported(
                    "the body is compressed",
                    hint="send it as it is; Falco never compresses bodies",
                )
        media = kept.get("content-type", "").partition(";")[0].strip().lower()
        if media != "application/json" and not (
            media.startswith("application/") and media.endswith("+json")
        ):
            raise Unsupported(
                f"the body is {media[:60]!r}, not JSON" if media else "the body has no media type",
                where="Content-Type",
                hint="set json_output: true in falco.yaml"
                if media == "text/plain"
                else "send Content-Type: application/json",
            )
        # Refused before the body is asked for: a client that waits for `100 Continue` need not send it.
        if announced and (len(announced) > 12 or int(announced) > DRAIN_BYTES + self._max_body):
            raise self._too_large()
        if announced and int(announced) > self._max_body and _expects(scope):
            raise self._too_large()
        return kept

    async def _body(self, receive: Receive) -> bytes:
        """The body, of which never more than `max_body` is held."""
        parts: list[bytes] = []
        held = dropped = 0
        try:
            async with asyncio.timeout(BODY_SECONDS):
                while True:
                    message = await receive()
                    if message["type"] != "http.request":
                        raise BadInput("the connection ended within the body")
                    part: bytes = message.get("body", b"")
                    if held + len(part) <= self._max_body and not dropped:
                        parts.append(part)
                        held += len(part)
                    else:
                        parts.clear()
                        dropped += held + len(part)
                        held = 0
                    if not message.get("more_body", False):
                        break
                    if dropped > DRAIN_BYTES:
                        break
        except TimeoutError:
            raise TooSlow(
                f"the body did not come within {BODY_SECONDS:.0f} s", hint="send it at once"
            ) from None
        if dropped:
            raise self._too_large()
        return b"".join(parts)

    def _too_large(self) -> TooLarge:
        return TooLarge(
            f"the body is longer than {self._max_body} bytes",
            hint="ingest.max_body is the bound",
        )

    async def _answer_error(self, error: TripsharkError, send: Send) -> None:
        extra: list[tuple[bytes, bytes]] = []
        if isinstance(error, Denied):
            extra.append((b"www-authenticate", self._gate.challenge.encode()))
        if isinstance(error, Transient) and error.after is not None:
            extra.append((b"retry-after", str(max(1, math.ceil(error.after))).encode()))
        if isinstance(error, (TooLarge, TooSlow)):
            extra.append((b"connection", b"close"))  # the rest of the body is nobody's
        await _answer(send, error.http_status, msgspec.json.encode(error.as_json()), extra)


_OUTCOMES = {
    "too_large": "too_large",
    "unsupported_media_type": "unsupported",
    "too_many": "busy",
    "too_slow": "too_slow",
}


def _secret(path: str) -> str:
    """The path segment that stands where the secret would."""
    segment = path.removeprefix("/v1/alerts/") if path.startswith("/v1/alerts/") else path[1:]
    return "" if "/" in segment else segment


def _expects(scope: Scope) -> bool:
    return any(
        name == b"expect" and value.lower() == b"100-continue" for name, value in scope["headers"]
    )


async def _answer(
    send: Send, status: int, body: bytes, extra: list[tuple[bytes, bytes]] | None = None
) -> None:
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"x-content-type-options", b"nosniff"),
        (b"cache-control", b"no-store"),
    ]
    await send(
        {"type": "http.response.start", "status": status, "headers": headers + (extra or [])}
    )
    await send({"type": "http.response.body", "body": body})
