"""A real Kubernetes node with real pods: what an operator and an analyst do there, from Falco's alert to kubectl."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.node import RealNode, real_node
from tests.e2e.conftest import requires_root
from tests.e2e.machine import Machine, evidence_files, falco_event, manifest, tshark, wait_for
from tripshark.formats.capture_schema import definitions

__all__ = ["real_node"]
pytestmark = [requires_root, pytest.mark.root]

RULES = """
- rule: Whole workload
  match: {rules: ["Everybody at once"]}
  capture: {before: 5m, after: 100ms, scope: workload}
- rule: Whole service
  match: {rules: ["All behind the service"]}
  capture: {before: 5m, after: 100ms, scope: service}
- rule: Everything else
  match: {priority: ">=Debug"}
  capture: {before: 5m, after: 300ms}
"""
WORLD = """
apiVersion: v1
kind: ServiceAccount
metadata: {name: till, namespace: payments}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: checkout, namespace: payments}
spec:
  replicas: 2
  selector: {matchLabels: {app: checkout}}
  template:
    metadata: {labels: {app: checkout, tier: front}}
    spec:
      serviceAccountName: till
      automountServiceAccountToken: false
      dnsPolicy: Default
      terminationGracePeriodSeconds: 1
      containers:
        - {name: main, image: "localhost/work:1", command: [/bin/httpd, -f, -p, "9000", -h, /www]}
        - {name: side, image: "localhost/work:1", command: [/bin/httpd, -f, -p, "9001", -h, /www]}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: ledger, namespace: payments}
spec:
  serviceName: ledger
  replicas: 1
  selector: {matchLabels: {app: ledger}}
  template:
    metadata: {labels: {app: ledger}}
    spec:
      automountServiceAccountToken: false
      dnsPolicy: Default
      terminationGracePeriodSeconds: 1
      containers:
        - {name: main, image: "localhost/work:1", command: [/bin/httpd, -f, -p, "8080", -h, /www]}
---
apiVersion: v1
kind: Service
metadata: {name: ledger, namespace: payments}
spec: {selector: {app: ledger}, ports: [{port: 80, targetPort: 8080, protocol: TCP}]}
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: agent, namespace: payments}
spec:
  selector: {matchLabels: {app: agent}}
  template:
    metadata: {labels: {app: agent}}
    spec:
      hostNetwork: true
      automountServiceAccountToken: false
      terminationGracePeriodSeconds: 1
      containers:
        - {name: main, image: "localhost/work:1", command: [/bin/sh, -c, "trap 'exit 0' TERM; while :; do sleep 1000 & wait $!; done"]}
