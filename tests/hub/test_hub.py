"""The hub as a process: what nodes sent is served from one place, and nobody waits for it."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
import tempfile
import urllib.error
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import machine, network, requires_root
from tests.e2e.machine import Machine, Network, falco_event, wait_for
from tests.hub.conftest import Sender
from tests.hub.process import HubProcess
from tests.store.evidence import seal
from tests.store.postgres import Server
from tests.store.swift import S3, SECRET
from tripshark.errors import BadInput
from tripshark.formats import pcapng
from tripshark.model.fleet import Aimed
from tripshark.programs.fleet_captures import aim_of
from tripshark.programs.reporting import Reports
from tripshark.store import custody
from tripshark.store.catalogue import SqlCatalogue
from tripshark.store.objects import Objects
from tripshark.store.verify import verify

__all__ = ["machine", "network"]

PACKETS = (Path(__file__).parents[1] / "captures" / "incident-demo.pcapng").read_bytes()


@pytest.fixture
def hub() -> Iterator[Callable[..., HubProcess]]:
    """Starts hubs, and ends them with the test; their folder is not pytest's, which only root may enter."""
    started: list[HubProcess] = []

    def start(**config: object) -> HubProcess:
        made = HubProcess(Path(base) / f"hub{len(started)}", **config)
        started.append(made)
        return made.start()

    with tempfile.TemporaryDirectory(prefix="ts-hub-") as base:
        os.chmod(base, 0o755)
        yield start
        for each in started:
            each.kill()


async def test_the_fleets_evidence_in_one_place(
    hub: Callable[..., HubProcess], s3: S3, postgres: Server, tmp_path: Path
) -> None:
    """Two nodes, S3 and PostgreSQL, two hubs: one incident of two parts, files in ranges, one merged file, custody, presigned."""
    store = {"url": f"s3://{s3.bucket()}/fleet", "options": s3.options}
    objects = Objects(store["url"], s3.options)
    id, contents = "20261124t103001-abcdef", []
    catalogues = []
    for number, name in enumerate(("node-1", "node-2"), start=1):
        catalogues.append(await SqlCatalogue.open(tmp_path / name / "catalogue.sqlite"))
        node = Sender(tmp_path / name, name, catalogues[-1], objects)
        contents.append(PACKETS)
        sealed = seal(node.vault, number, incident=id, packets=contents[-1])
        for companion, content in Reports().companions(sealed, "").items():
            node.vault.beside(sealed.id, companion, content)
        await node.outbox.send()
    for catalogue in catalogues:
        await catalogue.close()
    database = postgres.new()
    first = hub(store=store, hub={"database": database, "every": "200ms"})
    second = hub(store=store, hub={"database": database, "every": "200ms", "presigned": "1m"})
    (found,) = first.wait_incidents(1)
    wait_for(
        lambda: len(json.loads(first.get(f"/v1/incidents/{id}/parts"))["parts"]) == 2, "two parts"
    )
    parts = json.loads(second.get(f"/v1/incidents/{id}/parts"))["parts"]
    assert [each["node"] for each in parts] == ["node-1", "node-2"]
    assert found["target"] == "payments/checkout-1"
    whole = first.get(f"/v1/incidents/{id}/parts/node-1/evidence.pcapng")
    assert hashlib.sha256(whole).hexdigest() == parts[0]["files"][0]["sha256"]
    some = first.get(f"/v1/incidents/{id}/parts/node-2/evidence.pcapng", range="bytes=100-199")
    assert some == PACKETS[100:200]
    presigned = second.get(f"/v1/incidents/{id}/parts/node-2/evidence.pcapng")  # after a 307
    assert presigned == PACKETS
    merged = pcapng.read(first.get(f"/v1/incidents/{id}/merged.pcapng"))
    derivation = json.loads(first.get(f"/v1/incidents/{id}/merged.json"))
    assert len(merged.packets) == derivation["files"][0]["packets"] > 0
    assert len(derivation["was_derived_from"]) == 2
    assert first.get(f"/v1/incidents/{id}/merged.pcapng") == second.get(
        f"/v1/incidents/{id}/merged.pcapng"
    )
    with pytest.raises(urllib.error.HTTPError) as told:
        first.get(f"/v1/incidents/{id}/evidence.pcapng")
    assert "merged.pcapng" in json.loads(told.value.read())["error"]["hint"]
    told.value.close()
    report = first.get(f"/v1/incidents/{id}/report.html").decode()
    assert "Recorded on node-1" in report
    assert "Recorded on node-2" in report
    assert b"checkout-2" in first.get(f"/v1/incidents/{id}/parts/node-2/report.html")
    assert b"checkout-1" in first.get(f"/v1/incidents/{id}/parts/node-1/report.md")  # was sent
    exported = first.get(f"/v1/incidents/{id}/export/timeline").splitlines()
    assert {json.loads(each)["node"] for each in exported} == {"node-1", "node-2"}
    whole = first.get(f"/v1/incidents/{id}/parts/node-2/evidence.zip")
    zipfile.ZipFile(io.BytesIO(whole)).extractall(tmp_path / "whole")
    (folder,) = (tmp_path / "whole").iterdir()
    assert (folder / "report.html").exists()
    verify(folder).require()
    assert custody.read(first.get(f"/v1/incidents/{id}/parts/node-1/custody.jsonl"))
    deeds = custody.read(first.get(f"/v1/incidents/{id}/viewed.jsonl"))
    assert deeds[0].what == "sealed"
    assert "node-2-evidence.pcapng" in [each.details.get("file") for each in deeds]
    assert b"The fleet" in first.get("/")
    metrics = first.get("/metrics").decode()
    assert "tripshark_hub_imported_total" in metrics
    assert "tripshark_hub_store_up 1.0" in metrics
    assert first.stop() == 0
    assert SECRET not in first.log.read_text()


