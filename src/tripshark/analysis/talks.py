"""Who talked to whom: conversations, endpoints, pairs, connection attempts and activity over time.

Memory is bounded whatever the packets are: tables stop growing at their bound, what no longer fits is counted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from tripshark.analysis import filters
from tripshark.formats.community_id import community_id
from tripshark.formats.tshark import Frame
from tripshark.model.activity import MAX_BINS, Activity
from tripshark.model.alert import Json
from tripshark.model.conversation import Conversation
from tripshark.model.reading import MAX_ROWS
from tripshark.model.text import printable

MAX_CONVERSATIONS = 50_000  # tracked; the findings keep the MAX_ROWS that matter most
MAX_ENDPOINTS = 50_000
MAX_PAIRS = 50_000
MAX_ATTEMPTS = 20_000
_MAX_TIMES = 512  # of connections to one place
_FRAMES = 20  # cited
_FIRST_STEP_NS = 10_000_000
_PAUSE_NS = 500_000_000  # UDP: what comes within half a second is one exchange

_BARE = frozenset({"TCP", "UDP", "SCTP", "IPv4", "IPv6"})  # says no more than the transport does
_RST, _SYN, _ACK = 0x04, 0x02, 0x10


class Key(NamedTuple):
    """One conversation, whichever way a packet goes. TCP adds the stream: a port pair may be used twice."""

    proto: str
    low: tuple[str, int]
    high: tuple[str, int]
    stream: int


class Talk:
    """One conversation while it is being counted; `opener` sent the first packet seen."""

    __slots__ = (
        *("again", "app", "bytes", "first", "frame", "frames", "last_ns", "named", "packets"),
        *("resets", "tunnel"),
    )

    def __init__(self, first: Frame, *, named: bool) -> None:
        self.first = first
        self.frame = first.number
        self.frames: list[int] = []  # the first few, for citing
        self.last_ns = first.time_ns
        self.packets = [0, 0]  # from the opener, to the opener
        self.bytes = [0, 0]
        self.app = ""
        self.tunnel = ""
        self.named = named
        self.again = self.resets = 0

    def add(self, frame: Frame) -> None:
        """One packet of it."""
        back = (frame.src, frame.sport) != (self.first.src, self.first.sport)
        self.packets[back] += 1
        self.bytes[back] += frame.length
        self.last_ns = max(self.last_ns, frame.time_ns)
        self.again += frame.again
        self.resets += bool(frame.tcp_flags & _RST)
        if len(self.frames) < (_FRAMES if self.named else 3):
            self.frames.append(frame.number)
        if frame.protocol and (not self.app or frame.protocol not in _BARE):
            self.app = frame.protocol
        self.tunnel = self.tunnel or frame.tunnel

    def conversation(self, own: set[str | None]) -> Conversation:
        """With the target's side first."""
        first = self.first
        swap = first.dst in own and first.src not in own
        a, b = (first.src, first.sport), (first.dst, first.dport)
        out, back = (1, 0) if swap else (0, 1)
        if swap:
            a, b = b, a
        return Conversation(
            proto=printable(first.transport),
            a=a[0],
            a_port=a[1],
            b=b[0],
            b_port=b[1],
            packets_ab=self.packets[out],
            packets_ba=self.packets[back],
            bytes_ab=self.bytes[out],
            bytes_ba=self.bytes[back],
            first_ns=first.time_ns,
            last_ns=self.last_ns,
            frame=self.frame,
            opened_by=first.src,
            from_start=first.opens,
            app=printable(self.app),
            tunnel=printable(self.tunnel),
            named=self.named,
            filter=filters.conversation(first),
            community_id=_community_id(first),
            retransmissions=self.again,
            resets=self.resets,
        )


class Side:
    """One address and what it sent and was sent."""

    __slots__ = ("bytes_in", "bytes_out", "frame", "packets_in", "packets_out")

    def __init__(self, frame: int) -> None:
        self.frame = frame
        self.packets_out = self.packets_in = self.bytes_out = self.bytes_in = 0


