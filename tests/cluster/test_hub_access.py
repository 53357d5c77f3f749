"""The real API server decides what readers of a real hub may see, and takes rights away."""

from __future__ import annotations

import json
import os
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.control import Plane
from tests.e2e.machine import wait_for
from tests.hub.conftest import Sender
from tests.hub.process import HubProcess
from tests.store.evidence import seal
from tripshark.store.catalogue import SqlCatalogue
from tripshark.store.fleet import FleetParts
from tripshark.store.objects import Objects

REVIEWS = [
    {"apiGroups": ["authentication.k8s.io"], "resources": ["tokenreviews"], "verbs": ["create"]},
    {
        "apiGroups": ["authorization.k8s.io"],
        "resources": ["subjectaccessreviews"],
        "verbs": ["create"],
    },
]
READING = [{"apiGroups": ["tripshark.dev"], "resources": ["incidents", "evidence"], "verbs": ["get"]}]  # fmt: skip


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that a hub which gave up root can enter."""
    with tempfile.TemporaryDirectory(prefix="ts-hub-") as base:
        os.chmod(base, 0o755)
        yield Path(base)


def _get(hub: HubProcess, path: str, token: str) -> tuple[int, dict[str, object]]:
    request = urllib.request.Request(hub.url + path, headers={"Authorization": f"Bearer {token}"})
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            body = answer.read()
            return answer.status, json.loads(body) if body[:1] == b"{" else {}
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.loads(error.read())


async def test_rights_of_the_cluster_open_and_close_evidence(
    real_api: Plane, folder: Path
) -> None:
    """By token of a service account: its own namespace and no other, nothing for a stranger, and nothing once the right is gone."""
    (folder / "volume").mkdir()
    objects = Objects(f"file://{folder}/volume")
    catalogue = await SqlCatalogue.open(folder / "node" / "catalogue.sqlite")
    node = Sender(folder / "node", "node-1", catalogue, objects)
    with real_api.namespace() as space, real_api.namespace() as other:
        mine = seal(node.vault, 1, namespaces=(space,))
        both = seal(node.vault, 2, namespaces=(space, other))
        await node.outbox.send()
        await catalogue.close()
        for path in (folder / "volume").rglob("*"):
            path.chmod(0o755 if path.is_dir() else 0o644)
        undo_hub = real_api.grant("hub", REVIEWS)  # all that a hub needs of a cluster
        hub = HubProcess(
            folder / "hub",
            store={"url": objects.url},
            hub={"every": "200ms"},
            kubernetes={"access": True, "kubeconfig": str(real_api.user("hub"))},
        ).start()
        try:
            token = (real_api.service_account(space, "reader") / "token").read_text()
            stranger = (real_api.service_account(space, "stranger") / "token").read_text()
            reader = f"system:serviceaccount:{space}:reader"
            undo = real_api.grant(reader, READING, space)
            files = [f"/v1/incidents/{each.id}/evidence.pcapng" for each in (mine, both)]

            def listed(who: str) -> list[str]:
                status, answer = _get(hub, "/v1/incidents", who)
                assert status == 200, answer
                return [str(each["id"]) for each in answer["incidents"]]  # type: ignore[index,call-overload]

            wait_for(lambda: listed(token) == [mine.id], "the reader's incident")
            assert _get(hub, files[0], token)[0] == 200
            status, answer = _get(hub, files[1], token)
            assert status == 403
            assert f"namespace {other}" in str(answer)
            assert listed(stranger) == []
            assert _get(hub, files[0], stranger)[0] == 403
            assert _get(hub, "/v1/incidents", "nobody's")[0] == 401
            undo()
            wait_for(lambda: _get(hub, files[0], token)[0] == 403, "the right to be gone")
            assert listed(token) == []
        finally:
            hub.kill()
            undo_hub()
    told = await SqlCatalogue.open(folder / "hub" / "data" / "hub.sqlite")
    custody = await FleetParts(told).custody(mine.id)
    await told.close()
    assert f"kubernetes:system:serviceaccount:{space}:reader".encode() in custody
    assert b"stranger" not in custody
