"""The catalogue keeps what became of every alert, counts what it throws away, and does all of a change or nothing."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
import sys
import time
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection as SqlConnection
from sqlalchemy import text, update

from tests.store.postgres import Server
from tests.store.private import in_private_tmpfs
from tripshark.errors import BadInput, NotFound, Permanent, Transient
from tripshark.model.alert import Accepted, Alert, AlertId, Connection, Endpoint, Priority, Proto
from tripshark.model.evidence import IncidentId, Word
from tripshark.model.incident import Incident, State
from tripshark.model.plan import Reason, Refusal
from tripshark.model.target import TargetKey
from tripshark.ports import AlertRow, Query
from tripshark.store import schema
from tripshark.store.catalogue import NOT_KEPT, SqlCatalogue
from tripshark.store.database import Database
from tripshark.store.rows import incident_out

ALERT = Alert(
    rule="Outbound Connection to C2 Servers",
    priority=Priority.WARNING,
    time_ns=1_795_429_500_000_000_000,
    output="\ud800 \0 <b>",
    hostname="node-1",
    tags=("network", "mitre"),
    uuid="u-1",
    fields={"a": [1, None, 2.5, {"b": "\udfff"}], "big": 1 << 80, "n": True},
    connection=Connection(
        client=Endpoint(ip_address("10.0.0.7"), 40000),
        server=Endpoint(ip_address("2001:db8::1"), 443),
        proto=Proto.TCP,
    ),
    hints=(Endpoint(ip_address("1.2.3.4"), None), Endpoint(None, 53)),
    container_id="0123456789ab",
    pid=4242,
    namespace="payments",
    pod="checkout",
    process="curl",
    cmdline="curl \0",
)
BUSY = Refusal(reason=Reason.BUSY, message="too many", hint="wait", rule="beacon")


def _row(seq: int, *, incident: str | None = None, refusal: Refusal | None = None) -> AlertRow:
    return AlertRow(
        accepted=Accepted(
            id=AlertId(f"a{seq}"),
            seq=seq,
            received_ns=1000 + seq,
            alert=ALERT,
            body=b'{"rule": "\xff"}',
            via="webhook",
        ),
        incident=None if incident is None else IncidentId(incident),
        refusal=refusal,
    )


def _incident(number: int, **more: object) -> Incident:
    known = {
        "id": IncidentId(f"i-{number:04}"),
        "state": State.SEALED,
        "target": TargetKey("t-1"),
        "title": "payments/checkout",
        "namespace": "payments",
        "pod": "checkout",
        "rule": "beacon",
        "falco_rule": "Outbound Connection",
        "priority": "Warning",
        "t0_ns": number,
        "opened_ns": number,
        "word": Word.TRUNCATED,
        "plan": {"before_ns": 5, "rungs": [{"core": "tcp"}]},
    }
    return Incident(**(known | more))  # type: ignore[arg-type]  # one keyword dictionary for all fields


async def test_what_was_put_is_found_as_it_was(place: Path | str) -> None:
    """Incident, alert with its verbatim body, refusal and position survive closing, byte for byte."""
    catalogue = await SqlCatalogue.open(place)
    assert await catalogue.position() == 0
    captured, refused = _row(1, incident="i-0001"), _row(2, refusal=BUSY)
    await catalogue.put(position=2, incidents=[_incident(1)], alerts=[captured, refused])
    await catalogue.close()
    catalogue = await SqlCatalogue.open(place)
    assert await catalogue.position() == 2
    assert await catalogue.incident(IncidentId("i-0001")) == _incident(1)
    assert await catalogue.incident(IncidentId("i-0002")) is None
    assert await catalogue.alerts(IncidentId("i-0001")) == [captured]
    assert await catalogue.refusals() == [refused]
    assert await catalogue.refusal_counts() == {"busy": 1}
    await catalogue.close()


async def test_a_plain_alert_without_anything_is_kept_too(place: Path | str) -> None:
    """Absent parts come back absent; times beyond 64 bits do not stop the catalogue."""
    bare = replace(
        _row(1, incident="i-1"),
        accepted=replace(
            _row(1).accepted,
            alert=Alert(rule="r" * 10_000, priority=Priority.DEBUG, time_ns=10**40),
        ),
    )
    catalogue = await SqlCatalogue.open(place)
    await catalogue.put(alerts=[bare], incidents=[_incident(1, t0_ns=10**40)])
    assert await catalogue.alerts(IncidentId("i-1")) == [bare]
    assert (await catalogue.incidents(Query()))[0].t0_ns == 2**63 - 1
    await catalogue.close()


async def test_fields_that_json_cannot_say_do_not_stop_the_catalogue(place: Path | str) -> None:
    """Monstrous nesting and numbers are shortened in the decoded alert; the verbatim body is kept whole."""
    deep: list = []
    for _ in range(100_000):
        deep = [deep]
    row = _row(1, incident="i-1")
    wild = replace(
        row,
        accepted=replace(
            row.accepted, alert=replace(ALERT, fields={"deep": deep, "big": 1 << 100_000})
        ),
    )
    catalogue = await SqlCatalogue.open(place)
    await catalogue.put(alerts=[wild])
    (kept,) = await catalogue.alerts(IncidentId("i-1"))
    assert kept.accepted.body == row.accepted.body
    assert kept.accepted.alert.connection == ALERT.connection
    assert "0x1" in str(kept.accepted.alert.fields["big"])
    await catalogue.close()


async def test_putting_again_replaces(place: Path | str) -> None:
    """A refused alert that is captured after all leaves the refusals, and its copies stay counted."""
    catalogue = await SqlCatalogue.open(place)
    await catalogue.put(alerts=[_row(1, refusal=BUSY), _row(2, refusal=BUSY)])
    await catalogue.put(repeats=[(AlertId("a1"), 5, 2000)])
    assert await catalogue.refusal_counts() == {"busy": 7}
    await catalogue.put(alerts=[_row(1, incident="i-1")], incidents=[_incident(1)])
    assert await catalogue.refusal_counts() == {"busy": 1}
    (row,) = await catalogue.alerts(IncidentId("i-1"))
    assert (row.repeats, row.last_ns, row.refusal) == (5, 2000, None)
    await catalogue.put(incidents=[_incident(1, state=State.REMOVED, problem="x")])
    found = await catalogue.incident(IncidentId("i-0001"))
    assert found is not None
    assert (found.state, found.problem) == (State.REMOVED, "x")
    await catalogue.close()


async def test_a_hundred_thousand_repeats_are_one_counter(tmp_path: Path) -> None:
    """Every copy counts, none costs a row, and the file does not grow with them."""
    catalogue = await SqlCatalogue.open(tmp_path / "c.db")
    await catalogue.put(alerts=[_row(1, refusal=BUSY), _row(2, incident="i-1")])
    for at in range(100):
        await catalogue.put(
            position=at,
            repeats=[(AlertId("a1"), 1, at * 500 + n) for n in range(500)]
            + [(AlertId("a2"), 1, at * 500 + n) for n in range(500)],
        )
    (refused,) = await catalogue.refusals()
    (captured,) = await catalogue.alerts(IncidentId("i-1"))
    assert refused.repeats == captured.repeats == 50_000
    assert refused.last_ns == 49_999
    assert await catalogue.refusal_counts() == {"busy": 50_001}
    await catalogue.close()
    assert (tmp_path / "c.db").stat().st_size < 1_000_000


async def test_refused_alerts_are_bounded_and_stay_counted(place: Path | str) -> None:
    """The newest of each reason stay, the others are counted, and a flood does not wash a rare reason away."""
    catalogue = await SqlCatalogue.open(place, keep_rows=100)
    rare = Refusal(reason=Reason.DISK, message="full")
    await catalogue.put(alerts=[_row(1, refusal=rare)])
    for start in range(10, 2010, 500):
        await catalogue.put(
            alerts=[_row(seq, refusal=BUSY) for seq in range(start, start + 500)],
            repeats=[(AlertId("a10"), 1, 10_000_000 + start)],
        )
    assert await catalogue.refusal_counts() == {"busy": 2004, "disk": 1}
    kept = await catalogue.refusals(limit=500)
    assert [row.accepted.id for row in kept] == [
        "a10",
        *(f"a{n}" for n in range(2009, 1910, -1)),
        "a1",
    ]
    assert await catalogue.thrown_away() == 1900
    await catalogue.put(repeats=[(AlertId("a11"), 3, 5)])
    assert (await catalogue.refusal_counts())[NOT_KEPT] == 3
    assert [row.accepted.id for row in await catalogue.refusals(since_ns=10_000_000)] == ["a10"]
    await catalogue.close()


async def test_refused_alerts_are_bounded_in_bytes(place: Path | str) -> None:
    """Large alerts make room sooner; a batch larger than the bound itself is survived."""
    catalogue = await SqlCatalogue.open(place, keep_bytes=1_000_000)
    big = _row(1, refusal=BUSY)
    rows = [
        replace(
            big,
            accepted=replace(
                big.accepted, id=AlertId(f"b{n}"), seq=n, received_ns=n, body=b"x" * 300_000
            ),
        )
        for n in range(10)
    ]
    await catalogue.put(alerts=rows)
    assert [row.accepted.id for row in await catalogue.refusals()] == ["b9", "b8", "b7"]
    assert await catalogue.refusal_counts() == {"busy": 10}
    await catalogue.close()


async def test_incidents_are_filtered_and_paged(place: Path | str) -> None:
    """Every filter narrows, pages follow one another without overlap or gap, newest first."""
    catalogue = await SqlCatalogue.open(place)
    everything = [
        _incident(
            n,
            opened_ns=n // 2,  # two of each moment
            namespace=("a", "b")[n % 2],
            pod=f"p{n % 3}",
            rule=f"r{n % 5}",
            state=State.OPEN if n == 7 else State.SEALED,
        )
        for n in range(1, 60)
    ]
    await catalogue.put(incidents=everything)
    newest_first = sorted(everything, key=lambda each: (each.opened_ns, each.id), reverse=True)
    paged: list[Incident] = []
    while page := await catalogue.incidents(
        Query(limit=7, before=paged[-1].id if paged else None)
    ):
        paged += page
    assert paged == newest_first
    for query, fits in (
        (Query(namespace="a"), lambda each: each.namespace == "a"),
        (Query(pod="p1", namespace="b"), lambda each: (each.pod, each.namespace) == ("p1", "b")),
        (Query(rule="r3"), lambda each: each.rule == "r3"),
        (Query(rule="Outbound Connection", limit=1000), lambda _: True),
        (Query(state="open"), lambda each: each.state is State.OPEN),
        (Query(since_ns=20), lambda each: each.opened_ns >= 20),
        (Query(namespace="a' OR 1=1 --"), lambda _: False),
    ):
        wanted = [each for each in newest_first if fits(each)][: query.limit]
        assert await catalogue.incidents(query) == wanted
    with pytest.raises(NotFound, match="cursor"):
        await catalogue.incidents(Query(before=IncidentId("nobody")))
    await catalogue.close()


async def test_a_put_is_all_or_nothing(place: Path | str) -> None:
    """When one part cannot be written the position does not move either."""
    catalogue = await SqlCatalogue.open(place)
    await catalogue.put(position=1)
    with pytest.raises(Permanent):
        await catalogue.put(
            position=2,
            incidents=[_incident(1)],
            alerts=[replace(_row(1), accepted=replace(_row(1).accepted, seq=2**70))],
        )
    assert await catalogue.position() == 1
    assert await catalogue.incidents(Query()) == []
    await catalogue.close()


async def test_a_thousand_alerts_are_put_in_a_blink(place: Path | str) -> None:
    """A batch as the runner makes it takes far less than a tenth of a second, and the loop goes on meanwhile."""
    catalogue = await SqlCatalogue.open(place)
    best = 1e9
    for round in range(5):
        rows = [_row(round * 1000 + n, incident="i-1") for n in range(1000)]
        began = time.process_time()  # not of whoever else is busy
        await catalogue.put(position=round, alerts=rows)
        best = min(best, time.process_time() - began)
    assert best < 0.25
    await catalogue.close()


async def test_a_locked_catalogue_is_transient(tmp_path: Path) -> None:
    """Another program holding the lock is told as such, and the same call works afterwards."""
    path = tmp_path / "c.db"
    catalogue = await SqlCatalogue.open(path, busy_seconds=0.1)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(Transient, match="locked"):
        await catalogue.put(position=5)
    other.execute("ROLLBACK")
    other.close()
    await catalogue.put(position=5)
    assert await catalogue.position() == 5
    await catalogue.close()
    with pytest.raises(Transient, match="closed"):
        await catalogue.position()


async def test_a_corrupt_catalogue_is_permanent(tmp_path: Path) -> None:
    """Foreign bytes and rotten pages end in words and a way out, not in a traceback."""
    path = tmp_path / "c.db"
    path.write_bytes(b"this is no database" * 1000)
    with pytest.raises(Permanent, match="not a database") as told:
        await SqlCatalogue.open(path)
    assert "move it away" in told.value.hint
    path.unlink()
    catalogue = await SqlCatalogue.open(path)
    await catalogue.put(incidents=[_incident(n) for n in range(500)])
    await catalogue.close()
    content = bytearray(path.read_bytes())
    content[8192:] = b"\xa5" * len(content[8192:])
    path.write_bytes(content)
    with pytest.raises(Permanent, match="malformed") as told:
        await (await SqlCatalogue.open(path)).incidents(Query())
    assert "evidence" in told.value.hint


async def test_a_newer_catalogue_is_left_alone(tmp_path: Path) -> None:
    """A version from the future is refused by name, and today's is brought in only once."""
    path = tmp_path / "c.db"
    catalogue = await SqlCatalogue.open(path)
    await catalogue._database.write(
        lambda connection: connection.execute(update(schema.version).values(version_num="9999"))
    )
    await catalogue.close()
    with pytest.raises(Permanent, match="version 9999"):
        await SqlCatalogue.open(path)


