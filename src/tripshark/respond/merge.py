"""Several sealed parts of an incident as one file: an interface per pod, packets in time order, each alert once.

The parts stay the evidence; what comes out is derived, can be made again, and is then the same bytes. Its derivation
says from which bytes it was made, how far each node's clock was off, and what was folded together. Clocks are not
corrected unless that is asked for.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from tripshark.errors import BadInput, NotVerified
from tripshark.formats import falco, pcapng
from tripshark.formats.packets import Packets, concat
from tripshark.model.alert import Json
from tripshark.model.evidence import Entry, Ledger, Manifest, SealedFile, Word, canonical
from tripshark.respond.identity import event_key
from tripshark.respond.names import joint

FORMAT = "tripshark-derivation/1"
MAX_PARTS = 1000
MAX_INTERFACES = 65_535
_CHUNK_BYTES = 2 << 20
_CHUNK_PACKETS = 16_384
_MAX_SHIFT_US = 3_600_000_000  # a clock that says it is further off is not believed


@dataclass(frozen=True, slots=True, kw_only=True)
class Original:
    """One sealed capture file, mapped rather than read."""

    name: str  # of the file, within its folder
    where: str  # the folder, as people read it
    data: memoryview
    manifest: Manifest | None = None  # None: nothing says what it is
    manifest_sha256: str = ""


@dataclass(slots=True, kw_only=True)
class _Part:
    """One original, read."""

    original: Original
    file: pcapng.File
    sha256: str
    node: str
    clock: Mapping[str, Json]
    shift_ns: int
    place: list[int] = field(default_factory=list)  # its interfaces' numbers in the merged file


@dataclass(frozen=True, slots=True, kw_only=True)
class Merged:
    """Everything that belongs into one file of one link type; `write` writes it, as often as one likes."""

    linktype: int
    section: pcapng.Section
    interfaces: tuple[pcapng.Interface, ...]
    nodes: tuple[str, ...]  # of each interface
    names: Mapping[str, str]
    rows: tuple[tuple[int, Mapping[str, str | bytes]], ...]
    statistics: tuple[pcapng.Statistics, ...]
    doubled: int  # packets that two parts of one ring both held
    folded: int  # alert rows that told of an event another row tells of
    conflicts: Mapping[str, tuple[str, ...]]  # address → names that parts disagree on
    parts: tuple[_Part, ...]
    order: NDArray[np.int64]  # packets of all parts in a row, as they are written

    @property
    def packets(self) -> int:
        return len(self.order)

    def counts(self) -> list[int]:
        """Packets of each interface."""
        total = np.zeros(len(self.interfaces), np.int64)
        for part, rows in self._rows(self.order):
            total += np.bincount(
                _places(part)[part.file.packets.source[rows]], minlength=len(total)
            )
        return [int(each) for each in total]

    def write(self, out: BinaryIO) -> None:
        """The whole file. Of the packets only a chunk is held beside what is mapped."""
        out.write(self.section.block())
        for interface in self.interfaces:
            out.write(interface.block())
        out.write(pcapng.names(self.names))
        times = _times(self.parts)[self.order]
        comments = self._comments()
        done = 0
        for time_ns, fields in self.rows:
            here = int(np.searchsorted(times, time_ns, side="right"))
            self._write_packets(out, done, here, comments)
            out.write(pcapng.alert_row(time_ns, fields))
            done = max(done, here)
        self._write_packets(out, done, len(self.order), comments)
        for counters in self.statistics:
            out.write(counters.block())

    def _write_packets(
        self, out: BinaryIO, start: int, stop: int, comments: Mapping[int, tuple[str, ...]]
    ) -> None:
        marked = sorted(at for at in comments if start <= at < stop)
        for first in range(start, stop, _CHUNK_PACKETS):
            last = min(stop, first + _CHUNK_PACKETS)
            for some in self._chunks(first, last):
                told = {
                    at - some.start: comments[at] for at in marked if some.start <= at < some.stop
                }
                out.write(pcapng.packets(self._gather(self.order[some]), comments=told))

    def _chunks(self, first: int, last: int) -> Iterator[slice]:
        """Slices of `order` of about `_CHUNK_BYTES` each."""
        lengths = np.zeros(last - first, np.int64)
        for part, rows, at in self._located(self.order[first:last]):
            lengths[at] = part.file.packets.caplen[rows]
        ends, done = np.cumsum(lengths), 0
        while done < len(ends):
            passed = int(ends[done - 1]) if done else 0
            stop = int(np.searchsorted(ends, passed + _CHUNK_BYTES, side="right"))
            stop = min(max(stop, done + 1), len(ends))
            yield slice(first + done, first + stop)
            done = stop

    def _gather(self, which: NDArray[np.int64]) -> Packets:
        """These packets in a buffer of their own, with the merged file's interfaces and times."""
        found, places = [], []
        for part, rows, at in self._located(which):
            packets = part.file.packets.take(rows).with_source(_places(part))
            found.append(replace(packets, time_ns=packets.time_ns + part.shift_ns).compact())
            places.append(at)
        return concat(found).take(np.argsort(np.concatenate(places)))

    def _located(
        self, which: NDArray[np.int64]
    ) -> Iterator[tuple[_Part, NDArray[np.int64], NDArray[np.intp]]]:
        """For each part: its rows among these packets, and where among them they stand."""
        base = 0
        for part in self.parts:
            count = len(part.file.packets)
            at = np.flatnonzero((which >= base) & (which < base + count))
            if len(at):
                yield part, which[at] - base, at
            base += count

    def _rows(self, which: NDArray[np.int64]) -> Iterator[tuple[_Part, NDArray[np.int64]]]:
        for part, rows, _ in self._located(which):
            yield part, rows

    def _comments(self) -> dict[int, tuple[str, ...]]:
        """Comments by where the packet stands in the merged file."""
        said: dict[int, tuple[str, ...]] = {}
        base = 0
        for part in self.parts:
            said |= {base + row: words for row, words in part.file.comments.items()}
            base += len(part.file.packets)
        if not said:
            return {}
        rows = np.fromiter(said, np.int64, len(said))
        rank = np.full(base, -1, np.int64)
        rank[self.order] = np.arange(len(self.order))
        return {int(rank[row]): said[int(row)] for row in rows if rank[row] >= 0}


