"""The pods that other tests stand on are real, and nothing of them is left behind."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.containers.runtime import Containerd, start_containerd, why_not

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(bool(why_not()), reason=why_not() or "-"),
]


def test_two_pods_talk_over_the_bridge(containerd: Containerd) -> None:
    """Each has its namespace, its address and a process; one fetches a page from the other."""
    page = ["/bin/httpd", "-f", "-p", "8080", "-h", "/www"]
    with (
        containerd.pod("web", "shop", argv=page) as web,
        containerd.pod("client", "shop") as client,
    ):
        assert {os.stat(f"/proc/{pid}/ns/net").st_ino for pid in web.pids} == {web.inode}
        said = containerd.exec(client, ["/bin/wget", "-q", "-O", "-", f"http://{web.ip}:8080/"])
        assert (said.code, said.stdout) == (0, "hello from pod\n")


def test_nothing_is_left() -> None:
    """Processes, mounts, bridge, namespaces and folder are gone with the runtime; a pod outlives its restart."""
    with start_containerd() as mine:
        pod = mine.run_pod("left", "shop")
        host = mine.run_pod("host", "shop", host_network=True)
        mine.restart()
        assert mine.exec(pod, ["/bin/echo", "alive"]).stdout == "alive\n"
        assert host.ip == host.netns == ""
        folder, bridge = mine.folder, mine.bridge
    assert not folder.exists()
    assert str(folder) not in Path("/proc/mounts").read_text()
    assert not Path(pod.netns).exists()
    assert not any(Path(f"/proc/{pid}").exists() for pid in pod.pids + host.pids)
    assert subprocess.run(["ip", "link", "show", bridge], capture_output=True).returncode != 0
