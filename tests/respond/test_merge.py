"""Parts of several nodes as one file: what Wireshark's own tools count in it, and what stays said of the parts."""

from __future__ import annotations

import hashlib
import json
import random
import subprocess
import tracemalloc
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tests.formats.making import make_packets
from tests.respond.worlds import ManualClock
from tripshark.cli.main import build
from tripshark.formats import pcapng
from tripshark.formats.packets import Packets
from tripshark.model.alert import Json
from tripshark.model.evidence import Entry, IncidentId, Ledger, Manifest, Word
from tripshark.store.vault import FolderVault

INCIDENT = IncidentId("20261124t101502-7kq3f2")
T0 = 1_795_515_302_000_000_000
SECOND = 10**9


def frame(number: int, size: int = 60) -> bytes:
    """An Ethernet frame with UDP in it that differs from every other."""
    payload = number.to_bytes(8, "big").ljust(size - 42, b".")
    udp = (53).to_bytes(2, "big") * 2 + (8 + len(payload)).to_bytes(2, "big") + b"\0\0" + payload
    ip = (
        bytes.fromhex("4500")
        + (20 + len(udp)).to_bytes(2, "big")
        + bytes.fromhex("0000000040110000")
    )
    return b"\2" * 12 + b"\x08\0" + ip + bytes([10, 0, 0, 1, 10, 0, 0, 2]) + udp


def interface(pod: str, mac: str = "", linktype: int = 1) -> pcapng.Interface:
    return pcapng.Interface(
        name=f"payments/{pod}:eth0",
        description=f"pod payments/{pod} eth0",
        mac=mac,
        linktype=linktype,
    )


def alert(
    uuid: str = "e-1", number: int = 1, time_ns: int = T0
) -> tuple[int, dict[str, str | bytes]]:
    """The row of one event as a node writes it; every node numbers alerts by itself."""
    body = {
        "rule": "C2",
        "priority": "Critical",
        "time": "2026-11-24T10:15:02.000000000Z",
        "output": "x",
        "output_fields": {},
        "uuid": uuid,
    }
    return time_ns, {
        "MESSAGE": "FALCO Critical: C2",
        "SYSLOG_IDENTIFIER": "falco",
        "TRIPSHARK_ALERT": f"a-{number}",
        "FALCO_JSON": json.dumps(body).encode(),
    }


def packets(times: Sequence[int], first: int = 0, source: Sequence[int] = ()) -> Packets:
    return make_packets(
        [frame(first + i) for i in range(len(times))],
        time_ns=times,
        source=source or [0] * len(times),
    )


def sealed(
    folder: Path,
    node: str,
    *,
    interfaces: Sequence[pcapng.Interface],
    kept: Packets,
    names: Mapping[str, str] | None = None,
    rows: Sequence[Any] = (),
    statistics: Sequence[pcapng.Statistics] = (),
    comments: Mapping[int, Sequence[str]] | None = None,
    clock: Mapping[str, Json] | None = None,
    entries: Sequence[Entry] = (),
    name: str = "evidence.pcapng",
    incident: IncidentId = INCIDENT,
) -> Path:
    """One node's sealed folder, by the vault itself."""
    vault = FolderVault(folder, clock=ManualClock(T0), who=node)
    draft = vault.begin(incident, T0)
    with draft.create(name) as out:
        pcapng.write(
            out,
            section=pcapng.Section(comments=[f"incident {incident}"], application="Tripshark"),
            interfaces=interfaces,
            packets=kept,
            names=names,
            rows=rows,
            statistics=statistics,
            comments=comments,
        )
    details: dict[str, Json] = {
        "what": {"packets": len(kept)},
        "where": {"host": node},
        "when": {"clock": dict(clock or {"synchronised": True, "offset_us": 0})},
    }
    draft.seal(
        Manifest(
            incident=incident,
            created_ns=T0,
            ledger=Ledger(entries=tuple(entries)),
            files=(),
            details=details,
        ),
        [name],
    )
    return Path(vault.folder(incident))