def merge(
    originals: Sequence[Original], *, tool: str, correct_clocks: bool = False
) -> tuple[Merged, ...]:
    """One merged file for each link type that has packets, the largest first; at least one.

    `tool` is who did it: "Tripshark 0.3.0". With `correct_clocks` the packets and alerts of a node are moved by what
    its kernel knew its clock to be off when the part was sealed. The order in which the originals are given does not
    matter. Raises `BadInput` for what is no pcapng, and `NotVerified` for a file that is not what its manifest sealed.
    """
    if not 0 < len(originals) <= MAX_PARTS:
        raise BadInput(f"{len(originals)} capture files; 1 to {MAX_PARTS} can be merged")
    parts = _read(originals, correct_clocks)
    linktypes: dict[int, int] = {}
    for part in parts:
        for number, interface in enumerate(part.file.interfaces):
            seen = int((part.file.packets.source == number).sum())
            linktypes[interface.linktype] = linktypes.get(interface.linktype, 0) + seen
    wanted = sorted(linktypes, key=lambda each: (-linktypes[each], each))
    wanted = [each for each in wanted if linktypes[each]] or wanted[:1] or [1]
    return tuple(_merged(parts, each, tool) for each in wanted)


def derivation(files: Sequence[tuple[Merged, SealedFile]], *, tool: str) -> bytes:
    """`….json` beside the merged files: where every byte came from. The same merge is always the same bytes."""
    parts = files[0][0].parts
    entries = _entries(parts)
    told: dict[str, object] = {
        "format": FORMAT,
        "tool": tool,
        "incidents": sorted({p.original.manifest.incident for p in parts if p.original.manifest}),
        "files": [
            {
                "name": file.name,
                "sha256": file.sha256,
                "bytes": file.bytes,
                "linktype": merged.linktype,
                "packets": merged.packets,
                "packets_doubled": merged.doubled,
                "alerts": len(merged.rows),
                "alerts_folded": merged.folded,
                "interfaces": [
                    {
                        "name": each.name,
                        "description": each.description,
                        "node": node,
                        "packets": count,
                    }
                    for each, node, count in zip(
                        merged.interfaces, merged.nodes, merged.counts(), strict=True
                    )
                ],
                "names_in_conflict": {a: list(names) for a, names in merged.conflicts.items()},
            }
            for merged, file in files
        ],
        "was_derived_from": [_source(part) for part in parts],
        "ledger": {
            "word": Ledger(entries=entries).word,
            "entries": [
                {"kind": e.kind, "message": e.message, "word": e.word, "count": e.count}
                for e in entries
            ],
        },
    }
    return canonical(told, indent=2) + b"\n"


