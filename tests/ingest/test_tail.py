"""A followed file gives each line once, whatever rotation does to it and whenever we were not running."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tripshark.errors import BadInput
from tripshark.ingest.tail import Tail


class Log:
    """A log file being written by somebody who rotates it."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "falco.json"
        self.state = folder / "state"
        self.written: list[bytes] = []
        self._rotated = 0
        self.now = 0.0

    def write(self, count: int = 1, *, into: Path | None = None) -> None:
        for _ in range(count):
            line = b'{"n": %d, "pad": "%s"}' % (len(self.written), os.urandom(4).hex().encode())
            self.written.append(line)
            with (into or self.path).open("ab") as file:
                file.write(line + b"\n")

    def rotate(self) -> Path:
        """Rename and make anew."""
        self._rotated += 1
        moved = self.path.with_name(f"falco.json.{self._rotated}")
        self.path.rename(moved)
        self.path.touch()
        return moved

    def copy_truncate(self) -> None:
        self._rotated += 1
        shutil.copy(self.path, self.path.with_name(f"falco.json.{self._rotated}"))
        os.truncate(self.path, 0)

    def order(self) -> None:
        """Files written within one tick of the file system's clock have no order: give them one."""
        for number in range(1, self._rotated + 1):
            os.utime(self.path.with_name(f"falco.json.{number}"), ns=(1, 10**18 + number))
        os.utime(self.path, ns=(1, 10**18 + self._rotated + 1))

    def tail(self, **options: object) -> Tail:
        return Tail(self.path, self.state, **options)

    def drain(self, tail: Tail) -> list[bytes]:
        """Everything there is now, and what was left behind after its grace."""
        lines: list[bytes] = []
        for _ in range(2):
            self.now += 11
            while got := tail.read(self.now):
                lines += got
                tail.commit()
        tail.commit()
        return lines


@pytest.fixture
def log(tmp_path: Path) -> Log:
    return Log(tmp_path)


def test_history_is_left_alone_unless_asked_for(log: Log) -> None:
    """A file that was there begins at its end; with `from_start` at its start."""
    log.write(3)
    tail = log.tail()
    assert log.drain(tail) == []
    log.write(2)
    assert log.drain(tail) == log.written[3:]
    tail.close()
    log.state.unlink()
    again = log.tail(from_start=True)
    assert log.drain(again) == log.written
    again.close()


def test_a_file_that_appears_later_is_read_from_its_start(log: Log) -> None:
    """Falco may start after us."""
    tail = log.tail()
    assert log.drain(tail) == []
    assert not tail.is_open
    log.write(2)
    assert log.drain(tail) == log.written
    tail.close()


def test_a_line_is_handed_out_when_it_is_complete(log: Log) -> None:
    """A half line waits for its end, also across a restart."""
    tail = log.tail(from_start=True)
    with log.path.open("ab") as file:
        file.write(b'{"half":')
    assert log.drain(tail) == []
    tail.close()
    tail = log.tail()
    assert log.drain(tail) == []
    with log.path.open("ab") as file:
        file.write(b" 1}\n\n{")
    assert log.drain(tail) == [b'{"half": 1}']
    tail.close()


def test_what_was_not_committed_comes_again(log: Log) -> None:
    """Lines handed out and not made safe are read again after a crash."""
    tail = log.tail(from_start=True)
    log.write(2)
    assert log.drain(tail) == log.written
    log.write(2)
    assert tail.read(log.now) == log.written[2:]
    tail.close()
    again = log.tail()
    assert log.drain(again) == log.written[2:]
    again.close()


def test_a_renamed_file_is_read_to_its_end(log: Log) -> None:
    """The writer may go on in the renamed file until it reopens; nothing of both is lost."""
    tail = log.tail(from_start=True)
    log.write(2)
    got = log.drain(tail)
    moved = log.rotate()
    log.write(2, into=moved)
    got += tail.read(log.now)
    log.write(1)
    got += tail.read(log.now)
    log.write(1, into=moved)
    got += log.drain(tail)
    assert sorted(got) == sorted(log.written)
    assert len(got) == len(set(got))
    tail.close()


def test_a_truncated_file_is_read_to_the_end_of_its_copy(log: Log) -> None:
    """copytruncate: what had not been read lies in the copy, even when the file has grown beyond our place."""
    tail = log.tail(from_start=True)
    log.write(5)
    got = log.drain(tail)
    log.write(3)
    log.copy_truncate()
    log.write(20)
    got += log.drain(tail)
    assert got == log.written
    assert tail.counts.lost_total == 0
    tail.close()


