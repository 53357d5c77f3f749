"""The search index: every observable of every analysed file, so that a name or a list is found over all evidence.

It holds nothing that the findings beside the evidence do not say: it can be thrown away and is filled again.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from typing import Any, Final, TypeVar

import msgspec
from sqlalchemy import (
    ColumnElement,
    Connection,
    and_,
    delete,
    insert,
    or_,
    select,
    tuple_,
    union_all,
)

from tripshark.model.evidence import IncidentId
from tripshark.model.indicator import Indicators
from tripshark.model.observable import Sighting
from tripshark.model.search import (
    Clause,
    Filed,
    Hit,
    How,
    Hunted,
    Search,
    Shelf,
    clauses_of_term,
    filed,
)
from tripshark.store import schema
from tripshark.store.database import Database

T = TypeVar("T")
VERSION: Final = 1
"""Of what is taken out of findings: an index of another version is filled anew."""
MAX_PAGE = 500
MAX_ROW_BYTES = 16 << 20  # of one file's rows
_SEEKS = 100  # ranges in one question
_VALUES = 500  # values in one question
_FILES = 100  # whose rows are read at once
_MANY = 2_000  # terms, from which on the index may cost more than it spares
_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(list[Sighting])


class SearchIndex:
    """Beside the catalogue, in its database."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._turn = asyncio.Semaphore(1)  # a hunt costs a processor: one after the other

    async def known(self) -> dict[tuple[IncidentId, str], str]:
        """What is indexed, with the tag that it was put with; "" where another version did it."""
        table = schema.indexed
        found = select(table.c.incident, table.c.node, table.c.tag)
        return await self._database.read(
            lambda connection: {
                (IncidentId(incident), str(node)): _tag_in(tag)
                for incident, node, tag in connection.execute(found)
            }
        )

    async def put(
        self,
        incident: IncidentId,
        node: str,
        *,
        file: str,
        tag: str,
        rows: Sequence[Sighting],
        now_ns: int,
    ) -> int:
        """Replace what is known of one file; returns how many values it has now."""
        values = filed(rows)
        packed = zlib.compress(_ENCODER.encode(rows), 6)
        whole = {
            "incident": incident,
            "node": node,
            "file": file,
            "tag": f"{VERSION}:{tag}",
            "indexed_ns": now_ns,
            "rows": packed,
        }

        def work(connection: Connection) -> int:
            _remove(connection, [(incident, node)])
            connection.execute(insert(schema.indexed), [whole])
            if values:
                connection.execute(
                    insert(schema.observables), [_row(incident, node, each) for each in values]
                )
            return len(values)

        return await self._database.write(work)

    async def remove(self, files: Iterable[tuple[IncidentId, str]]) -> None:
        """Forget these files."""
        gone = list(files)
        if gone:
            await self._database.write(lambda connection: _remove(connection, gone))

    async def find(self, search: Search) -> tuple[Hit, ...]:
        """Hits, newest incidents first; the last one's `cursor` goes on behind it."""
        return await self._database.read(lambda connection: _find(connection, search))

    async def hunt(
        self,
        indicators: Indicators,
        *,
        since_ns: int = 0,
        visible: Sequence[str] | None = None,
        limit: int = MAX_PAGE,
    ) -> tuple[tuple[Hunted, ...], bool]:
        """What indexed evidence shows of these, newest incidents first, and whether there is more.

        The index says which files hold one of the values at all; their rows are then compared as a new capture's are.
        """
        found: list[Hunted] = []
        async with self._turn:
            for chunk in _chunks(await self._candidates(indicators), _FILES):
                files = await self._database.read(
                    partial(_packed, files=chunk, since_ns=since_ns, visible=visible)
                )
                found += await asyncio.to_thread(_compared, indicators, files)
                if len(found) > limit:
                    return tuple(found[:limit]), True
        return tuple(found), False

    async def _candidates(self, indicators: Indicators) -> list[tuple[str, str]]:
        """Files that may show one of these, newest first: with a long list that is every file."""
        terms = list(dict.fromkeys(indicators.keys))
        known = await self.known()
        if len(terms) > max(_MANY, len(known)):  # reading each file's rows once is less work
            return sorted(known, reverse=True)
        files: set[tuple[str, str]] = set()
        clauses = dict.fromkeys(clause for term in terms for clause in clauses_of_term(term))
        for question in _questions(clauses):
            files |= await self._database.read(partial(_files, question=question))
        return sorted(files, reverse=True)


def _tag_in(text: str) -> str:
    version, _, tag = text.partition(":")
    return tag if version == str(VERSION) else ""


def _row(incident: IncidentId, node: str, each: Filed) -> dict[str, Any]:
    return {
        "kind": each.shelf.value,
        "key": each.key,
        "incident": incident,
        "node": node,
        "value": each.value,
        "frame": each.frame,
        "filter": each.filter,
        "first_ns": each.first_ns,
    }


def _remove(connection: Connection, files: Sequence[tuple[IncidentId, str]]) -> None:
    for incident, node in files:
        for table in (schema.observables, schema.indexed):
            connection.execute(
                delete(table).where(table.c.incident == incident, table.c.node == node)
            )


