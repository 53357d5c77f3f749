"""The extcap as Wireshark starts it: what is listed, history then live, alerts as rows, and the toolbar."""

from __future__ import annotations

import os
import re
import signal
import struct
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.e2e.machine import Machine, falco_event, tshark, wait_for
from tests.wireshark.conftest import Home
from tripshark.formats.blocks import PACKET
from tripshark.web.views import MOST
from tripshark.wireshark.control import Command, packed, told
from tripshark.wireshark.relay import Splitter

POD = "tripshark:payments/checkout-7d9f"
EXTCAP = [sys.executable, "-I", "-m", "tripshark.programs.extcap"]


def extcap(*argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*EXTCAP, *argv], capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.root
def test_tshark_lists_pods_and_incidents(running: Machine, home: Home) -> None:
    """`tshark -D` has an interface for any target, one for the pod and one for the incident."""
    assert home.tripshark("wireshark", "install", "--config", str(running.config)).code == 0
    listed = home.run("tshark", "-D")
    incident = running.incidents()[-1]
    assert "tripshark (Tripshark: any pod" in listed
    assert re.search(rf"{POD} \(Pod payments/checkout-7d9f \(\d+ s back\)\)", listed)
    assert f"tripshark:incident:{incident['id']} (Incident" in listed


@pytest.mark.root
def test_tshark_prints_history_then_live_with_alert_rows(running: Machine, home: Home) -> None:
    """Packets from before tshark was started, with the old alert among them; then packets and a new alert."""
    home.tripshark("wireshark", "install", "--config", str(running.config))
    began = time.time()
    with started(home, "tshark", "-C", "Tripshark", "-l", "-i", POD, "-o", "gui.column.format:"
                 '"t","%Cus:frame.time_epoch:0:R","s","%s","d","%d","i","%i"') as (process, lines):  # fmt: skip
        wait_for(lambda: any(float(each.split()[0]) > began for each in lines), "live packets", 20)
        running.post(falco_event(rule="While somebody watches"))
        wait_for(lambda: any("While somebody watches" in each for each in lines), "the alert", 20)
        process.send_signal(signal.SIGINT)
        process.wait(20)
    times = [float(each.split()[0]) for each in lines]
    assert times[0] < began - 0.3
    assert sum("FALCO" in each for each in lines) >= 2
    first = next(n for n, each in enumerate(lines) if "FALCO Critical: Outbound" in each)
    assert times[first - 1] <= times[first] <= times[first + 1]
    assert sum("payments/checkout-7d9f → 10.66.0.2" in each for each in lines) > 50


@contextmanager
def started(home: Home, *argv: str) -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    process = subprocess.Popen(
        argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=home.environment
    )
    lines: list[str] = []

    def read() -> None:
        assert process.stdout is not None
        lines.extend(iter(process.stdout.readline, ""))

    reader = threading.Thread(target=lambda: [lines.append(each) for each in process.stdout or ()])
    reader.start()
    try:
        yield process, lines
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        reader.join(20)
        if process.stdout is not None:
            process.stdout.close()


@pytest.mark.root
def test_a_sealed_incident_is_its_evidence(running: Machine, home: Home, tmp_path: Path) -> None:
    """An incident's interface gives the sealed file, bit by bit, and ends."""
    incident = running.incidents()[-1]
    fifo = tmp_path / "fifo"
    got = reading(fifo)
    done = extcap("--data", str(running.data), "--capture", "--fifo", str(fifo),
                  "--extcap-interface", f"tripshark:incident:{incident['id']}")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert got() == (Path(str(incident["folder"])) / "evidence.pcapng").read_bytes()


def reading(fifo: Path) -> Callable[[], bytes]:
    """Begins to read a new pipe; the answer waits for its end."""
    os.mkfifo(fifo)
    got = bytearray()

    def read() -> None:
        with fifo.open("rb", buffering=0) as pipe:
            while piece := pipe.read(1 << 16):
                got.extend(piece)

    thread = threading.Thread(target=read, daemon=True)
    thread.start()

    def ended() -> bytes:
        thread.join(20)
        assert not thread.is_alive()
        return bytes(got)

    return ended


