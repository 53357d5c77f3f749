"""`tripshark hunt`: evidence that shows an indicator is named with incident, frame and filter; the exit code says whether."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from tests.cli.running import inside
from tests.store.evidence import S, seal
from tripshark.model.evidence import IncidentId
from tripshark.model.incident import Incident
from tripshark.programs.clock import SystemClock
from tripshark.programs.watchlist import Watchlist
from tripshark.store.catalogue import SqlCatalogue
from tripshark.store.vault import FolderVault


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two incidents that asked for evil.example, an old one and one of today; their index is not filled."""
    folder = tmp_path / "data"
    now_ns = SystemClock().now_ns()

    async def fill() -> None:
        catalogue = await SqlCatalogue.open(folder / "catalogue.sqlite")
        vault = FolderVault(folder, clock=SystemClock())
        for number, opened_ns in ((1, 0), (2, now_ns - 60 * S)):
            its = seal(vault, number, opened_ns=opened_ns)
            await catalogue.put(incidents=[its])
            _found(vault, its)
        await catalogue.close()

    asyncio.run(fill())
    return folder


def _found(vault: FolderVault, its: Incident) -> None:
    told = {"manifest_sha256": its.manifest_sha256, "tool": "x", "sandbox": [], "packets": 7, "findings": [],
            "files": [], "tls": [{"name": "www.evil.example\x1b[31m", "frame": 2, "filter": "tls", "first_ns": its.t0_ns}],
            "dns": [{"name": "evil.example", "frame": 1, "filter": "dns", "asked_ns": its.t0_ns}]}  # fmt: skip
    vault.beside(its.id, "findings.json", json.dumps(told).encode())


def test_hits_are_named_and_what_is_not_looked_for_is_told(data: Path, tmp_path: Path) -> None:
    """Newest first, with frame and filter; a line that is no indicator stands on stderr; evidence itself is indexed on the way."""
    (tmp_path / "list.txt").write_text("evil.example # C2\nfoo bar\ncom\n")
    done = inside("hunt", str(tmp_path / "list.txt"), "--data", str(data))
    assert done.code == 0, done.err
    assert "checkout-1" in done.out
    assert "checkout-2" in done.out
    assert done.out.index("checkout-2") < done.out.index("checkout-1")
    assert "list.txt:2: unreadable: foo bar" in done.err
    assert "1 indicators; 1 unreadable, 1 refused" in done.err
    done = inside("hunt", str(tmp_path), "--data", str(data), "--since", "1h", "--json")
    (hit,) = map(json.loads, done.out.splitlines())
    assert (hit["target"], hit["frames"], hit["filter"], hit["indicator"], hit["note"]) == (
        "payments/checkout-2", [1], "dns", "evil.example", "C2",
    )  # fmt: skip
    assert "--limit" in inside("hunt", str(tmp_path), "--data", str(data), "--limit", "1").err


def test_nothing_found_is_exit_code_3_and_nothing_to_look_for_is_wrong_usage(
    data: Path, tmp_path: Path
) -> None:
    """A script can tell the three apart."""
    quiet = tmp_path / "quiet.txt"
    quiet.write_text("fine.example\n")
    done = inside("hunt", str(quiet), "--data", str(data))
    assert (done.code, done.out) == (3, "")
    assert "none of these indicators" in done.err
    quiet.write_text("?\n")
    assert inside("hunt", str(quiet), "--data", str(data)).code == 2
    quiet.write_text('{"oops"')
    done = inside("hunt", str(quiet), "--data", str(data))
    assert (done.code, "quiet.txt:1" in done.err) == (2, True)
    assert inside("hunt", str(tmp_path / "none"), "--data", str(data)).code == 2
    assert inside("hunt", str(quiet), "--url", "http://127.0.0.1:1", "--deep").code == 2


def test_deep_says_what_could_not_be_analysed(data: Path, tmp_path: Path) -> None:
    """Evidence whose findings lack what today's have is analysed first; without an analyst that is said, and the rest is hunted."""
    vault = FolderVault(data, clock=SystemClock())
    old = IncidentId("20261124t103001-000001")
    (Path(vault.folder(old)) / "findings.json").write_text('{"sni": []}')
    (tmp_path / "list.txt").write_text("evil.example\n")
    done = inside("hunt", str(tmp_path / "list.txt"), "--data", str(data), "--deep")
    assert done.code == 0
    assert "not analysed" in done.err
    assert "checkout-2" in done.out
    assert "checkout-1" not in done.out


async def test_lists_are_read_again_when_they_change(tmp_path: Path) -> None:
    """A new file in a folder, a changed one, a broken one: the others stay in force."""
    watchlist = Watchlist([tmp_path / "lists", tmp_path / "none"])
    assert len(await watchlist()) == 0
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "a.txt").write_text("evil.example\n")
    (tmp_path / "lists" / ".hidden").write_text("other.example\n")
    first = await watchlist()
    assert len(first) == 1
    assert await watchlist() is first
    (tmp_path / "lists" / "b.txt").write_text("1.2.3.4\n5.6.7.8\n")
    assert len(await watchlist()) == 3
    (tmp_path / "lists" / "a.txt").write_bytes(b"\xff")
    assert len(await watchlist()) == 2
    assert [each.partition(" →")[0] for each in watchlist.problems] == [
        f"not UTF-8 text: byte 0 at {tmp_path}/lists/a.txt",
        f"no such list of indicators at {tmp_path}/none",
    ]
