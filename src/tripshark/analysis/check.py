"""Has tshark itself bear out what a report says: every filter is run again, and a claim that does not hold is refused.

One more pass over the file, with the settings that whoever pastes a filter into Wireshark has (but for the unpacking
of compressed bodies, which no filter of ours needs and a small packet could make endless):

- a finding's filter must show exactly `matches` frames, all the cited ones among them;
- every address, port, protocol and name in `about` must be in each cited frame, `bytes` must be the sum over the
  frames shown;
- every address and host name in `title` and `text` must stand in `about`;
- a row's filter must show the row's own frame.

Cost: about half of the first pass, whatever the number of rows. Many filters are counted at once (`-z io,phs,FILTER`);
those of rows are one large decision tree over frame numbers, of which a packet sees a dozen comparisons.

A finding that does not hold makes the whole report `Permanent`: one wrong claim makes the others worthless. A row is
tshark's own observation and no claim; where its filter does not show its frame, the frame's number takes the filter's
place, and a note says how often.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from ipaddress import ip_address
from typing import Final, NamedTuple

from tripshark.analysis import filters
from tripshark.analysis.child import Ended, run
from tripshark.analysis.sandbox import Policy
from tripshark.errors import Permanent
from tripshark.formats import tshark
from tripshark.model.alert import Json
from tripshark.model.claim import MAX_FILTER, NOT_CAPTURED, Finding
from tripshark.model.finding import TABLES, Findings
from tripshark.model.text import printable

_MAX_TREE = 60_000  # characters of one filter; Linux allows 128 KiB for one argument
_MAX_ARGUMENTS = 1_500_000  # characters of one command line; Linux allows 2 MiB
_LEAF = 4
_TABLE = re.compile(r"^Filter: (.*)$")
_LAYER = re.compile(r"^(\S+)\s+frames:(\d+) bytes:(\d+)\s*$")
_ALWAYS: Final = ("-n", "-Q", "-o", "http.decompress_body:FALSE", "-r", "-")

_WORD = re.compile(r"[\w:.-]+")
_HOST = re.compile(r"(?:[\w-]+\.)+[a-z]{2,24}", re.IGNORECASE)
_PORT = re.compile(r"\d{1,5}")
_ADDRESSES = ("address", "peer", "client", "server")
_NAMES = ("name", "host")
_PROTOCOLS: Final = {
    **{each: each for each in ("tcp", "udp", "sctp", "icmp", "icmpv6", "dns", "tls")},
    "http": "http || http2",
}
_NAME_FIELDS = (
    "dns.qry.name",
    "tls.handshake.extensions_server_name",
    "http.host",
    "http2.headers.authority",
)


class Cite(NamedTuple):
    """At this frame this filter must hold."""

    frame: int
    filter: str
    whose: str  # "F3", "dns", "conversations", …


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What tshark said about one document."""

    shown: Mapping[str, tuple[int, int]]  # a finding's filter → frames and bytes in the whole file
    failed: frozenset[Cite]  # cites that do not hold


async def check(
    evidence: int, findings: Findings, *, program: str, policy: Policy, wall_s: float
) -> Findings:
    """The same findings, checked. Raises `Permanent` when one of them, or a row's filter, does not hold."""
    verdict = await examine(evidence, findings, program=program, policy=policy, wall_s=wall_s)
    rows = {each.whose for each in verdict.failed if not each.whose.startswith("F")}
    if rows:
        raise _refused(f"a filter in {', '.join(sorted(rows))} does not show its frame")
    return accept(findings, verdict)


async def prove(
    evidence: int, findings: Findings, *, program: str, policy: Policy, wall_s: float
) -> Findings:
    """Claims that somebody else made of these findings, with tshark's counts. Raises `Permanent` when one does not hold."""
    verdict = await examine(evidence, findings, program=program, policy=policy, wall_s=wall_s)
    return accept(settle(findings, verdict), verdict)


async def examine(
    evidence: int, findings: Findings, *, program: str, policy: Policy, wall_s: float
) -> Verdict:
    """Run every filter of the document. Raises `Permanent` when tshark cannot (also for a filter it refuses)."""
    claims = [each for each in findings.findings if each.kind != NOT_CAPTURED]
    asked = list(dict.fromkeys(each.filter for each in claims))
    for each in claims:
        if not each.filter or len(each.filter) > MAX_FILTER or not each.filter.isprintable():
            raise _refused(f"{each.id} has no filter that could be run")
    trees = list(_trees(_cites(findings, claims)))
    counted = await _count(
        [*asked, *(tree.filter for tree in trees)], evidence, program, policy, wall_s
    )
    suspects = [tree for tree in trees if counted[tree.filter][0] != len(tree.frames)]
    failed: set[Cite] = set()
    while suspects:  # rare: halve until single cites are left
        smaller = [each for tree in suspects for each in tree.halves()]
        counted |= await _count(
            [tree.filter for tree in smaller], evidence, program, policy, wall_s
        )
        wrong = [each for each in smaller if counted[each.filter][0] != len(each.frames)]
        failed |= {each.cites[0] for each in wrong if len(each.cites) == 1}
        suspects = [each for each in wrong if len(each.cites) > 1]
    return Verdict(shown={each: counted[each] for each in asked}, failed=frozenset(failed))


