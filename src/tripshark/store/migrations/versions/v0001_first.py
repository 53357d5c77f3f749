"""Incidents, alerts, refusals and the journal's position."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "state",
        sa.Column("name", sa.String(40), primary_key=True),
        sa.Column("value", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "incidents",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("target", sa.Text, nullable=False),
        sa.Column("title", sa.Text, nullable=False),
        sa.Column("namespace", sa.Text, nullable=False),
        sa.Column("pod", sa.Text, nullable=False),
        sa.Column("rule", sa.Text, nullable=False),
        sa.Column("falco_rule", sa.Text, nullable=False),
        sa.Column("priority", sa.Text, nullable=False),
        sa.Column("t0_ns", sa.BigInteger, nullable=False),
        sa.Column("opened_ns", sa.BigInteger, nullable=False),
        sa.Column("sealed_ns", sa.BigInteger, nullable=False),
        sa.Column("alerts", sa.BigInteger, nullable=False),
        sa.Column("packets", sa.BigInteger, nullable=False),
        sa.Column("bytes", sa.BigInteger, nullable=False),
        sa.Column("word", sa.String(16), nullable=False),
        sa.Column("folder", sa.Text, nullable=False),
        sa.Column("summary", sa.Text, nullable=False),
        sa.Column("manifest_sha256", sa.String(64), nullable=False),
        sa.Column("plan", sa.Text, nullable=False),
        sa.Column("problem", sa.Text, nullable=False),
    )
    op.create_index("incidents_by_age", "incidents", ["opened_ns", "id"])
    op.create_index("incidents_by_pod", "incidents", ["namespace", "pod", "opened_ns"])
    op.create_index("incidents_by_state", "incidents", ["state", "opened_ns"])
    op.create_table(
        "alerts",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("seq", sa.BigInteger, nullable=False),
        sa.Column("received_ns", sa.BigInteger, nullable=False),
        sa.Column("via", sa.Text, nullable=False),
        sa.Column("body", sa.LargeBinary, nullable=False),
        sa.Column("rule", sa.Text, nullable=False),
        sa.Column("priority", sa.Integer, nullable=False),
        sa.Column("time_ns", sa.BigInteger, nullable=False),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("hostname", sa.Text),
        sa.Column("namespace", sa.Text),
        sa.Column("pod", sa.Text),
        sa.Column("decoded", sa.Text, nullable=False),
        sa.Column("repeats", sa.BigInteger, nullable=False),
        sa.Column("last_ns", sa.BigInteger, nullable=False),
        sa.Column("touched_ns", sa.BigInteger, nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("incident", sa.String(64)),
        sa.Column("reason", sa.String(40)),
        sa.Column("message", sa.Text),
        sa.Column("hint", sa.Text),
        sa.Column("refused_by", sa.Text),
    )
    op.create_index("alerts_by_incident", "alerts", ["incident", "seq"])
    op.create_index("alerts_refused", "alerts", ["reason", "touched_ns", "seq"])
    op.create_index("alerts_by_age", "alerts", ["touched_ns", "seq"])
    op.create_table(
        "refusals",
        sa.Column("reason", sa.String(40), primary_key=True),
        sa.Column("alerts", sa.BigInteger, nullable=False),
        sa.Column("kept", sa.BigInteger, nullable=False),
        sa.Column("kept_bytes", sa.BigInteger, nullable=False),
        sa.Column("thrown_away", sa.BigInteger, nullable=False),
    )
