"""`tripshark hub`: the fleet's catalogue, page and API, read from the object store."""

from __future__ import annotations

import typer

from tripshark.cli.common import AsJson, Config, Data, command, settings_of
from tripshark.cli.run import Listen, WithAnalyst, tell_json, tell_words
from tripshark.programs import run as machine


@command
def hub(
    config: Config = None,
    data: Data = None,
    listen: Listen = None,
    as_json: AsJson = False,
    with_analyst: WithAnalyst = True,
) -> None:
    """The evidence of many nodes in one place, read from the object store. Ends with Ctrl-C.

    Example: tripshark hub --config /etc/tripshark/tripshark.yaml --listen 127.0.0.1:2803
    """
    overrides = {"ingest.listen": machine.NO_ALERTS}  # a hub takes no alerts
    settings = settings_of(config, data, listen=listen, **overrides)
    only = machine.HUB if with_analyst else ("hub",)
    raise typer.Exit(machine.run(settings, only=only, tell=tell_json if as_json else tell_words))
