"""SQL that a person writes: it reads, and nothing else."""

from __future__ import annotations

import json
import resource
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from typing import Any

import pytest

from gpuq.errors import DatabaseUnavailable, Refused, UsageError
from gpuq.ports.records import DeadLetter, JobFilter
from gpuq.stores.sql import Database, SqlHistory, SqlRecords, migrate, open_tokens, report_role
from gpuq.stores.sql.questions import ask
from gpuq.stores.sql.schema.views import view_statements


class Asking:
    """Asks, and reads the answer."""

    def __init__(self, history: SqlHistory) -> None:
        self.history = history

    def query(self, sql: str, *, limit: int | None = None) -> tuple[list[str], list[tuple[Any, ...]]]:
        with self.history.ask(sql, limit=limit) as file:
            table = json.load(file)
        return table["columns"], [tuple(row) for row in table["rows"]]


@cache
def _login(url: str) -> str:
    return report_role.make(url).url


@pytest.fixture
def history(records: SqlRecords, url: str) -> Asking:
    return Asking(SqlHistory(records.database, None if url.startswith("sqlite") else _login(url)))


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM jobs",
        "UPDATE jobs SET state = 'completed'",
        "INSERT INTO installation (key, value, at) VALUES ('paused', '1', 1)",
        "DROP VIEW job_history",
        "CREATE TABLE x (y int)",
        "WITH gone AS (DELETE FROM jobs RETURNING id) SELECT * FROM gone",
        "SELECT 1; DELETE FROM jobs",
        "SELECT 1; COMMIT; DELETE FROM jobs",
        "COMMIT",
        "BEGIN",
        "/* SELECT */ DELETE FROM jobs",
        "-- a remark\nDELETE FROM jobs",
        "EXPLAIN ANALYZE DELETE FROM jobs",
        "ATTACH DATABASE '/tmp/x.db' AS other",
        "PRAGMA journal_mode = DELETE",
        "PRAGMA user_version = 7",
        "VACUUM",
        "SET default_transaction_read_only = off",
        "SELECT setval(pg_get_serial_sequence('jobs', 'id'), 1)",
        "SELECT load_extension('x')",
        "",
    ],
)
def test_nothing_but_reading_is_possible(jobs: Any, records: SqlRecords, history: Asking, statement: str) -> None:
    jobs.add()
    with pytest.raises((Refused, UsageError)) as refusal:
        history.query(statement)
    assert refusal.value.hint
    with records.read() as reader:
        assert reader.count(JobFilter()) == 1
    assert jobs.add() == 2


@pytest.mark.parametrize("statement", ["selec", "SELCT 1", "SELECT 1 FRM jobs", "1", "", "; DELETE FROM jobs"])
def test_what_is_no_statement_is_a_mistake(history: Asking, statement: str) -> None:
    with pytest.raises(UsageError, match="SQL: ") as complaint:
        history.query(statement)
    assert complaint.value.hint


@pytest.mark.parametrize(
    "statement",
    ["DELETE FROM jobs", "insert into jobs values (1)", "UPDATE jobs SET id = 2", "DROP TABLE jobs", "BEGIN", "VACUUM",
     "COPY jobs TO PROGRAM 'cat'", "DO 'BEGIN END'", "ATTACH 'x' AS y", "(DELETE FROM jobs)"],
)  # fmt: skip
def test_what_changes_something_is_refused_and_not_called_a_mistake(history: Asking, statement: str) -> None:
    with pytest.raises(Refused, match="only reads"):
        history.query(statement)


def test_a_query_sees_what_was_just_committed(jobs: Any, history: Asking) -> None:
    job_id = jobs.add(name="seen")
    columns, found = history.query('SELECT id, name AS "the name" FROM job_history')
    assert (columns, found) == (["id", "the name"], [(job_id, "seen")])


@pytest.mark.parametrize("statement", ["select count(*) from job_history", "SELECT 0;", " \n-- x\n SELECT 0;",
                                       "WITH x AS (SELECT 0) SELECT * FROM x", "VALUES (0)"])  # fmt: skip
def test_a_question_may_be_written_in_many_ways(history: Asking, statement: str) -> None:
    assert history.query(statement)[1] == [(0,)]


