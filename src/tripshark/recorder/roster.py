"""Who is recorded: opens rings where namespaces and interfaces appear, and buries them where they vanish."""

from __future__ import annotations

import errno
import fnmatch
import logging
import os
import secrets
import select
import socket
import time
from collections.abc import Callable, Iterable
from dataclasses import replace

from tripshark.errors import BadInput, NotFound, Transient
from tripshark.formats.wire import Json
from tripshark.model.target import TargetKey, TargetKind
from tripshark.recorder import kernel, namespaces
from tripshark.recorder.config import RecorderConfig
from tripshark.recorder.copies import Budget, Copy, walk
from tripshark.recorder.filters import Filters
from tripshark.recorder.flowcut import Flows, flows_for, refusal
from tripshark.recorder.keeper import Item, Keeper
from tripshark.recorder.links import Link, doorbell, hush, survey
from tripshark.recorder.loop import Loop
from tripshark.recorder.memory import quota, ring_shape
from tripshark.recorder.recorded import (
    Recorded,
    Tombstone,
    restored_counters,
    ring_facts,
    ring_tally,
    tombstone_facts,
)
from tripshark.recorder.ring import (
    ETHERNET,
    LOOPBACK,
    RAW_IP,
    Ring,
    Shape,
    open_ring,
)
from tripshark.recorder.sweeper import Sweeper

log = logging.getLogger(__name__)

_RINGS = 32  # per target: whoever lives in the namespace may make any number of interfaces
_TOMBSTONES = 128  # per target, for the same reason
_SWEEP_S = 5.0  # a slow look at all names, for what the kernel may have failed to tell …
_ROUND = 12  # … and at what is behind each of them in one of so many of these looks
_VISIT_S = 0.02  # interfaces of one namespace are looked at no more often than that
_WAIT_NSFS_S = 5.0  # a name may appear so long before the namespace is mounted there
_HOST_SKIPS = (
    "veth",
    "bridge",
    "ifb",
    "nlmon",
    "macvtap",
    "macvlan",
    "ipvlan",
    "vlan",
    "bond",
    "team",
)
"""Kinds that, on the host, carry what other recorded interfaces carry too."""


