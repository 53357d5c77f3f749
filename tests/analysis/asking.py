"""Helpers: run the analysis, or a probe in its sandbox, as the service would."""

from __future__ import annotations

import os
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

from tests.analysis.crafted import POD, START_NS
from tripshark.analysis.child import Ended, run
from tripshark.analysis.dissect import Bounds, dissect, find_tshark
from tripshark.analysis.sandbox import Policy
from tripshark.model.alert import Connection, Endpoint, Proto
from tripshark.model.finding import Findings, Question

NOBODY = 65_534
BOUNDS = Bounds(policy=Policy(uid=NOBODY), wall_s=60.0)


def question(*connections: Connection, t0_ns: int = START_NS + 10_000_000) -> Question:
    return Question(
        t0_ns=t0_ns,
        target="payments/checkout-7d9f",
        addresses=(POD,),
        connections=connections,
        manifest_sha256="ab" * 32,
    )


def flow(
    server: str | None,
    server_port: int | None,
    client: str | None = None,
    client_port: int | None = None,
    proto: Proto | None = Proto.TCP,
) -> Connection:
    return Connection(
        client=Endpoint(ip_address(client) if client else None, client_port),
        server=Endpoint(ip_address(server) if server else None, server_port),
        proto=proto,
    )


async def analyse(path: Path, about: Question, bounds: Bounds = BOUNDS) -> Findings:
    evidence = os.open(path, os.O_RDONLY)
    try:
        return await dissect(
            evidence, about, program=find_tshark(), tool="TShark", bounds=bounds, apart=True
        )
    finally:
        os.close(evidence)


async def probe(
    argv: list[str],
    evidence: Path | str = "/dev/null",
    *,
    policy: Policy = BOUNDS.policy,
    wall_s: float = 20.0,
    max_output: int = 1 << 20,
) -> tuple[Ended, bytes]:
    """Some other program in tshark's place, with the very same sandbox."""
    said = bytearray()
    descriptor = os.open(evidence, os.O_RDONLY)
    try:
        ended = await run(
            argv,
            evidence=descriptor,
            policy=policy,
            wall_s=wall_s,
            max_output=max_output,
            take=said.extend,
        )
    finally:
        os.close(descriptor)
    return ended, bytes(said)


def bounded(**changes: object) -> Bounds:
    return replace(BOUNDS, **changes)  # type: ignore[arg-type]
