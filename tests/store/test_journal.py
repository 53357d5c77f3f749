"""An append that returned is on disk, in order, once: through crashes, full disks and failing syncs."""

from __future__ import annotations

import asyncio
import errno
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.store.private import in_private_tmpfs
from tripshark.errors import BadInput, Permanent, Transient
from tripshark.ports import Record
from tripshark.store import journal as journal_module
from tripshark.store.journal import FileJournal
from tripshark.store.log import Log


async def _all(journal: FileJournal, after: int = 0) -> list[Record]:
    found: list[Record] = []
    while (found[-1].seq if found else after) < journal.last_seq:
        found += await journal.read(found[-1].seq if found else after, 100)
    return found


async def test_appends_come_back_in_order_with_everything_they_had(tmp_path: Path) -> None:
    """Body, origin, time and repeat survive closing and opening, and numbering goes on."""
    journal = await FileJournal.open(tmp_path / "journal")
    first = await journal.append(b"one", via="webhook", received_ns=5)
    second = await journal.append(b"", via="file:/var/log/é", received_ns=-6, repeat_of=first)
    await journal.close()
    journal = await FileJournal.open(tmp_path / "journal")
    third = await journal.append(b"\0three", via="stdin", received_ns=7)
    assert await _all(journal) == [
        Record(seq=first, received_ns=5, via="webhook", body=b"one"),
        Record(seq=second, received_ns=-6, via="file:/var/log/é", body=b"", repeat_of=first),
        Record(seq=third, received_ns=7, via="stdin", body=b"\0three"),
    ]
    assert [first, second, third] == [1, 2, 3]
    await journal.close()


async def test_concurrent_appends_share_syncs_and_keep_their_seq(tmp_path: Path) -> None:
    """Five hundred appends at once need few syncs, and each caller holds the seq of its own alert."""
    syncs = 0

    def sync(fd: int) -> None:
        nonlocal syncs
        syncs += 1
        os.fdatasync(fd)

    journal = await FileJournal.open(tmp_path, sync=sync)
    seqs = await asyncio.gather(
        *(journal.append(b"%d" % n, via="t", received_ns=n) for n in range(500))
    )
    assert [(record.seq, record.body) for record in await _all(journal)] == [
        (seq, b"%d" % n) for n, seq in enumerate(seqs)
    ]
    assert syncs < 50
    await journal.close()


async def test_read_waits_for_the_next_record(tmp_path: Path) -> None:
    """A reader at the end sleeps until an append wakes it, and gives up with `Transient` on closing."""
    journal = await FileJournal.open(tmp_path)
    reader = asyncio.ensure_future(journal.read(0, 10))
    await asyncio.sleep(0)
    assert not reader.done()
    await journal.append(b"x", via="t", received_ns=1)
    assert [record.body for record in await asyncio.wait_for(reader, 60)] == [b"x"]
    reader = asyncio.ensure_future(journal.read(1, 10))
    await asyncio.sleep(0)
    await journal.close()
    with pytest.raises(Transient, match="closed"):
        await asyncio.wait_for(reader, 60)
    with pytest.raises(Transient, match="closed"):
        await journal.append(b"x", via="t", received_ns=1)


async def test_segments_rotate_and_are_forgotten(tmp_path: Path) -> None:
    """Worked-off segments are deleted, the rest stays readable, and seqs never start again."""
    journal = await FileJournal.open(tmp_path, segment_bytes=1000)
    for n in range(50):
        await journal.append(b"x" * 200, via="t", received_ns=n)
    many = journal.state().segments
    assert many > 5
    await journal.forget(25)
    assert 2 <= journal.state().segments < many
    assert [record.seq for record in await _all(journal, 25)] == list(range(26, 51))
    await journal.forget(50)
    assert journal.state().segments == 1
    assert len(list(tmp_path.glob("*.log"))) == 1
    await journal.close()
    journal = await FileJournal.open(tmp_path, segment_bytes=1000)
    assert await journal.append(b"y", via="t", received_ns=1) == 51
    await journal.close()


