"""The kernel's own blocks decode to the frames that were sent: a real ring in a namespace of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.formats.making import copy_of
from tripshark.formats.packets import IN, OUT
from tripshark.formats.ring import Seam, decode
from tripshark.formats.wire import BlockRef, RingCopy

BLOCK = 1 << 17
SOURCE = bytes.fromhex("020000000099")

RECORD = """
import mmap, socket, struct, sys, time
block, count, folder = 1 << 17, 8, sys.argv[1]
ring = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
ring.setsockopt(263, 10, 2)  # PACKET_VERSION, TPACKET_V3
ring.setsockopt(263, 5, struct.pack("=7I", block, count, 2048, block * count // 2048, 60_000, 0, 0))
memory = mmap.mmap(ring.fileno(), block * count)
ring.bind(("right", 3))
sender = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
sender.bind(("left", 0))
answer = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
answer.bind(("right", 0))
tags = [b"", b"\\x81\\x00\\x20\\x05", b"\\x88\\xa8\\x00\\x64\\x81\\x00\\x00\\x07"]
def frame(i):
    head = b"\\xff" * 6 + bytes.fromhex("020000000099")
    return head + tags[i % 3] + b"\\x88\\xb5" + struct.pack(">I", i) + bytes([i % 256]) * (i * 7 % 1400)
def packets():
    return sum(struct.unpack_from("=I", memory, i * block + 12)[0] for i in range(count))
def settle():
    seen, until = -1, time.monotonic() + 5
    while packets() != seen and time.monotonic() < until:
        seen = packets()
        time.sleep(0.02)
for part, numbers in enumerate((range(0, 200), range(200, 600))):
    for i in numbers:
        (answer if i % 10 == 0 else sender).send(frame(i))
    settle()
    open(f"{folder}/ring-{part}", "wb").write(memory[:])
"""


def _copy(raw: bytes) -> RingCopy:
    found = []
    for at in range(0, len(raw), BLOCK):
        status = int.from_bytes(raw[at + 8 : at + 12], sys.byteorder)
        used = int.from_bytes(raw[at + 20 : at + 24], sys.byteorder)
        seq = int.from_bytes(raw[at + 24 : at + 32], sys.byteorder)
        if seq:
            found.append(BlockRef(seq=seq, offset=at, length=used, open=not status & 1))
    return copy_of(raw, sorted(found, key=lambda ref: ref.seq))


def _frame(i: int) -> bytes:
    tags = [b"", b"\x81\x00\x20\x05", b"\x88\xa8\x00\x64\x81\x00\x00\x07"]
    head = b"\xff" * 6 + SOURCE + tags[i % 3] + b"\x88\xb5"
    return head + i.to_bytes(4, "big") + bytes([i % 256]) * (i * 7 % 1400)


@pytest.mark.root
@pytest.mark.skipif(
    os.geteuid() != 0, reason="needs root: a network namespace and a packet socket"
)
def test_every_frame_sent_comes_out_of_the_ring_once(tmp_path: Path) -> None:
    """Tagged and not, in and out, from closed blocks and from the open one, across two looks at the ring."""
    namespace = f"ts-ring-{os.getpid()}"
    subprocess.run(["ip", "netns", "add", namespace], check=True)
    try:
        inside = ["ip", "-n", namespace, "link"]
        subprocess.run(
            [*inside, "add", "name", "left", "type", "veth", "peer", "name", "right"], check=True
        )
        for name in ("left", "right"):
            subprocess.run([*inside, "set", name, "up"], check=True)
        command = ["ip", "netns", "exec", namespace, sys.executable, "-W", "ignore", "-c", RECORD]
        subprocess.run([*command, str(tmp_path)], check=True, timeout=60)
    finally:
        subprocess.run(["ip", "netns", "del", namespace], check=True)
    seam = Seam()
    copies = [_copy((tmp_path / f"ring-{part}").read_bytes()) for part in range(2)]
    assert any(ref.open for ref in copies[0].blocks)
    looks = [seam.fresh("r", decode(copy)) for copy in copies]
    got = []
    for packets in looks:
        for i in range(len(packets)):
            data = packets.bytes_of(i)
            if data[6:12] == SOURCE:
                got.append((data, int(packets.direction[i]), int(packets.length[i])))
    expected = [(_frame(i), OUT if i % 10 == 0 else IN, len(_frame(i))) for i in range(600)]
    assert got == expected
    times = [time for packets in looks for time in packets.time_ns.tolist()]
    assert max(times) - min(times) < 60 * 10**9
