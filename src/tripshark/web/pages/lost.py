"""What may be lost or is away right now, for the top of a page."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from tripshark.errors import TripsharkError
from tripshark.model.target import Target
from tripshark.web.health import CHECK_SECONDS, warnings
from tripshark.web.parts import Parts


async def targets_now(parts: Parts) -> tuple[Sequence[Target], str]:
    """What is recorded, and "" or why nobody knows."""
    try:
        async with asyncio.timeout(CHECK_SECONDS):
            return await parts.targets.all(), ""
    except TripsharkError as error:
        return (), str(error)
    except TimeoutError:
        return (), "the recorder does not answer"


async def problems(parts: Parts, away: str, *, everything: bool) -> tuple[str, ...]:
    """In words, the gravest first; who may not see everything is told only that the recorder is away."""
    said = [away] if away else []
    if everything:
        said += [journal] if (journal := parts.journal().problem) else []
        said += parts.upstream(parts.clock.now_ns()).problems()
        said += await warnings(parts)
    return tuple(said)
