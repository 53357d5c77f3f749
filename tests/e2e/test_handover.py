"""An address that changes hands: each packet has the name of whoever held it then."""

from __future__ import annotations

import socket
from collections.abc import Callable

import pytest

from tests.e2e.conftest import requires_root
from tests.e2e.machine import (
    Machine,
    Network,
    evidence_files,
    falco_event,
    manifest,
    run,
    tshark,
    wait_for,
)
from tests.e2e.traffic import within

pytestmark = [requires_root, pytest.mark.root]

RULES = """
- rule: Whole pod
  match: {rules: ["Everything of it"]}
  capture: {before: 60s, after: 1s, scope: pod}
- rule: One flow
  match: {priority: ">=Debug"}
  capture: {before: 1s, after: 1s}
"""


def send(space: str, port: int) -> None:
    """One datagram from 10.66.0.1 to the watcher."""

    def make() -> socket.socket:
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        made.bind(("10.66.0.1", port))
        return made

    with within(space, make) as sock:
        sock.sendto(b"here I am", ("10.66.0.2", 9999))


def test_an_address_used_by_two_pods_one_after_the_other(
    machine: Callable[..., Machine], network: Network
) -> None:
    """After the hand-over only the second name; across it the joint name, and each packet says whose it was."""
    watcher, first = network.namespace("watcher"), network.namespace("first")
    network.veth(first, watcher)
    second = first.removesuffix("first") + "second"
    tripshark = machine(
        rules_text=RULES,
        recorder={"include": [first, second, watcher]},
        targets={
            "static": [
                {"netns": watcher, "namespace": "shop", "pod": "watcher"},
                {"netns": first, "namespace": "shop", "pod": "old-pod"},
                {"netns": second, "namespace": "shop", "pod": "new-pod"},
            ]
        },
    )
    tripshark.wait_recorded(first)
    tripshark.wait_recorded(watcher)

    def listen() -> socket.socket:
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        made.bind(("0.0.0.0", 9999))  # whoever is not heard is told so by ICMP
        return made

    with within(watcher, listen):
        _hand_over(tripshark, network, first, second, watcher)


def _hand_over(
    tripshark: Machine, network: Network, first: str, second: str, watcher: str
) -> None:
    send(first, 5001)
    network.delete(first)
    run("ip", "-n", watcher, "link", "del", "eth0", check=False)
    wait_for(
        lambda: any(
            each["title"] == "shop/old-pod" and not each["alive"]  # type: ignore[index]
            for each in tripshark.get("/v1/targets")["targets"]  # type: ignore[union-attr]
        ),
        "the first pod's death to be noticed",
    )
    assert network.namespace("second") == second
    network.veth(second, watcher)
    tripshark.wait_recorded(second)
    tripshark.wait_recorded(watcher)
    wait_for(
        lambda: any(
            each["title"] == "shop/new-pod" and "10.66.0.1" in each["addresses"]  # type: ignore[index]
            for each in tripshark.get("/v1/targets")["targets"]  # type: ignore[union-attr]
        ),
        "the second pod's address to be known",
    )
    send(second, 5002)
    tripshark.post(
        falco_event(
            rule="Just that flow",
            namespace="shop",
            pod="watcher",
            connection="10.66.0.1:5002->10.66.0.2:9999",
            proto="udp",
        )
    )
    (after,) = tripshark.wait_sealed()
    (file,) = evidence_files(after)
    assert set(_names(file)) == {"shop/new-pod"}
    assert "old-pod" not in str(manifest(after)["details"]["names"]["10.66.0.1"])  # type: ignore[index]

    tripshark.post(falco_event(rule="Everything of it", namespace="shop", pod="watcher"))
    wait_for(lambda: len(tripshark.incidents()) == 2, "a second incident")
    across = next(
        each for each in tripshark.wait_sealed(2) if each["falco_rule"] == "Everything of it"
    )
    (file,) = evidence_files(across)
    assert set(_names(file)) == {"shop/old-pod|shop/new-pod"}
    for port, owner in ((5001, "shop/old-pod"), (5002, "shop/new-pod")):
        comments = tshark(
            file, "-Y", f"udp.srcport == {port}", "-T", "fields", "-e", "frame.comment"
        )
        assert comments
        assert all(f"10.66.0.1 then belonged to {owner}" in each for each in comments), comments
    timeline = tripshark.tripshark(
        "export",
        str(across["id"]),
        "--data",
        str(tripshark.data),
        "--format",
        "timeline",
        "-o",
        "-",
    ).stdout
    assert "shop/old-pod" in timeline
    assert "shop/new-pod" in timeline


def _names(file: object) -> list[str]:
    return tshark(
        str(file),
        "-N",
        "n",
        "-Y",
        "udp && ip.src == 10.66.0.1",
        "-T",
        "fields",
        "-e",
        "ip.src_host",
    )
