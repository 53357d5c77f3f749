"""The analyst as a service: it answers whoever may ask, holds nothing, and survives every request."""

from __future__ import annotations

import asyncio
import json
import os
import select
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest

from tests.analysis.asking import BOUNDS, NOBODY, flow, question
from tests.analysis.crafted import C2, POD, Capture, beacon
from tripshark.analysis import dissect
from tripshark.analysis.analyst import Analyst
from tripshark.analysis.client import AnalystClient
from tripshark.errors import BadInput, Denied, Permanent, Transient
from tripshark.model.finding import Findings
from tripshark.programs import analyst as program

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="changing user needs root")
ABOUT = question(flow(C2, 4444))


@contextmanager
def running(folder: Path, **config: object) -> Iterator[tuple[int, dict[str, object], str]]:
    """The real program; its pid, its first line and its socket."""
    path = str(folder / "analyst.sock")
    whole = {"socket": path, "uid": NOBODY, "gid": NOBODY, "group": 0, **config}
    process = subprocess.Popen(
        [sys.executable, "-m", "tripshark.programs.analyst", "--json-config", json.dumps(whole)],
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        assert select.select([process.stdout], [], [], 20)[0], "it never became ready"
        yield process.pid, json.loads(process.stdout.readline()), path
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@asynccontextmanager
async def serving(folder: Path, *allowed: int) -> AsyncIterator[tuple[Analyst, str]]:
    """The service within this process, for what needs a hand on it."""
    path = str(folder / "here.sock")
    analyst = Analyst(allowed_uids=allowed or (os.geteuid(),), bounds=BOUNDS)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
        listening.bind(path)
        listening.listen(32)
        task = asyncio.ensure_future(analyst.serve(listening))
        try:
            yield analyst, path
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def ask_raw(path: str, line: bytes, descriptors: list[int]) -> bytes:
    """What comes back for bytes that no client of ours would send."""
    reader, writer = await asyncio.open_unix_connection(path)
    raw = writer.get_extra_info("socket")
    if descriptors:
        os.set_blocking(raw.fileno(), True)
        socket.send_fds(raw._sock, [line], descriptors)
    else:
        writer.write(line)
        await writer.drain()
        writer.write_eof()
    try:
        return await asyncio.wait_for(reader.read(), 30)
    finally:
        writer.close()
        await writer.wait_closed()


@pytest.mark.root
@needs_root
async def test_the_program_gives_up_root_and_still_reads_what_it_is_handed(tmp_path: Path) -> None:
    """Another user, no capability, a file only root could open, and an honest list of what held."""
    path = beacon().write(tmp_path)
    path.chmod(0o600)
    with running(tmp_path, allowed_uids=[0]) as (pid, ready, at):
        status = dict(
            line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines()
        )
        findings = await AnalystClient(at).analyse(str(path), ABOUT)
        socket_mode = os.stat(at)
    assert ready["ready"] is True
    assert str(ready["tool"]).startswith("TShark ")
    assert set(status["Uid"].split()) == set(status["Gid"].split()) == {str(NOBODY)}
    assert status["Groups"].strip() == ""
    assert {status[f"Cap{each}"].strip() for each in ("Prm", "Eff", "Bnd", "Amb")} == {"0" * 16}
    assert status["NoNewPrivs"].strip() == "1"
    assert status["Threads"].strip() == "1"
    assert stat.S_IMODE(socket_mode.st_mode) == 0o660
    assert findings.flow_captured
    assert findings.tool == ready["tool"]
    assert findings.sandbox[0] == "uid"
    assert {"capabilities", "no_new_privs", "seccomp", "rlimits"} <= set(findings.sandbox)
    assert "looked up c2.evil.example" in findings.summary


@pytest.mark.root
@needs_root
async def test_the_program_starts_again_over_its_own_socket(tmp_path: Path) -> None:
    """A socket left behind by an earlier life is replaced; anything else in its place is not."""
    for _ in range(2):
        with running(tmp_path, allowed_uids=[0]) as (_, ready, _):
            assert ready["ready"]
    other = tmp_path / "file"
    other.write_text("precious")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "tripshark.programs.analyst"),
            *("--json-config", json.dumps({"socket": str(other)})),
        ],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 1
    assert json.loads(done.stdout)["error"]["message"].startswith("cannot listen")
    assert other.read_text() == "precious"


