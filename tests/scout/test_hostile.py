"""Whatever bytes a runtime or a client sends, the scout says what is wrong and goes on."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.containers import cri
from tests.scout.conftest import Process, connected, runtime, until
from tripshark.errors import BadInput, TripsharkError
from tripshark.scout import http
from tripshark.scout.facts import bounded, container_id, digest, dockershim, time_ns
from tripshark.scout.grpc import Channel
from tripshark.scout.protobuf import Message, encode, peek

Start = Callable[..., Process]

TEXTS = st.text(st.characters(codec="utf-8"), max_size=20)
FIELDS = st.dictionaries(
    st.integers(1, 2000),
    st.one_of(
        st.integers(-(1 << 63), (1 << 63) - 1),
        TEXTS.filter(bool),
        st.dictionaries(TEXTS, TEXTS, min_size=1, max_size=4),
        st.lists(TEXTS, min_size=1, max_size=4),
    ),
    max_size=8,
)


# ---- protobuf ---------------------------------------------------------------------------------------------


@given(FIELDS)
def test_what_is_written_is_read(fields: dict[int, object]) -> None:
    """Numbers with their sign, texts, maps and lists come back as they were."""
    message = Message(encode(fields))  # type: ignore[arg-type]
    for number, value in fields.items():
        if isinstance(value, int):
            assert message.number(number) == value
        elif isinstance(value, str):
            assert message.text(number) == value
        elif isinstance(value, dict):
            assert message.pairs(number) == value
        else:
            assert [each.decode() for each in message.messages(number)] == value


@given(TEXTS, st.integers(0, 1 << 40), st.dictionaries(TEXTS, TEXTS, max_size=3))
def test_another_writer_is_understood(text: str, number: int, pairs: dict[str, str]) -> None:
    """What the tests' own CRI client writes reads the same, in full and at a glance."""
    data = cri.message(f1=text, f3=number, f7=pairs)
    message = Message(data)
    assert (message.text(1), message.number(3), message.pairs(7)) == (text, number, pairs)
    assert peek(data, 1, 3) == (text, number)


@given(st.binary(max_size=200), st.integers(1, 20))
def test_any_bytes_are_a_message_or_bad_input(data: bytes, field: int) -> None:
    """Nothing else is raised, however they are asked for."""
    for ask in (
        lambda: peek(data, field, field),
        lambda: Message(data).text(field),
        lambda: Message(data).number(field),
        lambda: Message(data).pairs(field),
        lambda: Message(data).message(field, field).messages(field),
    ):
        with contextlib.suppress(BadInput):
            ask()


@given(FIELDS.filter(bool), st.data())
def test_a_message_cut_short_is_bad_input_or_shorter(
    fields: dict[int, object], data: st.DataObject
) -> None:
    """It never reads beyond its end."""
    whole = encode(fields)  # type: ignore[arg-type]
    cut = data.draw(st.integers(0, len(whole)))
    with contextlib.suppress(BadInput):
        Message(whole[:cut])
    with contextlib.suppress(BadInput):
        peek(whole[:cut], 1, 2)


