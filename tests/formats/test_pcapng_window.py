"""Windows of a large file: each a file of its own whose frames keep their numbers, together the whole file."""

from __future__ import annotations

import struct
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tripshark.errors import BadInput, Refused
from tripshark.formats import blocks, pcapng_window
from tripshark.formats.pcapng_read import read as read_file
from tripshark.formats.pcapng_window import Outline, Window, cut, outline

S = 1_000_000_000
T = 1_790_000_000 * S
NANO = struct.pack("<HHBxxx", blocks.IF_TSRESOL, 1, 9)


def block(kind: int, body: bytes, order: str = "<") -> bytes:
    body += bytes(-len(body) % 4)
    length = struct.pack(order + "I", len(body) + 12)
    return struct.pack(order + "I", kind) + length + body + length


def section(order: str = "<", length: int = -1) -> bytes:
    return block(
        blocks.SECTION, struct.pack(order + "IHHq", blocks.BYTE_ORDER, 1, 0, length), order
    )


def interface(options: bytes = NANO, order: str = "<") -> bytes:
    return block(blocks.INTERFACE, struct.pack(order + "HHI", 1, 0, 0) + options, order)


def packet(ns: int, size: int = 60, interface: int = 0, order: str = "<") -> bytes:
    head = struct.pack(order + "IIIII", interface, ns >> 32, ns & 0xFFFFFFFF, size, size)
    return block(blocks.PACKET, head + b"\xee" * size, order)


def row(us: int) -> bytes:
    return block(blocks.JOURNAL, b"__REALTIME_TIMESTAMP=%d\nMESSAGE=hello\n" % us)


def names(name: bytes = b"payments/checkout") -> bytes:
    value = b"\x0a\x00\x00\x01" + name + b"\0"
    record = struct.pack("<HH", 1, len(value)) + value + bytes(-len(value) % 4) + bytes(4)
    return block(blocks.NAMES, record)


def reader(data: bytes) -> Callable[[int, int], bytes]:
    return lambda at, size: data[at : at + size]


def seen(
    data: bytes, around_ns: int = 0, most_bytes: int = 400_000, most_frames: int = 100_000
) -> Outline:
    return outline(
        reader(data),
        len(data),
        around_ns=around_ns,
        most_bytes=most_bytes,
        most_frames=most_frames,
    )


def window_file(data: bytes, whole: Outline, window: Window) -> bytes:
    return b"".join(cut(reader(data), whole, window))


