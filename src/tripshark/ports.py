"""What the flow needs of the world, as Protocols of one to three methods."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import BinaryIO, Protocol

from tripshark.formats.wire import Chunk, Frozen
from tripshark.model.alert import Accepted, Alert, AlertId
from tripshark.model.evidence import IncidentId, Manifest, Word
from tripshark.model.filter import Scope
from tripshark.model.finding import Finding, Findings, Question
from tripshark.model.fleet import FleetRequest
from tripshark.model.incident import Incident
from tripshark.model.plan import Refusal
from tripshark.model.recording import Recording
from tripshark.model.target import Members, PeerEnd, Resolution, Target, TargetKey


class Clock(Protocol):
    def now_ns(self) -> int:
        """CLOCK_REALTIME in nanoseconds."""


class Recorder(Protocol):
    """The flight recorder of this machine. Every method raises `Transient` when it is away."""

    async def targets(self) -> tuple[Target, ...]:
        """Everything recorded now, and tombstones; identities are empty."""

    async def inode_of(self, pid: int) -> int | None:
        """The network namespace's inode of a host pid, None when there is no such process."""

    async def attach(self, pid: int) -> TargetKey:
        """Record the namespace of a host process from now on. Raises `NotFound`, or `Transient` with the reason."""

    async def record(self, assign: Mapping[TargetKey, Recording]) -> None:
        """From now on record these so. `off` forgets their history, `headers` its payloads; unknown keys are skipped."""

    async def freeze(self, keys: Sequence[TargetKey]) -> tuple[Frozen, ...]:
        """Copy the history of these targets out. Raises `NotFound` for a target that is gone."""

    def follow(self, frozen: Frozen, *, until_ns: int, max_bytes: int) -> AsyncIterator[Chunk]:
        """What comes after `frozen`, seamlessly. Ends by itself; closing the iterator ends it early."""

    async def release(self, frozen: Frozen) -> None:
        """Give the copy's memory back."""


class Targets(Protocol):
    """Who runs where: the recorder's namespaces joined with what is known of their inhabitants."""

    async def all(self) -> tuple[Target, ...]:
        """Every target with its identity."""

    async def resolve(self, alert: Alert) -> Resolution:
        """Which target the alert means, from local facts only."""

    async def resolve_late(self, alert: Alert) -> Resolution:
        """The same with some seconds of patience, for what `resolve` marked `later`: beside the others, not before them."""

    async def find(self, name: str) -> Resolution:
        """A target as people write it: `ns/pod`, `netns:NAME`, `host`, `pid:N`, `container:ID`.

        A process in a namespace that is not recorded yet is recorded from now on.
        """


class Neighbours(Protocol):
    """Who else an alert concerns, here and on other nodes; local facts first, the cluster's where there is one."""

    async def peer_of(self, alert: Alert, target: Target) -> PeerEnd | None:
        """The other end of the alert's connection, where it is a pod that somebody records."""

    async def workload_of(self, target: Target) -> Members:
        """Every pod of the workload that this one belongs to."""

    async def expand(self, kind: str, namespace: str, name: str) -> Members:
        """The pods of a `Deployment`, `StatefulSet`, …, of a `Service`, or what a `Node` records."""

    async def widen_addresses(self, alert: Alert) -> tuple[str, ...]:
        """Addresses that stand for the alert's peer as well: a service's for its backends, and theirs for it."""


class Fleet(Protocol):
    """How other nodes are asked."""

    async def ask(self, request: FleetRequest) -> str:
        """Ask durably, once however often it is asked; the resource's name. Arrives when the API server is there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """The promise made to whoever sent an alert: it is on disk."""

    alert: AlertId
    duplicate: bool
    incident: IncidentId | None


class Intake(Protocol):
    """Where every source of alerts hands them in."""

    async def accept(self, alert: Alert, body: bytes, via: str) -> Receipt:
        """Make it durable, then promise. Raises `Transient` when it cannot be made durable."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptureRequest:
    """A capture asked for by hand. None and "" leave the choice to the settings."""

    target: str  # "payments/checkout-7d9f", "netns:shop0", "host", "pid:4242"
    by: str  # who asked, for the manifest: "api:analyst", "cli:root"
    before_ns: int | None = None
    after_ns: int | None = None
    scope: Scope | None = None
    peer: str = ""  # address or address:port
    filter: str = ""  # pcap-filter(7)
    max_bytes: int | None = None


class Captures(Protocol):
    """Where captures by hand are started."""

    async def capture(self, request: CaptureRequest) -> Incident:
        """Freeze and begin. Raises `NotFound` (no such target), `BadInput` (filter), `Transient`, `Denied`."""


class Meter(Protocol):
    """Where the flow counts what it did, for those who watch. Cheap, never fails."""

    def frozen(self, seconds: float) -> None:
        """A capture began; `seconds` from the alert's acceptance to the frozen history."""

    def running(self, captures: int) -> None:
        """So many captures are under way now."""

    def sealed(self, word: Word) -> None:
        """An incident's evidence was sealed with this word."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One line of the journal."""

    seq: int
    received_ns: int
    via: str
    body: bytes  # b"" where `repeat_of` is set
    repeat_of: int = 0  # seq of the record with the very same body; 0: this one has its own