def run(*argv: object) -> Any:
    """The command; its JSON, or the error's."""
    done = CliRunner().invoke(build(), ["merge", *map(str, argv), "--json"], prog_name="tripshark")
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return {"exit": done.exit_code, **json.loads(done.stdout.splitlines()[-1])}


def tshark(path: Path, *fields: str) -> list[list[str]]:
    argv = ["tshark", "-r", str(path), "-T", "fields", *(x for f in fields for x in ("-e", f))]
    done = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=60)
    return [line.split("\t") for line in done.stdout.splitlines()]


@pytest.fixture
def two(tmp_path: Path) -> list[Path]:
    """Two replicas on two nodes; one node has two of them."""
    a = sealed(
        tmp_path / "n1",
        "n1",
        interfaces=[interface("a", "02:00:00:00:00:01"), interface("b", "02:00:00:00:00:02")],
        kept=packets([T0 - 3000, T0 - 1000, T0 + 1000], source=[0, 1, 0]),
        names={"10.0.0.1": "payments/a", "10.0.0.9": "default/old"},
        rows=[alert(number=7)],
        statistics=[
            pcapng.Statistics(interface=0, start_ns=T0, end_ns=T0 + 5, received=9, dropped=2)
        ],
        comments={1: ["First packet of the flow"]},
        clock={"synchronised": False, "offset_us": 2},
    )
    b = sealed(
        tmp_path / "n2",
        "n2",
        interfaces=[interface("c", "02:00:00:00:00:03")],
        kept=packets([T0 - 2000, T0 - 1500, T0 + 500, T0 + 900], first=100),
        names={"10.0.0.3": "payments/c", "10.0.0.9": "default/new"},
        rows=[alert(number=1, time_ns=T0 + 40_000)],
        entries=[Entry(kind="kernel_drops", message="2 packets", word=Word.TRUNCATED, count=2)],
    )
    return [a, b]


def test_wiresharks_tools_count_what_the_parts_held(tmp_path: Path, two: list[Path]) -> None:
    """Per interface, in time order, with every description, the names, the comment and the alert once."""
    merged = tmp_path / "merged.pcapng"
    done = run(*two, "-o", merged)
    assert done["exit"] == 0
    assert done["files"][0]["packets"] == 7
    rows = tshark(
        merged,
        "frame.interface_description",
        "frame.time_epoch",
        "frame.comment",
        "_ws.col.Protocol",
    )
    counted = Counter(row[0] for row in rows if row[0])
    parts: Counter[str] = Counter()
    for folder in two:
        parts.update(
            row[0]
            for row in tshark(folder / "evidence.pcapng", "frame.interface_description")
            if row[0]
        )
    assert counted == parts
    times = [row[1] for row in rows if row[0]]
    assert times == sorted(times)
    assert [row[2] for row in rows if len(row) > 2 and row[2]] == ["First packet of the flow"]
    assert sum("ournal" in row[-1] for row in rows) == 1
    information = subprocess.run(
        ["capinfos", "-M", str(merged)], capture_output=True, text=True, check=True, timeout=60
    ).stdout
    assert "Number of packets:   7" in information
    assert information.count("Number of packets =") == 3
    file = pcapng.read(merged.read_bytes())
    assert [each.comments for each in file.interfaces] == [
        ("recorded on n1",),
        ("recorded on n1",),
        ("recorded on n2",),
    ]
    assert file.names["10.0.0.9"] == "default/old|default/new"
    assert file.rows[0][1]["TRIPSHARK_NODES"] == "n1,n2"
    assert file.statistics[0].dropped == 2


