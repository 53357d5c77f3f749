"""How a program looks at packets: through its analyst, within the bounds of the settings."""

from __future__ import annotations

from tripshark.analysis.sessions import Sessions
from tripshark.settings import Settings


def sessions_of(settings: Settings) -> Sessions:
    """To be closed by whoever asked."""
    given = settings.reading
    return Sessions(
        str(settings.analyst_socket),
        most=given.sessions,
        idle_s=given.idle,
        whole_bytes=given.whole,
        window_bytes=min(given.window, given.whole),
        memory_bytes=given.memory,
    )
