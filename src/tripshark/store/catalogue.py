"""What is known of incidents, alerts and refusals: `ports.Catalogue` over one database, SQLite or PostgreSQL.

Refused alerts are kept only in the newest rows of each reason, while every one of them stays counted: a flood of
refusals costs a bounded space, and a rare reason is not washed away by a frequent one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import (
    Connection,
    RowMapping,
    Table,
    and_,
    bindparam,
    delete,
    func,
    insert,
    or_,
    select,
    union,
    update,
)

from tripshark.errors import NotFound
from tripshark.model.alert import AlertId
from tripshark.model.evidence import IncidentId
from tripshark.model.incident import Incident, State
from tripshark.ports import AlertRow, Query
from tripshark.store import schema
from tripshark.store.database import Database
from tripshark.store.rows import alert_in, alert_out, incident_in, incident_out

T = TypeVar("T")

KEEP_ROWS = 1000  # refused alerts of one reason that stay readable
KEEP_BYTES = 64 << 20  # and how much space they may take
MAX_PAGE = 1000
NOT_KEPT = "not_kept"  # repeats of an alert whose row has been thrown away

_CHUNK = 500  # values in one IN (…); SQLite and PostgreSQL both take more


class SqlCatalogue:
    """`ports.Catalogue` in a SQLite file or a PostgreSQL database. Opened with `SqlCatalogue.open`, closed with `close`.

    Every method raises `Transient` when the database is locked or its disk refuses, `Permanent` when it is corrupt.
    """

    def __init__(
        self, database: Database, *, keep_rows: int = KEEP_ROWS, keep_bytes: int = KEEP_BYTES
    ) -> None:
        self._database = database
        self._keep_rows = keep_rows
        self._keep_bytes = keep_bytes

    @classmethod
    async def open(
        cls,
        place: Path | str,
        *,
        keep_rows: int = KEEP_ROWS,
        keep_bytes: int = KEEP_BYTES,
        busy_seconds: float = 5.0,
    ) -> SqlCatalogue:
        """Open or create it, brought to today's schema; another program's lock is waited for so long.

        `place` is a file's path, or `postgresql://USER:PASSWORD@HOST/NAME`.
        """
        database = await Database.open(place, busy_seconds=busy_seconds)
        return cls(database, keep_rows=keep_rows, keep_bytes=keep_bytes)

    async def close(self) -> None:
        """After what is under way. Later calls raise `Transient`."""
        await self._database.close()

    async def position(self) -> int:
        """Journal seq up to which every alert is in the catalogue."""
        return await self._database.read(
            lambda connection: (
                connection.scalar(
                    select(schema.state.c.value).where(schema.state.c.name == "position")
                )
                or 0
            )
        )

    async def put(
        self,
        *,
        position: int | None = None,
        incidents: Sequence[Incident] = (),
        alerts: Sequence[AlertRow] = (),
        repeats: Sequence[tuple[AlertId, int, int]] = (),
    ) -> None:
        """Insert or replace incidents and alerts, add repeats, move the position: all or nothing, durable.

        An alert put again keeps the greater count of repeats, so replacing a row never forgets copies.
        """

        def work(connection: Connection) -> None:
            put_incidents(connection, incidents)
            counts = _Counts(connection)
            if alerts:
                self._put_alerts(connection, alerts, counts)
            if repeats:
                _add_repeats(connection, repeats, counts)
            self._bound(connection, counts)
            counts.store(connection)
            if position is not None:
                put_rows(
                    connection,
                    schema.state,
                    {"position": {"name": "position", "value": position}},
                    key="name",
                )

        await self._database.write(work)

    async def incidents(self, query: Query) -> Sequence[Incident]:
        """Newest first. Raises `NotFound` when the cursor names no incident."""
        return await self._database.read(lambda connection: _incidents(connection, query))

    async def incident(self, id: IncidentId) -> Incident | None:
        """The incident of that id."""

        def work(connection: Connection) -> Incident | None:
            found = select(schema.incidents).where(schema.incidents.c.id == id)
            row = connection.execute(found).mappings().one_or_none()
            return None if row is None else incident_in(_named(row))

        return await self._database.read(work)

    async def alerts(self, incident: IncidentId) -> Sequence[AlertRow]:
        """Every alert of an incident, oldest first."""
        table = schema.alerts
        found = select(table).where(table.c.incident == incident).order_by(table.c.seq)
        return await self._database.read(
            lambda connection: [
                alert_in(_named(row)) for row in connection.execute(found).mappings()
            ]
        )

    async def by_via(self, tail: str) -> AlertRow | None:
        """The newest alert whose `via` ends so."""
        table = schema.alerts
        found = (
            select(table)
            .where(table.c.via.endswith(tail, autoescape=True))
            .order_by(table.c.seq.desc())
            .limit(1)
        )
        rows = await self._database.read(
            lambda connection: [
                alert_in(_named(row)) for row in connection.execute(found).mappings()
            ]
        )
        return rows[0] if rows else None

    async def refusals(
        self, *, since_ns: int = 0, limit: int = 50, namespaces: Sequence[str] | None = None
    ) -> Sequence[AlertRow]:
        """Alerts that led to no capture, newest (by their last copy) first; at most 1000.

        With `namespaces`, only of alerts that name one of them.
        """
        table = schema.alerts
        found = (
            select(table)
            .where(table.c.reason.is_not(None), table.c.touched_ns >= since_ns)
            .order_by(table.c.touched_ns.desc(), table.c.seq.desc())
            .limit(max(1, min(limit, MAX_PAGE)))
        )
        if namespaces is not None:
            found = found.where(table.c.namespace.in_(list(namespaces)))
        return await self._database.read(
            lambda connection: [
                alert_in(_named(row)) for row in connection.execute(found).mappings()
            ]
        )

    async def refusal_counts(self) -> dict[str, int]:
        """How many alerts (repeats included) were refused, by reason; exact, though old rows are thrown away.

        `not_kept` counts repeats of alerts whose own row, and with it the reason, was already thrown away.
        """
        table = schema.refusals
        return await self._database.read(
            lambda connection: {
                reason: count
                for reason, count in connection.execute(select(table.c.reason, table.c.alerts))
                if count
            }
        )

    async def namespaces(self) -> Sequence[str]:
        """Every namespace that any incident's evidence or any refused alert is about, in order; `*` for a whole machine."""
        found = union(
            select(schema.held.c.namespace),
            select(schema.alerts.c.namespace).where(
                schema.alerts.c.reason.is_not(None), schema.alerts.c.namespace.is_not(None)
            ),
        )
        return await self._database.read(
            lambda connection: sorted(str(name) for name in connection.scalars(found) if name)
        )

    async def prune(self, *, before_ns: int, limit: int = 500) -> int:
        """Forget incidents that were opened before then and have no evidence any more, with all that is known of them.

        Of at most `limit` incidents, the oldest first; returns how many. An incident whose evidence is kept stays.
        """

        def work(connection: Connection) -> int:
            table = schema.incidents
            gone = list(
                connection.scalars(
                    select(table.c.id)
                    .where(
                        table.c.state.in_([State.REMOVED.value, State.FAILED.value]),
                        table.c.opened_ns < before_ns,
                    )
                    .order_by(table.c.opened_ns)
                    .limit(limit)
                )
            )
            for chunk in _chunks(gone):
                connection.execute(delete(table).where(table.c.id.in_(chunk)))
                for other in (
                    schema.alerts, schema.held, schema.sent, schema.parts, schema.deeds,
                    schema.notes,
                ):  # fmt: skip
                    connection.execute(delete(other).where(other.c.incident.in_(chunk)))
            return len(gone)

        return await self._database.write(work)

    @property
    def database(self) -> Database:
        """For those who keep other tables in the same database."""
        return self._database

    async def thrown_away(self) -> int:
        """Refused alerts that are counted but can no longer be read."""
        found = select(func.sum(schema.refusals.c.thrown_away))
        return await self._database.read(lambda connection: int(connection.scalar(found) or 0))

    def _put_alerts(
        self, connection: Connection, alerts: Sequence[AlertRow], counts: _Counts
    ) -> None:
        table = schema.alerts
        rows = {str(row.accepted.id): alert_out(row) for row in alerts}
        before = _existing(
            connection,
            table,
            list(rows),
            ("id", "reason", "repeats", "last_ns", "touched_ns", "size"),
        )
        for id, old in before.items():
            row = rows[id]
            for column in ("repeats", "last_ns", "touched_ns"):
                row[column] = max(row[column], old[column])
            if old["reason"] is not None:
                counts.add(
                    old["reason"], alerts=-1 - old["repeats"], kept=-1, kept_bytes=-old["size"]
                )
        for row in rows.values():
            if row["reason"] is not None:
                counts.add(
                    row["reason"], alerts=1 + row["repeats"], kept=1, kept_bytes=row["size"]
                )
        _write(connection, table, rows, before)

    def _bound(self, connection: Connection, counts: _Counts) -> None:
        """Throw the oldest refused alerts of each reason away until the rest is within the bounds."""
        table = schema.alerts
        for reason, count in counts.changed():
            while count["kept"] > self._keep_rows or count["kept_bytes"] > self._keep_bytes:
                oldest = connection.execute(
                    select(table.c.id, table.c.size)
                    .where(table.c.reason == reason)
                    .order_by(table.c.touched_ns, table.c.seq)
                    .limit(_CHUNK)
                ).all()
                gone = []
                for id, size in oldest:
                    if (
                        count["kept"] <= self._keep_rows
                        and count["kept_bytes"] <= self._keep_bytes
                    ):
                        break
                    gone.append(id)
                    counts.add(reason, kept=-1, kept_bytes=-size, thrown_away=1)
                if not gone:  # the counters say more than there is: believe the rows
                    counts.add(reason, kept=-count["kept"], kept_bytes=-count["kept_bytes"])
                    break
                connection.execute(delete(table).where(table.c.id.in_(gone)))


