"""Who is recorded and how: brings names, interfaces, memory and what is left of the dead together."""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from tripshark.errors import BadInput, NotFound, Transient
from tripshark.formats.wire import Json
from tripshark.model.recording import Mode
from tripshark.model.target import TargetKey, TargetKind
from tripshark.recorder import kernel, namespaces
from tripshark.recorder.config import RecorderConfig
from tripshark.recorder.estate import Estate
from tripshark.recorder.exchange import Exchanges, take_up
from tripshark.recorder.filters import Filters
from tripshark.recorder.flowcut import HEADERS, refusal
from tripshark.recorder.graves import Graves
from tripshark.recorder.keeper import Item, Keeper
from tripshark.recorder.loop import Loop
from tripshark.recorder.memory import Claim, Share, divide, reshaped
from tripshark.recorder.names import Names
from tripshark.recorder.recorded import (
    Recorded,
    restored_counters,
    ring_facts,
    ring_tally,
)
from tripshark.recorder.ring import RAW_IP, Ring, Shape
from tripshark.recorder.sweeper import Sweeper
from tripshark.recorder.visits import Visits

log = logging.getLogger(__name__)

_CHECK_S = 5.0  # a slow look at targets that could not be entered


class Assignment(NamedTuple):
    """What is to be recorded of a target, and who said so."""

    mode: Mode
    weight: int
    reason: str


