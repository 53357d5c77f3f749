"""One database connection in one thread of its own, so that the event loop never waits for a disk or a server.

The only place that knows SQLite from PostgreSQL. Writers take turns in both: SQLite by its lock, PostgreSQL by an
advisory lock that ends with the transaction, so that several programs may read, count and write in one step.

SQLite: `synchronous=FULL`: a commit is on disk when it returns, because the journal's
segments are deleted on the strength of it; with NORMAL a power cut could take back what the journal no longer has.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from sqlalchemy import URL, Connection, Engine, StaticPool, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError

from tripshark.errors import BadInput, Permanent, Transient, TripsharkError
from tripshark.store.disk import make_folders, refused
from tripshark.store.schema import is_todays, migrate

T = TypeVar("T")
_WRITING = "tripshark_writing"

_PASSING = {  # primary result codes of SQLite: another try may work
    sqlite3.SQLITE_BUSY: ("the catalogue is locked by another program", "it is tried again"),
    sqlite3.SQLITE_LOCKED: ("the catalogue is locked", "it is tried again"),
    sqlite3.SQLITE_FULL: ("the disk is full", "free space on it; nothing else is needed"),
    sqlite3.SQLITE_IOERR: (
        "the disk below the catalogue failed",
        "the kernel's log (dmesg) says what is wrong with it",
    ),
    sqlite3.SQLITE_NOMEM: ("no memory left for the catalogue", "give Tripshark more memory"),
    sqlite3.SQLITE_INTERRUPT: ("the catalogue was interrupted", "it is tried again"),
}
_LASTING = {
    sqlite3.SQLITE_CORRUPT: "move the file away and start again: evidence and manifests are not in it",
    sqlite3.SQLITE_NOTADB: "this file is no catalogue: move it away and start again",
    sqlite3.SQLITE_READONLY: "give the file and its folder to the user Tripshark runs as",
    sqlite3.SQLITE_CANTOPEN: "give the file and its folder to the user Tripshark runs as",
    sqlite3.SQLITE_PERM: "give the file and its folder to the user Tripshark runs as",
}


_AGAIN = 3  # tries of a transaction that PostgreSQL gave up for another's sake
_GIVEN_UP = ("40001", "40P01")  # serialization_failure, deadlock_detected
_LOCK = int.from_bytes(b"tripshrk", "big")  # of all writers to one database


class Database:
    """Runs functions over a connection, one after the other, each in a transaction of its own."""

    def __init__(self, engine: Engine, where: str) -> None:
        self._engine = engine
        self._where = where
        self._thread = ThreadPoolExecutor(1, "catalogue")

    @classmethod
    async def open(cls, place: Path | str, *, busy_seconds: float = 5.0) -> Database:
        """Open or create the SQLite file, or connect to the database of a URL, and bring it to today's schema.

        `busy_seconds` is how long another program's lock is waited for. Raises `BadInput` for a URL that is none,
        `Permanent` for a file that is no catalogue, `Transient` when disk, lock or server refuse.
        """
        if isinstance(place, str) and "://" in place:
            url = url_of(place)
            database = cls(_postgres(url, busy_seconds), url.render_as_string(hide_password=True))
        else:
            path = Path(place)
            try:
                make_folders(path.parent)
            except OSError as error:
                raise refused(error, path.parent) from error
            database = cls(_sqlite(path, busy_seconds), str(path))
        try:
            if not await database.read(is_todays):  # somebody who may only read gets by without
                await database.write(migrate)
        except BaseException:
            await database.close()
            raise
        return database

    async def read(self, work: Callable[[Connection], T]) -> T:
        """What `work` finds, at one moment."""
        return await self._run(work, writing=False)

    async def write(self, work: Callable[[Connection], T]) -> T:
        """Everything `work` does, durable when this returns, or nothing of it.

        A caller that is cancelled does not know which.
        """
        return await self._run(work, writing=True)

    async def close(self) -> None:
        """Close the connection after what is under way. Calling twice is harmless."""
        with contextlib.suppress(RuntimeError):  # closed already
            self._thread.submit(self._engine.dispose)
        await asyncio.to_thread(self._thread.shutdown)

    async def _run(self, work: Callable[[Connection], T], *, writing: bool) -> T:
        def once() -> T:
            with self._engine.connect() as connection:
                chosen = connection.execution_options(**{_WRITING: writing})
                if self._engine.dialect.name == "postgresql" and not writing:
                    chosen = chosen.execution_options(
                        isolation_level="REPEATABLE READ", postgresql_readonly=True
                    )
                with chosen.begin():
                    return work(chosen)

        def run() -> T:
            try:
                for _ in range(_AGAIN - 1):
                    try:
                        return once()
                    except DBAPIError as error:
                        if getattr(error.orig, "sqlstate", None) not in _GIVEN_UP:
                            raise
                return once()
            except SQLAlchemyError as error:
                raise self._told(error) from error
            except OverflowError as error:
                raise Permanent(
                    "a number is beyond 64 bits", where=self._where, hint="please report this"
                ) from error

        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, run)
        except RuntimeError as error:
            if "shutdown" in str(error):
                raise Transient("the catalogue is closed", hint="Tripshark is stopping") from None
            raise

    def _told(self, error: SQLAlchemyError) -> TripsharkError:
        cause = error.orig if isinstance(error, DBAPIError) else None
        if self._engine.dialect.name == "postgresql":
            return _told_by_postgres(error, cause, self._where)
        code = getattr(cause, "sqlite_errorcode", 0) & 0xFF
        if code in _PASSING:
            message, hint = _PASSING[code]
            return Transient(message, where=self._where, hint=hint, after=1.0)
        return Permanent(
            f"the catalogue cannot be used: {str(cause or error)[:300]}",
            where=self._where,
            hint=_LASTING.get(code, "please report this with the lines above it"),
        )


def _sqlite(path: Path, busy_seconds: float) -> Engine:
    engine = create_engine(
        URL.create("sqlite", database=str(path)),
        poolclass=StaticPool,
        connect_args={
            "timeout": busy_seconds,
            "check_same_thread": False,  # one thread uses it; closing may happen in another
            "isolation_level": None,  # we say BEGIN ourselves, see below
        },
    )

    @event.listens_for(engine, "connect")
    def prepare(connection: sqlite3.Connection, _: object) -> None:
        with contextlib.suppress(PermissionError):  # another's file, which we may only read
            path.chmod(0o640)
        for pragma in (
            "journal_mode=WAL",  # readers (`tripshark incidents`) never stop the writer
            "synchronous=FULL",
            "foreign_keys=ON",
            "trusted_schema=OFF",
            "cell_size_check=ON",
        ):
            connection.execute(f"PRAGMA {pragma}").close()

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        # A write takes its lock at once: taking it halfway could fail in a transaction that has already read.
        writing = connection.get_execution_options().get(_WRITING)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writing else "BEGIN")

    return engine


# ------------------------------------------------------------------------------------------ PostgreSQL

_PASSING_CLASSES = {  # of SQLSTATE (PostgreSQL, appendix A)
    "08": "the connection to the database broke",
    "40": "the database gave this up for another's sake",
    "53": "the database has no room, memory or connection left",
    "55": "the catalogue is locked by another program",
    "57": "the database is being stopped",
    "58": "the disk below the database failed",
}


def url_of(text: str) -> URL:
    """`postgresql://USER:PASSWORD@HOST/NAME` as SQLAlchemy wants it. Raises `BadInput`, without the password."""
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):
        url = None
    if url is None or url.drivername not in ("postgresql", "postgres", "postgresql+psycopg"):
        raise BadInput(
            "that is no URL of a PostgreSQL database",
            where="hub.database",
            hint="postgresql://USER:PASSWORD@HOST/NAME",
        )
    return url.set(drivername="postgresql+psycopg")


def _postgres(url: URL, busy_seconds: float) -> Engine:
    engine = create_engine(
        url,
        pool_size=1,
        max_overflow=0,
        pool_pre_ping=True,  # a server that was restarted is met again without an error
        hide_parameters=True,  # rows hold what alerts say: not for error messages
        connect_args={
            "connect_timeout": 5,
            "application_name": "tripshark",
            "options": "-c statement_timeout=60s -c idle_in_transaction_session_timeout=60s",
            "keepalives_idle": 15,
            "keepalives_interval": 5,
            "keepalives_count": 3,
            "tcp_user_timeout": 30_000,
        },
    )
    patience = max(1, round(busy_seconds * 1000))

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        if connection.get_execution_options().get(_WRITING):
            connection.exec_driver_sql(f"SET LOCAL lock_timeout = {patience}")
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_LOCK})")

    return engine


def _told_by_postgres(
    error: SQLAlchemyError, cause: BaseException | None, where: str
) -> TripsharkError:
    state = str(getattr(cause, "sqlstate", None) or "")
    text = re.sub(r"\s+", " ", str(cause or error))[:300]
    lost = isinstance(error, DBAPIError) and error.connection_invalidated
    if state[:2] in _PASSING_CLASSES:
        return Transient(
            f"{_PASSING_CLASSES[state[:2]]}: {text}",
            where=where,
            hint="it is tried again",
            after=2.0,
        )
    if lost or not state:
        return Transient(
            f"the database does not answer: {text}",
            where=where,
            hint="is it running, and are its name, user and password right? see hub.database",
            after=2.0,
        )
    return Permanent(
        f"the catalogue cannot be used: {text}",
        where=where,
        hint="please report this with the lines above it",
    )
