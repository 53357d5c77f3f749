"""Alerts out of files and standard input: once each, in whatever company of the webhook, whatever is killed."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import httpx2
import pytest

from tripshark.errors import Transient
from tripshark.ingest.door import Door
from tripshark.ingest.follow import FileSource, StandardInput
from tripshark.ingest.heartbeat import Heartbeats
from tripshark.ingest.witness import Witnesses

JSON = {"content-type": "application/json"}


async def until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    """Wait for a condition with a deadline."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.005)


def append(path: Path, *lines: bytes) -> None:
    with path.open("ab") as file:
        file.writelines(line + b"\n" for line in lines)


@pytest.mark.parametrize("inotify", [True, False])
async def test_lines_become_alerts_across_rotation(
    tmp_path, witnessing, meter, intake, event, inotify
) -> None:
    """Each line once and in order, with inotify and without."""
    path = tmp_path / "falco.json"
    source = FileSource(path, tmp_path / "state", witnessing, meter, inotify=inotify)
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(source.run())
        await until(lambda: source.followed.problem != "")
        assert "not there yet" in source.followed.problems()[0]
        append(path, *(event(n) for n in range(100)))
        await until(lambda: len(intake.taken) == 100)
        path.rename(tmp_path / "falco.json.1")
        append(path, *(event(n) for n in range(100, 103)))
        await until(lambda: len(intake.taken) == 103)
        running.cancel()
    assert intake.numbers == list(range(103))
    assert {via for _, _, via in intake.taken} == {f"file:{path}"}
    assert intake.taken[5][1] == event(5)
    assert meter.counts == {("file", "accepted"): 103}
    assert source.followed.problems() == ()


async def test_inotify_is_much_quicker_than_looking(
    tmp_path, witnessing, meter, intake, event
) -> None:
    """With inotify a line is an alert well before the next look a second later."""
    path = tmp_path / "falco.json"
    path.touch()
    source = FileSource(path, tmp_path / "state", witnessing, meter, from_start=True)
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(source.run())
        await until(lambda: source.followed.is_open)
        delays = []
        for n in range(5):
            began = time.monotonic()
            append(path, event(n))
            await until(lambda n=n: len(intake.taken) > n)
            delays.append(time.monotonic() - began)
        running.cancel()
    assert min(delays[1:]) < 0.5  # a look would come a whole second after the one before


async def test_what_is_no_event_is_counted_and_shown(
    tmp_path, witnessing, meter, intake, event
) -> None:
    """Invalid and over-long lines stop nothing; the first is shown in a spelling safe to print."""
    path = tmp_path / "falco.json"
    append(path, b"\x1b[31mnot json", event(1), b"x" * 3000, b"{}", event(2))
    source = FileSource(
        path, tmp_path / "state", witnessing, meter, from_start=True, max_line=2000
    )
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(source.run())
        await until(lambda: len(intake.taken) == 2)
        running.cancel()
    followed = source.followed
    assert (followed.invalid, followed.overlong, followed.accepted) == (2, 1, 2)
    assert "\\x1b[31mnot json" in followed.first_invalid
    assert "\x1b" not in " ".join(followed.problems())
    assert len(followed.problems()) == 2


async def test_a_full_disk_delays_and_loses_nothing(
    tmp_path, witnessing, meter, intake, event
) -> None:
    """While nothing can be made durable the reader waits and says so; then all lines come."""
    path = tmp_path / "falco.json"
    append(path, event(1), event(2))
    intake.refuse_with = Transient("the disk is full", after=0.01)
    source = FileSource(path, tmp_path / "state", witnessing, meter, from_start=True)
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(source.run())
        await until(lambda: "disk is full" in source.followed.problem)
        intake.refuse_with = None
        await until(lambda: len(intake.taken) == 2)
        await until(lambda: source.followed.problem == "")
        running.cancel()
    assert sorted(intake.numbers) == [1, 2]


async def test_the_file_fills_in_what_the_webhook_missed_and_no_more(
    tmp_path, serve, witnessing, meter, intake, event
) -> None:
    """Falco posts and writes every event; we were away for some. Each is taken once, repeats by POST still count."""
    path = tmp_path / "falco.json"
    append(path, *(event(n) for n in range(10)))
    source = FileSource(path, tmp_path / "state", witnessing, meter, from_start=True)
    async with (
        serve(through=witnessing) as port,
        httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http,
        asyncio.TaskGroup() as tasks,
    ):
        for n in range(5):
            await http.post("/", content=event(n), headers=JSON)
        running = tasks.create_task(source.run())
        await until(lambda: source.followed.lines == 10)
        await until(lambda: len(intake.taken) == 10)
        late = await http.post("/", content=event(7), headers=JSON)  # the file was first
        again = await http.post("/", content=event(2), headers=JSON)  # the same POST once more
        running.cancel()
    assert sorted(intake.numbers) == [0, 1, 2, 2, 3, 4, 5, 6, 7, 8, 9]
    assert late.json() == {"alert": "a8", "duplicate": True, "incident": None}
    assert again.json()["duplicate"]
    assert (source.followed.accepted, source.followed.witnessed) == (5, 5)


