"""Whether Falco's alerts still reach us: its own metrics and drop events, watched.

Falco ignores what we answer and drops what it cannot send, so silence means nothing by itself. With `metrics.enabled` and
`metrics.output_rule` it sends a snapshot every interval down the very path the alerts take: a heartbeat that is
late, a restart, a rising drop counter, or more matches than alerts each say that something was lost.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import msgspec

from tripshark.formats import falco
from tripshark.model.alert import Alert, Heartbeat, Json

MAX_GAPS = 100
MAX_FALCOS = 256
_SECOND = 1_000_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """A stretch in which alerts may have been lost."""

    from_ns: int
    to_ns: int
    why: str  # "silent": no heartbeat came; "away": Tripshark was not running

    @property
    def seconds(self) -> float:
        return (self.to_ns - self.from_ns) / _SECOND


@dataclass(frozen=True, slots=True, kw_only=True)
class Falco:
    """One Falco as far as it told us about itself."""

    hostname: str
    version: str = ""
    started_ns: int = 0
    last_ns: int = 0  # the last event of any kind, received
    heartbeat_ns: int = 0  # the last metrics snapshot, received; 0: never
    every_s: float = 0.0  # interval expected; 0: not known yet
    heartbeats: int = 0
    restarts: int = 0
    kernel_drops: int = 0  # system calls that never reached Falco
    queue_drops: int = 0  # alerts that Falco could not get rid of
    unheard: int = 0  # matches counted by Falco beyond the alerts that reached us
    gaps: tuple[Gap, ...] = ()  # the last 100
    gaps_total: int = 0
    is_late: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Upstream:
    """Everything known about the Falcos that send to us."""

    falcos: tuple[Falco, ...]
    at_ns: int
    expected: bool  # the settings name an interval: no heartbeat at all is then a problem
    problem: str = ""  # of the watching itself

    def problems(self) -> tuple[str, ...]:
        """What should worry the operator, in words; empty when all is well."""
        return tuple(self._problems())

    def _problems(self) -> Iterator[str]:
        if self.problem:
            yield self.problem
        if self.expected and not any(each.heartbeats for each in self.falcos):
            yield (
                "no heartbeat of any Falco has come yet; in falco.yaml set metrics.enabled: true and "
                "metrics.output_rule: true"
            )
        for each in self.falcos:
            who = f"Falco on {each.hostname[:64]!r}" if each.hostname else "Falco"
            if each.is_late:
                silent = (self.at_ns - each.heartbeat_ns) / _SECOND
                yield (
                    f"{who} has been silent for {silent:.0f} s, a heartbeat is due every "
                    f"{each.every_s:.0f} s: alerts are being lost, or Falco is down"
                )
            if each.queue_drops:
                yield (
                    f"{who} threw away {each.queue_drops} alerts: its outputs queue was full; see "
                    "outputs_queue.capacity"
                )
            if each.kernel_drops:
                yield (
                    f"{who} missed {each.kernel_drops} system calls: its buffer is too small or the "
                    "machine too busy; see engine.modern_ebpf.buf_size_preset"
                )
            if each.unheard:
                yield f"{who} counted {each.unheard} matches that did not reach us as alerts"
            if each.gaps_total:
                last = each.gaps[-1]
                why = "Tripshark was away" if last.why == "away" else "no heartbeat came"
                yield (
                    f"{who}: {each.gaps_total} gap{'s' * (each.gaps_total > 1)} in which alerts may "
                    f"be lost, the last of {last.seconds:.0f} s ({why})"
                )


class _Watched(msgspec.Struct):
    """The mutable side of `Falco`; what is written to the state file."""

    hostname: str
    version: str = ""
    started_ns: int = 0
    last_ns: int = 0
    heartbeat_ns: int = 0
    heartbeats: int = 0
    restarts: int = 0
    scap_drops: int = 0  # summed over Falco's restarts
    scap_seen: int = 0  # Falco's own counter, from its start
    event_drops: int = 0  # summed from drop events, where no snapshots come
    queue_drops: int = 0
    queue_seen: int = 0
    matches_seen: int = -1
    heard: int = 0  # alerts received since the last snapshot
    unheard: int = 0
    intervals: list[float] = msgspec.field(default_factory=list)
    gaps: list[tuple[int, int, str]] = msgspec.field(default_factory=list)
    gaps_total: int = 0


class _State(msgspec.Struct):
    alive_ns: int = 0
    falcos: list[_Watched] = msgspec.field(default_factory=list)


_STATE = msgspec.json.Decoder(_State)


@dataclass(slots=True)
class Heartbeats:
    """Watches. `path`, where given, remembers across restarts; `alive` is called every few seconds."""

    every_s: float = 0.0
    grace_s: float = 30.0
    path: Path | None = None
    started_ns: int = 0  # now, when we started
    problem: str = ""
    _falcos: dict[str, _Watched] = field(default_factory=dict)
    _writing: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        if self.path is None:
            return
        try:
            state = _STATE.decode(self.path.read_bytes())
        except (OSError, msgspec.DecodeError):
            return  # nothing remembered, or nothing readable: watching starts afresh
        self._falcos = {each.hostname: each for each in state.falcos[:MAX_FALCOS]}
        if state.alive_ns and self.started_ns > state.alive_ns:
            for each in self._falcos.values():
                _add_gap(each, Gap(from_ns=state.alive_ns, to_ns=self.started_ns, why="away"))

    def saw(self, alert: Alert, received_ns: int) -> None:
        """Every alert that was taken in, Falco's own among them."""
        hostname = (alert.hostname or "")[:253]
        watched = self._falcos.get(hostname)
        if watched is None:
            if len(self._falcos) >= MAX_FALCOS:
                return
            watched = self._falcos[hostname] = _Watched(hostname=hostname)
        watched.last_ns = received_ns
        if not alert.is_internal:
            watched.heard += 1
            return
        beat = falco.heartbeat(alert)
        if beat is not None and beat.kind == "metrics":
            matches = _number(alert.fields.get("falco.rules.matches_total", -1))
            self._snapshot(watched, beat, matches, received_ns)
            self.alive(received_ns)
        elif beat is not None and beat.kind == "drops":
            watched.event_drops += _number(beat.drops)

    def _snapshot(
        self, watched: _Watched, beat: Heartbeat, matches: int, received_ns: int
    ) -> None:
        started = _number(beat.start_ns)
        restarted = bool(watched.started_ns and started and started != watched.started_ns)
        if restarted:
            watched.restarts += 1
            watched.scap_seen = watched.queue_seen = 0
            watched.matches_seen = -1
            watched.heard = 0
        watched.started_ns = started or watched.started_ns
        watched.version = (beat.version or watched.version)[:32]
        drops = _number(beat.drops)
        watched.scap_drops += max(0, drops - watched.scap_seen)
        watched.scap_seen = drops
        queue = _number(beat.output_drops)
        watched.queue_drops += max(0, queue - watched.queue_seen)
        watched.queue_seen = queue
        if matches >= 0:
            if watched.matches_seen >= 0:
                watched.unheard += max(0, matches - watched.matches_seen - watched.heard)
            watched.matches_seen, watched.heard = matches, 0
        if watched.heartbeat_ns:
            interval = (received_ns - watched.heartbeat_ns) / _SECOND
            every = self._every(watched)
            if every and interval > every + self.grace_s:
                gap = Gap(from_ns=watched.heartbeat_ns, to_ns=received_ns, why="silent")
                _add_gap(watched, gap)
            elif not restarted:  # a restart sends a snapshot at once: no measure of the interval
                watched.intervals = [*watched.intervals[-4:], interval]
        watched.heartbeat_ns = received_ns
        watched.heartbeats += 1

    def _every(self, watched: _Watched) -> float:
        return self.every_s or (median(watched.intervals) if watched.intervals else 0.0)

    def alive(self, now_ns: int) -> None:
        """We are running; remembered so that the next start knows how long we were away."""
        if self.path is None:
            return
        state = msgspec.json.encode(_State(alive_ns=now_ns, falcos=list(self._falcos.values())))
        beside = self.path.with_name(self.path.name + ".new")
        try:
            with self._writing:  # a program may call this from a thread
                beside.write_bytes(state)
                beside.replace(self.path)
        except OSError as error:  # a full disk must not cost an alert its 202
            self.problem = f"heartbeats are not remembered: {error.strerror}: {self.path}"
        else:
            self.problem = ""

    def upstream(self, now_ns: int) -> Upstream:
        """What is known now."""
        return Upstream(
            falcos=tuple(self._falco(each, now_ns) for each in self._falcos.values()),
            at_ns=now_ns,
            expected=self.every_s > 0,
            problem=self.problem,
        )

    def _falco(self, watched: _Watched, now_ns: int) -> Falco:
        every = self._every(watched)
        # A restart of ours is no silence of Falco's: the wait begins anew.
        since = max(watched.heartbeat_ns, self.started_ns)
        late = (
            bool(watched.heartbeat_ns and every)
            and now_ns - since > (every + self.grace_s) * _SECOND
        )
        return Falco(
            hostname=watched.hostname,
            version=watched.version,
            started_ns=watched.started_ns,
            last_ns=watched.last_ns,
            heartbeat_ns=watched.heartbeat_ns,
            every_s=every,
            heartbeats=watched.heartbeats,
            restarts=watched.restarts,
            kernel_drops=max(watched.scap_drops, watched.event_drops),
            queue_drops=watched.queue_drops,
            unheard=watched.unheard,
            gaps=tuple(Gap(from_ns=a, to_ns=b, why=why) for a, b, why in watched.gaps),
            gaps_total=watched.gaps_total,
            is_late=late,
        )


def _add_gap(watched: _Watched, gap: Gap) -> None:
    watched.gaps = [*watched.gaps[-(MAX_GAPS - 1) :], (gap.from_ns, gap.to_ns, gap.why)]
    watched.gaps_total += 1


def _number(value: Json) -> int:
    """Falco writes the same counter as a number in one event and as text in another."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return 0
    try:
        return min(max(-1, int(value)), 2**63 - 1)
    except (ValueError, OverflowError):
        return 0
