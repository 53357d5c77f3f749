"""Evidence files over HTTP: whole, in ranges, only by their names, each download noted."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import httpx2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st


def client(port: int, world) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(
        base_url=f"http://127.0.0.1:{port}/v1/incidents/{world.incident.id}/"
    )


async def test_evidence_comes_whole_with_its_hash_as_tag(world, evidence) -> None:
    """Bytes, entity tag, file name; and custody knows who took it."""
    async with world.served() as port, client(port, world) as http:
        answer = await http.get("evidence.pcapng")
        second = await http.get("evidence-2.pcapng")
    assert answer.content == evidence
    assert answer.headers["etag"] == f'"{sha256(evidence).hexdigest()}"'
    assert answer.headers["content-disposition"] == (
        f'attachment; filename="{world.incident.id}-evidence.pcapng"'
    )
    assert answer.headers["content-type"] == "application/x-pcapng"
    assert second.content == b"second"
    assert world.viewed == [
        (world.incident.id, "evidence.pcapng", "api:127.0.0.1"),
        (world.incident.id, "evidence-2.pcapng", "api:127.0.0.1"),
    ]


async def test_who_has_it_is_told_so(world, evidence) -> None:
    """If-None-Match with the tag gives 304 and no custody entry; HEAD gives the headers alone."""
    tag = f'"{sha256(evidence).hexdigest()}"'
    async with world.served() as port, client(port, world) as http:
        known = await http.get("evidence.pcapng", headers={"if-none-match": f'"x", {tag}'})
        other = await http.get("evidence.pcapng", headers={"if-none-match": '"x"'})
        head = await http.head("evidence.pcapng")
    assert (known.status_code, known.content) == (304, b"")
    assert other.status_code == 200
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == str(len(evidence))
    assert len(world.viewed) == 1


@pytest.mark.parametrize(
    ("asked", "start", "end"),
    [("bytes=0-0", 0, 1), ("bytes=100-199", 100, 200), ("bytes=255990-", 255_990, 256_000),
     ("bytes=-5", 255_995, 256_000), ("bytes=0-999999999", 0, 256_000)],
)  # fmt: skip
async def test_a_range_is_that_part(world, evidence, asked, start, end) -> None:
    """206 with the part and where it lies."""
    async with world.served() as port, client(port, world) as http:
        answer = await http.get("evidence.pcapng", headers={"range": asked})
    assert answer.status_code == 206
    assert answer.content == evidence[start:end]
    assert answer.headers["content-range"] == f"bytes {start}-{end - 1}/256000"


async def test_ranges_that_make_no_sense(world, evidence) -> None:
    """Beyond the end: 416 in the one shape. Malformed, several, or of another version: the whole file."""
    async with world.served() as port, client(port, world) as http:
        beyond = await http.get("evidence.pcapng", headers={"range": "bytes=256000-"})
        empty = await http.get("evidence.pcapng", headers={"range": "bytes=-0"})
        for value in ("bytes=5-3", "bytes=a-b", "bytes=", "bytes=0-1,3-4", "lines=0-1"):
            answer = await http.get("evidence.pcapng", headers={"range": value})
            assert (answer.status_code, len(answer.content)) == (200, len(evidence)), value
        stale = await http.get(
            "evidence.pcapng", headers={"range": "bytes=0-1", "if-range": '"other"'}
        )
    assert (beyond.status_code, empty.status_code) == (416, 416)
    assert beyond.headers["content-range"] == "bytes */256000"
    assert beyond.json()["error"]["code"] == "range_not_satisfiable"
    assert stale.status_code == 200


async def test_companions_are_served_and_tagged_by_content(world) -> None:
    """Findings may be made again: their tag changes with them."""
    async with world.served() as port, client(port, world) as http:
        first = await http.get("findings.json")
        world.vault.beside(world.incident.id, "findings.json", b'{"found": 2}')
        again = await http.get("findings.json", headers={"if-none-match": first.headers["etag"]})
        manifest = await http.get("manifest.json")
        custody = await http.get("custody.jsonl")
        missing = await http.get("timeline.jsonl")
    assert (first.json(), again.json()) == ({"found": 1}, {"found": 2})
    assert manifest.headers["etag"] == f'"{sha256(manifest.content).hexdigest()}"'
    assert b"analysed" in custody.content
    assert missing.status_code == 404


async def test_classic_pcap_is_made_for_the_answer(world) -> None:
    """By the program's converter, in a folder that is gone afterwards; without one it is said."""

    def convert(source: Path, made: Path) -> None:
        made.write_bytes(b"PCAP" + source.read_bytes()[:4])

    async with world.served(to_pcap=convert) as port, client(port, world) as http:
        answer = await http.get("evidence.pcap")
        none = await http.get("other.pcap")
    async with world.served() as port, client(port, world) as http:
        cannot = await http.get("evidence.pcap")
    assert answer.content == b"PCAP\x00\x01\x02\x03"
    assert none.status_code == 404
    assert (cannot.status_code, cannot.json()["error"]["hint"]) == (
        500,
        "take evidence.pcapng instead",
    )


@settings(
    max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
@given(
    name=st.text(max_size=30)
    | st.sampled_from(
        [
            "../manifest.json",
            "..",
            ".",
            "hold",
            "%2e%2e%2fmanifest.json",
            "evidence.pcapng/..",
            "a\0b",
        ]
    )
)
async def test_no_name_leads_out_of_the_folder(world, name: str) -> None:
    """Whatever name is asked for: a listed file, 400 or 404."""
    from starlette.requests import Request

    from tripshark.errors import BadInput, NotFound
    from tripshark.web import evidence
    from tripshark.web.access import Caller

    scope = {
        "type": "http",
        "method": "GET",
        "headers": [],
        "client": ("127.0.0.1", 1),
        "path_params": {"id": world.incident.id, "name": name},
    }
    try:
        answer = await evidence.serve(Request(scope), world.parts, Caller("command line"))
    except (BadInput, NotFound):
        return
    answer.close()
    assert name in {
        "evidence.pcapng",
        "evidence-2.pcapng",
        "manifest.json",
        "findings.json",
        "custody.jsonl",
    }


async def test_a_link_in_the_folder_is_not_followed(world, tmp_path) -> None:
    """Even if somebody put one there."""
    folder = Path(world.vault.folder(world.incident.id))
    (tmp_path / "secret").write_text("secret")
    folder.chmod(0o755)
    (folder / "timeline.jsonl").symlink_to(tmp_path / "secret")
    async with world.served() as port, client(port, world) as http:
        answer = await http.get("timeline.jsonl")
    assert answer.status_code == 404
    assert "secret" not in answer.text