async def test_a_lost_folder_does_not_reuse_seqs(tmp_path: Path) -> None:
    """Given the catalogue's position, an empty journal numbers on from there."""
    journal = await FileJournal.open(tmp_path, at_least=1000)
    assert await journal.append(b"x", via="t", received_ns=1) == 1001
    assert [record.seq for record in await journal.read(1000, 5)] == [1001]
    await journal.close()


async def test_the_journal_is_full_when_nobody_reads_it(tmp_path: Path) -> None:
    """At its bound appends are refused with a hint; once worked off they are taken again."""
    journal = await FileJournal.open(tmp_path, max_bytes=20_000)
    taken = 0
    with pytest.raises(Transient, match="nobody reads") as refused:  # noqa: PT012 - the loop ends in it
        while True:
            await journal.append(b"x" * 1000, via="t", received_ns=1)
            taken += 1
    assert 15 <= taken <= 20
    assert "journal.max" in refused.value.hint
    assert len(await _all(journal)) == taken
    await journal.forget(taken)
    assert await journal.append(b"x", via="t", received_ns=1) == taken + 1
    await journal.close()


async def test_a_journal_of_one_record_can_be_worked_off(tmp_path: Path) -> None:
    """Even where a single alert fills the bound, forgetting it makes room."""
    journal = await FileJournal.open(tmp_path, max_bytes=2000)
    for n in range(5):
        assert await journal.append(b"x" * 1200, via="t", received_ns=1) == n + 1
        with pytest.raises(Transient, match="full"):
            await journal.append(b"x" * 1200, via="t", received_ns=1)
        await journal.forget(n + 1)
    await journal.close()


