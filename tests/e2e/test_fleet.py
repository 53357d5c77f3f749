"""Two nodes and one real API server: alerts that need the other node, whole workloads, both ends of a conversation."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.control import Answer, Plane
from tests.e2e.conftest import requires_root
from tests.e2e.machine import Machine, Network, evidence_files, falco_event, manifest, tshark
from tests.e2e.machine import wait_for as wait
from tests.e2e.traffic import within
from tripshark.formats.capture_schema import definitions

pytestmark = [requires_root, pytest.mark.root]

RULES = """
- rule: Whole workload
  match: {rules: ["Everybody at once"]}
  capture: {before: 60s, after: 1s, scope: workload}
- rule: Everything else
  match: {priority: ">=Debug"}
  capture: {before: 60s, after: 1s}
"""
CAPTURES = "/apis/tripshark.dev/v1alpha1"


@dataclass(slots=True)
class Fleet:
    """`nodes[i]` records the pod `shop/shop-i`, which has the address 10.66.0.(i + 1)."""

    plane: Plane
    namespace: str
    nodes: tuple[Machine, Machine]
    uids: tuple[str, str]
    spaces: tuple[str, str]

    def captures(self) -> list[dict[str, Any]]:
        """Every Capture and ClusterCapture."""
        found = []
        for path in (f"namespaces/{self.namespace}/captures", "clustercaptures"):
            found += self.plane.call("GET", f"{CAPTURES}/{path}")["items"]
        return found

    def talk(self, port: int) -> None:
        """One UDP exchange from the first pod to the second and back."""
        import socket

        def make(address: str, number: int) -> socket.socket:
            made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            made.bind((address, number))
            made.settimeout(60)
            return made

        server = within(self.spaces[1], lambda: make("10.66.0.2", port))
        client = within(self.spaces[0], lambda: make("10.66.0.1", port + 1))
        with server, client:
            client.sendto(b"question", ("10.66.0.2", port))
            asked, sender = server.recvfrom(100)
            server.sendto(b"answer to " + asked, sender)
            client.recv(100)


@pytest.fixture(scope="module")
def fleet(real_api: Plane) -> Iterator[Fleet]:
    """Both nodes run `tripshark run` on this machine, each recording its own pod alone."""
    for each in definitions(cel=False):
        real_api.apply(dict(each))
    network = Network(f"ft{os.getpid():x}")
    with (
        contextlib.closing(network),
        real_api.namespace() as namespace,
        tempfile.TemporaryDirectory(prefix="ts-fleet-") as base,
    ):
        os.chmod(base, 0o755)
        spaces = (network.namespace("zero"), network.namespace("one"))
        network.veth(*spaces)
        labels = {"app": "shop"}
        owner = real_api.call(
            "POST",
            f"/apis/apps/v1/namespaces/{namespace}/statefulsets",
            {
                "apiVersion": "apps/v1",
                "kind": "StatefulSet",
                "metadata": {"name": "shop"},
                "spec": {
                    "serviceName": "shop",
                    "selector": {"matchLabels": labels},
                    "template": {
                        "metadata": {"labels": labels},
                        "spec": {"containers": [{"name": "main", "image": "x"}]},
                    },
                },
            },
        )
        pods = [
            real_api.pod(
                namespace,
                f"shop-{number}",
                node=f"node-{number}",
                ip=f"10.66.0.{number + 1}",
                labels=labels,
                owner=owner,
            )
            for number in range(2)
        ]
        uids = (pods[0]["metadata"]["uid"], pods[1]["metadata"]["uid"])
        nodes = []
        try:
            for number in range(2):
                folder = Path(base) / f"node{number}"
                folder.mkdir(mode=0o755)
                nodes.append(
                    Machine(
                        folder,
                        rules_text=RULES,
                        recorder={"include": [spaces[number]]},
                        kubernetes={
                            "enabled": "on",
                            "kubeconfig": str(real_api.kubeconfig),
                            "node": f"node-{number}",
                        },
                        targets={
                            "static": [
                                {
                                    "netns": spaces[number],
                                    "namespace": namespace,
                                    "pod": f"shop-{number}",
                                    "uid": uids[number],
                                    "labels": labels,
                                    "owner": "StatefulSet/shop",
                                }
                            ]
                        },
                    ).start()
                )
                nodes[-1].wait_recorded(spaces[number])
            yield Fleet(real_api, namespace, (nodes[0], nodes[1]), uids, spaces)
        finally:
            for each in nodes:
                each.stop()


def alert(fleet: Fleet, number: int, **fields: object) -> dict[str, object]:
    return falco_event(namespace=fleet.namespace, pod=f"shop-{number}", **fields)  # type: ignore[arg-type]


def complete(fleet: Fleet, *, having: str, passed_on: bool = False) -> dict[str, Any]:
    """The resource whose alert says `having`, once it is complete; one that `passed_on` the alert has no incident yet."""

    def found() -> dict[str, Any] | None:
        for each in fleet.captures():
            if (
                having in each["spec"].get("alert", "")
                and ("incident" not in each["spec"]) == passed_on
                and each.get("status", {}).get("phase") == "Complete"
            ):
                return each
        return None

    try:
        return wait(found, f"the capture of {having} to be complete", seconds=60)
    except AssertionError:
        print(json.dumps(fleet.captures(), indent=1)[:8000])
        for each in fleet.nodes:
            print((each.folder / "log").read_text()[-3000:])
        raise


def sealed(machine: Machine, falco_rule: str) -> dict[str, object]:
    """The incident of this Falco rule on this node, sealed."""
    return wait(
        lambda: next(
            (
                each
                for each in machine.incidents()
                if each["falco_rule"] == falco_rule and each["state"] == "sealed"
            ),
            None,
        ),
        f"evidence of {falco_rule}",
        seconds=60,
    )


def test_an_alert_at_the_wrong_node_is_captured_at_the_right_one(fleet: Fleet) -> None:
    """A central Falcosidekick sends everything to one node: the pod's own node captures, and says so in status."""
    fleet.talk(5001)
    event = alert(
        fleet, 1, rule="Lost alert", connection="10.66.0.1:5002->10.66.0.2:5001", proto="udp"
    )
    told = fleet.nodes[0].post(event)
    assert told["incident"] is None
    incident = sealed(fleet.nodes[1], "Lost alert")
    (file,) = evidence_files(incident)
    assert len(tshark(file, "-Y", "udp.port == 5001")) == 2
    resource = complete(fleet, having="Lost alert", passed_on=True)
    (part,) = resource["status"]["parts"]
    assert (part["node"], part["uid"]) == ("node-1", fleet.uids[1])
    assert part["incident"] == incident["id"]
    assert part["packets"] == incident["packets"]
    told = wait(
        lambda: [
            each
            for each in fleet.plane.call("GET", f"/api/v1/namespaces/{fleet.namespace}/events")[
                "items"
            ]
            if each["involvedObject"]["uid"] == fleet.uids[1] and "Lost alert" in each["message"]
        ],
        "the event of the pod",
        seconds=60,
    )
    assert told[0]["reason"] == "PacketsCaptured"
    assert str(incident["id"]) in told[0]["message"]
    refusals = fleet.nodes[0].get("/v1/refusals")["refusals"]
    assert any("node-1" in str(each) and "elsewhere" in str(each) for each in refusals)  # type: ignore[union-attr]
    # what the first node has of it is its own pod's end of the conversation, asked for by the second
    ends = [e for e in fleet.nodes[0].incidents() if e["falco_rule"] == "Lost alert"]
    assert all(e["target"] == f"{fleet.namespace}/shop-0" for e in ends)


