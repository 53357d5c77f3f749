"""The OpenAPI document is true: whatever schemathesis sends, what comes back is what the document says."""

from __future__ import annotations

import asyncio
import os
import sys
from dataclasses import replace
from pathlib import Path

from tests.ingest.conftest import CountingMeter, MemoryIntake
from tests.web.conftest import World
from tripshark.ingest.auth import Credentials, Gate
from tripshark.ingest.door import Door
from tripshark.ingest.webhook import Webhook
from tripshark.model.role import Grant, Right, Role
from tripshark.signin.desk import Desk
from tripshark.signin.failures import Failures
from tripshark.signin.sessions import Sessions
from tripshark.signin.tokens import Token, Tokens
from tripshark.web.app import App
from tripshark.web.serve import bind, serving

TOKEN = "a-token-for-schemathesis-0123"
SECONDS = 200.0
# Where one parameter decides what another may be, or words decide, which JSON Schema cannot say: there a 400 for what
# fits it is right, and so is taking more than it says (Falco adds to its events).
DEPENDENT = (
    "^/(|v1/(alerts|search|hunt|live|live/.*|rules/test|events)|search|incidents/.*/packets|v1/incidents/.*/"
    "(packets|packets/.*|intervals|filter|follow|taps|complete|shared.pcapng|annotated.pcapng|export/.*|parts/.*|notes))$"
)
CONFIG = f"""
[parameters]
"path.id" = "20261124-0001"
"path.node" = "node-1"
"path.name" = "manifest.json"

[[operations]]
include-path-regex = "{DEPENDENT}"
checks.positive_data_acceptance.enabled = false
checks.negative_data_rejection.enabled = false
"""


async def test_schemathesis_finds_nothing(world: World, tmp_path: Path) -> None:
    """No 5xx that was not described, no status, media type or shape beside the document, no credential ignored."""
    desk = Desk(
        tokens=Tokens(
            [Token(grant=Grant(name="token:st", rights=(Right(role=Role.ADMIN),)), value=TOKEN)]
        ),
        sessions=Sessions(idle_s=600, absolute_s=600, most=10),
        failures=Failures(per_minute=1_000_000),
    )
    world.parts.watch.closing.set()  # streams end at once
    parts = replace(world.parts, signin=desk, dissection=None)
    door = Door(MemoryIntake(), world.parts.clock, world.heartbeats)
    alerts = Webhook(door, Gate(Credentials(bearer=(TOKEN,))), CountingMeter())
    (tmp_path / "schemathesis.toml").write_text(CONFIG)
    async with serving(App(parts, alerts), bind("127.0.0.1", 0)) as port:
        done = await asyncio.create_subprocess_exec(
            str(Path(sys.executable).parent / "schemathesis"),
            "run", f"http://127.0.0.1:{port}/v1/openapi.json",
            "--header", f"Authorization: Bearer {TOKEN}",
            "--phases", "fuzzing",
            "--max-examples", "4",
            "--seed", "1",
            "--generation-database", "none",
            "--continue-on-failure",
            "--workers", "2",
            "--no-color",
            cwd=tmp_path,
            env={"PATH": os.environ["PATH"], "HOME": str(tmp_path)},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        try:
            async with asyncio.timeout(SECONDS):
                said, _ = await done.communicate()
        finally:
            if done.returncode is None:
                done.kill()
    assert done.returncode == 0, told(said.decode())


def told(said: str) -> str:
    """What it found, without the pages that came back."""
    return said[said.find("FAILURES") :][:60_000]
