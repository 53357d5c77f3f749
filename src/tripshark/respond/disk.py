"""Whether one more capture fits on the disk, next to what is promised to those that run."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from tripshark.model.plan import Plan, Refusal
from tripshark.model.retention import Budget, room
from tripshark.ports import Vault
from tripshark.respond.incidents import Incidents

ASK_AGAIN_NS = 1_000_000_000  # an answer of the disk this young is used again


class Disk:
    """The vault's disk as the responder counts on it."""

    def __init__(self, vault: Vault, budget: Budget, incidents: Incidents) -> None:
        self._vault = vault
        self._budget = budget
        self._incidents = incidents
        self._state = (0, 0)  # used, free
        self._asked_ns = 0

    async def has_room(self, plan: Plan, now_ns: int) -> Refusal | None:
        """A capture needs its bytes twice while it is sealed: as spool and as final file."""
        if now_ns - self._asked_ns > ASK_AGAIN_NS:
            self._state = await asyncio.to_thread(
                lambda: (self._vault.used_bytes(), self._vault.free_bytes())
            )
            self._asked_ns = now_ns
        used, free = self._state
        promised = sum(
            2 * capture.state.plan.limits.max_bytes
            for opened in self._incidents.by_id.values()
            for capture in opened.captures.values()
        )
        refusal = room(
            2 * plan.limits.max_bytes,
            budget=self._budget,
            used_bytes=used,
            free_bytes=free,
            promised_bytes=promised,
        )
        return refusal and replace(refusal, rule=plan.rule)
