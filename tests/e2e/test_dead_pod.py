"""Packets of pods that are gone."""

from __future__ import annotations

import time
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

pytestmark = [pytest.mark.root, requires_root, pytest.mark.timeout(120)]

LATER = 30.0  # seconds between the pod's death and the alert


def test_the_pod_and_its_veth_are_gone_and_the_alert_comes_30_s_later(
    machine: Callable[..., Machine], network: Network
) -> None:
    """The evidence is complete, and the dead veth was not kept alive meanwhile."""
    tripshark = machine(
        recorder={"include": [f"ts-{network.prefix}-*"]},
        targets={
            "static": [
                {
                    "netns": f"ts-{network.prefix}-pod",
                    "namespace": "payments",
                    "pod": "checkout-7d9f",
                }
            ]
        },
    )
    far, pod = network.namespace("far"), network.namespace("pod")
    network.veth(pod, far)
    tripshark.wait_recorded(pod)
    server = network.python(
        far,
        "import socket\n"
        "l = socket.create_server(('10.66.0.2', 4444)); print('up', flush=True)\n"
        "c, _ = l.accept()\n"
        "while c.recv(100): c.sendall(b'ok')\n",
    )
    server.stdout.readline()  # type: ignore[union-attr]
    client = network.python(
        pod,
        "import socket, time\n"
        "s = socket.create_connection(('10.66.0.2', 4444)); t = time.time_ns()\n"
        "for n in range(5): s.sendall(b'beacon'); s.recv(100)\n"
        "print(s.getsockname()[1], t, flush=True); s.close()\n",
    )
    port, t0_ns = map(int, client.stdout.readline().split())  # type: ignore[union-attr]
    client.wait(60)
    network.delete(pod)
    died = time.monotonic()
    wait_for(
        lambda: "eth0" not in run("ip", "-n", far, "-br", "link", "show", check=False),
        "the dead pod's veth to vanish",
        seconds=LATER,
    )
    wait_for(lambda: time.monotonic() - died > LATER, "the alert's time", seconds=LATER + 60)
    tripshark.post(falco_event(time_ns=t0_ns, connection=f"10.66.0.1:{port}->10.66.0.2:4444"))
    (incident,) = tripshark.wait_sealed()
    (path,) = evidence_files(incident)
    flags = tshark(path, "-Y", "tcp", "-T", "fields", "-e", "tcp.flags.str", "-e", "tcp.len")
    assert "S" in flags[0]
    assert any("F" in line for line in flags)
    assert sum(int(line.split("\t")[1]) for line in flags) == 5 * (6 + 2)
    ledger = manifest(incident)["ledger"]
    assert ledger["word"] == "complete"  # type: ignore[index]
    assert tripshark.tripshark("verify", str(incident["folder"])).returncode == 0


def test_a_tombstone_expires(machine: Callable[..., Machine], network: Network) -> None:
    """After its time the history is gone, and the refusal says so instead of an empty file."""
    tripshark = machine(
        recorder={"include": [f"ts-{network.prefix}-*"], "tombstone": "1s"},
        targets={
            "static": [
                {
                    "netns": f"ts-{network.prefix}-pod",
                    "namespace": "payments",
                    "pod": "checkout-7d9f",
                }
            ]
        },
    )
    far, pod = network.namespace("far"), network.namespace("pod")
    network.veth(pod, far)
    tripshark.wait_recorded(pod)
    network.python(
        pod,
        "import socket\n"
        "socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('10.66.0.2', 9))\n",
    ).wait(60)
    network.delete(pod)
    wait_for(
        lambda: (
            not any(
                target["name"] == f"netns:{pod}"
                for target in tripshark.get("/v1/targets")["targets"]  # type: ignore[attr-defined]
            )
        ),
        "the tombstone to expire",
    )
    tripshark.post(falco_event())
    refusal = wait_for(lambda: tripshark.get("/v1/refusals")["refusals"], "a stored refusal")
    assert "no_target" in str(refusal) or "expired" in str(refusal)
