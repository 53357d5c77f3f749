"""`tripshark capture`: a capture by hand, as durable and as sealed as one that an alert caused."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.parse
import urllib.request
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
from tripshark.errors import BadInput, Denied, NotFound, Permanent, Transient, TripsharkError
from tripshark.settings import Settings

_CODES: dict[str, type[TripsharkError]] = {
    each.code: each for each in (BadInput, Denied, NotFound, Permanent, Transient)
}


@command
def capture(
    target: Annotated[str, typer.Argument(help="ns/pod, netns:NAME, host, pid:N.")],
    before: Annotated[str, typer.Option("--before", help="History: 30s.")] = "",
    after: Annotated[str, typer.Option("--after", help="How long to go on: 10s.")] = "",
    scope: Annotated[str, typer.Option("--scope", help="flow, peer or pod.")] = "",
    peer: Annotated[str, typer.Option("--peer", help="IP[:PORT] of the other side.")] = "",
    filter: Annotated[str, typer.Option("--filter", help="pcap-filter(7) expression.")] = "",
    max_bytes: Annotated[str, typer.Option("--max-bytes", help="Where to stop: 50MB.")] = "",
    wait: Annotated[bool, typer.Option("--wait", help="Until the evidence is sealed.")] = False,
    config: Config = None,
    data: Data = None,
    listen: Annotated[
        str | None, typer.Option("--listen", help="Where the service listens.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """A capture by hand: history first, then what follows.

    Example: tripshark capture payments/checkout --before 30s --after 10s --peer 203.0.113.66:4444 --wait
    """
    settings = settings_of(config, data, listen=listen)
    asked = {
        "target": target,
        "before": before,
        "after": after,
        "scope": scope,
        "peer": peer,
        "filter": filter,
        "max_bytes": max_bytes,
    }
    url = service_url(settings)
    incident = call(settings, url, "/v1/captures", {k: v for k, v in asked.items() if v})
    if wait:
        incident = _until_sealed(settings, url, str(incident["id"]))
    if as_json:
        emit(incident)
        return
    out.print(f"incident {printable(incident['id'])}  {printable(incident['state'])}")
    if wait:
        out.print(
            f"{incident['packets']} packets ({size(float(str(incident['bytes'])))}), "
            f"ledger {printable(incident['ledger'])}"
        )
        out.print(f"files    {printable(incident['folder'])}")


def service_url(settings: Settings) -> str:
    """Where the service of this data folder listens: as it said itself, else as it is configured."""
    said = settings.data / "listening"
    try:
        return said.read_text(encoding="ascii").strip()
    except OSError:
        scheme = "https" if settings.tls.cert else "http"
        return f"{scheme}://{settings.listen}"


def call(
    settings: Settings, url: str, path: str, body: Mapping[str, object] | None = None
) -> dict[str, object]:
    """One request to the running service. Raises the error that it answered with."""
    request = urllib.request.Request(  # noqa: S310 (http or https by construction)
        url + path,
        data=None if body is None else json.dumps(body).encode(),
        headers={"Content-Type": "application/json"},
    )
    for token in settings.bearer_tokens()[:1]:
        request.add_header("Authorization", f"Bearer {token}")
    try:
        with urllib.request.urlopen(request, timeout=40) as answer:  # noqa: S310
            return dict(json.load(answer))
    except urllib.error.HTTPError as problem:
        raise _told(problem) from problem
    except (OSError, ValueError) as problem:
        raise Transient(
            f"the service does not answer: {problem}",
            where=url,
            hint="is `tripshark run` running? name its --data or --listen",
        ) from problem


def _told(problem: urllib.error.HTTPError) -> TripsharkError:
    try:
        error = json.loads(problem.read(65_536))["error"]
        kind = _CODES.get(error["code"], Permanent)
        return kind(error["message"], where=error["where"], hint=error["hint"])
    except (ValueError, KeyError, TypeError):
        return Permanent(f"the service answered {problem.code}", where=problem.url or "")


def _until_sealed(settings: Settings, url: str, id: str) -> dict[str, object]:
    with err.status("waiting for the capture to end") as status:
        while True:
            incident = call(settings, url, f"/v1/incidents/{urllib.parse.quote(id)}")
            if incident["state"] not in ("open", "sealing"):
                return incident
            status.update(f"{printable(incident['state'])} …")
            time.sleep(0.2)
