"""A Podman of a test leaves nothing behind either."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.containers.podman import start_podman, why_not_podman


@pytest.mark.root
@pytest.mark.skipif(bool(why_not_podman()), reason=why_not_podman() or "-")
def test_nothing_is_left() -> None:
    """Containers that depend on each other end as well; folder, mounts and namespaces are gone."""
    with start_podman() as mine:
        mine.run("web")
        mine.run("joined", "--network", "container:web")
        pids = [int(mine("inspect", "-f", "{{.State.Pid}}", name)) for name in ("web", "joined")]
        netns = mine("inspect", "-f", "{{.NetworkSettings.SandboxKey}}", "web")
        assert Path(netns).exists()
        folder = mine.folder
    assert not folder.exists()
    assert str(folder) not in Path("/proc/mounts").read_text()
    assert not Path(netns).exists()
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
