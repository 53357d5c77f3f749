"""Every right that Tripshark asks of the Kubernetes API, and what for: the source of the roles that are installed.

A request that is not declared here is refused by the API server of whoever installed the roles made of it
(`deploy/generate`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class Permission:
    """One resource and what is done with it."""

    feature: str  # what is lost without it, by a name that operators choose from
    group: str  # API group; "" is the core's
    resource: str  # "pods", "captures/status"
    verbs: tuple[str, ...]
    why: str  # a sentence for whoever has to allow it
    scope: Literal["cluster", "namespace"] = "cluster"
    programs: tuple[str, ...] = ("node",)


PERMISSIONS = (
    Permission(
        feature="pods",
        group="",
        resource="pods",
        verbs=("get", "list", "watch"),
        why="names, owners and labels of the pods of this node; where a pod of another node runs",
    ),
    Permission(
        feature="services",
        group="",
        resource="services",
        verbs=("get", "list", "watch"),
        why="names of service addresses; which pods a service means",
    ),
    Permission(
        feature="services",
        group="discovery.k8s.io",
        resource="endpointslices",
        verbs=("list", "watch"),
        why="which pods stand behind a service's address",
    ),
    Permission(
        feature="nodes",
        group="",
        resource="nodes",
        verbs=("list", "watch"),
        why="names of the nodes' own addresses",
    ),
    Permission(
        feature="workloads",
        group="apps",
        resource="deployments",
        verbs=("get",),
        why="which pods a Deployment means",
    ),
    Permission(
        feature="workloads",
        group="apps",
        resource="replicasets",
        verbs=("get",),
        why="the Deployment that a pod belongs to",
    ),
    Permission(
        feature="workloads",
        group="apps",
        resource="statefulsets",
        verbs=("get",),
        why="which pods a StatefulSet means",
    ),
    Permission(
        feature="workloads",
        group="apps",
        resource="daemonsets",
        verbs=("get",),
        why="which pods a DaemonSet means",
    ),
    Permission(
        feature="workloads",
        group="batch",
        resource="jobs",
        verbs=("get", "list"),
        why="the CronJob that a pod belongs to, and its other pods",
    ),
    Permission(
        feature="captures",
        group="tripshark.dev",
        resource="captures",
        verbs=("list", "watch", "create", "delete"),
        why="captures that other nodes and people ask for; asking other nodes; tidying up what is finished",
    ),
    Permission(
        feature="captures",
        group="tripshark.dev",
        resource="captures/status",
        verbs=("patch",),
        why="what this node sealed of it",
    ),
    Permission(
        feature="captures",
        group="tripshark.dev",
        resource="clustercaptures",
        verbs=("list", "watch", "create", "delete"),
        why="the same for captures beyond one namespace",
    ),
    Permission(
        feature="captures",
        group="tripshark.dev",
        resource="clustercaptures/status",
        verbs=("patch",),
        why="what this node sealed of it",
    ),
    Permission(
        feature="captures",
        group="tripshark.dev",
        resource="captures",
        verbs=("create",),
        why="captures that people ask of the hub, of the nodes",
        programs=("hub",),
    ),
    Permission(
        feature="captures",
        group="tripshark.dev",
        resource="clustercaptures",
        verbs=("create",),
        why="the same for captures beyond one namespace",
        programs=("hub",),
    ),
    Permission(
        feature="events",
        group="",
        resource="events",
        verbs=("create", "patch"),
        why="an incident is told as an event of its pod",
    ),
    Permission(
        feature="access",
        group="authentication.k8s.io",
        resource="tokenreviews",
        verbs=("create",),
        why="who a reader is who shows a token of the cluster",
        programs=("node", "hub"),
    ),
    Permission(
        feature="access",
        group="authorization.k8s.io",
        resource="subjectaccessreviews",
        verbs=("create",),
        why="whether a reader may see a namespace's packets, or ask for a capture",
        programs=("node", "hub"),
    ),
)