"""
EVERY = [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]
Json = dict[str, Any]


@dataclass(slots=True)
class Cluster:
    """One node that Tripshark watches; `token` may see everything there."""

    node: RealNode
    machine: Machine
    token: str

    # ---------------------------------------------------------------- Kubernetes

    def pods(self, app: str) -> list[Json]:
        """Those of the world above that run, all their containers too."""

        def found() -> list[Json]:
            all_of_it = [
                each
                for each in self.node.pods("payments")
                if each["metadata"]["labels"].get("app") == app
                and "deletionTimestamp" not in each["metadata"]
            ]
            return all_of_it if all_of_it and all(map(_runs, all_of_it)) else []

        return self.node.wait_for(found, f"the pods of {app}")

    def delete(self, pod: Json) -> None:
        meta = pod["metadata"]
        path = f"/api/v1/namespaces/{meta['namespace']}/pods/{meta['name']}"
        self.node.plane.call("DELETE", path)
        self.node.wait_for(
            lambda: meta["uid"] not in {e["metadata"]["uid"] for e in self.node.pods("payments")},
            f"the end of {meta['name']}",
        )

    def run(self, pod: Json, *argv: str, container: str = "main") -> str:
        done = self.node.containerd.exec(container_of(pod, container), argv)
        return done.stdout + done.stderr

    def kubectl(self, *argv: str, check: bool = True, stdin: str = "") -> str:
        done = subprocess.run(
            ["kubectl", "--kubeconfig", str(self.node.kubeconfig), "-n", "payments", *argv],
            input=stdin, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert not check or done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    # ---------------------------------------------------------------- Tripshark

    def ask(self, path: str, body: object = None, *, token: str = "") -> tuple[int, Json]:
        """Over HTTP as whoever owns the token."""
        request = urllib.request.Request(
            self.machine.url + path,
            data=None if body is None else json.dumps(body).encode(),
            headers={
                "Authorization": f"Bearer {token or self.token}",
                "Content-Type": "application/json",
            },
        )
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as no:
            with no:
                return no.code, json.load(no)

    def sealed(self, rule: str) -> Json:
        """The incident of this Falco rule, sealed."""

        def found() -> Json | None:
            for each in self.ask("/v1/incidents?limit=500")[1]["incidents"]:
                if each["falco_rule"] == rule and each["state"] in ("sealed", "empty"):
                    return dict(each)
            return None

        try:
            return wait_for(found, f"evidence of {rule}", seconds=60) or {}
        except AssertionError:
            print(self.ask("/v1/refusals")[1])
            print((self.machine.folder / "log").read_text()[-3000:])
            raise

    def captured(self, **alert: object) -> Json:
        """Post an alert, wait for its evidence."""
        event = about(**alert)  # type: ignore[arg-type]
        self.machine.post(event)
        return self.sealed(str(event["rule"]))

    def refusal(self, rule: str) -> Json:
        def found() -> Json | None:
            told = self.ask("/v1/refusals")[1]["refusals"]
            return next((dict(each["refusal"]) for each in told if each["rule"] == rule), None)

        return wait_for(found, f"the refusal of {rule}", seconds=60) or {}


def _runs(pod: Json) -> bool:
    known = pod["status"].get("containerStatuses") or [{}]
    return bool(pod["status"].get("podIP")) and all("running" in e.get("state", {}) for e in known)


def container_of(pod: Json, name: str = "main") -> str:
    """The id of its container, in full."""
    (found,) = (e for e in pod["status"]["containerStatuses"] if e["name"] == name)
    return str(found["containerID"]).removeprefix("containerd://")


def address(pod: Json) -> str:
    return str(pod["status"]["podIP"])


def about(*, rule: str, container: str = "", connection: str = "", **fields: object) -> Json:
    """As Falco says it in practice: 12 digits of the container, and of Kubernetes nothing."""
    event = falco_event(rule=rule, connection=connection)
    told = dict(event["output_fields"])  # type: ignore[call-overload]
    told |= {"k8s.ns.name": None, "k8s.pod.name": None, "container.id": container[:12], **fields}
    return {**event, "output_fields": told, "hostname": "falco-7x2ls"}


def who(incident: Mapping[str, object]) -> Json:
    return dict(manifest(incident)["details"]["who"])  # type: ignore[index]


def captures(incident: Mapping[str, object]) -> dict[str, Json]:
    told = manifest(incident)["details"]["what"]["captures"]  # type: ignore[index]
    return {each["target"]: each for each in told}


def title(pod: Json) -> str:
    return f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"


@pytest.fixture(scope="module")
def cluster(real_node: RealNode) -> Iterator[Cluster]:
    """Everything runs, and Tripshark knows it by name."""
    plane = real_node.plane
    for each in definitions(cel=False):
        plane.apply(dict(each))
    plane.ensure("/api/v1/namespaces", {"metadata": {"name": "payments"}})
    token = (plane.service_account("default", "operator") / "token").read_text()
    undo = plane.grant("system:serviceaccount:default:operator", EVERY)
    with tempfile.TemporaryDirectory(prefix="ts-cluster-") as base:
        os.chmod(base, 0o755)
        machine = Machine(
            Path(base),
            rules_text=RULES,
            recorder={"host": True},
            containers={"enabled": "on", "sockets": [real_node.containerd.socket]},
            kubernetes={
                "enabled": "on",
                "kubeconfig": str(real_node.kubeconfig),
                "node": real_node.name,
                "access": True,
            },
        ).start()
        try:
            plane.apply(WORLD)
            made = Cluster(real_node, machine, token)
            pods = [each for app in ("checkout", "ledger") for each in made.pods(app)]
            made.pods("agent")
            uids = {each["metadata"]["uid"] for each in pods}

            def known() -> bool:
                told = made.ask("/v1/targets")[1]["targets"]
                return uids <= {e["identity"]["uid"] for e in told if e["rings"]}

            wait_for(known, "all pods to be recorded by name", seconds=60)
            yield made
        finally:
            machine.stop()
            undo()


def test_a_container_id_is_enough_also_after_the_pods_death(cluster: Cluster) -> None:
    """Pod, owner, labels, account, images, both ends' names, the packets before; a line in kubectl describe."""
    pod, (ledger,) = cluster.pods("checkout")[0], cluster.pods("ledger")
    assert "hello" in cluster.run(
        pod, "/bin/wget", "-q", "-O", "-", f"http://{address(ledger)}:8080/", container="side"
    )
    second = container_of(pod, "side")
    flow = f"{address(pod)}:40000->{address(ledger)}:8080"
    alive = cluster.captured(rule="Alive", container=second, connection=flow)
    cluster.delete(pod)
    dead = cluster.captured(rule="Dead", container=second, connection=flow)
    for incident in (alive, dead):
        told = who(incident)
        assert (told["namespace"], told["pod"]) == ("payments", pod["metadata"]["name"])
        assert told["uid"] == pod["metadata"]["uid"]
        assert told["owner"] == "Deployment/checkout"
        assert told["labels"] == pod["metadata"]["labels"]
        assert told["service_account"] == "till"
        assert any("@sha256:" in each for each in told["images"])
        assert {container_of(pod), second} <= set(told["containers"])
        assert set(captures(incident)) == {title(pod), title(ledger)}
        file = evidence_files(incident)[-1]
        assert file.name == "evidence.pcapng"
        flows = set(
            tshark(file, "-Nn", "-Y", "http", "-Tfields", "-eip.src_host", "-eip.dst_host")
        )
        assert f"{title(pod)}\t{title(ledger)}" in flows
        assert manifest(incident)["details"]["when"]["seconds_before_alert"] > 0  # type: ignore[index]
    shown = cluster.kubectl("get", "events", "-o", "wide")
    assert f"sealed as incident {alive['id']}" in shown


