"""Which capture file of sealed evidence a command means, and that there are others."""

from __future__ import annotations

from pathlib import Path

from tripshark.cli.common import err, printable
from tripshark.programs.reading import capture_file


def capture_of(folder: Path, name: str) -> Path:
    """The capture file that was asked for, or the first; the others are told. Raises `NotFound`."""
    chosen, others = capture_file(folder, name)
    if others and not name:
        err.print(f"[yellow]there is more: --file {printable(', '.join(others))}[/]")
    return chosen
