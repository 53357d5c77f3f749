"""Answers requests on the recorder's socket. A client that is hostile or slow hurts nobody but itself."""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Callable
from typing import Any

from tripshark.errors import BadInput, Denied, NotFound, Permanent, Transient, TripsharkError
from tripshark.formats.wire import MAX_MESSAGE, VERSION, Json, field, to_json, unpack
from tripshark.model.recording import MAX_WEIGHT, Mode
from tripshark.model.target import TargetKey
from tripshark.recorder.copies import Copy
from tripshark.recorder.filters import Filters
from tripshark.recorder.follow import Follow
from tripshark.recorder.loop import Loop
from tripshark.recorder.peer import Held, Peer, may_connect
from tripshark.recorder.recorded import Recorded, ring_copy
from tripshark.recorder.roster import Assignment, Roster, summary

log = logging.getLogger(__name__)

_PEERS = 64
_GREETING_S = 10.0  # a connection that does not say hello by then is closed
_HELD = 256  # frozen histories per client
_FOLLOWS = 64  # per client
_KEYS = 64  # per freeze
_SNAPLEN = 262_144
_REASON = 200  # characters


class Service:
    """The socket and everybody connected to it."""

    def __init__(
        self, loop: Loop, roster: Roster, listener: socket.socket, *, uids: set[int], gid: int
    ) -> None:
        self._loop = loop
        self._roster = roster
        self._listener = listener
        self._uids = tuple(uids)
        self._gid = gid
        self._peers: set[Peer] = set()
        self._follows: dict[tuple[Peer, int], Follow] = {}
        self._handles = 0
        self._since_ns = time.time_ns()
        roster.estate.followed = self._stirred
        listener.setblocking(False)
        loop.watch(listener.fileno(), self._accept)

    # ---- connections ------------------------------------------------------------------------------------

    def _accept(self, _events: int) -> None:
        try:
            sock, _ = self._listener.accept()
        except OSError:  # it left again, or there are no descriptors left
            return
        peer = Peer(self._loop, sock, request=self._on_request, closed=self._on_closed)
        self._peers.add(peer)
        if not may_connect(sock, uids=self._uids, gid=self._gid):
            hint = "run as the recorder's user or in the socket's group"
            peer.refusal = Denied("the recorder does not serve this user", hint=hint)
        elif len(self._peers) > _PEERS:
            peer.refusal = Transient("the recorder serves too many clients")
        if len(self._peers) > 2 * _PEERS:
            peer.close()
        else:
            self._loop.later(_GREETING_S, lambda: None if peer.greeted else peer.close())

    def _on_closed(self, peer: Peer) -> None:
        self._peers.discard(peer)
        for key in [each for each in self._follows if each[0] is peer]:
            self._follows.pop(key).stop()
        self._roster.tell_of_blocks(bool(self._follows))

    def _on_request(self, peer: Peer, data: bytes) -> None:
        if (
            peer.refusal is not None
        ):  # only now: closing with a request unread would take the answer away
            peer.refuse(0, peer.refusal)
            peer.close()
            return
        id = 0
        try:
            request = unpack(data)
            id = field(request, "id", int)
        except TripsharkError as problem:
            peer.refuse(id, problem)
            if not peer.greeted:
                peer.close()
            return
        self._guarded(peer, id, lambda: self._answer(peer, id, request))

    def _guarded(self, peer: Peer, id: int, answer: Callable[[], None]) -> None:
        """What goes wrong with a request is an answer, too."""
        try:
            answer()
        except TripsharkError as problem:
            peer.refuse(id, problem)
            if not peer.greeted:
                peer.close()
        except OSError as problem:
            log.exception("a request failed")
            peer.refuse(id, Transient(f"the recorder could not do it: {problem}"))

    def _answer(self, peer: Peer, id: int, request: Json) -> None:
        what = field(request, "t", str)
        if what == "hello":
            self._hello(peer, id, request)
            return
        if not peer.greeted:
            raise BadInput("say hello first")
        match what:
            case "targets":
                self._targets(peer, id)
            case "inode":
                inode = self._roster.inode_of(_positive(request, "pid"))
                peer.send({"t": "inode", "id": id, "inode": inode})
            case "attach":
                self._attach(peer, id, request)
            case "freeze":
                self._freeze(peer, id, request)
            case "follow":
                self._follow(peer, id, request)
            case "ack":
                follow = self._follows.get((peer, field(request, "follow", int)))
                if follow is not None:
                    follow.acked(field(request, "n", int))
            case "stop":
                stopped = self._follows.pop((peer, field(request, "follow", int)), None)
                if stopped is not None:
                    stopped.stop()
                self._roster.tell_of_blocks(bool(self._follows))
            case "release":
                held = peer.held.pop(field(request, "handle", int), None)
                if held is not None:
                    held.drop()
                peer.send({"t": "released", "id": id})
            case "filter":
                self._filter(peer, id, request)
            case "record":
                unknown = self._roster.record(_assignments(request))
                peer.send({"t": "recorded", "id": id, "unknown": unknown})
            case "stats":
                self._stats(peer, id)
            case _:
                raise BadInput(f"no request is called {what[:40]!r}")

    def _hello(self, peer: Peer, id: int, request: Json) -> None:
        version = field(request, "version", int)
        if version != VERSION:
            raise Permanent(
                f"the recorder speaks version {VERSION}, the client {version}",
                hint="after an upgrade restart both; SIGHUP to the holder replaces the recorder",
            )
        peer.greeted = True
        facts = {"version": VERSION, "pid": os.getpid(), "started_ns": self._since_ns}
        peer.send({"t": "hello", "id": id, **facts})

    # ---- requests ---------------------------------------------------------------------------------------

    def _targets(self, peer: Peer, id: int) -> None:
        targets = []
        for target in self._roster.targets.values():
            for ring in target.rings.values():
                self._roster.count(ring)
            targets.append(to_json(target.describe()))
        peer.send({"t": "targets", "id": id, "targets": targets})

    def _attach(self, peer: Peer, id: int, request: Json) -> None:
        def done(target: Recorded) -> None:
            if target.problem:
                peer.refuse(id, Transient(f"{target.name}: {target.problem}"))
            else:
                peer.send({"t": "attached", "id": id, "key": target.key})

        self._roster.attach(_positive(request, "pid"), done)

    def _target(self, key: object) -> Recorded:
        target = self._roster.targets.get(TargetKey(key)) if isinstance(key, str) else None
        if target is None:
            raise NotFound(
                "that target is gone, and its history too",
                where=str(key)[:80],
                hint="tombstones are kept for a while only: recorder.tombstone",
            )
        return target

    def _freeze(self, peer: Peer, id: int, request: Json) -> None:
        keys = field(request, "keys", list[Any])
        if len(keys) > _KEYS or len(peer.held) + len(keys) > _HELD:
            raise BadInput("too many targets at once", hint=f"at most {_KEYS}; release some")
        targets = [self._target(key) for key in keys]
        moving = [each for each in targets if not each.still]
        if moving:  # a matter of some ten milliseconds
            first = moving[0]
            self._roster.estate.when(
                first, lambda: first.still, lambda: self._again(peer, id, request)
            )
            return
        for target in targets:
            self._freeze_one(peer, id, target)

    def _again(self, peer: Peer, id: int, request: Json) -> None:
        """Try a freeze that had to wait."""
        if peer.open:
            self._guarded(peer, id, lambda: self._freeze(peer, id, request))

    def _freeze_one(self, peer: Peer, id: int, target: Recorded) -> None:
        held = Held(copies=[])
        facts: list[Json] = []
        at_ns = time.time_ns()
        try:
            for grave in target.tombstones:
                held.copies.append(grave.copy.hold())
                facts.append(ring_copy(grave, grave.copy.blocks, grave.copy.size))
            rings = list(target.rings.values())
            self._make_room(target, sum(ring.used() for ring in rings))
            for ring in rings:
                taken = ring.copy(breathe=self._roster.sweeper.breathe)
                held.copies.append(
                    Copy(taken.fd, taken.size, taken.blocks, self._roster.graves.budget)
                )
                self._roster.count(ring, now=True)
                facts.append(ring_copy(ring, taken.blocks, taken.size, taken.overwritten))
        except BaseException:
            held.drop()
            raise
        self._handles += 1
        peer.held[self._handles] = held
        frozen = {
            "handle": self._handles,
            "target": to_json(target.describe()),
            "at_ns": at_ns,
            "copies": facts,
            "expired_ns": target.expired_ns,
        }
        peer.send({"t": "frozen", "id": id, "frozen": frozen}, held.copies)

    def _make_room(self, target: Recorded, size: int) -> None:
        if not self._roster.graves.budget.make_room(size):
            raise Transient(
                "there is no memory left for frozen histories",
                where=target.name,
                hint="others have not been released yet; or raise recorder.copies",
                after=1.0,
            )

    def _follow(self, peer: Peer, id: int, request: Json) -> None:
        positions = field(request, "positions", dict[str, Any])
        if any(type(each) is not int for each in positions.values()):
            raise BadInput("'positions' must be numbers by ring")
        if sum(1 for each in self._follows if each[0] is peer) >= _FOLLOWS:
            raise BadInput("too many follows at once", hint=f"at most {_FOLLOWS}")
        if (peer, id) in self._follows:
            raise BadInput("there is a follow with this id")
        self._follows[peer, id] = Follow(
            self._loop,
            self._roster,
            peer,
            self._target(request.get("key")),
            id=id,
            positions=positions,
            until_ns=field(request, "until_ns", int),
            max_bytes=_positive(request, "max_bytes"),
        )
        self._roster.tell_of_blocks(True)

    def _stirred(self, target: Recorded) -> None:
        for key, each in list(self._follows.items()):
            if each.ended:
                del self._follows[key]
            elif each.target is target:
                each.stirred()
        self._roster.tell_of_blocks(bool(self._follows))

    def _filter(self, peer: Peer, id: int, request: Json) -> None:
        ethernet, raw = _program(request, "ethernet"), _program(request, "raw")
        snaplen = _positive(request, "snaplen")
        if snaplen > _SNAPLEN:
            raise BadInput(f"'snaplen' must be at most {_SNAPLEN}")
        rings = self._roster.set_filters(
            Filters(ethernet, raw, snaplen, self._roster.estate.filters.flow_cut)
        )
        peer.send({"t": "filtered", "id": id, "rings": rings})

    def _stats(self, peer: Peer, id: int) -> None:
        facts = summary(self._roster) | {
            "clients": len(self._peers),
            "frozen": sum(len(each.held) for each in self._peers),
            "follows": len(self._follows),
            "pid": os.getpid(),
            "started_ns": self._since_ns,
        }
        peer.send({"t": "stats", "id": id, **facts})

    def close(self) -> None:
        for peer in list(self._peers):
            peer.close()
        self._loop.unwatch(self._listener.fileno())
        self._listener.close()


