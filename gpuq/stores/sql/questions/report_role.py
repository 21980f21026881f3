"""PostgreSQL's login for questions: it may read the views and nothing else.

The views belong to the daemon's role and read the tables with its rights. So a login with SELECT on the views alone
sees what they show. `GPUQ_REPORT_DATABASE_URL` names it; without one, questions are for administrators.

A role is one of the whole server, so it is named after its database. Everything happens in one transaction; what the
daemon's own role may not do is told, with what an administrator of the server does instead.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, text

from gpuq.errors import GpuqError, Refused
from gpuq.stores.sql.core.engine import Database, parse_url
from gpuq.stores.sql.core.errors import told_as_our_own
from gpuq.stores.sql.questions.login_rights import VIEWS, excess, harmful, is_superuser, may_harm, standing
from gpuq.stores.sql.schema.tables import metadata

__all__ = ["Made", "excess", "is_superuser", "let_read", "make", "may_harm", "readers"]

# Bounds that hold wherever somebody logs in as it; the daemon sets them for each question, too.
_SETTINGS = {
    "default_transaction_read_only": "on",
    "statement_timeout": "30s",
    "lock_timeout": "2s",
    "idle_in_transaction_session_timeout": "40s",
    "client_connection_check_interval": "2s",
    "work_mem": "16MB",
    "max_parallel_workers_per_gather": "0",
    # A superuser's to set; without it a question may fill the server's disk while it runs.
    "temp_file_limit": "1GB",
}


@dataclass(frozen=True, slots=True)
class Made:
    """`url`: for GPUQ_REPORT_DATABASE_URL; without a password when the role was there before. `notes`: what could not
    be done, and what an administrator of the server may want to do about it."""

    role: str
    created: bool
    url: str
    notes: tuple[str, ...]


def make(url: str, *, new_password: bool = False) -> Made:
    """Makes the login, or sets its rights again; `new_password`: also of one that is there.

    Raises Refused for SQLite, for a daemon's role that may not make roles, and for a role that may do too much."""
    if parse_url(url).drivername == "sqlite":
        raise Refused(
            "SQLite needs no login for reports: questions are held to the views by SQLite itself",
            hint="nothing is to be done; `gpuq sql` is for everybody",
        )
    database = Database(url)
    try:
        with told_as_our_own(database.driver_error), database.engine.begin() as connection:
            work = _Work(connection)
            created, password = work.login(new_password)
            work.rights()
            work.settings()
        target = database.url.set(username=work.role, password=password).render_as_string(hide_password=False)
    finally:
        database.close()
    notes = [*work.notes]
    if password is not None:
        notes += _tried(target)
    return Made(work.role, created, target, tuple(notes))


def _tried(url: str) -> list[str]:
    try:
        return [f"it {what}" for what in excess(url)]
    except GpuqError as error:
        return [f"it cannot log in yet ({error.message}): pg_hba.conf needs a line that lets it, with scram-sha-256"]


