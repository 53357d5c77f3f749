"""How a hub, which records nothing, takes a capture by hand: it asks the nodes, where there is a cluster to ask through."""

from __future__ import annotations

import secrets

from tripshark.errors import BadInput, Refused
from tripshark.model.alert import Alert
from tripshark.model.fleet import Aim, Aimed, FleetRequest
from tripshark.model.incident import Incident, State
from tripshark.model.target import Resolution, Target, TargetKey
from tripshark.ports import CaptureRequest, Clock, Fleet
from tripshark.respond.identity import incident_id

_KINDS = {"deployment": "Deployment", "statefulset": "StatefulSet", "daemonset": "DaemonSet",
          "job": "Job", "cronjob": "CronJob", "replicaset": "ReplicaSet"}  # fmt: skip


class NoTargets:
    """`ports.Targets` of a machine that records nothing."""

    async def all(self) -> tuple[Target, ...]:
        """None."""
        return ()

    async def resolve(self, alert: Alert) -> Resolution:
        """None."""
        return Resolution(target=None, reason="a hub records nothing itself")

    async def resolve_late(self, alert: Alert) -> Resolution:
        """None."""
        return Resolution(target=None, reason="a hub records nothing itself")

    async def find(self, name: str) -> Resolution:
        """None."""
        return Resolution(target=None, reason="a hub records nothing itself")


class FleetCaptures:
    """`ports.Captures` by asking the nodes, where there is a cluster to ask them through."""

    def __init__(self, fleet: Fleet | None, clock: Clock) -> None:
        self._fleet = fleet
        self._clock = clock

    async def capture(self, request: CaptureRequest) -> Incident:
        """Ask durably; the incident is known here once its first part is in the store.

        Raises `Refused` without a cluster, `BadInput` for a target that no other machine can know.
        """
        if self._fleet is None:
            raise Refused(
                "a hub records nothing itself, and has no cluster to ask nodes through",
                where=request.target,
                hint="ask the node: tripshark capture TARGET there",
            )
        aim, now_ns = aim_of(request.target), self._clock.now_ns()
        id = incident_id(now_ns, secrets.token_bytes(16))
        await self._fleet.ask(
            FleetRequest(
                aims=(aim,),
                t0_ns=now_ns,
                before_ns=request.before_ns,
                after_ns=request.after_ns,
                scope=request.scope,
                peer=request.peer,
                filter=request.filter,
                max_bytes=request.max_bytes,
                incident=id,
                origin="hub",
                by=request.by,
            )
        )
        return Incident(
            id=id,
            state=State.OPEN,
            target=TargetKey(""),
            title=str(aim),
            namespace=aim.namespace,
            pod=aim.name if aim.kind is Aimed.POD else "",
            rule="",
            falco_rule="",
            priority="",
            t0_ns=now_ns,
            opened_ns=now_ns,
        )


def aim_of(target: str) -> Aim:
    """`ns/pod`, `ns/deployment/name`, `ns/service/name` or `node:NAME`. Raises `BadInput` for what only one machine knows."""
    if target.startswith("node:") and target[5:]:
        return Aim(kind=Aimed.NODE, name=target[5:])
    match target.split("/"):
        case [namespace, pod] if namespace and pod and ":" not in target:
            return Aim(kind=Aimed.POD, namespace=namespace, name=pod)
        case [namespace, "service", name] if namespace and name:
            return Aim(kind=Aimed.SERVICE, namespace=namespace, name=name)
        case [namespace, kind, name] if namespace and name and kind.lower() in _KINDS:
            return Aim(
                kind=Aimed.WORKLOAD, workload=_KINDS[kind.lower()], namespace=namespace, name=name
            )
        case _:
            raise BadInput(
                "no other machine knows that target",
                where=target[:200],
                hint="ns/pod, ns/deployment/name, ns/service/name or node:NAME",
            )