def test_a_swapped_link_is_followed(tmp_path: Path) -> None:
    """The path may be a symbolic link that is pointed elsewhere, as Kubernetes does."""
    log = Log(tmp_path)
    first, second = tmp_path / "a.log", tmp_path / "b.log"
    first.touch()
    log.path.symlink_to(first)
    tail = log.tail(from_start=True)
    log.write(2)
    got = log.drain(tail)
    second.touch()
    link = tmp_path / "new"
    link.symlink_to(second)
    link.rename(log.path)
    log.write(1, into=first)
    log.write(2)
    got += log.drain(tail)
    assert sorted(got) == sorted(log.written)
    tail.close()


@pytest.mark.parametrize("how", ["rotate", "copy_truncate"])
@pytest.mark.parametrize("times", [1, 2, 3])
def test_rotation_while_we_were_away_loses_nothing(log: Log, how: str, times: int) -> None:
    """The remembered content is found beside the file, and whole files rotated since are read too."""
    tail = log.tail(from_start=True)
    log.write(3)
    got = log.drain(tail)
    tail.close()
    log.write(2)
    for _ in range(times):
        getattr(log, how)()
        log.write(2)
        os.utime(log.path.with_name(f"falco.json.{log._rotated}"), ns=(1, 10**18 + log._rotated))
    tail = log.tail()
    got += log.drain(tail)
    assert got == log.written
    assert tail.counts.lost_total == 0
    tail.close()


def test_content_that_is_gone_is_said(log: Log) -> None:
    """A file removed or compressed while we were away: the new one is read, the loss is told."""
    tail = log.tail(from_start=True)
    log.write(3)
    log.drain(tail)
    tail.close()
    log.path.unlink()
    log.write(2)
    tail = log.tail()
    assert log.drain(tail) == log.written[3:]
    assert tail.counts.lost_total == 1
    assert "not found" in tail.counts.lost[0]
    tail.close()


def test_overlong_lines_are_counted_and_passed_over(log: Log) -> None:
    """Neither memory nor the lines around it suffer; the count tells."""
    tail = log.tail(from_start=True, max_line=100)
    log.write(1)
    with log.path.open("ab") as file:
        file.write(b"x" * 600_000)
    got = log.drain(tail)
    assert all(len(each.pending) <= 100 for each in tail._files)
    with log.path.open("ab") as file:
        file.write(b"x" * 50 + b"\n" + b"y" * 101 + b"\n")
    log.write(1)
    got += log.drain(tail)
    assert got == log.written
    assert tail.counts.overlong == 2
    tail.close()


def test_an_unreadable_memory_is_an_error_with_a_remedy(log: Log) -> None:
    """Beginning anew silently would lose or double."""
    log.state.write_bytes(b"{nonsense")
    with pytest.raises(BadInput, match="position"):
        log.tail()


def test_a_memory_of_another_file_is_not_used(log: Log, tmp_path: Path) -> None:
    """When the configured paths change places, no place of one file is taken for the other's."""
    log.write(3)
    tail = log.tail(from_start=True)
    assert log.drain(tail) == log.written
    tail.close()
    other = tmp_path / "other.json"
    other.write_bytes(b"one\ntwo\n")
    tail = Tail(other, log.state, from_start=True)
    assert log.drain(tail) == [b"one", b"two"]
    assert tail.counts.lost_total == 0
    tail.close()


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["write", "rotate", "copy_truncate", "restart", "late", "wait"]),
        st.booleans(),
    ),
    max_size=25,
)


@settings(
    max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
@given(steps=STEPS)
def test_whatever_happens_each_line_comes_once(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, bool]]
) -> None:
    """Any mixture of writing, reading, rotating and restarting: every line exactly once."""
    log = Log(tmp_path_factory.mktemp("tail"))
    log.path.touch()
    log.order()
    tail = log.tail(from_start=True)
    got: list[bytes] = log.drain(tail)
    moved: Path | None = None
    for step, with_reading in steps:
        match step:
            case "write":
                log.write(2)
            case "wait":
                got += log.drain(tail)
            case "rotate":
                moved = log.rotate()
            case "copy_truncate":
                if not (tail._files and tail._files[-1].head):
                    # Content that was truncated away before we looked once has no name.
                    got += tail.read(log.now)
                    tail.commit()
                log.copy_truncate()
                moved = None
            case "late" if moved is not None and len(tail._files) > 1:
                log.write(1, into=moved)
            case "restart":
                tail.close()
                tail = log.tail()
        log.order()
        if with_reading:
            got += tail.read(log.now)
            tail.commit()
    got += log.drain(tail)
    assert sorted(got) == sorted(log.written)
    assert tail.counts.lost_total == 0
    tail.close()