async def test_both_ways_at_the_same_moment_are_one_event(witnessing, intake, event) -> None:
    """While one way is being made durable the other waits for its fate; if that fails, it tries itself."""
    from tripshark.formats import falco

    alert = falco.decode(event(1))
    go = asyncio.Event()
    intake.before = go.wait
    async with asyncio.TaskGroup() as tasks:
        first = tasks.create_task(witnessing.take(alert, event(1), "webhook"))
        second = tasks.create_task(witnessing.take(alert, event(1), "file:/x"))
        await asyncio.sleep(0)
        go.set()
    assert not first.result().witnessed
    assert second.result().witnessed
    assert len(intake.taken) == 1

    other = falco.decode(event(2))
    intake.refuse_with = Transient("no")
    go.clear()

    async def fails() -> None:
        with pytest.raises(Transient):
            await witnessing.take(other, event(2), "webhook")
        intake.refuse_with = None

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(fails())
        waiting = tasks.create_task(witnessing.take(other, event(2), "file:/x"))
        await asyncio.sleep(0)
        go.set()
    assert not waiting.result().witnessed
    assert len(intake.taken) == 2


CHILD = """
import asyncio, sys, time
from pathlib import Path
from tripshark.ingest.door import Door
from tripshark.ingest.follow import FileSource
from tripshark.ingest.heartbeat import Heartbeats
from tripshark.ingest.witness import Witnesses
from tripshark.model.alert import AlertId
from tripshark.ports import Receipt

folder = Path(sys.argv[1])
out = open(folder / "taken", "ab", buffering=0)

class Clock:
    def now_ns(self): return time.time_ns()

class Intake:
    async def accept(self, alert, body, via):
        await asyncio.sleep(0)
        out.write(b"%d\\n" % alert.fields["proc.n"])
        return Receipt(alert=AlertId("a"), duplicate=False, incident=None)

class Meter:
    def alert(self, via, outcome, seconds): pass

door = Door(Intake(), Clock(), Heartbeats(), Witnesses(folder / "witnesses"))
source = FileSource(folder / "falco.json", folder / "state", door, Meter(), from_start=True)
asyncio.run(source.run())
"""


async def test_a_killed_reader_neither_loses_nor_doubles(tmp_path, event) -> None:
    """kill -9 in the middle of a stream, several times: all lines are taken; at most the one in hand comes twice."""
    path, taken = tmp_path / "falco.json", tmp_path / "taken"
    taken.touch()
    total, kills = 3000, 0
    path.touch()

    def count() -> int:
        return taken.read_bytes().count(b"\n")

    child = await asyncio.create_subprocess_exec(sys.executable, "-c", CHILD, str(tmp_path))
    try:
        for start in range(0, total, 500):
            append(path, *(event(n) for n in range(start, start + 500)))
            await until(lambda start=start: count() > start + 50)
            child.send_signal(signal.SIGKILL)
            await child.wait()
            kills += 1
            child = await asyncio.create_subprocess_exec(
                sys.executable, "-c", CHILD, str(tmp_path)
            )
        await until(lambda: len(set(taken.read_bytes().split())) == total)
    finally:
        child.kill()
        await child.wait()
    numbers = [int(each) for each in taken.read_bytes().split()]
    assert set(numbers) == set(range(total))
    # Between an alert's durability and its mark there is one moment; the kill may fall into it.
    assert len(numbers) - total <= kills * 64


async def test_standard_input_is_read_to_its_end(door, meter, intake, event) -> None:
    """Lines from a pipe, the last without its end, over-long ones counted."""
    reader, writer = os.pipe()
    source = StandardInput(reader, door, meter, max_line=4000)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(source.run())
        os.write(writer, event(1) + b"\n" + event(2)[:20])
        await until(lambda: len(intake.taken) == 1)
        os.write(writer, event(2)[20:] + b"\n")
        for _ in range(3):
            await asyncio.to_thread(os.write, writer, b"z" * 3000)
        await asyncio.to_thread(os.write, writer, b"\n\nnonsense\n" + event(3))
        os.close(writer)
    os.close(reader)
    assert intake.numbers == [1, 2, 3]
    followed = source.followed
    assert (followed.overlong, followed.invalid, followed.is_open) == (1, 1, False)
    assert followed.name == "stdin"


async def test_standard_input_may_be_a_plain_file(tmp_path, door, meter, intake, event) -> None:
    """`tripshark run < events.json` ends by itself."""
    path = tmp_path / "events"
    append(path, *(event(n) for n in range(300)))
    descriptor = os.open(path, os.O_RDONLY)
    await StandardInput(descriptor, door, meter).run()
    os.close(descriptor)
    assert intake.numbers == list(range(300))


async def test_reading_standard_input_can_be_cancelled(door, meter) -> None:
    """A program that stops does not wait for the next line."""
    reader, writer = os.pipe()
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(StandardInput(reader, door, meter).run())
        await asyncio.sleep(0)
        running.cancel()
    os.close(reader)
    os.close(writer)


async def test_what_was_witnessed_survives_a_restart(tmp_path, intake, event) -> None:
    """A new process over the same file still knows what came, and what the alert was called."""
    from tripshark.formats import falco

    class Clock:
        def now_ns(self) -> int:
            return time.time_ns()

    for expected in (False, True):
        witnesses = Witnesses(tmp_path / "w")
        door = Door(intake, Clock(), Heartbeats(), witnesses)
        taken = await door.take(falco.decode(event(1)), event(1), "file:/x")
        assert taken.witnessed is expected
        assert taken.receipt.alert == "a1"
        witnesses.close()