@pytest.mark.parametrize(
    "data",
    [b"\x08" + b"\xff" * 11, b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\x7f", b"\x0b", b"\x00\x01"],
)
def test_impossible_messages_are_refused(data: bytes) -> None:
    """Numbers without end, lengths beyond the end, groups, field 0."""
    with pytest.raises(BadInput):
        Message(data)


# ---- words ------------------------------------------------------------------------------------------------


@given(st.text())
def test_any_words_are_facts_or_none(text: str) -> None:
    """Times, digests, names and ids of whatever text: a value, nothing, or bad input."""
    assert time_ns(text) >= 0
    assert digest(text) in ("", text.rpartition("@")[2])
    dockershim(text)
    with contextlib.suppress(BadInput):
        assert container_id(text) in text.lower()


def test_times_are_to_the_nanosecond() -> None:
    """With zones, without fractions; Go's year 1 is no time."""
    assert time_ns("2026-11-24T21:00:01.123456789Z") == 1795554001_123456789
    assert time_ns("2026-11-24T22:00:01+01:00") == 1795554001_000000000
    assert time_ns("0001-01-01T00:00:00Z") == 0
    assert time_ns(7) == 0


def test_ours_are_kept_when_annotations_are_giants() -> None:
    """Large values are left out, and beyond the bound all but our own."""
    many = {f"a{n:04}": "x" * 900 for n in range(100)}
    kept = bounded(many | {"big": "x" * 5000, "tripshark.dev/record": "off"})
    assert kept["tripshark.dev/record"] == "off"
    assert "big" not in kept
    assert sum(len(name) + len(value) for name, value in kept.items()) <= 16_384


# ---- runtimes ---------------------------------------------------------------------------------------------


class Liar:
    """Answers whatever is asked with given bytes, then hangs up or not."""

    def __init__(self, path: str, answer: bytes) -> None:
        self.answer = answer
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(path)
        self._listener.listen(64)
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            with contextlib.suppress(OSError):
                sock.sendall(self.answer)
            sock.close()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()


SETTINGS = b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"


@given(st.binary(max_size=300), st.booleans())
def test_any_answer_is_an_error_of_ours(answer: bytes, polite: bool) -> None:
    """Bytes for gRPC and for HTTP, after a greeting or at once: never another exception, never a hang."""

    async def ask(path: str) -> None:
        channel = await Channel.open(path)
        with pytest.raises(TripsharkError):
            await channel.ask("/x/Y", b"", timeout_s=5.0)
        channel.close()
        try:
            status, _ = await http.get(path, "/version", timeout_s=5.0)
        except TripsharkError:
            return
        assert 0 <= status < 1000

    path = f"/tmp/ts-liar-{os.getpid()}.sock"
    liar = Liar(path, (SETTINGS if polite else b"") + answer)
    try:
        asyncio.run(ask(path))
    finally:
        liar.close()
        os.unlink(path)


LIES = (
    b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n{",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffffff\r\n{}",
    b"HTTP/1.1 200 OK\r\nContent-Length: -3\r\n\r\n{}",
    b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 1000 + b"\r\n",
    b"HTTP/1.1 200 OK\r\n\r\n[]",
    b'HTTP/1.1 200 OK\r\n\r\n{"Version": {}, "ApiVersion": []}',
    b"\xff\xfe" * 4000,
)


async def test_a_scout_among_liars_says_that_they_fail(tmp_path: Path, start: Start) -> None:
    """None is followed, none is able to end the scout."""
    with contextlib.ExitStack() as liars:
        paths = [str(tmp_path / f"liar{n}.sock") for n in range(len(LIES))]
        for path, answer in zip(paths, LIES, strict=True):
            liars.callback(Liar(path, answer).close)
        async with connected(start(*paths)) as client:
            for path in paths:
                told = await runtime(client, path, lambda each: each["state"] == "failing")
                assert told["error"]
            assert await client.sandboxes() == ()


# ---- clients ----------------------------------------------------------------------------------------------


def raw(path: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    sock.settimeout(10)
    sock.connect(path)
    return sock


@pytest.fixture
def idle(start: Start, tmp_path: Path) -> Iterator[Process]:
    """A scout where there is no runtime at all."""
    process = start(str(tmp_path / "none.sock"))
    yield process
    assert process.child.poll() is None, "a client ended the scout"


RUDE = (
    b"{",
    b"[]",
    b'{"t": "sandboxes", "id": 1}',
    b'{"t": "hello", "id": 1, "version": 99}',
    b"\xff" * 1000,
    b"x" * 65537,
)


def test_a_client_that_does_not_greet_is_told_so_and_let_go(idle: Process) -> None:
    """One error, in the shape of all errors, then the end."""
    for packet in RUDE:
        with raw(idle.config.socket) as sock:
            sock.send(packet)
            error = json.loads(sock.recv(65536))
            assert (error["t"], bool(error["message"])) == ("error", True)
            assert sock.recv(65536) == b""


def test_unknown_requests_are_answered_and_the_next_is_served(idle: Process) -> None:
    """A greeted client may err."""
    with raw(idle.config.socket) as sock:
        for packet, kind in (
            ({"t": "hello", "id": 1, "version": 1}, "hello"),
            ({"t": "rm -rf", "id": 2}, "error"),
            ({"t": "find", "id": 3, "container": 7}, "error"),
            ({"t": "changed", "id": 4, "edition": "x"}, "error"),
            ({"t": "sandboxes", "id": 5}, "sandboxes"),
        ):
            sock.send(json.dumps(packet).encode())
            answer = json.loads(sock.recv(65536))
            assert (answer["t"], answer["id"]) == (kind, packet["id"])


async def test_too_many_clients_are_refused_and_make_room_again(idle: Process) -> None:
    """Those beyond the bound are told; when others leave, new ones are served."""
    hello = json.dumps({"t": "hello", "id": 1, "version": 1}).encode()
    with contextlib.ExitStack() as all_of_them:
        said = []
        for _ in range(40):
            sock = all_of_them.enter_context(raw(idle.config.socket))
            sock.send(hello)
            said.append(json.loads(sock.recv(65536)).get("code", "served"))
        assert (said.count("served"), said.count("unavailable")) == (32, 8)
    async with connected(idle) as client:

        async def alone() -> bool:
            return (await client.state())["clients"] == 1

        await until(alone)


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user needs root")
def test_strangers_are_not_served(idle: Process) -> None:
    """The kernel says who asks: neither root, nor the scout's user, nor of the group."""
    os.chmod(idle.config.socket, 0o666)
    folder, name = os.path.split(idle.config.socket)
    os.chmod(folder, 0o711)
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.chdir(folder)  # what lies above it is closed to strangers
            os.setgroups([])
            os.setresgid(65534, 65534, 65534)
            os.setresuid(65534, 65534, 65534)
            stranger = raw(name)
            stranger.send(b'{"t": "hello", "id": 1, "version": 1}')
            os.write(theirs, stranger.recv(65536))
        finally:
            os._exit(0)
    os.close(theirs)
    os.waitpid(child, 0)
    with os.fdopen(ours, "rb") as said:
        assert json.loads(said.read())["code"] == "denied"
