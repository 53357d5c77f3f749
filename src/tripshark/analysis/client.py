"""Asks the analyst: `ports.Analyst` over its unix socket."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
from collections.abc import Mapping, Sequence

from tripshark.analysis.talk import MAX_ANSWER, VERSION, ready
from tripshark.errors import (
    BadInput,
    Denied,
    NotFound,
    Permanent,
    TooMany,
    Transient,
    TripsharkError,
)
from tripshark.model.alert import Json
from tripshark.model.finding import Finding, Findings, Question
from tripshark.model.text import printable

_KINDS: dict[str, type[TripsharkError]] = {
    each.code: each for each in (BadInput, Denied, NotFound, Permanent, TooMany, Transient)
}


class AnalystClient:
    """`ports.Analyst`: hands an open file to the analyst and waits for its findings."""

    def __init__(self, socket_path: str, *, timeout_s: float = 300.0) -> None:
        self._socket_path = socket_path
        self._timeout_s = timeout_s  # longer than the analyst's own limit, so that it can say why

    async def analyse(self, path: str, question: Question) -> Findings:
        """Findings about the file at `path`, which only we need to be able to open.

        Raises `Transient` when the analyst is away, busy or too slow, `Permanent` when it could not make sense
        of the file. The evidence is opened read-only and is untouched in any case.
        """
        return await self._answered(path, {"question": question.as_json()})

    async def check(self, path: str, findings: Findings, claims: Sequence[Finding]) -> Findings:
        """Only these claims about the same file, each checked. Raises `Permanent` when one does not hold."""
        alone = Findings(
            manifest_sha256=findings.manifest_sha256,
            tool=findings.tool,
            sandbox=(),
            packets=findings.packets,
            first_ns=findings.first_ns,
            last_ns=findings.last_ns,
            findings=tuple(claims),
        )
        return await self._answered(path, {"claims": alone.as_json()})

    async def _answered(self, path: str, asked: Mapping[str, Json]) -> Findings:
        try:
            evidence = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError as problem:
            raise Permanent(f"cannot open: {problem.strerror}", where=path) from problem
        try:
            async with asyncio.timeout(self._timeout_s):
                answer = await self._ask(evidence, asked)
        except TimeoutError as problem:
            raise Transient(
                f"no answer within {self._timeout_s:g} s", where=self._socket_path, after=30.0
            ) from problem
        except OSError as problem:
            raise Transient(
                f"the analyst cannot be reached: {problem.strerror}",
                where=self._socket_path,
                hint="see whether tripshark run (or its analyst) is running",
                after=5.0,
            ) from problem
        finally:
            os.close(evidence)
        return _read(answer, self._socket_path)

    async def _ask(self, evidence: int, asked: Mapping[str, Json]) -> bytes:
        line = json.dumps({"version": VERSION, **asked}).encode() + b"\n"
        loop = asyncio.get_running_loop()
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.setblocking(False)
            while True:
                try:
                    connection.connect(self._socket_path)
                    break
                except (
                    BlockingIOError
                ):  # its queue is full: unlike TCP, a unix socket must ask again
                    await asyncio.sleep(0.05)
            await ready(connection, write=True)
            sent = socket.send_fds(connection, [line[:1]], [evidence])
            # Refused before it was read: the answer says why.
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                await loop.sock_sendall(connection, line[sent:])
            answer = bytearray()
            while piece := await loop.sock_recv(connection, 256 << 10):
                answer += piece
                if len(answer) > MAX_ANSWER:
                    raise Permanent("the analyst's answer is too long", where=self._socket_path)
            return bytes(answer)


def _read(answer: bytes, where: str) -> Findings:
    """Findings, or the error they sent. Nothing of it is believed before it has been checked."""
    if not answer:
        raise Transient("the analyst closed without an answer", where=where, after=5.0)
    try:
        document: Json = json.loads(answer)
        raised(document)
        return Findings.from_json(document)
    except (ValueError, RecursionError) as problem:
        raise Permanent("the analyst's answer cannot be read", where=where) from problem


def raised(document: Json) -> None:
    """Raise the error that an answer is, if it is one."""
    if isinstance(document, dict) and isinstance(error := document.get("error"), dict):
        said = {
            name: printable(str(error.get(name) or ""))
            for name in ("code", "message", "hint", "where")
        }
        kind = _KINDS.get(said["code"], Permanent)
        raise kind(said["message"], where=said["where"], hint=said["hint"])
