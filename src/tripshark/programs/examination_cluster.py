"""What the Kubernetes API says of our rights, our custom resources, our pods and the nodes they should run on.

Run in a pod it asks as the service account; run elsewhere with `kubernetes.kubeconfig` it also finds why pods were not
started at all, which nobody can ask from inside.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from tripshark.cluster import login
from tripshark.cluster.api import KubeApi
from tripshark.cluster.permissions import PERMISSIONS, Permission
from tripshark.errors import TripsharkError
from tripshark.programs.check import Check
from tripshark.settings import Settings

_OURS = {"labelSelector": "app.kubernetes.io/name=tripshark"}
_GROUP = "/apis/tripshark.dev/v1alpha1"

# What a node, an admission or a kubelet says when ours is not let in, and what it means
_REFUSALS = (
    (
        "violates PodSecurity",
        "kubectl label namespace {namespace} pod-security.kubernetes.io/enforce=privileged: hostPID needs it",
    ),
    (
        "security context constraint",
        "OpenShift: install with values-openshift.yaml, which brings its own SecurityContextConstraints",
    ),
    (
        "autogke",
        "GKE Autopilot refuses hostPID, hostPath and SYS_ADMIN: use a Standard cluster or node pool",
    ),
    ("GKE Warden", "GKE Autopilot refuses this pod: use a Standard cluster or node pool"),
    (
        "hostPath type check failed",
        "the node's runtime is elsewhere: take its distribution's values file (runtime.socketDirectory)",
    ),
    (
        "is not a shared",
        "mounts of the node's root are private: mount --make-rshared / on the node",
    ),
    ("no PriorityClass", "priorityClass.create: true, or name one that exists"),
    ("exceeded quota", "the namespace's ResourceQuota does not allow for a pod on each node"),
    ("ErrImagePull", "the image cannot be pulled: image.repository, image.tag, imagePullSecrets"),
    ("ImagePullBackOff", "the image cannot be pulled: image.repository, image.tag"),
    ("Insufficient memory", "the node has no room: lower recorder.resources.requests.memory"),
)


async def examine(
    settings: Settings, environ: Mapping[str, str] = os.environ
) -> AsyncIterator[Check]:
    """Nothing where there is no cluster and none is expected."""
    if settings.kubernetes.enabled == "off":
        return
    config = settings.kubernetes.kubeconfig
    inside = bool(environ.get("KUBERNETES_SERVICE_HOST"))
    if config is None and not inside and settings.kubernetes.enabled != "on":
        return
    try:
        whoami = (
            login.kubeconfig(config)
            if config is not None
            else login.in_cluster(
                environ.get("KUBERNETES_SERVICE_HOST", ""),
                environ.get("KUBERNETES_SERVICE_PORT", ""),
            )
        )
        async with KubeApi(whoami, timeout_s=10, tries=2) as api:
            version = await api.get("/version")
            yield Check(
                "cluster", "good", f"Kubernetes {version.get('gitVersion')} at {whoami.server}"
            )
            async for each in _questions(settings, api, inside=inside):
                yield each
    except TripsharkError as problem:
        yield Check(
            "cluster",
            "bad",
            f"the API server cannot be asked: {problem.message}",
            problem.hint
            or "captures on this node go on without it; names, owners and other nodes are missing",
        )


async def _questions(settings: Settings, api: KubeApi, *, inside: bool) -> AsyncIterator[Check]:
    if inside and not settings.kubernetes.node:
        yield Check(
            "node name",
            "bad",
            "which node this is was not said: no pod of it can be known",
            "env TRIPSHARK_KUBERNETES__NODE from fieldRef spec.nodeName",
        )
    yield await _resources(api)
    if inside:
        yield await _rights(api, "hub" if settings.hub.database else "node")
    async for each in _installed(api, settings.kubernetes.node, inside=inside):
        yield each


async def _resources(api: KubeApi) -> Check:
    try:
        await api.get(_GROUP)
    except TripsharkError:
        return Check(
            "captures",
            "limited",
            "the cluster does not know Capture: nothing can be asked of other nodes",
            "kubectl apply -f deploy/crds/captures.yaml",
        )
    return Check("captures", "good", "the cluster knows Capture and ClusterCapture")


async def _rights(api: KubeApi, program: str) -> Check:
    """Each declared right, asked of the server itself."""
    asked = [
        (each, verb) for each in PERMISSIONS if program in each.programs for verb in each.verbs
    ]
    allowed = await asyncio.gather(*(_may(api, each, verb) for each, verb in asked))
    lacking = [(each, verb) for (each, verb), yes in zip(asked, allowed, strict=True) if not yes]
    if not lacking:
        return Check("rights", "good", f"all {len(asked)} that are declared")
    named = ", ".join(f"{verb} {each.resource} ({each.feature})" for each, verb in lacking[:6])
    more = f" and {len(lacking) - 6} more" if len(lacking) > 6 else ""
    return Check(
        "rights",
        "limited",
        f"{len(lacking)} of {len(asked)} are missing: {named}{more}",
        "apply the ClusterRole of the same version (the chart: rbac.create, rbac.features)",
    )


async def _may(api: KubeApi, permission: Permission, verb: str) -> bool:
    resource, _, below = permission.resource.partition("/")
    wanted = {"verb": verb, "group": permission.group, "resource": resource, "subresource": below}
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": wanted},
    }
    answer = await api.create("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", review)
    return bool(answer.get("status", {}).get("allowed"))


async def _installed(api: KubeApi, node: str, *, inside: bool) -> AsyncIterator[Check]:
    """Nodes, our DaemonSet, its refusals, our Service: as far as we may look."""
    nodes = await _all(api, "/api/v1/nodes")
    if nodes is not None:
        for check in _platform([n for n in nodes if node in ("", n["metadata"]["name"])], nodes):
            yield check
    for each in await _all(api, "/apis/apps/v1/daemonsets", _OURS) or ():
        yield _rollout(each)
        namespace, name = each["metadata"]["namespace"], each["metadata"]["name"]
        events = await _all(api, f"/api/v1/namespaces/{namespace}/events") or ()
        for check in _refusals(events, namespace, name):
            yield check
    for each in await _all(api, "/api/v1/services", _OURS) or ():
        for check in _service(each):
            yield check
        if inside and each["spec"].get("internalTrafficPolicy") == "Local":
            yield await asyncio.to_thread(_reach, each)


async def _all(
    api: KubeApi, path: str, params: Mapping[str, str] | None = None
) -> list[dict[str, Any]] | None:
    """None where we may not look, or there is nothing of the kind."""
    try:
        return [each async for each in api.list(path, params=params)]
    except TripsharkError:
        return None


def _platform(
    mine: Sequence[Mapping[str, Any]], nodes: Sequence[Mapping[str, Any]]
) -> list[Check]:
    """What kinds of node there are, and those on which nothing can be recorded."""
    checks = []
    kinds = sorted({_kind(each) for each in mine})
    if kinds:
        checks.append(Check("platform", "good", "; ".join(kinds)))
    for why, hint in _NO_PLACE.items():
        names = [each["metadata"]["name"] for each in nodes if why == _no_place(each)]
        if names:
            checks.append(
                Check(
                    "nodes",
                    "limited",
                    f"{len(names)} × {why}, such as {names[0]}: nothing is recorded there",
                    hint,
                )
            )
    return checks


def _kind(node: Mapping[str, Any]) -> str:
    info = node.get("status", {}).get("nodeInfo", {})
    provider = str(node.get("spec", {}).get("providerID", "")).partition(":")[0]
    name = {
        "aws": "EKS or AWS",
        "gce": "GKE or Google",
        "azure": "AKS or Azure",
        "k3s": "k3s",
        "kind": "kind",
    }
    words = [
        name.get(provider, provider),
        info.get("osImage", ""),
        info.get("containerRuntimeVersion", ""),
    ]
    return ", ".join(each for each in words if each)


_NO_PLACE = {
    "Fargate": "Fargate has no DaemonSets and lends no node: run what must be recorded on EC2 nodes",
    "GKE Autopilot": "Autopilot refuses hostPID, hostPath and SYS_ADMIN: use a Standard node pool",
    "virtual node": "a virtual kubelet is no machine of yours: run what must be recorded elsewhere",
    "Windows": "Tripshark records with AF_PACKET, which is Linux's",
}


def _no_place(node: Mapping[str, Any]) -> str:
    labels = node["metadata"].get("labels", {})
    if labels.get("eks.amazonaws.com/compute-type") == "fargate":
        return "Fargate"
    if node["metadata"]["name"].startswith("gk3-"):  # as Autopilot names its nodes
        return "GKE Autopilot"
    if labels.get("type") == "virtual-kubelet":
        return "virtual node"
    return "Windows" if labels.get("kubernetes.io/os") == "windows" else ""


def _rollout(daemonset: Mapping[str, Any]) -> Check:
    status = daemonset.get("status", {})
    wanted, ready = status.get("desiredNumberScheduled", 0), status.get("numberReady", 0)
    where = f"{daemonset['metadata']['namespace']}/{daemonset['metadata']['name']}"
    if wanted and ready == wanted:
        return Check("pods", "good", f"{where}: ready on all {wanted} nodes")
    return Check(
        "pods",
        "bad" if ready == 0 else "limited",
        f"{where}: ready on {ready} of {wanted} nodes",
        "kubectl get pods -o wide, kubectl describe daemonset; what was refused stands below",
    )


def _refusals(events: Sequence[Mapping[str, Any]], namespace: str, name: str) -> list[Check]:
    """Each kind of refusal once."""
    found = {}
    for event in events:
        about = str(event.get("involvedObject", {}).get("name", ""))
        if event.get("type") == "Warning" and (about == name or about.startswith(f"{name}-")):
            message = f"{event.get('reason', '')}: {event.get('message', '')}"
            for sign, remedy in _REFUSALS:
                if sign.lower() in message.lower() and sign not in found:
                    found[sign] = Check(
                        "refused", "bad", message[:300], remedy.format(namespace=namespace)
                    )
    return list(found.values())


def _service(service: Mapping[str, Any]) -> list[Check]:
    spec = service["spec"]
    name = service["metadata"]["name"]
    ours = spec.get("selector", {}).get("app.kubernetes.io/component") == "node"
    if not ours or name.endswith("-any"):
        return []
    if spec.get("internalTrafficPolicy") == "Local":
        return [Check("webhook", "good", f"{name}: alerts stay on their node")]
    return [
        Check(
            "webhook",
            "limited",
            f"{name} leads to any node: alerts arrive where their packets are not, and go on by a Capture",
            "internalTrafficPolicy: Local (Kubernetes 1.22 or later)",
        )
    ]


def _reach(service: Mapping[str, Any]) -> Check:
    """From this very pod, as Falco on this node would."""
    spec = service["spec"]
    where = (str(spec.get("clusterIP")), int(spec["ports"][0]["port"]))
    try:
        socket.create_connection(where, timeout=5).close()
    except OSError as problem:
        return Check(
            "webhook",
            "bad",
            f"{where[0]}:{where[1]} cannot be reached from this node: {problem.strerror or problem}",
            "is the pod of this node ready; do NetworkPolicies let the port through (networkPolicy.from)?",
        )
    return Check("webhook", "good", f"reached at {where[0]}:{where[1]}")