class _Counts:
    """The refusal counters, read once and written once per transaction."""

    _NAMES = ("alerts", "kept", "kept_bytes", "thrown_away")

    def __init__(self, connection: Connection) -> None:
        rows = connection.execute(select(schema.refusals)).mappings()
        self._before = {
            row["reason"]: {name: int(row[name]) for name in self._NAMES} for row in rows
        }
        self._now = {reason: dict(count) for reason, count in self._before.items()}

    def add(self, reason: str, **more: int) -> None:
        count = self._now.setdefault(reason, dict.fromkeys(self._NAMES, 0))
        for name, number in more.items():
            count[name] += number

    def changed(self) -> list[tuple[str, dict[str, int]]]:
        return [
            (reason, count)
            for reason, count in self._now.items()
            if count != self._before.get(reason)
        ]

    def store(self, connection: Connection) -> None:
        rows = {reason: {"reason": reason, **count} for reason, count in self.changed()}
        _write(connection, schema.refusals, rows, self._before, key="reason")


def _add_repeats(
    connection: Connection, repeats: Sequence[tuple[AlertId, int, int]], counts: _Counts
) -> None:
    table = schema.alerts
    more: dict[str, tuple[int, int]] = {}
    for id, copies, last_ns in repeats:
        had, latest = more.get(id, (0, 0))
        more[id] = had + copies, max(latest, last_ns)
    before = _existing(
        connection, table, list(more), ("id", "reason", "repeats", "last_ns", "touched_ns")
    )
    changes = []
    for name, (copies, last_ns) in more.items():
        old = before.get(name)
        if old is None:
            counts.add(NOT_KEPT, alerts=copies)
            continue
        if old["reason"] is not None:
            counts.add(old["reason"], alerts=copies)
        changes.append(
            {
                "id_": name,
                "repeats": old["repeats"] + copies,
                "last_ns": max(old["last_ns"], last_ns),
                "touched_ns": max(old["touched_ns"], last_ns),
            }
        )
    if changes:
        connection.execute(update(table).where(table.c.id == bindparam("id_")), changes)


