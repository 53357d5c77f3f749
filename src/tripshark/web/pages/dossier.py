"""Everything that is known of one incident, gathered from catalogue and evidence for its page.

Evidence is read through the shelf, whether it lies here or in a store. What cannot be read just now is said on the
page and withholds nothing else.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tripshark.errors import BadInput, NotFound, TripsharkError
from tripshark.model.alert import Json
from tripshark.model.evidence import Manifest, read_json, read_manifest
from tripshark.model.finding import Findings
from tripshark.model.incident import Incident, State
from tripshark.model.note import Note
from tripshark.model.part import Part, namespaces_in
from tripshark.web.access import EVIDENCE, Caller
from tripshark.web.evidence import shelf_of
from tripshark.web.parts import Parts

MAX_FINDINGS = 64 << 20
MAX_CUSTODY = 4 << 20  # the last so many bytes of it are looked at
MAX_DEEDS = 200
SEALED = frozenset({State.SEALED, State.EMPTY})


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertTold:
    """One alert, as Falco sent it."""

    rule: str
    priority: str
    time_ns: int
    received_ns: int
    repeats: int
    via: str
    output: str
    tags: tuple[str, ...]
    fields: tuple[tuple[str, str], ...]
    verbatim: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Deed:
    """One line of custody."""

    what: str
    who: str
    time_ns: int
    file: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Dossier:
    """One incident, or one node's part of it."""

    incident: Incident
    parts: Sequence[Part] = ()
    node: str = ""  # whose part the rest is about; "" where there is one
    manifest: Manifest | None = None
    findings: Findings | None = None
    alerts: tuple[AlertTold, ...] = ()
    deeds: tuple[Deed, ...] = ()
    notes: Sequence[Note] = ()
    may_read: bool = True  # the evidence; without this only what the catalogue knows is here
    troubles: tuple[str, ...] = ()  # what could not be read, in words
    details: Mapping[str, Json] = field(default_factory=dict)

    @property
    def file(self) -> str:
        """The file that packets are looked at in, as the `file` parameter names it; "" for the default."""
        if self.node and self.manifest is not None:
            return f"{self.node}/{next((f.name for f in self.manifest.files if f.name.endswith('.pcapng')), '')}"
        return "merged.pcapng" if len(self.parts) > 1 else ""

    @property
    def base(self) -> str:
        """Where the API has this part's files."""
        whole = f"/v1/incidents/{self.incident.id}"
        return f"{whole}/parts/{self.node}" if self.node else whole

    def group(self, name: str) -> Mapping[str, Json]:
        """One group of the manifest's details; empty where there is none."""
        found = self.details.get(name)
        return found if isinstance(found, dict) else {}


async def gather(parts: Parts, caller: Caller, incident: Incident, node: str) -> Dossier:
    """Raises `NotFound` for a node that has no part."""
    its = await parts.parts_of(incident.id) if parts.parts_of is not None else ()
    if node and node not in {each.node for each in its}:
        raise NotFound("no part of that node", where=node[:63])
    chosen = node or (its[0].node if len(its) > 1 else "")
    may_read = True
    for namespace in incident.held:
        may_read = may_read and await caller.may("get", EVIDENCE, namespace)
    if incident.state not in SEALED or not may_read:
        rows = await parts.catalogue.alerts(incident.id)
        told = [
            _told(each.accepted.body, each.accepted.received_ns, each.repeats, each.accepted.via)
            for each in rows
        ]
        return Dossier(
            incident=incident,
            parts=its,
            node=chosen,
            may_read=may_read,
            alerts=tuple(told[:100]) if may_read else (),
        )
    return await _sealed(parts, caller, incident, its, chosen)


