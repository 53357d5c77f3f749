"""What is removed from a node and when, and what stays to be known of it."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import structlog

from tripshark.model import retention
from tripshark.model.incident import State
from tripshark.ports import Clock
from tripshark.programs import parts
from tripshark.settings import Settings
from tripshark.store.catalogue import SqlCatalogue
from tripshark.store.outbox import Outbox
from tripshark.store.vault import FolderVault

log = structlog.get_logger("tripshark.node")


async def retain(
    settings: Settings,
    catalogue: SqlCatalogue,
    vault: FolderVault,
    clock: Clock,
    outbox: Outbox | None,
) -> None:
    """Remove what is too old, or too much; the record stays, and a legal hold is respected."""
    kept, drafts = await asyncio.to_thread(lambda: (vault.kept(), vault.draft_bytes()))
    if outbox is not None:
        kept = await outbox.kept(kept)
    unsent = {each.incident for each in kept if each.unsent}
    for removal in retention.overdue(
        kept,
        now_ns=clock.now_ns(),
        budget=parts.disk_budget(settings),
        other_bytes=drafts,
    ):
        await asyncio.to_thread(vault.remove, removal.incident, removal.why)
        if outbox is not None and removal.incident in unsent:
            outbox.note_lost(removal.incident, removal.why)
        known = await catalogue.incident(removal.incident)
        if known is not None:
            removed = replace(known, state=State.REMOVED, problem=removal.why)
            await catalogue.put(incidents=[removed])
        log.info("removed", incident=removal.incident, why=removal.why)
    await forget(settings, catalogue, clock.now_ns())


async def forget(settings: Settings, catalogue: SqlCatalogue, now_ns: int) -> int:
    """Records without evidence that are older than `bounds.remember` go, some at a time; how many went."""
    if not settings.bounds.remember:
        return 0
    return await catalogue.prune(before_ns=now_ns - round(settings.bounds.remember * parts.SECOND))
