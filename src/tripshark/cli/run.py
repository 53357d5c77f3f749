"""`tripshark run`, `recorder`, `analyst` and `node`: the processes of one machine, together or one by one."""

from __future__ import annotations

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
    paragraphs,
    printable,
    settings_of,
)
from tripshark.programs import run as machine

Listen = Annotated[
    str | None,
    typer.Option(
        "--listen", help="ADDRESS:PORT for alerts, API and web page.", show_default=False
    ),
]

WithAnalyst = Annotated[
    bool,
    typer.Option("--analyst/--no-analyst", help="Whether the analyst is started here too."),
]


@command
def run(
    config: Config = None, data: Data = None, listen: Listen = None, as_json: AsJson = False
) -> None:
    """Everything on this machine: recorder, responder, web page. Ends with Ctrl-C.

    Example: tripshark run --listen 127.0.0.1:2803 --data /var/lib/tripshark
    """
    settings = settings_of(config, data, listen=listen)
    raise typer.Exit(machine.run(settings, tell=tell_json if as_json else tell_words))


@command
def recorder(config: Config = None, data: Data = None, as_json: AsJson = False) -> None:
    """The privileged side alone: the recorder, and the scout that asks the container runtimes.

    Example: tripshark recorder --config /etc/tripshark/tripshark.yaml
    """
    settings = settings_of(config, data)
    only = ("recorder", "scout")
    raise typer.Exit(machine.run(settings, only=only, tell=tell_json if as_json else tell_words))


@command
def analyst(config: Config = None, data: Data = None, as_json: AsJson = False) -> None:
    """The analyst alone: dissects what the responder hands it, as the user who started it.

    Example: tripshark analyst --config /etc/tripshark/tripshark.yaml
    """
    settings = settings_of(config, data)
    raise typer.Exit(
        machine.run(settings, only=("analyst",), tell=tell_json if as_json else tell_words)
    )


@command
def node(
    config: Config = None,
    data: Data = None,
    listen: Listen = None,
    as_json: AsJson = False,
    with_analyst: WithAnalyst = True,
) -> None:
    """The responder (and its analyst) alone; the recorder runs elsewhere on this machine.

    Example: tripshark node --config /etc/tripshark/tripshark.yaml
    """
    settings = settings_of(config, data, listen=listen)
    only = ("analyst", "responder") if with_analyst else ("responder",)
    raise typer.Exit(machine.run(settings, only=only, tell=tell_json if as_json else tell_words))


def tell_json(event: str, details: Mapping[str, object]) -> None:
    """One line of JSON."""
    emit({"event": event, **details})


def tell_words(event: str, details: Mapping[str, object]) -> None:
    """One line for people."""
    program = printable(details.get("program", ""))
    error = details.get("error")
    if event == "ready" and "url" in details:
        err.print(f"[green]●[/] {program} is ready: [bold]{printable(details['url'])}[/]")
    elif event.startswith("ready"):
        err.print(f"[green]●[/] {program} is {event}")
    elif isinstance(error, Mapping):
        err.print(f"[red]●[/] {program} {event}: {paragraphs(error.get('message', ''))}")
        for name, word in (("where", "where"), ("hint", "do   ")):
            if error.get(name):
                err.print(f"    [dim]{word}[/] {paragraphs(error[name])}")
    else:
        rest = ", ".join(f"{k} {printable(v)}" for k, v in details.items() if k != "program")
        err.print(f"[red]●[/] {program} {event}{': ' + rest if rest else ''}")