async def test_memory_is_bounded_while_the_disk_hangs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a sync takes forever only so much may wait; more is refused at once."""
    monkeypatch.setattr(journal_module, "MAX_WAITING", 100_000)
    disk_works = threading.Event()
    disk_works.set()

    def sync(fd: int) -> None:
        assert disk_works.wait(30)
        os.fdatasync(fd)

    journal = await FileJournal.open(tmp_path, sync=sync)
    await journal.append(b"x", via="t", received_ns=1)
    disk_works.clear()
    waiting = [
        asyncio.ensure_future(journal.append(b"x" * 10_000, via="t", received_ns=1))
        for _ in range(30)
    ]
    done, pending = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    for each in done:
        with pytest.raises(Transient, match="more alerts than the disk"):
            each.result()
    disk_works.set()
    kept = await asyncio.gather(*pending)
    assert len(kept) >= 5
    assert len(done) >= 20
    assert [record.seq for record in await _all(journal, 1)] == sorted(kept)
    await journal.close()


async def test_a_cancelled_append_harms_nobody_else(tmp_path: Path) -> None:
    """The batch goes on for the others."""
    journal = await FileJournal.open(tmp_path)
    calls = [
        asyncio.ensure_future(journal.append(b"%d" % n, via="t", received_ns=1)) for n in range(10)
    ]
    await asyncio.sleep(0)
    calls[3].cancel()
    kept = await asyncio.gather(*calls, return_exceptions=True)
    assert isinstance(kept[3], asyncio.CancelledError)
    bodies = {record.seq: record.body for record in await _all(journal)}
    assert all(bodies[seq] == b"%d" % n for n, seq in enumerate(kept) if isinstance(seq, int))
    await journal.close()


async def test_one_writer_only(tmp_path: Path) -> None:
    """A second writer is told who is in the way."""
    journal = await FileJournal.open(tmp_path)
    with pytest.raises(Permanent, match="another Tripshark"):
        await FileJournal.open(tmp_path)
    await journal.close()
    await (await FileJournal.open(tmp_path)).close()


async def test_an_alert_beyond_all_bounds_is_bad_input(tmp_path: Path) -> None:
    """Sixteen MiB is the end, whatever the front door allows."""
    journal = await FileJournal.open(tmp_path)
    with pytest.raises(BadInput):
        await journal.append(bytes((16 << 20) + 1), via="t", received_ns=1)
    await journal.append(bytes(16 << 20), via="t", received_ns=1)
    assert len((await journal.read(0, 1))[0].body) == 16 << 20
    await journal.close()


async def test_a_torn_tail_is_cut_and_counted(tmp_path: Path) -> None:
    """Half a record at the end of the newest segment goes, everything before stays."""
    journal = await FileJournal.open(tmp_path)
    for n in range(3):
        await journal.append(b"%d" % n, via="t", received_ns=n)
    await journal.close()
    path = tmp_path / "00000001.log"
    whole = path.read_bytes()
    for cut in range(1, 30):
        path.write_bytes(whole[:-cut])
        log = Log(tmp_path, segment_bytes=1 << 20)
        assert log.last_seq == 2
        assert log.state().cut_bytes + cut == len(whole) - path.stat().st_size
        assert [record.body for record in log.read(0, 10, 1000)] == [b"0", b"1"]
        log.close()


async def test_damage_in_the_middle_is_passed_over_and_counted(tmp_path: Path) -> None:
    """A rotten record, a rotten end and a rotten header cost what they hold, never the rest."""
    journal = await FileJournal.open(tmp_path, segment_bytes=2000)
    for n in range(40):
        await journal.append(b"%03d" % n * 50, via="t", received_ns=n)
    await journal.close()
    first, second, third, *_ = sorted(tmp_path.glob("*.log"))
    for path, at in ((first, 500), (second, -10), (third, 3)):
        content = bytearray(path.read_bytes())
        content[at] ^= 0xFF
        path.write_bytes(content)
    journal = await FileJournal.open(tmp_path, segment_bytes=2000)
    found = await _all(journal)
    lost = set(range(1, 41)) - {record.seq for record in found}
    per_segment = sum(1 for record in range(10) if record * 190 < 2000)
    assert 3 <= len(lost) <= 2 + per_segment + 1
    assert [record.seq for record in found] == sorted({record.seq for record in found})
    state = journal.state()
    assert state.set_aside == 1
    assert state.damaged_bytes > 0
    assert third.with_suffix(".damaged").exists()
    await journal.close()


async def test_a_rotten_newest_record_does_not_make_the_reader_spin(tmp_path: Path) -> None:
    """Where nothing can be read the reader waits for what comes next instead of asking again and again."""
    journal = await FileJournal.open(tmp_path)
    await journal.append(b"x" * 100, via="t", received_ns=1)
    content = bytearray((tmp_path / "00000001.log").read_bytes())
    content[-1] ^= 1
    (tmp_path / "00000001.log").write_bytes(content)
    reader = asyncio.ensure_future(journal.read(0, 10))
    done, _ = await asyncio.wait([reader], timeout=0.2)
    assert not done
    assert journal.state().damaged_bytes == len(content) - 32
    await journal.append(b"y", via="t", received_ns=2)
    assert [record.seq for record in await asyncio.wait_for(reader, 60)] == [2]
    await journal.close()


@pytest.mark.parametrize("failing", [1, 2, 3])
async def test_a_failed_sync_is_never_trusted_again(tmp_path: Path, failing: int) -> None:
    """After an I/O error the segment is left alone for ever; refused alerts are not read, seqs not reused."""
    broken = False

    def sync(fd: int) -> None:
        nonlocal broken
        if broken:
            broken = False
            raise OSError(errno.EIO, "Input/output error")
        os.fdatasync(fd)

    journal = await FileJournal.open(tmp_path, sync=sync)
    kept = [await journal.append(b"kept", via="t", received_ns=1) for _ in range(failing)]
    broken = True
    with pytest.raises(Transient, match="disk refused"):
        await journal.append(b"refused", via="t", received_ns=1)
    assert journal.state().abandoned == 1
    assert "disk refused" in journal.problem
    before = (tmp_path / "00000001.log").read_bytes()
    kept += [await journal.append(b"kept", via="t", received_ns=1) for _ in range(2)]
    assert journal.problem == ""
    assert (tmp_path / "00000001.log").read_bytes() == before
    assert kept == sorted(set(kept))
    assert failing + 1 not in kept
    assert [record.seq for record in await _all(journal)] == kept
    await journal.close()
    journal = await FileJournal.open(tmp_path)
    assert [record.seq for record in await _all(journal)] == kept
    await journal.close()


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small tmpfs of its own, which needs root")
def test_a_full_disk_refuses_and_recovers() -> None:
    """With no space left appends are refused with a hint, nothing half is left, and space heals it."""
    in_private_tmpfs(
        "2m",
        """
        import asyncio
        from pathlib import Path
        from tripshark.errors import Transient
        from tripshark.store.journal import FileJournal

        async def main(folder):
            journal = await FileJournal.open(folder / "journal")
            filler = folder / "filler"
            kept, refused = [], 0
            for round in range(3):
                filler.write_bytes(bytes(1_000_000))
                for n in range(200):
                    try:
                        kept.append(await journal.append(b"%d." % n * 4000, via="t", received_ns=n))
                    except Transient as error:
                        assert "full" in error.message and "free space" in error.hint, error
                        refused += 1
                        break
                filler.unlink()
                kept.append(await journal.append(b"again", via="t", received_ns=1))
                await journal.forget(0)
            assert refused >= 2, refused
            state = journal.state()
            assert state.abandoned == 0, state
            await journal.close()
            journal = await FileJournal.open(folder / "journal")
            assert journal.state().cut_bytes == 0, journal.state()
            found = []
            while len(found) < len(kept):
                found += [r.seq for r in await journal.read(found[-1] if found else 0, 1000)]
            assert found == kept == list(range(1, len(kept) + 1))
            await journal.close()

        asyncio.run(main(Path(FOLDER)))
        """,
    )


CHILD = """
import asyncio, os, sys
from pathlib import Path
from tripshark.store.journal import FileJournal