def test_the_derivation_says_from_what_it_was_made(tmp_path: Path, two: list[Path]) -> None:
    """Hashes of every original, each node's clock, what was folded, and what the parts were missing."""
    merged = tmp_path / "merged.pcapng"
    done = run(*two, "-o", merged)
    told = json.loads(Path(done["derivation"]).read_text())
    assert told["files"][0]["sha256"] == hashlib.sha256(merged.read_bytes()).hexdigest()
    assert [each["node"] for each in told["was_derived_from"]] == ["n1", "n2"]
    for each, folder in zip(told["was_derived_from"], two, strict=True):
        assert (
            each["sha256"] == hashlib.sha256((folder / "evidence.pcapng").read_bytes()).hexdigest()
        )
        manifest = (folder / "manifest.json").read_bytes()
        assert each["manifest_sha256"] == hashlib.sha256(manifest).hexdigest()
        assert each["shifted_by_ns"] == 0
    assert told["was_derived_from"][0]["clock"] == {"synchronised": False, "offset_us": 2}
    assert told["files"][0]["alerts_folded"] == 1
    assert told["files"][0]["names_in_conflict"] == {"10.0.0.9": ["default/old", "default/new"]}
    assert told["incidents"] == [INCIDENT]
    assert told["ledger"]["word"] == "truncated"
    assert told["ledger"]["entries"][0]["message"] == "n2: 2 packets"


def test_the_same_parts_are_always_the_same_bytes(tmp_path: Path, two: list[Path]) -> None:
    """However often, and in whichever order they are named; a part named twice counts once."""
    first, again = tmp_path / "merged.pcapng", tmp_path / "again" / "merged.pcapng"
    again.parent.mkdir()
    run(*two, "-o", first)
    run(*reversed(two), two[0], "-o", again)
    assert first.read_bytes() == again.read_bytes()
    assert (
        first.with_name("merged.pcapng.json").read_text()
        == again.with_name("merged.pcapng.json").read_text()
    )


def test_clocks_are_corrected_only_when_asked(tmp_path: Path, two: list[Path]) -> None:
    """And then the derivation and the file's head say by how much."""
    merged = tmp_path / "merged.pcapng"
    done = run(*two, "-o", merged, "--correct-clocks")
    file = pcapng.read(merged.read_bytes())
    own = file.packets.time_ns[file.packets.source == 0]
    assert own.tolist() == [T0 - 1000, T0 + 3000]
    told = json.loads(Path(done["derivation"]).read_text())
    assert [each["shifted_by_ns"] for each in told["was_derived_from"]] == [2000, 0]
    assert any("moved by 2000 ns" in said for said in file.section.comments)


def test_two_captures_of_one_ring_hold_each_packet_once(tmp_path: Path) -> None:
    """Equal packets of one part all stay; a shorter copy of a longer packet goes."""
    same = interface("a", "02:00:00:00:00:01")
    twin = frame(5)
    one = make_packets([twin, twin, frame(6)], time_ns=[T0, T0, T0 + 1])
    two = make_packets(
        [twin, frame(6)[:50], frame(7)], time_ns=[T0, T0 + 1, T0 + 2], length=[60, 60, 60]
    )
    other = IncidentId("20261124t101600-abcdef")
    folders = [
        sealed(tmp_path / "x", "n1", interfaces=[same], kept=one),
        sealed(tmp_path / "y", "n1", interfaces=[same], kept=two, incident=other),
    ]
    merged = tmp_path / "merged.pcapng"
    done = run(*folders, "-o", merged)
    file = pcapng.read(merged.read_bytes())
    assert len(file.interfaces) == 1
    kept = [file.packets.bytes_of(i) for i in range(len(file.packets))]
    assert kept == [twin, twin, frame(6), frame(7)]
    told = json.loads(Path(done["derivation"]).read_text())
    assert told["files"][0]["packets_doubled"] == 2
    assert told["incidents"] == [INCIDENT, other]
    elsewhere = sealed(tmp_path / "z", "n2", interfaces=[same], kept=one)
    run(folders[0], elsewhere, "-o", merged)
    assert len(pcapng.read(merged.read_bytes()).packets) == 6  # another node's are never the same


