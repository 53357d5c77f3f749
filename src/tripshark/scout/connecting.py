"""What it means when a runtime's socket cannot be connected to."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from tripshark.errors import Denied, Transient

CONNECT_S = 2.0


@contextlib.asynccontextmanager
async def connecting(path: str) -> AsyncIterator[None]:
    """Raises `Denied` when we may not connect, `Transient` when nobody listens or takes the connection in time."""
    try:
        async with asyncio.timeout(CONNECT_S):
            yield
    except PermissionError as problem:
        raise Denied("the socket is not ours to open", where=path) from problem
    except TimeoutError as problem:
        raise Transient("nobody takes the connection", where=path) from problem
    except OSError as problem:
        raise Transient(f"nobody listens: {problem.strerror}", where=path) from problem
