"""`tripshark capture`: a capture by hand, as durable and as sealed as one that an alert caused."""

from __future__ import annotations

import time
import urllib.parse
from collections.abc import Mapping
from typing import Annotated

import typer

from tripshark.cli.common import (
    AsJson,
    Config,
    Data,
    command,
    emit,
    err,
    out,
    printable,
    settings_of,
    size,
)
from tripshark.programs.service import Service

READ_WITHIN = 5.0  # seconds that the analyst may take before we no longer wait for its paragraph


@command
def capture(
    target: Annotated[
        str,
        typer.Argument(
            help="ns/pod, ns/deployment/NAME, ns/service/NAME, netns:NAME, pid:N, container:ID or host."
        ),
    ],
    before: Annotated[
        str, typer.Option("--before", help="History to take: 30s.", show_default=False)
    ] = "",
    after: Annotated[
        str, typer.Option("--after", help="How long to go on: 10s.", show_default=False)
    ] = "",
    scope: Annotated[
        str, typer.Option("--scope", help="flow, peer or pod.", show_default=False)
    ] = "",
    peer: Annotated[
        str, typer.Option("--peer", help="IP[:PORT] of the other side.", show_default=False)
    ] = "",
    filter: Annotated[
        str,
        typer.Option(
            "--filter", help="pcap-filter(7) expression: not port 9100.", show_default=False
        ),
    ] = "",
    max_bytes: Annotated[
        str, typer.Option("--max-bytes", help="Stop at this size: 50MB.", show_default=False)
    ] = "",
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait until the evidence is sealed.")
    ] = False,
    config: Config = None,
    data: Data = None,
    listen: Annotated[
        str | None,
        typer.Option("--listen", help="ADDRESS:PORT of the service.", show_default=False),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """A capture by hand: history first, then what follows.

    Example: tripshark capture payments/checkout --before 30s --after 10s --peer 203.0.113.66:4444 --wait
    """
    service = Service(settings_of(config, data, listen=listen), at=listen)
    asked = {
        "target": target,
        "before": before,
        "after": after,
        "scope": scope,
        "peer": peer,
        "filter": filter,
        "max_bytes": max_bytes,
    }
    incident = service.call("/v1/captures", {k: v for k, v in asked.items() if v})
    if wait:
        incident = _until_sealed(service, str(incident["id"]))
    failed = incident["state"] == "failed"
    if as_json:
        emit(incident)
    else:
        _tell(incident, whole=wait)
    if failed:
        raise typer.Exit(1)


def _tell(incident: Mapping[str, object], *, whole: bool) -> None:
    out.print(f"incident {printable(incident['id'])}  {printable(incident['state'])}")
    if not whole:
        out.print(f"follow   tripshark show {printable(incident['id'])}")
        return
    out.print(
        f"packets  {incident['packets']} ({size(float(str(incident['bytes'])))}), "
        f"ledger {printable(incident['ledger'])}"
    )
    for name in ("summary", "problem"):
        if incident.get(name):
            out.print(f"{name:8} {printable(incident[name])}")
    if incident["folder"]:
        out.print(f"files    {printable(incident['folder'])}")


def _until_sealed(service: Service, id: str) -> dict[str, object]:
    """The incident once it is sealed and read, or once it is clear that it will not be."""
    began = time.monotonic()
    read_by = 0.0
    with err.status("recording") as status:
        while True:
            incident = service.call(f"/v1/incidents/{urllib.parse.quote(id)}")
            gone = f"{time.monotonic() - began:.0f} s"
            if incident["state"] in ("open", "sealing"):
                doing = "recording" if incident["state"] == "open" else "sealing"
            elif incident["summary"] or incident["problem"] or not incident["packets"]:
                return incident
            else:
                read_by = read_by or time.monotonic() + READ_WITHIN
                doing = "reading"
                if time.monotonic() > read_by:
                    return incident
            status.update(f"{doing} … {gone}")
            time.sleep(0.2)
