"""Asks gRPC services over a unix socket: bytes out, bytes in, each answer bounded in size and time."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable
from urllib.parse import unquote

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
import h2.settings

from tripshark.errors import BadInput, Denied, NotFound, Permanent, Transient, TripsharkError
from tripshark.scout.connecting import connecting

MAX_ANSWER = 16 << 20  # what a kubelet takes as well

_NOT_FOUND, _PERMISSION_DENIED, _UNIMPLEMENTED, _UNAUTHENTICATED = 5, 7, 12, 16
_INVALID_ARGUMENT = 3


class _Call:
    """One request under way."""

    def __init__(self, on_message: Callable[[bytes], None], done: asyncio.Future[None]) -> None:
        self.buffer = bytearray()
        self.said: dict[bytes, bytes] = {}
        self.on_message = on_message
        self.done = done

    def fail(self, problem: TripsharkError) -> None:
        if not self.done.done():
            self.done.set_exception(problem)

    def take(self, data: bytes) -> None:
        """Hand on each message that is complete. Raises `BadInput`."""
        self.buffer += data
        while len(self.buffer) >= 5:
            compressed, size = struct.unpack_from(">BI", self.buffer)
            if compressed or size > MAX_ANSWER:
                raise BadInput("an answer that is compressed or too long")
            if len(self.buffer) < 5 + size:
                return
            message = bytes(self.buffer[5 : 5 + size])
            del self.buffer[: 5 + size]
            self.on_message(message)

    def ended(self) -> None:
        if self.done.done():
            return
        problem = _problem(self.said)
        if problem is not None:
            self.fail(problem)
        elif self.buffer:
            self.fail(BadInput("an answer that ends too early"))
        else:
            self.done.set_result(None)


class Channel(asyncio.Protocol):
    """A connection to one service; many requests may be under way on it. Once lost it stays lost."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.lost: TripsharkError | None = None
        self._calls: dict[int, _Call] = {}
        self._transport: asyncio.Transport | None = None
        # no encoding: header bytes stay bytes, whatever they are
        self._h2 = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding=None))

    @classmethod
    async def open(cls, path: str) -> Channel:
        """Raises `Transient` or `Denied` when nobody listens there or we may not connect."""
        loop = asyncio.get_running_loop()
        async with connecting(path):
            _, channel = await loop.create_unix_connection(lambda: cls(path), path)
        return channel

    async def ask(self, method: str, request: bytes = b"", *, timeout_s: float = 5.0) -> bytes:
        """The one answer to a request. Raises `NotFound`, `Denied`, `Permanent`, `Transient`, `BadInput`."""
        answers: list[bytes] = []
        try:
            async with asyncio.timeout(timeout_s):
                await self.listen(method, request, answers.append)
        except TimeoutError as problem:
            raise Transient(f"no answer within {timeout_s:g} s", where=self.path) from problem
        if len(answers) != 1:
            raise BadInput(f"{len(answers)} answers to one question", where=self.path)
        return answers[0]

    async def listen(
        self, method: str, request: bytes, on_message: Callable[[bytes], None]
    ) -> None:
        """Hand every message of the answer to `on_message`, until it ends. Raises as `ask` does."""
        if self.lost is not None:
            raise self.lost
        call = _Call(on_message, asyncio.get_running_loop().create_future())
        stream = self._h2.get_next_available_stream_id()
        headers = [
            (":method", "POST"),
            (":scheme", "http"),
            (":authority", "localhost"),
            (":path", method),
            ("te", "trailers"),
            ("content-type", "application/grpc"),
            ("user-agent", "tripshark"),
        ]
        self._calls[stream] = call
        try:
            self._h2.send_headers(stream, headers)
            self._h2.send_data(stream, struct.pack(">BI", 0, len(request)) + request, True)
            self._flush()
            await call.done
        except h2.exceptions.ProtocolError as problem:
            raise Transient("the connection takes no more", where=self.path) from problem
        except TripsharkError as problem:
            problem.where = problem.where or f"{self.path} {method}"
            raise
        finally:
            del self._calls[stream]
            self._reset(stream)

    def close(self) -> None:
        self._lose(Transient("closed", where=self.path))

    # ---- asyncio.Protocol ---------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 (for the type checker)
        self._transport = transport
        self._h2.local_settings = h2.settings.Settings(
            client=True,
            initial_values={
                h2.settings.SettingCodes.ENABLE_PUSH: 0,
                h2.settings.SettingCodes.MAX_HEADER_LIST_SIZE: 65_536,
            },
        )
        self._h2.initiate_connection()
        self._flush()

    def data_received(self, data: bytes) -> None:
        try:
            for event in self._h2.receive_data(data):
                self._on(event)
        except (h2.exceptions.ProtocolError, ValueError) as problem:
            self._lose(BadInput(f"no gRPC is spoken here: {problem}", where=self.path))
        self._flush()

    def connection_lost(self, exc: Exception | None) -> None:
        words = f": {exc}" if exc else ""
        self._lose(Transient(f"the runtime hung up{words}", where=self.path))

    def _on(self, event: h2.events.Event) -> None:
        if isinstance(event, h2.events.ConnectionTerminated):
            self._lose(Transient("the runtime ends the connection", where=self.path))
            return
        if isinstance(event, h2.events.DataReceived):
            # given back at once: a message is bounded by itself, not by the window
            self._h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        call = self._calls.get(getattr(event, "stream_id", None) or 0)
        if call is None:  # nobody waits for it any more
            return
        if isinstance(event, h2.events.ResponseReceived | h2.events.TrailersReceived):
            call.said |= {bytes(name): bytes(value) for name, value in event.headers}
        elif isinstance(event, h2.events.DataReceived):
            if call.said.get(b":status") == b"200":  # else: a page that says what went wrong
                try:
                    call.take(event.data)
                except BadInput as problem:
                    call.fail(problem)
        elif isinstance(event, h2.events.StreamEnded):
            call.ended()
        elif isinstance(event, h2.events.StreamReset):
            call.fail(Transient("the runtime broke the answer off"))

    def _reset(self, stream: int) -> None:
        """Tell the runtime that nobody listens any more, if it has not ended by itself."""
        try:
            self._h2.reset_stream(stream, h2.errors.ErrorCodes.CANCEL)
        except (h2.exceptions.ProtocolError, KeyError):  # it has
            return
        self._flush()

    def _flush(self) -> None:
        data = self._h2.data_to_send()
        if data and self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def _lose(self, problem: TripsharkError) -> None:
        if self.lost is None:
            self.lost = problem
        for call in self._calls.values():
            call.fail(self.lost)
        if self._transport is not None:
            self._transport.abort()


def _problem(said: dict[bytes, bytes]) -> TripsharkError | None:
    """What the runtime's headers and trailers say went wrong."""
    if (http := said.get(b":status", b"")) != b"200":
        return Permanent(f"no gRPC service: HTTP {http[:20].decode(errors='replace')}")
    status = said.get(b"grpc-status", b"")
    if status == b"0":
        return None
    words = unquote(said.get(b"grpc-message", b"").decode(errors="replace"))[:300]
    code = int(status) if status.isdigit() and len(status) < 4 else -1
    if code == _NOT_FOUND:
        return NotFound(words or "not found")
    if code in (_PERMISSION_DENIED, _UNAUTHENTICATED):
        return Denied(words or "the runtime does not serve us")
    if code in (_UNIMPLEMENTED, _INVALID_ARGUMENT):
        return Permanent(words or "the runtime does not know this request")
    return Transient(words or f"gRPC status {code}")