async def test_an_older_catalogue_becomes_todays(place: Path | str) -> None:
    """Every script in order makes the same tables as a fresh start, and what was in them stays."""
    fresh = await Database.open(place)

    def wind_back(connection: SqlConnection) -> None:
        schema.metadata.drop_all(connection)
        schema.version.drop(connection)
        schema.upgrade(connection, "0001")
        columns = {**incident_out(_incident(1)), "namespace": "payments"}
        del columns["namespaces"]
        names = ", ".join(columns)
        values = ", ".join(f":{name}" for name in columns)
        connection.execute(text(f"INSERT INTO incidents ({names}) VALUES ({values})"), columns)

    await fresh.write(wind_back)
    await fresh.close()
    catalogue = await SqlCatalogue.open(place)
    found = await catalogue.incident(IncidentId("i-0001"))
    assert found == _incident(1, namespaces=("payments",))
    assert await catalogue.incidents(Query(visible=("payments",))) == [found]
    assert await catalogue.incidents(Query(visible=("other",))) == []
    differences = await catalogue.database.read(
        lambda connection: compare_metadata(
            MigrationContext.configure(connection, opts={"compare_type": True}), schema.metadata
        )
    )
    assert differences == []
    await catalogue.close()


async def test_a_catalogue_from_before_the_scripts_is_taken_over(tmp_path: Path) -> None:
    """The first release kept its version in a table of its own; its rows stay."""
    path = tmp_path / "c.db"
    database = await Database.open(path)

    def wind_back(connection: SqlConnection) -> None:
        schema.metadata.drop_all(connection)
        schema.version.drop(connection)
        schema.upgrade(connection, "0001")
        schema.version.drop(connection)
        connection.execute(text("CREATE TABLE schema_version (version INTEGER NOT NULL)"))
        connection.execute(text("INSERT INTO schema_version VALUES (1)"))
        connection.execute(text("INSERT INTO state VALUES ('position', 7)"))

    await database.write(wind_back)
    await database.close()
    catalogue = await SqlCatalogue.open(path)
    assert await catalogue.position() == 7
    await catalogue.close()


