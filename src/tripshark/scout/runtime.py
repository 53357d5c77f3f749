"""What the scout needs of a container runtime, whichever language it speaks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from tripshark.model.pod import Sandbox

MAX_SANDBOXES = 4096  # of one runtime; a kubelet allows 110 by default
MAX_CONTAINERS = 64  # of one sandbox, the newest


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """Everything a runtime lists now: living sandboxes, and dead ones that it still remembers."""

    sandboxes: tuple[Sandbox, ...]
    unreadable: int = 0  # entries that could not be understood
    left_out: int = 0  # beyond what is looked at


class Runtime(Protocol):
    name: str  # "containerd", "cri-o", "docker", "podman"
    version: str
    protocol: str  # "CRI v1", "Docker API"

    async def look(self) -> Look:
        """Raises `Transient` when it is away, `BadInput` when it cannot be understood."""

    async def find(self, id: str) -> Sandbox | None:
        """The sandbox with this id, or of the container with it; leading digits suffice."""

    async def hints(self, hint: Callable[[], None]) -> None:
        """Call `hint` whenever something may have changed, until the runtime tells no more of it."""

    def close(self) -> None:
        """Leave it."""
