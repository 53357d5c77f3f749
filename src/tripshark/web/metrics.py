"""What Prometheus sees. Every label has a closed set of values: nothing out of an alert becomes a label."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric

from tripshark.model.evidence import Word
from tripshark.model.plan import Reason
from tripshark.model.recording import Mode
from tripshark.model.target import Target

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_VIA = frozenset({"webhook", "file", "stdin", "manual"})
_ANSWER = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 1.0, 5.0)
_FREEZE = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)


class OutboxView(Protocol):
    """How sending to the object store goes on; `store.outbox.OutboxState` is one."""

    @property
    def waiting(self) -> int: ...
    @property
    def waiting_bytes(self) -> int: ...
    @property
    def oldest_ns(self) -> int: ...
    @property
    def sent(self) -> int: ...
    @property
    def sent_bytes(self) -> int: ...
    @property
    def failures(self) -> int: ...
    @property
    def lost(self) -> int: ...
    @property
    def problem(self) -> str: ...
    @property
    def refused(self) -> Mapping[Any, str]: ...


class HarvestView(Protocol):
    """How reading from the object store goes on; `store.harvest.HarvestState` is one."""

    @property
    def looks(self) -> int: ...
    @property
    def listed(self) -> int: ...
    @property
    def imported(self) -> int: ...
    @property
    def gone(self) -> int: ...
    @property
    def unreadable(self) -> int: ...
    @property
    def odd(self) -> int: ...
    @property
    def last_ns(self) -> int: ...
    @property
    def problem(self) -> str: ...


class SigninView(Protocol):
    """How people sign in; `signin.desk.Desk` is one."""

    @property
    def counted(self) -> Mapping[tuple[str, str], int]: ...
    @property
    def foreign_headers(self) -> int: ...
    @property
    def sessions(self) -> int: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What a node learns from others, and how well. None: it does not ask."""

    runtimes: int | None = None  # container runtimes that answer; 0 also when the scout is away
    sandboxes: int = 0  # pods and containers that they tell of
    kubernetes_up: bool | None = None  # everything that is mirrored was heard of lately
    kubernetes_failures: int = 0
    asks_waiting: int = 0  # for the API server
    asks_sent: int = 0
    asks_dropped: int = 0
    asked_too_often: int = 0  # requests of others that this node would not take up
    problems: tuple[str, ...] = ()  # who is not heard, and what comes of it


@dataclass(frozen=True, slots=True, kw_only=True)
class Now:
    """What is asked for at each scrape."""

    targets: Sequence[Target] | None  # None: the recorder is away
    refusals: Mapping[str, int]
    journal_waiting: int
    journal_bytes: int
    falco_gaps: int
    falco_late: int
    falco_kernel_drops: int
    falco_queue_drops: int
    falco_unheard: int
    evidence_bytes: int
    now_ns: int = 0
    outbox: OutboxView | None = None
    harvest: HarvestView | None = None
    signin: SigninView | None = None
    around: Surroundings | None = None