def test_the_newest_script_is_the_head() -> None:
    """`HEAD` names the last script, and the scripts form one line."""
    config = Config()
    config.set_main_option("script_location", str(Path(schema.__file__).parent / "migrations"))
    config.set_main_option("path_separator", "os")
    assert ScriptDirectory.from_config(config).get_heads() == [schema.HEAD]


async def test_evidence_of_several_namespaces_is_listed_to_who_may_see_all_of_them(
    place: Path | str,
) -> None:
    """A reader of some namespaces gets the incidents whose packets are of these alone; replacing one replaces its namespaces."""
    catalogue = await SqlCatalogue.open(place)
    both = _incident(1, namespaces=("payments", "shop"))
    host = _incident(2, namespace="", namespaces=("*",))
    await catalogue.put(
        incidents=[both, host, _incident(3)],
        alerts=[_row(1, refusal=BUSY), _row(2, incident="i-0003")],
    )
    for visible, seen in (
        (("payments",), ["i-0003"]),
        (("payments", "shop"), ["i-0003", "i-0001"]),
        (("shop",), []),
        ((), []),
        (None, ["i-0003", "i-0002", "i-0001"]),
    ):
        found = await catalogue.incidents(Query(visible=visible))
        assert [each.id for each in found] == seen, visible
    assert await catalogue.namespaces() == ["*", "payments", "shop"]
    assert len(await catalogue.refusals(namespaces=["payments"])) == 1
    assert await catalogue.refusals(namespaces=["shop"]) == []
    await catalogue.put(incidents=[_incident(1, namespaces=("shop",))])
    assert [e.id for e in await catalogue.incidents(Query(visible=("shop",)))] == ["i-0001"]
    await catalogue.close()


