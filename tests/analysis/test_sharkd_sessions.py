"""Captures that are looked at: real sharkd in its sandbox, beside tshark, killed, starved, split and fuzzed."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import random
import signal
import socket
import struct
import subprocess
import termios
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.analysis.crafted import ACK, C2, POD, PUSH, START_NS, Capture, beacon, get
from tests.analysis.test_service import running
from tripshark.analysis.sandbox import Policy
from tripshark.analysis.sessions import Sessions, Told
from tripshark.analysis.talk import SESSION
from tripshark.analysis.warm import Warm
from tripshark.errors import BadInput, NotFound, Permanent, TooMany, Transient, TripsharkError
from tripshark.model.alert import Json

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="the analyst changes its user"),
]
HERE = Path(__file__).parent.parent / "captures"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, str]]:
    """The real analyst: its pid and its socket."""
    with running(tmp_path_factory.mktemp("analyst")) as (pid, _, path):
        yield pid, path


class Reader:
    """Asks about one file."""

    def __init__(self, sessions: Sessions, path: Path) -> None:
        self.sessions = sessions
        self.path = path
        self.opened = 0

    async def __call__(
        self, ask: str, *, at: Mapping[str, int] | None = None, **words: Json
    ) -> Told:
        async def open_() -> int:
            self.opened += 1
            return os.open(self.path, os.O_RDONLY)

        return await self.sessions.ask(
            ("incident", self.path.name, ""), open_, {"ask": ask, **words}, **(at or {})
        )

    async def numbers(self, filter: str, **more: Json) -> list[int]:
        told = await self("page", filter=filter, limit=500, **more)
        return [each["number"] for each in told.answer["frames"]]


@pytest.fixture
def sessions(service: tuple[int, str]) -> Iterator[Sessions]:
    made = Sessions(service[1])
    yield made
    made.close()


def sharkds(service: tuple[int, str]) -> list[int]:
    """Pids of the analyst's sharkds that live."""
    found = Path(f"/proc/{service[0]}/task/{service[0]}/children").read_text().split()
    return [int(pid) for pid in found if _command(int(pid)).endswith(b"sharkd")]


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0]
    except OSError:
        return b""


