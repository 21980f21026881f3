"""What a login of PostgreSQL may do beyond reading the views: by attribute, by membership, or because everybody may."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from gpuq.stores.sql.core.engine import Database
from gpuq.stores.sql.schema.views import view_statements

VIEWS = tuple(view_statements("postgresql"))
# What a role may do beside reading, by its attributes.
_ATTRIBUTES = {
    "rolsuper": "is a superuser: may read and write everything, files of the server too",
    "rolcreaterole": "may make roles",
    "rolcreatedb": "may make databases",
    "rolreplication": "may copy the whole server",
    "rolbypassrls": "is not held by row security",
}
# Each of these locks takes a place in a table that all sessions of the server share; once it is full, nobody writes.
_LOCKS = ["pg_advisory_lock", "pg_advisory_lock_shared", "pg_advisory_xact_lock", "pg_advisory_xact_lock_shared",
          "pg_try_advisory_lock", "pg_try_advisory_lock_shared", "pg_try_advisory_xact_lock",
          "pg_try_advisory_xact_lock_shared"]  # fmt: skip
# Fills the server's log of changes (WAL), a gigabyte in a second, also in a transaction that is READ ONLY.
_LOG = ["pg_logical_emit_message"]
# Before PostgreSQL 16 these write also in such a transaction; the disk keeps what is rolled back.
_LARGE_OBJECTS = ["lo_creat", "lo_create", "lo_from_bytea", "lo_put", "lowrite", "lo_truncate", "lo_truncate64",
                  "lo_unlink", "lo_import"]  # fmt: skip


def harmful(driver: Any, role: str) -> list[str]:
    """The functions of PostgreSQL itself, with their types, that `role` may call and by which a question would stop
    others from writing or fill the server's disk: everybody may call them until somebody takes that away."""
    names = [*_LOCKS, *_LOG, *(_LARGE_OBJECTS if driver.info.server_version < 160000 else ())]
    rows = driver.execute(
        "SELECT p.oid::regprocedure::text FROM pg_proc p WHERE p.pronamespace = 'pg_catalog'::regnamespace"
        " AND p.proname = ANY(%s) AND has_function_privilege(%s, p.oid, 'EXECUTE') ORDER BY 1",
        (names, role),
    ).fetchall()
    return [str(name) for (name,) in rows]


def may_harm(url: str) -> list[str]:
    """`harmful` of the login of a URL for PostgreSQL. Raises DatabaseUnavailable."""
    with _driver(url) as driver:
        (role,) = driver.execute("SELECT current_user").fetchone()
        return harmful(driver, role)


def standing(driver: Any, role: str) -> list[str]:
    """What a role is, and belongs to, beyond reading."""
    names = ", ".join(_ATTRIBUTES)
    row = driver.execute(f"SELECT {names} FROM pg_roles WHERE rolname = %s", (role,)).fetchone()
    found = [words for has, words in zip(row, _ATTRIBUTES.values(), strict=True) if has]
    if row[0]:
        return found[:1]
    groups = driver.execute(
        "SELECT rolname FROM pg_roles WHERE rolname <> %s AND pg_has_role(%s, oid, 'MEMBER') ORDER BY 1", (role, role)
    )
    return found + [f"is a member of {name}" for (name,) in groups]


def is_superuser(url: str) -> bool:
    """Whether the login of a URL for PostgreSQL is a superuser. Raises DatabaseUnavailable."""
    with _driver(url) as driver:
        return bool(driver.execute("SELECT rolsuper FROM pg_roles WHERE rolname = current_user").fetchone()[0])


def excess(url: str) -> list[str]:
    """What the login of `url` may do beyond reading the views, in words. Raises DatabaseUnavailable."""
    with _driver(url) as driver:
        (role,) = driver.execute("SELECT current_user").fetchone()
        found = standing(driver, role)
        if found[:1] == [_ATTRIBUTES["rolsuper"]]:
            return found
        for words, statement in _BEYOND.items():
            rows = driver.execute(statement, {"views": list(VIEWS)}).fetchall()
            if rows:
                found.append(f"{words} {', '.join(str(row[0]) for row in rows)}")
        return found


_FOREIGN = (
    "n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname NOT LIKE 'pg\\_%%'"
    " AND has_schema_privilege(n.oid, 'USAGE')"
)
_BEYOND = {
    "may read": "SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind IN"
    f" ('r', 'p', 'v', 'm', 'f') AND {_FOREIGN} AND c.relname <> ALL (%(views)s) AND (has_any_column_privilege(c.oid,"
    " 'SELECT')) AND NOT EXISTS (SELECT 1 FROM pg_depend d WHERE d.objid = c.oid AND d.deptype = 'e') LIMIT 5",
    "may write": "SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind IN"
    f" ('r', 'p', 'v', 'm', 'f') AND {_FOREIGN} AND (has_any_column_privilege(c.oid, 'INSERT, UPDATE') OR"
    " has_table_privilege(c.oid, 'DELETE, TRUNCATE, TRIGGER')) LIMIT 5",
    "may make things in the schema": f"SELECT n.nspname FROM pg_namespace n WHERE {_FOREIGN}"
    " AND has_schema_privilege(n.oid, 'CREATE') LIMIT 5",
    "may make temporary tables or schemas in the database": "SELECT current_database()"
    " WHERE has_database_privilege(current_database(), 'TEMPORARY, CREATE')",
    "may call": "SELECT p.oid::regprocedure FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace"
    f" WHERE {_FOREIGN} AND has_function_privilege(p.oid, 'EXECUTE') LIMIT 5",
}


@contextmanager
def _driver(url: str) -> Iterator[Any]:
    database = Database(url)
    try:
        with database.read() as connection:
            yield connection.connection.driver_connection
    finally:
        database.close()