class Metrics:
    """Counts; implements `ports.Meter` and what the alert sources ask for."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._alerts = Counter(
            "tripshark_alerts",
            "Alerts by the way they came and what became of them at the door.",
            ("via", "outcome"),
            registry=self._registry,
        )
        self._answer = Histogram(
            "tripshark_alert_answer_seconds",
            "From an alert's last byte to its answer, durable.",
            buckets=_ANSWER,
            registry=self._registry,
        )
        self._freeze = Histogram(
            "tripshark_alert_to_frozen_seconds",
            "From an alert's acceptance to its target's frozen history.",
            buckets=_FREEZE,
            registry=self._registry,
        )
        self._captures = Counter(
            "tripshark_captures",
            "Captures that ended, by the ledger's word.",
            ("word",),
            registry=self._registry,
        )
        for word in Word:
            self._captures.labels(word.value)
        self._running = Gauge(
            "tripshark_captures_running", "Captures under way.", registry=self._registry
        )
        self._by_outcome: dict[tuple[str, str], Counter] = {}
        self._rings = _RingTotals()

    def alert(self, via: str, outcome: str, seconds: float) -> None:
        """One alert was answered."""
        counter = self._by_outcome.get((via, outcome))
        if counter is None:
            counter = self._alerts.labels(via if via in _VIA else "other", outcome)
            self._by_outcome[via, outcome] = counter
        counter.inc()
        if outcome in ("accepted", "duplicate"):
            self._answer.observe(seconds)

    def frozen(self, seconds: float) -> None:
        """A capture began."""
        self._freeze.observe(max(0.0, seconds))

    def running(self, captures: int) -> None:
        """So many captures are under way now."""
        self._running.set(captures)

    def sealed(self, word: Word) -> None:
        """An incident's evidence was sealed."""
        self._captures.labels(word.value).inc()

    def exposition(self, now: Now) -> bytes:
        """The text that Prometheus reads."""
        moment = CollectorRegistry(auto_describe=False)
        moment.register(_Fixed(tuple(self._of(now))))
        return generate_latest(self._registry) + generate_latest(moment)

    def _of(self, now: Now) -> Iterable[Metric]:
        refusals = CounterMetricFamily(
            "tripshark_refusals", "Alerts that led to no capture, by reason.", labels=("reason",)
        )
        for reason in Reason:
            refusals.add_metric((reason.value,), now.refusals.get(reason.value, 0))
        yield refusals
        yield _gauge("tripshark_recorder_up", "The recorder answers.", now.targets is not None)
        if now.targets is not None:
            yield from self._rings.of(now.targets)
        yield _gauge(
            "tripshark_journal_waiting",
            "Alerts that are durable and not yet worked off.",
            now.journal_waiting,
        )
        yield _gauge("tripshark_journal_bytes", "Size of the journal.", now.journal_bytes)
        yield _gauge("tripshark_evidence_bytes", "Size of all evidence.", now.evidence_bytes)
        yield _counter(
            "tripshark_falco_gaps", "Stretches without a heartbeat of Falco.", now.falco_gaps
        )
        yield _gauge(
            "tripshark_falco_late", "Falcos whose heartbeat is overdue now.", now.falco_late
        )
        yield _counter(
            "tripshark_falco_kernel_drops",
            "System calls that never reached Falco, as it says.",
            now.falco_kernel_drops,
        )
        yield _counter(
            "tripshark_falco_queue_drops",
            "Alerts that Falco threw away, as it says.",
            now.falco_queue_drops,
        )
        yield _counter(
            "tripshark_falco_unheard",
            "Matches that Falco counted beyond the alerts that came.",
            now.falco_unheard,
        )
        if now.around is not None:
            yield from _around(now.around)
        if now.outbox is not None:
            yield from _outbox(now.outbox, now.now_ns)
        if now.harvest is not None:
            yield from _harvest(now.harvest)
        if now.signin is not None:
            yield from _signin(now.signin)


def _around(around: Surroundings) -> Iterable[Metric]:
    if around.runtimes is not None:
        yield _gauge("tripshark_runtimes_up", "Container runtimes that answer.", around.runtimes)
        yield _gauge(
            "tripshark_sandboxes", "Pods and containers that runtimes tell of.", around.sandboxes
        )
    if around.kubernetes_up is not None:
        yield _gauge(
            "tripshark_kubernetes_up",
            "What is mirrored of the Kubernetes API was heard of lately.",
            around.kubernetes_up,
        )
        yield _counter(
            "tripshark_kubernetes_failures",
            "Requests to the Kubernetes API that did not work.",
            around.kubernetes_failures,
        )
        yield _gauge(
            "tripshark_fleet_asks_waiting",
            "Captures asked of other nodes that the API server does not have yet.",
            around.asks_waiting,
        )
        yield _counter(
            "tripshark_fleet_asks_sent", "Captures asked of other nodes.", around.asks_sent
        )
        yield _counter(
            "tripshark_fleet_asks_dropped",
            "Captures that could not be asked of other nodes, for good.",
            around.asks_dropped,
        )
        yield _counter(
            "tripshark_fleet_refused",
            "Captures that others asked for more often than this node takes them up.",
            around.asked_too_often,
        )


def _outbox(outbox: OutboxView, now_ns: int) -> Iterable[Metric]:
    since_s = max(0, now_ns - outbox.oldest_ns) / 1e9 if outbox.oldest_ns else 0.0
    yield _gauge("tripshark_outbox_up", "The last try to send worked.", not outbox.problem)
    yield _gauge(
        "tripshark_outbox_waiting", "Sealed evidence not in the store yet.", outbox.waiting
    )
    yield _gauge("tripshark_outbox_waiting_bytes", "Size of it.", outbox.waiting_bytes)
    yield _gauge("tripshark_outbox_oldest_seconds", "How long the oldest has waited.", since_s)
    yield _gauge(
        "tripshark_outbox_refused",
        "Evidence that cannot be sent: damaged, or another's lies there.",
        len(outbox.refused),
    )
    yield _counter("tripshark_outbox_sent", "Evidence folders sent.", outbox.sent)
    yield _counter("tripshark_outbox_sent_bytes", "Bytes sent.", outbox.sent_bytes)
    yield _counter("tripshark_outbox_failures", "Tries that did not work.", outbox.failures)
    yield _counter(
        "tripshark_outbox_lost",
        "Evidence removed for want of space before it could be sent.",
        outbox.lost,
    )


