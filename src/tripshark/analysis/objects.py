"""Files that packets carried: put together by a sandboxed sharkd, hashed here, and forgotten. Nothing is written or run.

tshark's own `--export-objects` writes files, which its sandbox rightly cannot; sharkd says what is in them instead.
An HTTP body with a Content-Encoding is left alone: unpacking it could go on without end.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import os
import re
from collections.abc import Mapping, Sequence
from typing import Final

from tripshark.analysis import answers, sharkd
from tripshark.analysis.sandbox import Policy
from tripshark.analysis.session import find_sharkd
from tripshark.analysis.warm import Warm
from tripshark.errors import Permanent, TripsharkError
from tripshark.formats.magic import HEAD, kind_of
from tripshark.formats.tshark_time import time_ns
from tripshark.model.alert import Json
from tripshark.model.files import CarriedFile
from tripshark.model.text import printable

MAX_FILES: Final = 200
MAX_FILE_BYTES: Final = 16 << 20
"""Of one file that is hashed; a larger one is told with its size alone."""
MAX_CAPTURE_BYTES: Final = 64 << 20
"""Of a capture that is looked through for files: it is copied into memory for sharkd."""
MAX_TOTAL_BYTES: Final = 128 << 20

_SOURCES: Final = {
    "eo:http": "HTTP",
    "eo:smb": "SMB",
    "eo:tftp": "TFTP",
    "eo:imf": "IMF",
    "eo:ftp-data": "FTP-DATA",
}
_COLUMNS: Final = (
    *("frame.time_epoch", "ip.src", "ipv6.src", "ip.dst", "ipv6.dst"),
    *("tcp.srcport", "tcp.dstport", "udp.srcport", "udp.dstport"),
)
_PART = re.compile(r"\[\s*(\d{1,3}\.\d+)%\]")
_PIECE: Final = 4 << 20
_FILE: Final = 4  # the descriptor of the file in the child
_LOAD_S: Final = 60.0
_ANSWER_S: Final = 20.0
_MAX_LIST: Final = 8 << 20


async def carried(
    evidence: int, policy: Policy
) -> tuple[tuple[CarriedFile, ...], tuple[str, ...]]:
    """The files in the capture open as `evidence`, in the order of their frames, and notes about what was left out.

    Never raises for what the capture holds: what kills sharkd costs the files, not the findings.
    """
    size = os.fstat(evidence).st_size
    if size > MAX_CAPTURE_BYTES:
        much = f"{MAX_CAPTURE_BYTES >> 20} MiB"
        return (), (f"files were not looked for: the capture is larger than {much}",)
    reader = None
    try:
        memory = await _copied(evidence, size)
        try:
            child = await Warm.start([find_sharkd(), "-"], files=(memory,), policy=policy)
        finally:
            os.close(memory)
        reader = _Reader(child)
        await reader.ask("setconf", {"name": "http.decompress_body", "value": "FALSE"})
        await reader.ask("load", {"file": f"/proc/self/fd/{_FILE}"}, wall_s=_LOAD_S)
        return await reader.files()
    except (TripsharkError, answers.Refused, ValueError, OSError) as problem:
        known = () if reader is None else tuple(reader.found)
        return known, (f"not all files could be looked at: {printable(str(problem), 200)}",)
    finally:
        if reader is not None:
            reader.close()


async def _copied(evidence: int, size: int) -> int:
    """In memory without a name, which sharkd may open as its own descriptor; to be closed by the caller."""
    memory = os.memfd_create("capture", os.MFD_CLOEXEC)
    try:
        at = 0
        while at < size and (sent := os.sendfile(memory, evidence, at, min(_PIECE, size - at))):
            at += sent
            await asyncio.sleep(0)
    except BaseException:
        os.close(memory)
        raise
    return memory


class _Reader:
    """One sharkd with the capture loaded."""

    def __init__(self, child: Warm) -> None:
        self.found: list[CarriedFile] = []
        self._child = child
        self._number = 0
        self._total = 0

    def close(self) -> None:
        self._child.close()

    async def ask(
        self, method: str, parameters: dict[str, Json], *, wall_s: float = _ANSWER_S
    ) -> Json:
        """The result. Raises `Permanent` (refused, or too long) and what `Warm` raises."""
        self._number += 1
        line = sharkd.told(self._number, method, parameters)
        said = await self._child.ask(line, wall_s=wall_s, most=_MAX_LIST + 2 * MAX_FILE_BYTES)
        if said.cut:
            raise Permanent("sharkd's answer is too long", where="analyst")
        answer: Json = answers.read_answer(said.raw, self._number)
        return answer

    async def files(self) -> tuple[tuple[CarriedFile, ...], tuple[str, ...]]:
        """All of them, up to the bounds."""
        taps = {f"tap{at}": name for at, name in enumerate(_SOURCES)}
        answer = _mapping(await self.ask("tap", dict(taps), wall_s=_LOAD_S))
        listed = [
            (source, _mapping(each))
            for tap in _sequence(answer.get("taps"))
            if (source := _SOURCES.get(str(_mapping(tap).get("tap"))))
            for each in _sequence(_mapping(tap).get("objects"))
        ]
        listed.sort(key=lambda each: _count_of(each[1].get("pkt")))
        for source, told in listed[:MAX_FILES]:
            await self._file(source, told)
        notes: tuple[str, ...] = ()
        if len(listed) > MAX_FILES:
            notes = (f"{len(listed) - MAX_FILES} more files were carried than are told",)
        return tuple(self.found), notes

    async def _file(self, source: str, told: Mapping[str, Json]) -> None:
        frame, size = _count_of(told.get("pkt")), _count_of(told.get("len"))
        if not frame:
            return
        columns = {f"column{at}": f"{name}:1" for at, name in enumerate(_COLUMNS)}
        limits: dict[str, Json] = {"limit": 1, **({"skip": frame - 1} if frame > 1 else {})}
        rows = _sequence(await self.ask("frames", {**limits, **columns}))
        cells = [str(each) for each in _sequence(_mapping(rows[0] if rows else None).get("c"))]
        if len(cells) != len(_COLUMNS):
            return
        src, dst = cells[1] or cells[2], cells[3] or cells[4]
        ports = _count_of(cells[5] or cells[7]), _count_of(cells[6] or cells[8])
        from_server = ports[0] <= ports[1]  # who listens has the lower port, as a rule
        content = b""
        if size <= MAX_FILE_BYTES and self._total + size <= MAX_TOTAL_BYTES:
            content = await self._content(str(told.get("_download")))
            self._total += len(content)
        kind = kind_of(content[:HEAD]) if content else None
        part = _PART.search(str(told.get("type")))
        self.found.append(
            CarriedFile(
                name=printable(str(told.get("filename") or "").partition("?")[0]),
                source=source,
                type=kind.name if kind else "not looked at",
                runs=bool(kind and kind.runs),
                sha256=hashlib.sha256(content).hexdigest() if content else "",
                md5=hashlib.md5(content, usedforsecurity=False).hexdigest() if content else "",
                bytes=len(content) or size,
                complete=bool(content) and (part is None or float(part[1]) >= 100),
                client=dst if from_server else src,
                server=src if from_server else dst,
                uploaded=not from_server,
                first_ns=time_ns(cells[0]),
                frame=frame,
            )
        )

    async def _content(self, token: str) -> bytes:
        answer = _mapping(await self.ask("download", {"token": token}))
        try:
            return base64.b64decode(str(answer.get("data") or ""), validate=True)
        except binascii.Error:
            return b""


def _mapping(value: Json) -> Mapping[str, Json]:
    return value if isinstance(value, dict) else {}


def _sequence(value: Json) -> Sequence[Json]:
    return value if isinstance(value, list) else []


def _count_of(value: Json) -> int:
    """0 for what is no whole number."""
    if isinstance(value, str) and value.isascii() and value.isdecimal():
        return int(value[:18])
    return value if type(value) is int and value >= 0 else 0
