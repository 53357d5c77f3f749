"""The command line: one name, one command, one file each."""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Annotated

import typer

from tripshark import __version__

# name, and module below tripshark.cli with a function of that name; in the order in which help shows them
COMMANDS = {
    "run": "run",
    "demo": "demo",
    "recorder": "run",
    "analyst": "run",
    "node": "run",
    "hub": "hub",
    "capture": "capture",
    "targets": "targets",
    "incidents": "incidents",
    "show": "show",
    "export": "evidence",
    "live": "live",
    "open": "open",
    "wireshark": "wireshark",
    "verify": "evidence",
    "merge": "merge",
    "share": "share",
    "analyse": "analyse",
    "hunt": "hunt",
    "mcp": "mcp",
    "doctor": "doctor",
    "settings": "settings",
    "rules": "rules",
}


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"tripshark {__version__}")
        raise typer.Exit


def _root(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    pass


def build(names: Sequence[str] = tuple(COMMANDS)) -> typer.Typer:
    """The application with these commands; only their modules are imported, which is most of what starting costs."""
    made = typer.Typer(
        name="tripshark",
        help="Falco fires; you get the packets from before it fired, in one sealed file that Wireshark reads.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        add_completion=True,
        rich_markup_mode=None,
    )
    made.callback()(_root)
    for name in names:
        module = import_module(f"tripshark.cli.{COMMANDS[name]}")
        if name in ("rules", "wireshark"):
            made.add_typer(module.app, name=name)
        else:
            command = getattr(module, name)
            made.command(short_help=(command.__doc__ or "").partition("\n")[0])(command)
    return made


def main() -> None:
    """Entry point of the console script."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal without Unicode shows escapes
            stream.reconfigure(errors="backslashreplace")
    asked = sys.argv[1:2]
    if asked == ["--version"]:
        build(())()
    build(asked if asked and asked[0] in COMMANDS else tuple(COMMANDS))()
