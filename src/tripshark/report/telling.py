"""One document of one incident's parts: what a person reads, whoever writes it out."""

from __future__ import annotations

from collections.abc import Sequence

import tripshark
from tripshark.report import moments, opening, sections
from tripshark.report.case import Case
from tripshark.report.document import Chapter, Document


def tell(cases: Sequence[Case]) -> Document:
    """Everything known of an incident; `cases` are its parts (at least one), the first to open first."""
    first = cases[0]
    worst = max(cases, key=lambda each: each.severity.rank)
    several = len(cases) > 1
    return Document(
        title=first.title,
        incident=first.id,
        severity=worst.severity,
        lead="\n".join(dict.fromkeys(map(opening.lead, cases))),
        facts=opening.facts(worst if several else first),
        chapters=tuple(_chapter(each, at, several) for at, each in enumerate(cases)),
        manifests=tuple(each.manifest_sha256 for each in cases),
        made_by=f"Tripshark {tripshark.__version__}",
    )


def _chapter(case: Case, at: int, several: bool) -> Chapter:
    prefix = f"part-{at + 1}-" if at else ""
    return Chapter(
        prefix=prefix,
        heading=f"Recorded on {case.node or case.host or f'node {at + 1}'}" if several else "",
        answers=opening.answers(case),
        sections=(moments.section(case, prefix), *sections.sections(case, prefix)),
    )