async def until(condition: object, seconds: float = 15.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # type: ignore[operator]
            await asyncio.sleep(0.02)


def by_tshark(path: Path, filter: str, field: str = "frame.number") -> list[str]:
    said = subprocess.run(
        ["tshark", "-n", "-r", path, "-Y", filter, "-T", "fields", "-e", field],
        capture_output=True,
        text=True,
        check=True,
    )
    return said.stdout.split()


def conversations(count: int, size: int = 900) -> Capture:
    """Connections to a web server, one after another."""
    capture = Capture(step_ns=400_000)
    capture.name(POD, "payments/checkout-7d9f")
    for i in range(count):
        capture.handshake(20_000 + i, C2, 80)
        capture.tcp(POD, 20_000 + i, C2, 80, PUSH | ACK, get(b"host%d.example" % (i % 7)))
        capture.tcp(C2, 80, POD, 20_000 + i, PUSH | ACK, bytes(size))
    return capture


async def test_pages_say_what_tshark_says(sessions: Sessions, tmp_path: Path) -> None:
    """Numbers, names, times and filters are tshark's; the alert is a row among them."""
    path = beacon().write(tmp_path)
    read = Reader(sessions, path)
    told = await read("page")
    rows = told.answer["frames"]
    said = by_tshark(path, "frame", "frame.time_epoch")
    assert [f"{each['time_ns'] / 1e9:.6f}" for each in rows] == [
        f"{float(each):.6f}" for each in said
    ]
    assert told.answer["total"] == told.answer["matched"] == told.frames == len(said)
    assert rows[0]["columns"][2] == "payments/checkout-7d9f"
    assert told.window is None
    for filter in (
        "dns",
        "tcp.flags.syn == 1",
        f"ip.addr == {C2}",
        "tcp.len > 0",
        "http",
        "frame",
    ):
        expected = [int(each) for each in by_tshark(path, filter)]
        assert await read.numbers(filter) == expected
        assert (await read("page", filter=filter, limit=1)).answer["matched"] == len(expected)
    packet = (await read("packet", number=1)).answer
    assert [each["filter"] for each in packet["tree"]][:3] == ["frame", "eth", "ip"]
    assert "Standard query" in rows[0]["columns"][-1]


async def test_a_stream_is_what_was_said(sessions: Sessions, tmp_path: Path) -> None:
    """Both sides in order; a stream that is not there is not found."""
    read = Reader(sessions, beacon().write(tmp_path))
    packet = (await read("packet", number=7)).answer
    assert packet["follow"] == [{"proto": "TCP", "filter": "tcp.stream eq 0", "stream": 0}]
    found = (await read("follow", proto="tcp", stream=0)).answer
    assert [(each["from"], each["data"]) for each in found["chunks"]] == [
        ("client", "aGVsbG8="),
        ("server", "aWQ7IHVuYW1lIC1h"),
    ]
    assert not found["truncated"]
    with pytest.raises(NotFound):
        await read("follow", proto="tcp", stream=99)


async def test_time_is_counted_in_steps(sessions: Sessions, tmp_path: Path) -> None:
    """The steps together hold every packet and byte, with a filter those it shows."""
    path = conversations(50).write(tmp_path)
    read = Reader(sessions, path)
    every = (await read("intervals", step_ms=10)).answer
    assert sum(every["packets"]) == 250
    assert every["start_ns"] == START_NS
    assert every["step_ns"] == 10_000_000
    some = (await read("intervals", filter="http.request")).answer
    assert sum(some["packets"]) == 50
    wide = (await read("intervals", step_ms=86_400_000)).answer
    assert wide["packets"] == [250]


async def test_completion_and_taps(sessions: Sessions, tmp_path: Path) -> None:
    """Fields by the beginning of their names; conversations with filters that find them."""
    read = Reader(sessions, beacon().write(tmp_path))
    fields = (await read("complete", prefix="tcp.str")).answer["fields"]
    assert fields[0] == {"name": "tcp.stream", "type": "number", "description": "Stream index"}
    for name in ("conversations", "endpoints", "expert"):
        rows = (await read("tap", name=name)).answer["rows"]
        assert rows
        if name == "conversations":
            tcp = [each for each in rows if each["destination_port"] == "4444"]
            assert len(await read.numbers(tcp[0]["filter"])) == 5


async def test_hostile_filters_do_no_more_than_fail(sessions: Sessions, tmp_path: Path) -> None:
    """Each gets sharkd's words or ours, and the next answer is still the right one."""
    read = Reader(sessions, beacon().write(tmp_path))
    before = (await read("page")).answer
    for filter in (
        "tcp.port ==",
        "a) || (b",
        ") || (1",
        '"',
        '"}}\\n{"jsonrpc":"2.0","id":1,"method":"load","params":{"file":"/etc/passwd"}}',
        'frame contains "},{"',
        "é" * 40,
        "((((" * 200,
        "!" * 1500,
        'tcp matches "(a+)+$"',
        "x" * 1790,
        "frame.number in {" + ", ".join(["1"] * 500),
        "<script>alert(1)</script>",
        "%n%n%s%s",
    ):
        checked = (await read("check", filter=filter)).answer
        if not checked["ok"]:
            assert checked["message"]
            with pytest.raises(BadInput):
                await read("page", filter=filter)
    for filter in ("x" * 1801, "tcp\n{}", "tcp\0"):
        with pytest.raises(BadInput):
            await read("page", filter=filter)
    assert (await read("page")).answer == before
    assert read.opened == 1


async def test_the_child_is_held(
    service: tuple[int, str], sessions: Sessions, tmp_path: Path
) -> None:
    """The kernel says: another user, no capability, no new privileges, seccomp; one file and two pipes beside it."""
    await Reader(sessions, beacon().write(tmp_path))("page")
    (pid,) = sharkds(service)
    status = Path(f"/proc/{pid}/status").read_text()
    for line in ("NoNewPrivs:\t1", "Seccomp:\t2", "CapEff:\t0000000000000000"):
        assert line in status
    assert "Uid:\t65534\t65534" in status
    held = {os.readlink(each) for each in Path(f"/proc/{pid}/fd").iterdir()}
    assert {each.partition(":")[0] for each in held} <= {"pipe", "/memfd", "/dev/null"}, held
    assert "/memfd:capture (deleted)" in held
    assert os.readlink(f"/proc/{pid}/ns/net") != os.readlink("/proc/self/ns/net")


async def test_requests_in_pieces_and_two_at_once(
    service: tuple[int, str], tmp_path: Path
) -> None:
    """A line may come byte by byte; who does not wait for an answer ends his own session, and nobody else's."""
    path = beacon().write(tmp_path)
    line = json.dumps({"version": SESSION, "open": {}}).encode() + b"\n"

    def opened() -> socket.socket:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(20)
        connection.connect(service[1])
        evidence = os.open(path, os.O_RDONLY)
        socket.send_fds(connection, [line[:1]], [evidence])
        os.close(evidence)
        connection.sendall(line[1:])
        assert b'"opened"' in connection.recv(1 << 16)
        return connection

    def pieces() -> None:
        with opened() as connection:
            for letter in b'{"ask":"check","filter":"tcp"}\n':
                connection.sendall(bytes([letter]))
            assert json.loads(connection.recv(1 << 16))["answer"]["ok"] is True
            connection.sendall(b'{"ask":"load","file":"/etc/passwd"}\n')
            assert json.loads(connection.recv(1 << 16))["error"]["code"] == "bad_input"
            connection.sendall(b"x" * 70_000)
            assert b"this is no request" in connection.recv(1 << 16)

    await asyncio.to_thread(pieces)
    with contextlib.closing(Sessions(service[1])) as sessions, pytest.raises(BadInput):
        await sessions.ask(("i", "f", ""), lambda: _open(path), {"ask": "load"})


async def _open(path: Path) -> int:
    return os.open(path, os.O_RDONLY)


async def test_a_killed_sharkd_is_started_anew(
    service: tuple[int, str], sessions: Sessions, tmp_path: Path
) -> None:
    """Between two requests nobody notices; in the middle of one it is said, and the next works."""
    path = conversations(600).write(tmp_path)
    read = Reader(sessions, path)
    before = (await read("page")).answer
    (pid,) = sharkds(service)
    os.kill(pid, signal.SIGKILL)
    await until(lambda: not Path(f"/proc/{pid}").exists())  # the analyst has seen it
    assert (await read("page")).answer == before
    assert read.opened == 2

    (pid,) = sharkds(service)
    os.kill(pid, signal.SIGSTOP)  # so that it dies in the middle for certain
    await until(lambda: ") T " in Path(f"/proc/{pid}/stat").read_text())
    asked = asyncio.create_task(read("page", filter="http"))
    await until(lambda: asked.done() or _unread(pid))
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(Transient, match="SIGKILL") as problem:
        await asked
    assert problem.value.after
    assert (await read("page")).answer == before
    assert read.opened == 3


def _unread(pid: int) -> bool:
    """Something waits in the pipe that is its standard input."""
    try:
        with Path(f"/proc/{pid}/fd/0").open("rb") as pipe:
            waiting = fcntl.ioctl(pipe, termios.FIONREAD, bytes(4))
    except OSError:
        return False
    return struct.unpack("i", waiting)[0] > 0


async def test_an_unused_session_ends(service: tuple[int, str], tmp_path: Path) -> None:
    """After its idle time there is no sharkd any more; the next request has a new one."""
    sessions = Sessions(service[1], idle_s=1.0)
    read = Reader(sessions, beacon().write(tmp_path))
    try:
        await read("page")
        assert len(sharkds(service)) == 1
        await until(lambda: not sharkds(service))
        assert (await read("page")).frames == 8
        assert read.opened == 2
    finally:
        sessions.close()
    await until(lambda: not sharkds(service))


async def test_readers_of_one_file_share_it(
    service: tuple[int, str], sessions: Sessions, tmp_path: Path
) -> None:
    """Twenty at once have one sharkd, and each his own answer."""
    read = Reader(sessions, conversations(40).write(tmp_path))
    answers = await asyncio.gather(
        *(read("page", filter=f"frame.number == {n}") for n in range(1, 21))
    )
    assert [each.answer["frames"][0]["number"] for each in answers] == list(range(1, 21))
    assert read.opened == 1
    assert len(sharkds(service)) == 1


async def test_the_longest_unused_makes_room(service: tuple[int, str], tmp_path: Path) -> None:
    """No more files are open than may be; one that is in use is not taken away."""
    sessions = Sessions(service[1], most=2)
    try:
        readers = [
            Reader(sessions, beacon().write(tmp_path, f"evidence-{i}.pcapng")) for i in range(3)
        ]
        for read in readers:
            await read("page")
        await until(lambda: len(sharkds(service)) == 2)
        await readers[2]("page")
        await readers[0]("page")
        assert [each.opened for each in readers] == [2, 1, 1]
        several = await asyncio.gather(*(read("page") for read in readers), return_exceptions=True)
        assert sum(isinstance(each, TooMany) for each in several) == 1
    finally:
        sessions.close()


async def test_fuzzed_captures_end_nothing(
    service: tuple[int, str], sessions: Sessions, tmp_path: Path
) -> None:
    """Flipped bytes, torn ends and noise: an answer or an error, and the analyst lives."""
    chance = random.Random(4)
    good = beacon().bytes()
    for i in range(6):
        data = bytearray(good)
        for _ in range(chance.randint(1, 12)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        data = data[: chance.randint(1, len(data))] if i % 3 == 0 else data
        path = tmp_path / f"evidence-{i}.pcapng"
        path.write_bytes(data)
        read = Reader(sessions, path)
        with contextlib.suppress(TripsharkError):
            await read("page")
            await read("packet", number=1)
            await read("tap", name="expert")
    assert (await Reader(sessions, beacon().write(tmp_path))("page")).frames == 8


@pytest.mark.parametrize("data", [b"", bytes(5000)])
async def test_what_is_no_capture_is_said(sessions: Sessions, tmp_path: Path, data: bytes) -> None:
    """In sharkd's words, and not for ever."""
    path = tmp_path / "evidence.pcapng"
    path.write_bytes(data)
    with pytest.raises(Permanent):
        await Reader(sessions, path)("page")


async def test_fields_of_packets_inject_nothing(sessions: Sessions, tmp_path: Path) -> None:
    """Names with HTML, escapes and marks come out spelled, in columns and trees."""
    capture = Capture()
    capture.name(POD, "<b>\x1b[31mpod\u202e")
    capture.look_up(b"<script>alert(1)</script>.\x1b[2J.\xff\xfe", C2)
    capture.tcp(POD, 1, C2, 80, PUSH | ACK, get(b"\x1b]0;x\x07", b"/\xe2\x80\xae<img src=x>"))
    read = Reader(sessions, capture.write(tmp_path))
    said = json.dumps((await read("page")).answer, ensure_ascii=False)
    for number in (1, 2, 3):
        said += json.dumps((await read("packet", number=number)).answer, ensure_ascii=False)
    assert not {"\x1b", "\u202e", "\x07"} & set(said)
    assert "<script>" in said


async def test_a_large_file_is_looked_at_in_windows(
    service: tuple[int, str], tmp_path: Path
) -> None:
    """Numbers, filters and times are those of the whole file; the notice says what lies outside; windows move."""
    path = conversations(600).write(tmp_path)
    sessions = Sessions(service[1], whole_bytes=300_000, window_bytes=200_000)
    t0 = START_NS + 600_000_000
    read = Reader(sessions, path)
    try:
        told = await read("page", at={"t0_ns": t0}, limit=500)
        window = told.window
        assert window is not None
        assert told.frames == 3000
        assert window["first_ns"] < t0 < window["last_ns"]
        assert f"{window['before']:,} earlier and {window['after']:,} later" in window["notice"]
        first, last = window["first"], window["last"]
        rows = told.answer["frames"]
        assert [each["number"] for each in rows] == list(range(first, first + len(rows)))
        assert told.answer["matched"] == last - first + 1
        every = [float(each) for each in by_tshark(path, "frame", "frame.time_relative")]
        assert abs(float(rows[0]["columns"][1]) - every[first - 1]) < 1e-6

        inside = f"frame.number >= {first} && frame.number <= {last}"
        found = await read("page", at={"t0_ns": t0}, filter="http.request", limit=500)
        expected = [int(n) for n in by_tshark(path, f"http.request && {inside}")]
        numbers = [each["number"] for each in found.answer["frames"]]
        assert numbers == expected[: len(numbers)]
        assert found.answer["matched"] == len(expected)
        one = await read("page", at={"t0_ns": t0}, filter=f"frame.number == {first + 3}")
        assert [each["number"] for each in one.answer["frames"]] == [first + 3]

        binned = (await read("intervals", at={"t0_ns": t0}, step_ms=100)).answer
        assert sum(binned["packets"]) == last - first + 1
        assert binned["start_ns"] == START_NS
        some = (await read("intervals", at={"t0_ns": t0}, step_ms=100, filter="tcp")).answer
        assert some["packets"] == binned["packets"]

        for number in (1, first - 1, last, last + 1, 3000):
            packet = await read("packet", at={"t0_ns": t0, "at_frame": number}, number=number)
            assert packet.answer["tree"][0]["label"].startswith(f"Frame {number}:")
            assert packet.window is not None
            assert packet.window["first"] <= number <= packet.window["last"]
        earlier = await read("page", at={"t0_ns": t0, "at_ns": START_NS})
        assert earlier.answer["frames"][0]["number"] == 1
        assert "earlier" in earlier.window["notice"]
        checked = (await read("check", at={"t0_ns": t0}, filter="tcp.stream == 3")).answer
        assert "window" in checked["warning"]
    finally:
        sessions.close()


async def test_what_hangs_or_talks_too_much_is_ended() -> None:
    """No answer in time, an endless one, and a program that is gone: each is said and leaves no process."""
    policy = Policy(uid=65_534, gid=65_534)
    quiet = await Warm.start(["/usr/bin/sleep", "1000"], files=(), policy=policy)
    with pytest.raises(Transient, match="did not answer within"):
        await quiet.ask(b"x", wall_s=0.2, most=100)
    loud = await Warm.start(
        ["/usr/bin/head", "-c", "5000000", "/dev/zero"], files=(), policy=policy
    )
    with pytest.raises(Transient):
        await loud.ask(b"x", wall_s=20, most=100)
    echo = await Warm.start(["/usr/bin/cat"], files=(), policy=policy)
    assert (await echo.ask(b"hello", wall_s=20, most=100)).raw == b"hello"
    long = await echo.ask(b"y" * 300_000, wall_s=20, most=100_000)
    assert long.cut
    assert len(long.raw) == 100_000
    assert (await echo.ask(b"again", wall_s=20, most=100)).raw == b"again"
    os.kill(echo.pid, signal.SIGKILL)
    with pytest.raises(Transient, match="SIGKILL"):
        await echo.ask(b"x", wall_s=20, most=100)
    for each in (quiet, loud, echo):
        assert each.is_gone
        assert not Path(f"/proc/{each.pid}").exists()
        each.close()
    with pytest.raises(Permanent, match="could not start"):
        await Warm.start(["/usr/bin/there-is-none"], files=(), policy=policy)
