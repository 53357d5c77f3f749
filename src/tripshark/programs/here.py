"""Who is recorded on this machine, for commands: asked of the recorder, and of the scout where one runs."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from contextlib import contextmanager

from tripshark.programs import parts
from tripshark.programs.clock import SystemClock
from tripshark.recorder.client import RecorderClient
from tripshark.scout.client import ScoutClient
from tripshark.settings import Settings
from tripshark.targets.local import LocalTargets


@contextmanager
def local_targets(settings: Settings) -> Iterator[tuple[RecorderClient, LocalTargets]]:
    """The recorder of this machine, and its targets with their names. What the cluster knows is left to the service."""
    recorder = RecorderClient(str(settings.recorder_socket))
    scout = (
        ScoutClient(str(settings.scout_socket))
        if settings.containers.enabled != "off" and settings.scout_socket.exists()
        else None
    )
    try:
        yield (
            recorder,
            LocalTargets(
                recorder,
                parts.residents(settings),
                SystemClock(),
                node=parts.node_name(settings, platform.node()),
                runtime=scout,
                policy=parts.policy(settings),
            ),
        )
    finally:
        recorder.close()
        if scout is not None:
            scout.close()
