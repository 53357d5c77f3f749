"""What is shipped: of a bulk transfer the beginning is evidence in full, its tail by its headers, and that is said."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.machine import Machine, Network, evidence_files, falco_event, manifest
from tests.e2e.test_seam import POD, rules, tshark
from tripshark.formats import pcapng
from tripshark.formats.tshark import ARGUMENTS

pytestmark = pytest.mark.root

SERVER = """
import socket
l = socket.create_server(('10.66.0.2', 8080)); print('up', flush=True)
while True:
    c, _ = l.accept()
    left = 400_000
    while left > 0: left -= len(c.recv(1 << 20))
    c.sendall(b'HTTP/1.1 200 OK\\r\\nServer: cut\\r\\nContent-Length: 3000000\\r\\n\\r\\n' + b'x' * 3_000_000)
    c.close()
"""
CLIENT = """
import socket
for path in ('one', 'two'):
    s = socket.create_connection(('10.66.0.2', 8080))
    head = f'POST /{path} HTTP/1.1\\r\\nHost: far\\r\\nContent-Length: 400000\\r\\n\\r\\n'
    s.sendall(head.encode() + b'y' * 400_000)
    while s.recv(1 << 20): pass
    s.close()
"""


def test_the_beginning_of_a_bulk_transfer_is_evidence(
    machine: Callable[..., Machine], network: Network, tmp_path: Path
) -> None:
    """6 MB through a ring of less: both requests and answers' heads are there, every packet is, and the ledger tells."""
    pod_name = f"ts-{network.prefix}-pod"
    tripshark = machine(
        rules=[rules(tmp_path)],
        recorder={"include": [pod_name], "per_target": "4MB"},
        targets={"static": [{"netns": pod_name, **POD}]},
    )
    pod, far = network.namespace("pod"), network.namespace("far")
    network.veth(pod, far)
    tripshark.wait_recorded(pod)
    server = network.python(far, SERVER)
    server.stdout.readline()  # type: ignore[union-attr]
    assert network.python(pod, CLIENT).wait(60) == 0
    tripshark.post(falco_event(rule="Seam", time_ns=time.time_ns()))
    (incident,) = tripshark.wait_sealed()
    (path,) = evidence_files(incident)
    packets = pcapng.read(path.read_bytes()).packets
    tail = packets.caplen < packets.length
    assert set(packets.caplen[tail].tolist()) & {128} == {128}
    assert int(packets.length.sum()) > 6_000_000
    assert int(packets.caplen.sum()) < 2_000_000
    shown = subprocess.run(
        ["tshark", *ARGUMENTS[:-2], "-r", str(path)], capture_output=True, text=True, check=True
    ).stdout
    for address in (
        "/one",
        "/two",
    ):  # what the analyst reads of it: uploads of which the body is not all there
        assert shown.count(f'"http_request_uri":["{address}"]') == 1
    answers = tshark(
        path,
        "-o",
        "http.desegment_body:FALSE",
        "-Y",
        "http.response",
        "-T",
        "fields",
        "-e",
        "http.server",
    )
    assert answers == ["cut", "cut"]
    told = manifest(incident)["ledger"]
    assert told["word"] == "truncated"  # type: ignore[index]
    (entry,) = told["entries"]  # type: ignore[index]
    assert (entry["kind"], entry["count"]) == ("flow_cut", int(tail.sum()))
