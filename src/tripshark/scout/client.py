"""Talks to the scout over its unix socket: which pods and containers the runtimes of this machine know."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Mapping
from typing import Any

from tripshark.errors import BadInput, Denied, NotFound, Permanent, Transient, TripsharkError
from tripshark.formats.wire import MAX_MESSAGE, Joiner, Json, field, from_json, pack
from tripshark.model.pod import Sandbox
from tripshark.scout.language import VERSION, WAIT_S

_ERRORS: dict[str, type[TripsharkError]] = {
    each.code: each for each in (BadInput, Denied, NotFound, Permanent, Transient)
}


class _Line:
    """One connection, on which one request at a time is asked."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._sock: socket.socket | None = None
        self._joiner = Joiner()
        self._asked = 0
        self._turn = asyncio.Lock()

    async def ask(self, what: str, *, timeout_s: float, **fields: object) -> list[Json]:
        """The answers to a request. Connects where there is no connection. Raises `Transient`, or what is answered."""
        async with self._turn:
            whole = False
            try:
                async with asyncio.timeout(timeout_s):
                    if self._sock is None:
                        await self._connect()
                    answers = [each async for each in self._answers(what, fields)]
                    whole = True
                    return answers
            except TimeoutError as problem:
                raise Transient(
                    f"the scout did not answer within {timeout_s:g} s", where=self._path
                ) from problem
            except _Answered as problem:
                whole = True
                raise problem.error from None
            finally:
                if not whole:  # an answer may still come, to nobody
                    self.close()

    async def _connect(self) -> None:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
        self._sock, self._joiner = sock, Joiner()
        try:
            await asyncio.get_running_loop().sock_connect(sock, self._path)
        except OSError as problem:
            raise Transient(
                f"the scout is away: {problem.strerror}",
                where=self._path,
                hint="is `tripshark run` or `tripshark recorder` running?",
                after=1.0,
            ) from problem
        try:
            async for _ in self._answers("hello", {"version": VERSION}):
                pass
        except _Answered as problem:  # another version, or not for us
            raise problem.error from None

    async def _answers(self, what: str, fields: Mapping[str, object]) -> AsyncIterator[Json]:
        self._asked += 1
        id = self._asked
        for packet in pack({"t": what, "id": id, **fields}):
            await self._send(packet)
        more = True
        while more:
            answer = await self._receive()
            if answer.get("t") == "error":
                kind = _ERRORS.get(str(answer.get("code")), Permanent)
                told = {name: str(answer.get(name, "")) for name in ("where", "hint")}
                raise _Answered(kind(str(answer.get("message", "")), **told))
            if answer.get("id") != id or answer.get("t") != what:
                raise Transient("the scout answers something else", where=self._path)
            more = answer.get("more") is True
            yield answer

    async def _send(self, packet: bytes) -> None:
        assert self._sock is not None  # noqa: S101 (connected by `ask`)
        try:
            await asyncio.get_running_loop().sock_sendall(self._sock, packet)
        except OSError as problem:
            raise Transient(
                f"the scout went away: {problem.strerror}", where=self._path, after=1.0
            ) from problem

    async def _receive(self) -> Json:
        assert self._sock is not None  # noqa: S101 (connected by `ask`)
        loop = asyncio.get_running_loop()
        while True:
            try:
                data = await loop.sock_recv(self._sock, MAX_MESSAGE + 1)
            except OSError as problem:
                raise Transient(
                    f"the scout went away: {problem.strerror}", where=self._path, after=1.0
                ) from problem
            if not data:
                raise Transient("the scout went away", where=self._path, after=1.0)
            try:
                message = self._joiner.feed(data)
            except BadInput as problem:
                raise Transient(
                    f"the scout cannot be understood: {problem.message}", where=self._path
                ) from problem
            if message is not None:
                return message

    def close(self) -> None:
        if self._sock is not None:
            self._sock.close()
            self._sock = None


class _Answered(Exception):
    """The scout's own refusal, which leaves the connection as good as it was."""

    def __init__(self, error: TripsharkError) -> None:
        super().__init__(str(error))
        self.error = error


class ScoutClient:
    """The scout behind `path`. Connects when first needed, and again when it was lost.

    Every method raises `Transient` when the scout is away, `Denied` when it does not serve this user.
    """

    def __init__(self, path: str, *, timeout_s: float = 10.0) -> None:
        self._path = path
        self._timeout_s = timeout_s
        self._line = _Line(path)
        self._waiting = _Line(path)  # a long wait holds up no question
        self._edition = 0

    async def sandboxes(self) -> tuple[Sandbox, ...]:
        """Everybody who lives, then who died within the tombstone time (`gone_ns`).

        A plain container that was started again is there twice by id: with its present namespace, and dead with
        the one before.
        """
        answers = await self._line.ask("sandboxes", timeout_s=self._timeout_s)
        found = [
            each
            for answer in answers
            for each in self._read(tuple[Sandbox, ...], answer.get("sandboxes"))
        ]
        self._edition = self._number(answers[0], "edition")
        return tuple(found)

    async def find(self, container_id: str) -> Sandbox | None:
        """The sandbox with this id, or of the container with it; 12 hex digits suffice. Asks the runtimes afresh.

        Raises `BadInput` for what is no id, or begins several.
        """
        answers = await self._line.ask("find", timeout_s=self._timeout_s, container=container_id)
        said = answers[0].get("sandbox")
        return None if said is None else self._read(Sandbox, said)

    async def changed(self) -> None:
        """Return once something is different from what the last `sandboxes` said; at once when that is so already."""
        while True:
            known = self._edition
            answers = await self._waiting.ask(
                "changed", timeout_s=WAIT_S + self._timeout_s, edition=known
            )
            if self._number(answers[0], "edition") != known:
                return

    async def state(self) -> Mapping[str, object]:
        """Runtimes found (`runtimes`: socket, runtime, version, state, error, counts …), how many pods are known."""
        answers = await self._line.ask("state", timeout_s=self._timeout_s)
        try:
            return field(answers[0], "state", dict[str, Any])
        except BadInput as problem:
            raise self._strange(problem) from problem

    def close(self) -> None:
        """Leave the scout."""
        self._line.close()
        self._waiting.close()

    def _read(self, kind: Any, said: object) -> Any:  # noqa: ANN401 — as from_json
        try:
            return from_json(kind, said)
        except BadInput as problem:
            raise self._strange(problem) from problem

    def _number(self, answer: Json, name: str) -> int:
        try:
            return field(answer, name, int)
        except BadInput as problem:
            raise self._strange(problem) from problem

    def _strange(self, problem: BadInput) -> Transient:
        words = f"the scout cannot be understood: {problem.message}"
        return Transient(words, where=self._path)
