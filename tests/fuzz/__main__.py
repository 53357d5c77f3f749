"""Coverage-guided fuzzing of every parser: `python -m tests.fuzz [--seconds N] [name …]`.

Each target runs in a process of its own, because libFuzzer ends the process it runs in. An input that makes
a target raise is kept in the temporary folder that is printed, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.fuzz import corpus

RUN_ONE = "--one"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="name", help=f"of {', '.join(corpus.names())}")
    parser.add_argument("--seconds", type=int, default=60, help="per target (60)")
    chosen = parser.parse_args()
    unknown = set(chosen.names) - set(corpus.names())
    if unknown:
        parser.error(
            f"no target {', '.join(sorted(unknown))}; there are {', '.join(corpus.names())}"
        )
    failed = []
    for name in chosen.names or corpus.names():
        folder = Path(tempfile.mkdtemp(prefix=f"tripshark-fuzz-{name}-"))
        seeds = folder / "corpus"
        seeds.mkdir()
        for number, seed in enumerate(corpus.seeds(name)):
            (seeds / f"seed-{number}").write_bytes(seed)
        print(f"{name}: {chosen.seconds} s, {folder}", flush=True)
        command = [
            sys.executable,
            "-m",
            "tests.fuzz",
            RUN_ONE,
            name,
            f"-max_total_time={chosen.seconds}",
        ]
        command += ["-max_len=4096", "-timeout=10", "-rss_limit_mb=2048", "-verbosity=0"]
        command += ["-print_final_stats=1", f"-artifact_prefix={folder}/", str(seeds)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        said = (done.stdout + done.stderr).splitlines()
        runs = next((line for line in said if "number_of_executed_units" in line), "")
        print(
            f"{name}: {'ok' if done.returncode == 0 else 'FAILED'} {runs.split(':')[-1].strip()} runs"
        )
        if done.returncode:
            failed.append(name)
            print("\n".join(said[-40:]))
    return 1 if failed else 0


def run_one(name: str, arguments: list[str]) -> None:
    import atheris

    with atheris.instrument_imports(include=["tripshark"]):
        target = corpus.load(name)
    atheris.Setup([f"fuzz-{name}", *arguments], target)
    atheris.Fuzz()


if __name__ == "__main__":
    if sys.argv[1:2] == [RUN_ONE]:
        run_one(sys.argv[2], sys.argv[3:])
    else:
        sys.exit(main())