class _Work:
    """Inside the one transaction."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        driver: Any = connection.connection.driver_connection
        self._driver = driver
        row = self._driver.execute("SELECT current_database(), current_schema(), current_user").fetchone()
        self.database, self.schema, self.owner = map(str, row)
        self.role = f"{self.database[:53]}_reporter"
        self.notes: list[str] = []
        self._error: type[Exception] = connection.dialect.loaded_dbapi.Error

    def _do(self, statement: str, **names: Any) -> None:
        from psycopg import sql

        parts = {
            name: value if isinstance(value, sql.Composable) else sql.Identifier(value) for name, value in names.items()
        }
        self._driver.execute(sql.SQL(statement).format(**parts))

    @contextmanager
    def _if_allowed(self, otherwise: str) -> Iterator[None]:
        """What fails for want of rights is undone and noted."""
        self._driver.execute("SAVEPOINT attempt")
        try:
            yield
        except self._error as error:
            # 42501: no right; 42704: a setting that this release of PostgreSQL does not have.
            if _state(error) not in {"42501", "42704", "0LP01"}:
                raise
            self._driver.execute("ROLLBACK TO attempt")
            if _state(error) != "42704":
                self.notes.append(otherwise)

    def login(self, new_password: bool) -> tuple[bool, str | None]:
        """Whether it was made now, and its password if that is known."""
        there = self._driver.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (self.role,)).fetchone()
        if there and (too_much := standing(self._driver, self.role)):
            raise Refused(
                f"the role {self.role} {too_much[0]}",
                hint="take that from it, or drop it: `gpuq db reporter` makes one",
            )
        if there and not new_password:
            return False, None
        from psycopg import sql

        password = secrets.token_urlsafe(24)
        # Not the password itself: the server may write its statements to a log.
        stored = self._driver.pgconn.encrypt_password(password.encode(), self.role.encode(), b"scram-sha-256")
        # A new role has none of the rights that would have to be taken from it.
        statement = "ALTER ROLE {role} LOGIN" if there else "CREATE ROLE {role} LOGIN NOINHERIT CONNECTION LIMIT 16"
        try:
            self._do(statement + " PASSWORD {password}", role=self.role, password=sql.Literal(stored.decode()))
        except self._error as error:
            if _state(error) != "42501":
                raise
            raise Refused(
                f"the database role {self.owner} may not make or change roles",
                hint=f"an administrator of the server runs: CREATE ROLE \"{self.role}\" LOGIN NOINHERIT PASSWORD '…';"
                " then `gpuq db reporter` again",
            ) from error
        return not there, password

    def rights(self) -> None:
        """SELECT on the views, and nothing by way of PUBLIC."""
        names = {"schema": self.schema, "role": self.role, "database": self.database}
        for table in [*metadata.tables, "alembic_version", *VIEWS]:
            self._do("REVOKE ALL ON {schema}.{table} FROM {role}, PUBLIC", table=table, **names)
        self._do("REVOKE ALL ON ALL SEQUENCES IN SCHEMA {schema} FROM {role}, PUBLIC", **names)
        for view in VIEWS:
            self._do("GRANT SELECT ON {schema}.{view} TO {role}", view=view, **names)
        for where, statements in {
            f'REVOKE CREATE ON SCHEMA "{self.schema}" FROM PUBLIC': (
                "REVOKE ALL ON SCHEMA {schema} FROM {role}",
                "REVOKE CREATE ON SCHEMA {schema} FROM PUBLIC",
                "GRANT USAGE ON SCHEMA {schema} TO {role}",
            ),
            f'REVOKE TEMPORARY ON DATABASE "{self.database}" FROM PUBLIC': (
                "REVOKE TEMPORARY, CREATE ON DATABASE {database} FROM {role}, PUBLIC",
                "GRANT CONNECT ON DATABASE {database} TO {role}",
            ),
        }.items():
            with self._if_allowed(f"an administrator of the server may run: {where}"):
                for statement in statements:
                    self._do(statement, **names)
        self._keep_from_harm()

    def _keep_from_harm(self) -> None:
        found = harmful(self._driver, self.role)
        if not found:
            return
        # As PostgreSQL itself spells them; as text, since they are more than a name.
        listed = ", ".join(found)
        owner = self._connection.dialect.identifier_preparer.quote_identifier(self.owner)
        # The daemon's own role takes a lock of that kind when it makes the schema.
        statements = f"REVOKE EXECUTE ON FUNCTION {listed} FROM PUBLIC; GRANT EXECUTE ON FUNCTION {listed} TO {owner}"
        # From a role that may not, PostgreSQL takes it with a warning.
        self._driver.execute(statements)
        if harmful(self._driver, self.role):
            self.notes.append(f"an administrator of the server may run, in this database: {statements}")

    def settings(self) -> None:
        """Bounds of its sessions in this database."""
        from psycopg import sql

        for name, value in {**_SETTINGS, "search_path": self.schema}.items():
            with self._if_allowed(
                f'an administrator of the server may run: ALTER ROLE "{self.role}" IN DATABASE "{self.database}"'
                f" SET {name} = '{value}'"
            ):
                self._do(
                    "ALTER ROLE {role} IN DATABASE {database} SET {name} = {value}",
                    role=self.role,
                    database=self.database,
                    name=name,
                    value=sql.Literal(value),
                )


def _state(error: Exception) -> str:
    return getattr(error, "sqlstate", None) or ""


def readers(connection: Connection) -> list[str]:
    """The roles that may read the views: an upgrade that makes a view anew gives it back to them."""
    found = connection.execute(
        text(
            "SELECT DISTINCT r.rolname FROM pg_class c CROSS JOIN aclexplode(c.relacl) a JOIN pg_roles r ON r.oid ="
            " a.grantee WHERE c.relkind = 'v' AND c.relname = ANY(:views) AND c.relnamespace ="
            " current_schema()::regnamespace AND a.privilege_type = 'SELECT' AND a.grantee <> c.relowner"
        ),
        {"views": list(VIEWS)},
    )
    return [str(name) for (name,) in found]


def let_read(connection: Connection, roles: list[str]) -> None:
    """SELECT on every view to each of them."""
    quote = connection.dialect.identifier_preparer.quote_identifier
    for role in roles:
        connection.exec_driver_sql(f"GRANT SELECT ON {', '.join(VIEWS)} TO {quote(role)}")
