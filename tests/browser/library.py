"""Captures of our own making on the shelf of a real web application, read by a real analyst and its sharkd."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.machine import wait_for
from tests.processes import ended_with_us
from tests.web.conftest import RecordedCaptures, StillTargets, SystemClock, make_incident
from tripshark.analysis.sessions import Sessions
from tripshark.errors import Denied, Transient
from tripshark.ingest.auth import Credentials, Gate
from tripshark.ingest.heartbeat import Heartbeats
from tripshark.model.evidence import IncidentId, Ledger, Manifest
from tripshark.model.incident import Incident
from tripshark.store.catalogue import SqlCatalogue
from tripshark.store.notes import SqlNotes
from tripshark.store.vault import FolderVault
from tripshark.web.app import App
from tripshark.web.metrics import Metrics
from tripshark.web.parts import Parts
from tripshark.web.serve import bind, serving

NOBODY = 65_534
WHOLE = 8_000_000  # bytes; a larger file is seen through a window


class Door:
    """A gate that can be locked while somebody is inside."""

    def __init__(self) -> None:
        self._open, self._locked = Gate(), Gate(Credentials(bearer=("a-token-nobody-has",)))
        self.is_locked = False

    @property
    def is_open(self) -> bool:
        return not self.is_locked

    @property
    def challenge(self) -> str:
        return 'Bearer realm="tripshark"'  # as with sessions: a browser asks nobody for a password

    def refuse(self, headers: list[tuple[bytes, bytes]]) -> Denied | None:
        return (self._locked if self.is_locked else self._open).refuse(headers)


class Books:
    """A catalogue that can be away for a while, as a hub's database can."""

    def __init__(self, catalogue: SqlCatalogue) -> None:
        self._catalogue = catalogue
        self.is_away = False

    async def incident(self, id: IncidentId) -> Incident | None:
        if self.is_away:
            raise Transient("the database cannot be reached", after=1.0)
        return await self._catalogue.incident(id)

    def __getattr__(self, name: str) -> object:
        return getattr(self._catalogue, name)


@dataclass(slots=True)
class Library:
    """What stands on the shelf, and who reads it."""

    url: str
    books: Books
    catalogue: SqlCatalogue
    vault: FolderVault
    analyst: int  # its pid
    door: Door
    shelved: int = 0

    async def shelve(self, capture: bytes, t0_ns: int) -> str:
        """The address of the packets of a sealed incident that has this capture."""
        self.shelved += 1
        incident = make_incident(self.shelved, t0_ns=t0_ns, title="payments/checkout-7d9f")
        draft = self.vault.begin(incident.id, incident.opened_ns)
        with draft.create("evidence.pcapng") as file:
            file.write(capture)
        draft.seal(
            Manifest(
                incident=incident.id,
                created_ns=incident.sealed_ns,
                ledger=Ledger(),
                files=(),
                details={"who": {"namespace": "payments"}},
            ),
            ["evidence.pcapng"],
        )
        await self.catalogue.put(position=self.shelved, incidents=[incident], alerts=[])
        return f"{self.url}/incidents/{incident.id}/packets"

    def dissectors(self) -> list[int]:
        """The pids of the sharkds that the analyst keeps warm."""
        found = []
        for each in Path("/proc").glob("[0-9]*"):
            try:
                parent = int((each / "stat").read_text().rpartition(")")[2].split()[1])
                if parent == self.analyst and (each / "comm").read_text().strip() == "sharkd":
                    found.append(int(each.name))
            except (OSError, ValueError):
                continue  # it has just ended
        return found


@asynccontextmanager
async def library() -> AsyncIterator[Library]:
    """Opens it; everything is gone when it closes."""
    with tempfile.TemporaryDirectory(prefix="ts-library-") as base:
        os.chmod(base, 0o755)
        folder = Path(base)
        analyst = _analyst(folder / "analyst.sock")
        catalogue = await SqlCatalogue.open(folder / "catalogue.sqlite")
        sessions = Sessions(
            str(folder / "analyst.sock"), whole_bytes=WHOLE, window_bytes=WHOLE // 4
        )
        clock, door, books = SystemClock(), Door(), Books(catalogue)
        vault = FolderVault(folder, clock=clock)
        parts = Parts(
            clock=clock,
            catalogue=books,  # type: ignore[arg-type]  # whatever it does not know, the catalogue does
            targets=StillTargets(),
            vault=vault,
            captures=RecordedCaptures(make_incident(999)),
            gate=door,
            metrics=Metrics(),
            rules=list,
            upstream=Heartbeats().upstream,
            checks={},
            custody=lambda *_: None,
            notes=SqlNotes(catalogue),
            dissection=sessions,
            node="node-1",
        )
        try:
            async with serving(App(parts, None), bind("127.0.0.1", 0)) as port:
                yield Library(
                    url=f"http://127.0.0.1:{port}",
                    books=books,
                    catalogue=catalogue,
                    vault=vault,
                    analyst=analyst.pid,
                    door=door,
                )
        finally:
            sessions.close()
            await catalogue.close()
            analyst.terminate()
            await asyncio.to_thread(analyst.wait, 20)


def _analyst(socket: Path) -> subprocess.Popen[bytes]:
    root = os.geteuid() == 0
    config = {"socket": str(socket), **({"uid": NOBODY, "gid": NOBODY} if root else {})}
    process = subprocess.Popen(
        [sys.executable, "-m", "tripshark.programs.analyst", "--json-config", json.dumps(config)],
        stdout=subprocess.PIPE,
        preexec_fn=ended_with_us,
    )
    assert process.stdout is not None
    with process.stdout:
        said = process.stdout.readline()
    if b'"ready": true' not in said:
        process.kill()
        process.wait()
        raise AssertionError(f"the analyst does not start: {said!r}")
    wait_for(socket.exists, "the analyst's socket", 10)
    return process


def numbered(count: int, start_ns: int = 1_790_000_000 * 10**9) -> bytes:
    """A classic capture of so many small datagrams, a microsecond apart; the n-th comes from port n mod 50,000."""
    import numpy as np

    size = 14 + 20 + 8
    record = np.zeros((count, 16 + size), np.uint8)
    number = np.arange(count, dtype=np.uint64)
    micro = number + np.uint64(start_ns // 1000)
    head = record[:, :16].view("<u4")
    head[:, 0], head[:, 1], head[:, 2], head[:, 3] = micro // 10**6, micro % 10**6, size, size
    template = bytes.fromhex(
        "020000000002020000000001080045000024000000004011000000000a0000010a000002"
    )
    record[:, 16 : 16 + 34] = np.frombuffer(template[:34], np.uint8)
    record[:, 16 + 16 : 16 + 18] = np.frombuffer((28).to_bytes(2), np.uint8)
    record[:, 16 + 26 : 16 + 34] = np.frombuffer(bytes([10, 0, 0, 1, 10, 0, 0, 2]), np.uint8)
    ports = (number % np.uint64(50_000)).astype(">u2")
    record[:, 16 + 34 : 16 + 36] = ports.view(np.uint8).reshape(-1, 2)
    record[:, 16 + 36 : 16 + 40] = np.frombuffer(bytes.fromhex("115c0008"), np.uint8)
    begin = bytes.fromhex("d4c3b2a1020004000000000000000000ffff000001000000")
    return begin + record.tobytes()
