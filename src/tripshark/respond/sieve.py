"""Which packets of a target one plan keeps, and which rung of its ladder turns out to be the right one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tripshark.errors import BadInput
from tripshark.formats import bpf
from tripshark.formats.packets import Packets
from tripshark.model.evidence import Entry
from tripshark.model.filter import Scope
from tripshark.model.plan import Plan

Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Kept:
    """Two masks over the same packets: what the alert is about, and what is kept beside it."""

    core: Mask
    also: Mask

    @property
    def either(self) -> Mask:
        return self.core | self.also


class Sieve:
    """A plan's filters, compiled once per link type."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._programs: dict[tuple[str, int], bpf.Program | None] = {}
        self.entries: list[Entry] = []

    @property
    def widest(self) -> int:
        return len(self._plan.rungs) - 1

    def keep(
        self,
        packets: Packets,
        linktype: int,
        rung: int,
        *,
        until_ns: int,
        also_since_ns: int = 0,
    ) -> Kept:
        """Masks for one rung. Flow and peer reach as far back as the ring does; wider scopes keep to the window."""
        plan, chosen = self._plan, self._plan.rungs[rung]
        inside = packets.time_ns <= until_ns
        core = inside & self._run(self._both(chosen.core), packets, linktype)
        if chosen.scope not in (Scope.FLOW, Scope.PEER):
            core &= packets.time_ns >= plan.t0_ns - plan.before_ns
        if chosen.also:
            also = inside & self._run(self._both(chosen.also), packets, linktype)
            also &= packets.time_ns >= also_since_ns
        else:
            also = np.zeros(len(packets), dtype=np.bool_)
        return Kept(core, also)

    def matches(self, packets: Packets, linktype: int, rung: int, *, until_ns: int) -> bool:
        """Whether what the alert is about is in there at all."""
        return bool(self.keep(packets, linktype, rung, until_ns=until_ns).core.any())

    def mask(self, expression: str, packets: Packets, linktype: int) -> Mask:
        """A plain expression, for counting."""
        return self._run(expression, packets, linktype)

    def _both(self, expression: str) -> str:
        user = self._plan.user_filter
        if not user:
            return expression
        return f"({expression}) and ({user})" if expression else user

    def _run(self, expression: str, packets: Packets, linktype: int) -> Mask:
        if not expression:
            return np.ones(len(packets), dtype=np.bool_)
        key = (expression, linktype)
        if key not in self._programs:
            self._programs[key] = self._compile(expression, linktype)
        program = self._programs[key]
        if program is None:
            return np.ones(len(packets), dtype=np.bool_)
        return bpf.run(program, packets)

    def _compile(self, expression: str, linktype: int) -> bpf.Program | None:
        """A filter that has no meaning on this link (`ether host` on a tunnel) keeps everything, and says so."""
        try:
            return bpf.compile(expression, linktype)
        except BadInput as problem:
            self.entries.append(
                Entry(
                    kind="filter",
                    message=f"the filter cannot be used on link type {linktype} "
                    f"({problem.message}); everything on such interfaces was kept",
                )
            )
            return None