async def main():
    journal = await FileJournal.open(Path(sys.argv[1]), segment_bytes=20_000)
    async def appender(who):
        n = 0
        while True:
            body = b"%d/%d/" % (who, n) + bytes(n % 700)
            seq = await journal.append(body, via="child", received_ns=n)
            os.write(1, b"%d %d %d\\n" % (seq, who, n))
            n += 1
    async def reader():
        seq = 0
        while True:
            seq = (await journal.read(seq, 50))[-1].seq
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(reader())
        for who in range(20):
            tasks.create_task(appender(who))

asyncio.run(main())
"""


def test_kill_9_loses_no_append_that_returned(tmp_path: Path) -> None:
    """Killed at random moments again and again, each promised alert is there, once and in order."""
    chance = random.Random(4)
    promised: dict[int, bytes] = {}
    for _ in range(12):
        with subprocess.Popen(
            [sys.executable, "-c", CHILD, str(tmp_path)], stdout=subprocess.PIPE
        ) as child:
            assert child.stdout is not None
            first = child.stdout.readline()
            until = time.monotonic() + chance.random() * 0.3
            lines = [first]
            while time.monotonic() < until:
                lines.append(child.stdout.readline())
            child.send_signal(signal.SIGKILL)
            lines += child.stdout.readlines()
        for line in lines:
            if line.endswith(b"\n"):
                seq, who, n = (int(word) for word in line.split())
                assert seq not in promised
                promised[seq] = b"%d/%d/" % (who, n) + bytes(n % 700)
    log = Log(tmp_path, segment_bytes=20_000)
    found: list[Record] = []
    while batch := log.read(found[-1].seq if found else 0, 1000, 1 << 20):
        found += batch
    log.close()
    seqs = [record.seq for record in found]
    assert seqs == sorted(set(seqs))
    bodies = {record.seq: record.body for record in found}
    assert len(promised) > 100
    assert {seq: bodies.get(seq) for seq in promised} == promised