def test_a_limit_cuts_the_answer(jobs: Any, history: Asking) -> None:
    for _ in range(3):
        jobs.add()
    assert history.query("SELECT id FROM job_history ORDER BY id", limit=2)[1] == [(1,), (2,)]
    assert len(history.query("SELECT id FROM job_history")[1]) == 3


@pytest.mark.parametrize(
    "statement",
    ["SELECT nonsense FROM job_history", "SELECT nonsense", "SELECT FROM WHERE", "SELECT * FROM no_such"],
)
def test_a_mistake_is_told_in_the_databases_words(history: Asking, statement: str) -> None:
    with pytest.raises(UsageError, match="SQL: ") as complaint:
        history.query(statement)
    assert "job_history" in (complaint.value.hint or "")


def test_numbers_come_as_numbers(jobs: Any, history: Asking) -> None:
    jobs.add()
    ((half, total),) = history.query("SELECT 1.0 * sum(gpus) / 2, sum(gpus) FROM job_history")[1]
    assert (half, total) == (0.5, 1)
    assert type(half) is float
    assert type(total) is int


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT * FROM specs",
        "SELECT (SELECT spec FROM specs)",
        "SELECT hash FROM tokens",
        "WITH job_history AS (SELECT * FROM specs) SELECT * FROM job_history",
        "SELECT j.id FROM job_history j WHERE EXISTS (SELECT 1 FROM specs s WHERE s.spec LIKE '%TOP%')",
    ],
)
def test_environments_and_token_hashes_are_not_shown(
    jobs: Any, records: SqlRecords, history: Asking, statement: str
) -> None:
    jobs.add(env={"A": "TOP SECRET"})
    open_tokens(records.database).create("alice", "laptop", 1.0)
    with pytest.raises(Refused, match="not shown") as refusal:
        history.query(statement)
    assert "TOP SECRET" not in str(refusal.value)


def test_the_word_for_a_secret_table_may_stand_in_a_question(jobs: Any, history: Asking) -> None:
    jobs.add(name="tokens")
    assert history.query("SELECT name FROM job_history WHERE name = 'tokens'")[1] == [("tokens",)]


def test_a_question_that_takes_too_long_is_ended(
    records: SqlRecords, history: Asking, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ask, "BOUNDS", replace(ask.BOUNDS, seconds=0.5))
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
    with pytest.raises(UsageError, match="longer than"):
        history.query(endless)


@pytest.fixture
def secrets(jobs: Any, records: SqlRecords) -> list[str]:
    """What stands in the tables and in no view."""
    job_id = jobs.add(env={"A": "TOP SECRET"})
    token = jobs.run(job_id)
    with records.write() as tx:
        tx.add_dead_letter(DeadLetter(job_id, jobs.NOW, "exit_nonzero", "boom", 1, "SECRET OUTPUT"))
        tx.set_value("fence", "SECRET FENCE", 1.0)
    open_tokens(records.database).create("alice", "laptop", 1.0)
    return ["TOP SECRET", token, "SECRET OUTPUT", "SECRET FENCE"]