def settle(findings: Findings, verdict: Verdict) -> Findings:
    """Take tshark's counts for ours, and frame numbers for rows' filters that do not show their frame.

    tshark may count more than we did: a filter also meets what a tunnel or an ICMP error carries inside, and what
    lies behind the place where the first pass was stopped. It may not count less; `accept` refuses that, but for
    remarks of tshark's own: the passes put HTTP bodies together differently, and so tshark remarks on other frames.
    """
    remarks = [each for each in findings.findings if _is_lost_remark(each, verdict)]
    claims = tuple(
        replace(
            each,
            matches=max(each.matches, verdict.shown[each.filter][0]),
            about={**each.about, "bytes": str(verdict.shown[each.filter][1])}
            if _more_bytes(each, verdict)
            else each.about,
        )
        if each.kind != NOT_CAPTURED
        else each
        for each in findings.findings
        if each not in remarks
    )
    wrong = {(each.whose, each.frame, each.filter) for each in verdict.failed}
    tables: dict[str, tuple[Mapping[str, Json], ...]] = {}
    mended = 0
    for name in TABLES:
        rows = []
        for row in getattr(findings, name):
            if (name, row["frame"], row["filter"]) in wrong:
                mended += 1
                row = {**row, "filter": filters.number(int(row["frame"]))}
            rows.append(row)
        tables[name] = tuple(rows)
    talks = []
    for talk in findings.conversations:
        fits = ("conversations", talk.frame, talk.filter) not in wrong
        mended += not fits
        talks.append(talk if fits else replace(talk, filter=filters.number(talk.frame)))
    notes = findings.notes
    if remarks:
        what = ", ".join(each.about.get("summary", each.id) for each in remarks)
        notes += (printable(f"tshark did not say a second time, and it is no finding: {what}"),)
    if mended:
        notes += (f"{mended} display filters did not show their frame; its number stands instead",)
    settled = replace(findings, findings=claims, conversations=tuple(talks), notes=notes)
    return replace(settled, **tables)  # type: ignore[arg-type]  # names and types of TABLES


def accept(findings: Findings, verdict: Verdict) -> Findings:
    """The same findings, checked. Raises `Permanent` when one does not hold."""
    for each in findings.findings:
        if trouble := _trouble(each, verdict):
            raise _refused(f"{each.id} {trouble}")
    checked = tuple(replace(each, checked=True) for each in findings.findings)
    return replace(findings, findings=checked)


def _trouble(claim: Finding, verdict: Verdict) -> str:
    if unknown := _unfounded(claim):
        return f"names {printable(unknown, 60)}, which it does not cite"
    if claim.kind == NOT_CAPTURED:
        return ""
    frames, octets = verdict.shown[claim.filter]
    if not claim.frames:
        return "cites no frame"
    if any(each.whose == claim.id for each in verdict.failed):
        return "cites frames that do not show it"
    if frames != claim.matches:
        return f"says {claim.matches} frames where its filter shows {frames}"
    if "bytes" in claim.about and claim.about["bytes"] != str(octets):
        return f"says {printable(claim.about['bytes'], 40)} bytes where its filter shows {octets}"
    return ""


def _is_lost_remark(claim: Finding, verdict: Verdict) -> bool:
    if claim.kind != "expert":
        return False
    fewer = verdict.shown[claim.filter][0] < claim.matches
    return fewer or any(each.whose == claim.id for each in verdict.failed)


def _unfounded(claim: Finding) -> str:
    """An address or host name in the words of a finding that is not in `about`; "" where there is none."""
    known = " ".join(claim.about.values()).lower()
    for word in _WORD.findall(f"{claim.title} {claim.text}"):
        bare = word.strip(".:-").lower()
        if bare.count(":") == 1:
            bare = bare.partition(":")[0]  # the port after it
        if bare not in known and (_HOST.fullmatch(bare) or _is_address(bare)):
            return str(word)
    return ""


def _is_address(word: str) -> bool:
    if "." not in word and ":" not in word:
        return False
    try:
        ip_address(word)
    except ValueError:
        return False
    return True


def _more_bytes(claim: Finding, verdict: Verdict) -> bool:
    told = claim.about.get("bytes", "")
    return told.isascii() and told.isdecimal() and int(told[:20]) < verdict.shown[claim.filter][1]


# ── cites ────────────────────────────────────────────────────────────────────────────────────────


def _cites(findings: Findings, claims: Iterable[Finding]) -> Iterator[Cite]:
    for talk in findings.conversations:
        yield Cite(talk.frame, talk.filter, "conversations")
    for name in TABLES:
        for row in getattr(findings, name):
            frame, shown = row.get("frame"), row.get("filter")
            if type(frame) is not int or not isinstance(shown, str):
                raise _refused(f"a row of {name} has no frame or no filter")
            yield Cite(frame, shown, name)
    for claim in claims:
        conditions = [f"({each})" for each in (claim.filter, *_facts(claim))]
        for frame in claim.frames:
            yield Cite(frame, " && ".join(conditions), claim.id)