class Pair:
    """What one address sent to another; `frames` are the first of it."""

    __slots__ = ("bytes", "first_ns", "frames", "last_ns", "nested", "packets")

    def __init__(self, first_ns: int) -> None:
        self.first_ns = self.last_ns = first_ns
        self.frames: list[int] = []
        self.packets = self.bytes = 0
        self.nested = False  # some of it was a tunnel, or an ICMP error that quotes a packet


class Attempts:
    """Connections that one address opened to one port of another (UDP: exchanges begun)."""

    __slots__ = ("answered", "count", "first_ns", "frames", "last_ns", "last_stream", "times")

    def __init__(self, first_ns: int) -> None:
        self.first_ns = self.last_ns = first_ns
        self.count = 0  # SYNs, sent again or not (UDP: packets)
        self.frames: list[int] = []
        self.times: list[int] = []  # when each began
        self.last_stream = -1
        self.answered = False

    def add(self, frame: Frame, *, begins: bool) -> None:
        """One SYN (UDP: one packet)."""
        self.count += 1
        self.last_ns = max(self.last_ns, frame.time_ns)
        if begins and len(self.times) < _MAX_TIMES:
            self.times.append(frame.time_ns)
            if len(self.frames) < _FRAMES:
                self.frames.append(frame.number)


Place = tuple[str, str, str, int]  # proto, from, to, port


class Talks:
    """Takes every packet with an IP header, in file order."""

    def __init__(self, own: set[str | None], is_named: Callable[[Frame], bool]) -> None:
        self._own = own
        self._is_named = is_named
        self.talks: dict[Key, Talk] = {}
        self.sides: dict[str, Side] = {}
        self.pairs: dict[tuple[str, str], Pair] = {}
        self.attempts: dict[Place, Attempts] = {}
        self.untracked = 0  # packets of conversations beyond the bound
        self.again: list[int] = []  # the first frames sent again
        self.segments = self.sent_again = 0
        self.named_seen = self.cut = False
        self.activity = _Bins()

    def add(self, frame: Frame) -> None:
        """One packet."""
        self._converse(frame)
        self._count(frame)
        self.activity.add(frame.time_ns, frame.length, out=frame.src in self._own)
        if frame.transport == "tcp":
            self.segments += 1
            if frame.again:
                self.sent_again += 1
                if len(self.again) < _FRAMES:
                    self.again.append(frame.number)
            if frame.opens:
                self._attempt(frame)
            elif frame.tcp_flags & (_SYN | _ACK) == _SYN | _ACK:
                tried = self.attempts.get(("tcp", frame.dst, frame.src, frame.sport))
                if tried is not None:
                    tried.answered = True
        elif frame.transport == "udp" and frame.sport > frame.dport:
            self._attempt(frame)

    def notes(self) -> tuple[str, ...]:
        """What the reader should know about what did not fit."""
        if not self.untracked:
            return ()
        beyond = f"conversations beyond the first {MAX_CONVERSATIONS}"
        return (f"{self.untracked} packets belong to {beyond}",)

    def kept(self) -> tuple[Conversation, ...]:
        """The alert's own and the largest, in the order of their first packets."""
        talks = sorted(
            self.talks.values(),
            key=lambda talk: (not talk.named, -sum(talk.bytes), talk.frame),
        )[:MAX_ROWS]
        return tuple(
            talk.conversation(self._own) for talk in sorted(talks, key=lambda talk: talk.frame)
        )

    def endpoints(self, name_of: Callable[[str], str]) -> tuple[dict[str, Json], ...]:
        """Our own first, then those with most bytes."""
        order = sorted(
            self.sides.items(),
            key=lambda item: (item[0] not in self._own, -item[1].bytes_out - item[1].bytes_in),
        )
        return tuple(
            {
                "address": address,
                "name": printable(name_of(address)),
                "ours": address in self._own,
                "packets_out": side.packets_out,
                "packets_in": side.packets_in,
                "bytes_out": side.bytes_out,
                "bytes_in": side.bytes_in,
                "frame": side.frame,
                "filter": filters.either(address),
            }
            for address, side in order[:MAX_ROWS]
        )

    def _converse(self, frame: Frame) -> None:
        one, other = (frame.src, frame.sport), (frame.dst, frame.dport)
        low, high = (one, other) if one <= other else (other, one)
        key = Key(frame.transport, low, high, frame.stream if frame.transport == "tcp" else -1)
        talk = self.talks.get(key)
        if talk is None:
            named = self._is_named(frame)
            self.named_seen = self.named_seen or named
            # What an alert names always finds a place.
            if len(self.talks) >= MAX_CONVERSATIONS + (MAX_ROWS if named else 0):
                self.untracked += 1
                return
            talk = self.talks[key] = Talk(frame, named=named)
        talk.add(frame)

    def _count(self, frame: Frame) -> None:
        if (side := self._side(frame.src, frame.number)) is not None:
            side.packets_out += 1
            side.bytes_out += frame.length
        if (side := self._side(frame.dst, frame.number)) is not None:
            side.packets_in += 1
            side.bytes_in += frame.length
        pair = self.pairs.get((frame.src, frame.dst))
        if pair is None:
            if len(self.pairs) >= MAX_PAIRS:
                self.cut = True
                return
            pair = self.pairs[frame.src, frame.dst] = Pair(frame.time_ns)
        pair.packets += 1
        pair.bytes += frame.length
        pair.last_ns = max(pair.last_ns, frame.time_ns)
        pair.nested = pair.nested or frame.nested
        if len(pair.frames) < _FRAMES:
            pair.frames.append(frame.number)

    def _side(self, address: str, number: int) -> Side | None:
        side = self.sides.get(address)
        if side is None:
            if len(self.sides) >= MAX_ENDPOINTS and address not in self._own:
                self.cut = True
                return None
            side = self.sides[address] = Side(number)
        return side

    def _attempt(self, frame: Frame) -> None:
        place = (frame.transport, frame.src, frame.dst, frame.dport)
        tried = self.attempts.get(place)
        if tried is None:
            if len(self.attempts) >= MAX_ATTEMPTS:
                return
            tried = self.attempts[place] = Attempts(frame.time_ns)
        if frame.transport == "tcp":
            begins = frame.stream != tried.last_stream
            tried.last_stream = frame.stream
        else:
            begins = not tried.times or frame.time_ns - tried.last_ns > _PAUSE_NS
        tried.add(frame, begins=begins)


