"""How an older catalogue becomes today's: Alembic's scripts, run by `schema.migrate`."""
