"""Draws the picture of the README from a real run: `tripshark demo`, as a terminal shows it.

`python docs/pictures/make.py` (as root, or where user namespaces are allowed) runs the demo and writes
`docs/pictures/demo.svg`. Only the width is ours: columns are cut so that the picture can be read.
"""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import TerminalTheme
from rich.text import Text

HERE = Path(__file__).parent
WIDTH = 118
FIELDS = ("No.", "Time", "Source", "Destination", "Protocol", "Info")
PALETTE = {"DNS": "#9fd3ff", "TCP": "#d6cff5"}

# No fonts are fetched from anywhere: the reader's own monospace does.
SVG = """<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img">
<title>tripshark demo: packets from before the alert, of a pod that is gone</title>
<style>
.{unique_id}-matrix {{ font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace;
  font-size: {char_height}px; line-height: {line_height}px; font-variant-east-asian: full-width; }}
.{unique_id}-title {{ display: none; }}
{styles}
</style>
<defs>
<clipPath id="{unique_id}-clip-terminal">
  <rect x="0" y="0" width="{terminal_width}" height="{terminal_height}" />
</clipPath>
{lines}
</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
"""
THEME = TerminalTheme(
    (22, 27, 34), (220, 226, 233), [(72, 79, 88), (255, 123, 114), (63, 185, 80), (210, 153, 34),
    (88, 166, 255), (188, 140, 255), (57, 197, 207), (177, 186, 196)],
)  # fmt: skip


def main() -> None:
    command = [sys.executable, "-m", "tripshark", "demo", "--keep", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603 (our own program)
    said = json.loads(done.stdout)
    folder = Path(said["folder"])
    screen = Console(record=True, width=WIDTH, file=io.StringIO(), highlight=False)
    screen.print("[bold green]$[/] [bold]tripshark demo[/]")
    for line in done.stderr.splitlines():
        time, _, words = line.strip().partition(" s")
        screen.print(Text.assemble((f"{time:>5} s  ", "dim"), words.strip()))
    screen.print()
    screen.print(Text(said["summary"], style="bold"))
    screen.print()
    screen.print(f"[bold green]$[/] [bold]tshark -N n -r {folder.name}/evidence.pcapng[/]")
    for row in _packet_list(folder / "evidence.pcapng"):
        screen.print(row)
    screen.print()
    screen.print(f"[bold green]$[/] [bold]tripshark verify {folder.name}[/]")
    verified = subprocess.run(  # noqa: S603 (our own program)
        [sys.executable, "-m", "tripshark", "verify", str(folder), "--data", said["data"]],
        capture_output=True,
        text=True,
        check=True,
    )
    for line in verified.stdout.splitlines():
        mark, _, rest = _cut(line).partition(" ")
        if mark == "✓":
            screen.print(Text.assemble((mark, "green"), " ", rest))
        else:
            screen.print(Text(line, style="bold green"))
    svg = screen.export_svg(title="", theme=THEME, code_format=SVG, unique_id="demo")
    (HERE / "demo.svg").write_text(svg, encoding="utf-8")


def _packet_list(path: Path) -> Iterator[Text]:
    """What stock tshark prints, with Wireshark's colours for DNS, TCP and the alert."""
    columns = [word for name in FIELDS for word in ("-e", f"_ws.col.{name}")]
    done = subprocess.run(  # noqa: S603 (a fixed program on a file of ours)
        ["tshark", "-N", "n", "-r", str(path), "-T", "fields", "-E", "separator=/t", *columns],  # noqa: S607
        capture_output=True,
        text=True,
        check=True,
    )
    rows = [FIELDS, *(line.split("\t") for line in done.stdout.splitlines())]
    for row in rows:
        number, time, source, target, protocol, info = row
        is_alert = info.startswith("FALCO")
        style = "bold #ffffff on #a40000" if is_alert else PALETTE.get(protocol, "dim")
        protocol = (
            "Journal" if is_alert else protocol
        )  # "systemd Journal" is wider than its column
        line = f"{number:>3} {time[:8]:<8} {source:<22} {target:<22} {protocol:<8} {info}"
        yield Text(_cut(line).ljust(WIDTH) if is_alert else _cut(line), style=style)


def _cut(line: str) -> str:
    return line if len(line) <= WIDTH else line[: WIDTH - 1] + "…"


if __name__ == "__main__":
    main()
