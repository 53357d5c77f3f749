"""How long a reader waits: packets through the warm dissector, beside tshark started for each question."""

from __future__ import annotations

import asyncio
import json
import os
import random
import struct
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bench.figures import median, number
from bench.report import Section, Table, Verdict
from bench.stage import Failed, Stage
from tripshark.analysis.client import AnalystClient
from tripshark.analysis.sessions import Sessions, Told
from tripshark.model.alert import Json
from tripshark.model.finding import Question

START_NS = 1_790_000_000_000_000_000
STEP_NS = 400_000
SMALL, LARGE = 10_000_000, 200_000_000
NOBODY = 65_534
FILTERS = ("http.request", "dns", "tcp.flags.syn == 1", "tcp.len > 1000", "ip.dst == 10.96.0.10")


@dataclass
class _Times:
    """Seconds by what was asked."""

    ours: dict[str, list[float]] = field(default_factory=dict)
    theirs: dict[str, list[float]] = field(default_factory=dict)

    def our(self, what: str) -> float:
        return median(self.ours.get(what, ()))


ROWS = (
    ("opened, first page of 100", "open"),
    ("another page of 100, anywhere", "page"),
    ("one packet with all its fields and bytes", "packet"),
    ("a new display filter, first page and how many match", "filter"),
    ("a further page of that filter", "further"),
    ("packets over time", "intervals"),
    ("a stream followed", "follow"),
    ("findings, checked", "findings"),
)


def measure(stage: Stage) -> Section:
    section = Section(title="Reading: packets in the browser, beside tshark for each question")
    folder = stage.folder
    times: dict[str, _Times] = {}
    with _analyst(folder) as path:
        for name, size in (("10 MB", SMALL), ("200 MB", SMALL * 8 if stage.quick else LARGE)):
            stage.say(f"{name}: making the file")
            capture = folder / f"{size}.pcapng"
            frames = _write(capture, size)
            stage.say(f"{name}: {frames:,} packets")
            turns = 2 if stage.quick or size > SMALL else 5
            times[name] = asyncio.run(_read(path, capture, frames, turns))
            _tshark(capture, frames, times[name], 1 if size > SMALL else 3)
            capture.unlink()
    table = Table(
        columns=("asked", "10 MB", "tshark, 10 MB", "200 MB, in a window", "tshark, 200 MB")
    )
    for title, what in ROWS:
        cells = [title]
        for name in ("10 MB", "200 MB"):
            for seconds in (times[name].ours.get(what), times[name].theirs.get(what)):
                cells.append(f"{number(median(seconds) * 1e3)} ms" if seconds else "–")
        table.rows.append(cells)
    section.tables.append(table)
    small, large = times["10 MB"], times["200 MB"]
    for what, wanted, bound, found in (
        ("10 MB: a page of packets", "under 100 ms", 0.1, small.our("page")),
        ("10 MB: a new display filter", "under 600 ms", 0.6, small.our("filter")),
        ("10 MB: findings, checked", "under 3 s", 3.0, small.our("findings")),
        ("200 MB: opened around the alert, first page", "under 5 s", 5.0, large.our("open")),
    ):
        section.verdicts.append(
            Verdict(
                what=what, wanted=wanted, found=f"{number(found * 1e3)} ms", reached=found < bound
            )
        )
    section.explain("""
        Wall-clock time at the responder, from the request to the decoded answer; HTTP adds a few milliseconds. The
        dissector runs in its sandbox at the lowest useful priority (nice 10) beside whatever else the machine does.

        A file larger than `reading.whole` (50 MB) is cut to a window of `reading.window` (20 MB) around the alert
        before it is opened; every packet keeps its number. What stands before the window is counted through with
        each new filter, which is why filters take longer there than in a small file.

        *tshark*: the command that gives the same answer, started for it: `-Y 'frame.number in {…}'` for a page or a
        packet (`-V -x`), `-Y FILTER`, `-q -z io,stat`, `-q -z follow,tcp,raw,N`, each with `-n -r FILE`.
    """)
    return section


@contextmanager
def _analyst(folder: Path) -> Iterator[str]:
    path = str(folder / "analyst.sock")
    config = {"socket": path, "uid": NOBODY, "gid": NOBODY, "group": 0}
    argv = [
        sys.executable,
        "-m",
        "tripshark.programs.analyst",
        "--json-config",
        json.dumps(config),
    ]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        if not json.loads(process.stdout.readline() or b"{}").get("ready"):
            raise Failed("the analyst did not start")
        yield path
    finally:
        process.terminate()
        process.wait(10)
        process.stdout.close()


