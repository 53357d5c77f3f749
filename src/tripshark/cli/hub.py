"""`tripshark hub`: the fleet's catalogue, page and API, read from the object store."""

from __future__ import annotations

import typer

from tripshark.cli.common import AsJson, Config, Data, command, settings_of
from tripshark.cli.run import Listen, tell_json, tell_words
from tripshark.programs import hub as program

NO_ALERTS = (
    "127.0.0.1:0"  # never bound: a hub takes no alerts, so nobody needs credentials for them
)


@command
def hub(
    config: Config = None, data: Data = None, listen: Listen = None, as_json: AsJson = False
) -> None:
    """The evidence of many nodes in one place, read from the object store. Ends with Ctrl-C.

    Example: tripshark hub --config /etc/tripshark/tripshark.yaml --listen 127.0.0.1:2803
    """
    settings = settings_of(config, data, listen=listen, **{"ingest.listen": NO_ALERTS})
    raise typer.Exit(program.run(settings, tell=tell_json if as_json else tell_words))