def _source(part: _Part) -> dict[str, object]:
    manifest = part.original.manifest
    return {
        "node": part.node,
        "incident": manifest.incident if manifest else "",
        "file": part.original.name,
        "sha256": part.sha256,
        "bytes": part.original.data.nbytes,
        "sealed": manifest is not None,
        "manifest_sha256": part.original.manifest_sha256,
        "word": manifest.ledger.word if manifest else "",
        "packets": len(part.file.packets),
        "clock": dict(part.clock),
        "shifted_by_ns": part.shift_ns,
    }


# ---------------------------------------------------------------------------------- reading


def _read(originals: Sequence[Original], correct_clocks: bool) -> list[_Part]:
    """Every file once, in an order that does not depend on how they were given."""
    parts: dict[tuple[str, str], _Part] = {}
    for original in originals:
        digest = hashlib.sha256(original.data).hexdigest()
        known_as = digest, original.manifest_sha256
        if known_as in parts:
            continue
        where = f"{original.where}/{original.name}"
        _require_sealed(original, digest, where)
        file = pcapng.read(original.data)
        details = original.manifest.details if original.manifest else {}
        clock = _group(_group(details, "when"), "clock")
        offset_us = clock.get("offset_us")
        known = type(offset_us) is int and abs(offset_us) <= _MAX_SHIFT_US
        parts[known_as] = _Part(
            original=original,
            file=file,
            sha256=digest,
            node=_node(details),
            clock=clock,
            shift_ns=int(offset_us) * 1000 if correct_clocks and known else 0,  # type: ignore[arg-type]  # is an int
        )
    return sorted(parts.values(), key=_order_of)


def _order_of(part: _Part) -> tuple[str, ...]:
    return part.node, part.original.name, part.sha256, part.original.manifest_sha256


def _require_sealed(original: Original, digest: str, where: str) -> None:
    if original.manifest is None:
        return
    sealed = {file.name: file.sha256 for file in original.manifest.files}
    if sealed.get(original.name) != digest:
        raise NotVerified(
            "the file is not the one that was sealed",
            where=where,
            hint="`tripshark verify` says what else does not hold",
        )


def _node(details: Mapping[str, Json]) -> str:
    """The node as Kubernetes calls it, else the machine's own name."""
    for group, name in (("who", "node"), ("where", "node"), ("where", "host")):
        found = _group(details, group).get(name)
        if isinstance(found, str) and found:
            return found[:253]
    return ""


def _group(told: Mapping[str, Json], name: str) -> Mapping[str, Json]:
    found = told.get(name)
    return found if isinstance(found, dict) else {}


def _entries(parts: Sequence[_Part]) -> tuple[Entry, ...]:
    """What the parts were missing, and what could not be read of them."""
    said: dict[tuple[str, str], Entry] = {}
    for part in parts:
        name = part.node or part.original.where
        manifest = part.original.manifest
        own = [*manifest.ledger.entries] if manifest else []
        if manifest is None:
            own.append(
                Entry(kind="unsealed", message=f"{part.original.name} came without manifest")
            )
        if part.file.truncated_at is not None:
            own.append(
                Entry(
                    kind="cut_off",
                    message=f"{part.original.name} ends within a block",
                    word=Word.TRUNCATED,
                )
            )
        for entry in own:
            whose = part.original.manifest_sha256 or part.sha256
            told = replace(entry, message=f"{name}: {entry.message}")
            said.setdefault((whose, f"{entry.kind} {entry.message}"), told)
    return tuple(said.values())


# ---------------------------------------------------------------------------------- merging


def _merged(parts: Sequence[_Part], linktype: int, tool: str) -> Merged:
    own = [replace(part, place=[]) for part in parts]
    interfaces, nodes, shared = _interfaces(own, linktype)
    order, doubled = _order(own, shared)
    rows, folded = _alerts(own)
    names, conflicts = _names(own)
    return Merged(
        linktype=linktype,
        section=_section(own, tool),
        interfaces=tuple(interfaces),
        nodes=tuple(nodes),
        names=names,
        rows=tuple(rows),
        statistics=tuple(_statistics(own)),
        doubled=doubled,
        folded=folded,
        conflicts=conflicts,
        parts=tuple(own),
        order=order,
    )


