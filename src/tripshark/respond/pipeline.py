"""The whole flow of one alert, top to bottom: which target, which rules, freeze, plan or refusal."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from tripshark.errors import BadInput, NotFound, Transient
from tripshark.formats.wire import Frozen
from tripshark.model.alert import Alert
from tripshark.model.filter import Scope
from tripshark.model.plan import Defaults, Plan, Reason, Refusal, decide
from tripshark.model.rule import RuleSet, Verdict, evaluate
from tripshark.model.target import Resolution, Target, TargetKind
from tripshark.ports import Recorder, Targets


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What is to be done about one alert."""

    answer: Plan | Refusal
    target: Target | None
    also: tuple[Part, ...] = ()  # what else belongs to it: the other end, a workload's other pods


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One more target of the same incident."""

    plan: Plan
    target: Target


class Pipeline:
    """Decides; the runner does. `rules` is replaced as a whole when a reload succeeded."""

    def __init__(
        self,
        *,
        rules: RuleSet,
        targets: Targets,
        recorder: Recorder,
        defaults: Defaults,
        own_pids: Collection[int] = (),
    ) -> None:
        self.rules = rules
        self._targets = targets
        self._recorder = recorder
        self._defaults = defaults
        self._own_pids = own_pids

    async def resolve(self, alert: Alert) -> Resolution | Refusal:
        """Which target is meant. Asks nobody but this machine."""
        if alert.is_internal:
            return Refusal(
                reason=Reason.INTERNAL, message="Falco about itself; watched as its heartbeat"
            )
        try:
            return await self._targets.resolve(alert)
        except Transient as away:
            return Refusal(
                reason=Reason.RECORDER_AWAY,
                message=away.message,
                hint=away.hint or "is `tripshark recorder` running? see `tripshark doctor`",
            )

    async def decide(self, alert: Alert, resolution: Resolution, *, now_ns: int) -> Decision:
        """What plan the rules make of it, or why none."""
        target = resolution.target
        verdict = evaluate(self.rules, alert, target)
        host: Target | None = None
        try:
            host = await self._host() if _wants_node(verdict) else None
            answer = decide(
                alert,
                verdict,
                resolution,
                now_ns=now_ns,
                defaults=self._defaults,
                host=host,
                own_pids=self._own_pids,
            )
        except (BadInput, Transient) as problem:
            answer = Refusal(reason=Reason.UNSUPPORTED, message=problem.message, hint=problem.hint)
        if isinstance(answer, Plan) and host is not None:
            target = host
        return Decision(answer=answer, target=target)

    async def _host(self) -> Target | None:
        return next(
            (each for each in await self._targets.all() if each.kind is TargetKind.HOST), None
        )

    async def freeze(self, plan: Plan) -> Frozen | Refusal | None:
        """The history, now. None when the recorder is away for the moment: the capture will wait for it."""
        try:
            return (await self._recorder.freeze([plan.target]))[0]
        except NotFound as gone:
            return Refusal(
                reason=Reason.EXPIRED,
                message=gone.message,
                hint=gone.hint or "raise recorder.tombstone or recorder.copies",
                rule=plan.rule,
            )
        except Transient:
            return None


def _wants_node(verdict: Verdict) -> bool:
    return verdict.capture is not None and verdict.capture.scope is Scope.NODE