def _incidents(connection: Connection, query: Query) -> list[Incident]:
    table = schema.incidents
    found = select(table).order_by(table.c.opened_ns.desc(), table.c.id.desc())
    if query.since_ns:
        found = found.where(table.c.opened_ns >= query.since_ns)
    if query.namespace:
        found = found.where(table.c.namespace == query.namespace)
    if query.pod:
        found = found.where(table.c.pod == query.pod)
    if query.rule:
        found = found.where(or_(table.c.rule == query.rule, table.c.falco_rule == query.rule))
    if query.state:
        found = found.where(table.c.state == query.state)
    if query.text:
        told = (table.c.id, table.c.title, table.c.rule, table.c.falco_rule, table.c.summary)
        found = found.where(or_(*(each.icontains(query.text, autoescape=True) for each in told)))
    if query.visible is not None:
        held = schema.held
        found = found.where(
            ~select(held.c.incident)
            .where(held.c.incident == table.c.id, held.c.namespace.not_in(query.visible))
            .exists()
        )
    if query.before is not None:
        opened_ns = connection.scalar(select(table.c.opened_ns).where(table.c.id == query.before))
        if opened_ns is None:
            raise NotFound(
                "the cursor names no incident",
                where=query.before[:80],
                hint="begin again without `before`",
            )
        found = found.where(
            or_(
                table.c.opened_ns < opened_ns,
                and_(table.c.opened_ns == opened_ns, table.c.id < query.before),
            )
        )
    found = found.limit(max(1, min(query.limit, MAX_PAGE)))
    return [incident_in(_named(row)) for row in connection.execute(found).mappings()]