def test_a_pod_that_lived_shorter_than_a_second(cluster: Cluster) -> None:
    """It came, spoke, ended and was removed; only then the alert came."""
    (ledger,) = cluster.pods("ledger")
    speak = f"/bin/wget -q -O /dev/null http://{address(ledger)}:8080/"
    pod = cluster.node.run("payments", "flash", ["/bin/sh", "-c", speak])
    state = pod["status"]["containerStatuses"][0]["state"]
    id = next(iter(state.values())).get("containerID") or container_of(pod)
    cluster.node.delete("payments", "flash")
    incident = cluster.captured(
        rule="Flash",
        container=id.removeprefix("containerd://"),
        connection=f"{address(pod)}:40000->{address(ledger)}:8080",
    )
    assert who(incident)["uid"] == pod["metadata"]["uid"]
    assert tshark(evidence_files(incident)[-1], "-Y", "http.request")


def test_workloads_and_services_are_captured_whole(cluster: Cluster) -> None:
    """By a rule's scope, by the service's address that an alert names, and by hand: every pod of it, in one incident."""
    pods, (ledger,) = cluster.pods("checkout"), cluster.pods("ledger")
    both = {title(each) for each in pods}
    flow = f"{address(pods[0])}:40000->{address(ledger)}:8080"
    id = container_of(pods[0])
    workload = cluster.captured(rule="Everybody at once", container=id, connection=flow)
    assert set(captures(workload)) >= both  # and who was replaced within the window

    service = cluster.kubectl("get", "service", "ledger", "-o", "jsonpath={.spec.clusterIP}")
    flow = f"{address(pods[0])}:40000->{service}:80"
    behind = cluster.captured(rule="All behind the service", container=id, connection=flow)
    assert set(captures(behind)) == {title(pods[0]), title(ledger)}

    argv = ("--config", str(cluster.machine.config), "--wait", "--json")
    window = ("--before", "5m", "--after", "0s")
    shown = cluster.machine.tripshark("capture", "payments/deployment/checkout", *window, *argv)
    assert set(captures(json.loads(shown.stdout))) >= both