def test_an_alert_that_came_both_ways_is_captured_once_and_ends(fleet: Fleet) -> None:
    """Its own node has it already when another one passes it on: the resource tells of the incident that there is."""
    fleet.talk(5006)
    event = alert(fleet, 1, rule="Came twice")
    fleet.nodes[1].post(event)
    incident = sealed(fleet.nodes[1], "Came twice")
    fleet.nodes[0].post(event)
    resource = complete(fleet, having="Came twice", passed_on=True)
    (part,) = resource["status"]["parts"]
    assert part["incident"] == incident["id"]
    assert len([e for e in fleet.nodes[1].incidents() if e["falco_rule"] == "Came twice"]) == 1


def test_a_workload_is_frozen_on_every_node_and_merges_into_one_file(
    fleet: Fleet, tmp_path: Path
) -> None:
    """One incident id on both nodes; the merged file has an interface per pod, and its packets are theirs."""
    fleet.talk(5011)
    fleet.nodes[0].post(alert(fleet, 0, rule="Everybody at once"))
    here = sealed(fleet.nodes[0], "Everybody at once")
    resource = complete(fleet, having="Everybody at once")
    there = sealed(fleet.nodes[1], "Everybody at once")
    assert here["id"] == there["id"] == resource["spec"]["incident"]
    assert {part["node"] for part in resource["status"]["parts"]} == {"node-1"}
    merged = tmp_path / "merged.pcapng"
    done = subprocess.run(
        [
            ".venv/bin/tripshark",
            "merge",
            str(here["folder"]),
            str(there["folder"]),
            "-o",
            str(merged),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    names = set(tshark(merged, "-T", "fields", "-e", "frame.interface_name"))
    assert any(f"{fleet.namespace}/shop-0" in each for each in names)
    assert any(f"{fleet.namespace}/shop-1" in each for each in names)
    # the same two datagrams, seen at either end
    assert len(tshark(merged, "-Y", "udp.port == 5011")) == 4


def test_both_ends_of_a_conversation_are_frozen(fleet: Fleet) -> None:
    """The peer is a pod of the other node: it is asked for its end of this very conversation."""
    fleet.talk(5021)
    event = alert(
        fleet, 0, rule="Between two", connection="10.66.0.1:5022->10.66.0.2:5021", proto="udp"
    )
    fleet.nodes[0].post(event)
    here = sealed(fleet.nodes[0], "Between two")
    there = sealed(fleet.nodes[1], "Between two")
    assert here["id"] == there["id"]
    for incident in (here, there):
        (file,) = evidence_files(incident)
        assert len(tshark(file, "-Y", "udp.port == 5021")) == 2
    entries = manifest(here)["ledger"]["entries"]  # type: ignore[index]
    assert "part_elsewhere" in {each["kind"] for each in entries}


def test_kubectl_users_capture_and_see(fleet: Fleet, tmp_path: Path) -> None:
    """A Capture made by hand becomes evidence; one that means another namespace is refused in its status."""
    fleet.talk(5031)
    made = tmp_path / "capture.yaml"
    made.write_text(
        json.dumps(
            {
                "apiVersion": "tripshark.dev/v1alpha1",
                "kind": "Capture",
                "metadata": {"name": "by-hand", "namespace": fleet.namespace},
                "spec": {"target": {"pod": "shop-1"}, "before": "60s", "after": "1s"},
            }
        )
    )
    kubectl = ["kubectl", "--kubeconfig", str(fleet.plane.kubeconfig), "-n", fleet.namespace]
    subprocess.run([*kubectl, "apply", "-f", str(made)], check=True, capture_output=True)
    shown: Mapping[str, Any] = wait(
        lambda: _complete(fleet, "by-hand"), "the capture by hand", seconds=60
    )
    (part,) = shown["status"]["parts"]
    (incident,) = [e for e in fleet.nodes[1].incidents() if e["id"] == part["incident"]]
    (file,) = evidence_files(incident)
    assert len(tshark(file, "-Y", "udp.port == 5031")) == 2
    table = subprocess.run(
        [*kubectl, "get", "captures", "by-hand"], check=True, capture_output=True, text=True
    ).stdout
    assert "Complete" in table, table


def _complete(fleet: Fleet, name: str) -> dict[str, Any] | None:
    with contextlib.suppress(Answer):
        path = f"{CAPTURES}/namespaces/{fleet.namespace}/captures/{name}"
        found = fleet.plane.call("GET", path)
        if found.get("status", {}).get("phase") == "Complete":
            return found
    return None
