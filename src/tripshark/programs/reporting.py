"""Screws reports to what they are made of: manifest, findings and custody of a sealed folder, as bytes from wherever."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import structlog

from tripshark.errors import BadInput, NotVerified, Permanent
from tripshark.model.evidence import read_json, read_manifest
from tripshark.model.finding import Findings
from tripshark.model.incident import Incident
from tripshark.report import exports
from tripshark.report.case import Case, Deed
from tripshark.store import custody
from tripshark.store.folder import MANIFEST
from tripshark.web.parts import Exported, Told

log = structlog.get_logger("tripshark.report")

FINDINGS: Final = "findings.json"


def case(told: Told) -> Case:
    """What a report may speak of. Raises `BadInput` for what is no manifest; whatever else cannot be read is said in it."""
    manifest = read_manifest(told.manifest)
    digest = hashlib.sha256(told.manifest).hexdigest()
    made = Case(manifest=manifest, manifest_sha256=digest, problem=told.problem, node=told.node)
    if told.findings:
        try:
            findings = Findings.from_json(read_json(told.findings, FINDINGS))
        except BadInput as problem:
            made = replace(made, problem=f"findings.json cannot be read: {problem.message}")
        else:
            if findings.manifest_sha256 == digest:
                made = replace(made, findings=findings)
            else:
                made = replace(made, problem="the findings that lie here are about other evidence")
    if told.custody:
        try:
            made = replace(made, deeds=tuple(map(_deed, custody.read(told.custody))))
        except NotVerified as problem:
            made = replace(made, custody_problem=problem.message)
    return made


def _deed(each: custody.Deed) -> Deed:
    return Deed(
        time_ns=each.time_ns, what=each.what, who=each.who, hash=each.hash, details=each.details
    )


def told(folder: Path, *, problem: str = "") -> Told:
    """One folder's documents. Raises `OSError` where there is no manifest."""
    return Told(
        manifest=(folder / MANIFEST).read_bytes(),
        findings=_maybe(folder / FINDINGS),
        custody=_maybe(folder / custody.NAME),
        problem=problem,
    )


def _maybe(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


class Reports:
    """`ports.Reporter` and `web.parts.Exports`: writes whatever is asked for, and breaks nothing when it cannot."""

    @property
    def names(self) -> Sequence[str]:
        """Every format."""
        return tuple(exports.FORMATS)

    def companions(self, incident: Incident, problem: str) -> Mapping[str, bytes]:
        """What is to lie beside the evidence, by file name. Raises `Permanent`."""
        try:
            return exports.companions(case(told(Path(incident.folder), problem=problem)))
        except Exception as fault:  # a report must never stand in the way of evidence
            log.exception("no report", incident=incident.id)
            raise Permanent(f"the report could not be written: {fault}") from fault

    def write(self, name: str, parts: Sequence[Told]) -> Exported:
        """One format of an incident's parts. Raises `BadInput` for a format or a manifest that is none."""
        form = exports.FORMATS.get(name)
        if form is None:
            raise BadInput(
                f"unknown format {name[:40]!r}", hint=f"one of {', '.join(exports.FORMATS)}"
            )
        cases = [case(each) for each in parts]
        return Exported(content=form.write(cases), suffix=form.suffix, media=form.media)