async def _sealed(
    parts: Parts, caller: Caller, incident: Incident, its: Sequence[Part], node: str
) -> Dossier:
    shelf = shelf_of(parts)
    troubles: list[str] = []
    try:
        content = await shelf.manifest(incident.id, node)
        manifest = await asyncio.to_thread(read_manifest, content)
    except TripsharkError as error:
        return Dossier(incident=incident, parts=its, node=node, troubles=(str(error),))
    await caller.require("get", EVIDENCE, namespaces_in(manifest))
    findings = None
    try:
        findings = await asyncio.to_thread(
            _findings, await shelf.open(incident.id, node, "findings.json", None)
        )
    except NotFound:  # not analysed (yet)
        pass
    except TripsharkError as error:
        troubles.append(str(error))
    deeds: list[Deed] = []
    for name in ("custody.jsonl", *(["viewed.jsonl"] if parts.kind == "hub" else [])):
        try:
            found = await shelf.open(incident.id, node, name, None)
            deeds += await asyncio.to_thread(_deeds, found)
        except NotFound:
            pass
        except TripsharkError as error:
            troubles.append(str(error))
    notes: Sequence[Note] = ()
    if parts.notes is not None:
        notes = await parts.notes.of(incident.id)
    return Dossier(
        incident=incident,
        parts=its,
        node=node,
        manifest=manifest,
        findings=findings,
        alerts=_alerts(manifest),
        deeds=tuple(sorted(deeds, key=lambda each: -each.time_ns)[:MAX_DEEDS]),
        notes=notes,
        troubles=tuple(troubles),
        details=manifest.details,
    )


def _read(descriptor: int, most: int, *, last: bool = False) -> bytes:
    """The file, or its last bytes; closes it."""
    with os.fdopen(descriptor, "rb") as file:
        if last:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - most))
            return file.read(most)
        content = file.read(most + 1)
    if len(content) > most:
        raise BadInput("larger than findings may be", where="findings.json")
    return content


def _findings(descriptor: int) -> Findings:
    return Findings.from_json(read_json(_read(descriptor, MAX_FINDINGS), "findings.json"))


def _deeds(descriptor: int) -> list[Deed]:
    found = []
    for line in _read(descriptor, MAX_CUSTODY, last=True).splitlines():
        try:
            told = json.loads(line)
            details = told.get("details", {})
            found.append(
                Deed(
                    what=str(told["what"]),
                    who=str(told["who"]),
                    time_ns=int(told["time_ns"]),
                    file=str(details.get("file", "")),
                )
            )
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            continue  # the first line may be half of one; `tripshark verify` is what judges custody
    return found


def _alerts(manifest: Manifest) -> tuple[AlertTold, ...]:
    why = manifest.details.get("why")
    listed = why.get("alerts") if isinstance(why, dict) else None
    told = []
    for each in listed[:100] if isinstance(listed, list) else []:
        if isinstance(each, dict):
            received, repeats = each.get("received_ns"), each.get("repeats")
            told.append(
                _told(
                    str(each.get("verbatim", "")).encode("utf-8", "replace"),
                    received if isinstance(received, int) else 0,
                    repeats if isinstance(repeats, int) else 0,
                    str(each.get("via", "")),
                    each,
                )
            )
    return tuple(told)


def _told(
    body: bytes, received_ns: int, repeats: int, via: str, known: Mapping[str, Json] | None = None
) -> AlertTold:
    """What can be read of an alert's own words; all of them stay there verbatim."""
    known = known or {}
    try:
        said = json.loads(body)
    except (ValueError, RecursionError):
        said = {}
    said = said if isinstance(said, dict) else {}
    fields, tags = said.get("output_fields"), said.get("tags")
    time_ns = known.get("time_ns")
    return AlertTold(
        rule=str(known.get("rule") or said.get("rule") or ""),
        priority=str(known.get("priority") or said.get("priority") or ""),
        time_ns=time_ns if isinstance(time_ns, int) else 0,
        received_ns=received_ns,
        repeats=repeats,
        via=via,
        output=str(said.get("output") or ""),
        tags=tuple(str(each) for each in tags[:40]) if isinstance(tags, list) else (),
        fields=tuple((str(name), _plain(value)) for name, value in list(fields.items())[:100])
        if isinstance(fields, dict)
        else (),
        verbatim=json.dumps(said, indent=2, ensure_ascii=True)
        if said
        else body.decode("utf-8", "backslashreplace"),
    )


def _plain(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)