class Roster:
    """Every target, alive or gone. All methods run in the loop's thread."""

    def __init__(self, config: RecorderConfig, loop: Loop, keeper: Keeper) -> None:
        self.estate = estate = Estate(config, loop, keeper)
        self.sweeper = Sweeper(loop, unplugged=self._unplugged, count=self.count)
        self.graves = Graves(estate, self.sweeper)
        self.exchanges = Exchanges(estate, self.graves, self.sweeper)
        self.visits = Visits(estate, self.graves, self.sweeper)
        self.exchanges.visit = self.visits.visit
        self.exchanges.again = self.visits.misfit = self._reshape
        self._names = Names(
            loop,
            config.netns_dirs,
            include=config.include,
            exclude=config.exclude,
            appeared=self._name_appeared,
            vanished=self._name_vanished,
        )
        self._config = config
        self._loop = loop
        self._keeper = keeper
        self._host = namespaces.inode(_host_path())
        self._initial = True

    @property
    def targets(self) -> dict[TargetKey, Recorded]:
        return self.estate.targets

    # ---- start and end ----------------------------------------------------------------------------------

    def start(self, items: Iterable[Item]) -> None:
        """Take over what an earlier recorder left, then look for everything there is."""
        for item in items:
            try:
                self._adopt(item)
            except (OSError, KeyError, ValueError, TypeError, BadInput) as problem:
                log.error("could not take over %s: %s", item.id, problem)  # noqa: TRY400 — the reason is said
                self._keeper.drop(item.id)
                if item.fd >= 0:
                    os.close(item.fd)
        for target in list(self.targets.values()):
            for ring in target.rings.values():  # in case the one before us died amid a swap
                self.estate.set_filter(target, ring)
            if target.alive:
                self._resume(target)
            else:
                self.graves.died(target)
        if self._config.host:
            self._appear("host", TargetKind.HOST, _host_path(), self._host)
        living = self.estate.living
        self._names.start({path: each.inode for each in living.values() for path in each.paths})
        self._share()
        for target in list(living.values()):
            if not target.visited:
                self.visits.visit(target)
            self._reshape(target)
        self._initial = False
        self._loop.later(_CHECK_S, self._check)

    def count(self, ring: Ring, since_ns: int = 0, *, now: bool = False) -> None:
        """Read a ring's counters, which the kernel then forgets. Drops are made safe at once, the rest soon."""
        if ring.count(time.time_ns(), since_ns):
            ring.unsaved = False
            self._keeper.put(f"ring:{ring.id}", ring_facts(ring))
        elif now and ring.unsaved:
            ring.unsaved = False
            self._keeper.tally({f"ring:{ring.id}": ring_tally(ring)})

    def save(self) -> None:
        """Let the next recorder know what only this one does: counters that were read are the kernel's no more."""
        tallies: dict[str, Json] = {}
        for target in self.estate.living.values():
            for ring in target.rings.values():
                if ring.unsaved:
                    ring.unsaved = False
                    tallies[f"ring:{ring.id}"] = ring_tally(ring)
        self._keeper.tally(tallies)

    def _adopt(self, item: Item) -> None:
        kind, facts = item.id.partition(":")[0], item.meta
        if kind == "filter":
            self.estate.filters = Filters(
                bytes.fromhex(facts["ethernet"]),
                bytes.fromhex(facts["raw"]),
                facts["snaplen"],
                self._config.flow_cut,
            )
        elif kind == "target":
            self.estate.add(Recorded.restored(facts))
        elif kind == "ring":
            self._adopt_ring(item, time.time_ns())
        elif kind == "grave":
            self.graves.adopt(item)
        else:
            raise ValueError(kind)

    def _adopt_ring(self, item: Item, now: int) -> None:
        counters, known = restored_counters(item.meta)
        target = self.targets[known.target]
        sock = socket.socket(fileno=os.dup(item.fd))
        try:
            ring = Ring(
                sock,
                Shape(item.meta["block"], item.meta["count"]),
                id=known.ring,
                target=known.target,
                interface=known.interface,
                snaplen=known.snaplen,
                opened_ns=known.opened_ns,
                flow_cut=known.flow_cut,
            )
        except BaseException:
            sock.close()
            raise
        os.close(item.fd)
        ring.counters, ring.counted_ns = counters, item.meta["counted_ns"]
        ring.exposed = bool(item.meta.get("exposed", False))
        left_ns = int(item.meta.get("left_ns", 0))
        take_up(ring)
        stopped_ns = ring.stopped_ns()
        stood_still = ring.hand_back() >= ring.shape.blocks - 1
        if (ring.count(now, stopped_ns) and stood_still) or left_ns:
            gap = (left_ns or stopped_ns, now)
            ring.counters.gaps = [*ring.counters.gaps, gap][-64:]
        target.rings[known.interface.ifindex] = ring
        self.sweeper.add(ring)
        self._keeper.put(f"ring:{ring.id}", ring_facts(ring))

    def _resume(self, target: Recorded) -> None:
        target.paths = {each for each in target.paths if namespaces.inode(each) == target.inode}
        entered = f"/proc/{target.pid}/ns/net"
        if entered in target.paths and not self._hold_process(target):
            target.paths.discard(entered)
        if not target.paths:
            self._vanish(target)

    # ---- namespaces -------------------------------------------------------------------------------------

    def _name_appeared(self, path: str, inode: int) -> None:
        if inode != self._host or self._config.host:
            self._appear(f"netns:{os.path.basename(path)}", TargetKind.NETNS, path, inode)

    def _name_vanished(self, path: str, inode: int) -> None:
        for target in list(self.estate.living.values()):
            if target.inode == inode and path in target.paths:
                target.paths.discard(path)
                if not target.paths:
                    self._vanish(target)

    def _appear(
        self, name: str, kind: TargetKind, path: str, inode: int, pid: int = 0
    ) -> Recorded:
        """A namespace is to be recorded. One that is already gets one more path."""
        for known in self.estate.living.values():
            if known.inode == inode:
                if kind is TargetKind.NETNS:
                    known.paths.add(path)
                return known
        mode = Mode.FULL if kind is TargetKind.HOST else Mode(self._config.mode)
        target = Recorded(
            key=TargetKey(self.estate.name()),
            kind=kind,
            name=name,
            inode=inode,
            since_ns=time.time_ns(),
            paths={path},
            mode=mode,
            reason="" if mode is Mode.FULL else "nobody has said yet that it is to be",
            seen_born=kind is TargetKind.NETNS and not self._initial,
            pid=pid,
        )
        self.estate.add(target)
        if not self._initial:  # at the start memory is shared among all that are found
            self._share()
            if not target.visiting:
                self.visits.visit(target)
        return target

    def _vanish(self, target: Recorded) -> None:
        """The namespace is gone: keep what was recorded and let go of everything that keeps it alive."""
        if not target.alive:
            return
        target.gone_ns = time.time_ns()
        self.visits.leave(target)
        if target.pidfd >= 0:
            self._loop.unwatch(target.pidfd)
            os.close(target.pidfd)
            target.pidfd = -1
        for ring in list(target.rings.values()):
            if ring not in target.changing:  # else it is buried when that is done
                self.graves.bury(target, ring, most=ring.most)
        if target.flows is not None:
            target.flows.close()
            target.flows = None
        target.quota = 0
        self.graves.died(target)
        self.estate.keep(target)
        self.estate.done(target)
        self.estate.followed(target)
        self._share()

    def _check(self) -> None:
        """Try again what could not be entered."""
        self._loop.later(_CHECK_S, self._check)
        for target in list(self.estate.living.values()):
            if target.bell is None:
                self.visits.visit(target)

    # ---- processes --------------------------------------------------------------------------------------

    def inode_of(self, pid: int) -> int | None:
        """The namespace of a process. Raises `Transient` when we may not look."""
        try:
            return os.stat(f"/proc/{pid}/ns/net").st_ino
        except PermissionError as problem:
            raise Transient(
                f"may not look at process {pid}", hint="the recorder lacks CAP_SYS_PTRACE"
            ) from problem
        except OSError:
            return None

    def attach(self, pid: int, done: Callable[[Recorded], None]) -> None:
        """Record the namespace of a process until it ends; `done` is called once it is recorded.

        Raises `NotFound`, `Transient`.
        """
        inode = self.inode_of(pid)
        if not inode:
            raise NotFound(f"no process {pid}")
        if inode == self._host and not self._config.host:
            raise NotFound(
                f"process {pid} lives in the host's own namespace, which is not recorded",
                hint="recorder.host",
            )
        target = self._appear(f"pid:{pid}", TargetKind.PID, f"/proc/{pid}/ns/net", inode, pid)
        if target.pid == pid and target.pidfd < 0 and not self._hold_process(target):
            self._vanish(target)
            raise NotFound(f"no process {pid}")
        self.when_settled(target, lambda: done(target))

    def _hold_process(self, target: Recorded) -> bool:
        """Be told when the process ends; False when it is another one by now."""
        try:
            target.pidfd = os.pidfd_open(target.pid)
        except OSError:
            return False
        if namespaces.inode(f"/proc/{target.pid}/ns/net") != target.inode:
            return False
        self._loop.watch(target.pidfd, lambda _: self._ended(target))
        return True

    def _ended(self, target: Recorded) -> None:
        """The process did; the namespace may have a name by now."""
        self._loop.unwatch(target.pidfd)
        os.close(target.pidfd)
        target.pidfd = -1
        target.paths.discard(f"/proc/{target.pid}/ns/net")
        if not target.paths:
            self._vanish(target)

    def when_settled(self, target: Recorded, call: Callable[[], None]) -> None:
        """Once everything that can be recorded of a target is."""
        self.estate.when(target, lambda: target.settled, call)

    # ---- how much ---------------------------------------------------------------------------------------

    def record(self, assignments: Mapping[TargetKey, Assignment]) -> list[TargetKey]:
        """From now on record these so. Returns the keys that are nobody's any more."""
        unknown = []
        for key, wanted in assignments.items():
            target = self.targets.get(key)
            if target is None:
                unknown.append(key)
            elif (target.mode, target.weight, target.reason) != wanted:
                self._assign(target, wanted)
        self._share()
        return unknown

    def _assign(self, target: Recorded, wanted: Assignment) -> None:
        before = target.mode
        target.mode, target.weight, target.reason = wanted
        if target.mode is Mode.OFF and before is not Mode.OFF:
            for ring in list(target.rings.values()):
                if ring not in target.changing:
                    self.graves.discard(target, ring)
                else:
                    ring.exposed = True
            self.graves.forget(target)
            self.visits.forget_birth(target)
            target.expired_ns = time.time_ns()
            target.unrecorded.clear()
            target.quota = target.wanted = target.halvings = 0
            target.reduced = False
            target.problem = ""
        elif target.mode is Mode.HEADERS and before is Mode.FULL:
            self.graves.shorten(target, HEADERS)
            for ring in target.rings.values():
                ring.exposed = ring.exposed or ring.snaplen > HEADERS
        elif target.mode is Mode.FULL and before is Mode.HEADERS:
            for ring in target.rings.values():
                ring.exposed = False
        self.estate.keep(target)
        self.estate.followed(target)
        if target.alive and target.rings:
            self._reshape(target)

    def _share(self) -> None:
        """Divide the memory anew, and let everybody have what is his."""
        living = [each for each in self.estate.living.values() if each.mode is not Mode.OFF]
        shares = divide(
            {
                each.key: Claim(
                    weight=each.weight,
                    headers=each.mode is Mode.HEADERS,
                    halvings=each.halvings,
                    reduced=each.reduced,
                    out=each.problem == _OVER_BUDGET,
                )
                for each in living
            },
            per_target=self._config.per_target,
            total=self._config.total,
        )
        for target in living:
            target.wanted = self._config.per_target * target.weight
            share = shares[target.key]
            if share != (target.quota, target.halvings, target.reduced) or (
                not share.size and target.problem != _OVER_BUDGET
            ):
                self._give(target, share)

    def _give(self, target: Recorded, share: Share) -> None:
        before = target.quota
        target.quota, target.halvings, target.reduced = share
        if share.out:
            target.problem = _OVER_BUDGET
            for ring in list(target.rings.values()):
                if ring not in target.changing:
                    self.graves.bury(target, ring, most=ring.most)
        elif target.problem == _OVER_BUDGET:
            target.problem = ""
        self.estate.keep(target)
        if target.rings:
            self._reshape(target)
        elif not before and share.size and not self._initial:
            self.visits.visit(target)
        else:
            self.estate.done(target)

    def _reshape(self, target: Recorded) -> None:
        """Have its rings be as its memory and mode want them."""
        if not target.alive:
            return
        if target.mode is Mode.OFF or not target.quota:
            for ring in [each for each in target.rings.values() if each not in target.changing]:
                if target.mode is Mode.OFF:
                    self.graves.discard(target, ring)
                else:
                    self.graves.bury(target, ring, most=ring.most)
            return
        keeps = self.estate.filters.keeps(headers=target.headers)
        forms: dict[Ring, Shape | None] = {}
        wanted = target.quota, target.headers
        if target.laid_out != wanted:
            forms = reshaped(target, keeps)
            if not target.changing:  # else all is looked at again afterwards
                target.laid_out = wanted
                self.estate.keep(target)
        for ring in list(target.rings.values()):
            form = forms.get(ring, ring.shape)
            if ring in target.changing and not ring.exposed:
                continue
            if form is None:
                self.graves.bury(target, ring, most=ring.most)
                target.unrecorded[ring.interface.ifindex] = f"over budget: {ring.interface.name}"
                continue
            if ring.snaplen != keeps:
                self.estate.set_filter(target, ring)
                self._keeper.put(f"ring:{ring.id}", ring_facts(ring))
            if ring.exposed or form != ring.shape:
                self.exchanges.want(target, ring, form)

    # ---- rings ------------------------------------------------------------------------------------------

    def tell_of_blocks(self, wanted: bool) -> None:
        """Whether `followed` is also to be called for every target whose blocks were handed back."""
        self.sweeper.retired = self._retired if wanted else None

    def _retired(self, ring: Ring) -> None:
        target = self.targets.get(ring.target)
        if target is not None:
            self.estate.followed(target)

    def _unplugged(self, ring: Ring) -> None:
        """The interface is down or gone; a link that merely goes down and up again loses nothing."""
        target = self.targets[ring.target]
        if ring.detached and ring not in target.changing:
            self.graves.bury(target, ring, most=ring.most)

    def set_filters(self, filters: Filters) -> int:
        """Swap the filter of every ring, or of none. Returns how many. Raises `BadInput`."""
        living = self.estate.living.values()
        rings = [(target, ring) for target in living for ring in target.rings.values()]
        kinds = {ring.interface.hardware_type for _, ring in rings} | {1, RAW_IP[0]}
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0) as scratch:
            for kind in kinds:
                try:
                    kernel.attach_filter(scratch, filters.program(kind))
                except OSError as problem:
                    raise BadInput(
                        f"the kernel does not take this filter: {problem.strerror}",
                        hint="it must be classic BPF that returns on every path",
                    ) from problem
        self.estate.filters = filters
        for target, ring in rings:
            if ring not in target.changing:  # else it gets it when that is done
                self.estate.set_filter(target, ring)
            self.sweeper.breathe()
        self._keeper.put(
            "filter",
            {
                "ethernet": filters.ethernet.hex(),
                "raw": filters.raw.hex(),
                "snaplen": filters.snaplen,
            },
        )
        return len(rings)


