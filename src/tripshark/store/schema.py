"""What the catalogue's tables hold, and how an older catalogue becomes today's.

Plain SQL types only: the same tables serve SQLite and PostgreSQL. Times are integer nanoseconds since 1970, UTC.
A change of the tables is a new script in `migrations/versions`; `HEAD` names the newest.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

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
)

from tripshark.errors import Permanent

HEAD: Final = "0004"

metadata = MetaData()
version = Table(  # Alembic's own
    "alembic_version", MetaData(), Column("version_num", String(32), primary_key=True)
)

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
    Column("namespaces", Text, nullable=False, server_default="[]"),  # JSON
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

held = Table(  # whose packets an incident's evidence holds, for those who may see only some namespaces
    "held",
    metadata,
    Column("incident", String(64), primary_key=True),
    Column("namespace", String(253), primary_key=True),
    Index("held_by_namespace", "namespace"),
)

sent = Table(  # what of an incident lies in the object store
    "sent",
    metadata,
    Column("incident", String(64), primary_key=True),
    Column(
        "name", String(100), primary_key=True
    ),  # of the file; "" once everything sealed is there
    Column("sha256", String(64), nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("changed_ns", BigInteger, nullable=False),  # the file's own time when it was sent
    Column("sent_ns", BigInteger, nullable=False),
    Column("place", Text, nullable=False),  # the folder in the store
)

parts = Table(  # of a fleet's incidents, one for each node
    "parts",
    metadata,
    Column("incident", String(64), primary_key=True),
    Column("node", String(63), primary_key=True),
    Column("day", String(10), nullable=False),
    Column("manifest_sha256", String(64), nullable=False),
    Column("manifest_bytes", BigInteger, nullable=False),
    Column("key_id", String(64), nullable=False),
    Column("own_alerts", BigInteger, nullable=False),
    Column("imported_ns", BigInteger, nullable=False),
    Column("gone_ns", BigInteger, nullable=False),  # 0: it lies in the store
    Column("files", Text, nullable=False),  # JSON: [name, sha256, bytes]
    Column("told", Text, nullable=False),  # JSON: the incident as this node tells it
    Index("parts_by_day", "day"),
)

nodes = Table(  # the key that each node signs with, as it was first seen
    "nodes",
    metadata,
    Column("node", String(63), primary_key=True),
    Column("key_id", String(64), nullable=False),
    Column("first_ns", BigInteger, nullable=False),
)

deeds = Table(  # custody of what is read here and sealed elsewhere
    "deeds",
    metadata,
    Column("incident", String(64), primary_key=True),
    Column("n", BigInteger, primary_key=True),
    Column("line", Text, nullable=False),
)

notes = Table(  # what analysts wrote at packets
    "notes",
    metadata,
    Column("id", String(16), primary_key=True),
    Column("incident", String(64), nullable=False),
    Column("file", String(120), nullable=False),
    Column("frame", BigInteger, nullable=False),
    Column("text", Text, nullable=False),
    Column("by", Text, nullable=False),
    Column("at_ns", BigInteger, nullable=False),
    Index("notes_by_incident", "incident", "file", "frame"),
)

_BYTEWISE: Final = Text().with_variant(Text(collation="C"), "postgresql")  # ranges, as SQLite's

indexed = Table(  # of which findings the search index knows
    "indexed",
    metadata,
    Column("incident", String(64), primary_key=True),
    Column("node", String(63), primary_key=True),  # "" where an incident has one part
    Column("file", Text, nullable=False),  # that the findings are about
    Column("tag", Text, nullable=False),  # changes when the findings do
    Column("indexed_ns", BigInteger, nullable=False),
    Column("rows", LargeBinary, nullable=False),  # the findings' rows, as indicators are compared
)

observables = Table(  # names, addresses, hashes: each once for a file
    "observables",
    metadata,
    Column("kind", String(16), primary_key=True),
    Column("key", _BYTEWISE, primary_key=True),  # spelled so that a range is a question
    Column("incident", String(64), primary_key=True),
    Column("node", String(63), primary_key=True),
    Column("value", Text, nullable=False),
    Column("frame", BigInteger, nullable=False),
    Column("filter", Text, nullable=False),
    Column("first_ns", BigInteger, nullable=False),
    Index("observables_by_incident", "incident", "node"),
    Index("observables_by_key", "kind", "key"),
    sqlite_with_rowid=False,
)

_LEGACY = "schema_version"  # of catalogues from before Alembic; they are at 0001


def is_todays(connection: Connection) -> bool:
    """Nothing need be migrated. Raises `Permanent` for a catalogue from the future."""
    return _version_of(connection) == HEAD


def migrate(connection: Connection) -> None:
    """Bring the catalogue to today's version within the caller's transaction. Raises `Permanent` for a newer one."""
    here = _version_of(connection)
    if here == HEAD:  # another process was faster
        return
    if here or inspect(connection).has_table(_LEGACY):
        upgrade(connection, "head")
    else:  # a fresh start needs no history; a test proves that both ways lead to the same tables
        metadata.create_all(connection)
        version.create(connection)
        connection.execute(insert(version).values(version_num=HEAD))


def upgrade(connection: Connection, to: str) -> None:
    """Run Alembic's scripts up to this revision, within the caller's transaction."""
    from alembic import command  # 20 MB that are needed once in a version's life
    from alembic.config import Config  # see above

    config = Config()
    # __path__ and not __file__: it still leads there after root was given up (programs.reach)
    here = sys.modules[__package__ or ""].__path__[0]
    config.set_main_option("script_location", str(Path(here) / "migrations"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    tables = inspect(connection)
    if tables.has_table(_LEGACY) and not tables.has_table(version.name):
        command.stamp(config, "0001")
    command.upgrade(config, to)


def _version_of(connection: Connection) -> str:
    if not inspect(connection).has_table(version.name):
        return ""
    here = connection.scalar(select(version.c.version_num)) or ""
    if here > HEAD:
        raise Permanent(
            f"this catalogue has version {here[:32]}, this Tripshark knows {HEAD}",
            hint="a newer Tripshark wrote it: use that one again, or restore the backup",
        )
    return str(here)
