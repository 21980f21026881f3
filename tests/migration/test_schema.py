"""A database made fresh from the definitions is the one that the migrations give."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Table, text

from gpuq.ports.records import AnsweredRequest
from gpuq.stores.sql import Database, migrate, open_records
from gpuq.stores.sql.schema import create
from gpuq.stores.sql.schema.tables import metadata
from gpuq.stores.sql.schema.views import view_statements


def configuration() -> Config:
    made = Config()
    made.set_main_option("script_location", str(migrate.scripts()))
    return made


@contextmanager
def connected(url: str) -> Iterator[Connection]:
    database = Database(url)
    with database.engine.begin() as connection:
        yield connection
    database.close()


def run_migrations(url: str) -> None:
    path = url.removeprefix("sqlite:///")
    if path != url:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).touch()
    with connected(url) as connection:
        made = configuration()
        made.attributes["connection"] = connection
        command.upgrade(made, "head")


def make_fresh(url: str) -> None:
    migrate.ensure(url)


_POSTGRES = {
    "columns": "SELECT table_name, column_name, data_type, is_nullable, column_default, is_identity"
    " FROM information_schema.columns WHERE table_schema = 'public'",
    "constraints": "SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint"
    " WHERE connamespace = 'public'::regnamespace",
    "indexes": "SELECT tablename, indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'",
    "views": "SELECT viewname, definition, '' FROM pg_views WHERE schemaname = 'public'",
}


def described(url: str) -> set[tuple[Any, ...]]:
    """Everything that makes up the schema, in the database's own words."""
    with connected(url) as connection:
        if connection.dialect.name == "postgresql":
            return {
                (kind, *row)
                for kind, question in _POSTGRES.items()
                for row in connection.exec_driver_sql(question)
            }  # fmt: skip
        rows = connection.exec_driver_sql("SELECT type, name, tbl_name, sql FROM sqlite_master").all()
    # The order of a table's constraints has no meaning, a column that was added stands behind them, and a table written
    # anew has its name in quotes.
    return {
        (kind, name, table, frozenset(part.strip(" ,\t)") for part in re.split(_PARTS, _unquoted(sql or ""))))
        for kind, name, table, sql in rows
    }  # fmt: skip


_PARTS = r"\n|, (?=\w+ [A-Z]+\b)"


def _unquoted(sql: str) -> str:
    return re.sub(r'^CREATE TABLE "(\w+)"', r"CREATE TABLE \1", sql)


@pytest.mark.parametrize("kind", ["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def test_a_fresh_schema_equals_a_migrated_one(request: pytest.FixtureRequest, tmp_path: Path, kind: str) -> None:
    if kind == "sqlite":
        urls = [f"sqlite:///{tmp_path / name}" for name in ("fresh.db", "migrated.db")]
    else:
        server = request.getfixturevalue("postgres_server")
        urls = [server.url(server.create()) for _ in range(2)]
    make_fresh(urls[0])
    run_migrations(urls[1])
    fresh, migrated = described(urls[0]), described(urls[1])
    assert fresh - migrated == set()
    assert migrated - fresh == set()
    with connected(urls[0]) as one, connected(urls[1]) as other:
        assert create.revision(one) == create.revision(other) == create.HEAD


@pytest.mark.parametrize("make", [make_fresh, run_migrations])
def test_the_definitions_in_the_code_are_what_stands_in_the_database(
    empty_url: str, make: Callable[[str], None]
) -> None:
    make(empty_url)
    with connected(empty_url) as connection:
        # On SQLite Alembic takes an identity for a default that is missing; there the text is compared above.
        defaults = connection.dialect.name == "postgresql"
        context = MigrationContext.configure(
            connection, opts={"compare_type": True, "compare_server_default": defaults}
        )
        assert compare_metadata(context, metadata) == []


def test_the_newest_migration_is_the_one_that_the_code_names() -> None:
    scripts = ScriptDirectory.from_config(configuration())
    assert scripts.get_heads() == [create.HEAD]
    assert len(list(scripts.walk_revisions())) == len(list((migrate.scripts() / "versions").glob("*.py")))


def test_the_first_migration_does_not_lean_on_the_code_that_changes() -> None:
    for path in (migrate.scripts() / "versions").glob("*.py"):
        assert "gpuq" not in path.read_text(), path.name


def test_every_table_and_view_is_there(empty_url: str) -> None:
    migrate.ensure(empty_url)
    with connected(empty_url) as connection:
        for table in metadata.sorted_tables:
            assert isinstance(table, Table)
            # Every total is there from the start, at nothing.
            assert {row[1] for row in connection.execute(table.select())} <= {0}, table.name
        for view in view_statements(connection.dialect.name):
            assert connection.execute(text(f"SELECT * FROM {view}")).all() == []


@pytest.mark.postgres
def test_views_have_the_same_columns_on_both_databases(empty_postgres_url: str, tmp_path: Path) -> None:
    sqlite_url = f"sqlite:///{tmp_path / 'gpuq.db'}"
    for url in (sqlite_url, empty_postgres_url):
        migrate.ensure(url)
    with connected(sqlite_url) as one, connected(empty_postgres_url) as other:
        for view in view_statements("sqlite"):
            question = text(f"SELECT * FROM {view}")
            assert list(one.execute(question).keys()) == list(other.execute(question).keys())


def test_an_ordinary_start_does_not_import_alembic(tmp_path: Path) -> None:
    script = (
        "import sys; from gpuq.stores.sql import migrate, open_records;"
        "migrate.ensure(sys.argv[1]); migrate.ensure(sys.argv[1]); open_records(sys.argv[1]).close();"
        "assert not any(name.split('.')[0] == 'alembic' for name in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script, f"sqlite:///{tmp_path / 'gpuq.db'}"], check=True)


def test_the_migrations_are_found_inside_an_installed_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = migrate.scripts()
    package = tmp_path / "site-packages" / "gpuq"
    shutil.copytree(source, package / "_migrations")
    monkeypatch.setattr(migrate, "__file__", str(package / "stores" / "sql" / "migrate.py"))
    assert migrate.scripts() == package / "_migrations"


def test_requests_of_the_release_before_are_kept_and_still_stored(empty_url: str) -> None:
    old = "INSERT INTO requests (\"user\", key, job_ids, at) VALUES ('alice', '{}', '[7]', 1.0)"
    path = empty_url.removeprefix("sqlite:///")
    if path != empty_url:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).touch()
    with connected(empty_url) as connection:
        made = configuration()
        made.attributes["connection"] = connection
        command.upgrade(made, "0001")
        connection.execute(text(old.format("before")))
    assert migrate.upgrade(empty_url) == ("0001", create.HEAD)
    with connected(empty_url) as connection:
        connection.execute(text(old.format("after")))
    records = open_records(empty_url)
    with records.read() as reader:
        for key in ("before", "after"):
            assert reader.request("alice", key) == AnsweredRequest([7], None)
    records.close()