class Journal(Protocol):
    """The durable, ordered list of accepted alerts."""

    async def append(self, body: bytes, *, via: str, received_ns: int, repeat_of: int = 0) -> int:
        """Its seq, once it is on disk. Raises `Transient` when the disk refuses."""

    async def read(self, after: int, limit: int) -> Sequence[Record]:
        """Up to `limit` records with seq > `after`; waits until there is at least one."""

    async def forget(self, upto: int) -> None:
        """Everything up to here is in the catalogue: segments that hold nothing else may go."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertRow:
    """An alert as the catalogue keeps it: what became of it."""

    accepted: Accepted
    incident: IncidentId | None
    refusal: Refusal | None
    repeats: int = 0  # further copies of the same meaning, folded into this row
    last_ns: int = 0  # when the last of them was received


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """Filters of the incident list; empty means any."""

    since_ns: int = 0
    namespace: str = ""
    pod: str = ""
    rule: str = ""
    state: str = ""
    text: str = ""  # stands somewhere in target, rules or summary, in any case
    before: IncidentId | None = None  # cursor: incidents older than this one
    visible: tuple[str, ...] | None = None  # only evidence of these namespaces alone; None: any
    limit: int = 50


class Catalogue(Protocol):
    """What is known of incidents, alerts and refusals; one transaction per call."""

    async def position(self) -> int:
        """Journal seq up to which every alert is in the catalogue."""

    async def put(
        self,
        *,
        position: int | None = None,
        incidents: Sequence[Incident] = (),
        alerts: Sequence[AlertRow] = (),
        repeats: Sequence[
            tuple[AlertId, int, int]
        ] = (),  # (alert, further copies, last received_ns)
    ) -> None:
        """Insert or replace incidents and alerts, add repeats, move the position: all or nothing."""

    async def incidents(self, query: Query) -> Sequence[Incident]:
        """Newest first."""

    async def incident(self, id: IncidentId) -> Incident | None: ...

    async def alerts(self, incident: IncidentId) -> Sequence[AlertRow]:
        """Every alert of an incident, oldest first."""

    async def refusals(
        self, *, since_ns: int = 0, limit: int = 50, namespaces: Sequence[str] | None = None
    ) -> Sequence[AlertRow]:
        """Alerts that led to no capture, newest first; with `namespaces`, only those that name one of them."""

    async def namespaces(self) -> Sequence[str]:
        """Every namespace that an incident's evidence or a refused alert is about."""

    async def refusal_counts(self) -> dict[str, int]:
        """How many alerts (repeats included) were refused, by reason."""


class Draft(Protocol):
    """An evidence folder being filled, under a name that is not its final one."""

    incident: IncidentId
    opened_ns: int

    def create(self, name: str) -> BinaryIO:
        """A new file in the draft, or the same file again for appending."""

    def remove(self, name: str) -> None:
        """Take a file out of the draft, so that `create` begins anew; none is fine too."""

    def read(self, name: str) -> memoryview:
        """A file of the draft, mapped."""

    def names(self) -> tuple[str, ...]:
        """Files in the draft."""

    def seal(self, manifest: Manifest, keep: Sequence[str]) -> Manifest:
        """fsync and hash `keep`, write the manifest (with their hashes), rename into place, drop the rest.

        Returns the manifest as written. Raises `Transient` on a full disk and leaves the draft as it was.
        """

    def discard(self) -> None:
        """Remove the draft."""


class Vault(Protocol):
    """Sealed evidence on disk."""

    def begin(self, incident: IncidentId, opened_ns: int) -> Draft:
        """Start a folder. Raises `Transient` when the disk is full."""

    def drafts(self) -> Iterator[Draft]:
        """What a crash left behind."""

    def folder(self, incident: IncidentId) -> str:
        """Where the sealed evidence lies. Raises `NotFound`."""

    def manifest(self, incident: IncidentId) -> Manifest:
        """The manifest of sealed evidence, read but not verified. Raises `NotFound`, `BadInput`."""

    def beside(self, incident: IncidentId, name: str, content: bytes) -> None:
        """Write or replace an unsealed companion (`findings.json`), atomically, and note it in custody."""

    def used_bytes(self) -> int:
        """Bytes of all evidence, drafts included."""

    def free_bytes(self) -> int:
        """Bytes the file system still has for us."""

    def remove(self, incident: IncidentId, why: str) -> None:
        """Delete sealed evidence by retention; a custody tombstone stays."""


class Analyst(Protocol):
    """Reads one evidence file with tshark where nothing can be harmed."""

    async def analyse(self, path: str, question: Question) -> Findings:
        """Raises `Transient` or `Permanent`; a failed analysis never withholds evidence."""

    async def check(self, path: str, findings: Findings, claims: Sequence[Finding]) -> Findings:
        """Only these claims about the same file, each checked. Raises `Permanent` when one does not hold."""


class Reporter(Protocol):
    """Writes what people read of an incident."""

    def companions(self, incident: Incident, problem: str) -> Mapping[str, bytes]:
        """What is to lie beside the sealed evidence and its findings, by file name; `problem` says why there are none.

        Called in a thread. Raises `Permanent`.
        """