def test_audit_events(cluster: Cluster) -> None:
    """One about a pod is captured; one about anything else is refused in words about it."""
    pod = cluster.pods("checkout")[0]
    target = {"ka.target.namespace": "payments", "ka.verb": "create", "ka.user.name": "alice"}

    def event(rule: str, kind: str, name: str) -> Json:
        fields = {**target, "ka.target.resource": kind, "ka.target.name": name}
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S.000000000Z", time.gmtime())
        return {
            "rule": rule, "priority": "Notice", "source": "k8s_audit", "time": stamp, "output": "", "output_fields": fields,
        }  # fmt: skip

    cluster.machine.post(event("Attach/Exec Pod", "pods", pod["metadata"]["name"]))
    cluster.machine.post(event("ConfigMap changed", "configmaps", "prices"))
    assert who(cluster.sealed("Attach/Exec Pod"))["uid"] == pod["metadata"]["uid"]
    assert "configmaps payments/prices" in cluster.refusal("ConfigMap changed")["message"]


def test_a_pod_in_the_hosts_network(cluster: Cluster) -> None:
    """The node's packets under the pod's name, narrowed by what the alert names."""
    (agent,) = cluster.pods("agent")
    incident = cluster.captured(
        rule="In the host's network",
        container=container_of(agent),
        connection=f"127.0.0.1:1->127.0.0.1:{cluster.machine.url.rpartition(':')[2]}",
    )
    (capture,) = captures(incident).values()
    assert (capture["who"]["pod"], capture["who"]["owner"]) == (
        agent["metadata"]["name"],
        "DaemonSet/agent",
    )
    assert "lives in the host's network" in capture["plan_reason"]
    assert capture["scope"] in ("flow", "peer")


def test_a_container_that_is_started_again(cluster: Cluster) -> None:
    """The pod stays the same, and both containers' ids mean it."""
    pod = cluster.pods("checkout")[1]
    before = container_of(pod)
    os.kill(cluster.node.containerd.container_pid(before), signal.SIGKILL)

    def restarted() -> Json | None:
        for each in cluster.pods("checkout"):
            same = each["metadata"]["uid"] == pod["metadata"]["uid"]
            if same and container_of(each) != before:
                return each
        return None

    again = cluster.node.wait_for(restarted, "another container")
    assert again is not None
    for rule, id in (("First life", before), ("Second life", container_of(again))):
        assert who(cluster.captured(rule=rule, container=id))["uid"] == pod["metadata"]["uid"]


def test_a_name_used_again_is_told_apart_by_uid(cluster: Cluster) -> None:
    """A StatefulSet's pod was made anew: the old container and the old uid mean the dead one, the name alone the living."""
    (old,) = cluster.pods("ledger")
    cluster.delete(old)
    (new,) = cluster.pods("ledger")
    assert new["metadata"]["name"] == old["metadata"]["name"]
    name = {"k8s.ns.name": "payments", "k8s.pod.name": old["metadata"]["name"]}
    wait_for(
        lambda: any(
            e["identity"]["uid"] == new["metadata"]["uid"] and e["rings"]
            for e in cluster.ask("/v1/targets")[1]["targets"]
        ),
        "the new pod to be known",
        seconds=60,
    )
    for first, second in (
        (("By old container", {"container": container_of(old)}), ("By name", name)),
        (
            ("By old uid", {**name, "k8s.pod.uid": old["metadata"]["uid"]}),
            ("By new container", {"container": container_of(new)}),
        ),
    ):  # two at a time: what is about another pod is another incident
        for rule, fields in (first, second):
            cluster.machine.post(about(rule=rule, **fields))
        assert who(cluster.sealed(first[0]))["uid"] == old["metadata"]["uid"]
        assert who(cluster.sealed(second[0]))["uid"] == new["metadata"]["uid"]


