"""Everybody known at one moment, found by id, name, inode or address without looking at everybody."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from tripshark.model.addresses import plain
from tripshark.model.pod import Sandbox
from tripshark.model.target import Identity, Target, TargetKind
from tripshark.targets.clues import DIGITS
from tripshark.targets.identities import SLACK_NS


@dataclass(frozen=True, slots=True, kw_only=True)
class Unrecorded:
    """Somebody known of whom there is no recording, and why."""

    identity: Identity
    reason: str
    sandbox: Sandbox | None = None


class View:
    """An index over targets, host-network pods (the host's target under their name), and who is not recorded."""

    def __init__(
        self,
        targets: Sequence[Target],
        guests: Iterable[Target] = (),
        unrecorded: Iterable[Unrecorded] = (),
        aliases: Collection[tuple[str, Target]] = (),
    ) -> None:
        self.targets = tuple(targets)
        self.host = next((each for each in targets if each.kind is TargetKind.HOST), None)
        self._ids: dict[str, list[Target]] = {}
        self._uids: dict[str, list[Target]] = {}
        self._pods: dict[tuple[str, str], list[Target]] = {}
        self._inodes: dict[int, list[Target]] = {}
        self._addresses: dict[str, list[Target]] = {}
        self._names: dict[str, list[Target]] = {}
        for target in targets:
            self._inodes.setdefault(target.inode, []).append(target)
            for address in target.addresses:
                self._addresses.setdefault(plain(address), []).append(target)
            for name in (target.name, target.key):
                self._names.setdefault(name, []).append(target)
            self._identify(target)
        for name, target in aliases:
            self._names.setdefault(name, []).append(target)
        self.guests = tuple(guests)
        for target in self.guests:
            self._identify(target)
        self._unrecorded: dict[str, Unrecorded] = {}
        self.strangers = tuple(unrecorded)
        for each in self.strangers:
            for id in each.identity.containers:
                self._unrecorded[id[:DIGITS]] = each
            self._unrecorded[each.identity.uid] = each
            self._unrecorded[each.identity.name] = each
        self._unrecorded.pop("", None)

    def _identify(self, target: Target) -> None:
        identity = target.identity
        for id in identity.containers:
            self._ids.setdefault(id[:DIGITS], []).append(target)
        if identity.uid:
            self._uids.setdefault(identity.uid, []).append(target)
        if identity.pod:
            self._pods.setdefault((identity.namespace, identity.pod), []).append(target)
            self._pods.setdefault(("", identity.pod), []).append(target)
            self._names.setdefault(identity.name, []).append(target)

    def by_container(self, id: str, t0_ns: int = 0) -> Target | None:
        """Whose container or sandbox this is; two digits more or less, as long as they are the same."""
        if len(id) < DIGITS:
            return None
        return best(
            (
                target
                for target in self._ids.get(id[:DIGITS], ())
                if any(same_container(each, id) for each in target.identity.containers)
            ),
            t0_ns,
        )

    def by_uid(self, uid: str, t0_ns: int = 0) -> Target | None:
        return best(self._uids.get(uid, ()), t0_ns)

    def by_pod(self, namespace: str, pod: str, uid: str = "", t0_ns: int = 0) -> Target | None:
        """By name, where no other uid contradicts; without a namespace only if there is but one of that name."""
        found = [
            each
            for each in self._pods.get((namespace, pod), ())
            if not uid or not each.identity.uid or each.identity.uid == uid
        ]
        if not namespace and len({each.identity.namespace for each in found}) > 1:
            return None
        return best(found, t0_ns)

    def by_inode(self, inode: int, t0_ns: int = 0) -> Target | None:
        return best(self._inodes.get(inode, ()), t0_ns)

    def by_name(self, name: str) -> Target | None:
        return best(self._names.get(name, ()), 0)

    def by_address(self, address: str, t0_ns: int) -> Target | None:
        """Who alone held it then; else who alone holds it; else who alone ever did."""
        holders = self._addresses.get(address, [])
        then = [each for each in holders if was_there(each, t0_ns)]
        likely = then or [each for each in holders if each.alive] or holders
        return likely[0] if len({each.key for each in likely}) == 1 else None

    def unrecorded(self, *names: str) -> Unrecorded | None:
        """By 12 digits of a container id, uid or `namespace/pod`."""
        found = (self._unrecorded.get(name) for name in names)
        return next((each for each in found if each is not None), None)

    def is_pod(self, name: str) -> bool:
        """Whether a pod of this name, in whichever namespace, is known here."""
        return ("", name) in self._pods


def best(known: Iterable[Target], t0_ns: int) -> Target | None:
    """Who was there at T0; else the living one, else the one that died last.

    A name or an address that was used again belongs to whoever held it when the event happened.
    """
    return max(
        known,
        key=lambda target: (
            was_there(target, t0_ns),
            target.alive,
            target.gone_ns,
            target.since_ns,
        ),
        default=None,
    )


def was_there(target: Target, t0_ns: int) -> bool:
    return target.since_ns - SLACK_NS <= t0_ns and (
        target.alive or target.gone_ns + SLACK_NS >= t0_ns
    )


def same_container(known: str, asked: str) -> bool:
    """Falco prints 12 hex digits of an id that a runtime knows in full."""
    return len(asked) >= DIGITS and (known.startswith(asked) or asked.startswith(known))
