"""What one capture has kept so far, on disk in a form that a crash cannot spoil.

A part of an incident is two files of its draft: `spool-N.pcapng` (packets, with their place in the ring as
epb_packetid) and `part-N.jsonl` (the latest line is the state). A torn tail of either is skipped.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import msgspec

from tripshark.errors import BadInput
from tripshark.formats import pcapng
from tripshark.formats.packets import Packets
from tripshark.formats.ring import linktype
from tripshark.formats.wire import Frozen, RingCopy
from tripshark.model.evidence import Entry
from tripshark.model.plan import Plan
from tripshark.model.target import Interface, Target
from tripshark.ports import Draft

SNAPLEN = 262_144


@dataclass(slots=True, kw_only=True)
class RingNote:
    """What is known of one ring that a part has read from; counters are since the ring was opened."""

    ring: str
    interface: Interface
    snaplen: int
    opened_ns: int
    closed_ns: int = 0
    oldest_ns: int = 0  # first packet still there at the freeze
    first_seq: int = 0  # its block; above 1, older ones have been overwritten
    seen: int = 0  # packets decoded, kept or not
    packets: int = 0
    drops: int = 0
    overwritten: int = 0
    flow_cut: int = 0  # bytes recorded in full per flow and direction, of the rest headers; 0: all
    gaps: list[tuple[int, int]] = field(default_factory=list)
    losses: list[tuple[int, int, int]] = field(default_factory=list)

    @property
    def linktype(self) -> int:
        return linktype(self.interface.hardware_type) or 0

    def drops_within(self, since_ns: int, until_ns: int) -> int:
        """Packets that were not recorded, of the losses that touch this time."""
        return sum(n for start, end, n in self.losses if end >= since_ns and start <= until_ns)


PEER = "peer"


@dataclass(slots=True, kw_only=True)
class PartState:
    """One capture of an incident: enough to finish it without whoever began it."""

    number: int
    plan: Plan
    target: Target
    until_ns: int
    frozen_ns: int = 0  # when the first freeze was done
    expired_ns: int = 0  # history older than this had been discarded
    rings: list[RingNote] = field(default_factory=list)
    entries: list[Entry] = field(default_factory=list)
    role: str = ""  # PEER: the other end of what the incident is about
    ended: str = ""  # "", "time", "idle", "limit", "gone", "recorder", "stopped"


# Made here and not where it is used: two threads that have msgspec learn a class at the same moment crash Python.
_STATE = msgspec.json.Decoder(PartState)


class Spool:
    """Appends packets and state of one part to the draft."""

    def __init__(self, draft: Draft, state: PartState) -> None:
        self.state = state
        self.bytes = 0
        self.packets = 0
        self._index: dict[str, int] = {}
        self._file = draft.create(f"spool-{state.number}.pcapng")
        self._notes = draft.create(f"part-{state.number}.jsonl")
        self._file.write(pcapng.Section(application="Tripshark spool").block())
        self.save()

    def ring(self, copy: RingCopy) -> int:
        """The index of a copy's ring in this spool; its counters are brought up to date."""
        if copy.ring not in self._index:
            self._index[copy.ring] = len(self.state.rings)
            note = RingNote(
                ring=copy.ring,
                interface=copy.interface,
                snaplen=copy.snaplen,
                opened_ns=copy.opened_ns,
            )
            self.state.rings.append(note)
            self._file.write(
                pcapng.Interface(
                    name=copy.interface.name,
                    description=copy.ring,
                    linktype=note.linktype,
                    snaplen=SNAPLEN,
                ).block()
            )
        note = self.state.rings[self._index[copy.ring]]
        note.closed_ns = copy.closed_ns
        note.packets, note.drops = copy.packets, copy.drops
        note.flow_cut = max(note.flow_cut, copy.flow_cut)
        if (
            note.seen
        ):  # of a first copy only the very oldest can be missing: the history is that much shorter
            note.overwritten += copy.overwritten
        note.gaps = sorted({*note.gaps, *copy.gaps})
        note.losses = sorted({*note.losses, *copy.losses})
        return self._index[copy.ring]

    def saw(self, ring: int, packets: Packets) -> None:
        """Count what was looked at, kept or not."""
        note = self.state.rings[ring]
        note.seen += len(packets)
        if len(packets) and not note.oldest_ns:
            note.oldest_ns = int(packets.time_ns.min())
            note.first_seq = int(packets.seq.min())

    def add(self, packets: Packets) -> None:
        """Keep these; `packets.source` is the ring's index."""
        if len(packets):
            self._file.write(pcapng.packets(packets, ids=True))
            self.bytes += int(packets.caplen.sum(dtype="int64"))
            self.packets += len(packets)

    def froze(self, frozen: Frozen) -> None:
        """Note the first freeze's time and what had been discarded by then."""
        self.state.frozen_ns = self.state.frozen_ns or frozen.at_ns
        self.state.expired_ns = max(self.state.expired_ns, frozen.expired_ns)

    def save(self) -> None:
        """Write the state; what was kept so far reaches the file system first."""
        self._file.flush()
        self._notes.write(msgspec.json.encode(self.state) + b"\n")
        self._notes.flush()

    def close(self) -> None:
        self.save()
        self._file.close()
        self._notes.close()


def parts(draft: Draft) -> Iterable[tuple[PartState, Packets, list[str]]]:
    """Every part a draft holds: its state, its packets (`source` = index into `state.rings`), and problems met."""
    for name in sorted(draft.names()):
        if not (name.startswith("part-") and name.endswith(".jsonl")):
            continue
        state = last_state(bytes(draft.read(name)))
        if state is None:
            continue
        spool = f"spool-{state.number}.pcapng"
        problems: list[str] = []
        packets = Packets.empty()
        if spool in draft.names():
            raw = draft.read(spool)
            try:
                file = pcapng.read(raw)
            except BadInput as problem:
                problems.append(f"{spool} could not be read: {problem.message}")
            else:
                packets = file.packets
                if file.truncated_at is not None:
                    problems.append(f"{spool} was cut off at byte {file.truncated_at}")
        known = packets.source < len(state.rings)
        if not known.all():
            problems.append(f"{int((~known).sum())} packets of an interface that was not noted")
            packets = packets.take(known)
        yield state, packets, problems


def last_state(lines: bytes) -> PartState | None:
    """The newest whole line; a torn one is passed over."""
    for line in reversed(lines.split(b"\n")):
        if line:
            try:
                return _STATE.decode(line)
            except msgspec.MsgspecError:
                continue
    return None
