"""`tripshark wireshark`: makes stock Wireshark show pods' names, alert rows and live pods, and undoes that."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer

from tripshark.cli.common import (
    AsJson,
    CaFile,
    Config,
    Data,
    TokenFile,
    command,
    emit,
    err,
    out,
    printable,
    settings_of,
)
from tripshark.errors import BadInput, Permanent
from tripshark.formats.wireshark_profile import NAME, archive
from tripshark.wireshark import installer
from tripshark.wireshark.installer import Outcome, Step
from tripshark.wireshark.places import Places, everybody, personal

app = typer.Typer(
    no_args_is_help=True,
    help="Stock Wireshark made to know pods: profile and live capture.",
    rich_markup_mode=None,
)

System = Annotated[
    bool, typer.Option("--system", help="For everybody on this machine, not just for you.")
]


@app.command()
@command
def install(
    system: System = False,
    server: Annotated[
        str,
        typer.Option(
            "--server",
            help="List another Tripshark's incidents and pods as well: https://hub.example:2803.",
            show_default=False,
        ),
    ] = "",
    token_file: TokenFile = None,
    ca_file: CaFile = None,
    profile_only: Annotated[
        bool, typer.Option("--profile-only", help="Not the program for live capture.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Also over files that were changed since.")
    ] = False,
    config: Config = None,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """The profile and the program for live capture, where Wireshark 4.0 to 4.6 finds them.

    Example: tripshark wireshark install
    """
    if server and not server.startswith(("https://", "http://")):
        raise BadInput("not an address of a service", where=server, hint="https://HOST:PORT")
    argv = [sys.executable, "-I", "-m", "tripshark.programs.extcap"]
    argv += ["--data", str(settings_of(config, data).data.absolute())]
    if server:
        argv += ["--at", server]
        argv += ["--at-token-file", str(token_file.absolute())] if token_file else []
        argv += ["--at-ca-file", str(ca_file.absolute())] if ca_file else []
    steps = installer.install(places(system=system), argv, extcap=not profile_only, force=force)
    _tell(steps, as_json=as_json)
    if os.environ.get("SUDO_USER") and not system:
        err.print("[yellow]this is root's Wireshark; without sudo it is yours[/]")
    if any(each.outcome is Outcome.KEPT for each in steps):
        err.print("[yellow]what was kept is somebody's own; --force writes over it[/]")
        raise typer.Exit(3)
    if not as_json:
        out.print(f"Wireshark 4.4 and later take the profile {NAME} for our files by themselves;")
        out.print(f"before: wireshark -C {NAME} FILE, or Edit, Configuration Profiles")


@app.command()
@command
def uninstall(system: System = False, as_json: AsJson = False) -> None:
    """Takes away what install wrote, and nothing else.

    Example: tripshark wireshark uninstall
    """
    steps = installer.uninstall(places(system=system))
    _tell(steps, as_json=as_json)
    if not steps and not as_json:
        out.print("nothing was installed")


@app.command()
@command
def profile(
    output: Annotated[
        Path, typer.Option("-o", "--output", help="File to write; - for standard output.")
    ] = Path("tripshark-profile.zip"),
) -> None:
    """The profile as a zip file: Edit, Configuration Profiles, Import, from zip file.

    Example: tripshark wireshark profile -o tripshark-profile.zip
    """
    content = archive()
    if str(output) == "-":
        sys.stdout.buffer.write(content)
        sys.stdout.buffer.flush()
        return
    try:
        output.write_bytes(content)
    except OSError as problem:
        raise Permanent(f"cannot write: {problem.strerror}", where=str(output)) from problem
    out.print(f"{printable(output)}: {len(content)} bytes")


@app.command()
@command
def status(system: System = False, as_json: AsJson = False) -> None:
    """What is installed, and what was changed since.

    Example: tripshark wireshark status
    """
    _tell(installer.status(places(system=system)), as_json=as_json)


def places(*, system: bool) -> Places:
    """Of this user, or of the machine."""
    if system:
        return everybody(shutil.which("tshark"))
    config = os.environ.get("XDG_CONFIG_HOME", "")
    return personal(Path.home(), Path(config) if config.startswith("/") else None)


def _tell(steps: Sequence[Step], *, as_json: bool) -> None:
    for each in steps:
        line: Mapping[str, object] = {"file": str(each.path), "state": each.outcome.name.lower()}
        if as_json:
            emit(line)
            continue
        colour = "yellow" if each.outcome is Outcome.KEPT else "default"
        out.print(f"[{colour}]{each.outcome.value:<24}[/] {printable(each.path)}")
