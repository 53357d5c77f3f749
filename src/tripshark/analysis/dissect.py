"""One tshark pass over one sealed file gives findings, a second bears them out: child, decoder, gatherer, claims,
checker and prose put together.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from tripshark.analysis.check import accept, examine, settle
from tripshark.analysis.child import Ended, run
from tripshark.analysis.claims import conclude, numbered
from tripshark.analysis.gather import Gatherer
from tripshark.analysis.objects import carried
from tripshark.analysis.prose import summary
from tripshark.analysis.sandbox import Policy
from tripshark.errors import BadInput, Permanent, TripsharkError
from tripshark.formats import tshark
from tripshark.formats.tshark import Frame
from tripshark.formats.tshark_fields import ARGUMENTS, WHOLE_HTTP
from tripshark.model.files import CarriedFile
from tripshark.model.finding import Findings, Question
from tripshark.model.text import printable

PLACES = ("/usr/local/bin/tshark", "/usr/bin/tshark", "/bin/tshark")
HINT = "install it: apt-get install tshark"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """Where one analysis ends, whatever the file is."""

    policy: Policy = field(default_factory=Policy)
    wall_s: float = 120.0
    output_bytes: int = 2 << 30  # streamed, never held


def find_tshark() -> str:
    """Its path. Raises `Permanent` when it is not installed."""
    for place in PLACES:
        if Path(place).is_file():
            return place
    raise Permanent("tshark is not installed", where="analyst", hint=HINT)


async def version(program: str, empty: int, bounds: Bounds) -> tuple[str, tuple[str, ...]]:
    """`TShark 4.0.17` and the layers of the sandbox it ran in. `empty` is any readable descriptor."""
    said = bytearray()
    ended = await run(
        [program, "--version"],
        evidence=empty,
        policy=bounds.policy,
        wall_s=min(bounds.wall_s, 30.0),
        max_output=64 << 10,
        take=said.extend,
    )
    try:
        return tshark.version(bytes(said)), ended.layers
    except BadInput as problem:
        why = printable(tshark.complaint(ended.stderr) or _how(ended, bounds))
        raise Permanent(f"tshark does not run here: {why}", where=program, hint=HINT) from problem


async def dissect(
    evidence: int,
    question: Question,
    *,
    program: str,
    tool: str,
    bounds: Bounds,
    apart: bool,
) -> Findings:
    """Findings about the pcapng or pcap file open as `evidence`. `apart`: we are not the asker's user.

    A file that tshark cannot read to its end gives findings up to there and a note. Raises `Permanent` when
    there is nothing to tell, `Transient` when another try may work.
    """
    if not os.fstat(evidence).st_size:
        raise Permanent("the file is empty", where="analyst")
    gatherer = Gatherer(question)
    lines = Lines(gatherer.add)
    ended, files, about_files = await _read(
        lines, gatherer, evidence, program=program, bounds=bounds
    )
    complete = ended.code == 0 and not ended.stopped
    notes = []
    if not complete:
        said = tshark.complaint(ended.stderr)
        why = printable(f"{_how(ended, bounds)}{f': {said}' if said else ''}")
        if not lines.rows:
            raise Permanent(f"tshark could not read the file: {why}", where="analyst")
        notes.append(why)
    if lines.unread:
        notes.append(f"{lines.unread} of tshark's lines could not be read")
    layers = ("uid", *ended.layers) if apart else ended.layers
    findings = gatherer.findings(
        tool=tool, sandbox=layers, complete=complete, notes=(*notes, *about_files)
    )
    findings = replace(
        findings,
        files=tuple(each.row() for each in files),
        findings=conclude(gatherer, files),
    )
    findings = await _borne_out(findings, evidence, program=program, bounds=bounds)
    return replace(findings, summary=summary(findings, question))


async def _read(
    lines: Lines, gatherer: Gatherer, evidence: int, *, program: str, bounds: Bounds
) -> tuple[Ended, tuple[CarriedFile, ...], tuple[str, ...]]:
    """The pass over all packets; as soon as one may carry a file, files are looked for beside it."""
    files: tuple[CarriedFile, ...] = ()
    notes: tuple[str, ...] = ()
    ended: Ended | TripsharkError

    async def look() -> None:
        nonlocal files, notes
        await lines.carrying.wait()
        files, about_files = await carried(evidence, bounds.policy)
        notes += about_files

    async with asyncio.TaskGroup() as beside:
        looking = beside.create_task(look())
        try:
            ended = await run(
                [program, *ARGUMENTS],
                evidence=evidence,
                policy=bounds.policy,
                wall_s=bounds.wall_s,
                max_output=bounds.output_bytes,
                take=lines.take,
            )
            lines.end()
            if gatherer.said.bodies:
                notes += await _again(gatherer, evidence, program=program, bounds=bounds)
        except TripsharkError as problem:  # a group would wrap it
            ended = problem
        if isinstance(ended, TripsharkError) or not lines.carrying.is_set():
            looking.cancel()
    if isinstance(ended, TripsharkError):
        raise ended
    return ended, files, notes


async def _again(
    gatherer: Gatherer, evidence: int, *, program: str, bounds: Bounds
) -> tuple[str, ...]:
    """HTTP once more, where bodies kept something from the first pass; a note where that did not go to its end."""
    lines = Lines(gatherer.again)
    ended = await run(
        [program, *WHOLE_HTTP],
        evidence=evidence,
        policy=bounds.policy,
        wall_s=bounds.wall_s,
        max_output=bounds.output_bytes,
        take=lines.take,
    )
    lines.end()
    gatherer.said.http.order()
    if ended.code == 0 and not ended.stopped:
        return ()
    return (f"HTTP answers and forms may be missing: {_how(ended, bounds)}",)


async def _borne_out(
    findings: Findings, evidence: int, *, program: str, bounds: Bounds
) -> Findings:
    """Checked findings. One claim that does not hold, or cannot be checked, costs them all; the tables stay."""
    try:
        verdict = await examine(
            evidence, findings, program=program, policy=bounds.policy, wall_s=bounds.wall_s
        )
        held = accept(settle(findings, verdict), verdict)
        return replace(held, findings=numbered(held.findings))
    except Permanent as problem:
        why = printable(f"{problem.message}; nothing is claimed, the tables stand")
        return replace(findings, findings=(), notes=(*findings.notes, why))


class Lines:
    """Cuts tshark's output into lines and feeds the frames on; a line beyond the bound is counted, not kept."""

    def __init__(self, add: Callable[[Frame], None]) -> None:
        self._add = add
        self._rest = bytearray()
        self._skipping = False
        self.rows = 0  # frames, packets or not
        self.unread = 0
        self.carrying = asyncio.Event()  # a packet may carry a file

    def take(self, chunk: bytes) -> None:
        """The next piece of output."""
        first, newline, others = chunk.partition(b"\n")
        self._keep(first)
        if not newline:
            return
        self.end()
        lines = others.split(b"\n")
        for line in lines[:-1]:
            self._decode(line)
        self._keep(lines[-1])

    def end(self) -> None:
        """What is held is a whole line now."""
        line = bytes(self._rest)
        self._rest.clear()
        if not self._skipping:
            self._decode(line)
        self._skipping = False

    def _keep(self, piece: bytes) -> None:
        if self._skipping:
            return
        self._rest += piece
        if len(self._rest) > tshark.MAX_LINE:
            self._rest.clear()
            self._skipping = True
            self.unread += 1

    def _decode(self, line: bytes) -> None:
        try:
            frame = tshark.decode(line)
        except BadInput:
            self.unread += 1
            return
        if frame is not None:
            self.rows += 1
            self._add(frame)
            if frame.carries:
                self.carrying.set()


def _how(ended: Ended, bounds: Bounds) -> str:
    if ended.stopped == "time":
        return f"tshark was stopped after {bounds.wall_s:g} s"
    if ended.stopped == "output":
        return f"tshark was stopped after {bounds.output_bytes:,} bytes of output"
    if ended.code >= 0:
        return f"tshark ended with exit code {ended.code}"
    try:
        name = signal.Signals(-ended.code).name
    except ValueError:
        name = str(-ended.code)
    more = " (CPU limit)" if name == "SIGXCPU" else ""
    return f"tshark was ended by {name}{more}"
