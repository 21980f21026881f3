"""What one user can get at, and stop, with SQL of his own."""

from __future__ import annotations

import contextlib
import http.client
import json
import threading
from collections.abc import Callable
from typing import Any

import psutil
import pytest
from accounts import Accounts

from gpuq.stores.sql import migrate, report_role

# With the calls in other users' names of this folder's conftest.
RootBox = Any

MARK = "for-alice-alone"
FENCE = "SELECT 1"


@pytest.fixture
def box(database_url: str | None, make_root_box: Callable[..., RootBox], accounts: Accounts) -> RootBox:
    """A daemon of root's with a failed job of alice's, whose environment and output hold the mark; on PostgreSQL it has
    the login for questions."""
    settings = {}
    if database_url is not None:
        settings = {"GPUQ_DATABASE_URL": database_url, "GPUQ_REPORT_DATABASE_URL": report_role.make(database_url).url}
    made = make_root_box(**settings)
    made.up()
    job_id = made.submit_as(accounts.alice, f"echo output {MARK}; exit 3", env={"KEPT": f"environment {MARK}"})
    made.until_state(job_id, "failed")
    assert made.call(accounts.alice, "POST", "/tokens", {"name": MARK}).status == 201
    return made


def ask(box: RootBox, who: Any, query: str, **more: Any) -> Any:
    return box.call(who, "POST", "/sql", {"query": query, **more})


READINGS = [
    'select spec from U&"\\0073pecs"',
    'select * from U&"\\0074okens"',
    "select query_to_xml('select spec from sp'||'ecs',true,false,'')::text",
    "select query_to_xml('select * from tok'||'ens',true,false,'')::text",
    "select schema_to_xml('public',true,false,'')::text",
    "select database_to_xml(true,false,'')::text",
    "select log_tail from dead_letter_queue",
    "select * from requests",
    "select * from installation",
    "select token from attempts",
    "select * from specs",
    "with job_history as (select * from specs) select * from job_history",
    "with dead_letters as (select log_tail from dead_letter_queue) select * from dead_letters",
    "select pg_read_file('/etc/passwd')",
    "select pg_ls_dir('/')",
    "select * from pg_authid",
    "select pg_reload_conf()",
    "select pg_switch_wal()",
    "select set_config('role','gpuq',false)",
    "select sql from sqlite_master",
    "select * from pragma_table_info('specs')",
]


def test_another_user_reads_no_environment_no_output_and_no_token(box: RootBox, accounts: Accounts) -> None:
    for query in READINGS:
        answer = ask(box, accounts.bob, query)
        told = answer.body.decode()
        assert MARK not in told, query
        assert "root:" not in told, query
        if answer.status != 200:
            assert answer.status in {403, 409, 422}, (query, told)
            assert answer.json["error"]["hint"], query
        else:
            # Functions that dump what may be read: the views.
            assert "_to_xml" in query, (query, told)
            assert "<specs" not in told, query
    shown = ask(box, accounts.bob, "select name, state, exit_code from job_history where \"user\" <> ''")
    assert shown.json["rows"] == [["sh", "failed", 3]]
    for view in ("job_history", "attempt_history", "dead_letters", "job_events"):
        answer = ask(box, accounts.bob, f"select * from {view}")
        assert answer.status == 200
        assert MARK not in answer.body.decode(), view
        assert not {"token", "uid", "log_tail", "run_dir"} & set(answer.json["columns"])


HOLDING = {
    "sqlite": "with recursive n(i) as (select 1 union all select i + 1 from n) select count(*) from n, job_history",
    "postgresql": "select pg_sleep(60) from pg_locks l, job_history",
}


def test_nobody_writes_later_for_what_a_question_holds(box: RootBox, accounts: Accounts) -> None:
    """A user holds all that he can; another one's job is stored and runs meanwhile, and is seen to."""
    asking = [threading.Thread(target=hold, args=(box, accounts.bob)) for _ in range(2)]
    for thread in asking:
        thread.start()
    readers = box.until(lambda: questions_of(box) if len(questions_of(box)) == 2 else [], "bob has two under way")
    assert "2 questions" in ask(box, accounts.bob, FENCE).json["error"]["message"]
    assert ask(box, accounts.carol, "select count(*) from job_history").status == 200
    box.until_state(box.submit_as(accounts.carol, "true"), "completed")
    assert all(thread.is_alive() for thread in asking), "the questions had ended: that proves nothing"
    if kind(box) == "sqlite":
        box.until(lambda: all(reader.uids().real == 65534 for reader in readers), "they are nobody's")
    else:
        others = "from pg_stat_activity where usename <> user and datname = current_database()"
        answer = ask(box, accounts.carol, f"select pg_terminate_backend(pid) {others}")
        assert answer.status == 409, answer.body
    box.down()
    for thread in asking:
        thread.join()
    psutil.wait_procs(readers, timeout=20)
    assert not [reader for reader in readers if reader.is_running()]


# By the thousand they fill a table that all sessions share, or the server's disk.
HARMFUL = [
    "select pg_advisory_lock(1735423345)",
    "select pg_advisory_lock_shared(1, 2)",
    "select count(*) from (select pg_advisory_xact_lock(g) from generate_series(1, 100000) g offset 0) x",
    "select pg_advisory_xact_lock_shared(3)",
    "select pg_catalog.pg_try_advisory_lock(4)",
    "select pg_try_advisory_lock_shared(5)",
    "select pg_try_advisory_xact_lock(6)",
    "select pg_try_advisory_xact_lock_shared(7, 8)",
    "select pg_logical_emit_message(false, 'x', repeat('x', 1000))",
    "select pg_logical_emit_message(true, 'x', '\\x00'::bytea)",
    "select lo_create(0)",
]