_OVER_BUDGET = "over budget"


def _host_path() -> str:
    """The namespace that counts as the host's: the first process's, or ours where that one is not to be seen."""
    return "/proc/1/ns/net" if namespaces.inode("/proc/1/ns/net") else "/proc/self/ns/net"


def summary(roster: Roster) -> Json:
    """The recorder as a whole, in numbers."""
    estate = roster.estate
    living = list(estate.living.values())
    rings = [ring for each in living for ring in each.rings.values()]
    modes = [each.mode for each in living]
    return {
        "targets": len(living),
        "gone": len(estate.targets) - len(living),
        "rings": len(rings),
        "ring_bytes": sum(ring.shape.bytes for ring in rings),
        "ring_limit": estate.config.total,
        "full": modes.count(Mode.FULL),
        "headers": modes.count(Mode.HEADERS),
        "off": modes.count(Mode.OFF),
        "shrunk": sum(0 < each.quota < each.wanted and not each.reduced for each in living),
        "reduced": sum(each.reduced for each in living),
        "over_budget": sum(each.problem == _OVER_BUDGET for each in living),
        "exchanges": roster.exchanges.count,
        "copies_bytes": roster.graves.budget.used,
        "copies_limit": roster.graves.budget.limit,
        "tombstones": roster.graves.count,
        "expired": roster.graves.expired,
        "wakeups": roster.sweeper.wakeups,
        "flow_cut": estate.filters.flow_cut if estate.filters.wants_flows else 0,
        "flow_cut_refused": refusal() if estate.filters.flow_cut else "",
        "flow_bytes": sum(each.flows.bytes for each in living if each.flows is not None),
    }
