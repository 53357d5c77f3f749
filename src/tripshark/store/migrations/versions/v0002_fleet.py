"""Namespaces of evidence, what was sent to the store, and the parts of a fleet's incidents."""

from __future__ import annotations

import json

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.add_column(
        "incidents", sa.Column("namespaces", sa.Text, nullable=False, server_default="[]")
    )
    held = op.create_table(
        "held",
        sa.Column("incident", sa.String(64), primary_key=True),
        sa.Column("namespace", sa.String(253), primary_key=True),
    )
    op.create_index("held_by_namespace", "held", ["namespace"])
    op.create_table(
        "sent",
        sa.Column("incident", sa.String(64), primary_key=True),
        sa.Column("name", sa.String(100), primary_key=True),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("bytes", sa.BigInteger, nullable=False),
        sa.Column("changed_ns", sa.BigInteger, nullable=False),
        sa.Column("sent_ns", sa.BigInteger, nullable=False),
        sa.Column("place", sa.Text, nullable=False),
    )
    op.create_table(
        "parts",
        sa.Column("incident", sa.String(64), primary_key=True),
        sa.Column("node", sa.String(63), primary_key=True),
        sa.Column("day", sa.String(10), nullable=False),
        sa.Column("manifest_sha256", sa.String(64), nullable=False),
        sa.Column("manifest_bytes", sa.BigInteger, nullable=False),
        sa.Column("key_id", sa.String(64), nullable=False),
        sa.Column("own_alerts", sa.BigInteger, nullable=False),
        sa.Column("imported_ns", sa.BigInteger, nullable=False),
        sa.Column("gone_ns", sa.BigInteger, nullable=False),
        sa.Column("files", sa.Text, nullable=False),
        sa.Column("told", sa.Text, nullable=False),
    )
    op.create_index("parts_by_day", "parts", ["day"])
    op.create_table(
        "nodes",
        sa.Column("node", sa.String(63), primary_key=True),
        sa.Column("key_id", sa.String(64), nullable=False),
        sa.Column("first_ns", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "deeds",
        sa.Column("incident", sa.String(64), primary_key=True),
        sa.Column("n", sa.BigInteger, primary_key=True),
        sa.Column("line", sa.Text, nullable=False),
    )
    # What an earlier version captured may be the host's own ring: only its target's name tells.
    incidents = sa.table(
        "incidents", sa.column("id"), sa.column("namespace"), sa.column("namespaces")
    )
    connection = op.get_bind()
    rows = connection.execute(sa.select(incidents.c.id, incidents.c.namespace)).all()
    for id, namespace in rows:
        name = namespace[:253] or "*"
        connection.execute(sa.insert(held).values(incident=id, namespace=name))
        connection.execute(
            sa.update(incidents).where(incidents.c.id == id).values(namespaces=json.dumps([name]))
        )