def _holds(clause: Clause) -> ColumnElement[bool]:
    table = schema.observables
    match clause.how:
        case How.IS:
            asked: ColumnElement[bool] = table.c.key == clause.key
        case How.BETWEEN:
            asked = and_(table.c.key >= clause.key, table.c.key < clause.to)
        case How.ENDS:
            asked = table.c.key.endswith(clause.key, autoescape=True)
        case How.CONTAINS | _:
            asked = table.c.key.contains(clause.key, autoescape=True)
    return and_(table.c.kind == clause.shelf.value, asked)


def _seen_by(visible: Sequence[str] | None) -> list[ColumnElement[bool]]:
    if visible is None:
        return []
    held, incidents = schema.held, schema.incidents
    return [
        ~select(held.c.incident)
        .where(held.c.incident == incidents.c.id, held.c.namespace.not_in(list(visible)))
        .exists()
    ]


def _find(connection: Connection, search: Search) -> tuple[Hit, ...]:
    table, incidents, indexed = schema.observables, schema.incidents, schema.indexed
    limit = max(1, min(search.limit, MAX_PAGE))
    where = _seen_by(search.visible)
    if search.since_ns:
        where.append(incidents.c.opened_ns >= search.since_ns)
    order = (table.c.incident, table.c.node, table.c.kind, table.c.key)
    if search.after is not None:
        where.append(tuple_(*order) < tuple_(*search.after))
    questions = [
        select(table)
        .where(_holds(clause), *where)
        .join(incidents, incidents.c.id == table.c.incident)
        .order_by(*(column.desc() for column in order))
        .limit(limit)
        .subquery()
        for clause in search.clauses
    ]
    every = union_all(*(select(each) for each in questions)).subquery()
    found = (
        select(every, incidents.c.title, incidents.c.t0_ns, indexed.c.file)
        .join(incidents, incidents.c.id == every.c.incident)
        .join(
            indexed,
            and_(indexed.c.incident == every.c.incident, indexed.c.node == every.c.node),
        )
        .order_by(*(every.c[column.name].desc() for column in order))
        .limit(limit)
    )
    hits: dict[tuple[str, ...], Hit] = {}
    for row in connection.execute(found).mappings():
        hit = Hit(
            incident=IncidentId(row["incident"]),
            node=row["node"],
            shelf=Shelf(row["kind"]),
            value=row["value"],
            frame=row["frame"],
            filter=row["filter"],
            first_ns=row["first_ns"],
            file=row["file"],
            title=row["title"],
            t0_ns=row["t0_ns"],
            key=row["key"],
        )
        hits.setdefault(hit.cursor, hit)  # two clauses may ask for the same
    return tuple(hits.values())


def _questions(clauses: Iterable[Clause]) -> Iterator[ColumnElement[bool]]:
    """Few enough at once that nobody else waits long for the database."""
    exact: dict[Shelf, list[str]] = {}
    ranges: list[Clause] = []
    for clause in clauses:
        if clause.how is How.IS:
            exact.setdefault(clause.shelf, []).append(clause.key)
        else:
            ranges.append(clause)
    table = schema.observables
    for shelf, keys in exact.items():
        for chunk in _chunks(keys, _VALUES):
            yield and_(table.c.kind == shelf.value, table.c.key.in_(chunk))
    for some in _chunks(ranges, _SEEKS):
        yield or_(*map(_holds, some))


def _files(connection: Connection, *, question: ColumnElement[bool]) -> set[tuple[str, str]]:
    table = schema.observables
    found = select(table.c.incident, table.c.node).where(question).distinct()
    return {(str(incident), str(node)) for incident, node in connection.execute(found)}


def _packed(
    connection: Connection,
    *,
    files: Sequence[tuple[str, str]],
    since_ns: int,
    visible: Sequence[str] | None,
) -> list[tuple[Callable[..., Hunted], bytes]]:
    """Of each file what a hit will say of it, and its rows."""
    indexed, incidents = schema.indexed, schema.incidents
    wanted = set(files)
    found = (
        select(
            indexed.c.incident,
            indexed.c.node,
            indexed.c.file,
            incidents.c.title,
            incidents.c.t0_ns,
            indexed.c.rows,
        )
        .join(incidents, incidents.c.id == indexed.c.incident)
        .where(
            indexed.c.incident.in_({incident for incident, _ in files}),
            incidents.c.opened_ns >= since_ns,
            *_seen_by(visible),
        )
        .order_by(indexed.c.incident.desc(), indexed.c.node.desc())
    )
    return [
        (
            partial(
                Hunted,
                incident=IncidentId(incident),
                node=node,
                file=file,
                title=title,
                t0_ns=t0_ns,
            ),
            bytes(rows),
        )
        for incident, node, file, title, t0_ns, rows in connection.execute(found)
        if (incident, node) in wanted
    ]


def _compared(
    indicators: Indicators, files: Sequence[tuple[Callable[..., Hunted], bytes]]
) -> list[Hunted]:
    return [
        hunted(match=match)
        for hunted, packed in files
        for match in indicators.match(_rows_in(packed))
    ]


def _rows_in(packed: bytes) -> list[Sighting]:
    return _DECODER.decode(zlib.decompressobj().decompress(packed, MAX_ROW_BYTES))


def _chunks(values: Iterable[T], size: int) -> Iterator[list[T]]:
    source = iter(values)
    while chunk := list(islice(source, size)):
        yield chunk