async def test_records_without_evidence_are_forgotten_in_the_end(place: Path | str) -> None:
    """Removed and failed incidents of long ago go with their alerts; kept evidence is never forgotten."""
    catalogue = await SqlCatalogue.open(place)
    await catalogue.put(
        incidents=[
            _incident(1, state=State.REMOVED),
            _incident(2, state=State.FAILED),
            _incident(3, state=State.SEALED),
            _incident(900, state=State.REMOVED),
        ],
        alerts=[_row(1, incident="i-0001"), _row(3, incident="i-0003"), _row(4, refusal=BUSY)],
    )
    assert await catalogue.prune(before_ns=500, limit=1) == 1
    assert await catalogue.prune(before_ns=500) == 1
    assert await catalogue.prune(before_ns=500) == 0
    assert [each.id for each in await catalogue.incidents(Query())] == ["i-0900", "i-0003"]
    assert await catalogue.alerts(IncidentId("i-0001")) == []
    assert len(await catalogue.alerts(IncidentId("i-0003"))) == 1
    assert await catalogue.refusal_counts() == {"busy": 1}
    await catalogue.close()


async def test_two_writers_at_once_lose_nothing(place: Path | str) -> None:
    """Counters that are read and written back stay exact however two programs interleave."""
    first, second = await SqlCatalogue.open(place), await SqlCatalogue.open(place)

    async def write(catalogue: SqlCatalogue, base: int) -> None:
        for n in range(40):
            await catalogue.put(
                incidents=[_incident(7, alerts=base + n)],
                alerts=[_row(base + n, refusal=BUSY)],
                repeats=[(AlertId(f"a{base}"), 1, n)],
            )

    await asyncio.gather(write(first, 1000), write(second, 2000))
    assert await first.refusal_counts() == {"busy": 160}
    assert len(await second.refusals(limit=1000)) == 80
    for catalogue in (first, second):
        await catalogue.close()


