"""An MCP server over standard input and output: read-only tools over the incidents of a running Tripshark.

It is a client of the HTTP API like any other: what it may see is what its token (or the user who starts it, on the
machine itself) may see, and every file that it fetches is a line of the custody.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import wraps
from typing import Annotated, Any, Final, ParamSpec, TypeVar
from urllib.parse import quote

import msgspec
from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ResourceError, ToolError
from mcp_types import ToolAnnotations
from pydantic import Field

from tripshark import __version__
from tripshark.errors import BadInput, NotFound, TripsharkError
from tripshark.model.alert import Json
from tripshark.model.evidence import incident_id, read_manifest
from tripshark.model.finding import Findings
from tripshark.model.part import node_name
from tripshark.model.text import printable
from tripshark.programs import assistant_answers as say
from tripshark.wireshark.asking import Service

P = ParamSpec("P")
R = TypeVar("R")

SECONDS: Final = 60.0  # in which the service must answer
MAX_FILE: Final = 64 << 20
_DOCUMENT = msgspec.json.Decoder()
_READ_ONLY: Final = ToolAnnotations(
    read_only_hint=True, destructive_hint=False, idempotent_hint=True, open_world_hint=False
)

Id = Annotated[str, Field(description="Incident id, as `incidents` and `search` give it.")]
Node = Annotated[
    str, Field(description="Node, where an incident has several parts; empty where it has one.")
]
Limit = Annotated[int, Field(description="At most this many.", ge=1, le=say.MAX_ROWS)]
File = Annotated[
    str,
    Field(description="Capture file: evidence.pcapng, NODE/evidence.pcapng or merged.pcapng; empty: the first."),
]  # fmt: skip


def serve(service: Service) -> None:
    """Until the client closes our standard input."""
    made(service).run("stdio")


def made(service: Service) -> MCPServer[Any]:
    """The server with its tools and resources."""
    server: MCPServer[Any] = MCPServer(
        "tripshark",
        title="Tripshark",
        description="Packets from before the alert, as evidence.",
        instructions=say.INSTRUCTIONS,
        version=__version__,
        log_level="WARNING",
    )
    tools = Tools(service)
    for tool in (
        tools.incidents, tools.incident, tools.findings, tools.rows, tools.search, tools.packets, tools.packet,
    ):  # fmt: skip
        server.add_tool(_told(tool, ToolError), annotations=_READ_ONLY)
    for name, reader in (
        ("findings", tools.findings_document),
        ("manifest", tools.manifest_document),
        ("report", tools.report_document),
    ):
        server.resource(
            f"tripshark://incidents/{{id}}/{name}",
            name=name,
            description=(reader.__doc__ or "").partition("\n")[0],
            mime_type="text/plain" if name == "report" else "application/json",
        )(_told(reader, ResourceError))
    return server


def _told(
    work: Callable[P, Awaitable[R]], kind: type[ToolError | ResourceError]
) -> Callable[P, Awaitable[R]]:
    """What went wrong on purpose is told in words; anything else is a bug and is logged."""

    @wraps(work)
    async def run(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return await work(*args, **kwargs)
        except TripsharkError as problem:
            raise kind(printable(str(problem), 1_000)) from problem

    return run


class Tools:
    """Each method is a tool; its docstring is what the assistant reads."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def incidents(
        self,
        since: Annotated[str, Field(description="Not older than this: 2h, 7d.")] = "",
        namespace: str = "",
        pod: str = "",
        rule: Annotated[str, Field(description="Tripshark's or Falco's rule.")] = "",
        before: Annotated[
            str, Field(description="Only older than this incident: `next` of the page before.")
        ] = "",
        limit: Limit = 20,
    ) -> dict[str, Any]:
        """Incidents, newest first: what was captured, when and why, with one sentence each."""
        told = await self._json(
            "/v1/incidents",
            since=since,
            namespace=namespace,
            pod=pod,
            rule=rule,
            before=before,
            limit=str(limit),
        )
        return say.answer(
            {},
            incidents=[say.incident(each) for each in _dicts(told.get("incidents"))],
            next=say.plain(told.get("next")),
        )

    async def incident(self, id: Id, node: Node = "") -> dict[str, Any]:
        """One incident: its state, its alerts, and the ledger of what was not captured."""
        told = await self._json(f"/v1/incidents/{_id(id)}")
        parts: list[Json] = [
            say.plain(each.get("node"))
            for each in _dicts((await self._json(f"/v1/incidents/{_id(id)}/parts")).get("parts"))
        ]
        evidence: dict[str, Json] = {"incident": _id(id), "parts": parts}
        shown: dict[str, Json] = {
            "incident": say.incident(told),
            "alerts": say.alerts(told.get("alert_list")),
        }
        if told.get("state") in ("sealed", "empty") and (node or len(parts) < 2):
            content = await self._file(id, node, "manifest.json")
            manifest = await asyncio.to_thread(read_manifest, content)
            evidence["manifest_sha256"] = say.digest(content)
            evidence["files"] = [each.name for each in manifest.files]
            shown["ledger"] = say.ledger(manifest)
        return say.answer(evidence, **shown)

    async def findings(
        self,
        id: Id,
        node: Node = "",
        kind: Annotated[str, Field(description="Only this kind: beacon, indicator, scan, …")] = "",
        least_severity: Annotated[
            str, Field(description="info, low, medium, high or critical.")
        ] = "",
    ) -> dict[str, Any]:
        """What the analysis found, most severe first. Every finding was checked: its filter shows its frames.

        Cite incident, manifest hash, frames and filter with whatever you say of them.
        """
        evidence, findings = await self._findings(id, node)
        shown, withheld = say.checked(findings, kind=kind, severity=least_severity)
        return say.answer(
            evidence,
            findings=shown,
            withheld_unchecked=withheld,
            complete=findings.complete,
            truncated=findings.truncated,
            untrusted={
                "summary": printable(findings.summary, 2_000),
                "notes": say.plain(findings.notes),
            },
        )

    async def rows(
        self,
        id: Id,
        table: Annotated[str, Field(description="One of " + ", ".join(say.ROWS) + ".")],
        node: Node = "",
        contains: Annotated[
            str, Field(description="Only rows that hold this text.", max_length=200)
        ] = "",
        limit: Limit = 50,
    ) -> dict[str, Any]:
        """One table of the analysis: who talked to whom, names, TLS, HTTP, files; each row with its frame and filter."""
        evidence, findings = await self._findings(id, node)
        shown, fit = say.rows(findings, table, contains=contains, limit=limit)
        return say.answer(evidence, rows=shown, of=fit, truncated=findings.truncated)

    async def search(
        self,
        q: Annotated[
            str,
            Field(
                description="An address, network, hash, JA4, community ID, URL, name or part of one; *.name: a domain."
            ),
        ],
        kind: Annotated[
            str,
            Field(
                description="address, domain, dns, sni, host, url, ja3, ja4, sha256, md5, file, pod, …"
            ),
        ] = "",
        since: Annotated[str, Field(description="Not older than this: 2h, 30d.")] = "",
        limit: Limit = 20,
    ) -> dict[str, Any]:
        """Where a name, address, hash or fingerprint was seen, over all incidents, each with its frame and filter."""
        told = await self._json("/v1/search", q=q, kind=kind, since=since, limit=str(limit))
        hits: list[Json] = [
            {
                **{name: say.plain(each.get(name)) for name in ("incident", "file", "kind", "frame", "t0")},
                **say.cited(
                    each.get("filter"), {name: say.plain(each.get(name)) for name in ("value", "target")}
                ),
            }
            for each in _dicts(told.get("hits"))
        ]  # fmt: skip
        return say.answer({}, hits=hits, more=told.get("next") is not None)

    async def packets(
        self,
        id: Id,
        filter: Annotated[
            str, Field(description="A Wireshark display filter.", max_length=2000)
        ] = "",
        file: File = "",
        skip: Annotated[int, Field(ge=0)] = 0,
        limit: Limit = 20,
    ) -> dict[str, Any]:
        """The packet list of an incident, as Wireshark shows it, for a display filter."""
        evidence = await self._evidence(id, file)
        told = await self._json(
            f"/v1/incidents/{_id(id)}/packets",
            filter=filter,
            file=file,
            skip=str(skip),
            limit=str(limit),
        )
        return say.answer({**evidence, "filter": filter}, **say.frames(told))

    async def packet(
        self, id: Id, frame: Annotated[int, Field(ge=1)], file: File = ""
    ) -> dict[str, Any]:
        """One packet's fields, as Wireshark dissects them."""
        evidence = await self._evidence(id, file)
        told = await self._json(f"/v1/incidents/{_id(id)}/packets/{frame}", file=file)
        fields: list[Json] = [*say.tree(told.get("tree"))]
        return say.answer(
            {**evidence, "frame": frame, "filter": f"frame.number == {frame}"},
            untrusted={"fields": fields, "comments": say.plain(told.get("comments", []))},
        )

    # --------------------------------------------------------------------------------------- resources

    async def findings_document(self, id: str) -> str:
        """The checked findings of an incident."""
        return say.document(await self.findings(id))

    async def manifest_document(self, id: str) -> str:
        """What the sealed evidence of an incident says of itself."""
        content = await self._file(id, "", "manifest.json")
        told = {"incident": _id(id), "manifest_sha256": say.digest(content)}
        document = await asyncio.to_thread(_DOCUMENT.decode, content)
        return say.document(say.answer(told, untrusted=say.plain(document)))

    async def report_document(self, id: str) -> str:
        """The report of an incident as Markdown."""
        content = await self._file(id, "", "report.md")
        return say.marked(content.decode(errors="replace"))

    # ------------------------------------------------------------------------------------------ asking

    async def _json(self, path: str, **asked: str) -> dict[str, Any]:
        return await asyncio.to_thread(lambda: self._service.json(path, seconds=SECONDS, **asked))

    async def _file(self, id: str, node: str, name: str) -> bytes:
        within = f"/parts/{quote(node_name(node))}" if node else ""

        def fetch() -> bytes:
            content = bytearray()
            with self._service.stream(
                f"/v1/incidents/{_id(id)}{within}/{name}", seconds=SECONDS
            ) as (_, pieces):
                for piece in pieces:
                    content.extend(piece)
                    if len(content) > MAX_FILE:
                        raise BadInput(f"larger than {MAX_FILE >> 20} MiB", where=name)
            return bytes(content)

        return await asyncio.to_thread(fetch)

    async def _findings(self, id: str, node: str) -> tuple[dict[str, Json], Findings]:
        try:
            content = await self._file(id, node, "findings.json")
        except NotFound as missing:
            raise NotFound(
                f"there are no findings: {missing.message}", where=missing.where,
                hint=missing.hint or "the incident may still be open, or was never analysed",
            ) from missing  # fmt: skip
        try:
            document = await asyncio.to_thread(_DOCUMENT.decode, content)
        except msgspec.MsgspecError as problem:
            raise BadInput("the findings cannot be read", where=id) from problem
        findings = await asyncio.to_thread(Findings.from_json, document)
        manifest = await self._file(id, node, "manifest.json")
        digest = say.of_this(findings, manifest)
        names = [
            each.name for each in read_manifest(manifest).files if each.name.endswith(".pcapng")
        ]
        file = names[0] if names else ""
        return {
            "incident": _id(id),
            "manifest_sha256": digest,
            "file": f"{node}/{file}" if node else file,
        }, findings

    async def _evidence(self, id: str, file: str) -> dict[str, Json]:
        told = await self._json(f"/v1/incidents/{_id(id)}")
        return {
            "incident": _id(id),
            "manifest_sha256": say.plain(told.get("manifest_sha256")),
            "file": file or "evidence.pcapng",
        }


def _id(text: str) -> str:
    """Raises `BadInput`: nothing else becomes part of a path."""
    return incident_id(text)


def _dicts(value: object) -> list[dict[str, Any]]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []
