"""What the catalogue's tables hold, and how an older catalogue becomes today's.

Plain SQL types only: the same tables serve SQLite and PostgreSQL. Times are integer nanoseconds since 1970, UTC.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    insert,
    inspect,
    select,
    update,
)

from tripshark.errors import Permanent

metadata = MetaData()

version = Table("schema_version", metadata, Column("version", Integer, nullable=False))

state = Table(
    "state",
    metadata,
    Column("name", String(40), primary_key=True),  # "position"
    Column("value", BigInteger, nullable=False),
)

incidents = Table(
    "incidents",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("state", String(16), nullable=False),
    Column("target", Text, nullable=False),
    Column("title", Text, nullable=False),
    Column("namespace", Text, nullable=False),
    Column("pod", Text, nullable=False),
    Column("rule", Text, nullable=False),
    Column("falco_rule", Text, nullable=False),
    Column("priority", Text, nullable=False),
    Column("t0_ns", BigInteger, nullable=False),
    Column("opened_ns", BigInteger, nullable=False),
    Column("sealed_ns", BigInteger, nullable=False),
    Column("alerts", BigInteger, nullable=False),
    Column("packets", BigInteger, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("word", String(16), nullable=False),
    Column("folder", Text, nullable=False),
    Column("summary", Text, nullable=False),
    Column("manifest_sha256", String(64), nullable=False),
    Column("plan", Text, nullable=False),  # JSON
    Column("problem", Text, nullable=False),
    Index("incidents_by_age", "opened_ns", "id"),
    Index("incidents_by_pod", "namespace", "pod", "opened_ns"),
    Index("incidents_by_state", "state", "opened_ns"),
)

alerts = Table(
    "alerts",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("seq", BigInteger, nullable=False),
    Column("received_ns", BigInteger, nullable=False),
    Column("via", Text, nullable=False),
    Column("body", LargeBinary, nullable=False),  # verbatim
    Column("rule", Text, nullable=False),
    Column("priority", Integer, nullable=False),
    Column("time_ns", BigInteger, nullable=False),
    Column("source", Text, nullable=False),
    Column("hostname", Text),
    Column("namespace", Text),
    Column("pod", Text),
    Column("decoded", Text, nullable=False),  # JSON: the whole alert as it was understood
    Column("repeats", BigInteger, nullable=False),
    Column("last_ns", BigInteger, nullable=False),  # as in AlertRow: 0 without repeats
    Column("touched_ns", BigInteger, nullable=False),  # received, or the last repeat
    Column("size", BigInteger, nullable=False),  # bytes of body and decoded
    Column("incident", String(64)),  # or a refusal:
    Column("reason", String(40)),
    Column("message", Text),
    Column("hint", Text),
    Column("refused_by", Text),  # the Tripshark rule
    Index("alerts_by_incident", "incident", "seq"),
    Index("alerts_refused", "reason", "touched_ns", "seq"),
    Index("alerts_by_age", "touched_ns", "seq"),
)

refusals = Table(  # counts stay exact when rows are thrown away
    "refusals",
    metadata,
    Column("reason", String(40), primary_key=True),
    Column("alerts", BigInteger, nullable=False),  # refused so far, repeats included
    Column("kept", BigInteger, nullable=False),  # rows still in `alerts`
    Column("kept_bytes", BigInteger, nullable=False),
    Column("thrown_away", BigInteger, nullable=False),  # rows no longer in `alerts`
)


def _first(connection: Connection) -> None:
    metadata.create_all(connection)


MIGRATIONS: Sequence[Callable[[Connection], None]] = (_first,)
"""Migration n brings a catalogue from version n to n + 1. A released one is never changed; the first makes today's
tables, so each later one must find out whether its work is already there."""


def is_todays(connection: Connection) -> bool:
    """Nothing need be migrated. Raises `Permanent` for a catalogue from the future."""
    return _version_of(connection) == len(MIGRATIONS)


def migrate(connection: Connection) -> None:
    """Bring the catalogue to today's version within the caller's transaction. Raises `Permanent` for a newer one."""
    here = _version_of(connection)
    if here == len(MIGRATIONS):  # another process was faster
        return
    for step in MIGRATIONS[here:]:
        step(connection)
    if here:
        connection.execute(update(version).values(version=len(MIGRATIONS)))
    else:
        connection.execute(insert(version).values(version=len(MIGRATIONS)))


def _version_of(connection: Connection) -> int:
    here = 0
    if inspect(connection).has_table(version.name):
        here = connection.scalar(select(version.c.version)) or 0
    if here > len(MIGRATIONS):
        raise Permanent(
            f"this catalogue has version {here}, this Tripshark knows {len(MIGRATIONS)}",
            hint="a newer Tripshark wrote it: use that one again, or restore the backup",
        )
    return here
