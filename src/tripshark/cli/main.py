"""The command line: one name, one command, one file each."""

from __future__ import annotations

import io
import sys
from typing import Annotated

import typer

from tripshark import __version__
from tripshark.cli import (
    analyse,
    capture,
    demo,
    doctor,
    evidence,
    hub,
    incidents,
    live,
    merge,
    rules,
    run,
    targets,
)
from tripshark.cli import settings as settings_command

app = typer.Typer(
    name="tripshark",
    help="Falco fires; you get the packets from before it fired, in one sealed file that Wireshark reads.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=True,
    rich_markup_mode=None,
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"tripshark {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    pass


for each in (
    run.run,
    demo.demo,
    run.recorder,
    run.analyst,
    run.node,
    hub.hub,
    capture.capture,
    targets.targets,
    incidents.incidents,
    incidents.show,
    evidence.export,
    live.live,
    evidence.verify,
    merge.merge,
    analyse.analyse,
    doctor.doctor,
    settings_command.settings,
):
    app.command(short_help=(each.__doc__ or "").partition("\n")[0])(each)
app.add_typer(rules.app, name="rules")


def main() -> None:
    """Entry point of the console script."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal without Unicode shows escapes
            stream.reconfigure(errors="backslashreplace")
    app()