@pytest.mark.postgres
def test_a_question_fills_no_table_of_locks_and_no_log_of_changes(
    database_url: str | None, box: RootBox, accounts: Accounts
) -> None:
    if database_url is None:
        pytest.skip("of PostgreSQL alone")
    for query in HARMFUL:
        answer = ask(box, accounts.bob, query)
        assert answer.status == 409, (query, answer.body)
        assert "not shown here (permission denied for function" in answer.json["error"]["message"], query
    findings = {row["check"]: row for row in json.loads(box.gpuq("doctor", "--json", code=None).stdout)}
    assert findings["sql"]["status"] == "ok"


@pytest.mark.postgres
def test_where_only_an_administrator_can_take_that_away_he_is_told_how(postgres_server: Any) -> None:
    name = postgres_server.create()
    owner = f"{name}_owner"
    postgres_server.execute(f"CREATE ROLE {owner} LOGIN CREATEROLE")
    try:
        postgres_server.execute(f"ALTER DATABASE {name} OWNER TO {owner}")
        postgres_server.execute(f"ALTER SCHEMA public OWNER TO {owner}", database=name)
        url = postgres_server.url(name).replace("://gpuq@", f"://{owner}@")
        migrate.ensure(url)
        made = report_role.make(url)
        assert "pg_advisory_lock(bigint)" in report_role.may_harm(made.url)
        (told,) = [note for note in made.notes if "pg_logical_emit_message" in note]
        postgres_server.execute(told.partition(": ")[2], database=name)
        assert report_role.may_harm(made.url) == []
        # The daemon's own role still makes and upgrades the schema.
        migrate.ensure(url)
        assert "pg_advisory_xact_lock(bigint)" in report_role.may_harm(url)
    finally:
        postgres_server.execute(f"DROP DATABASE {name} WITH (FORCE)")
        postgres_server.execute(f"DROP ROLE IF EXISTS {name}_reporter")
        postgres_server.execute(f"DROP ROLE {owner}")


def hold(box: RootBox, who: Any) -> None:
    with contextlib.suppress(OSError, http.client.HTTPException):
        ask(box, who, HOLDING[kind(box)])


def kind(box: RootBox) -> str:
    return "postgresql" if "GPUQ_DATABASE_URL" in box.env else "sqlite"


def questions_of(box: RootBox) -> list[psutil.Process]:
    return [child for child in box.daemon().children() if any("reading_process" in word for word in child.cmdline())]


BOMBS = {
    "sqlite": [
        "select randomblob(2000000000)",
        "select zeroblob(2000000000)",
        "select replace(hex(zeroblob(400000000)),'0','aa')",
        "with recursive c(x) as (select 1 union all select x+1 from c limit 3000000) select x, printf('%0100d', x)"
        " from c",
    ],
    "postgresql": ["select repeat('x',300000000)"],
}


def test_no_question_fills_the_daemons_memory_or_fails_without_a_word(box: RootBox, accounts: Accounts) -> None:
    daemon = box.daemon()
    before = daemon.memory_info().rss
    for query in BOMBS[kind(box)]:
        answer = ask(box, accounts.bob, query)
        assert answer.status in {409, 422}, (query, answer.body[:300])
        assert answer.json["error"]["hint"], query
        assert "bug" not in answer.json["error"]["message"]
    large = (
        "select printf('%.*c', 60, 'x') a, i from n" if kind(box) == "sqlite" else "select repeat('x', 60) a, i from n"
    )
    numbers = "with recursive n(i) as (select 1 union all select i + 1 from n where i < 100000) "
    answer = ask(box, accounts.bob, numbers + large)
    assert answer.status == 200, answer.body[:300]
    assert len(answer.json["rows"]) == 100_000
    assert daemon.memory_info().rss - before < 60 * 2**20
    # Nothing of them is left.
    assert questions_of(box) == []


@pytest.mark.postgres
def test_without_a_login_of_its_own_sql_on_postgres_is_for_administrators(
    database_url: str | None, make_root_box: Callable[..., RootBox], accounts: Accounts
) -> None:
    if database_url is None:
        pytest.skip("SQLite needs no login")
    box = make_root_box(GPUQ_DATABASE_URL=database_url)
    box.up()
    refused = ask(box, accounts.bob, FENCE)
    assert refused.status == 403
    assert "gpuq db reporter" in refused.json["error"]["hint"]
    assert ask(box, accounts.admin, FENCE).status == 200
    # gpuq's own questions are not a user's.
    assert box.call(accounts.bob, "GET", "/report/usage").status == 200
    findings = {row["check"]: row for row in json.loads(box.gpuq("doctor", "--json", code=None).stdout)}
    assert findings["sql"]["status"] == findings["database role"]["status"] == "warn"
    made = json.loads(box.gpuq("db", "reporter", "--json").stdout)
    box.env["GPUQ_REPORT_DATABASE_URL"] = made["url"]
    box.down()
    box.up()
    assert ask(box, accounts.bob, FENCE).status == 200
    findings = {row["check"]: row for row in json.loads(box.gpuq("doctor", "--json", code=None).stdout)}
    assert findings["sql"]["status"] == "ok"
