"""Runs the tables and writes docs/performance.md."""

from __future__ import annotations

import argparse
import fcntl
import importlib
import os
import signal
import sys
import tempfile
import time
from pathlib import Path

from bench import cpu
from bench.facts import facts
from bench.report import Section, document
from bench.stage import PREFIX, Failed, Stage, compiled, sweep
from tripshark.errors import TripsharkError

TABLES = ("cost", "history", "freeze", "export", "reaction", "alerts", "pods", "reading")
LONG = ("node", "churn")  # takes minutes and a container runtime: only when it is named
PAGE = Path(__file__).parent.parent / "docs" / "performance.md"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument(
        "table",
        nargs="*",
        metavar="TABLE",
        help=f"one of {', '.join(TABLES)}; default: all; or {', '.join(LONG)}",
    )
    parser.add_argument(
        "--quick", action="store_true", help="less work, fewer repetitions: under two minutes"
    )
    parser.add_argument(
        "--out",
        type=Path,
        help="write the page there; default: docs/performance.md for the whole bench",
    )
    given = parser.parse_args()  # fmt: skip
    if unknown := set(given.table) - {*TABLES, *LONG}:
        parser.error(f"no table is called {', '.join(sorted(unknown))}")
    if os.geteuid() != 0:
        print(
            "the bench makes network namespaces and packet sockets: run it as root",
            file=sys.stderr,
        )
        return 1
    chosen = [name for name in TABLES if not given.table or name in given.table]
    chosen += [name for name in LONG if name in given.table]
    out = given.out or (PAGE if chosen == list(TABLES) and not given.quick else None)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(143))
    # one at a time: two would measure each other, and remove each other's namespaces
    with Path(tempfile.gettempdir(), f"{PREFIX}lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("another bench is running on this machine", file=sys.stderr)
            return 1
        sweep()
        return _run(chosen, quick=given.quick, out=out)


def _run(chosen: list[str], *, quick: bool, out: Path | None) -> int:
    began = time.monotonic()
    sections: list[Section] = []
    failed = 0
    command = " ".join(["python -m bench", *(chosen if chosen != list(TABLES) else []),
                        *(["--quick"] if quick else [])])  # fmt: skip
    how = cpu.meter(f"{PREFIX}probe")
    known = facts(how_cpu=how.how)
    how.close()
    with tempfile.TemporaryDirectory(prefix=PREFIX) as tools:
        compiled(Path(tools))
        for name in chosen:
            print(f"{name}:", file=sys.stderr, flush=True)
            os.sync()  # what the table before wrote is not this one's to wait for
            try:
                with Stage(quick=quick, tools=Path(tools)) as stage:
                    section = importlib.import_module(f"bench.tables.{name}").measure(stage)
            except (Failed, OSError, AssertionError, ExceptionGroup, TripsharkError) as problem:
                failed += 1
                section = Section(title=f"{name}: not measured", reading=[str(problem)])
            sections.append(section)
            print(section.text(), flush=True)
    took = time.monotonic() - began
    page = document(sections, command=command, facts=known, seconds=took)
    if out:
        out.parent.mkdir(exist_ok=True)
        out.write_text(page)
        print(f"written to {out}", file=sys.stderr)
    print(page.split("\n## ")[0])
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