def _interfaces(
    parts: Sequence[_Part], linktype: int
) -> tuple[list[pcapng.Interface], list[str], set[int]]:
    """Each pod's interface once, its node, and which of them several parts have packets of.

    Fills `place`: -1 for an interface of another link type.
    """
    index: dict[tuple[str, ...], int] = {}
    found: list[pcapng.Interface] = []
    nodes: list[str] = []
    shared: set[int] = set()
    snaplen = max(
        (e.snaplen for p in parts for e in p.file.interfaces if e.linktype == linktype),
        default=262_144,
    )
    for part in parts:
        for number, each in enumerate(part.file.interfaces):
            if each.linktype != linktype:
                part.place.append(-1)
                continue
            known = (part.node, each.name, each.mac, each.description)
            if not part.node:  # nothing says which machine this was: never the same as another's
                known = (part.sha256, str(number), "", "")
            if known in index:
                shared.add(index[known])
            else:
                index[known] = len(found)
                nodes.append(part.node)
                said = f"recorded on {part.node}" if part.node else f"from {part.original.name}"
                found.append(replace(each, snaplen=snaplen, comments=(*each.comments, said)))
            part.place.append(index[known])
    if len(found) > MAX_INTERFACES:
        raise BadInput(f"{len(found)} interfaces; a file can hold {MAX_INTERFACES}")
    return found or [pcapng.Interface(name="none", linktype=linktype)], nodes or [""], shared


def _places(part: _Part) -> NDArray[np.uint16]:
    return np.array([max(each, 0) for each in part.place] or [0], np.uint16)


def _times(parts: Sequence[_Part]) -> NDArray[np.int64]:
    """Of all packets of all parts, corrected where that was asked for."""
    return np.concatenate(
        [part.file.packets.time_ns + part.shift_ns for part in parts] or [np.zeros(0, np.int64)]
    )


def _order(parts: Sequence[_Part], shared: set[int]) -> tuple[NDArray[np.int64], int]:
    """All packets of this link type by time, each of a ring once; and how many stood twice."""
    kept: list[NDArray[np.bool_]] = []
    where: list[NDArray[np.int64]] = []
    for part in parts:
        place = np.array([*part.place, -1], np.int64)
        at = place[part.file.packets.source]
        kept.append(at >= 0)
        where.append(at)
    source, stays = np.concatenate(where), np.concatenate(kept)
    times = _times(parts)
    order = np.argsort(times, kind="stable")
    order = order[stays[order]]
    if not shared:
        return order, 0
    doubled = _doubled(parts, source, times, np.isin(source, sorted(shared)) & stays)
    return order[~doubled[order]], int(doubled.sum())


def _doubled(
    parts: Sequence[_Part],
    source: NDArray[np.int64],
    times: NDArray[np.int64],
    suspect: NDArray[np.bool_],
) -> NDArray[np.bool_]:
    """Which packets another part of the same ring has as well, and at least as much of."""
    caplen = np.concatenate([part.file.packets.caplen for part in parts]).astype(np.int64)
    length = np.concatenate([part.file.packets.length for part in parts]).astype(np.int64)
    owner = np.repeat(np.arange(len(parts)), [len(part.file.packets) for part in parts])
    base = np.concatenate([[0], np.cumsum([len(part.file.packets) for part in parts])])
    rows = np.flatnonzero(suspect)
    rows = rows[np.lexsort((-caplen[rows], length[rows], times[rows], source[rows]))]
    before, after = rows[:-1], rows[1:]
    same = (source[before] == source[after]) & (times[before] == times[after])
    same &= length[before] == length[after]
    found = np.zeros(len(source), np.bool_)
    group: list[tuple[int, bytes]] = []  # what was kept of one moment of one ring
    for at in np.flatnonzero(same).tolist():
        first, second = int(before[at]), int(after[at])
        if not group or at == 0 or not same[at - 1]:
            group = [(int(owner[first]), _bytes(parts, base, owner, first))]
        mine, raw = int(owner[second]), _bytes(parts, base, owner, second)
        twin = next(
            (i for i, (who, held) in enumerate(group) if who != mine and held.startswith(raw)),
            None,
        )
        if twin is None:
            group.append((mine, raw))
        else:
            group.pop(twin)  # two packets of one part are never both the same one of another
            found[second] = True
    return found