@pytest.mark.root
@needs_root
async def test_a_killed_analyst_takes_its_tshark_along(tmp_path: Path) -> None:
    """kill -9 of the service: the kernel ends the child, and the asker is told to try again."""
    capture = Capture()
    for number in range(60_000):
        capture.udp(POD, 1000 + number, C2, 9, b"x")
    path = capture.write(tmp_path)
    at = str(tmp_path / "analyst.sock")
    config = {"socket": at, "uid": NOBODY, "gid": NOBODY, "allowed_uids": [0]}
    process = subprocess.Popen(
        [sys.executable, "-m", "tripshark.programs.analyst", "--json-config", json.dumps(config)],
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    with process.stdout:
        assert select.select([process.stdout], [], [], 20)[0]
        task = asyncio.ensure_future(AnalystClient(at).analyse(str(path), ABOUT))
        child = await _tshark(process.pid)
        process.kill()
        process.wait()
    with pytest.raises(Transient):
        await task
    await _until(lambda: not Path(f"/proc/{child}").exists() or _is_zombie(child))


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"socket": 1, "uid": "x"}', "null"])
def test_a_bad_configuration_is_wrong_usage(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit 2 and the one error shape."""
    assert program.main(["--json-config", text]) == 2
    said = json.loads(capsys.readouterr().out)
    assert (said["ready"], said["error"]["code"]) == (False, "bad_input")


async def test_several_ask_at_once(tmp_path: Path) -> None:
    """Each gets its own answer, and no descriptor is left over."""
    path = str(beacon().write(tmp_path))
    async with serving(tmp_path) as (_, at):
        client = AnalystClient(at)
        await client.analyse(path, ABOUT)
        before = len(os.listdir("/proc/self/fd"))
        answers = await asyncio.gather(*(client.analyse(path, ABOUT) for _ in range(5)))
        assert all(each.flow_captured for each in answers)
        await _until(lambda: len(os.listdir("/proc/self/fd")) <= before)


async def test_a_stranger_is_refused(tmp_path: Path) -> None:
    """Only the users on the list may ask, by the kernel's word about who they are."""
    path = str(beacon().write(tmp_path))
    async with serving(tmp_path, 4242) as (_, at):
        with pytest.raises(Denied, match="may not ask"):
            await AnalystClient(at).analyse(path, ABOUT)


GOOD = json.dumps({"version": 1, "question": ABOUT.as_json()}).encode() + b"\n"
BAD = [
    (b"", "none"),
    (b"\n", "one"),
    (b"not json\n", "one"),
    (b"[" * 100_000 + b"\n", "one"),
    (b'{"version": 2}\n', "one"),
    (b'{"version": 1, "question": []}\n', "one"),
    (b'{"version": 1, "question": {"t0_ns": "x"}}\n', "one"),
    (GOOD, "none"),
    (GOOD, "two"),
    (GOOD, "three"),
    (GOOD, "writable"),
    (GOOD, "pipe"),
    (GOOD, "folder"),
]


@pytest.mark.parametrize(("line", "kind"), BAD)
async def test_a_bad_question_gets_the_one_error_shape(
    line: bytes, kind: str, tmp_path: Path
) -> None:
    """Nothing, nonsense, other versions, too few or unfit descriptors: told, closed, forgotten."""
    path = beacon().write(tmp_path)
    pipe = os.pipe()
    good = os.open(path, os.O_RDONLY)
    writable = os.open(path, os.O_RDWR)
    folder = os.open(tmp_path, os.O_RDONLY)
    kinds = {
        "none": [],
        "one": [good],
        "two": [good, good],
        "three": [good] * 3,
        "writable": [writable],
        "pipe": [pipe[0]],
        "folder": [folder],
    }
    async with serving(tmp_path) as (_, at):
        before = len(os.listdir("/proc/self/fd"))
        answer = json.loads(await ask_raw(at, line, kinds[kind]))
        assert answer["error"]["code"] == "bad_input"
        await _until(lambda: len(os.listdir("/proc/self/fd")) <= before)
        assert (await AnalystClient(at).analyse(str(path), ABOUT)).packets == 7
    for descriptor in (*pipe, good, writable, folder):
        os.close(descriptor)


async def test_a_crash_of_tshark_is_an_answer(tmp_path: Path) -> None:
    """tshark killed in the middle: findings up to there or an error; the next question is answered."""
    capture = Capture()
    for number in range(40_000):
        capture.udp(POD, 1000 + number, C2, 9, b"x")
    path = capture.write(tmp_path)
    async with serving(tmp_path) as (analyst, at):
        await analyst.tool()
        task = asyncio.ensure_future(AnalystClient(at).analyse(str(path), ABOUT))
        os.kill(await _tshark(), signal.SIGSEGV)
        (outcome,) = await asyncio.gather(task, return_exceptions=True)
        if isinstance(outcome, Permanent):
            assert "ended by SIGSEGV" in outcome.message
        else:
            assert isinstance(outcome, Findings)
            assert not outcome.complete
            assert "ended by SIGSEGV" in outcome.notes[0]
        small = str(beacon().write(tmp_path, "small"))
        assert (await AnalystClient(at).analyse(small, ABOUT)).complete


async def test_whoever_leaves_takes_the_analysis_along(tmp_path: Path) -> None:
    """A client that goes away ends its tshark at once: nobody else waits for it."""
    capture = Capture()
    for number in range(60_000):
        capture.udp(POD, 1000 + number % 60_000, C2, 9, b"x")
    path = capture.write(tmp_path)
    async with serving(tmp_path) as (analyst, at):
        await analyst.tool()
        task = asyncio.ensure_future(AnalystClient(at).analyse(str(path), ABOUT))
        pid = await _tshark()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await _until(lambda: not Path(f"/proc/{pid}").exists())


async def test_without_tshark_every_answer_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The service waits for tshark to appear instead of dying; once it is there, it works."""
    path = str(beacon().write(tmp_path))
    async with serving(tmp_path) as (_, at):
        with monkeypatch.context() as patch:
            patch.setattr(dissect, "PLACES", ("/nonexistent/tshark",))
            with pytest.raises(Permanent, match="apt-get install tshark"):
                await AnalystClient(at).analyse(path, ABOUT)
        assert (await AnalystClient(at).analyse(path, ABOUT)).complete


async def test_a_bug_in_the_analysis_is_an_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever breaks, the asker is told and the service goes on."""
    path = str(beacon().write(tmp_path))
    async with serving(tmp_path) as (_, at):
        with monkeypatch.context() as patch:
            patch.setattr(dissect, "summary", None)
            with pytest.raises(Permanent, match="the analysis failed: TypeError"):
                await AnalystClient(at).analyse(path, ABOUT)
        assert (await AnalystClient(at).analyse(path, ABOUT)).complete


async def test_an_absent_analyst_is_transient(tmp_path: Path) -> None:
    """No socket, or nobody behind it: try again later, with a hint; a missing file is told as such."""
    path = str(beacon().write(tmp_path))
    with pytest.raises(Transient, match="cannot be reached"):
        await AnalystClient(str(tmp_path / "nowhere")).analyse(path, ABOUT)
    with pytest.raises(Permanent, match="cannot open"):
        await AnalystClient(str(tmp_path / "nowhere")).analyse(path + "x", ABOUT)
    link = tmp_path / "link"
    link.symlink_to("/etc/passwd")
    with pytest.raises(Permanent, match="cannot open"):
        await AnalystClient(str(tmp_path / "nowhere")).analyse(str(link), ABOUT)


ANSWERS = [
    (b"", Transient),
    (b"nonsense", Permanent),
    (b"[" * 100_000, Permanent),
    (b"[]", BadInput),
    (b'{"packets": "many"}', BadInput),
    (b'{"error": {"code": "unavailable", "message": "m\\u001b[2J"}}', Transient),
    (b'{"error": {"code": "bad_input"}}', BadInput),
    (b'{"error": {"code": ["?"], "message": 7}}', Permanent),
    (b" " * (65 << 20), Permanent),
]


@pytest.mark.parametrize(("answer", "kind"), ANSWERS)
async def test_a_hijacked_analyst_can_only_lie_or_fail(
    answer: bytes, kind: type[Exception], tmp_path: Path
) -> None:
    """Whatever it answers is an error of ours or findings within bounds; terminals stay safe."""
    path, at = str(beacon().write(tmp_path)), str(tmp_path / "hijacked.sock")

    async def hijacked(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        try:
            writer.write(answer)
            await writer.drain()
        except ConnectionError:
            pass
        writer.close()

    server = await asyncio.start_unix_server(hijacked, at, limit=1 << 20)
    async with server:
        with pytest.raises(kind) as problem:
            await AnalystClient(at).analyse(path, ABOUT)
    assert "\x1b" not in str(problem.value)


async def test_a_silent_analyst_is_not_waited_for_for_ever(tmp_path: Path) -> None:
    """The client has its own limit."""
    path, at = str(beacon().write(tmp_path)), str(tmp_path / "silent.sock")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
        listening.bind(at)
        listening.listen()
        with pytest.raises(Transient, match=r"no answer within 0\.2 s"):
            await AnalystClient(at, timeout_s=0.2).analyse(path, ABOUT)


def _is_zombie(pid: int) -> bool:
    """Dead, and not yet reaped by whoever inherited it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


async def _tshark(parent: int = 0) -> int:
    """The pid of the child (ours, or `parent`'s) once it has become tshark."""
    found: list[int] = []

    def look() -> bool:
        for folder in Path("/proc").iterdir():
            try:
                text = (folder / "stat").read_text()
            except OSError:
                continue
            name, _, rest = text.partition("(")[2].rpartition(")")
            if name == "tshark" and int(rest.split()[1]) == (parent or os.getpid()):
                found.append(int(folder.name))
        return bool(found)

    await _until(look)
    return found[0]


async def _until(holds: object) -> None:
    deadline = asyncio.get_running_loop().time() + 15
    while not holds():  # type: ignore[operator]
        assert asyncio.get_running_loop().time() < deadline, "it did not happen in time"
        await asyncio.sleep(0.005)
