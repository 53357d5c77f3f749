"""Turns one pass over the packets into findings: conversations, names, what was said, and the alert's flow.

What is told of one packet is said in `Frame`; each part of the picture has a module of its own (`talks`, `resolved`,
`said`). Memory is bounded whatever the packets are: what no longer fits is counted and said.
"""

from __future__ import annotations

from tripshark.analysis.resolved import Resolved
from tripshark.analysis.said import Said
from tripshark.analysis.talks import Talk, Talks
from tripshark.analysis.wanted import Wanted, address_or_none
from tripshark.formats.tshark import Frame
from tripshark.model.conversation import Conversation
from tripshark.model.finding import Findings
from tripshark.model.question import Question

_LATE_NS = 1_000_000_000  # a flow that began up to this long after T0 can still be the alert's


class Gatherer:
    """Takes frames in file order, then answers once."""

    def __init__(self, question: Question) -> None:
        self.question = question
        self.own = {address_or_none(each) for each in question.addresses} - {None}
        self.wanted = [each for each in map(Wanted.of, question.connections) if each]
        self.talks = Talks(self.own, lambda frame: any(each.is_met(frame) for each in self.wanted))
        self.resolved = Resolved()
        self.said = Said()
        self.first_ns = self.last_ns = 0
        self.packets = 0  # counted so far
        self._other = 0

    def add(self, frame: Frame) -> None:
        """Count one packet in. Rows that are no packets (alerts) are passed over."""
        if not frame.is_packet:
            return
        if not self.packets or frame.time_ns < self.first_ns:
            self.first_ns = frame.time_ns
        self.last_ns = max(self.last_ns, frame.time_ns)
        self.packets += 1
        if not frame.src:
            self._other += 1
            return
        self.talks.add(frame)
        if frame.dns:
            self.resolved.add(frame)
        self.said.add(frame)

    def again(self, frame: Frame) -> None:
        """One packet of HTTP from the pass that puts its messages together (`Said.again`)."""
        if frame.is_packet and frame.src:
            self.said.again(frame)

    def name_of(self, address: str) -> str:
        """The cluster's own name first; a DNS name is only what somebody's server said."""
        return self.question.names.get(address) or self.resolved.names.get(address) or ""

    def findings(
        self,
        *,
        tool: str,
        sandbox: tuple[str, ...],
        complete: bool = True,
        notes: tuple[str, ...] = (),
    ) -> Findings:
        """Everything learnt, without claims and summary."""
        kept, talks = self.talks.kept(), self.talks
        named = self.named()
        notes += talks.notes()
        before = self.question.t0_ns - self.first_ns if self.packets else 0
        return Findings(
            manifest_sha256=self.question.manifest_sha256,
            tool=tool,
            sandbox=sandbox,
            packets=self.packets,
            other_packets=self._other,
            first_ns=self.first_ns,
            last_ns=self.last_ns,
            conversations=kept,
            endpoints=talks.endpoints(self.name_of),
            dns=self.resolved.table.rows,
            tls=self.said.tls.rows,
            http=self.said.http.rows,
            ssh=self.said.ssh.rows,
            icmp=self.said.icmp.rows,
            credentials=self.said.credentials.rows,
            experts=self.said.experts.rows,
            activity=talks.activity.told(),
            names=dict(self.resolved.names),
            flow_captured=talks.named_seen if self.wanted else None,
            flow=None if named is None else self.conversation(named),
            seconds_before_alert=round(before / 1e9, 6),
            truncated=self.resolved.truncated
            or self.resolved.table.full
            or self.said.full
            or bool(talks.untracked)
            or talks.cut
            or len(kept) < len(talks.talks),
            complete=complete,
            notes=notes,
        )

    def conversation(self, talk: Talk) -> Conversation:
        """As it is told, with the target's side first."""
        return talk.conversation(self.own)

    def named(self) -> Talk | None:
        """The named conversation that began last before the alert, else the first that began after it."""
        named = [talk for talk in self.talks.talks.values() if talk.named]
        if not named:
            return None
        edge = self.question.t0_ns + _LATE_NS
        before = [talk for talk in named if talk.first.time_ns <= edge]
        if before:
            return max(before, key=lambda talk: talk.first.time_ns)
        return min(named, key=lambda talk: talk.first.time_ns)
