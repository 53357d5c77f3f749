"""What can be searched for over all evidence; filled from the findings that lie beside it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.create_table(
        "indexed",
        sa.Column("incident", sa.String(64), primary_key=True),
        sa.Column("node", sa.String(63), primary_key=True),
        sa.Column("file", sa.Text, nullable=False),
        sa.Column("tag", sa.Text, nullable=False),
        sa.Column("indexed_ns", sa.BigInteger, nullable=False),
        sa.Column("rows", sa.LargeBinary, nullable=False),
    )
    bytewise = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
    op.create_table(
        "observables",
        sa.Column("kind", sa.String(16), primary_key=True),
        sa.Column("key", bytewise, primary_key=True),
        sa.Column("incident", sa.String(64), primary_key=True),
        sa.Column("node", sa.String(63), primary_key=True),
        sa.Column("value", sa.Text, nullable=False),
        sa.Column("frame", sa.BigInteger, nullable=False),
        sa.Column("filter", sa.Text, nullable=False),
        sa.Column("first_ns", sa.BigInteger, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_index("observables_by_incident", "observables", ["incident", "node"])
    op.create_index("observables_by_key", "observables", ["kind", "key"])
