"""What analysts wrote at packets, in the catalogue: on a machine by itself as at a hub."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, delete, func, insert, select

from tripshark.errors import NotFound, Refused
from tripshark.model.evidence import IncidentId
from tripshark.model.note import MAX_NOTES, Note
from tripshark.store import schema
from tripshark.store.catalogue import SqlCatalogue


class SqlNotes:
    """Notes beside the incidents of the same catalogue. Every method raises as `SqlCatalogue`'s do."""

    def __init__(self, catalogue: SqlCatalogue) -> None:
        self._database = catalogue.database

    async def add(self, note: Note) -> None:
        """Durable when this returns. Raises `Refused` when the incident has too many."""

        def work(connection: Connection) -> None:
            table = schema.notes
            of_it = table.c.incident == note.incident
            if (connection.scalar(select(func.count()).where(of_it)) or 0) >= MAX_NOTES:
                raise Refused(
                    f"an incident has at most {MAX_NOTES} notes",
                    where=note.incident,
                    hint="delete one first",
                )
            row = {column.name: getattr(note, column.name) for column in table.columns}
            connection.execute(insert(table).values(**row))

        await self._database.write(work)

    async def of(self, incident: IncidentId) -> Sequence[Note]:
        """All of one incident, by file and packet."""
        table = schema.notes
        found = (
            select(table)
            .where(table.c.incident == incident)
            .order_by(table.c.file, table.c.frame, table.c.at_ns, table.c.id)
        )

        def work(connection: Connection) -> list[Note]:
            rows = connection.execute(found).mappings()
            return [
                Note(
                    id=row["id"],
                    incident=IncidentId(row["incident"]),
                    file=row["file"],
                    frame=row["frame"],
                    text=row["text"],
                    by=row["by"],
                    at_ns=row["at_ns"],
                )
                for row in rows
            ]

        return await self._database.read(work)

    async def remove(self, incident: IncidentId, id: str) -> None:
        """Raises `NotFound`."""

        def work(connection: Connection) -> None:
            table = schema.notes
            gone = connection.execute(
                delete(table).where(table.c.incident == incident, table.c.id == id)
            )
            if not gone.rowcount:
                raise NotFound("no such note", where=id)

        await self._database.write(work)