async def test_a_database_that_was_away_is_met_again(postgres: Server) -> None:
    """While PostgreSQL is stopped every call is `Transient` and names no password; afterwards the same object works."""
    catalogue = await SqlCatalogue.open(postgres.new())
    await catalogue.put(position=5)
    postgres.stop()
    try:
        with pytest.raises(Transient) as told:
            await catalogue.put(position=6)
    finally:
        postgres.start()
    assert "no-secret-here" not in str(told.value)
    assert "hub.database" in told.value.hint
    await catalogue.put(position=7)
    assert await catalogue.position() == 7
    await catalogue.close()


async def test_a_url_of_something_else_is_refused_without_its_password() -> None:
    """Only PostgreSQL is spoken; what is wrong with a URL is told without its secret."""
    for url in ("mysql://u:no-secret-here@h/n", "postgresql://u:no-secret-here@h:port/n"):
        with pytest.raises(BadInput) as told:
            await SqlCatalogue.open(url)
        assert "no-secret-here" not in str(told.value)


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="reads as another user, which needs root")
async def test_who_may_only_read_can_read_beside_the_writer(tmp_path: Path) -> None:
    """A user of the group lists incidents while the service runs, and is told plainly when writing."""
    catalogue = await SqlCatalogue.open(tmp_path / "c.db")
    await catalogue.put(incidents=[_incident(1)])
    for folder in (tmp_path, *tmp_path.parents[:2]):
        folder.chmod(0o755)
    code = f"""
import asyncio, os, sys
sys.path.insert(0, {str(Path(__file__).parents[2])!r})
from pathlib import Path
from tripshark.errors import Permanent
from tripshark.ports import Query
from tripshark.store.catalogue import SqlCatalogue

async def main():
    os.setgroups([])
    os.setgid({os.getegid()})
    os.setuid(65534)
    catalogue = await SqlCatalogue.open(Path({str(tmp_path / "c.db")!r}))
    print([incident.id for incident in await catalogue.incidents(Query())])
    try:
        await catalogue.put(position=5)
    except Permanent as error:
        print(error.hint)
    await catalogue.close()

asyncio.run(main())
"""
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    told, problems = await child.communicate()
    assert problems == b""
    assert told.decode().splitlines() == [
        "['i-0001']",
        "give the file and its folder to the user Tripshark runs as",
    ]
    await catalogue.close()