def long_file(frames: int = 20_000, size: int = 60) -> bytes:
    packets = b"".join(packet(T + i * S // 1000, size) for i in range(frames))
    return section() + interface() + names() + packets


def test_windows_cover_the_file_and_follow_each_other() -> None:
    """Every frame is in exactly one window, in the file's order, and no window is larger than it may be."""
    whole = seen(long_file(), around_ns=T + 10 * S)
    assert whole.frames == 20_000
    assert whole.windows[0].first == 1
    for before, after in zip(whole.windows, whole.windows[1:], strict=False):
        assert after.first == before.first + before.frames
        assert after.start == before.stop
        assert after.before_ns == before.last_ns
    assert sum(each.frames for each in whole.windows) == 20_000
    assert all(each.stop - each.start <= 400_000 for each in whole.windows)
    assert len(whole.windows) > 3


def test_the_window_around_a_moment_reaches_back_and_forward() -> None:
    """T0 lies inside, with about as much before it as behind it."""
    t0 = T + 10 * S
    window = (whole := seen(long_file(), around_ns=t0)).holding()
    assert window is whole.windows[whole.around]
    assert window.first_ns < t0 < window.last_ns
    back, forward = t0 - window.first_ns, window.last_ns - t0
    assert 0.5 < back / forward < 2


@pytest.mark.parametrize(("t0", "first"), [(T - S, 1), (T + 1000 * S, None), (0, 1)])
def test_a_moment_outside_means_the_nearest_end(t0: int, first: int | None) -> None:
    """An alert before the first packet or after the last is looked at from that end; no moment is the beginning."""
    whole = seen(long_file(), around_ns=t0)
    window = whole.holding()
    assert window.first == (first if first is not None else whole.windows[-1].first)


def test_frames_keep_their_numbers_and_times() -> None:
    """A window read back has as many frames before its own as the file has, and then the same bytes."""
    data = long_file()
    whole = seen(data, around_ns=T + 10 * S)
    every = read_file(data)
    for window in (whole.windows[0], whole.holding(), whole.windows[-1]):
        found = read_file(window_file(data, whole, window))
        assert found.truncated_at is None
        assert len(found.packets) == window.first - 1 + window.frames
        own = slice(window.first - 1, window.first - 1 + window.frames)
        assert (found.packets.time_ns[own] == every.packets.time_ns[own]).all()
        assert found.packets.time_ns[0] == T
        assert not found.packets.caplen[: window.first - 1].any()
        assert (found.packets.caplen[own] == 60).all()
        assert found.names == every.names
        assert found.interfaces[0] == every.interfaces[0]
        if window.first > 1:
            assert found.packets.time_ns[window.first - 2] == window.before_ns


def test_the_window_of_a_frame_and_of_a_time() -> None:
    """Any frame's window holds it; beyond the ends it is the last one or the first."""
    whole = seen(long_file(), around_ns=T + 10 * S)
    for number in (1, 777, 12_345, 20_000):
        window = whole.holding(frame=number)
        assert window.first <= number < window.first + window.frames
        at = whole.holding(time_ns=T + (number - 1) * S // 1000)
        assert at == window
    assert whole.holding(frame=99_999) == whole.windows[-1]
    assert whole.holding(time_ns=1) == whole.windows[0]
    assert whole.holding(time_ns=T * 2) == whole.windows[-1]


def test_many_small_frames_are_bounded_by_their_number() -> None:
    """A window has no more frames than it may have, however small they are."""
    whole = seen(long_file(), most_bytes=1 << 30, most_frames=3000)
    assert all(each.frames <= 3000 for each in whole.windows)


def test_blocks_larger_than_a_window_make_one_of_their_own() -> None:
    """A landmark that is larger than the bound is still shown."""
    data = section() + interface() + packet(T, 300_000) + packet(T + S, 300_000)
    whole = seen(data, most_bytes=1000)
    assert [each.frames for each in whole.windows] == [1, 1]


def test_alert_rows_are_frames() -> None:
    """Journal entries count, tell the time, and stand in the window."""
    data = section() + interface() + row(T // 1000) + packet(T + S) + row((T + 2 * S) // 1000)
    whole = seen(data)
    assert (whole.frames, whole.first_ns, whole.last_ns) == (3, T, T + 2 * S)
    assert len(read_file(window_file(data, whole, whole.holding())).rows) == 2


def test_what_does_not_say_when_takes_the_time_before() -> None:
    """Simple packets, rows without a time, and interfaces nobody declared have none of their own."""
    simple = block(blocks.SIMPLE_PACKET, struct.pack("<I", 0))
    untold = block(blocks.JOURNAL, b"MESSAGE=hello\n")
    data = section() + interface() + packet(T) + simple + untold + packet(T + S, interface=7)
    whole = seen(data)
    assert (whole.frames, whole.first_ns, whole.last_ns) == (4, T, T)


def test_interfaces_named_in_the_middle_keep_their_numbers() -> None:
    """A window that begins after one, or holds one, has it; empty frames have an interface of their own."""
    packets = b"".join(packet(T + i * S // 1000) for i in range(2000))
    later = b"".join(packet(T + (2000 + i) * S // 1000, interface=1) for i in range(4000))
    described = interface(NANO + struct.pack("<HH4s", blocks.IF_NAME, 4, b"eth9"))
    data = section() + interface() + packets + described + later + interface() + names(b"late")
    whole = seen(data, most_bytes=150_000)
    for window in whole.windows:
        found = read_file(window_file(data, whole, window))
        own = found.packets.source[window.first - 1 :]
        if window.first > 2001:
            assert set(own.tolist()) == {1}
            assert found.interfaces[1].name == "eth9"
        assert found.names == {"10.0.0.1": "late"}
        assert len(found.packets) == window.first - 1 + window.frames


def test_sections_are_not_mixed() -> None:
    """A window lies in one section, with that section's byte order, and forgets the section's length."""
    big = b"".join(packet(T + S + i, order=">") for i in range(700))
    resolution = struct.pack(">HHBxxx", blocks.IF_TSRESOL, 1, 9)
    data = (
        section(length=5000)
        + interface()
        + b"".join(packet(T + i) for i in range(700))
        + section(">")
        + interface(resolution, ">")
        + big
    )
    whole = seen(data, around_ns=T + S + 5)
    assert whole.orders == ("<", ">")
    first, second = (window_file(data, whole, each) for each in whole.windows)
    assert first[16:24] == b"\xff" * 8
    found = read_file(second)
    assert len(found.packets) == 1400
    assert found.packets.time_ns[0] == T
    assert found.packets.time_ns[-1] == T + S + 699
    assert len(read_file(first).packets) == 700


def test_clocks_of_any_resolution() -> None:
    """Microseconds by default, powers of two, and offsets of whole seconds."""
    micro = section() + interface(b"") + packet(T // 1000)
    assert seen(micro).first_ns == T
    binary = struct.pack("<HHBxxx", blocks.IF_TSRESOL, 1, 0x80 | 10)
    shifted = struct.pack("<HHq", blocks.IF_TSOFFSET, 8, 100)
    odd = struct.pack("<HH", 99, 0) + struct.pack("<HHBBxx", blocks.IF_TSRESOL, 2, 1, 1)
    data = section() + interface(odd + binary + shifted + bytes(4)) + packet(5 << 10)
    assert seen(data).first_ns == 105 * S
    torn = section() + interface(struct.pack("<HH", blocks.IF_NAME, 500)) + packet(T // 1000)
    assert seen(torn).first_ns == T
    before = struct.pack("<HHq", blocks.IF_TSOFFSET, 8, -(1 << 40))
    assert seen(section() + interface(before) + packet(T // 1000)).first_ns == 0


def test_a_garbled_rest_is_left_out() -> None:
    """What comes before it can be looked at."""
    good = section() + interface() + packet(T)
    for bad in (
        b"\x06\0\0\0\x07\0\0\0" + bytes(20),  # no multiple of four
        struct.pack("<II", blocks.PACKET, 16) + bytes(8),  # too short for a packet
        struct.pack("<II", blocks.PACKET, 4000) + bytes(60),  # torn
        bytes(5),
    ):
        assert seen(good + bad).frames == 1
    odd = block(blocks.SECTION, bytes(16))  # no byte order that we know: read as before
    assert seen(good + odd + packet(T)).frames == 2


def test_unknown_blocks_are_passed_over() -> None:
    """They are no frames and no part of the head."""
    data = section() + interface() + block(0x77, bytes(8)) + packet(T) + block(0x77, bytes(8))
    whole = seen(data)
    assert whole.frames == 1
    assert len(read_file(window_file(data, whole, whole.holding())).packets) == 1


@pytest.mark.parametrize(
    "data",
    [b"", b"GIF89a" + bytes(100), section() + interface(), block(blocks.SECTION, bytes(16))],
)
def test_what_has_no_windows(data: bytes) -> None:
    """No pcapng file, or one without a frame."""
    with pytest.raises(BadInput):
        seen(data)


def test_headers_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of names alone does not fill the memory."""
    monkeypatch.setattr(pcapng_window, "_MAX_HEADERS", 1000)
    with pytest.raises(BadInput, match="too many interfaces"):
        seen(section() + interface() + names() * 100 + packet(T))


def test_too_deep_a_window_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """It says what else can be done."""
    data = long_file(2000)
    whole = seen(data, most_bytes=70_000)
    monkeypatch.setattr(pcapng_window, "MAX_BEFORE", 100)
    with pytest.raises(Refused, match="packets lie before"):
        window_file(data, whole, whole.windows[-1])


def test_a_file_that_shrinks_while_it_is_read_is_said() -> None:
    """No window is made of it."""
    data = long_file(2000)
    whole = seen(data)
    with pytest.raises(BadInput, match="shorter"):
        b"".join(cut(reader(data[:5000]), whole, whole.windows[-1]))


def test_pieces_do_not_change_what_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks that reach from one piece into the next are read as any other."""
    data = long_file(1500) + block(blocks.JOURNAL, bytes(3000)) + packet(T + 9 * S)
    expected = seen(data)
    for size in (500, 997, 4096):
        monkeypatch.setattr(pcapng_window, "_PIECE", size)
        assert seen(data) == expected
        made = window_file(data, expected, expected.windows[-1])
        assert len(read_file(made).packets) == 1501


@given(st.binary(max_size=400), st.integers(0, 400))
def test_nothing_breaks_it(noise: bytes, at: int) -> None:
    """Any bytes anywhere give windows or a `BadInput`."""
    good = section() + interface() + b"".join(packet(T + i) for i in range(3))
    data = good[:at] + noise + good[at:]
    try:
        whole = seen(data)
    except BadInput:
        return
    assert sum(each.frames for each in whole.windows) == whole.frames
    for window in whole.windows:
        window_file(data, whole, window)
