"""What lies beside sealed evidence for people: written after the findings, noted in custody, in nobody's way."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.store.evidence import Clock, seal
from tripshark.errors import Permanent
from tripshark.model.incident import Incident
from tripshark.programs.reporting import Reports
from tripshark.respond.ending import Ending
from tripshark.respond.world import World
from tripshark.store import custody
from tripshark.store.vault import FolderVault
from tripshark.store.verify import verify


class Broken:
    """A `ports.Reporter` that never can."""

    def companions(self, incident: Incident, problem: str) -> Mapping[str, bytes]:
        raise Permanent("the report could not be written: no ink")


def _ending(vault: FolderVault, reporter: Any) -> Ending:
    """As much of it as writing reports needs."""
    nothing: Any = None
    world = World(
        journal=nothing,
        catalogue=nothing,
        vault=vault,
        recorder=nothing,
        targets=nothing,
        analyst=None,
        clock=Clock(),
        meter=nothing,
        entropy=nothing,
        reporter=reporter,
    )
    return Ending(world, nothing, nothing, host=nothing, cooldown_ns=0)


async def test_reports_lie_beside_evidence_and_verify_says_whose_they_are(tmp_path: Path) -> None:
    """Also without findings: page, Markdown and timeline, each a line of the custody, each naming the manifest."""
    vault = FolderVault(tmp_path, clock=Clock())
    incident = seal(vault)
    said = await _ending(vault, Reports())._report(incident, "no findings: the analyst is away")
    assert said == ""
    folder = Path(vault.folder(incident.id))
    names = {"report.html", "report.md", "timeline.jsonl"}
    assert names <= {each.name for each in folder.iterdir()}
    assert b"no findings: the analyst is away" in (folder / "report.html").read_bytes()
    deeds = custody.read((folder / "custody.jsonl").read_bytes())
    assert {each.details.get("file") for each in deeds[1:]} == names
    checks = {each.name: each.state for each in verify(folder, data=tmp_path).checks}
    assert {checks[f"beside {name}"] for name in names} == {"ok"}
    assert checks["names"] == "ok"


async def test_a_report_that_cannot_be_written_withholds_nothing(tmp_path: Path) -> None:
    """The reason is handed back for the catalogue, and the evidence is as it was."""
    vault = FolderVault(tmp_path, clock=Clock())
    incident = seal(vault)
    said = await _ending(vault, Broken())._report(incident, "")
    assert said == "no report: the report could not be written: no ink"
    assert not list(Path(vault.folder(incident.id)).glob("report*"))


def test_a_folder_without_manifest_is_told(tmp_path: Path) -> None:
    """Whatever goes wrong becomes one kind of error."""
    incident = seal(FolderVault(tmp_path, clock=Clock()))
    (Path(incident.folder) / "manifest.json").unlink()
    with pytest.raises(Permanent, match="could not be written"):
        Reports().companions(incident, "")