def put_incidents(connection: Connection, incidents: Iterable[Incident]) -> None:
    """Insert or replace incidents, within the caller's transaction."""
    rows = {str(each.id): each for each in incidents}
    if not rows:
        return
    put_rows(connection, schema.incidents, {id: incident_out(each) for id, each in rows.items()})
    held = schema.held
    wanted = {(id, name[:253]) for id, each in rows.items() for name in each.held}
    for chunk in _chunks(rows):
        there = {
            (id, name)
            for id, name in connection.execute(
                select(held.c.incident, held.c.namespace).where(held.c.incident.in_(chunk))
            )
        }
        for id, name in there - wanted:
            connection.execute(delete(held).where(held.c.incident == id, held.c.namespace == name))
        wanted -= there
    if wanted:
        connection.execute(
            insert(held), [{"incident": id, "namespace": name} for id, name in sorted(wanted)]
        )


def put_rows(
    connection: Connection,
    table: Table,
    rows: Mapping[str, dict[str, Any]],
    key: str = "id",
) -> None:
    if rows:
        _write(connection, table, rows, _existing(connection, table, list(rows), (key,), key), key)


def _write(
    connection: Connection,
    table: Table,
    rows: Mapping[str, dict[str, Any]],
    existing: Mapping[str, object],
    key: str = "id",
) -> None:
    """Insert the new and replace the known, in the same words for every database."""
    fresh = [row for name, row in rows.items() if name not in existing]
    known = [
        {f"{key}_" if column == key else column: value for column, value in row.items()}
        for name, row in rows.items()
        if name in existing
    ]
    if fresh:
        connection.execute(insert(table), fresh)
    if known:
        connection.execute(update(table).where(table.c[key] == bindparam(f"{key}_")), known)


def _existing(
    connection: Connection,
    table: Table,
    keys: Sequence[str],
    columns: Sequence[str],
    key: str = "id",
) -> dict[str, dict[str, Any]]:
    """Those of the keys that are there, with some of their columns."""
    found: dict[str, dict[str, Any]] = {}
    for chunk in _chunks(keys):
        rows = connection.execute(
            select(*(table.c[column] for column in columns)).where(table.c[key].in_(chunk))
        )
        found |= {row[key]: _named(row) for row in rows.mappings()}
    return found


def _chunks(values: Iterable[T]) -> Iterator[list[T]]:
    source = iter(values)
    while chunk := list(islice(source, _CHUNK)):
        yield chunk


def _named(row: RowMapping) -> dict[str, Any]:
    return {str(name): value for name, value in row.items()}