def _facts(claim: Finding) -> Iterator[str]:
    """What `about` says, as filters that must hold at every cited frame."""
    for key, value in claim.about.items():
        if key in _ADDRESSES:
            try:
                yield filters.either(str(ip_address(value)))
            except ValueError:
                raise _refused(f"{claim.id} says {key} of what is no address") from None
        elif key == "port":
            if not _PORT.fullmatch(value):
                raise _refused(f"{claim.id} says port of what is none")
            yield " || ".join(f"{proto}.port == {value}" for proto in ("tcp", "udp", "sctp"))
        elif key == "proto" and value in _PROTOCOLS:
            yield _PROTOCOLS[value]
        elif key in _NAMES and filters.is_plain(value):
            yield " || ".join(f'{field} == "{value}"' for field in _NAME_FIELDS)
        elif key == "domain" and filters.is_plain(value):
            yield filters.below(value)


class _Tree(NamedTuple):
    """Many cites as one filter: frame numbers decide which few of them a packet is asked about."""

    cites: tuple[Cite, ...]  # in the order of frames
    filter: str
    frames: frozenset[int]

    @classmethod
    def of(cls, cites: Sequence[Cite]) -> _Tree:
        by_frame: dict[int, list[str]] = {}
        for each in cites:
            by_frame.setdefault(each.frame, []).append(each.filter)
        leaves = [
            (frame, " && ".join(f"({each})" for each in dict.fromkeys(shown)))
            for frame, shown in by_frame.items()
        ]
        return cls(tuple(cites), _decide(leaves), frozenset(by_frame))

    def halves(self) -> tuple[_Tree, ...]:
        """Two smaller ones; a single cite stays as it is."""
        if len(self.cites) == 1:
            return (self,)
        middle = len(self.cites) // 2
        return _Tree.of(self.cites[:middle]), _Tree.of(self.cites[middle:])


def _trees(cites: Iterable[Cite]) -> Iterator[_Tree]:
    """Cites in trees that fit an argument; no frame is in two of them."""
    group: list[Cite] = []
    size = 0
    for each in sorted(set(cites)):
        if size > _MAX_TREE and each.frame != group[-1].frame:
            yield _Tree.of(group)
            group, size = [], 0
        group.append(each)
        size += len(each.filter) + 60
    if group:
        yield _Tree.of(group)


def _decide(leaves: Sequence[tuple[int, str]]) -> str:
    if len(leaves) <= _LEAF:
        return " || ".join(f"({filters.number(frame)} && {shown})" for frame, shown in leaves)
    middle = len(leaves) // 2
    at = leaves[middle][0]
    low, high = _decide(leaves[:middle]), _decide(leaves[middle:])
    return f"(frame.number < {at} && ({low})) || (frame.number >= {at} && ({high}))"


# ── counting ─────────────────────────────────────────────────────────────────────────────────────


async def _count(
    asked: Sequence[str], evidence: int, program: str, policy: Policy, wall_s: float
) -> dict[str, tuple[int, int]]:
    """Frames and bytes that each filter shows in the whole file."""
    counted: dict[str, tuple[int, int]] = {}
    for group in _groups(list(dict.fromkeys(asked))):
        said = bytearray()
        argv = [program, *_ALWAYS, "-q", *(word for each in group for word in ("-z", _tap(each)))]
        ended = await run(
            argv,
            evidence=evidence,
            policy=policy,
            wall_s=wall_s,
            max_output=64 << 20,
            take=said.extend,
        )
        counted |= _read(said.decode("utf-8", "replace"))
        missing = [each for each in group if each not in counted]
        if missing:
            why = _why(ended)
            raise _refused(f"tshark could not run its filters: {why}")
    return counted


def _tap(filter: str) -> str:
    return f"io,phs,{filter}"


def _groups(asked: list[str]) -> Iterator[list[str]]:
    group: list[str] = []
    size = 0
    for each in asked:
        if group and size + len(each) > _MAX_ARGUMENTS:
            yield group
            group, size = [], 0
        group.append(each)
        size += len(each) + 20
    if group:
        yield group


def _read(output: str) -> dict[str, tuple[int, int]]:
    """`Filter: …` and below it the layers of the frames it shows; those not indented are the lowest."""
    counted: dict[str, tuple[int, int]] = {}
    current = ""
    for line in output.split("\n"):
        if (table := _TABLE.match(line)) is not None:
            current = table[1]
            counted[current] = (0, 0)
        elif current and (layer := _LAYER.match(line)) is not None:
            frames, octets = counted[current]
            counted[current] = (frames + int(layer[2]), octets + int(layer[3]))
    return counted


def _why(ended: Ended) -> str:
    if ended.stopped:
        return f"it was stopped at the bound on {ended.stopped}"
    said = tshark.complaint(ended.stderr)
    return printable(said, 200) or f"it ended with {ended.code}"


def _refused(why: str) -> Permanent:
    return Permanent(f"the report was refused: {why}", where="analyst")