def _harvest(harvest: HarvestView) -> Iterable[Metric]:
    yield _gauge(
        "tripshark_hub_store_up", "The last look into the store worked.", not harvest.problem
    )
    yield _gauge(
        "tripshark_hub_look_timestamp_seconds",
        "When a look into the store last came to its end.",
        harvest.last_ns / 1e9,
    )
    yield _counter("tripshark_hub_looks", "Looks into the store.", harvest.looks)
    yield _counter("tripshark_hub_listed", "Objects listed.", harvest.listed)
    yield _counter("tripshark_hub_imported", "Parts of incidents taken in.", harvest.imported)
    yield _counter("tripshark_hub_gone", "Parts that left the store.", harvest.gone)
    yield _counter("tripshark_hub_unreadable", "Manifests that are none.", harvest.unreadable)
    yield _counter(
        "tripshark_hub_odd", "Parts whose signature is not as it should be.", harvest.odd
    )


def _signin(signin: SigninView) -> Iterable[Metric]:
    attempts = CounterMetricFamily(
        "tripshark_signins",
        "Attempts to sign in, by way and what became of them.",
        labels=("way", "outcome"),
    )
    for way in ("token", "kubernetes", "oidc"):
        for outcome in ("ok", "failed", "limited"):
            attempts.add_metric((way, outcome), signin.counted.get((way, outcome), 0))
    yield attempts
    yield _gauge("tripshark_sessions", "Sessions of browsers.", signin.sessions)
    yield _counter(
        "tripshark_signin_foreign_headers",
        "Requests with the proxy's headers that did not come from the proxy.",
        signin.foreign_headers,
    )


class _RingTotals:
    """Counters of rings, summed so that they never fall when a ring is closed."""

    def __init__(self) -> None:
        self._seen: dict[str, tuple[int, int]] = {}
        self._packets = self._drops = 0

    def of(self, targets: Sequence[Target]) -> Iterable[Metric]:
        rings = [ring for target in targets for ring in target.rings]
        for ring in rings:
            packets, drops = self._seen.get(ring.ring, (0, 0))
            self._packets += max(0, ring.packets - packets)
            self._drops += max(0, ring.drops - drops)
        self._seen = {ring.ring: (ring.packets, ring.drops) for ring in rings}
        yield _counter("tripshark_ring_packets", "Packets seen, drops included.", self._packets)
        yield _counter("tripshark_ring_drops", "Packets not recorded.", self._drops)
        yield _gauge(
            "tripshark_ring_bytes", "Memory of all rings.", sum(ring.bytes for ring in rings)
        )
        yield _gauge("tripshark_rings", "Rings being filled.", sum(ring.live for ring in rings))
        alive = sum(target.alive for target in targets)
        yield _gauge("tripshark_targets", "Targets alive.", alive)
        modes = GaugeMetricFamily(
            "tripshark_targets_recorded",
            "Targets alive, by what is recorded of them.",
            labels=("mode",),
        )
        for mode in Mode:
            modes.add_metric((mode.value,), sum(t.alive and t.mode == mode.value for t in targets))
        yield modes
        yield _gauge(
            "tripshark_targets_limited",
            "Targets alive of which less is recorded than is wanted, for lack of memory or rights.",
            sum(t.alive and bool(t.note) and t.mode != Mode.OFF.value for t in targets),
        )
        yield _gauge(
            "tripshark_tombstones",
            "Dead targets whose history is kept.",
            len(targets) - alive,
        )


class _Fixed:
    """A collector of values that are known already."""

    def __init__(self, metrics: tuple[Metric, ...]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[Metric]:
        return self._metrics


def _gauge(name: str, meaning: str, value: float) -> Metric:
    return GaugeMetricFamily(name, meaning, value=float(value))


def _counter(name: str, meaning: str, value: float) -> Metric:
    return CounterMetricFamily(name, meaning, value=float(value))
