"""One capture file open in a warm, sandboxed sharkd: from a descriptor to answers about its packets.

sharkd opens its file by a path, and neither its user nor its sandbox lets it open one. So the file is copied into
memory that has no name anywhere, whole or a window of it, and is sharkd's descriptor 4 (`memory`).
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from tripshark.analysis import answers, sharkd
from tripshark.analysis.answers import Refused
from tripshark.analysis.memory import Facts
from tripshark.analysis.sandbox import Policy
from tripshark.analysis.sharkd import (
    Check,
    Complete,
    Follow,
    Intervals,
    Packet,
    Page,
    Request,
    Tap,
)
from tripshark.analysis.warm import Line, Warm
from tripshark.errors import BadInput, NotFound, Permanent, Transient
from tripshark.model.alert import Json

PLACES: Final = ("/usr/local/bin/sharkd", "/usr/bin/sharkd", "/bin/sharkd")
HINT: Final = "install it: apt-get install wireshark-common"

_FILE: Final = 4  # the descriptor of the file in the child
_LOAD_S: Final = 120.0
_ANSWER_S: Final = 45.0
_QUICK_S: Final = 10.0
_MOST_ANSWER: Final = 24 << 20
_MOST_STREAM: Final = 4 << 20  # bytes of a followed stream
_LONGEST_MS: Final = 2_000_000_000
_SETTINGS: Final = (
    ("nameres.network_name", "TRUE"),  # of the file's own name blocks
    ("nameres.use_external_name_resolver", "FALSE"),
    (
        "nameres.dns_pkt_addr_resolution",
        "FALSE",
    ),  # whoever answers DNS could call himself anything
    ("http.decompress_body", "FALSE"),  # 50 kB that become 50 MB would cost half a minute
)


def find_sharkd() -> str:
    """Its path. Raises `Permanent` when it is not installed."""
    for place in PLACES:
        if Path(place).is_file():
            return place
    raise Permanent("sharkd is not installed", where="analyst", hint=HINT)


class Session:
    """A file that is being read. One request at a time; `close` ends it."""

    def __init__(self, child: Warm, facts: Facts) -> None:
        self._child = child
        self.facts = facts
        self._number = 0
        self._matched: tuple[str, int] = ("", 0)

    @property
    def pid(self) -> int:
        return self._child.pid

    @property
    def output(self) -> int:
        """The descriptor on which it answers; readable between two requests only when it has ended."""
        return self._child.output

    @property
    def layers(self) -> tuple[str, ...]:
        return self._child.layers

    @classmethod
    async def load(cls, memory: int, facts: Facts | None, *, policy: Policy) -> Session:
        """A session over the file in `memory`, which stays the caller's to close. `facts` where it is a window.

        Raises `Permanent` when sharkd is missing or cannot read it, `Transient` when another try may work.
        """
        child = await Warm.start([find_sharkd(), "-"], files=(memory,), policy=policy)
        self = cls(child, facts or Facts(frames=0, first_ns=0, last_ns=0))
        try:
            try:
                for name, value in _SETTINGS:
                    await self._ask("setconf", {"name": name, "value": value}, wall_s=_LOAD_S)
                frames = await self._load()
            except Refused as problem:
                raise Permanent(
                    f"sharkd cannot read this file: {problem.said}", where="analyst"
                ) from problem
            self.facts = facts or await self._whole(frames)
        except BaseException:
            child.close()
            raise
        return self

    async def _load(self) -> int:
        """How many frames there are.

        Of a file that is torn 4.0 reads what is whole and answers nothing at all: so `status` is asked right behind
        `load`, and whichever answer comes first tells.
        """
        load, status = self._next(), self._next()
        lines = (
            sharkd.told(load, "load", {"file": f"/proc/self/fd/{_FILE}"}),
            sharkd.told(status, "status", {}),
        )
        said = await self._child.ask(b"\n".join(lines), wall_s=_LOAD_S, most=_MOST_ANSWER)
        if answers.id_of(said.raw) != status:
            self._read(said, load)
            said = await self._child.ask(b"", wall_s=_QUICK_S, most=_MOST_ANSWER)
        answer = self._read(said, status)
        frames = answers.number(answer.get("frames")) if isinstance(answer, dict) else 0
        if not frames:
            raise Permanent("sharkd finds no packet in this file", where="analyst")
        return frames

    async def _whole(self, frames: int) -> Facts:
        facts = Facts(frames=frames, first_ns=0, last_ns=0, looked_at=frames)
        ends = []
        for skip in (0, frames - 1):
            one: dict[str, Json] = {"limit": 1, **({"skip": skip} if skip else {})}
            answer = await self._ask("frames", {**one, **sharkd.beside()}, wall_s=_QUICK_S)
            ends.append(answers.time_of(answer))
        return replace(facts, first_ns=ends[0], last_ns=ends[1])

    def close(self) -> None:
        self._child.close()

    @property
    def is_gone(self) -> bool:
        return self._child.is_gone

    async def answer(self, asked: Request) -> dict[str, Json]:
        """Raises `BadInput` with sharkd's words, `NotFound`, `Permanent`, `Transient`."""
        try:
            match asked:
                case Page():
                    return await self._page(asked)
                case Packet():
                    return await self._packet(asked.number)
                case Check():
                    return await self._check(asked.filter)
                case Complete():
                    found = await self._ask("complete", {"field": asked.prefix}, wall_s=_QUICK_S)
                    return {"fields": answers.fields(found)}
                case Intervals():
                    return await self._intervals(asked)
                case Follow():
                    return await self._follow(asked)
                case Tap():
                    return await self._tap(asked)
        except Refused as problem:
            raise Permanent(f"sharkd refused this: {problem.said}", where="analyst") from problem

    async def _page(self, asked: Page) -> dict[str, Json]:
        filter, matched = await self._filtered(asked.filter)
        skip = asked.skip + (0 if asked.filter else self.facts.before)
        page: dict[str, Json] = {"limit": asked.limit}
        if skip:
            page["skip"] = skip
        if filter and asked.filter:
            page["filter"] = filter
        plain = await self._ask("frames", page)
        further = await self._ask("frames", {**page, **sharkd.beside()})
        rows = answers.rows(plain, further, first_ns=self.facts.first_ns, limit=asked.limit)
        return {
            "columns": list(sharkd.COLUMNS),
            "frames": list(rows),
            "total": self.facts.frames,
            "matched": matched,
        }

    async def _packet(self, number: int) -> dict[str, Json]:
        facts = self.facts
        if not facts.before < number <= facts.before + facts.looked_at:
            raise NotFound(
                f"no packet has the number {number} here",
                where=f"frame {number}",
                hint=f"there are {facts.before + 1} to {facts.before + facts.looked_at}",
            )
        answer = await self._ask("frame", {"frame": number, "proto": True, "bytes": True})
        return answers.packet(answer, number)

    async def _check(self, filter: str) -> dict[str, Json]:
        try:
            answer = await self._ask("check", {"filter": filter}, wall_s=_QUICK_S)
        except Refused as problem:
            return {"ok": False, "message": problem.said, "warning": ""}
        warning = answers.words(answer.get("warn"), 500) if isinstance(answer, dict) else ""
        return {"ok": True, "message": "", "warning": warning or self._shaky(filter)}

    def _shaky(self, filter: str) -> str:
        """What is not the same in a window as in the whole file."""
        if self.facts.window is not None and ".stream" in filter:
            return (
                "Streams are numbered from the beginning of this window: "
                "the whole file has other numbers."
            )
        return ""

    async def _filtered(self, filter: str) -> tuple[str, int]:
        """The filter as sharkd is told it, and how many frames it shows. Raises `BadInput` with sharkd's words."""
        facts = self.facts
        if not filter:
            return self._inside(""), facts.looked_at
        checked = await self._check(filter)
        if not checked["ok"]:
            raise BadInput(str(checked["message"]), where="filter", hint=filter[:200])
        inside = self._inside(filter)
        if self._matched[0] != filter:
            longest: dict[str, Json] = {"interval": _LONGEST_MS, "filter": inside}
            count = answers.counted(await self._ask("intervals", longest))
            self._matched = (filter, count)
        return inside, self._matched[1]

    def _inside(self, filter: str) -> str:
        """Of a window the frames before it are there too, empty, so that numbers are those of the whole file."""
        if not self.facts.before:
            return filter
        inside = f"frame.number > {self.facts.before}"
        return f"{inside} && ({filter})" if filter else inside

    async def _intervals(self, asked: Intervals) -> dict[str, Json]:
        facts = self.facts
        span_ms = max(1, (facts.last_ns - facts.first_ns) // 1_000_000 + 1)
        step = max(asked.step_ms or -(-span_ms // 600), -(-span_ms // sharkd.MAX_BINS), 1)
        step = min(step, _LONGEST_MS)
        wanted: dict[str, Json] = {"interval": step}
        if asked.filter:
            wanted["filter"], _ = await self._filtered(asked.filter)
        answer = await self._ask("intervals", wanted)
        most = min(sharkd.MAX_BINS, span_ms // step + 1)
        packets, sizes = answers.bins(answer, most=most)
        if facts.before and not asked.filter:  # the empty frames, whose times we know
            last = (facts.before_ns - facts.first_ns) // 1_000_000 // step
            for place, count in ((0, 1), (last, facts.before - 1)):
                if 0 <= place < len(packets):
                    packets[place] = max(0, packets[place] - count)
        return {
            "start_ns": facts.first_ns,
            "step_ns": step * 1_000_000,
            "packets": list(packets),
            "bytes": list(sizes),
        }

    async def _follow(self, asked: Follow) -> dict[str, Json]:
        field = "udp" if asked.proto == "udp" else "tcp"
        number = self._next()
        line = sharkd.told(
            number,
            "follow",
            {
                "follow": sharkd.FOLLOWED[asked.proto],
                "filter": f"{field}.stream == {asked.stream}",
            },
        )
        said = await self._child.ask(line, wall_s=_ANSWER_S, most=_MOST_STREAM * 2)
        answer = self._read(
            Line(answers.mended(said.raw)) if said.cut else said, number, cut=said.cut
        )
        return answers.stream(answer, cut=said.cut, most=_MOST_STREAM)

    async def _tap(self, asked: Tap) -> dict[str, Json]:
        answer = await self._ask("tap", sharkd.taps(asked.name))
        return answers.tapped(asked.name, answer)

    def _next(self) -> int:
        self._number += 1
        return self._number

    async def _ask(
        self, method: str, parameters: dict[str, Json], *, wall_s: float = _ANSWER_S
    ) -> Any:  # noqa: ANN401 - any JSON; every reader in `sharkd` checks
        number = self._next()
        line = sharkd.told(number, method, parameters)
        said = await self._child.ask(line, wall_s=wall_s, most=_MOST_ANSWER)
        return self._read(said, number)

    def _read(self, said: Line, number: int, *, cut: bool = False) -> Any:  # noqa: ANN401 - as above
        if said.cut and not cut:
            raise Permanent(
                "sharkd's answer is too long",
                where="analyst",
                hint="ask for less at once, or download the file",
            )
        try:
            return answers.read_answer(said.raw, number)
        except Transient:
            self._child.close()
            raise