# Ways past a gate that looks at words, at the names of subqueries, or at plans.
DETOURS = {
    "both": [
        "SELECT log_tail FROM dead_letter_queue",
        "SELECT * FROM requests",
        "SELECT * FROM installation",
        "SELECT token FROM attempts",
        "SELECT token FROM jobs",
        "SELECT uid FROM jobs",
        "TABLE specs",
        "SELECT * FROM (SELECT * FROM specs) AS job_history",
        "WITH dead_letters AS (SELECT log_tail FROM dead_letter_queue) SELECT * FROM dead_letters",
        "WITH job_history AS (SELECT token AS id FROM jobs) SELECT * FROM job_history",
        "WITH attempt_history AS (SELECT token FROM attempts) SELECT * FROM attempt_history",
        "WITH job_history AS (SELECT id, (SELECT spec FROM specs) s FROM jobs) SELECT s FROM job_history",
        "SELECT id FROM job_history UNION SELECT job_id FROM specs",
        "SELECT id FROM job_history ORDER BY (SELECT max(spec) FROM specs)",
        "SELECT id FROM job_history WHERE id IN (SELECT job_id FROM specs)",
        "SELECT count(*) FROM specs",
        "SELECT 1 FROM tokens",
        'SELECT * FROM "specs"',
        "SELECT * FROM alembic_version",
    ],
    "sqlite": [
        "SELECT * FROM main.specs",
        "SELECT * FROM sqlite_master",
        "SELECT count(*) FROM sqlite_schema",
        "SELECT * FROM sqlite_temp_schema",
        "SELECT * FROM sqlite_sequence",
        "SELECT * FROM pragma_table_info('specs')",
        "SELECT count(*) FROM pragma_table_list",
        "SELECT * FROM pragma_database_list",
        "SELECT * FROM dbstat",
        "SELECT rowid FROM dead_letter_queue",
        "SELECT randomblob(9)",
        "SELECT zeroblob(9)",
        "SELECT load_extension('x')",
        "SELECT readfile('/etc/passwd')",
        "SELECT fts3_tokenizer('x')",
        "SELECT sqlite_compileoption_get(1)",
        "EXPLAIN SELECT * FROM specs",
        "PRAGMA hard_heap_limit = 0",
        "ATTACH ':memory:' AS x",
        "VACUUM INTO '/tmp/x'",
    ],
    "postgresql": [
        'SELECT spec FROM U&"\\0073pecs"',
        'SELECT * FROM U&"\\0074okens"',
        "SELECT query_to_xml('select spec from sp'||'ecs', true, false, '')",
        "SELECT query_to_xml('select * from tok'||'ens', true, false, '')",
        "SELECT table_to_xml('specs'::regclass, true, false, '')",
        "SELECT * FROM ts_stat('select to_tsvector(spec) from sp'||'ecs')",
        "SELECT pg_read_file('/etc/passwd')",
        "SELECT pg_ls_dir('/')",
        "SELECT * FROM pg_authid",
        "SELECT * FROM pg_largeobject",
        "SELECT lo_from_bytea(0, 'x')",
        "SELECT nextval('jobs_id_seq')",
        "SELECT last_value FROM jobs_id_seq",
        "SELECT set_config('role', 'gpuq', false)",
        "SELECT set_config('session_authorization', 'gpuq', false)",
        "SELECT * FROM jobs FOR UPDATE",
        "SELECT id FROM job_history FOR UPDATE",
        "SELECT * FROM specs TABLESAMPLE SYSTEM (100)",
        "/* /* */ select */ COPY specs TO STDOUT",
        "/* /* */ select */ LOCK TABLE alembic_version IN SHARE MODE",
        "/* /* */ select */ CREATE TEMP TABLE t (x int)",
        "/* /* */ select */ DO $$ BEGIN PERFORM spec FROM specs; END $$",
        "SELECT pg_stat_reset()",
        "SELECT pg_reload_conf()",
    ],
}


def test_only_the_views_can_be_read_however_one_asks(secrets: list[str], records: SqlRecords, history: Asking) -> None:
    for statement in DETOURS["both"] + DETOURS["sqlite" if records.database.path else "postgresql"]:
        with pytest.raises((Refused, UsageError)) as refusal:
            assert not history.query(statement), statement
        assert refusal.value.hint, statement
        assert not any(secret in str(refusal.value) for secret in secrets), statement


@pytest.mark.postgres
@pytest.mark.parametrize("function", ["schema_to_xml('public', true, false, '')", "database_to_xml(true, false, '')"])
def test_a_dump_of_all_that_one_may_read_has_only_the_views(
    secrets: list[str], records: SqlRecords, history: Asking, function: str
) -> None:
    if records.database.path:
        pytest.skip("SQLite has no such function")
    ((dump,),) = history.query(f"SELECT {function}::text")[1]
    assert "<job_history" in dump
    assert not any(secret in dump for secret in secrets)
    assert "specs" not in dump


