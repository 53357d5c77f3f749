"""Runs the scripts on the connection that `schema.migrate` hands over, within its transaction."""

from __future__ import annotations

from alembic import context

from tripshark.store.schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    compare_type=True,
)
context.run_migrations()