def _positive(request: Json, name: str) -> int:
    number = field(request, name, int)
    if not 0 < number < 1 << 62:
        raise BadInput(f"{name!r} must be positive")
    return number


def _assignments(request: Json) -> dict[TargetKey, Assignment]:
    found: dict[TargetKey, Assignment] = {}
    for key, wanted in field(request, "assign", dict[str, Any]).items():
        if not isinstance(wanted, dict):
            raise BadInput("'assign' must be objects by key")
        mode, weight = field(wanted, "mode", str), field(wanted, "weight", int)
        reason = field(wanted, "reason", str) if "reason" in wanted else ""
        if mode not in tuple(Mode):
            raise BadInput("'mode' must be off, headers or full", where=key[:80])
        if not 1 <= weight <= MAX_WEIGHT:
            raise BadInput(f"'weight' must be 1 to {MAX_WEIGHT}", where=key[:80])
        found[TargetKey(key)] = Assignment(Mode(mode), weight, reason[:_REASON])
    return found


def _program(request: Json, name: str) -> bytes:
    try:
        program = bytes.fromhex(field(request, name, str))
    except ValueError as problem:
        raise BadInput(f"{name!r} must be hex digits") from problem
    if len(program) % 8 or len(program) > MAX_MESSAGE:
        raise BadInput(f"{name!r} must be instructions of 8 bytes")
    return program
