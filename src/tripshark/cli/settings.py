"""`tripshark settings`: every setting, what it means, and where its value comes from."""

from __future__ import annotations

from tripshark.cli import table
from tripshark.cli.common import (
    AsJson,
    Config,
    Data,
    command,
    emit,
    err,
    plain,
    printable,
    settings_of,
)
from tripshark.cli.table import Column
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
    rows = []
    for each in explain(loaded):
        changed = each.source != "default"
        rows.append(
            (
                printable(each.name),
                f"[bold]{printable(each.value)}[/]" if changed else printable(each.value),
                printable(each.unit),
                printable(each.source) if changed else "[dim]default[/]",
                printable(each.meaning),
            )
        )
    table.show(COLUMNS, rows)
    for warning in loaded.warnings:
        err.print(f"[yellow]{printable(warning)}[/]")


COLUMNS = (
    Column("setting"),
    Column("value", least=14),
    Column("unit", rank=1),
    Column("from", least=12),
    Column("meaning", least=16),
)
