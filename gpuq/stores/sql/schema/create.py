"""A fresh database: tables, indexes, views, triggers and the revision mark, in one transaction.

Made from the table definitions, without Alembic, which takes longer to import than the whole creation. A test
holds that the result is what the migrations give.
"""

from __future__ import annotations

from sqlalchemy import Column, Connection, MetaData, PrimaryKeyConstraint, String, Table, inspect

from gpuq.stores.sql.schema.limits import limit_triggers
from gpuq.stores.sql.schema.secrets import secrets_trigger_statements
from gpuq.stores.sql.schema.totals import count_statements, trigger_statements
from gpuq.stores.sql.schema.views import view_statements
from gpuq.stores.sql.schema.web_sessions import metadata

# The newest revision in migrations/versions, which a fresh database is marked with.
HEAD = "0014"

# As Alembic makes it.
_mark = Table(
    "alembic_version",
    MetaData(),
    Column("version_num", String(32), nullable=False),
    PrimaryKeyConstraint("version_num", name="alembic_version_pkc"),
)


def create_all(connection: Connection) -> None:
    """Makes every table, view and trigger in an empty database and marks it with the newest revision."""
    metadata.create_all(connection, checkfirst=False)
    for statement in view_statements(connection.dialect.name).values():
        connection.exec_driver_sql(statement)
    dialect = connection.dialect.name
    for statement in (*trigger_statements(dialect), *limit_triggers(dialect), *count_statements()):
        connection.exec_driver_sql(statement)
    for statement in secrets_trigger_statements(connection.dialect.name):
        connection.exec_driver_sql(statement)
    _mark.create(connection, checkfirst=False)
    connection.execute(_mark.insert().values(version_num=HEAD))


def revision(connection: Connection) -> str | None:
    """What the database is marked with; None when it holds nothing of ours."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    row = connection.exec_driver_sql("SELECT version_num FROM alembic_version").fetchone()
    return None if row is None else str(row[0])


def foreign_tables(connection: Connection) -> list[str]:
    """Names of ours that are taken already."""
    return sorted(set(inspect(connection).get_table_names()) & set(metadata.tables))