@pytest.mark.root
def test_the_toolbar_filters_marks_and_pauses(running: Machine, tmp_path: Path) -> None:
    """A mark is a row with its comment; a filter that matches nothing stops packets; a wrong one is told; what a
    pause left out is counted in a row.
    """
    pipes = {name: tmp_path / name for name in ("fifo", "in", "out")}
    for path in pipes.values():
        os.mkfifo(path)
    process = subprocess.Popen(
        [*EXTCAP, "--data", str(running.data), "--capture", "--fifo", str(pipes["fifo"]),
         "--extcap-interface", "tripshark", "--target", "payments/checkout-7d9f", "--before", "1s",
         "--extcap-control-in", str(pipes["in"]), "--extcap-control-out", str(pipes["out"])]
    )  # fmt: skip
    got, said = bytearray(), list[str]()
    with pipes["fifo"].open("rb", buffering=0) as fifo, pipes["out"].open("rb") as out:
        threads = [
            threading.Thread(
                target=lambda: said.extend(each.text for each in told(out)), daemon=True
            ),
            threading.Thread(
                target=lambda: [
                    got.extend(each) for each in iter(lambda: fifo.read(1 << 16), b"")
                ],
                daemon=True,
            ),
        ]
        for thread in threads:
            thread.start()
        try:
            with pipes["in"].open("wb", buffering=0) as click:
                click.write(packed(0, Command.INITIALIZED))
                wait_for(lambda: packets(got), "history")
                click.write(packed(1, Command.SET, "look { here }\nFALSE=1"))
                click.write(packed(2, Command.SET))
                wait_for(lambda: b"MARK look" in got, "the mark")
                click.write(packed(3, Command.SET, "\1"))
                wait_for(lambda: any("paused" in each for each in said), "the pause")
                time_of_pause = packets(got)
                running.post(falco_event(rule="During the pause"))  # its row comes behind packets
                wait_for(lambda: b"During the pause" in got, "the alert")
                click.write(packed(0, Command.SET, "tcp prot"))
                wait_for(lambda: any("stays as it was" in each for each in said), "the refusal")
                click.write(packed(3, Command.SET, "\0"))
                wait_for(lambda: b"packets were left out" in got, "what was left out")
                wait_for(lambda: packets(got) > time_of_pause, "packets again")
                click.write(packed(0, Command.SET, "tcp port 1"))
                wait_for(
                    lambda: any("filter from now on: tcp port 1" in each for each in said),
                    "the filter",
                )
                quiet = wait_for(lambda: still(got, packets), "no more packets", 20)
                assert quiet
        finally:
            process.kill()  # or who reads its pipes waits for ever
            process.wait(20)
        for thread in threads:
            thread.join(20)
    path = tmp_path / "got.pcapng"
    path.write_bytes(got)
    rows = tshark(path, "-Y", 'systemd_journal.syslog_id == "tripshark"')
    assert [row for row in rows if "MARK look { here }\\x0aFALSE=1" in row]
    assert len(rows) == 2


def packets(got: bytearray) -> int:
    return sum(kind == PACKET for kind, _ in Splitter().feed(bytes(got)))


def still(got: bytearray, count: Callable[[bytearray], int]) -> bool:
    """Twenty packets' time passed without one: the filter holds."""
    before, until = count(got), time.monotonic() + 0.5
    while time.monotonic() < until:
        if count(got) != before:
            return False
    return True


