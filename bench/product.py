"""The whole product on this machine, set up so that alerts about the bench's pod are captured."""

from __future__ import annotations

import contextlib
import json
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from tests.e2e.machine import Machine

from bench.stage import Failed, Stage

RULE = "Bench"
IDENTITY = {"namespace": "bench", "pod": "pod-0"}


def start(
    stage: Stage, pod: str, *, rules: Sequence[str], after: str, **config: object
) -> Machine:
    """Running, with a ring for the pod; stopped with the stage."""
    folder = Path(stage.folder) / "product"
    folder.mkdir()
    stage.folder.chmod(0o755)
    document = [
        {
            "rule": RULE,
            "match": {"rules": list(rules)},
            "capture": {
                "scope": "peer",
                "before": "30s",
                "after": after,
                "max": {"bytes": "20MB", "packets": "1M"},
            },
        }
    ]
    (folder / "rules.yaml").write_text(json.dumps(document))
    machine = Machine(
        folder,
        rules=[str(folder / "rules.yaml")],
        recorder={"include": [pod]},
        targets={"static": [{"netns": pod, **IDENTITY}]},
        **config,
    )
    stage.callback(_stop, machine)
    machine.start()
    machine.wait_recorded(pod)
    return machine


def _stop(machine: Machine) -> None:
    with contextlib.suppress(Exception):
        machine.stop()


def _metrics(machine: Machine) -> list[str]:
    with urllib.request.urlopen(machine.url + "/metrics", timeout=20) as answer:
        return list(answer.read().decode().splitlines())


def value(machine: Machine, name: str) -> float:
    """One metric without labels."""
    for line in _metrics(machine):
        if line.startswith(f"{name} "):
            return float(line.split()[1])
    raise Failed(f"the responder has no metric {name}")


def histogram(machine: Machine, name: str) -> dict[float, int]:
    """Upper bound → how many did not exceed it."""

    found: dict[float, int] = {}
    for line in _metrics(machine):
        if line.startswith(f'{name}_bucket{{le="'):
            bound, _, count = line.partition('le="')[2].partition('"} ')
            found[float(bound)] = int(float(count))
    if not found:
        raise Failed(f"the responder has no histogram {name}")
    return found


def quantile(buckets: dict[float, int], share: float) -> float:
    """The bucket's bound that so many did not exceed: an upper bound of the quantile."""
    total = max(buckets.values())
    return min(bound for bound, count in buckets.items() if count >= share * total)
