"""`tripshark rules`: check, print, and ask what an event would lead to."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Annotated

import typer

from tripshark.cli import table
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
from tripshark.cli.table import Column
from tripshark.errors import BadInput, NotFound, Transient
from tripshark.formats import falco
from tripshark.formats.rulefile import render
from tripshark.model.alert import Alert
from tripshark.model.plan import Plan
from tripshark.model.target import Resolution, Target, TargetKey, TargetKind
from tripshark.programs import parts
from tripshark.programs.clock import SystemClock
from tripshark.programs.here import local_targets
from tripshark.respond import trial
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
    """All problems of all rule files at once, each with file and line; exit code 3 when there are errors.

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
    tried = trial.judged(
        alert,
        resolution,
        rules=loaded.rules,
        now_ns=SystemClock().now_ns(),
        defaults=parts.defaults(settings),
    )
    verdict, answer, would_be = tried.verdict, tried.answer, tried.supposed
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
                **({"where_it_is_recorded": plain(would_be)} if would_be else {}),
            }
        )
    else:
        _show(alert, resolution, answer, [(t.rule.name, t.matched, t.why) for t in verdict.traces])
        if isinstance(would_be, Plan):
            out.print("\nOn a machine that records the target:")
            _show_plan(would_be)
    if not isinstance(answer, Plan):
        raise typer.Exit(3)


async def _resolve(settings: Settings, alert: Alert) -> Resolution:
    """From the running recorder; without one, from the static map as if it were recorded."""
    try:
        with local_targets(settings) as (_, targets):
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


class _Supposed:
    """What a recorder would tell if every configured namespace were recorded."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    async def targets(self) -> tuple[Target, ...]:
        names = [
            f"netns:{r.netns}" if r.netns else f"pid:{r.pid}"
            for r in self._settings.targets.static
        ]
        return tuple(
            trial.supposed(
                name,
                TargetKind.HOST if name == "host" else TargetKind.NETNS,
                snaplen=self._settings.recorder.snaplen,
            )
            for name in [*names, "host"]
        )

    async def inode_of(self, pid: int) -> int | None:
        return None

    async def attach(self, pid: int) -> TargetKey:
        raise NotFound("nothing is recorded here")


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
    table.show(
        (Column("rule", least=20), Column("matches"), Column("why not", least=30)),
        [
            (printable(name), "[green]yes[/]" if matched else "no", printable("; ".join(why)))
            for name, matched, why in traces
        ],
    )
    if isinstance(answer, Plan):
        _show_plan(answer)
    else:
        out.print(f"[yellow]would not capture[/] – {printable(getattr(answer, 'message', ''))}")
        out.print(f"        [dim]{printable(getattr(answer, 'hint', ''))}[/]")


def _show_plan(answer: Plan) -> None:
    out.print(f"[green]would capture[/] – {printable(answer.reason)}")
    out.print(
        f"window  {answer.before_ns / 1e9:g} s before to {answer.after_ns / 1e9:g} s after the event"
    )
    for number, rung in enumerate(answer.rungs):
        word = "filter " if not number else "or else"
        out.print(f"{word} {rung.scope}: {printable(rung.core) or 'everything'}")
        out.print(f"        [dim]{printable(rung.reason)}[/]")
