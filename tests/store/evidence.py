"""Small sealed evidence for tests, as nodes make it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from tripshark.model.evidence import Entry, IncidentId, Ledger, Manifest, Word
from tripshark.model.incident import Incident, State
from tripshark.model.target import TargetKey
from tripshark.store.vault import FolderVault

S = 1_000_000_000
START = 1_795_516_200 * S  # 2026-11-24T10:30:00Z


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self, ns: int = START) -> None:
        self.ns = ns

    def now_ns(self) -> int:
        return self.ns


def alert(number: int = 1) -> bytes:
    """One event as Falco sends it."""
    return json.dumps(
        {
            "rule": "Outbound Connection to C2 Servers",
            "priority": "Warning",
            "source": "syscall",
            "time": f"2026-11-24T10:29:{number % 60:02}.000000001Z",
            "output": "beacon <b>",
            "output_fields": {"k8s.ns.name": "payments", "k8s.pod.name": f"checkout-{number}"},
        }
    ).encode()


def seal(
    vault: FolderVault,
    number: int = 1,
    *,
    opened_ns: int = 0,
    packets: bytes = b"packets",
    namespaces: tuple[str, ...] | None = ("payments",),
    word: Word = Word.COMPLETE,
    incident: str = "",
    via: str = "webhook",
) -> Incident:
    """Seal one incident of one alert; the incident as the node's own catalogue keeps it."""
    opened_ns = opened_ns or START + number * S
    id = IncidentId(incident or f"20261124t1030{number % 60:02}-{number:06x}")
    draft = vault.begin(id, opened_ns)
    with draft.create("evidence.pcapng") as file:
        file.write(packets)
    who: dict[str, object] = {"namespace": (namespaces or ("payments",))[0], "pod": "checkout"}
    if namespaces is not None:
        who["namespaces"] = list(namespaces)
    entries = (Entry(kind="limit", message="x", word=word),) if word is not Word.COMPLETE else ()
    manifest = draft.seal(
        Manifest(
            incident=id,
            created_ns=opened_ns + 10 * S,
            ledger=Ledger(entries=entries),
            files=(),
            details={
                "what": {"title": f"payments/checkout-{number}", "packets": 7, "bytes": 700},
                "why": {
                    "rule": "beacon",
                    "alerts": [
                        {
                            "id": f"a-{number}", "rule": "Outbound Connection to C2 Servers",
                            "priority": "Warning", "time_ns": opened_ns, "via": via, "repeats": 2,
                            "received_ns": opened_ns, "verbatim": alert(number).decode(),
                        }
                    ],
                    "alerts_counted": 3 if via == "webhook" else 1,
                },
                "who": who,
                "where": {"target": "t-1"},
                "when": {"t0_ns": opened_ns - S, "opened_ns": opened_ns},
            },  # type: ignore[dict-item]  # plain JSON
        ),
        ["evidence.pcapng"],
    )  # fmt: skip
    folder = Path(vault.folder(id))
    import hashlib

    return Incident(
        id=id,
        state=State.SEALED,
        target=TargetKey("t-1"),
        title=f"payments/checkout-{number}",
        namespace=(namespaces or ("payments",))[0],
        pod="checkout",
        rule="beacon",
        falco_rule="Outbound Connection to C2 Servers",
        priority="Warning",
        t0_ns=opened_ns - S,
        opened_ns=opened_ns,
        sealed_ns=manifest.created_ns,
        alerts=3 if via == "webhook" else 1,
        packets=7,
        bytes=700,
        word=word,
        folder=str(folder),
        manifest_sha256=hashlib.sha256((folder / "manifest.json").read_bytes()).hexdigest(),
        namespaces=namespaces or ("payments",),
    )


def other(incident: Incident, **changes: object) -> Incident:
    """The same with changes."""
    return replace(incident, **changes)  # type: ignore[arg-type]  # one keyword dictionary for all fields
