"""What Alembic runs. gpuq.stores.sql.migrate gives it a connection with a transaction open around everything."""

from __future__ import annotations

from alembic import context

from gpuq.errors import UsageError
from gpuq.stores.sql.schema.tables import metadata

connection = context.config.attributes.get("connection")
if connection is None:
    raise UsageError("migrations run through gpuq", hint="use `gpuq db upgrade`")

# Batch mode, because SQLite can change most of a table only by writing it anew.
context.configure(connection=connection, target_metadata=metadata, render_as_batch=True)
with context.begin_transaction():
    context.run_migrations()
