"""The fleet's catalogue: the parts that nodes sealed, joined into incidents; custody of what is read here."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection, RowMapping, func, insert, select, update

from tripshark.model.alert import Json
from tripshark.model.evidence import IncidentId, SealedFile, canonical
from tripshark.model.incident import EVERY, State
from tripshark.model.part import NodeName, Part, Place, joined
from tripshark.ports import AlertRow
from tripshark.store import custody, schema
from tripshark.store.catalogue import SqlCatalogue, put_incidents, put_rows
from tripshark.store.rows import alert_out, incident_in, incident_out


class FleetParts:
    """Parts by incident and node, beside the incidents of the same catalogue; several hubs may write at once."""

    def __init__(self, catalogue: SqlCatalogue) -> None:
        self._database = catalogue.database

    async def known(self) -> dict[Place, str]:
        """The SHA-256 of the manifest of every part that is in the store, as far as we know."""
        table = schema.parts
        found = select(table.c.day, table.c.incident, table.c.node, table.c.manifest_sha256).where(
            table.c.gone_ns == 0
        )
        return await self._database.read(
            lambda connection: {
                Place(day=day, incident=IncidentId(incident), node=NodeName(node)): str(digest)
                for day, incident, node, digest in connection.execute(found)
            }
        )

    async def parts(self, incident: IncidentId) -> Sequence[Part]:
        """Those of one incident, the one that opened it first. Parts that left the store are not among them."""

        def work(connection: Connection) -> list[Part]:
            every = _parts(connection, incident)
            return [part for part, gone_ns in every if not gone_ns]

        return await self._database.read(work)

    async def put(
        self, part: Part, alerts: Sequence[AlertRow], *, now_ns: int
    ) -> tuple[bool, str]:
        """Take a part in with its alerts and join its incident anew.

        Returns whether it is new, and what is odd about it ("" when nothing is): its signature does not hold, or
        is by another key than this node's first part; then only who may read everything sees it. A second part of
        one node, under another day, is odd too, and not taken in.
        """

        def work(connection: Connection) -> tuple[bool, str]:
            table = schema.parts
            odd = _odd(connection, part, now_ns)
            its = part
            if odd:  # whoever may write there says whose packets these are: nobody's word
                untold = replace(part.incident, problem=odd, namespaces=(EVERY,))
                its = replace(part, incident=untold)
            of_it = (table.c.incident == part.place.incident) & (table.c.node == part.node)
            before = connection.execute(
                select(table.c.manifest_sha256, table.c.gone_ns, table.c.day).where(of_it)
            ).one_or_none()
            if before is not None and not before.gone_ns and before.day != part.place.day:
                there = f"this node's part lies under {before.day} already, and stays"
                return False, there
            row = _row(its, now_ns)
            if before is None:
                connection.execute(insert(table).values(row))
            else:
                connection.execute(update(table).where(of_it).values(row))
            rows = {str(each.accepted.id): alert_out(each) for each in alerts}
            put_rows(connection, schema.alerts, rows)
            _join(connection, part.place.incident)
            return before is None, odd

        return await self._database.write(work)

    async def gone(self, places: Iterable[Place], *, now_ns: int, why: str) -> None:
        """These parts are no longer in the store; an incident without any is `removed`, and its record stays."""
        wanted = list(places)

        def work(connection: Connection) -> None:
            table = schema.parts
            for place in wanted:
                connection.execute(
                    update(table)
                    .where(
                        table.c.incident == place.incident,
                        table.c.node == place.node,
                        table.c.day == place.day,
                    )
                    .values(gone_ns=now_ns)
                )
            for incident in {place.incident for place in wanted}:
                _join(connection, incident, why)

        await self._database.write(work)

    async def analysed(self, place: Place, summary: str) -> None:
        """What the findings beside a part say in one paragraph."""

        def work(connection: Connection) -> None:
            table = schema.parts
            its = (table.c.incident == place.incident) & (table.c.node == place.node)
            told = connection.scalar(select(table.c.told).where(its))
            if told is None:
                return
            incident = replace(incident_in(json.loads(told)), summary=summary)
            told = canonical(incident_out(incident)).decode()
            connection.execute(update(table).where(its).values(told=told))
            _join(connection, place.incident)

        await self._database.write(work)

    async def deed(
        self,
        incident: IncidentId,
        what: str,
        who: str,
        details: Mapping[str, Json],
        *,
        now_ns: int,
        manifest_sha256: str,
    ) -> None:
        """One more line of the custody that is kept here, chained as in `custody.jsonl`."""

        def work(connection: Connection) -> None:
            table = schema.deeds
            of_it = table.c.incident == incident
            last_n = connection.scalar(select(func.max(table.c.n)).where(of_it)) or 0
            if last_n:
                last = connection.scalar(select(table.c.line).where(of_it, table.c.n == last_n))
            else:
                last = custody.first_line(
                    manifest_sha256=manifest_sha256, time_ns=now_ns, who="hub"
                ).decode()
                connection.execute(
                    insert(table).values(incident=incident, n=1, line=last.rstrip("\n"))
                )
                last_n = 1
            line = custody.next_line(
                str(last).encode(), time_ns=now_ns, what=what, who=who, details=details
            )
            connection.execute(
                insert(table).values(
                    incident=incident, n=last_n + 1, line=line.decode().rstrip("\n")
                )
            )

        await self._database.write(work)

    async def custody(self, incident: IncidentId) -> bytes:
        """The custody that is kept here, as `custody.jsonl` reads; empty when nothing was read yet."""
        table = schema.deeds
        found = select(table.c.line).where(table.c.incident == incident).order_by(table.c.n)
        return await self._database.read(
            lambda connection: b"".join(f"{line}\n".encode() for line in connection.scalars(found))
        )


def _join(connection: Connection, incident: IncidentId, why: str = "") -> None:
    every = _parts(connection, incident)
    here = [part for part, gone_ns in every if not gone_ns]
    if here:
        put_incidents(connection, [joined(here)])
    elif every:
        left = joined([part for part, _ in every])
        put_incidents(connection, [replace(left, state=State.REMOVED, problem=why)])


def _parts(connection: Connection, incident: IncidentId) -> list[tuple[Part, int]]:
    table = schema.parts
    rows = connection.execute(select(table).where(table.c.incident == incident)).mappings()
    found = [(_part(row), int(row["gone_ns"])) for row in rows]
    return sorted(found, key=lambda each: (each[0].incident.opened_ns, each[0].place))


def _odd(connection: Connection, part: Part, now_ns: int) -> str:
    """The first key of a node is believed, and remembered; another one later is told."""
    if not part.key_id:
        return "its signature does not hold"
    table = schema.nodes
    known = connection.scalar(select(table.c.key_id).where(table.c.node == part.node))
    if known is None:
        connection.execute(
            insert(table).values(node=part.node, key_id=part.key_id, first_ns=now_ns)
        )
        return ""
    if known != part.key_id:
        return f"signed by key {part.key_id[:16]}, while this node's first was {known[:16]}"
    return ""


def _row(part: Part, now_ns: int) -> dict[str, Any]:
    return {
        "incident": part.place.incident,
        "node": part.node,
        "day": part.place.day,
        "manifest_sha256": part.manifest_sha256,
        "manifest_bytes": part.manifest_bytes,
        "key_id": part.key_id,
        "own_alerts": part.own_alerts,
        "imported_ns": now_ns,
        "gone_ns": 0,
        "files": canonical([[each.name, each.sha256, each.bytes] for each in part.files]).decode(),
        "told": canonical(incident_out(part.incident)).decode(),
    }


def _part(row: RowMapping) -> Part:
    return Part(
        place=Place(
            day=row["day"], incident=IncidentId(row["incident"]), node=NodeName(row["node"])
        ),
        incident=incident_in(json.loads(row["told"])),
        files=tuple(
            SealedFile(name=name, sha256=sha256, bytes=size)
            for name, sha256, size in json.loads(row["files"])
        ),
        manifest_sha256=row["manifest_sha256"],
        manifest_bytes=row["manifest_bytes"],
        key_id=row["key_id"],
        own_alerts=row["own_alerts"],
    )