ALLOWED = {
    "both": [
        "SELECT count(*) FROM job_history",
        "SELECT count(*) FROM attempt_history",
        "SELECT count(*) FROM dead_letters",
        "SELECT count(*) FROM job_events",
        "SELECT 1 FROM dead_letters",
        "SELECT j.name, a.node FROM JOB_HISTORY j JOIN attempt_history a ON a.job_id = j.id",
        'SELECT "user", sum(gpu_seconds), max(wait_s), avg(run_s) FROM job_history GROUP BY 1 HAVING count(*) > 0',
        "SELECT id, row_number() OVER (PARTITION BY state ORDER BY id) FROM job_history",
        "SELECT sum(n) FROM (SELECT state, count(*) AS n FROM job_history GROUP BY state) x",
        "WITH x AS (SELECT * FROM job_events) SELECT DISTINCT to_state FROM x UNION SELECT state FROM job_history",
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 9) SELECT i, id FROM n, job_history",
        "WITH jobs AS (SELECT id FROM job_history) SELECT count(*) FROM jobs",
        "SELECT id FROM job_history h WHERE EXISTS (SELECT 1 FROM attempt_history WHERE job_id = h.id)",
        "SELECT coalesce(upper(trim(name)), 'x') || round(1.5), abs(-1), substr(state, 1, 2) FROM job_history"
        " WHERE name LIKE 't%' ORDER BY lower(name) LIMIT 3 OFFSET 0",
        "SELECT cast(gpus AS text), CASE WHEN gpus > 1 THEN 'many' ELSE 'few' END FROM job_history",
        "EXPLAIN SELECT * FROM job_history",
    ],
    "sqlite": [
        "SELECT g.value FROM attempt_history, json_each(gpu_indices) g",
        "SELECT julianday(finished_at) - julianday(started_at), strftime('%Y', submitted_at) FROM job_history",
        "SELECT group_concat(name), printf('%.1f', avg(gpus)), sqrt(4), json_extract('[1]', '$[0]') FROM job_history",
        "SELECT count(*) FROM job_history LEFT JOIN dead_letters ON job_id = id",
    ],
    "postgresql": [
        "SELECT json_array_elements_text(gpu_indices::json) FROM attempt_history",
        "SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY wait_s), date_trunc('day', min(submitted_at))"
        " FROM job_history",
        "SELECT string_agg(name, ','), array_agg(id), now() - min(submitted_at), NULL::bytea FROM job_history",
        "SELECT 'infinity'::float8, 'NaN'::numeric, 1e400::numeric, current_date, '\\x00ff'::bytea",
        "EXPLAIN (ANALYZE, FORMAT JSON) SELECT * FROM job_history",
    ],
}


def test_what_reports_need_is_possible(secrets: list[str], records: SqlRecords, history: Asking) -> None:
    for statement in ALLOWED["both"] + ALLOWED["sqlite" if records.database.path else "postgresql"]:
        columns, _ = history.query(statement)
        assert columns, statement


BOMBS = {
    "sqlite": {
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 3000000) SELECT i FROM n": "rows",
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 90) SELECT printf('%.*c', 900000, 'x')"
        " FROM n": "MiB",
        "SELECT replace(printf('%.*c', 900000, 'x'), 'x', 'aa')": "single value",
        "WITH RECURSIVE n(i, s) AS (SELECT 1, printf('%.*c', 900000, 'x') UNION ALL SELECT i + 1, s FROM n LIMIT 9999)"
        " SELECT s FROM n ORDER BY i DESC": "memory",
        "SELECT " + ", ".join(["printf('%.*c', 999000, 'x')"] * 499): "memory",
    },
    "postgresql": {
        "SELECT i FROM generate_series(1, 3000000) i": "rows",
        "SELECT repeat('x', 900000) FROM generate_series(1, 90) i": "MiB",
        "SELECT repeat('x', 300000000)": "memory",
        "SELECT pg_sleep(60)": "longer than",
        "SELECT set_config('statement_timeout', '0', false), pg_sleep(60)": "longer than",
    },
}


def test_a_question_that_would_take_too_much_is_ended_with_a_word(
    records: SqlRecords, history: Asking, monkeypatch: pytest.MonkeyPatch
) -> None:
    for statement, word in BOMBS["sqlite" if records.database.path else "postgresql"].items():
        seconds = 1.0 if "sleep" in statement else 30.0
        monkeypatch.setattr(ask, "BOUNDS", replace(ask.BOUNDS, seconds=seconds))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        with pytest.raises(UsageError, match=word) as complaint:
            history.query(statement)
        assert complaint.value.hint
        # KiB; a question's work is done elsewhere.
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000


