"""The scout at runtimes that answer otherwise than containerd does: CRI-O, cri-dockerd, old ones, and crowds."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.containers.cri import message
from tests.scout.conftest import Process, connected, runtime, sandbox, until
from tests.scout.fake_cri import FakeCri, fake_cri

Start = Callable[..., Process]
POD, MAIN, OTHER = (digit * 64 for digit in "abc")
HERE = os.stat("/proc/self/ns/net").st_ino


@pytest.fixture
def crio(tmp_path: Path) -> Iterator[FakeCri]:
    with fake_cri(str(tmp_path / "crio.sock")) as made:
        yield made


async def test_a_sandbox_without_a_process_is_known_by_its_containers(
    crio: FakeCri, start: Start
) -> None:
    """CRI-O runs no pause by default: the namespace is that of the container's process."""
    crio.add(POD, "checkout", info=json.dumps({"runtimeSpec": {"ociVersion": "1.0.0"}}))
    crio.contain(
        POD, MAIN, info=json.dumps({"sandboxID": POD, "pid": os.getpid(), "runtimeSpec": {}})
    )
    async with connected(start(crio.path)) as client:
        found = await sandbox(client, "checkout")
        assert (found.runtime, found.namespace, found.uid) == ("cri-o", "shop", "uid-checkout")
        assert (found.inode, found.pid) == (HERE, os.getpid())
        assert found.containers[0].digest == "sha256:" + "cd" * 32
        told = await runtime(client, crio.path, lambda each: each["state"] == "followed")
        assert (told["version"], told["protocol"], told["events"]) == ("1.28.2", "CRI v1", False)


STRANGE = (
    None,
    "",
    "no json",
    "[]",
    '{"pid": "7", "runtimeSpec": null}',
    '{"pid": -1}',
    "[" * 5000,
)


async def test_what_verbose_adds_may_be_anything(crio: FakeCri, start: Start) -> None:
    """Identity comes without it; the namespace is not known then, and that is said."""
    for n, info in enumerate(STRANGE):
        crio.add(f"{n}a" * 32, f"plain{n}", info=info)
        crio.contain(f"{n}a" * 32, f"{n}b" * 32, info=info)
    async with connected(start(crio.path)) as client:
        for n in range(len(STRANGE)):
            found = await sandbox(client, f"plain{n}")
            assert (found.inode, found.pid, found.containers[0].pid) == (0, 0, 0)
            by_id = await client.find((f"{n}b" * 32)[:12])
            assert by_id is not None
            assert by_id.pod == f"plain{n}"


async def test_containerd_2_names_the_namespace_elsewhere(crio: FakeCri, start: Start) -> None:
    """Its metadata, where there is no specification of a pause."""
    info = {"pid": 0, "runtimeSpec": None, "metadata": {"NetNSPath": "/proc/self/ns/net"}}
    crio.add(POD, "two", info=json.dumps(info))
    async with connected(start(crio.path)) as client:
        found = await sandbox(client, "two")
        assert (found.netns, found.inode) == ("/proc/self/ns/net", HERE)


async def test_an_old_runtime_is_asked_in_its_own_version(tmp_path: Path, start: Start) -> None:
    """v1alpha2, as before Kubernetes 1.23."""
    with fake_cri(str(tmp_path / "old.sock"), version="v1alpha2", name="containerd") as old:
        old.add(POD, "ancient")
        async with connected(start(old.path)) as client:
            assert (await sandbox(client, "ancient")).runtime == "containerd"
            told = await runtime(client, old.path, lambda each: each["state"] == "followed")
            assert told["protocol"] == "CRI v1alpha2"


async def test_one_bad_pod_spoils_no_other(crio: FakeCri, start: Start) -> None:
    """A label that is no UTF-8, an entry that is no message, a status that is cut short: counted, left out."""
    crio.add(POD, "good")
    crio.add(OTHER, "bad", label_bytes=message(f7=message(f1=b"\xff\xfe", f2="x")))
    crio.add("d" * 64, "cut")
    crio.statuses["d" * 64] = crio.statuses["d" * 64][:-3]
    crio.pods.append(b"\xff\xff\xff")
    crio.containers.append(b"\x0a\x05x")
    async with connected(start(crio.path)) as client:
        await sandbox(client, "good")
        told = await runtime(client, crio.path, lambda each: each["unreadable"])
        assert told["unreadable"] == 4
        assert [each.pod for each in await client.sandboxes()] == ["good"]


async def test_a_sandbox_that_is_being_made_is_neither_dead_nor_twice_there(
    crio: FakeCri, start: Start
) -> None:
    """Listed as not ready at first, it lives once it is ready."""
    crio.add(POD, "coming", state=1, created_ns=time.time_ns())
    async with connected(start(crio.path)) as client:
        await sandbox(client, "coming", lambda each: not each.gone_ns)
        crio.pods.clear()
        crio.add(POD, "coming", info=json.dumps({"pid": os.getpid()}), created_ns=time.time_ns())
        await sandbox(client, "coming", lambda each: each.inode == HERE)
        assert len(await client.sandboxes()) == 1


async def test_crowds_are_told_in_portions(crio: FakeCri, start: Start) -> None:
    """Hundreds of pods with long labels are more than one message, and all arrive."""
    labels = {f"label{n}": "x" * 900 for n in range(16)}
    for n in range(350):
        crio.add(f"{n:064x}", f"p{n}", labels=labels)
    async with connected(start(crio.path)) as client:

        async def all_of_them() -> bool:
            return (await client.state())["sandboxes"] == 350

        await until(all_of_them)
        found = await client.sandboxes()
        assert {each.pod for each in found} == {f"p{n}" for n in range(350)}
        assert all(len(each.labels) == 16 for each in found)


async def test_an_endless_answer_is_refused(crio: FakeCri, start: Start) -> None:
    """A list beyond what is believed is an error, not memory."""
    crio.answers["ListPodSandbox"] = message(f1=b"\x0a\x01x" * 9_000_000)
    process = start(crio.path)
    async with connected(process) as client:
        told = await runtime(client, crio.path, lambda each: each["state"] == "failing")
        assert "too long" in str(told["error"])
        peak = next(
            int(line.split()[1])
            for line in Path(f"/proc/{process.child.pid}/status").read_text().splitlines()
            if line.startswith("VmHWM")
        )
        assert peak < 80_000