ONE_POD = {
    "rules_text": "- rule: Beacon\n  match: {rules: [Outbound Connection to C2 Servers]}\n"
    "  capture: {scope: pod, before: 5s, after: 300ms}\n"
}


@pytest.mark.root
@requires_root
def test_captures_go_on_while_store_and_hub_are_away(
    hub: Callable[..., HubProcess],
    machine: Callable[..., Machine],
    network: Network,
    s3: S3,
) -> None:
    """With no store and no hub alerts become sealed evidence; afterwards all of it is at the hub, once, byte for byte."""
    store = {"url": f"s3://{s3.bucket()}/fleet", "options": s3.options}
    pods = [f"ts-{network.prefix}-p{n}" for n in range(3)]
    node = machine(
        store=store,
        recorder={"include": [f"ts-{network.prefix}-*"]},
        targets={"static": [{"netns": pod, "namespace": "payments", "pod": f"pod-{n}"}
                            for n, pod in enumerate(pods)]},
        **ONE_POD,
    )  # fmt: skip
    far = network.namespace("far")
    for number in range(3):
        pod = network.namespace(f"p{number}")
        network.veth(pod, far, name=f"eth{number}", net=f"10.66.{number}")
        node.wait_recorded(pod, f"eth{number}")
    network.spawn(pods[0], "ping", "-c", "2", "-i", "0.2", "10.66.0.2").wait(60)
    node.post(falco_event(pod="pod-0"))
    node.wait_sealed(1)
    early = hub(store=store, hub={"every": "200ms"})
    early.wait_incidents(1)
    early.kill()
    s3.stop()
    try:
        for number in (1, 2):
            network.spawn(pods[number], "ping", "-c", "2", "-i", "0.2", f"10.66.{number}.2").wait(
                20
            )
            node.post(falco_event(pod=f"pod-{number}"))
        sealed = node.wait_sealed(3)
        wait_for(lambda: node.get("/readyz")["warnings"], "a warning of the store's absence")
        ready = node.get("/readyz")
        assert ready["ready"], ready
        assert "object store" in str(ready["warnings"])
    finally:
        s3.start()
    early.start()
    found = early.wait_incidents(3, 90)
    assert sorted(str(each["id"]) for each in found) == sorted(str(each["id"]) for each in sealed)
    for each in sealed:
        local = (Path(str(each["folder"])) / "evidence.pcapng").read_bytes()
        there = early.get(f"/v1/incidents/{each['id']}/evidence.pcapng")
        assert there == local
        assert pcapng.read(there).truncated_at is None
        deeds = custody.read((Path(str(each["folder"])) / "custody.jsonl").read_bytes())
        assert [deed.what for deed in deeds].count("sent") == 1
    assert early.stop() == 0


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({}, "store.url"),
        ({"store": {"url": "file:///x"}, "listen": "0.0.0.0:0"}, "could read all evidence"),
        ({"store": {"url": "s3://a:secret-word@b"}}, "no URL of an object store"),
        ({"store": {"url": "file:///x"}, "kubernetes": {"access": True, "enabled": "off"}}, "kubernetes.access"),
        ({"store": {"url": "file:///x"}, "hub": {"database": "mysql://u:secret-word@h/n"}}, "PostgreSQL"),
    ],
)  # fmt: skip
def test_what_is_missing_or_unsafe_is_told_at_the_start(
    tmp_path: Path, config: dict[str, object], words: str
) -> None:
    """One sentence and what to do, without a secret, and an exit code."""
    path = tmp_path / "hub.yaml"
    path.write_text(
        json.dumps({"listen": "127.0.0.1:0", "data": str(tmp_path / "data"), **config})
    )
    done = subprocess.run(
        [sys.executable, "-m", "tripshark", "hub", "--config", str(path), "--json"],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode in (1, 2)
    assert words in " ".join(done.stdout.split()), done
    assert "secret-word" not in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_targets_that_other_machines_can_know() -> None:
    """A capture by hand at the hub is for pods, workloads, services and nodes; what is local to one machine is refused."""
    assert aim_of("payments/checkout").kind is Aimed.POD
    assert aim_of("payments/deployment/checkout").workload == "Deployment"
    assert aim_of("payments/service/checkout").kind is Aimed.SERVICE
    assert aim_of("node:n1").name == "n1"
    for local in ("host", "pid:4", "netns:x", "container:0123", "a/b/c", "/", "node:"):
        with pytest.raises(BadInput):
            aim_of(local)


@requires_root
def test_nothing_outlives_whoever_started_it(hub: Callable[..., HubProcess]) -> None:
    """Killed with -9, the supervisor takes with it also those who became somebody else since."""
    with tempfile.TemporaryDirectory(prefix="ts-hub-") as volume:
        os.chmod(volume, 0o755)
        it = hub(store={"url": f"file://{volume}"})
        started = [
            each
            for each in Path("/proc").glob("[0-9]*")
            if str(it.log.parent).encode() in _cmdline(each)
        ]
        assert len(started) == 3  # supervisor, analyst, hub
        it.kill()
        wait_for(lambda: not any(map(_cmdline, started)), "everybody's end", 20)


def _cmdline(process: Path) -> bytes:
    try:
        return (process / "cmdline").read_bytes()
    except OSError:
        return b""