class _Bins:
    """Counts per moment; bins double in width whenever there would be more than `MAX_BINS`."""

    def __init__(self) -> None:
        self._step = _FIRST_STEP_NS
        self._bins: dict[int, list[int]] = {}
        self._low = self._high = 0

    def add(self, time_ns: int, length: int, *, out: bool) -> None:
        at = time_ns // self._step
        if not self._bins:
            self._low = self._high = at
        self._low, self._high = min(self._low, at), max(self._high, at)
        counts = self._bins.get(at)
        if counts is None:
            counts = self._bins[at] = [0, 0, 0, 0]
        place = 0 if out else 1
        counts[place] += 1
        counts[place + 2] += length
        while self._high - self._low >= MAX_BINS:
            self._double()

    def _double(self) -> None:
        wider: dict[int, list[int]] = {}
        for at, counts in self._bins.items():
            into = wider.setdefault(at // 2, [0, 0, 0, 0])
            for place, count in enumerate(counts):
                into[place] += count
        self._bins, self._step = wider, self._step * 2
        self._low, self._high = self._low // 2, self._high // 2

    def told(self) -> Activity:
        if not self._bins:
            return Activity()
        none = [0, 0, 0, 0]
        rows: Iterable[list[int]] = (
            self._bins.get(at, none) for at in range(self._low, self._high + 1)
        )
        out, into, out_bytes, into_bytes = zip(*rows, strict=True)
        return Activity(
            start_ns=self._low * self._step,
            step_ns=self._step,
            packets_out=out,
            packets_in=into,
            bytes_out=out_bytes,
            bytes_in=into_bytes,
        )


def _community_id(first: Frame) -> str:
    icmp = first.transport in {"icmp", "icmpv6"}
    ports = (first.icmp_type, first.icmp_code) if icmp else (first.sport, first.dport)
    if ports[0] < 0:
        return ""
    return community_id(first.transport, first.src, ports[0], first.dst, ports[1])
