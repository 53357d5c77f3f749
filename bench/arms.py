"""What can be attached to a pod's interface: nothing, a socket that rejects all, Tripshark, and the other tools."""

from __future__ import annotations

import re
import shutil
import signal
import socket
import struct
import time
from collections.abc import Callable
from ctypes import addressof, create_string_buffer
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from bench.cpu import Meter
from bench.recorder import Recorder
from bench.stage import Failed, Stage, inside, until
from tripshark.recorder.config import MIB

FLOW_CUT = 1_000_000  # what `recorder.flow_cut` is unless somebody changes it
_ETH_P_ALL = 3
_SO_ATTACH_FILTER = 26


@dataclass(frozen=True)
class Counts:
    """What an arm says of the packets that its tap was shown."""

    kept: int
    dropped: int


class Running(Protocol):
    def counts(self) -> Counts:
        """Since it was attached; may be asked when the traffic is over, and ends it."""


@dataclass(frozen=True)
class Arm:
    """One way of recording: `attach` returns when packets are being recorded."""

    name: str
    attach: Callable[[Stage, str, Meter], Running]
    records: bool = True


# ---- nothing, and nearly nothing ------------------------------------------------------------------------


class _Nothing:
    def counts(self) -> Counts:
        return Counts(0, 0)


class _Rejecting:
    """A socket whose filter is one instruction: keep 0 bytes. What any tap at all costs the workload."""

    def __init__(self, netns: str) -> None:
        def open_socket() -> socket.socket:
            sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
            program = create_string_buffer(struct.pack("=HBBI", 6, 0, 0, 0), 8)
            given = struct.pack("HL", 1, addressof(program))
            sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, given)
            sock.bind(("eth0", _ETH_P_ALL))
            return sock

        self._sock = inside(netns, open_socket)

    def counts(self) -> Counts:
        self._sock.close()
        return Counts(0, 0)


NONE = Arm("nothing attached", lambda *_: _Nothing(), records=False)
REJECT = Arm("socket that rejects all", lambda _s, pod, _m: _Rejecting(pod), records=False)

# ---- Tripshark ------------------------------------------------------------------------------------------


class _Tripshark:
    def __init__(self, stage: Stage, pod: str, meter: Meter, mib: int) -> None:
        self._pod = pod
        self._recorder = Recorder(
            stage,
            include=pod,
            meter=meter,
            per_target=mib * MIB,
            total=512 * MIB,
            flow_cut=FLOW_CUT,
        )
        self._recorder.wait_for(pod)

    def counts(self) -> Counts:
        try:
            ring = self._recorder.rings()[self._pod]
            return Counts(ring.packets - ring.drops, ring.drops)
        finally:
            self._recorder.stop()


def tripshark(mib: int, note: str = "") -> Arm:
    return Arm(
        f"Tripshark, {mib} MiB per target{note}",
        lambda stage, pod, meter: _Tripshark(stage, pod, meter, mib),
    )


# ---- other tools ----------------------------------------------------------------------------------------


class _Tool:
    """Writes a ring of files in memory, the kindest place there is."""

    def __init__(
        self,
        stage: Stage,
        pod: str,
        meter: Meter,
        argv: Callable[[Path], list[str]],
        read: Callable[[str], Counts | None],
    ) -> None:
        self._stage, self._read = stage, read
        self._folder = stage.memory / "capture"
        self._folder.mkdir()
        self._process = stage.spawn(argv(self._folder), netns=pod, meter=meter)
        try:
            until(self._begun, f"{argv(self._folder)[0]} to begin")
        except Failed:
            shutil.rmtree(self._folder)
            raise
        time.sleep(0.3)  # its file is there just before its ring

    def _begun(self) -> bool:
        if self._process.poll() is not None:
            raise Failed(f"{self._process.args} ended: {self._process.communicate()[1][-300:]}")
        return any(self._folder.iterdir())

    def counts(self) -> Counts:
        try:
            said = "".join(self._stage.end(self._process, signal.SIGINT))
        finally:
            shutil.rmtree(self._folder, ignore_errors=True)
        counts = self._read(said)
        if counts is None:
            raise Failed(f"{self._process.args} did not say what it counted: {said[-300:]}")
        return counts


def _read_dumpcap(said: str) -> Counts | None:
    found = re.search(r"received/dropped on interface '[^']*': (\d+)/(\d+)", said)
    return found and Counts(int(found[1]), int(found[2]))  # type: ignore[return-value]


def _read_tcpdump(said: str) -> Counts | None:
    kept = re.search(r"(\d+) packets? captured", said)
    dropped = re.search(r"(\d+) packets? dropped by kernel", said)
    return kept and Counts(int(kept[1]), int(dropped[1]) if dropped else 0)  # type: ignore[return-value]


def _read_netsniff(said: str) -> Counts | None:
    kept = re.search(r"(\d+)\s+packets passed filter", said)
    dropped = re.search(r"(\d+)\s+packets failed filter", said)
    return kept and Counts(int(kept[1]), int(dropped[1]) if dropped else 0)  # type: ignore[return-value]


def _tool(
    name: str, argv: Callable[[Path], list[str]], read: Callable[[str], Counts | None]
) -> Arm:
    return Arm(name, lambda stage, pod, meter: _Tool(stage, pod, meter, argv, read))


def dumpcap(*, files_mib: int, buffer_mib: int = 0) -> Arm:
    """`-b` with four files of together `files_mib`."""

    def argv(folder: Path) -> list[str]:
        buffer = ["-B", str(buffer_mib)] if buffer_mib else []
        ring = ["-b", f"filesize:{files_mib * 256}", "-b", "files:4"]
        return ["dumpcap", "-q", "-i", "eth0", *buffer, *ring, "-w", str(folder / "d.pcapng")]

    name = f"dumpcap{f' -B {buffer_mib}' if buffer_mib else ''} -b 4 × {files_mib // 4} MiB"
    return _tool(name, argv, _read_dumpcap)


def tcpdump() -> Arm:
    def argv(folder: Path) -> list[str]:
        limits = ["-C", "16", "-W", "4", "-B", "65536"]
        user = ["-Z", "root"]
        return ["tcpdump", "-n", *user, "-i", "eth0", *limits, "-w", str(folder / "t.pcap")]

    return _tool("tcpdump -B 65536 -C 16 -W 4", argv, _read_tcpdump)


def netsniff() -> Arm:
    def argv(folder: Path) -> list[str]:
        ring = ["--ring-size", "64MiB", "--interval", "16MiB", "--overwrite", "4"]
        how = ["--silent", "--no-promisc"]
        return ["netsniff-ng", "--in", "eth0", "--out", str(folder), *ring, *how]

    return _tool("netsniff-ng, 64 MiB ring", argv, _read_netsniff)
