"""`tripshark doctor`: what works on this machine, what does not, and how to mend it."""

from __future__ import annotations

import asyncio

import typer

from tripshark.cli.common import (
    AsJson,
    Config,
    Data,
    command,
    emit,
    out,
    plain,
    printable,
    settings_of,
)
from tripshark.programs.examination import examine


@command
def doctor(config: Config = None, data: Data = None, as_json: AsJson = False) -> None:
    """What works here, what does not, and how to mend it; exit code 1 when something must be mended.

    Example: tripshark doctor
    """
    settings = settings_of(config, data)
    checks = asyncio.run(examine(settings))
    if as_json:
        emit({"ok": all(c.state != "bad" for c in checks), "checks": plain(checks)})
    else:
        marks = {"good": "[green]✓[/]", "bad": "[red]✗[/]", "limited": "[yellow]![/]"}
        for check in checks:
            out.print(
                f"{marks[check.state]} [bold]{printable(check.name)}[/] {printable(check.words)}"
            )
            if check.remedy:
                out.print(f"    [dim]→ {printable(check.remedy)}[/]")
    if any(check.state == "bad" for check in checks):
        raise typer.Exit(1)
