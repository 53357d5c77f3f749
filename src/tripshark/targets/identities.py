"""Who lives in a namespace: what the runtime, the API and the settings know of it, as one identity.

A namespace's inode is used again after its death, so inode *and* lifetime tell whose it is; and what was known
once stays known for as long as the recorder keeps the target.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from tripshark.model.pod import Container, PodFacts, Sandbox
from tripshark.model.target import Identity, Target

SLACK_NS = 1_000_000_000  # between an event and the moment a namespace was seen to come or go
_STILL = 1 << 62
_MAX_CONTAINERS = 64  # remembered of one pod: those that crash-loop have many
_RUNTIMES_OWN = ("io.kubernetes.", "io.cri-containerd.", "io.x-k8s.")
_NEW_NAMESPACE_AT_EACH_START = frozenset({"docker", "podman"})


def inhabitant(target: Target, candidates: Sequence[Sandbox], now_ns: int) -> Sandbox | None:
    """Whose namespace this is, of all sandboxes that have or had its inode."""
    best, best_ns = None, 0
    for sandbox in candidates:
        born_ns = _born(sandbox)
        if target.seen_born and born_ns and born_ns < target.since_ns - 2 * SLACK_NS:
            continue  # it had another namespace, with the same number
        if target.seen_born and _has_another_name(sandbox, target):
            continue
        begin_ns = max(target.since_ns, born_ns)
        end_ns = min(target.gone_ns or _STILL, sandbox.gone_ns or _STILL, now_ns + SLACK_NS)
        shared_ns = end_ns - begin_ns + SLACK_NS
        if shared_ns > best_ns:
            best, best_ns = sandbox, shared_ns
    return best


def _has_another_name(sandbox: Sandbox, target: Target) -> bool:
    """Runtimes make a file of a name of its own for each namespace; a number of one just dead is used again at once."""
    file = sandbox.netns.rpartition("/")[2]
    if not file or sandbox.netns.startswith("/proc/") or not target.name.startswith("netns:"):
        return False
    return target.name != f"netns:{file}"


def _born(sandbox: Sandbox) -> int:
    """When its namespace came to be, as far as the runtime tells."""
    if sandbox.runtime in _NEW_NAMESPACE_AT_EACH_START:
        return max((each.started_ns for each in sandbox.containers), default=sandbox.created_ns)
    return sandbox.created_ns


def named(sandbox: Sandbox, facts: PodFacts | None, *, node: str) -> Identity:
    """One identity of what the runtime knows, and the API where it is there."""
    ids = (sandbox.id, *(each.id for each in sandbox.containers))
    return Identity(
        namespace=sandbox.namespace,
        pod=sandbox.pod,
        uid=sandbox.uid,
        labels=without_runtimes_own(facts.labels if facts else sandbox.labels),
        owner=str(facts.owner or "") if facts else owner_by_labels(sandbox),
        node=node,
        service_account=facts.service_account if facts else "",
        images=_images(sandbox.containers) or (facts.images if facts else ()),
        containers=together(ids, facts.containers if facts else ()),
        # in the host's network they are the host's
        addresses=() if sandbox.host_network else sandbox.addresses,
    )


def named_by_cluster(facts: PodFacts, *, node: str) -> Identity:
    """The same, where no runtime is there to be asked."""
    return Identity(
        namespace=facts.namespace,
        pod=facts.name,
        uid=facts.uid,
        labels=facts.labels,
        owner=str(facts.owner or ""),
        node=node,
        service_account=facts.service_account,
        images=facts.images,
        containers=facts.containers,
        addresses=() if facts.host_network else facts.addresses,
    )


def given(resident: Identity, seen: Identity | None, *, node: str) -> Identity:
    """What the settings say of somebody; what they leave open is as it was seen."""
    if seen is None:
        return replace(resident, node=resident.node or node)
    return Identity(
        namespace=resident.namespace or seen.namespace,
        pod=resident.pod or seen.pod,
        uid=resident.uid or seen.uid,
        labels={**seen.labels, **resident.labels},
        owner=resident.owner or seen.owner,
        node=resident.node or node,
        service_account=resident.service_account or seen.service_account,
        images=resident.images or seen.images,
        containers=together(resident.containers, seen.containers),
        addresses=seen.addresses,
    )


def without_runtimes_own(labels: Mapping[str, str]) -> Mapping[str, str]:
    """A pod's labels as its author wrote them: runtimes add names of their own."""
    if not any(name.startswith(_RUNTIMES_OWN) for name in labels):
        return labels
    return {name: value for name, value in labels.items() if not name.startswith(_RUNTIMES_OWN)}


def together(*ids: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(id for some in ids for id in some))[:_MAX_CONTAINERS]


def _images(containers: Iterable[Container]) -> tuple[str, ...]:
    """`NAME@sha256:…` of what really runs."""
    found: dict[str, None] = {}
    for each in containers:
        if each.image and each.digest and "@" not in each.image:
            found[f"{each.image}@{each.digest}"] = None
        elif each.image or each.digest:
            found[each.image or each.digest] = None
    return tuple(found)


def owner_by_labels(sandbox: Sandbox) -> str:
    """The workload, by the marks that Kubernetes' own controllers leave on their pods: no API is needed.

    Deployments mark them with `pod-template-hash`, which is also part of the name; StatefulSets and DaemonSets
    with `controller-revision-hash`, jobs with their name.
    """
    labels, pod = sandbox.labels, sandbox.pod
    job = labels.get("batch.kubernetes.io/job-name") or labels.get("job-name", "")
    if job and pod.startswith(f"{job}-"):
        return f"Job/{job}"
    head, dash, _ = pod.rpartition("-")
    template = labels.get("pod-template-hash", "")
    if template and dash and head.endswith(f"-{template}"):
        return f"Deployment/{head.removesuffix(f'-{template}')}"
    if labels.get("statefulset.kubernetes.io/pod-name") == pod and dash:
        return f"StatefulSet/{head}"
    if "controller-revision-hash" in labels and dash:
        return f"DaemonSet/{head}"
    return ""


def guest(host: Target, identity: Identity, sandbox: Sandbox) -> Target:
    """A pod in the host's network: the host's rings, under the pod's name and for the pod's lifetime."""
    return replace(
        host,
        identity=identity,
        since_ns=max(sandbox.created_ns, host.since_ns),
        gone_ns=sandbox.gone_ns,
        note=f"{identity.name} lives in the host's network: these are the host's packets",
    )
