"""`tripshark analyse`: evidence read again, with today's tools; what was sealed stays as it is."""

from __future__ import annotations

import asyncio

from tripshark.cli.common import (
    AsJson,
    Config,
    Data,
    Incident,
    command,
    emit,
    err,
    out,
    printable,
    settings_of,
)
from tripshark.model.finding import Findings
from tripshark.programs.again import analyse_again


@command
def analyse(
    incident: Incident, config: Config = None, data: Data = None, as_json: AsJson = False
) -> None:
    """The findings made again with today's tools; the sealed evidence stays as it is.

    Example: tripshark analyse last
    """
    settings = settings_of(config, data)
    with err.status("tshark is reading the evidence"):
        findings = asyncio.run(analyse_again(settings, incident))
    _tell(findings, as_json=as_json)


def _tell(findings: Findings, *, as_json: bool) -> None:
    if as_json:
        emit(findings.as_json())
    else:
        out.print(printable(findings.summary))
