"""`tripshark settings`: every setting, what it means, and where its value comes from."""

from __future__ import annotations

from rich.table import Table

from tripshark.cli.common import (
    AsJson,
    Config,
    Data,
    command,
    emit,
    err,
    out,
    plain,
    printable,
    settings_of,
)
from tripshark.settings import explain


@command
def settings(config: Config = None, data: Data = None, as_json: AsJson = False) -> None:
    """Every setting: meaning, unit, default, value in force and where it came from.

    Example: tripshark settings --config /etc/tripshark/tripshark.yaml
    """
    loaded = settings_of(config, data)
    if as_json:
        for each in explain(loaded):
            emit(plain(each))
        return
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for heading in ("setting", "value", "unit", "from", "meaning"):
        table.add_column(heading, overflow="fold")
    for each in explain(loaded):
        changed = each.source != "default"
        table.add_row(
            printable(each.name),
            f"[bold]{printable(each.value)}[/]" if changed else printable(each.value),
            printable(each.unit),
            printable(each.source) if changed else "[dim]default[/]",
            printable(each.meaning),
        )
    out.print(table)
    for warning in loaded.warnings:
        err.print(f"[yellow]{printable(warning)}[/]")