class Roster:
    """Every target, alive or gone. All methods run in the loop's thread."""

    def __init__(self, config: RecorderConfig, loop: Loop, keeper: Keeper) -> None:
        self.targets: dict[TargetKey, Recorded] = {}
        self.expired = 0  # tombstones discarded for age or budget
        self.followed: Callable[[Recorded], None] = lambda _: (
            None
        )  # something happened to a target
        self.budget = Budget(config.copies, self._evict)
        self.filters = Filters(
            bytes.fromhex(config.filter),
            bytes.fromhex(config.filter_raw),
            config.snaplen,
            config.flow_cut,
        )
        self.sweeper = Sweeper(loop, unplugged=self._unplugged, count=self.count)
        self._config = config
        self._loop = loop
        self._keeper = keeper
        self._watch = namespaces.Watch(config.netns_dir)
        self._token = secrets.token_hex(4)
        self._number = 0
        self._initial = True
        self._waiting: dict[
            str, float
        ] = {}  # names that are no namespace yet → until when to look
        self._listed: set[str] = set()  # the names at the last slow look
        self._looks = 0
        self._settlers: dict[TargetKey, list[Callable[[], None]]] = {}

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
                self._set_filter(target, ring)
            if target.alive:
                self._resume(target)
            else:
                self._forget(target)
        if self._config.host:
            self._appear("host", TargetKind.HOST, _host_path())
        self._loop.watch(self._watch.fd, lambda _: self._look_at(self._watch.changed()))
        self._look_at(None)
        for target in self.targets.values():
            if target.alive and not target.quota and not target.rings:
                self._grant(target)
            if target.alive and not target.visited:
                self._visit(target)
        self._initial = False
        self._loop.later(_SWEEP_S, self._check)

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
        for target in self._living():
            for ring in target.rings.values():
                if ring.unsaved:
                    ring.unsaved = False
                    tallies[f"ring:{ring.id}"] = ring_tally(ring)
        self._keeper.tally(tallies)

    def _adopt(self, item: Item) -> None:
        kind, facts, now = item.id.partition(":")[0], item.meta, time.time_ns()
        if kind == "filter":
            self.filters = Filters(
                bytes.fromhex(facts["ethernet"]),
                bytes.fromhex(facts["raw"]),
                facts["snaplen"],
                self._config.flow_cut,
            )
        elif kind == "target":
            target = Recorded.restored(facts)
            self.targets[target.key] = target
        elif kind == "ring":
            self._adopt_ring(item, now)
        elif kind == "grave":
            counters, known = restored_counters(facts)
            size = int(facts["size"])
            blocks = walk(item.fd, size) if size else ()
            self.targets[known.target].tombstones.append(
                Tombstone(
                    id=known.ring,
                    target=known.target,
                    interface=known.interface,
                    snaplen=known.snaplen,
                    opened_ns=known.opened_ns,
                    closed_ns=known.closed_ns,
                    counters=counters,
                    oldest_ns=facts["oldest_ns"],
                    newest_ns=facts["newest_ns"],
                    copy=Copy(item.fd, size, blocks, self.budget),
                    flow_cut=known.flow_cut,
                )
            )
            self._bury_timer(known.target, known.ring, known.closed_ns)
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
        stopped_ns = ring.stopped_ns()
        stood_still = ring.hand_back() >= ring.shape.blocks - 1
        if ring.count(now, stopped_ns) and stood_still:
            ring.counters.gaps = [*ring.counters.gaps, (stopped_ns, now)][-64:]
        target.rings[known.interface.ifindex] = ring
        self.sweeper.add(ring)
        self._keeper.put(f"ring:{ring.id}", ring_facts(ring))

    def _resume(self, target: Recorded) -> None:
        target.paths = {each for each in target.paths if namespaces.inode(each) == target.inode}
        if not target.paths or (target.kind is TargetKind.PID and not self._hold_process(target)):
            self._vanish(target)

    # ---- namespaces -------------------------------------------------------------------------------------

    def _look_at(self, names: set[str] | None) -> None:
        """Names below the directory may have changed; None: any of them."""
        wanted = sorted(filter(self._wanted, names)) if names is not None else []
        if names is not None and not wanted:  # others' names come and go often
            return
        known = {p: t for t in self._living() for p in t.paths if self._ours(p)}
        if names is None:
            self._listed = self._watch.names()
            there = set(filter(self._wanted, self._listed))
            wanted = sorted(there | {os.path.basename(path) for path in known})
        for name in wanted:
            self._look(name, known.get(f"{self._config.netns_dir}/{name}"))

    def _look(self, name: str, before: Recorded | None) -> None:
        """What is at a name now, and who was there `before`."""
        path = f"{self._config.netns_dir}/{name}"
        inode = namespaces.inode(path)
        if before is not None and before.inode == inode:
            return
        if before is not None:
            before.paths.discard(path)
            if not before.paths:
                self._vanish(before)
        if inode:
            self._waiting.pop(name, None)
            self._appear(f"netns:{name}", TargetKind.NETNS, path)
        elif os.path.lexists(path):
            self._wait_for(name)
        else:
            self._waiting.pop(name, None)

    def _wait_for(self, name: str) -> None:
        """The file is there, the namespace is not yet mounted on it."""
        now = time.monotonic()
        until = self._waiting.setdefault(name, now + _WAIT_NSFS_S)
        if now < until:
            self._loop.later(
                min(0.05, 0.001 + (now - until + _WAIT_NSFS_S) / 4), lambda: self._again(name)
            )

    def _again(self, name: str) -> None:
        if name in self._waiting:
            self._look_at({name})

    def _wanted(self, name: str) -> bool:
        def any_of(globs: tuple[str, ...]) -> bool:
            return any(
                fnmatch.fnmatchcase(each, glob)
                for glob in globs
                for each in (name, f"netns:{name}")
            )

        return any_of(self._config.include) and not any_of(self._config.exclude)

    def _ours(self, path: str) -> bool:
        return path.startswith(f"{self._config.netns_dir}/")

    def _living(self) -> list[Recorded]:
        return [each for each in self.targets.values() if each.alive]

    def _appear(self, name: str, kind: TargetKind, path: str, pid: int = 0) -> Recorded:
        """A namespace is to be recorded. One that is already gets one more path."""
        inode = namespaces.inode(path)
        for known in self._living():
            if known.inode == inode:
                if kind is TargetKind.NETNS:
                    known.paths.add(path)
                return known
        self._number += 1
        target = Recorded(
            key=TargetKey(f"{self._token}.{self._number}"),
            kind=kind,
            name=name,
            inode=inode,
            since_ns=time.time_ns(),
            paths={path},
            quota=0,
            seen_born=kind is TargetKind.NETNS and not self._initial,
            pid=pid,
        )
        self.targets[target.key] = target
        if not self._initial:  # at the start memory is shared among all that are found
            self._grant(target)
            self._visit(target)
        return target

    def _grant(self, target: Recorded) -> bool:
        """Decide how much ring memory it gets; whether it gets any."""
        target.quota = quota(
            per_target=self._config.per_target,
            total=self._config.total,
            granted=sum(each.quota for each in self._living()),
            targets=len(self._living()),
            late=not self._initial,
        )
        target.problem = "" if target.quota else "over budget"
        self._keeper.put(f"target:{target.key}", target.facts())
        return target.quota > 0

    def _vanish(self, target: Recorded) -> None:
        """The namespace is gone: keep what was recorded and let go of everything that keeps it alive."""
        target.gone_ns = time.time_ns()
        if target.bell is not None:
            self._loop.unwatch(target.bell.fileno())
            target.bell.close()
            target.bell = None
        if target.pidfd >= 0:
            self._loop.unwatch(target.pidfd)
            os.close(target.pidfd)
            target.pidfd = -1
        for ring in list(target.rings.values()):
            self._bury(target, ring)
        if target.flows is not None:
            target.flows.close()
            target.flows = None
        target.quota = 0
        self._keeper.put(f"target:{target.key}", target.facts())
        self._settle(target)
        self.followed(target)
        self._loop.later(self._config.tombstone_s, lambda: self._forget(target))
        for other in self._living():
            if not other.quota and not other.rings:
                if self._grant(other):
                    self._visit(other)
                break

    def _forget(self, target: Recorded) -> None:
        """A target that is gone and of which nothing is left."""
        if not target.alive and not target.tombstones and target.key in self.targets:
            del self.targets[target.key]
            self._keeper.drop(f"target:{target.key}")

    def _check(self) -> None:
        """The slow look: one listing for all names, a closer look at a few of them in turn."""
        self._loop.later(_SWEEP_S, self._check)
        before, self._listed = self._listed, self._watch.names()
        self._looks += 1
        in_turn = sorted(self._listed)[self._looks % _ROUND :: _ROUND]
        self._look_at({*(before ^ self._listed), *self._waiting, *in_turn})
        for target in self._living():
            if target.bell is None:
                self._visit(target)

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
        target = self._appear(f"pid:{pid}", TargetKind.PID, f"/proc/{pid}/ns/net", pid)
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
        self._loop.watch(target.pidfd, lambda _: self._vanish(target))
        return True

    def when_settled(self, target: Recorded, call: Callable[[], None]) -> None:
        """Once everything that can be recorded of a target is."""
        if target.settled:
            call()
        else:
            self._settlers.setdefault(target.key, []).append(call)

    def _settle(self, target: Recorded) -> None:
        if target.settled:
            for call in self._settlers.pop(target.key, []):
                call()

    # ---- interfaces -------------------------------------------------------------------------------------

    def _visit(self, target: Recorded) -> None:
        """Let one of the crew look at the interfaces."""
        if target.visiting:
            target.visit_again = True
            return
        if not target.quota and not target.rings:
            target.visited = True
            self._settle(target)
            return
        target.visiting, target.visit_again = True, False
        target.visit_began_s = time.monotonic()
        path, inode, bell = min(target.paths), target.inode, target.bell

        def work() -> tuple[socket.socket, dict[int, Link]]:
            ring = bell or doorbell()
            hush(ring)
            try:
                return ring, survey()
            except BaseException:
                if bell is None:
                    ring.close()
                raise

        self._loop.submit(
            lambda: namespaces.inside(path, inode, work),
            lambda result: self._visited(target, result),
        )

    def _visited(
        self, target: Recorded, result: tuple[socket.socket, dict[int, Link]] | Exception
    ) -> None:
        target.visiting, target.visited = False, True
        if isinstance(result, Exception):
            if target.alive and not isinstance(result, namespaces.Gone):
                target.problem = f"cannot be entered: {result}"
                log.warning("%s %s", target.name, target.problem)
            self._settle(target)
            return
        bell, links = result
        if target.quota:
            target.problem = ""
        if not target.alive:
            if target.bell is not bell:
                bell.close()
            self._settle(target)
            return
        target.bell = bell
        self._compare(target, links)
        self._settle(target)
        took_s = time.monotonic() - target.visit_began_s  # thousands of interfaces take long
        self._loop.later(max(_VISIT_S, 10 * took_s), lambda: self._arm(target))

    def _arm(self, target: Recorded) -> None:
        """Listen to the doorbell again, or look at once if it rang meanwhile."""
        if target.bell is None or target.visiting:
            return
        if target.visit_again:
            self._visit(target)
        else:
            self._loop.watch(target.bell.fileno(), lambda _: self._rang(target), select.EPOLLIN)

    def _rang(self, target: Recorded) -> None:
        if target.bell is not None:
            self._loop.unwatch(target.bell.fileno())
            self._visit(target)

    def _compare(self, target: Recorded, links: dict[int, Link]) -> None:
        """Follow what changed: new interfaces, renamed ones, new addresses, gone ones."""
        for ifindex, ring in list(target.rings.items()):
            link = links.get(ifindex)
            if link is None or ring.detached:
                self._bury(target, ring)
            elif ring.interface != link.interface:
                ring.interface = replace(
                    link.interface, hardware_type=ring.interface.hardware_type
                )
                self._keeper.put(f"ring:{ring.id}", ring_facts(ring))
        target.unrecorded.clear()
        if target.problem == "over budget":
            return
        wanted: list[Link] = []
        for ifindex, link in sorted(links.items()):
            name, hardware = link.interface.name, link.interface.hardware_type
            if ifindex in target.rings or ifindex in target.opening:
                continue
            if target.kind is TargetKind.HOST and link.kind in _HOST_SKIPS:
                continue
            if hardware not in ETHERNET and hardware not in RAW_IP:
                target.unrecorded[ifindex] = f"not recorded: {name} (hardware type {hardware})"
            elif len(target.rings) + len(target.opening) + len(wanted) >= _RINGS:
                target.unrecorded[ifindex] = f"not recorded: more than {_RINGS} interfaces"
            else:
                wanted.append(link)
        # loopback last: what is left after the others is enough for it
        wanted.sort(key=lambda each: each.interface.hardware_type == LOOPBACK)
        fresh = sum(each.interface.hardware_type != LOOPBACK for each in wanted)
        for link in wanted:
            form = ring_shape(target, link, fresh, self.filters.snaplen)
            if form is None:
                target.unrecorded[link.interface.ifindex] = f"over budget: {link.interface.name}"
            else:
                self._open(target, link, form)

    def _open(self, target: Recorded, link: Link, form: Shape) -> None:
        interface = link.interface
        target.opening[interface.ifindex] = form.bytes
        self._number += 1
        id, filters = f"{self._token}.r{self._number}", self.filters
        path, inode, flows = min(target.paths), target.inode, self._flows(target)

        def work() -> Ring:
            return open_ring(
                form,
                lambda sock: filters.attach(sock, interface.hardware_type, flows),
                id=id,
                target=target.key,
                interface=interface,
                snaplen=filters.snaplen,
                now_ns=time.time_ns,
            )

        self._loop.submit(
            lambda: namespaces.inside(path, inode, work),
            lambda result: self._opened(target, link, filters, result),
        )

    def _opened(
        self, target: Recorded, link: Link, filters: Filters, result: Ring | Exception
    ) -> None:
        ifindex, name = link.interface.ifindex, link.interface.name
        target.opening.pop(ifindex, None)
        if isinstance(result, Exception):
            gone = isinstance(result, OSError) and result.errno in (errno.ENODEV, errno.ENXIO)
            if not gone and not isinstance(result, namespaces.Gone):
                target.unrecorded[ifindex] = f"not recorded: {name} ({result})"
                log.warning("%s: %s", target.name, target.unrecorded[ifindex])
        elif not target.alive:
            self._loop.submit(result.close, lambda _: None)
        else:
            target.rings[ifindex] = result
            self.sweeper.add(result)
            if filters is not self.filters:  # swapped while it was opened
                self._set_filter(target, result)
            self._keeper.put(f"ring:{result.id}", ring_facts(result), result.fd)
            if result.detached:
                self._bury(target, result)
            self.followed(target)
        self._settle(target)

    def _flows(self, target: Recorded) -> Flows | None:
        """Its table of flows, None when none is wanted or to be had."""
        if target.flows is None and self.filters.wants_flows:
            try:
                target.flows = Flows(flows_for(target.quota))
            except OSError as problem:
                log.warning("%s: flows are recorded uncut: %s", target.name, problem)
        return target.flows

    def _set_filter(self, target: Recorded, ring: Ring) -> None:
        """The filter in force for a ring that is open already."""
        kind, flows = ring.interface.hardware_type, self._flows(target)
        ring.flow_cut = self.filters.attach(ring.sock, kind, flows)
        ring.snaplen = self.filters.snaplen

    def tell_of_blocks(self, wanted: bool) -> None:
        """Whether `followed` is also to be called for every target whose blocks were handed back."""
        self.sweeper.retired = self._retired if wanted else None

    def _retired(self, ring: Ring) -> None:
        target = self.targets.get(ring.target)
        if target is not None:
            self.followed(target)

    def _unplugged(self, ring: Ring) -> None:
        """The interface is down or gone; a link that merely goes down and up again loses nothing."""
        target = self.targets[ring.target]
        if ring.detached:
            self._bury(target, ring)

    def set_filters(self, filters: Filters) -> int:
        """Swap the filter of every ring, or of none. Returns how many. Raises `BadInput`."""
        rings = [ring for target in self._living() for ring in target.rings.values()]
        kinds = {ring.interface.hardware_type for ring in rings} | {1, RAW_IP[0]}
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0) as scratch:
            for kind in kinds:
                try:
                    kernel.attach_filter(scratch, filters.program(kind))
                except OSError as problem:
                    raise BadInput(
                        f"the kernel does not take this filter: {problem.strerror}",
                        hint="it must be classic BPF that returns on every path",
                    ) from problem
        self.filters = filters
        for ring in rings:
            self._set_filter(self.targets[ring.target], ring)
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

    # ---- tombstones -------------------------------------------------------------------------------------

    def _bury(self, target: Recorded, ring: Ring) -> None:
        """Copy what a ring holds, then close it, so that nothing keeps the dead interface alive."""
        now = time.time_ns()
        del target.rings[ring.interface.ifindex]
        self.sweeper.remove(ring)
        ring.hand_back()
        ring.count(now)
        oldest_ns, newest_ns = ring.span_ns()
        grave: Tombstone | None = None
        if self.budget.make_room(ring.used()):
            try:
                taken = ring.copy(breathe=self.sweeper.breathe)
            except OSError as problem:
                log.error(  # noqa: TRY400 — the reason is said
                    "%s: the history of %s is lost: %s", target.name, ring.interface.name, problem
                )
            else:
                blocks = tuple(replace(each, open=False) for each in taken.blocks)
                grave = Tombstone(
                    id=ring.id,
                    target=target.key,
                    interface=ring.interface,
                    snaplen=ring.snaplen,
                    opened_ns=ring.opened_ns,
                    closed_ns=now,
                    counters=ring.counters,
                    oldest_ns=oldest_ns,
                    newest_ns=newest_ns,
                    copy=Copy(taken.fd, taken.size, blocks, self.budget),
                    flow_cut=ring.flow_cut,
                )
        if grave is None:
            target.expired_ns = now
            self.expired += 1
        else:
            target.tombstones.append(grave)
            self._keeper.put(f"grave:{ring.id}", tombstone_facts(grave), grave.copy.fd)
            self._bury_timer(target.key, ring.id, now)
            if len(target.tombstones) > _TOMBSTONES:
                self._expire(target, target.tombstones[0])
        self._keeper.drop(f"ring:{ring.id}")
        self._loop.submit(ring.close, lambda _: None)
        self.followed(target)

    def _bury_timer(self, key: TargetKey, ring: str, closed_ns: int) -> None:
        age_s = max(0.0, (time.time_ns() - closed_ns) / 1e9)

        def due() -> None:
            target = self.targets.get(key)
            for grave in target.tombstones if target is not None else ():
                if target is not None and grave.id == ring:
                    self._expire(target, grave)
                    break

        self._loop.later(max(0.0, self._config.tombstone_s - age_s), due)

    def _evict(self) -> bool:
        """Give up the oldest tombstone that nobody else needs."""
        candidates = [
            (grave.closed_ns, grave.id, target, grave)
            for target in self.targets.values()
            for grave in target.tombstones
            if grave.copy.alone and grave.copy.size
        ]
        if not candidates:
            return False
        *_, target, grave = min(candidates, key=lambda each: each[:2])
        self._expire(target, grave)
        return True

    def _expire(self, target: Recorded, grave: Tombstone) -> None:
        target.tombstones.remove(grave)
        if grave.counters.packets:
            target.expired_ns = max(target.expired_ns, grave.newest_ns or grave.closed_ns)
            self.expired += 1
        grave.copy.drop()
        self._keeper.drop(f"grave:{grave.id}")
        self._keeper.put(f"target:{target.key}", target.facts())
        if not target.alive and not target.tombstones:
            self._forget(target)


def _host_path() -> str:
    """The namespace that counts as the host's: the first process's, or ours where that one is not to be seen."""
    return "/proc/1/ns/net" if namespaces.inode("/proc/1/ns/net") else "/proc/self/ns/net"


def summary(roster: Roster) -> Json:
    """The recorder as a whole, in numbers."""
    living = [each for each in roster.targets.values() if each.alive]
    rings = [ring for each in living for ring in each.rings.values()]
    return {
        "targets": len(living),
        "gone": len(roster.targets) - len(living),
        "rings": len(rings),
        "ring_bytes": sum(ring.shape.bytes for ring in rings),
        "copies_bytes": roster.budget.used,
        "copies_limit": roster.budget.limit,
        "tombstones": sum(len(each.tombstones) for each in roster.targets.values()),
        "expired": roster.expired,
        "wakeups": roster.sweeper.wakeups,
        "flow_cut": roster.filters.flow_cut if roster.filters.wants_flows else 0,
        "flow_cut_refused": refusal() if roster.filters.flow_cut else "",
        "flow_bytes": sum(each.flows.bytes for each in living if each.flows is not None),
    }