async def _read(socket_path: str, capture: Path, frames: int, turns: int) -> _Times:
    times = _Times()
    chance = random.Random(7)
    t0 = START_NS + frames * STEP_NS // 2

    async def descriptor() -> int:
        return os.open(capture, os.O_RDONLY)

    for turn in range(turns):
        sessions = Sessions(socket_path)

        async def timed(what: str, sessions: Sessions = sessions, **asked: Json) -> Told:
            before = time.perf_counter()
            told = await sessions.ask(("bench", capture.name, ""), descriptor, asked, t0_ns=t0)
            times.ours.setdefault(what, []).append(time.perf_counter() - before)
            return told

        told = await timed("open", ask="page")
        window = told.window or {"first": 1, "last": told.frames}
        first, last = _whole(window, "first"), _whole(window, "last")
        for _ in range(4):
            await timed("page", ask="page", skip=chance.randrange(last - first - 100))
        for _ in range(4):
            await timed("packet", ask="packet", number=chance.randint(first, last))
        for filter in FILTERS:
            await timed("filter", ask="page", filter=filter)
            await timed("further", ask="page", filter=filter, skip=100)
        await timed("intervals", ask="intervals")
        await timed("follow", ask="follow", proto="tcp", stream=turn)
        sessions.close()
    if frames < 100_000:  # a large file's are not waited for by any reader
        client = AnalystClient(socket_path)
        about = Question(t0_ns=t0, target="bench/pod", addresses=("10.244.1.7",), connections=())
        for _ in range(3):
            before = time.perf_counter()
            await client.analyse(str(capture), about)
            times.ours.setdefault("findings", []).append(time.perf_counter() - before)
    return times


def _whole(window: Mapping[str, Json], name: str) -> int:
    value = window[name]
    assert isinstance(value, int)
    return value


def _tshark(capture: Path, frames: int, times: _Times, turns: int) -> None:
    middle = frames // 2
    for what, more in (
        ("page", ["-Y", f"frame.number in {{{middle}..{middle + 99}}}"]),
        ("packet", ["-V", "-x", "-Y", f"frame.number == {middle}"]),
        ("filter", ["-Y", FILTERS[0]]),
        ("intervals", ["-q", "-z", "io,stat,0.1"]),
        ("follow", ["-q", "-z", "follow,tcp,raw,0"]),
    ):
        for _ in range(turns):
            before = time.perf_counter()
            subprocess.run(
                ["tshark", "-n", "-r", capture, *more], stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL, check=True,
            )  # fmt: skip
            times.theirs.setdefault(what, []).append(time.perf_counter() - before)


def _write(path: Path, total: int) -> int:
    """A pod that looks names up and fetches pages, in so many bytes. How many packets that is."""
    count = 0
    with path.open("wb") as out:
        out.write(_block(0x0A0D0D0A, struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1)))
        options = struct.pack("<HHBxxxHH", 9, 1, 9, 0, 0)
        out.write(_block(1, struct.pack("<HHI", 1, 0, 262_144) + options))
        for frame in _frames():
            ns = START_NS + count * STEP_NS
            head = struct.pack("<IIIII", 0, ns >> 32, ns & 0xFFFFFFFF, len(frame), len(frame))
            out.write(_block(6, head + frame))
            count += 1
            if out.tell() >= total:
                return count
    return count


def _frames() -> Iterator[bytes]:
    chance = random.Random(1)
    pod, resolver = bytes([10, 244, 1, 7]), bytes([10, 96, 0, 10])
    visit = 0
    while True:
        visit += 1
        port, server = 20_000 + visit % 40_000, bytes([203, 0, 113, visit % 250 + 1])
        host = b"host%d" % (visit % 500)
        name = bytes([len(host)]) + host + b"\x07example\x03com\0"
        asked = struct.pack("!6H", visit & 0xFFFF, 0x0100, 1, 0, 0, 0) + name + b"\0\1\0\1"
        said = struct.pack("!6H", visit & 0xFFFF, 0x8180, 1, 1, 0, 0) + name + b"\0\1\0\1"
        said += b"\xc0\x0c" + struct.pack("!HHIH", 1, 1, 60, 4) + server
        yield _udp(pod, resolver, port, 53, asked)
        yield _udp(resolver, pod, 53, port, said)
        get = b"GET /%d HTTP/1.1\r\nHost: %s.example.com\r\nUser-Agent: bench/1\r\n\r\n" % (
            visit,
            host,
        )
        body = chance.randbytes(600) * chance.randint(1, 14)
        page = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body
        a, b = chance.getrandbits(31), chance.getrandbits(31)
        yield _tcp(pod, server, port, 80, a, 0, 0x02)
        yield _tcp(server, pod, 80, port, b, a + 1, 0x12)
        yield _tcp(pod, server, port, 80, a + 1, b + 1, 0x18, get)
        a, b = a + 1 + len(get), b + 1
        for at in range(0, len(page), 1448):
            piece = page[at : at + 1448]
            yield _tcp(server, pod, 80, port, b, a, 0x18, piece)
            b += len(piece)
        yield _tcp(pod, server, port, 80, a, b, 0x11)
        yield _tcp(server, pod, 80, port, b, a + 1, 0x11)


def _udp(src: bytes, dst: bytes, sport: int, dport: int, payload: bytes) -> bytes:
    return _ip(src, dst, 17, struct.pack("!4H", sport, dport, 8 + len(payload), 0) + payload)


def _tcp(
    src: bytes, dst: bytes, sport: int, dport: int, seq: int, ack: int, flags: int,
    payload: bytes = b"",
) -> bytes:  # fmt: skip
    head = struct.pack("!HHIIBBHHH", sport, dport, seq, ack, 0x50, flags, 64_240, 0, 0)
    return _ip(src, dst, 6, head + payload)


def _ip(src: bytes, dst: bytes, proto: int, payload: bytes) -> bytes:
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(payload), 1, 0x4000, 64, proto, 0)
    return bytes.fromhex("0200000000010200000000020800") + head + src + dst + payload


def _block(kind: int, body: bytes) -> bytes:
    body += bytes(-len(body) % 4)
    length = struct.pack("<I", len(body) + 12)
    return struct.pack("<I", kind) + length + body + length
