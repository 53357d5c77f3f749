"""Reports and exports over HTTP: what a browser may do with them, what custody knows, what is refused."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tripshark.web.exports import FORMATS


def client(port: int, world: Any) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(
        base_url=f"http://127.0.0.1:{port}/v1/incidents/{world.incident.id}/"
    )


@pytest.mark.parametrize("format", FORMATS)
async def test_every_format_is_handed_out_and_noted(world: Any, format: str) -> None:
    """As a file of its own, never shown by a browser; custody has its hash before the first byte leaves."""
    deeds: list[tuple[Any, ...]] = []
    async with (
        world.served(deed=lambda *told: deeds.append(told)) as port,
        client(port, world) as http,
    ):
        answer = await http.get(f"export/{format}")
    assert answer.status_code == 200
    assert answer.headers["content-disposition"].startswith("attachment; filename=")
    assert "sandbox" in answer.headers["content-security-policy"]
    digest = sha256(answer.content).hexdigest()
    told = {"format": format, "sha256": digest}
    assert deeds == [(world.incident.id, "exported", "api:127.0.0.1", told)]
    if format not in (
        "ocsf",
        "zeek-conn",
        "zeek-dns",
        "zeek-ssl",
        "zeek-http",
    ):  # no findings, no lines
        assert world.incident.id.encode() in answer.content


async def test_the_report_is_shown_and_may_do_nothing(world: Any) -> None:
    """Inline, under a policy with its own style sheet's hash alone; custody knows who read it."""
    async with world.served() as port, client(port, world) as http:
        answer = await http.get("report.html")
        of_node = await http.get("parts/node-1/report.html")
        of_none = await http.get("parts/node-9/report.html")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["content-disposition"].startswith("inline")
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script" not in policy
    assert "unsafe" not in policy
    assert policy.count("'sha256-") == 1
    style = policy.partition("'sha256-")[2].partition("'")[0]
    assert f"sha256-{style}" in answer.text  # the page says the same of itself
    assert of_node.text == answer.text
    assert of_none.status_code == 404
    read = [name for _, name, _ in world.viewed if name.endswith("html")]
    assert read == ["report.html", "node-1-report.html"]


async def test_findings_are_told_and_others_are_not_believed(world: Any) -> None:
    """Findings beside the evidence come into the report; those of other evidence, or broken ones, are said to be so."""
    folder = Path(world.vault.folder(world.incident.id))
    digest = sha256((folder / "manifest.json").read_bytes()).hexdigest()
    told = {
        "manifest_sha256": digest,
        "tool": "TShark 4.0.17",
        "sandbox": [],
        "packets": 7,
        "summary": "It asked for evil.example.",
    }
    async with world.served() as port, client(port, world) as http:
        world.vault.beside(world.incident.id, "findings.json", json.dumps(told).encode())
        good = await http.get("report.html")
        other = json.dumps({**told, "manifest_sha256": "0" * 64}).encode()
        world.vault.beside(world.incident.id, "findings.json", other)
        foreign = await http.get("report.html")
        world.vault.beside(world.incident.id, "findings.json", b"{")
        broken = await http.get("report.html")
    assert "It asked for evil.example." in good.text
    assert "It asked for" not in foreign.text
    assert "about other evidence" in foreign.text
    assert "findings.json cannot be read" in broken.text


async def test_a_page_that_lies_beside_the_evidence_is_never_shown(world: Any) -> None:
    """Whoever can write where evidence lies puts nothing into a browser."""
    evil = b"<style>*{}</style><script>alert(1)</script>"
    world.vault.beside(world.incident.id, "report.html", evil)
    async with world.served() as port, client(port, world) as http:
        answer = await http.get("report.html")
    assert b"alert(1)" not in answer.content


async def test_what_is_not_there_is_refused(world: Any) -> None:
    """An unknown format, an unknown parameter, an unknown incident, a server without reports."""
    async with world.served() as port, client(port, world) as http:
        for path, status in (
            ("export/docx", 400),
            ("export/stix?file=x", 400),
            ("export/stix?node=Not A Node", 400),
            ("export/stix?node=node-9", 404),
            ("../20200101t000000-aaaaaa/export/stix", 404),
        ):
            assert (await http.get(path)).status_code == status, path
    async with world.served(exports=None) as port, client(port, world) as http:
        assert (await http.get("export/stix")).status_code == 404