CHILD = """
import asyncio, os, sys
from pathlib import Path
sys.path.insert(0, {root!r})
from tests.store.test_catalogue import BUSY, _row
from tripshark.store.catalogue import SqlCatalogue

async def main():
    catalogue = await SqlCatalogue.open(Path(sys.argv[1]))
    n = await catalogue.position()
    while True:
        n += 10
        await catalogue.put(position=n, alerts=[_row(n - at, refusal=BUSY) for at in range(10)])
        os.write(1, b"%d\\n" % n)

asyncio.run(main())
"""


def test_kill_9_leaves_position_and_alerts_together(tmp_path: Path) -> None:
    """After a kill at any moment exactly the alerts up to the position are there, and no promised one is missing."""
    path, promised = tmp_path / "c.db", 0
    child_code = CHILD.format(root=str(Path(__file__).parents[2]))
    for lines in (3, 11, 30):
        with subprocess.Popen(
            [sys.executable, "-c", child_code, str(path)], stdout=subprocess.PIPE
        ) as child:
            assert child.stdout is not None
            for _ in range(lines):
                promised = int(child.stdout.readline())
            child.kill()

        async def look() -> tuple[int, dict[str, int]]:
            catalogue = await SqlCatalogue.open(path)
            found = await catalogue.position(), await catalogue.refusal_counts()
            await catalogue.close()
            return found

        position, counts = asyncio.run(look())
        assert position >= promised
        assert counts == {"busy": position}


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small tmpfs of its own, which needs root")
def test_a_full_disk_is_transient_and_leaves_the_catalogue_whole() -> None:
    """Without space a put is refused whole; with space again it works."""
    in_private_tmpfs(
        "3m",
        f"""
        import asyncio, sys
        from pathlib import Path
        sys.path.insert(0, {str(Path(__file__).parents[2])!r})
        from tests.store.test_catalogue import BUSY, _row
        from tripshark.errors import Transient
        from tripshark.store.catalogue import SqlCatalogue

        async def main(folder):
            catalogue = await SqlCatalogue.open(folder / "c.db")
            (folder / "filler").write_bytes(bytes(1 << 20))
            done = 0
            try:
                while True:
                    rows = [_row(done + n + 1, refusal=BUSY) for n in range(100)]
                    await catalogue.put(position=done + 100, alerts=rows)
                    done += 100
            except Transient as error:
                assert "full" in error.message, error
            assert 0 < await catalogue.position() == done
            (folder / "filler").unlink()
            rows = [_row(done + n + 1, refusal=BUSY) for n in range(100)]
            await catalogue.put(position=done + 100, alerts=rows)
            assert await catalogue.refusal_counts() == {{"busy": done + 100}}
            await catalogue.close()

        asyncio.run(main(Path(FOLDER)))
        """,
    )