def test_without_a_service_an_interface_says_so_and_soon(tmp_path: Path) -> None:
    """Away, or silent: the list comes with a sentence, within a few seconds."""
    import socket

    silent = socket.create_server(("127.0.0.1", 0))  # accepts in the kernel, and never answers
    with silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        began = time.monotonic()
        done = extcap("--data", str(tmp_path), "--at", url, "--extcap-interfaces")
        assert time.monotonic() - began < 6
    assert done.returncode == 0
    assert re.search(
        r"\{value=tripshark:away\}\{display=Tripshark: the service is away", done.stdout
    )
    assert re.search(
        r"\{value=tripshark-at:away\}\{display=Tripshark @ 127.0.0.1:\d+: the service does not answer",
        done.stdout,
    )
    failed = extcap(
        "--data",
        str(tmp_path),
        "--capture",
        "--extcap-interface",
        "tripshark:away",
        "--fifo",
        "/dev/null",
    )
    assert failed.returncode == 3
    assert "nothing to watch" in failed.stderr


def test_a_token_goes_only_where_nobody_reads_along(tmp_path: Path) -> None:
    """In clear text off loopback it is not sent, and the sentence says why."""
    (tmp_path / "token").write_text("secret-token\n")
    done = extcap(
        "--at",
        "http://192.0.2.1:1",
        "--at-token-file",
        str(tmp_path / "token"),
        "--extcap-interfaces",
    )
    assert "a token is not sent where everybody could read it" in done.stdout


def test_a_frame_of_the_toolbar_has_its_layout() -> None:
    """'T', 24 bits of length, control, command, payload; a torn or foreign one ends the reading."""
    import io

    assert packed(4, Command.ADD, "log\n") == b"T\0\0\6\4\2log\n"
    long = packed(1, Command.SET, "x" * 70_000)
    assert struct.unpack(">sBHBB", long[:6]) == (b"T", 1, 70_002 - 65_536, 1, 1)
    assert [each.text for each in told(io.BytesIO(long + packed(2, Command.SET)))] == [
        "x" * 70_000,
        "",
    ]
    assert list(told(io.BytesIO(b"X\0\0\2\0\0"))) == []
    assert list(told(io.BytesIO(long[:-1]))) == []


@pytest.mark.root
def test_an_open_incident_is_followed_until_it_is_sealed(running: Machine) -> None:
    """From its history on, with its alert, and the stream ends by itself with the incident."""
    running.post(falco_event(rule="To be followed"))

    def opened() -> str:
        found = [each for each in running.incidents() if each["state"] == "open"]
        return str(found[0]["id"]) if found else ""

    incident = wait_for(opened, "an open incident")
    with urllib.request.urlopen(
        f"{running.url}/v1/live?incident={incident}", timeout=60
    ) as answer:
        got = answer.read()
    assert b"To be followed" in got
    assert packets(bytearray(got)) > 20
    assert b"live from payments/checkout-7d9f" in got


@pytest.mark.root
def test_whoever_leaves_makes_room(running: Machine) -> None:
    """More views one after the other than may be open at once, also when no packet would tell that one has left."""
    for _ in range(MOST + 2):

        def watched() -> bool:
            url = f"{running.url}/v1/live?target=payments/checkout-7d9f&before=1s&filter=port+1"
            try:
                with urllib.request.urlopen(url, timeout=60) as answer:
                    return bool(answer.read(100))
            except urllib.error.HTTPError as full:
                if full.code != 429:
                    raise
                return False

        wait_for(watched, "room for a view")


def test_a_refusal_opens_the_pipe_too(tmp_path: Path) -> None:
    """Wireshark waits for it to be opened, without end: also when nobody said whom to watch."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    argv = [*EXTCAP, "--data", str(tmp_path), "--capture", "--extcap-interface", "tripshark"]
    process = subprocess.Popen([*argv, "--fifo", str(fifo)], stderr=subprocess.PIPE, text=True)
    assert fifo.read_bytes() == b""
    _, said = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "whom to watch" in said
    done = extcap(*argv[len(EXTCAP) :])
    assert (done.returncode, "--fifo" in done.stderr) == (2, True)
