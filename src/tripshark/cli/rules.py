"""`tripshark rules`: check, print, and ask what an event would lead to."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Annotated

import typer
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
from tripshark.errors import BadInput, Transient
from tripshark.formats import falco
from tripshark.formats.rulefile import render
from tripshark.model.alert import Alert
from tripshark.model.plan import Plan, decide
from tripshark.model.rule import evaluate
from tripshark.model.target import (
    Identity,
    Interface,
    Resolution,
    RingState,
    Target,
    TargetKey,
    TargetKind,
)
from tripshark.programs import parts
from tripshark.programs.clock import SystemClock
from tripshark.recorder.client import RecorderClient
from tripshark.settings import Settings
from tripshark.targets.local import LocalTargets

app = typer.Typer(
    help="Rules: check them, print them, ask what an event would lead to.", no_args_is_help=True
)

Files = Annotated[
    list[Path] | None,
    typer.Argument(help="Rule files or folders; default: those of the settings."),
]


def _settings(config: Path | None, data: Path | None, files: list[Path] | None) -> Settings:
    return settings_of(config, data, rules=[str(each) for each in files] if files else None)


@app.command()
@command
def check(files: Files = None, config: Config = None, as_json: AsJson = False) -> None:
    """All problems of all rule files at once, each with file and line.

    Example: tripshark rules check rules.d/
    """
    settings = _settings(config, None, files)
    loaded = parts.load_rules(settings)
    if as_json:
        emit({"ok": loaded.ok, "rules": len(loaded.rules), "problems": plain(loaded.problems)})
    else:
        for problem in loaded.problems:
            colour = "red" if problem.severity == "error" else "yellow"
            err.print(f"[{colour}]{printable(problem)}[/]")
        if loaded.ok:
            out.print(f"{len(loaded.rules)} rules are good")
    if not loaded.ok:
        raise typer.Exit(3)


@app.command("print")
@command
def print_(files: Files = None, config: Config = None, as_json: AsJson = False) -> None:
    """The rules as they are in force: all files merged.

    Example: tripshark rules print
    """
    loaded = parts.load_rules(_settings(config, None, files))
    if not loaded.ok:
        raise BadInput(
            "\n".join(str(problem) for problem in loaded.problems), where="rules", hint="mend them"
        )
    if as_json:
        emit([plain(rule.document) for rule in loaded.rules])
    else:
        sys.stdout.write(render(loaded.rules))


@app.command()
@command
def test(
    event: Annotated[Path, typer.Argument(help="A Falco event as JSON, - for standard input.")],
    files: Annotated[
        list[Path] | None, typer.Option("--rules", help="Rule files or folders.")
    ] = None,
    config: Config = None,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Which rule matches an event and why, and which target, window and filter would result.

    Example: tripshark rules test event.json
    """
    settings = _settings(config, data, files)
    loaded = parts.load_rules(settings)
    if not loaded.ok:
        raise BadInput("\n".join(str(problem) for problem in loaded.problems), where="rules")
    try:
        body = sys.stdin.buffer.read() if str(event) == "-" else event.read_bytes()
    except OSError as problem:
        raise BadInput(f"cannot read the event: {problem.strerror}", where=str(event)) from problem
    alert = falco.decode(body)
    resolution = asyncio.run(_resolve(settings, alert))
    verdict = evaluate(loaded.rules, alert, resolution.target)
    answer = decide(
        alert,
        verdict,
        resolution,
        now_ns=SystemClock().now_ns(),
        defaults=parts.defaults(settings),
    )
    if as_json:
        emit(
            {
                "alert": {
                    "rule": alert.rule,
                    "priority": alert.priority.title,
                    "t0_ns": alert.time_ns,
                },
                "target": resolution.target.title if resolution.target else None,
                "target_reason": resolution.reason,
                "rules": [
                    {"rule": t.rule.name, "matched": t.matched, "why_not": list(t.why)}
                    for t in verdict.traces
                ],
                "plan" if isinstance(answer, Plan) else "refusal": plain(answer),
            }
        )
    else:
        _show(alert, resolution, answer, [(t.rule.name, t.matched, t.why) for t in verdict.traces])
    if not isinstance(answer, Plan):
        raise typer.Exit(3)


async def _resolve(settings: Settings, alert: Alert) -> Resolution:
    """From the running recorder; without one, from the static map as if it were recorded."""
    client = RecorderClient(str(settings.recorder_socket))
    try:
        targets = LocalTargets(client, parts.residents(settings), SystemClock(), node="")
        return await targets.resolve(alert)
    except Transient:
        supposed = LocalTargets(
            _Supposed(settings), parts.residents(settings), SystemClock(), node=""
        )
        answer = await supposed.resolve(alert)
        return Resolution(
            target=answer.target,
            reason=f"{answer.reason} (no recorder is running: taken from targets.static)",
            hint=answer.hint,
        )
    finally:
        client.close()


class _Supposed:
    """What a recorder would tell if every configured namespace were recorded."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    async def targets(self) -> tuple[Target, ...]:
        ring = RingState(
            ring="supposed",
            interface=Interface(name="eth0", ifindex=2, hardware_type=1),
            live=True,
            bytes=0,
            snaplen=self._settings.recorder.snaplen,
        )
        names = [
            f"netns:{r.netns}" if r.netns else f"pid:{r.pid}"
            for r in self._settings.targets.static
        ]
        return tuple(
            Target(
                key=TargetKey(name),
                kind=TargetKind.HOST if name == "host" else TargetKind.NETNS,
                name=name,
                inode=0,
                since_ns=0,
                identity=Identity(),
                rings=(ring,),
            )
            for name in [*names, "host"]
        )

    async def inode_of(self, pid: int) -> int | None:
        return None


def _show(
    alert: Alert,
    resolution: Resolution,
    answer: object,
    traces: list[tuple[str, bool, tuple[str, ...]]],
) -> None:
    out.print(f"[bold]{printable(alert.rule)}[/] ({alert.priority.title})")
    target = resolution.target.title if resolution.target else "none"
    out.print(f"target  {printable(target)} – {printable(resolution.reason)}")
    if resolution.hint:
        out.print(f"        [dim]{printable(resolution.hint)}[/]")
    table = Table(box=None, padding=(0, 2, 0, 0))
    for heading in ("rule", "matches", "why not"):
        table.add_column(heading, overflow="fold")
    for name, matched, why in traces:
        table.add_row(
            printable(name), "[green]yes[/]" if matched else "no", printable("; ".join(why))
        )
    out.print(table)
    if isinstance(answer, Plan):
        out.print(f"[green]would capture[/] – {printable(answer.reason)}")
        out.print(
            f"window  {answer.before_ns / 1e9:g} s before to {answer.after_ns / 1e9:g} s after the event"
        )
        for number, rung in enumerate(answer.rungs):
            word = "filter " if not number else "or else"
            out.print(f"{word} {rung.scope}: {printable(rung.core) or 'everything'}")
            out.print(f"        [dim]{printable(rung.reason)}[/]")
    else:
        out.print(f"[yellow]would not capture[/] – {printable(getattr(answer, 'message', ''))}")
        out.print(f"        [dim]{printable(getattr(answer, 'hint', ''))}[/]")
