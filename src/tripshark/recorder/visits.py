"""Looks at the interfaces of namespaces, and opens a ring for each that is to be recorded."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import select
import socket
import time
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

from tripshark.model.recording import Mode
from tripshark.model.target import TargetKind
from tripshark.recorder import kernel, namespaces
from tripshark.recorder.cradle import LIFE_S, Cradle, Early, without
from tripshark.recorder.cut import stamps
from tripshark.recorder.estate import Estate
from tripshark.recorder.filters import Filters
from tripshark.recorder.graves import Graves
from tripshark.recorder.links import Link, doorbell, hush, survey
from tripshark.recorder.memory import ring_shape
from tripshark.recorder.recorded import Recorded, ring_facts
from tripshark.recorder.ring import ETHERNET, LOOPBACK, RAW_IP, Ring, Shape, open_ring
from tripshark.recorder.sweeper import Sweeper

log = logging.getLogger(__name__)

_RINGS = 32  # per target: whoever lives in the namespace may make any number of interfaces
_VISIT_S = 0.02  # interfaces of one namespace are looked at no more often than that …
_EAGER = 12  # … but for the first few times: a pod is being set up
_IN_FLIGHT_S, _SLACK_NS = 0.002, 10_000_000  # what one socket has the other gets at once
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


class _Seen(NamedTuple):
    """What a visit found."""

    bell: socket.socket
    links: dict[int, Link]
    cradle: Cradle | None


class _Open(NamedTuple):
    """A new ring, and what came before it."""

    ring: Ring
    earlier: list[Early]
    drops: int


class Visits:
    """One at a time for each target, by one of the crew."""

    def __init__(self, estate: Estate, graves: Graves, sweeper: Sweeper) -> None:
        self.misfit: Callable[[Recorded], None] = lambda _: (
            None
        )  # maybe a ring is not as it should be
        self._estate = estate
        self._graves = graves
        self._sweeper = sweeper

    def visit(self, target: Recorded) -> None:
        """Let one of the crew look at the interfaces."""
        if target.visiting:
            target.visit_again = True
            return
        if not target.rings and (not target.quota or target.mode is Mode.OFF):
            target.visited = True
            self._estate.done(target)
            return
        target.visiting, target.visit_again = True, False
        target.visit_began_s = time.monotonic()
        target.visits += 1
        path, inode, bell = min(target.paths), target.inode, target.bell
        filters, headers = self._estate.filters, target.headers
        born = target.seen_born and target.visits == 1

        def work() -> _Seen:
            with contextlib.ExitStack() as undo:
                cradle: Cradle | None = None
                if born:  # first of all
                    with contextlib.suppress(OSError):
                        cradle = Cradle(
                            lambda sock: filters.attach(sock, 1, None, headers=headers)
                        )
                        undo.callback(cradle.close)
                ring = bell or doorbell()
                if bell is None:
                    undo.callback(ring.close)
                hush(ring)
                links = survey()
                undo.pop_all()
            return _Seen(ring, links, cradle)

        self._estate.loop.submit(
            lambda: namespaces.inside(path, inode, work),
            lambda result: self._visited(target, result),
        )

    def leave(self, target: Recorded) -> None:
        """Nothing of it is to be kept alive any more."""
        self.forget_birth(target)
        if target.bell is not None:
            self._estate.loop.unwatch(target.bell.fileno())
            target.bell.close()
            target.bell = None

    def forget_birth(self, target: Recorded) -> None:
        """What came before its first ring is not waited for any more."""
        if target.cradle is not None:
            self._estate.loop.submit(target.cradle.close, lambda _: None)
            target.cradle = None

    def _visited(self, target: Recorded, result: _Seen | Exception) -> None:
        estate = self._estate
        target.visiting, target.visited = False, True
        if isinstance(result, Exception):
            if target.alive and not isinstance(result, namespaces.Gone):
                target.problem = f"cannot be entered: {result}"
                log.warning("%s %s", target.name, target.problem)
            estate.done(target)
            return
        bell, links, cradle = result
        if target.quota:
            target.problem = ""
        if cradle is not None:
            target.cradle = cradle
            estate.loop.later(LIFE_S, lambda: self.forget_birth(target))
        if target.closed:
            self.forget_birth(target)
        if not target.alive:
            if target.bell is not bell:
                bell.close()
            estate.done(target)
            return
        target.bell = bell
        self._compare(target, links)
        estate.done(target)
        took_s = time.monotonic() - target.visit_began_s  # thousands of interfaces take long
        if target.visits <= _EAGER:
            self._arm(target)
        else:
            estate.loop.later(max(_VISIT_S, 10 * took_s), lambda: self._arm(target))

    def _arm(self, target: Recorded) -> None:
        """Listen to the doorbell again, or look at once if it rang meanwhile."""
        if target.bell is None or target.visiting:
            return
        if target.visit_again:
            self.visit(target)
        else:
            bell = target.bell.fileno()
            self._estate.loop.watch(bell, lambda _: self._rang(target), select.EPOLLIN)

    def _rang(self, target: Recorded) -> None:
        if target.bell is not None:
            self._estate.loop.unwatch(target.bell.fileno())
            self.visit(target)

    def _compare(self, target: Recorded, links: dict[int, Link]) -> None:
        """Follow what changed: new interfaces, renamed ones, new addresses, gone ones."""
        target.frames = {ifindex: link.largest_frame for ifindex, link in links.items()}
        for ifindex, ring in list(target.rings.items()):
            if ring in target.changing:
                continue
            link = links.get(ifindex)
            if link is None or ring.detached:
                self._graves.bury(target, ring, most=ring.most)
            elif ring.interface != link.interface:
                ring.interface = replace(
                    link.interface, hardware_type=ring.interface.hardware_type
                )
                self._estate.keeper.put(f"ring:{ring.id}", ring_facts(ring))
        target.unrecorded.clear()
        if not target.quota or target.mode is Mode.OFF:
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
        keeps = self._estate.filters.keeps(headers=target.headers)
        for link in wanted:
            form = ring_shape(target, link, fresh, keeps)
            if form is None:
                target.unrecorded[link.interface.ifindex] = f"over budget: {link.interface.name}"
            else:
                self._open(target, link, form)

    def _open(self, target: Recorded, link: Link, form: Shape) -> None:
        estate, interface = self._estate, link.interface
        if not target.rings and not target.opening:
            target.laid_out = target.quota, target.headers
            estate.keep(target)
        target.opening[interface.ifindex] = form.bytes
        id, filters, headers = estate.name("r"), estate.filters, target.headers
        path, inode, flows = min(target.paths), target.inode, estate.flows(target)
        cradle = None
        if interface.hardware_type != LOOPBACK:
            cradle, target.cradle = target.cradle, None

        def work() -> _Open:
            if cradle is None:
                return _Open(open_now(), [], 0)
            try:
                ring = open_now()
                return _Open(ring, *_earlier(ring, cradle))
            finally:
                cradle.close()

        def open_now() -> Ring:
            kind = interface.hardware_type
            ring = open_ring(
                form,
                lambda sock: filters.attach(sock, kind, None, headers=headers),
                id=id,
                target=target.key,
                interface=interface,
                snaplen=filters.keeps(headers=headers),
                now_ns=time.time_ns,
                stamped=cradle is not None,
            )
            if flows is not None:  # which takes milliseconds: until then packets are whole
                try:
                    ring.flow_cut = filters.attach(
                        ring.sock, kind, flows, headers=headers, ring_bytes=ring.shape.bytes
                    )
                except BaseException:
                    ring.close()
                    raise
            return ring

        estate.loop.submit(
            lambda: namespaces.inside(path, inode, work),
            lambda result: self._opened(target, link, filters, result, cradle),
        )

    def _opened(
        self,
        target: Recorded,
        link: Link,
        filters: Filters,
        opened: _Open | Exception,
        cradle: Cradle | None,
    ) -> None:
        estate, ifindex = self._estate, link.interface.ifindex
        result = opened if isinstance(opened, Exception) else opened.ring
        target.opening.pop(ifindex, None)
        if isinstance(result, Exception):
            gone = isinstance(result, OSError) and result.errno in (errno.ENODEV, errno.ENXIO)
            if not gone and not isinstance(result, namespaces.Gone):
                name = link.interface.name
                target.unrecorded[ifindex] = f"not recorded: {name} ({result})"
                log.warning("%s: %s", target.name, target.unrecorded[ifindex])
        elif not target.alive or target.mode is Mode.OFF or not target.quota:
            estate.loop.submit(result.close, lambda _: None)
        else:
            target.rings[ifindex] = result
            self._sweeper.add(result)
            keeps = estate.filters.keeps(headers=target.headers)
            if cradle is not None and not isinstance(opened, Exception) and opened.earlier:
                self._graves.caught(target, result, cradle, opened.earlier, opened.drops)
            if filters is not estate.filters or result.snaplen != keeps:  # meanwhile
                result.exposed = target.mode is Mode.HEADERS and result.snaplen > keeps
                estate.set_filter(target, result)
                if result.exposed:
                    self._graves.shorten(target, result.snaplen)
            estate.keeper.put(f"ring:{result.id}", ring_facts(result), result.fd)
            if result.detached:
                self._graves.bury(target, result, most=result.most)
            else:
                self.misfit(target)
            estate.followed(target)
        estate.done(target)


def _earlier(ring: Ring, cradle: Cradle) -> tuple[list[Early], int]:
    """What came at the ring's interface before the ring recorded, and how many packets were lost then."""
    packets = cradle.take(ring.interface.name)
    time.sleep(_IN_FLIGHT_S)
    kernel.stamp_early(ring.sock, False)
    if not packets:
        return [], cradle.drops
    head = ring.copy()
    if head.fd < 0:
        return packets, cradle.drops
    try:
        twice = stamps(head.fd, head.blocks, packets[-1].stamp.time_ns + _SLACK_NS)
    finally:
        os.close(head.fd)
    return without(packets, twice), cradle.drops
