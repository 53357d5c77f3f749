"""What one node asks of all nodes, what each of them answers, and what the whole has come to."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from tripshark.model.evidence import IncidentId
from tripshark.model.filter import Scope

SECOND = 1_000_000_000
MAX_BEFORE_NS = 3600 * SECOND
MAX_AFTER_NS = 900 * SECOND
DEFAULT_TTL_NS = 86_400 * SECOND


class Aimed(StrEnum):
    """What a request can be about."""

    POD = "pod"
    WORKLOAD = "workload"
    SERVICE = "service"
    NODE = "node"


@dataclass(frozen=True, slots=True, kw_only=True)
class Aim:
    """One thing to be captured, said so that every node can tell whether it is concerned."""

    kind: Aimed
    name: str
    namespace: str = ""  # "" for a node
    workload: str = ""  # "Deployment", "StatefulSet", … where kind is workload
    uid: str = ""  # the pod's, where kind is pod: its name may be used again

    def __str__(self) -> str:
        kind = self.workload or self.kind.value
        return f"{kind} {self.namespace}/{self.name}" if self.namespace else f"{kind} {self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetRequest:
    """What every node concerned is to capture. It says what, never where to; None leaves it to the settings."""

    aims: tuple[Aim, ...]
    t0_ns: int  # the event's time; the history before it is what is wanted
    before_ns: int | None = None
    after_ns: int | None = None
    scope: Scope | None = None  # of each part: flow, peer, pod or node
    peer: str = ""  # "203.0.113.66:4444"
    filter: str = ""  # pcap-filter(7); each node compiles it itself
    max_bytes: int | None = None  # of each part; a node's own limit holds as well
    incident: IncidentId | None = None  # the same on all nodes; None: derived from the resource
    rule: str = ""
    alert: str = ""  # the alert's body verbatim
    origin: str = ""  # the node that asked
    by: str = ""  # who asked, as the asker says it: unproven
    ttl_ns: int = DEFAULT_TTL_NS
    wide: bool = False  # ask as cluster-scoped resource although one namespace would do
    key: str = ""  # what makes two asks the same; "": everything they say but who asks

    @property
    def namespace(self) -> str:
        """Where the resource belongs; "": it must be a cluster-scoped one."""
        alone = len(self.aims) == 1 and not self.wide
        return self.aims[0].namespace if alone else ""


def resource_name(request: FleetRequest) -> str:
    """The resource's name: the same ask twice, by whichever node, is one resource.

    At most 63 of a-z, 0-9 and `-`: the incident's id where there is one, and 12 digits of what is asked.
    """
    said = request.key or json.dumps(
        [
            [str(aim) + aim.uid for aim in request.aims],
            request.t0_ns,
            request.before_ns,
            request.after_ns,
            request.scope,
            request.peer,
            request.filter,
            request.max_bytes,
            request.incident,
            request.rule,
            request.alert,
            request.wide,
        ]
    )
    digest = hashlib.sha256(said.encode(errors="surrogatepass")).hexdigest()[:12]
    head = re.sub(r"[^a-z0-9]+", "-", (request.incident or "alert").lower())[:50].strip("-")
    return f"{head or 'alert'}-{digest}"


class Stage(StrEnum):
    """How far one part is."""

    CAPTURING = "Capturing"  # frozen, following or sealing
    SEALED = "Sealed"
    EMPTY = "Empty"  # sealed without one packet
    REFUSED = "Refused"  # this node will not, and says why
    FAILED = "Failed"

    @property
    def final(self) -> bool:
        return self is not Stage.CAPTURING

    @property
    def good(self) -> bool:
        """There is evidence, be it of absence."""
        return self in (Stage.SEALED, Stage.EMPTY)


@dataclass(frozen=True, slots=True, kw_only=True)
class PartKey:
    """Where a part comes from: a pod (by its uid) on a node; the node itself has the uid `host`."""

    node: str
    uid: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PartReport:
    """What one node says of one pod."""

    node: str
    uid: str
    target: str = ""  # namespace/pod
    incident: str = ""
    stage: Stage = Stage.CAPTURING
    reason: str = ""  # a CamelCase word where the stage needs one: TooMany, NotRecorded
    message: str = ""
    word: str = ""  # the ledger's: complete, truncated, …
    packets: int = 0
    bytes: int = 0
    sha256: str = ""  # of the manifest
    location: str = ""  # where the operator's settings put it; told, never asked for
    frozen_ns: int = 0
    at_ns: int = 0  # when this was so

    @property
    def key(self) -> PartKey:
        return PartKey(node=self.node, uid=self.uid)


class Phase(StrEnum):
    """What the whole has come to. Of the last four none waits for anything, but a late part may still mend it."""

    PENDING = "Pending"
    CAPTURING = "Capturing"
    COMPLETE = "Complete"
    PARTIAL = "Partial"  # some parts are missing or failed
    REFUSED = "Refused"
    FAILED = "Failed"

    @property
    def final(self) -> bool:
        return self not in (Phase.PENDING, Phase.CAPTURING)


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Why a request as a whole is not done: a CamelCase word, and a sentence."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """One of the yes-or-no answers that Kubernetes tools know how to wait for."""

    type: str  # Accepted, Frozen, Complete
    status: bool
    reason: str
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long the whole waits for whom, counted from when the request was made."""

    grace_ns: int = 10 * SECOND  # for nodes that alone know of a pod, dead ones above all
    silence_ns: int = 120 * SECOND  # for a node that should take part and has said nothing
    sealing_ns: int = 900 * SECOND  # beyond the window, for a part that has begun


