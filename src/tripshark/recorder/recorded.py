"""What is known of one recorded namespace while it lives and after: its rings and their tombstones."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from dataclasses import dataclass, field

from tripshark.formats.wire import BlockRef, Json, RingCopy, from_json, to_json
from tripshark.model.recording import Mode
from tripshark.model.target import (
    Interface,
    RingState,
    Target,
    TargetKey,
    TargetKind,
)
from tripshark.recorder.copies import Copy
from tripshark.recorder.cradle import Cradle
from tripshark.recorder.flowcut import Flows
from tripshark.recorder.ring import Counters, Ring


@dataclass(slots=True, kw_only=True)
class Tombstone:
    """A ring that is closed: what it held, copied out."""

    id: str
    target: TargetKey
    interface: Interface
    snaplen: int
    opened_ns: int
    closed_ns: int
    counters: Counters
    oldest_ns: int
    newest_ns: int
    copy: Copy
    flow_cut: int = 0


@dataclass(slots=True, kw_only=True)
class Recorded:
    """One namespace for its whole life."""

    key: TargetKey
    kind: TargetKind
    name: str
    inode: int
    since_ns: int
    paths: set[str]  # where it can be entered; a named one may have several names
    quota: int = 0  # bytes of ring memory it may use
    wanted: int = 0  # bytes it would get if there were enough for all
    mode: Mode = Mode.FULL  # what is to be recorded of it
    weight: int = 1  # its share of the memory, compared with others'
    reason: str = ""  # who decided so
    halvings: int = 0  # how often its memory was halved
    reduced: bool = False  # headers only, for lack of memory
    seen_born: bool = False
    gone_ns: int = 0
    expired_ns: int = 0  # tombstones that held history up to here were discarded
    pid: int = 0
    pidfd: int = -1
    bell: socket.socket | None = None
    cradle: Cradle | None = None  # until its first ring is open
    rings: dict[int, Ring] = field(default_factory=dict)  # by ifindex
    opening: dict[int, int] = field(default_factory=dict)  # ifindex → bytes, not yet open
    frames: dict[int, int] = field(default_factory=dict)  # ifindex → bytes of the largest frame
    changing: set[Ring] = field(default_factory=set)  # being exchanged for another one
    cutting: int = 0  # tombstones that are being shortened, and are not to be seen meanwhile
    unrecorded: dict[int, str] = field(default_factory=dict)  # ifindex → why
    tombstones: list[Tombstone] = field(default_factory=list)
    problem: str = ""  # why nothing of it is recorded
    flows: Flows | None = None  # how much was recorded of each of its flows
    laid_out: tuple[int, bool] | None = None  # quota and headers that its rings were made for
    visiting: bool = False
    visit_again: bool = False
    visited: bool = False
    visit_began_s: float = 0.0
    visits: int = 0

    @property
    def alive(self) -> bool:
        return self.gone_ns == 0

    @property
    def settled(self) -> bool:
        """Whether everything that can be recorded of it is."""
        if not self.still:
            return False
        return not self.alive or (self.visited and not self.visiting and not self.opening)

    @property
    def still(self) -> bool:
        """Whether its history can be read: while a ring is exchanged, packets are in two of them."""
        return not self.changing and not self.cutting

    @property
    def closed(self) -> bool:
        """Whether nothing more of it will be recorded, for now at least."""
        return not self.alive or self.mode is Mode.OFF

    @property
    def headers(self) -> bool:
        """Whether only headers are recorded."""
        return self.reduced or self.mode is Mode.HEADERS

    @property
    def notes(self) -> list[str]:
        """Why it is not, or not fully, recorded."""
        if self.alive and self.mode is Mode.OFF:
            return [f"not recorded: {self.reason or 'it is to be off'}"]
        if self.problem:
            return [self.problem]
        notes = sorted(set(self.unrecorded.values()))
        if self.reduced:
            notes.append("headers only, for lack of memory")
        elif 0 < self.quota < self.wanted:
            notes.append(
                f"{self.quota >> 10} KiB instead of {self.wanted >> 10}, for lack of memory"
            )
        if self.flows is not None and self.flows.problem:
            notes.append(self.flows.problem)
        return notes

    @property
    def ring_bytes(self) -> int:
        rings = sum(each.shape.bytes for each in self.rings.values())
        return rings + sum(self.opening.values()) + (self.flows.bytes if self.flows else 0)

    def describe(self) -> Target:
        """As everybody else knows it."""
        living = [
            _state(each, True, each.shape.bytes, *each.span_ns(), 0)
            for each in self.rings.values()
        ]
        dead = [
            _state(each, False, each.copy.size, each.oldest_ns, each.newest_ns, each.closed_ns)
            for each in self.tombstones
        ]
        return Target(
            key=self.key,
            kind=self.kind,
            name=self.name,
            inode=self.inode,
            since_ns=self.since_ns,
            gone_ns=self.gone_ns,
            seen_born=self.seen_born,
            rings=(*living, *dead),
            note="; ".join(self.notes)[:500],
            mode=self.mode.value,
            weight=self.weight,
        )

    def facts(self) -> Json:
        """What a restarted recorder must know."""
        return {
            "key": self.key,
            "kind": self.kind.value,
            "name": self.name,
            "inode": self.inode,
            "since_ns": self.since_ns,
            "paths": sorted(self.paths)[:16],
            "quota": self.quota,
            "wanted": self.wanted,
            "mode": self.mode.value,
            "weight": self.weight,
            "reason": self.reason,
            "halvings": self.halvings,
            "reduced": self.reduced,
            "laid_out": self.laid_out,
            "seen_born": self.seen_born,
            "gone_ns": self.gone_ns,
            "expired_ns": self.expired_ns,
            "pid": self.pid,
        }

    @classmethod
    def restored(cls, facts: Json) -> Recorded:
        given = dict(facts)
        return cls(
            **given
            | {
                "key": TargetKey(given["key"]),
                "kind": TargetKind(given["kind"]),
                "mode": Mode(given.get("mode", "full")),
                "laid_out": tuple(given.get("laid_out") or ()) or None,
                "paths": set(given["paths"]),
            }
        )


def _state(
    each: Ring | Tombstone, live: bool, held: int, oldest_ns: int, newest_ns: int, closed_ns: int
) -> RingState:
    return RingState(
        ring=each.id,
        interface=each.interface,
        live=live,
        bytes=held,
        snaplen=each.snaplen,
        packets=each.counters.packets,
        drops=each.counters.drops,
        blocks=each.counters.blocks,
        oldest_ns=oldest_ns,
        newest_ns=newest_ns,
        opened_ns=each.opened_ns,
        closed_ns=closed_ns,
        flow_cut=each.flow_cut,
    )


def ring_copy(
    each: Ring | Tombstone, blocks: Sequence[BlockRef], size: int, overwritten: int = 0
) -> Json:
    """A `RingCopy` as it travels, `size` bytes of blocks beside it."""
    copy = RingCopy(
        ring=each.id,
        target=each.target,
        interface=each.interface,
        snaplen=each.snaplen,
        live=isinstance(each, Ring),
        opened_ns=each.opened_ns,
        closed_ns=each.closed_ns if isinstance(each, Tombstone) else 0,
        packets=each.counters.packets,
        drops=each.counters.drops,
        overwritten=overwritten,
        gaps=tuple(each.counters.gaps),
        losses=tuple(each.counters.losses),
        blocks=tuple(blocks),
        data=memoryview(b""),
        flow_cut=each.flow_cut,
    )
    facts: Json = to_json(copy)
    return facts | {"data": size}


def ring_facts(ring: Ring) -> Json:
    """What a restarted recorder must know of an open ring."""
    return ring_copy(ring, (), 0) | {
        "block": ring.shape.block,
        "count": ring.shape.blocks,
        "retired": ring.counters.blocks,
        "counted_ns": ring.counted_ns,
        "exposed": ring.exposed,
        "left_ns": ring.left_ns,
    }


def ring_tally(ring: Ring) -> Json:
    """Those of the facts that change with every packet."""
    counters = ring.counters
    return {
        "packets": counters.packets,
        "drops": counters.drops,
        "retired": counters.blocks,
        "counted_ns": ring.counted_ns,
    }


def tombstone_facts(grave: Tombstone) -> Json:
    """What a restarted recorder must know of a closed ring; its blocks describe themselves."""
    return ring_copy(grave, (), 0) | {
        "size": grave.copy.size,
        "retired": grave.counters.blocks,
        "oldest_ns": grave.oldest_ns,
        "newest_ns": grave.newest_ns,
    }


def restored_counters(facts: Json) -> tuple[Counters, RingCopy]:
    """The counters, and the rest of the facts as a copy without blocks."""
    known = from_json(
        RingCopy, {name: facts[name] for name in RingCopy.__dataclass_fields__ if name in facts}
    )
    counters = Counters(
        packets=known.packets,
        drops=known.drops,
        blocks=int(facts["retired"]),
        losses=list(known.losses),
        gaps=list(known.gaps),
    )
    return counters, known
