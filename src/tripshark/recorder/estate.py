"""What every room of the recorder works on: who is recorded, by which filter, and who is told of what."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable

from tripshark.model.target import TargetKey
from tripshark.recorder.config import RecorderConfig
from tripshark.recorder.filters import Filters
from tripshark.recorder.flowcut import Flows, flows_for
from tripshark.recorder.keeper import Keeper
from tripshark.recorder.loop import Loop
from tripshark.recorder.recorded import Recorded
from tripshark.recorder.ring import Ring

log = logging.getLogger(__name__)


class Estate:
    """Every target, alive or gone. Used by the loop's thread alone."""

    def __init__(self, config: RecorderConfig, loop: Loop, keeper: Keeper) -> None:
        self.config = config
        self.loop = loop
        self.keeper = keeper
        self.filters = Filters(
            bytes.fromhex(config.filter),
            bytes.fromhex(config.filter_raw),
            config.snaplen,
            config.flow_cut,
        )
        self.targets: dict[TargetKey, Recorded] = {}
        self.living: dict[TargetKey, Recorded] = {}
        self.followed: Callable[[Recorded], None] = lambda _: None  # something happened to it
        self._token = secrets.token_hex(4)
        self._number = 0
        self._waiting: dict[TargetKey, list[tuple[Callable[[], bool], Callable[[], None]]]] = {}

    def name(self, kind: str = "") -> str:
        """A name that no target and no ring ever had."""
        self._number += 1
        return f"{self._token}.{kind}{self._number}"

    def add(self, target: Recorded) -> None:
        self.targets[target.key] = target
        if target.alive:
            self.living[target.key] = target

    def died(self, target: Recorded) -> None:
        """It is listed among the dead from now on, the one that died last at the end."""
        self.living.pop(target.key, None)
        self.targets.pop(target.key, None)
        self.targets[target.key] = target

    def remove(self, target: Recorded) -> None:
        """Nothing of it is left."""
        self.targets.pop(target.key, None)
        self.living.pop(target.key, None)
        self.keeper.drop(f"target:{target.key}")

    def keep(self, target: Recorded) -> None:
        """Let the next recorder know of it what we do."""
        self.keeper.put(f"target:{target.key}", target.facts())

    # ---- waiting ----------------------------------------------------------------------------------------

    def when(
        self, target: Recorded, condition: Callable[[], bool], call: Callable[[], None]
    ) -> None:
        """Call once the condition holds: now, or when something of the target's is done."""
        if condition():
            call()
        else:
            self._waiting.setdefault(target.key, []).append((condition, call))

    def done(self, target: Recorded) -> None:
        """Something of the target's is done: whoever waited for it goes on."""
        waiting = self._waiting.pop(target.key, [])
        for condition, call in waiting:
            self.when(target, condition, call)

    # ---- filters ----------------------------------------------------------------------------------------

    def flows(self, target: Recorded) -> Flows | None:
        """Its table of flows, None when none is wanted or to be had."""
        if target.flows is None and self.filters.wants_flows and not target.headers:
            try:
                target.flows = Flows(flows_for(target.quota))
            except OSError as problem:
                log.warning("%s: flows are recorded uncut: %s", target.name, problem)
        return target.flows

    def set_filter(self, target: Recorded, ring: Ring) -> None:
        """The filter in force for a ring that is open already."""
        kind, flows = ring.interface.hardware_type, self.flows(target)
        ring.flow_cut = self.filters.attach(
            ring.sock, kind, flows, headers=target.headers, ring_bytes=ring.shape.bytes
        )
        ring.snaplen = self.filters.keeps(headers=target.headers)
