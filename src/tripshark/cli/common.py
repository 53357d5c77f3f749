"""What every command shares: where settings come from, how answers and errors are printed."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import wraps
from pathlib import Path
from typing import Annotated, ParamSpec, TypeVar

import typer
from rich.console import Console

from tripshark.errors import BadInput, TripsharkError
from tripshark.model.units import ns_of
from tripshark.settings import Settings, load

out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)

P = ParamSpec("P")
R = TypeVar("R")

Config = Annotated[
    Path | None,
    typer.Option("--config", help="Configuration file (YAML).", show_default=False),
]
Data = Annotated[
    Path | None,
    typer.Option("--data", help="Folder of evidence, journal and catalogue.", show_default=False),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]
Incident = Annotated[str, typer.Argument(help="Incident id, or the beginning of one; `last`.")]

# C0 and C1 controls, bidirectional overrides and isolates: they could rewrite a terminal or its reader's order
_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def settings_of(config: Path | None, data: Path | None = None, **overrides: object) -> Settings:
    """Everything is read once, here."""
    return load(config, {"data": data and str(data), **overrides})


def printable(text: object) -> str:
    """Foreign text for a terminal: controls become visible escapes, markup stays text."""
    return _UNPRINTABLE.sub(lambda m: f"\\x{ord(m[0]):02x}", str(text)).replace("[", "\\[")


def emit(value: object) -> None:
    """One JSON document, or one line of JSON lines."""
    sys.stdout.write(json.dumps(value, default=str, ensure_ascii=True) + "\n")
    sys.stdout.flush()


def when(ns: int) -> str:
    """A time for people: UTC, to the millisecond."""
    if not ns:
        return "–"
    at = datetime.fromtimestamp(ns / 1e9, tz=UTC)
    return f"{at:%Y-%m-%d %H:%M:%S}.{ns // 1_000_000 % 1000:03d}Z"


def size(count: float) -> str:
    """`48 kB`, as tools that capture say it."""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(count) < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def span(seconds: float) -> str:
    """`42 s`, `3.5 min`, `2.1 h`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    if seconds < 3600:
        return f"{seconds / 60:.1f} min"
    return f"{seconds / 3600:.1f} h"


def duration_ns(text: str) -> int:
    """`30s`, `2m`, `500ms` in nanoseconds. Raises `BadInput`."""
    try:
        return ns_of(text)
    except ValueError as problem:
        raise BadInput(str(problem), hint="write 30s, 2m or 500ms") from problem


def fail(problem: TripsharkError, *, as_json: bool) -> typer.Exit:
    """Print what did not work, where, and what to do; the exit code says which kind it was."""
    if as_json:
        emit(problem.as_json())
    err.print(f"[bold red]tripshark:[/] {printable(problem.message)}")
    if problem.where:
        err.print(f"  [dim]where[/] {printable(problem.where)}")
    if problem.hint:
        err.print(f"  [dim]do   [/] {printable(problem.hint)}")
    return typer.Exit(problem.exit_code)


def command(function: Callable[P, R]) -> Callable[P, R]:
    """Errors raised on purpose are told as such; anything else is a bug and shows its traceback."""

    @wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except TripsharkError as problem:
            raise fail(problem, as_json=bool(kwargs.get("as_json"))) from problem
        except BrokenPipeError:
            raise typer.Exit(0) from None

    return run


def plain(value: object) -> object:
    """A frozen value as plain JSON."""
    import msgspec

    return msgspec.to_builtins(value)


def without(mapping: Mapping[str, object], *names: str) -> dict[str, object]:
    return {key: value for key, value in mapping.items() if key not in names}
