"""The key of an event is the same by whichever way it came, and different for different events."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tripshark.formats import falco
from tripshark.ingest import witness
from tripshark.ingest.witness import Witnesses, event_key
from tripshark.model.alert import AlertId

EVENTS = sorted((Path(__file__).parents[1] / "falco-events").glob("*.json"))


def as_falcosidekick(event: dict) -> dict:
    """What Falcosidekick makes of an event on its way (its handlers.go, described in words)."""
    fields = {
        key.replace("[", "_").replace("]", ""): value[:507] + "[...]"
        if isinstance(value, str) and len(value) > 512
        else value
        for key, value in event["output_fields"].items()
    }
    return {
        **event,
        "uuid": "0b4c3e9e-6b0b-4a5c-9f27-6c6b3a0f6f10",
        "output_fields": {**fields, "customer": "added by customfields"},
        "tags": sorted(event.get("tags") or []),
    }


@pytest.mark.parametrize("path", EVENTS, ids=lambda each: each.name[:30])
def test_falcosidekick_changes_nothing(path: Path) -> None:
    """Raw Falco and the same event through Falcosidekick have one key."""
    raw = json.loads(path.read_bytes())
    if raw["source"] not in ("syscall", "syscalls"):
        pytest.skip("only fields of system calls are told from what Falcosidekick adds")
    other = as_falcosidekick(raw)
    assert event_key(falco.decode(json.dumps(raw).encode())) == event_key(
        falco.decode(json.dumps(other).encode())
    )


def test_different_events_have_different_keys() -> None:
    """No two of the recorded events share a key."""
    alerts = {each.read_bytes() for each in EVENTS}
    keys = {event_key(falco.decode(each)) for each in alerts}
    assert len(keys) == len(alerts)


def test_each_part_of_the_meaning_counts(event) -> None:
    """Rule, time and any field of Falco's make another event; their order does not."""
    base = json.loads(event(1))
    key = event_key(falco.decode(event(1)))
    shuffled = dict(reversed(base.items()))
    assert event_key(falco.decode(json.dumps(shuffled).encode())) == key
    for change in (
        {"rule": "Other"},
        {"output_fields": {**base["output_fields"], "evt.time": 1795439846000000099}},
        {"output_fields": {**base["output_fields"], "fd.name": "x"}},
    ):
        assert event_key(falco.decode(json.dumps({**base, **change}).encode())) != key


def test_the_ring_of_witnesses_is_bounded_and_keeps_the_newest(tmp_path, monkeypatch) -> None:
    """Beyond its size the oldest are forgotten, in memory and in the file."""
    monkeypatch.setattr(witness, "SLOTS", 4)
    known = Witnesses(tmp_path / "w")
    keys = [f"{n:064x}"[::-1] for n in range(1, 8)]
    for n, key in enumerate(keys):
        known.remember(key, "w", AlertId(f"a{n}"))
        known.remember(key, "f", AlertId("again"))
    for each in (known, Witnesses(tmp_path / "w")):
        assert [each.first(key) for key in keys[:3]] == [None] * 3
        assert [each.first(key) for key in keys[3:]] == [("w", f"a{n}") for n in range(3, 7)]
        each.close()


@given(content=st.binary(max_size=200))
def test_a_damaged_file_is_begun_anew(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    """Whatever stands in the file, opening it works."""
    path = tmp_path_factory.mktemp("w") / "w"
    path.write_bytes(content)
    known = Witnesses(path)
    assert known.first("0" * 64) is None
    known.close()