def test_link_types_are_files_of_their_own(tmp_path: Path) -> None:
    """libpcap stops at the first packet that differs: the larger one has the name that was asked for."""
    folders = [
        sealed(tmp_path / "x", "n1", interfaces=[interface("a")], kept=packets([T0, T0 + 1])),
        sealed(
            tmp_path / "y",
            "n2",
            interfaces=[interface("b", linktype=101)],
            kept=make_packets([frame(1)[14:]], time_ns=[T0]),
        ),
    ]
    done = run(*folders, "-o", tmp_path / "merged.pcapng")
    assert [Path(each["file"]).name for each in done["files"]] == [
        "merged.pcapng",
        "merged-101.pcapng",
    ]
    assert [each["packets"] for each in done["files"]] == [2, 1]
    assert len(tshark(tmp_path / "merged-101.pcapng", "ip.src")) == 1


def test_parts_without_packets_are_evidence_of_absence(tmp_path: Path) -> None:
    """Their interfaces stand in the file."""
    folder = sealed(tmp_path / "x", "n1", interfaces=[interface("a")], kept=Packets.empty())
    done = run(folder, "-o", tmp_path / "m.pcapng")
    assert (done["files"][0]["packets"], done["files"][0]["interfaces"]) == (0, 1)
    tshark(tmp_path / "m.pcapng", "ip.src")


def test_what_is_not_what_was_sealed_is_not_merged(tmp_path: Path, two: list[Path]) -> None:
    """One changed byte; and nothing is written."""
    path = two[0] / "evidence.pcapng"
    content = bytearray(path.read_bytes())
    content[-40] ^= 1
    path.chmod(0o600)
    path.write_bytes(content)
    done = run(*two, "-o", tmp_path / "merged.pcapng")
    assert (done["exit"], done["error"]["code"]) == (3, "not_verified")
    assert not (tmp_path / "merged.pcapng").exists()


def test_a_single_file_needs_no_manifest(tmp_path: Path) -> None:
    """It is merged and said to be unsealed; one that was cut off gives what is whole."""
    path = tmp_path / "one.pcapng"
    with path.open("wb") as out:
        pcapng.write(
            out,
            section=pcapng.Section(),
            interfaces=[interface("a")],
            packets=packets([T0, T0 + 1]),
        )
    path.write_bytes(path.read_bytes()[:-10])
    done = run(path, "-o", tmp_path / "m.pcapng")
    told = json.loads(Path(done["derivation"]).read_text())
    assert done["files"][0]["packets"] == 1
    assert {each["kind"] for each in told["ledger"]["entries"]} == {"unsealed", "cut_off"}


@pytest.mark.parametrize("content", [None, b"", b"not a capture file at all"])
def test_what_is_no_capture_says_so(tmp_path: Path, content: bytes | None) -> None:
    """A name of nothing, an empty file, garbage."""
    path = tmp_path / "x.pcapng"
    if content is not None:
        path.write_bytes(content)
    done = run(path, "-o", tmp_path / "m.pcapng", "--data", tmp_path / "data")
    assert done["exit"] in (2, 3)
    assert done["error"]["message"]


def test_large_parts_are_merged_in_bounded_memory(tmp_path: Path) -> None:
    """Four parts of 16 MB, with room for their columns and one chunk but not for their bytes again."""
    draw = random.Random(7)
    folders = []
    for node in range(4):
        times = sorted(draw.randrange(10 * SECOND) for _ in range(16_000))
        data = make_packets(
            [frame(node * 10**6 + i, 1000) for i in range(16_000)], time_ns=[T0 + t for t in times]
        )
        folders.append(
            sealed(
                tmp_path / f"n{node}", f"n{node}", interfaces=[interface(f"p{node}")], kept=data
            )
        )
    merged = tmp_path / "m.pcapng"
    tracemalloc.start()
    try:
        run(*folders, "-o", merged)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 32 << 20, f"{peak >> 20} MiB"
    counted = Counter(row[0] for row in tshark(merged, "frame.interface_id"))
    assert counted == {str(i): 16_000 for i in range(4)}
