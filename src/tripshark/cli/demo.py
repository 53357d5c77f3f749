"""`tripshark demo`: the whole job in under a minute, with real packets."""

from __future__ import annotations

import sys
import time
from typing import Annotated

import typer

from tripshark.cli.common import AsJson, command, emit, err, out, plain, printable
from tripshark.errors import Permanent
from tripshark.programs import demo as program


@command
def demo(
    keep: Annotated[
        bool,
        typer.Option(
            "--keep", help="Keep the whole data folder, so that other commands can look at it."
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """A pod beacons to its C2, dies, and only then Falco's alert arrives. The evidence is complete.

    Example: tripshark demo --keep
    """
    import os

    missing = program.needs()
    if missing:
        raise Permanent("the demo cannot run here", hint=missing)
    if os.geteuid() != 0:
        why = program.enter_user_namespace([sys.executable, "-m", "tripshark", *sys.argv[1:]])
        raise Permanent("the demo cannot run here", hint=why)
    program.prepare_inside()
    began = time.monotonic()

    def say(text: str) -> None:
        err.print(f"[dim]{time.monotonic() - began:5.1f} s[/]  {printable(text)}")

    outcome = program.run(say, keep=keep)
    if as_json:
        emit(plain(outcome))
        return
    out.print(f"\n[bold]{printable(outcome.summary)}[/]\n")
    out.print("Stock Wireshark's packet list (tshark -N n):")
    for row in outcome.rows:
        colour = "bold red" if "FALCO" in row else "default"
        out.print(f"  [{colour}]{printable(row[:150])}[/]")
    out.print(
        f"\nledger [green]{outcome.ledger}[/]: {outcome.packets} packets, the first one "
        f"{outcome.seconds_before_alert * 1000:.1f} ms before the alert, from a pod that was gone when it came"
    )
    out.print(f"evidence {printable(outcome.folder)}")
    out.print(f"next     wireshark {printable(outcome.folder)}/evidence.pcapng")
    out.print(f"         tripshark verify {printable(outcome.folder)}")
    if keep:
        out.print(f"         tripshark show last --data {printable(outcome.data)}")
        out.print(f"         tripshark open last --data {printable(outcome.data)}")
        out.print(
            f"         tripshark run --data {printable(outcome.data)}   and then http://127.0.0.1:2803/"
        )