def _bytes(
    parts: Sequence[_Part], base: NDArray[np.int64], owner: NDArray[np.intp], row: int
) -> bytes:
    part = int(owner[row])
    return parts[part].file.packets.bytes_of(row - int(base[part]))


def _alerts(
    parts: Sequence[_Part],
) -> tuple[list[tuple[int, Mapping[str, str | bytes]]], int]:
    """Each event as one row that says on which nodes it was known, in time order."""
    found: dict[bytes, tuple[int, Mapping[str, str | bytes]]] = {}
    nodes: dict[bytes, list[str]] = {}
    count = 0
    for part in parts:
        for time_ns, fields in part.file.rows:
            count += 1
            key = _event(fields)
            found.setdefault(key, (time_ns + part.shift_ns, fields))
            held = nodes.setdefault(key, [])
            if part.node and part.node not in held:
                held.append(part.node)
    rows: list[tuple[int, Mapping[str, str | bytes]]] = []
    for key, (time_ns, fields) in found.items():
        known = {"TRIPSHARK_NODES": ",".join(nodes[key])} if nodes[key] else {}
        rows.append((time_ns, {**fields, **known}))
    rows.sort(key=lambda row: row[0])
    return rows, count - len(found)


def _event(fields: Mapping[str, str | bytes]) -> bytes:
    """What tells whether two rows are about the very same event; every node numbers its alerts by itself."""
    body = fields.get("FALCO_JSON", b"")
    raw = body.encode() if isinstance(body, str) else body
    try:
        return event_key(falco.decode(raw))
    except BadInput:
        own = sorted((k, str(v)) for k, v in fields.items() if not k.startswith("TRIPSHARK_"))
        return hashlib.sha256(repr(own).encode(errors="backslashreplace")).digest()


def _names(parts: Sequence[_Part]) -> tuple[dict[str, str], dict[str, tuple[str, ...]]]:
    """One name per address, a joint one where the parts disagree."""
    told: dict[str, list[str]] = {}
    for part in parts:
        for address, name in part.file.names.items():
            held = told.setdefault(address, [])
            held += [each for each in name.split("|") if each not in held]
    conflicts = {
        address: tuple(names)
        for address, names in told.items()
        if len({part.file.names[address] for part in parts if address in part.file.names}) > 1
    }
    return {address: joint(told[address]) for address in sorted(told)}, conflicts


def _statistics(parts: Sequence[_Part]) -> list[pcapng.Statistics]:
    """One block per interface: readers show the drops only then. Two parts of one ring counted the same packets."""
    found: dict[int, pcapng.Statistics] = {}
    for part in parts:
        for each in part.file.statistics:
            place = part.place[each.interface]
            if place < 0:
                continue
            moved = replace(
                each,
                interface=place,
                start_ns=max(each.start_ns + part.shift_ns, 0),
                end_ns=max(each.end_ns + part.shift_ns, 0),
            )
            known = found.get(place)
            found[place] = moved if known is None else _wider(known, moved)
    return [found[place] for place in sorted(found)]


def _wider(a: pcapng.Statistics, b: pcapng.Statistics) -> pcapng.Statistics:
    return replace(
        a,
        start_ns=min(a.start_ns, b.start_ns),
        end_ns=max(a.end_ns, b.end_ns),
        received=_most(a.received, b.received),
        dropped=_most(a.dropped, b.dropped),
        comments=tuple(dict.fromkeys([*a.comments, *b.comments])),
    )


def _most(a: int | None, b: int | None) -> int | None:
    return max((each for each in (a, b) if each is not None), default=None)


def _section(parts: Sequence[_Part], tool: str) -> pcapng.Section:
    """What a person reads first: that this is not the evidence itself, and what each part says of itself."""
    about = f"Derived by {tool} from {len(parts)} sealed files, which remain the evidence"
    lines = [f"{about}; the derivation beside this file names their hashes"]
    for part in parts:
        lines += [
            f"{part.node or part.original.name}: {said}" for said in part.file.section.comments
        ]
        if part.shift_ns:
            lines.append(f"{part.node}: times moved by {part.shift_ns} ns, as its clock was off")
    oses = dict.fromkeys(part.file.section.os for part in parts if part.file.section.os)
    return pcapng.Section(
        comments=tuple(dict.fromkeys(lines)),
        hardware=", ".join(dict.fromkeys(part.node for part in parts if part.node)),
        os=", ".join(oses),
        application=tool,
    )
