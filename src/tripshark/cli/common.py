"""What every command shares: where settings come from, how answers and errors are printed."""

from __future__ import annotations

import inspect
import json
import os
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from functools import wraps
from pathlib import Path
from typing import Annotated, ParamSpec, TypeVar

import typer
from rich.console import Console
from rich.markup import escape

from tripshark.errors import BadInput, Denied, TripsharkError
from tripshark.model.text import visible
from tripshark.model.units import ns_of
from tripshark.settings import Settings, load

out = Console(highlight=False, soft_wrap=True, emoji=False)
err = Console(stderr=True, highlight=False, soft_wrap=True, emoji=False)

P = ParamSpec("P")
R = TypeVar("R")

Config = Annotated[
    Path | None,
    typer.Option(
        "--config", help="Configuration file (YAML).", show_default=False, readable=False
    ),
]
Data = Annotated[
    Path | None,
    typer.Option(
        "--data",
        help="Folder of evidence, journal and catalogue.",
        show_default=False,
        readable=False,
    ),
]
TokenFile = Annotated[
    Path | None,
    typer.Option("--token-file", help="A file with the token for it.", show_default=False),
]
CaFile = Annotated[
    Path | None,
    typer.Option("--ca-file", help="The authority of its certificate.", show_default=False),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]
Incident = Annotated[str, typer.Argument(help="Incident id, or the beginning of one; `last`.")]


def settings_of(config: Path | None, data: Path | None = None, **overrides: object) -> Settings:
    """Everything is read once, here."""
    return load(config, {"data": data and str(data), **overrides})


def printable(text: object) -> str:
    """Foreign text for one line of a terminal: what cannot be seen becomes a visible escape, markup stays text.

    A backslash at its end would escape markup of ours behind it, so it is spelled out.
    """
    shown = seen(text)
    kept = shown.rstrip("\\")
    return escape(kept) + "\\x5c" * (len(shown) - len(kept))


def seen(text: object) -> str:
    """The same without care for rich's markup.

    Controls, line ends, bidirectional and zero-width characters and half characters could rewrite the terminal, fake
    a line of ours, or show a text in another order than it has.
    """
    return visible(str(text))


def paragraphs(text: object) -> str:
    """Words of ours that may have several lines, each made printable."""
    return "\n".join(printable(line) for line in str(text).split("\n"))


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
    err.print(f"[bold red]tripshark:[/] {paragraphs(problem.message)}")
    if problem.where:
        err.print(f"  [dim]where[/] {printable(problem.where)}")
    if problem.hint:
        err.print(f"  [dim]do   [/] {paragraphs(problem.hint)}")
    return typer.Exit(problem.exit_code)


def command(function: Callable[P, R]) -> Callable[P, R]:
    """Errors raised on purpose are told as such; anything else is a bug and shows its traceback."""

    function.__doc__ = _example_apart(function.__doc__ or "")

    @wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except TripsharkError as problem:
            raise fail(problem, as_json=bool(kwargs.get("as_json"))) from problem
        except PermissionError as problem:
            denied = Denied(
                f"this user may not: {problem.strerror}",
                where=str(problem.filename or ""),
                hint="run it as root, or as a user of the group that owns the folder",
            )
            raise fail(denied, as_json=bool(kwargs.get("as_json"))) from problem
        except BrokenPipeError:
            no_more_output()
            raise typer.Exit(0) from None

    return run


def _example_apart(text: str) -> str:
    """The docstring as help shows it: an example keeps its line, so that it can be copied."""
    before, word, example = inspect.cleandoc(text).partition("Example: ")
    lines = [" ".join(line.split()) for line in example.splitlines() if line.strip()]
    return f"{before}\b\nExample:\n  " + "\n  ".join(lines) if word else text


def no_more_output() -> None:
    """Whoever read our output has left: what Python still wants to flush at its end goes nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)


def plain(value: object) -> object:
    """A frozen value as plain JSON."""
    import msgspec

    return msgspec.to_builtins(value)
