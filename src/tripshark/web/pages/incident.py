"""The page of one incident: the sentence first, then when, what, who, and what is missing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from urllib.parse import quote, urlencode

from starlette.requests import Request
from starlette.responses import Response

from tripshark.model.alert import Json
from tripshark.model.attack import technique
from tripshark.model.evidence import Manifest, Word
from tripshark.model.incident import Incident, State
from tripshark.web import query, site
from tripshark.web.caller import caller_of
from tripshark.web.incident import incident_of, looked
from tripshark.web.openapi import Described, Parameter
from tripshark.web.pages.cards import cards
from tripshark.web.pages.dossier import SEALED, Dossier, gather
from tripshark.web.parts import Parts
from tripshark.web.route import Route

EXPORTS = (
    ("ecs", "Elastic Common Schema"),
    ("ocsf", "OCSF"),
    ("stix", "STIX 2.1 bundle"),
    ("misp", "MISP event"),
    ("zeek-conn", "Zeek conn"),
    ("zeek-dns", "Zeek dns"),
    ("zeek-ssl", "Zeek ssl"),
    ("zeek-http", "Zeek http"),
)


async def show(request: Request, parts: Parts) -> Response:
    query.known(request.query_params, ("node",))
    found = await incident_of(request, parts)
    caller = caller_of(request, parts)
    it = await gather(parts, caller, found, query.text(request.query_params, "node"))
    if it.findings is not None:
        label = f"{it.node}-findings.json" if it.node else "findings.json"
        await looked(parts, found, label, caller.name)
    return site.page(
        request,
        parts,
        "incident.html",
        it=it,
        incident=found,
        lead=_lead(found, it),
        rest=_rest(found, it),
        is_sealed=found.state in SEALED,
        is_open=found.state in (State.OPEN, State.SEALING),
        packets=_packets(it),
        cards=cards(it.findings) if it.findings else [],
        technique=technique,
        timeline=timeline(it),
        exports=EXPORTS,
        evidence_files=_files(it),
        first_file=next(iter(_files(it)), None),
        base=it.base,
        whole=f"/v1/incidents/{found.id}",
        stream="/v1/events?" + urlencode({"incident": found.id}),
        context=_context(it),
        gate_is_open=parts.gate.is_open and parts.access is None,
        read_by=caller.name,
        words=_LEDGER,
    )


_LEDGER: Mapping[Word, str] = {
    Word.COMPLETE: "Nothing is known to be missing.",
    Word.TRUNCATED: "A limit was reached, or packets were lost or cut.",
    Word.EXPIRED: "The history that was asked for was no longer there.",
    Word.INTERRUPTED: "The capture was cut off and salvaged.",
}


def _lead(incident: Incident, it: Dossier) -> str:
    """The first sentence: what happened."""
    summary = incident.summary or (it.findings.summary if it.findings else "")
    if summary:
        head, dot, _ = summary.partition(". ")
        return head + dot.strip()
    return {
        State.OPEN: "The history is frozen; packets are being kept as they come.",
        State.SEALING: "The window has ended; the evidence is being written and signed.",
        State.SEALED: "The evidence is sealed; it has not been read yet.",
        State.EMPTY: "Not one packet was there: that is sealed as evidence, too.",
        State.FAILED: "No evidence could be written.",
        State.REMOVED: "The evidence was removed when its time was over; this record stays.",
    }[incident.state]


def _rest(incident: Incident, it: Dossier) -> list[str]:
    """The sentences that follow."""
    summary = incident.summary or (it.findings.summary if it.findings else "")
    _, _, rest = summary.partition(". ")
    ended = [each.strip() for each in rest.split(". ") if each.strip()]
    return [each if each.endswith((".", "…")) else f"{each}." for each in ended]


def _packets(it: Dossier) -> Callable[..., str]:
    """The address of the packet view with a display filter, and a packet chosen."""

    def address(filter: str = "", frame: int = 0) -> str:
        asked = {name: value for name, value in (("file", it.file), ("filter", filter)) if value}
        behind = f"?{urlencode(asked, quote_via=quote)}" if asked else ""
        chosen = f"#p={frame}" if frame else ""
        return f"/incidents/{it.incident.id}/packets{behind}{chosen}"

    return address


def _files(it: Dossier) -> list[Mapping[str, Json]]:
    if it.manifest is None:
        return []
    return [
        {"name": each.name, "bytes": each.bytes, "sha256": each.sha256}
        for each in it.manifest.files
    ]


def timeline(it: Dossier) -> Mapping[str, Json] | None:
    """What the picture is drawn from; times are seconds from T0. None where there is nothing to draw."""
    found, t0_ns = it.findings, it.incident.t0_ns
    if found is None or not found.activity.packets_in or found.activity.step_ns <= 0:
        return None

    def seconds(ns: object) -> float | None:
        return round((ns - t0_ns) / 1e9, 6) if isinstance(ns, int) and ns > 0 else None

    activity, when, who = found.activity, it.group("when"), it.group("who")

    def span(name: str) -> list[Json]:
        told = when.get(name)
        told = told if isinstance(told, dict) else {}
        return [seconds(told.get("from_ns")), seconds(told.get("to_ns"))]

    return {
        "t0_ns": str(t0_ns),  # as text: JavaScript's numbers are too small for it
        "start": seconds(activity.start_ns) or 0.0,
        "step": activity.step_ns / 1e9,
        "packets_out": list(activity.packets_out),
        "packets_in": list(activity.packets_in),
        "bytes_out": list(activity.bytes_out),
        "bytes_in": list(activity.bytes_in),
        "asked": span("asked"),
        "covered": span("covered"),
        "alerts": [
            {"at": seconds(each.time_ns or each.received_ns), "rule": each.rule}
            for each in it.alerts
        ],
        "gaps": _gaps(it.manifest, seconds),
        "born": seconds(who.get("since_ns")),
        "gone": seconds(who.get("gone_ns")),
    }


def _gaps(manifest: Manifest | None, seconds: Callable[[object], float | None]) -> list[Json]:
    if manifest is None:
        return []
    return [
        {
            "from": seconds(each.from_ns) if each.from_ns else None,
            "to": seconds(each.to_ns) if each.to_ns else None,
            "message": each.message,
        }
        for each in manifest.ledger.entries
        if each.word is not Word.COMPLETE and (each.from_ns or each.to_ns)
    ]


def _context(it: Dossier) -> list[tuple[str, list[str]]]:
    """Kubernetes' words for whom it happened to, and the machine's; what is not known is left out."""
    who, where, when = it.group("who"), it.group("where"), it.group("when")
    labels = who.get("labels")
    clock = when.get("clock")
    interfaces = where.get("interfaces")
    said: list[tuple[str, object]] = [
        ("Namespace", who.get("namespace")),
        ("Pod", who.get("pod")),
        ("Owner", who.get("owner")),
        ("Service account", who.get("service_account")),
        ("Node", who.get("node") or where.get("host")),
        ("Images", who.get("images")),
        (
            "Labels",
            [f"{name}={value}" for name, value in labels.items()]
            if isinstance(labels, dict)
            else None,
        ),
        ("Pod's uid", who.get("uid")),
        ("Containers", who.get("containers")),
        ("Recorded as", who.get("target")),
        (
            "Interfaces",
            _interfaces(interfaces) if isinstance(interfaces, list) else None,
        ),
        ("Kernel", where.get("kernel")),
        (
            "Clock",
            ("synchronised" if clock.get("synchronised") else "not synchronised")
            if isinstance(clock, dict)
            else None,
        ),
    ]
    told = []
    for name, value in said:
        rows = value if isinstance(value, list) else [value]
        texts = [str(each) for each in rows if each not in (None, "")]
        if texts:
            told.append((name, texts[:40]))
    return told


def _interfaces(rows: list[Json]) -> list[str]:
    """Each once, with its addresses."""
    told: dict[str, list[str]] = {}
    for each in rows:
        if isinstance(each, dict):
            addresses = each.get("addresses")
            known = told.setdefault(str(each.get("name")), [])
            known += [
                str(one)
                for one in (addresses if isinstance(addresses, list) else [])
                if str(one) not in known
            ]
    return [f"{name} {' '.join(addresses)}".strip() for name, addresses in told.items()]


ROUTES: tuple[Route, ...] = (
    Route(
        path="/incidents/{id}",
        handler=show,
        described=Described(
            "The page of one incident.",
            answers={"200": "HTML."},
            parameters=(
                Parameter("id", "path", "Id of the incident."),
                Parameter("node", "query", "Whose part is shown, where there are several."),
            ),
            errors=(404,),
            media="text/html",
        ),
    ),
)