@dataclass(frozen=True, slots=True, kw_only=True)
class Whole:
    """A request and everything said about it so far."""

    request: FleetRequest
    since_ns: int  # when it was made
    parts: Sequence[PartReport] = ()
    expected: Collection[PartKey] | None = None  # who should take part; None: nobody could say yet
    problem: Problem | None = None  # it is not done at all
    patience: Patience = field(default_factory=Patience)

    def silent(self) -> tuple[PartKey, ...]:
        """Who should take part and has said nothing."""
        heard = {part.key for part in self.parts}
        return tuple(
            sorted(
                (key for key in self.expected or () if key not in heard),
                key=lambda key: (key.node, key.uid),
            )
        )

    def phase(self, now_ns: int) -> Phase:
        """What it has come to at this time."""
        if self.problem is not None:
            return Phase.REFUSED
        waited_ns = now_ns - self.since_ns
        if self._waits(waited_ns):
            return Phase.CAPTURING if self.parts else Phase.PENDING
        return self._settled()

    def _waits(self, waited_ns: int) -> bool:
        patience = self.patience
        window_ns = MAX_AFTER_NS if self.request.after_ns is None else self.request.after_ns
        if waited_ns < patience.grace_ns:
            return True
        if any(not part.stage.final for part in self.parts):
            return waited_ns < window_ns + patience.sealing_ns
        unknown = self.expected is None
        return (unknown or bool(self.silent())) and waited_ns < patience.silence_ns

    def _settled(self) -> Phase:
        good = sum(part.stage.good for part in self.parts)
        if good:
            whole = good == len(self.parts) and not self.silent()
            return Phase.COMPLETE if whole else Phase.PARTIAL
        refused = bool(self.parts) and all(p.stage is Stage.REFUSED for p in self.parts)
        return Phase.REFUSED if refused and not self.silent() else Phase.FAILED

    def next_ns(self, now_ns: int) -> int | None:
        """When the phase may change without anybody saying something; None: never."""
        patience = self.patience
        window_ns = MAX_AFTER_NS if self.request.after_ns is None else self.request.after_ns
        moments = (patience.grace_ns, patience.silence_ns, window_ns + patience.sealing_ns)
        ahead = [self.since_ns + each for each in moments if self.since_ns + each > now_ns]
        return min(ahead) if ahead and not self.phase(now_ns).final else None

    def conditions(self, now_ns: int) -> tuple[Condition, ...]:
        """Accepted, Frozen, Complete, always all three."""
        phase = self.phase(now_ns)
        return (self._accepted(phase), self._frozen(phase), self._complete(phase))

    def _accepted(self, phase: Phase) -> Condition:
        if self.problem is not None:
            return _no("Accepted", self.problem.reason, self.problem.message)
        taken = sum(part.stage is not Stage.REFUSED for part in self.parts)
        if taken:
            return _yes("Accepted", "Accepted", f"{_parts(taken)} taken up")
        if self.parts:
            first = min(self.parts, key=lambda part: (part.node, part.uid))
            return _no("Accepted", first.reason or "Refused", first.message)
        if not phase.final:
            return _no("Accepted", "Waiting", "no node has answered yet")
        return _no("Accepted", *self._nobody())

    def _nobody(self) -> tuple[str, str]:
        aims = ", ".join(str(aim) for aim in self.request.aims)
        silent = self.silent()
        if silent:
            return "NodeSilent", _silence(silent)
        kinds = {aim.kind for aim in self.request.aims}
        kind = kinds.pop().value.capitalize() if len(kinds) == 1 else "Target"
        return f"NoSuch{kind}", f"no node knows {aims}, alive or lately dead"

    def _frozen(self, phase: Phase) -> Condition:
        silent = self.silent()
        frozen = sum(part.frozen_ns > 0 for part in self.parts)
        told = f"{frozen} of {len(self.parts) + len(silent)} histories frozen"
        if frozen and frozen == len(self.parts) and not silent:
            return _yes("Frozen", "Frozen", told)
        if not phase.final:
            return _no("Frozen", "Waiting", told)
        if silent:
            return _no("Frozen", "NodeSilent", f"{told}; {_silence(silent)}")
        return _no("Frozen", "NotFrozen" if self.parts else "Nobody", told)

    def _complete(self, phase: Phase) -> Condition:
        final = sum(part.stage.final for part in self.parts)
        good = sum(part.stage.good for part in self.parts)
        told = f"{good} of {len(self.parts) + len(self.silent())} parts sealed"
        if not phase.final:
            return _no(
                "Complete", phase.value, f"{told}, {_parts(len(self.parts) - final)} under way"
            )
        return Condition(
            type="Complete", status=phase is Phase.COMPLETE, reason=phase.value, message=told
        )


def labels(request: FleetRequest) -> Mapping[str, str]:
    """What the resource is labelled with, for `kubectl get -l`."""
    return {"tripshark.dev/incident": request.incident} if request.incident else {}


def _parts(count: int) -> str:
    return f"{count} part" if count == 1 else f"{count} parts"


def _silence(places: Sequence[PartKey]) -> str:
    nodes = sorted({key.node for key in places})
    shown = ", ".join(nodes[:5]) + (f" and {len(nodes) - 5} more" if len(nodes) > 5 else "")
    return f"nothing heard from {shown}: is Tripshark running there?"


def _yes(type: str, reason: str, message: str) -> Condition:
    return Condition(type=type, status=True, reason=reason, message=message)


def _no(type: str, reason: str, message: str) -> Condition:
    return Condition(type=type, status=False, reason=reason, message=message)