def test_a_question_that_nothing_can_interrupt_is_ended_too(
    records: SqlRecords, history: Asking, monkeypatch: pytest.MonkeyPatch
) -> None:
    if records.database.path is None:
        pytest.skip("PostgreSQL ends it itself")
    monkeypatch.setattr(ask, "BOUNDS", replace(ask.BOUNDS, seconds=0.5))
    with pytest.raises(UsageError, match="longer than"):
        # One call of a function, which SQLite's own time limit waits for.
        history.query("SELECT printf('%.*c', 2000000000, 'x'), printf('%.*c', 2000000000, 'x')")


def test_no_room_for_an_answer_and_no_process_for_a_question_are_told(
    history: Asking, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(tempfile, "tempdir", "/nowhere")
        with pytest.raises(DatabaseUnavailable, match="no room"):
            history.query("SELECT 1")
    with monkeypatch.context() as patched:
        patched.setattr(sys, "executable", "/nowhere/python")
        with pytest.raises(DatabaseUnavailable, match="no process"):
            history.query("SELECT 1")
    assert history.query("SELECT 1")[1] == [(1,)]


def test_values_come_as_json_can_carry_them(records: SqlRecords, history: Asking) -> None:
    if records.database.path:
        assert history.query("SELECT 1e999, x'00ff', NULL, 2.5, cast(x'ff' AS text)")[1] == [
            (None, "00ff", None, 2.5, "\ufffd")
        ]
        return
    statement = (
        "SELECT 'NaN'::float8, '\\x00ff'::bytea, 2.50::numeric, 7::numeric,"
        " '2026-11-28 01:00+01'::timestamptz, '2026-11-28'::date, ARRAY[1, 2]"
    )
    assert history.query(statement)[1] == [(None, "00ff", 2.5, 7, "2026-11-28T00:00:00.000Z", "2026-11-28", [1, 2])]


@pytest.mark.postgres
def test_what_a_reader_locks_stops_no_writer(jobs: Any, records: SqlRecords, url: str, history: Asking) -> None:
    if records.database.path:
        pytest.skip("a reader of SQLite locks nobody out")
    import psycopg

    login = _login(url).replace("postgresql+psycopg:", "postgresql:")
    with psycopg.connect(login) as reader:
        # All that such a login may hold: no lock by a number, and a snapshot of the views.
        with pytest.raises(psycopg.errors.InsufficientPrivilege), reader.transaction():
            reader.execute("SELECT pg_advisory_lock(x) FROM generate_series(0, 999) x")
        reader.execute("LOCK TABLE job_history, attempt_history, dead_letters, job_events IN ACCESS SHARE MODE")
        reader.execute("SELECT count(*) FROM job_history")
        for table, mode in {"alembic_version": "ACCESS SHARE", "job_history": "SHARE", "jobs": "ACCESS SHARE"}.items():
            with pytest.raises(psycopg.errors.InsufficientPrivilege), reader.transaction():
                reader.execute(f"LOCK TABLE {table} IN {mode} MODE")
        assert jobs.add() == 1
        ended = reader.execute(
            "SELECT pid FROM pg_stat_activity WHERE usename = 'gpuq' AND datname = current_database()"
        ).fetchall()
        assert ended
        with pytest.raises(psycopg.errors.InsufficientPrivilege), reader.transaction():
            reader.execute("SELECT pg_terminate_backend(%s)", ended[0])
        assert jobs.add() == 2


@pytest.mark.postgres
def test_a_login_that_may_do_more_is_not_used_and_told(records: SqlRecords, url: str) -> None:
    if records.database.path:
        pytest.skip("SQLite has no logins")
    with pytest.raises(UsageError, match="may read more than the views"):
        Asking(SqlHistory(records.database, url)).query("SELECT 1")
    assert "superuser" in report_role.excess(url)[0]
    assert report_role.is_superuser(url)
    assert report_role.excess(_login(url)) == []
    with records.database.engine.begin() as owner:
        role = f"{records.database.url.database}_reporter"
        owner.exec_driver_sql(f"GRANT SELECT ON requests TO {role}")
        owner.exec_driver_sql(f"GRANT CREATE ON SCHEMA public TO {role}")
    assert report_role.excess(_login(url)) == ["may read requests", "may make things in the schema public"]
    made = report_role.make(url)
    assert (made.created, report_role.excess(_login(url))) == (False, [])


@pytest.mark.postgres
def test_a_login_is_made_with_a_password_that_is_told_once(records: SqlRecords, url: str) -> None:
    if records.database.path:
        with pytest.raises(Refused, match="SQLite needs no login"):
            report_role.make(url)
        return
    role = f"{records.database.url.database}_reporter"
    report_role.make(url)
    with records.database.engine.begin() as owner:
        owner.exec_driver_sql(f"DROP OWNED BY {role}")
        owner.exec_driver_sql(f"DROP ROLE {role}")
    first = report_role.make(url)
    assert (first.created, first.role, first.notes) == (True, role, ())
    assert f"{role}:" in first.url
    again = report_role.make(url)
    assert (again.created, f"{role}@" in again.url) == (False, True)
    changed = report_role.make(url, new_password=True)
    assert changed.url not in {first.url, again.url}
    assert Asking(SqlHistory(records.database, changed.url)).query("SELECT count(*) FROM job_history")[1] == [(0,)]


@pytest.fixture
def ordinary_url(postgres_server: Any) -> Iterator[str]:
    """A database of a role that owns it and may do nothing else."""
    postgres_server.execute("CREATE ROLE plain LOGIN")
    postgres_server.execute("CREATE DATABASE plainly OWNER plain")
    url = postgres_server.url("plainly").replace("//gpuq@", "//plain@")
    migrate.ensure(url)
    yield url
    postgres_server.execute("DROP DATABASE plainly WITH (FORCE)")
    postgres_server.execute("DROP ROLE IF EXISTS plainly_reporter")
    postgres_server.execute("DROP ROLE plain")


@pytest.mark.postgres
def test_a_role_that_may_not_make_others_tells_who_makes_the_login(ordinary_url: str, postgres_server: Any) -> None:
    with pytest.raises(Refused, match="plain may not make") as refusal:
        report_role.make(ordinary_url)
    assert 'CREATE ROLE "plainly_reporter" LOGIN' in (refusal.value.hint or "")
    postgres_server.execute("CREATE ROLE plainly_reporter LOGIN")
    made = report_role.make(ordinary_url)
    # What only the server's administrator may set is told; the rights themselves are the owner's to give.
    assert any("temp_file_limit" in note for note in made.notes)
    assert report_role.excess(made.url) == []
    assert not report_role.is_superuser(ordinary_url)
    asking = Asking(SqlHistory(Database(ordinary_url), made.url))
    assert asking.query("SELECT count(*) FROM job_history")[1] == [(0,)]
    with pytest.raises(Refused, match="not shown"):
        asking.query("SELECT * FROM specs")
    postgres_server.execute("GRANT pg_read_server_files TO plainly_reporter")
    assert report_role.excess(made.url) == ["is a member of pg_read_server_files"]
    with pytest.raises(Refused, match="pg_read_server_files"):
        report_role.make(ordinary_url)


@pytest.mark.postgres
def test_the_login_of_a_role_that_may_make_others_is_whole(ordinary_url: str, postgres_server: Any) -> None:
    postgres_server.execute("ALTER ROLE plain CREATEROLE")
    made = report_role.make(ordinary_url)
    assert made.created
    assert report_role.excess(made.url) == []


@pytest.mark.postgres
def test_an_upgrade_that_makes_a_view_anew_lets_its_readers_read_on(
    empty_postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = empty_postgres_url
    migrate.ensure(url)
    made = report_role.make(url)
    database = Database(url)

    def anew(_configuration: object, connection: Any) -> None:
        for name, statement in view_statements("postgresql").items():
            connection.exec_driver_sql(f"DROP VIEW {name}")
            connection.exec_driver_sql(statement)
        connection.exec_driver_sql(f"UPDATE alembic_version SET version_num = '{migrate.create.HEAD}'")

    with database.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '0001'")
    monkeypatch.setattr(migrate, "_run_alembic", anew)
    migrate.ensure(url)
    asking = Asking(SqlHistory(database, made.url))
    assert asking.query("SELECT count(*) FROM job_events")[1] == [(0,)]
    database.close()
