"""Silence, drops, restarts and unheard matches of Falco are noticed and said in words."""

from __future__ import annotations

import json
from pathlib import Path

from tripshark.formats import falco
from tripshark.ingest.heartbeat import MAX_GAPS, Heartbeats
from tripshark.model.alert import Alert

FOLDER = Path(__file__).parents[1] / "falco-events"
SNAPSHOT = json.loads(
    (FOLDER / "37-msgfield-falco-internal-metrics-snapshot.body.json").read_bytes()
)
DROPS = (FOLDER / "38-msgfield-falco-internal-syscall-event-drop.body.json").read_bytes()
S = 1_000_000_000


def beat(**fields: object) -> Alert:
    return falco.decode(
        json.dumps({**SNAPSHOT, "output_fields": {**SNAPSHOT["output_fields"], **fields}}).encode()
    )


def test_regular_heartbeats_are_no_problem() -> None:
    """The interval is learned; nothing is said while they come."""
    beats = Heartbeats()
    for n in range(5):
        beats.saw(beat(), n * 60 * S)
    upstream = beats.upstream(250 * S)
    assert upstream.problems() == ()
    assert upstream.falcos[0].every_s == 60
    assert upstream.falcos[0].hostname == "vm"
    assert upstream.falcos[0].version == "0.44.1"


def test_a_late_heartbeat_is_said_and_becomes_a_gap() -> None:
    """Overdue now, and a gap with its bounds once the next one comes."""
    beats = Heartbeats(every_s=60, grace_s=5)
    beats.saw(beat(), 0 * S + 1)
    assert not beats.upstream(64 * S).falcos[0].is_late
    late = beats.upstream(70 * S)
    assert late.falcos[0].is_late
    assert "silent for 70 s" in late.problems()[0]
    beats.saw(beat(), 300 * S)
    after = beats.upstream(301 * S).falcos[0]
    assert (after.gaps_total, after.is_late) == (1, False)
    assert (after.gaps[0].from_ns, after.gaps[0].to_ns, after.gaps[0].why) == (
        1,
        300 * S,
        "silent",
    )


def test_a_heartbeat_that_was_promised_and_never_came_is_said() -> None:
    """With heartbeat.every set, no Falco at all is a problem."""
    assert "metrics.output_rule" in Heartbeats(every_s=60).upstream(S).problems()[0]
    assert Heartbeats().upstream(S).problems() == ()


def test_drops_add_up_over_restarts_of_falco() -> None:
    """Falco's counters begin at nought with each start; ours do not."""
    beats = Heartbeats()
    start, again = "falco.start_ts", {"falco.start_ts": 5}
    beats.saw(beat(**{start: 4, "scap.n_drops": 10, "falco.outputs_queue_num_drops": 2}), 1 * S)
    beats.saw(beat(**{start: 4, "scap.n_drops": 15, "falco.outputs_queue_num_drops": 2}), 2 * S)
    beats.saw(beat(**again, **{"scap.n_drops": 3, "falco.outputs_queue_num_drops": 4}), 3 * S)
    seen = beats.upstream(4 * S).falcos[0]
    assert (seen.kernel_drops, seen.queue_drops, seen.restarts) == (18, 6, 1)
    words = " ".join(beats.upstream(4 * S).problems())
    assert "threw away 6 alerts" in words
    assert "missed 18 system calls" in words


def test_drop_events_count_where_no_snapshots_come() -> None:
    """All-string counters of Falco's own drop event are numbers to us."""
    beats = Heartbeats()
    for _ in range(3):
        beats.saw(falco.decode(DROPS), S)
    assert beats.upstream(S).falcos[0].kernel_drops == 3


def test_matches_that_did_not_reach_us_are_counted(event) -> None:
    """Between two snapshots Falco counted more matches than alerts came."""
    beats = Heartbeats()
    beats.saw(beat(**{"falco.rules.matches_total": 100}), 1 * S)
    for n in range(7):
        beats.saw(falco.decode(event(n)), 2 * S)
    beats.saw(beat(**{"falco.rules.matches_total": 110}), 3 * S)
    beats.saw(beat(**{"falco.rules.matches_total": 110}), 4 * S)
    assert beats.upstream(4 * S).falcos[0].unheard == 3
    assert "3 matches" in " ".join(beats.upstream(4 * S).problems())


def test_our_own_absence_is_a_gap(tmp_path, event) -> None:
    """After a restart the stretch in which nobody listened is known from the remembered sign of life."""
    path = tmp_path / "heartbeats.json"
    first = Heartbeats(path=path, started_ns=1 * S)
    first.saw(beat(), 10 * S)
    first.alive(20 * S)
    second = Heartbeats(path=path, started_ns=100 * S, every_s=30)
    seen = second.upstream(101 * S).falcos[0]
    assert [(each.from_ns, each.to_ns, each.why) for each in seen.gaps] == [
        (20 * S, 100 * S, "away")
    ]
    assert not seen.is_late  # the wait begins anew with us
    assert "Tripshark was away" in second.upstream(101 * S).problems()[0]
    path.write_bytes(b"not json")
    assert Heartbeats(path=path, started_ns=1).upstream(1).falcos == ()


def test_memory_is_bounded_and_a_full_disk_is_said(event, tmp_path) -> None:
    """At most 256 Falcos and 100 gaps are kept, further gaps are counted; a lost memory is a problem in words."""
    beats = Heartbeats(every_s=1, grace_s=0)
    for n in range(300):
        beats.saw(falco.decode(event(n, hostname=f"h{n}")), S)
    assert len(beats.upstream(S).falcos) == 256
    few = Heartbeats(every_s=1, grace_s=0, path=tmp_path / "no" / "folder")
    for n in range(MAX_GAPS + 20):
        few.saw(beat(), (1 + 10 * n) * S)
    seen = few.upstream(S)
    assert (len(seen.falcos[0].gaps), seen.falcos[0].gaps_total) == (MAX_GAPS, MAX_GAPS + 19)
    assert "not remembered" in seen.problems()[0]