def _answered(status: Json) -> bool:
    """Every part is final, and summed up."""
    parts = status.get("parts", ())
    final = bool(parts) and all(each["state"] != "Capturing" for each in parts)
    return final and status.get("packets") == sum(each.get("packets", 0) for each in parts)


def test_captures_by_kubectl(cluster: Cluster) -> None:
    """A pod, a workload, a service: parts with their own packets, one incident each; the host's network is refused."""
    pods, (ledger,) = cluster.pods("checkout"), cluster.pods("ledger")
    for each in pods:
        cluster.run(each, "/bin/wget", "-q", "-O", "-", f"http://{address(ledger)}:8080/")
    aims = {
        "one-pod": {"pod": ledger["metadata"]["name"]},
        "a-workload": {"workload": {"kind": "Deployment", "name": "checkout"}},
        "a-service": {"service": "ledger"},
        "the-host": {"workload": {"kind": "DaemonSet", "name": "agent"}},
    }
    made = [
        {
            "apiVersion": "tripshark.dev/v1alpha1",
            "kind": "Capture",
            "metadata": {"name": name},
            "spec": {"target": aim, "before": "5m", "after": "0s", "filter": "tcp port 8080"},
        }
        for name, aim in aims.items()
    ]
    listed = {"apiVersion": "v1", "kind": "List", "items": made}
    cluster.kubectl("apply", "-f", "-", stdin=json.dumps(listed))

    def answered() -> dict[str, Json] | None:
        told = json.loads(cluster.kubectl("get", "captures", "-o", "json"))["items"]
        found = {each["metadata"]["name"]: each.get("status", {}) for each in told}
        return found if all(map(_answered, found.values())) else None

    found = wait_for(answered, "every part", seconds=60) or {}
    parts = {name: {p["target"]: p for p in told.get("parts", ())} for name, told in found.items()}
    assert set(parts["a-workload"]) >= {title(each) for each in pods}
    assert set(parts["one-pod"]) == set(parts["a-service"]) == {title(ledger)}
    assert len({each["incident"] for each in parts["a-workload"].values()}) == 1
    assert all(parts["a-workload"][title(each)]["packets"] >= 10 for each in pods), parts
    assert {c["reason"] for c in found["the-host"]["conditions"]} >= {"HostNetwork"}
    assert "Deployment payments/checkout" in cluster.kubectl("get", "captures")


def test_whoever_has_no_rights_on_a_namespace_neither_captures_nor_reads(cluster: Cluster) -> None:
    """By kubectl, by HTTP: somebody who may do everything in another namespace sees nothing of this one."""
    plane = cluster.node.plane
    plane.ensure("/api/v1/namespaces", {"metadata": {"name": "toys"}})
    stranger = (plane.service_account("toys", "stranger") / "token").read_text()
    undo = plane.grant("system:serviceaccount:toys:stranger", EVERY, namespace="toys")
    try:
        incident = cluster.captured(
            rule="Private", container=container_of(cluster.pods("ledger")[0])
        )
        shown = cluster.kubectl(
            "auth", "can-i", "create", "captures.tripshark.dev", "--as=system:serviceaccount:toys:stranger",
            check=False,
        )  # fmt: skip
        assert shown.startswith("no")
        asked: Callable[..., tuple[int, Json]] = cluster.ask
        assert asked("/v1/captures", {"target": "payments/ledger-0"}, token=stranger)[0] == 403
        assert asked("/v1/captures", {"target": "host"}, token=stranger)[0] == 403
        listed = asked("/v1/incidents?limit=500", token=stranger)[1]["incidents"]
        assert not [each for each in listed if each["namespace"] == "payments"]
        for what in ("", "/manifest.json", "/evidence.pcapng"):
            assert asked(f"/v1/incidents/{incident['id']}{what}", token=stranger)[0] in (403, 404)
        assert asked("/v1/targets", token=stranger)[1]["targets"] == []
        assert asked(f"/v1/incidents/{incident['id']}/manifest.json")[0] == 200
    finally:
        undo()
