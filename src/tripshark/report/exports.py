"""Every form in which an incident can be handed on, by the name that people ask for it with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from tripshark.report import ecs, markdown, misp, ocsf, page, stix, timeline, zeek
from tripshark.report.case import Case
from tripshark.report.telling import tell


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """One form: how it is written, and what the file is called."""

    write: Callable[[Sequence[Case]], bytes]
    suffix: str  # of the file: "conn.log"
    media: str


def report_html(cases: Sequence[Case]) -> bytes:
    """The page."""
    return page.write(tell(cases))


def report_md(cases: Sequence[Case]) -> bytes:
    """The same as Markdown."""
    return markdown.write(tell(cases))


_LINES: Final = "application/x-ndjson"
FORMATS: Final[Mapping[str, Format]] = {
    "report": Format(write=report_html, suffix="html", media="text/html; charset=utf-8"),
    "markdown": Format(write=report_md, suffix="md", media="text/markdown; charset=utf-8"),
    "timeline": Format(write=timeline.write, suffix="jsonl", media="application/jsonl"),
    "ecs": Format(write=ecs.write, suffix="ecs.ndjson", media=_LINES),
    "ocsf": Format(write=ocsf.write, suffix="ocsf.ndjson", media=_LINES),
    "stix": Format(
        write=stix.write, suffix="stix.json", media="application/stix+json;version=2.1"
    ),
    "misp": Format(write=misp.write, suffix="misp.json", media="application/json"),
    **{
        f"zeek-{log}": Format(write=partial(zeek.write, log), suffix=f"{log}.log", media=_LINES)
        for log in zeek.LOGS
    },
}


def companions(case: Case) -> dict[str, bytes]:
    """What lies beside the evidence for people: file name → content."""
    told = tell([case])
    return {
        "report.html": page.write(told),
        "report.md": markdown.write(told),
        "timeline.jsonl": timeline.write([case]),
    }
