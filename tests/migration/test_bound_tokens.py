"""From the first release's database: whose its tokens are, and what was quoted of the output."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from sqlalchemy import text

from gpuq.domain.caller import Scope
from gpuq.stores.sql import Database, migrate, open_tokens
from gpuq.stores.sql.schema import create

LINE = "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB; key=SECRET"
TOKEN = (
    'INSERT INTO tokens (name, "user", hash, created_at, revoked_at, last_used_at)'
    " VALUES ('t', :user, :hash, 1.0, NULL, NULL)"
)


def add_token(database: Database, user: str) -> None:
    values = {"user": user, "hash": hashlib.sha256(user.encode()).hexdigest()}
    with database.write() as connection:
        connection.execute(text(TOKEN), values)


def test_tokens_of_the_first_release_are_bound_once_and_its_errors_quote_nothing(empty_url: str) -> None:
    path = empty_url.removeprefix("sqlite:///")
    if path != empty_url:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).touch()
    database = Database(empty_url)
    with database.engine.begin() as connection:
        made = Config()
        made.set_main_option("script_location", str(migrate.scripts()))
        made.attributes["connection"] = connection
        command.upgrade(made, "0001")
    for user in ("daemon", "root", "no-such-user"):
        add_token(database, user)
    with database.write() as connection:
        for statement, values in the_end_of_a_job():
            connection.execute(text(statement), values)
    before = time.time()
    assert migrate.upgrade(empty_url) == ("0001", create.HEAD)
    # The release before goes on with this schema.
    add_token(database, "bin")

    tokens = open_tokens(database)
    found = {row.user: (row.uid, row.scope) for row in tokens.list()}
    assert found == {
        "daemon": (1, Scope.ADMIN),
        "root": (None, Scope.ADMIN),
        "no-such-user": (None, Scope.ADMIN),
        "bin": (None, Scope.ADMIN),
    }
    ends = {row.user: row.expires_at for row in tokens.list()}
    assert ends.pop("bin") is None
    assert all(end is not None and before + 364 * 86400 < end < before + 366 * 86400 for end in ends.values())
    assert tokens.create("daemon", "new", 2.0)[0] == 5
    with database.read() as connection:
        for table in ("jobs", "attempts", "dead_letter_queue"):
            assert connection.execute(text(f"SELECT error FROM {table}")).scalars().all() == ["out of GPU memory"]
        details = connection.execute(text("SELECT detail FROM events ORDER BY id")).scalars().all()
        assert details == ["submitted", "gpu_oom; out of GPU memory; retries are used up", "gpu_oom"]
        assert connection.execute(text("SELECT log_tail FROM dead_letter_queue")).scalar_one() == LINE
    database.close()


def the_end_of_a_job() -> list[tuple[str, dict[str, Any]]]:
    said = {"line": LINE}
    event = "INSERT INTO events (at, job_id, attempt, from_state, to_state, actor, detail) VALUES (2.0, 1, "
    return [
        (
            'INSERT INTO jobs (name, "user", uid, state, priority, score, command, cwd, gpus, max_retries, preemptible,'
            " submitted_at, attempt, outcome, exit_code, error, finished_at)"
            " VALUES ('x', 'daemon', 1, 'failed', 2, 1.0, '[]', '/', 1, 0, false, 1.0, 1, 'gpu_oom', 1, :line, 2.0)",
            said,
        ),
        (
            "INSERT INTO attempts (job_id, number, token, node, boot_id, gpu_indices, gpu_uuids, run_dir, log_path,"
            " claimed_at, finished_at, outcome, exit_code, error)"
            " VALUES (1, 1, 't', 'box', 'b', '[0]', '[\"g\"]', '/r', '/l', 1.0, 2.0, 'gpu_oom', 1, :line)",
            said,
        ),
        (
            "INSERT INTO dead_letter_queue (job_id, failed_at, outcome, error, attempts, log_tail)"
            " VALUES (1, 2.0, 'gpu_oom', :line, 1, :line)",
            said,
        ),
        (event + "NULL, NULL, 'queued', 'daemon', 'submitted')", {}),
        (event + "1, 'running', 'failed', 'gpuq', :detail)", {"detail": f"gpu_oom; {LINE}; retries are used up"}),
        (event + "1, 'running', 'failed', 'gpuq', 'gpu_oom')", {}),
    ]
