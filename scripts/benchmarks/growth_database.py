"""A database with a year of finished jobs and a long line of waiting ones, made in seconds by SQL.

Everything is drawn from one seed: a few users and groups have most of the jobs, half of the names come again and again
and the others hardly twice, one job in eight does not end well, some run more than once. Rows are as this release
writes them, and the totals are counted anew at the end.
"""

from __future__ import annotations

import json
import math
import os
import pwd
import random
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from hashlib import blake2b
from pathlib import Path

from gpuq.domain.installation_keys import InstallationKey
from gpuq.domain.priority import Priority, Ranking
from gpuq.domain.spec import JobSpec
from gpuq.gpus.simulated import uuid_of
from gpuq.settings import Settings
from gpuq.stores.sql import migrate
from gpuq.stores.sql.submission import stored_spec

YEAR_S = 365 * 86400.0
GPUS = 3
NODE = os.uname().nodename
BOOT = "0b6f3a52-5f0e-4c39-9f0a-2b7a4b1f6c11"
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True)
class Size:
    """How many jobs have ended and how many wait."""

    finished: int
    waiting: int

    @property
    def jobs(self) -> int:
        return self.finished + self.waiting


def users(count: int = 30) -> list[tuple[str, int]]:
    """Names and uids: of accounts of this machine where the daemon is root's, which starts no job of another name."""
    if os.geteuid() == 0:
        return sorted({(account.pw_name, account.pw_uid) for account in pwd.getpwall()}, key=lambda a: a[1])[:count]
    return [(f"user{number:02}", os.getuid()) for number in range(count)]


def _weights(count: int) -> list[float]:
    return [1.0 / (place + 2) for place in range(count)]


def _rule() -> Ranking:
    """Of the settings as they are by default."""
    plain = Settings()
    return Ranking(plain.order, plain.priority_aging, plain.user_spacing)


def _drawn(size: Size, now: float, seed: int) -> Iterator[tuple[object, ...]]:
    """A row of `mix` for each job."""
    draw = random.Random(seed)
    people = users()
    of_people = _weights(len(people))
    teams = [f"team-{number}" for number in range(12)]
    common = [f"train-model-{number}" for number in range(60)]
    of_common = _weights(len(common))
    picks = draw.choices(range(len(people)), of_people, k=size.jobs)
    names = draw.choices(common, of_common, k=size.jobs)
    rule = _rule()

    def score(at: float, limit: float | None) -> float:
        return rule.score(Priority.NORMAL, at, limit)

    chance, choice = draw.random, draw.choice
    # Both kinds stand in the order of their ids; the waiting ones came last.
    step = YEAR_S / max(1, size.finished)
    for job_id in range(1, size.jobs + 1):
        who = picks[job_id - 1]
        user, uid = people[who]
        group = teams[who % 12] if chance() < 0.5 else choice(teams) if chance() < 0.2 else None
        name = names[job_id - 1] if chance() < 0.55 else f"run-{draw.randrange(size.jobs)}"
        limit = choice((None, 600.0, 3600.0, 14400.0))
        if job_id > size.finished:
            yield (
                job_id,
                name,
                user,
                uid,
                group,
                "queued",
                "",
                GPUS,
                limit,
                score(now - 60.0, limit),
                now - 60.0,
                None,
                None,
                0,
            )
            continue
        submitted = now - YEAR_S - 86400.0 + job_id * step + chance()
        luck = chance()
        state = "completed" if luck < 0.88 else "failed" if luck < 0.97 else "cancelled"
        outcome = "succeeded" if state == "completed" else "cancelled"
        if state == "failed":
            outcome = choice(("exit_nonzero", "exit_nonzero", "exit_nonzero", "signal", "gpu_oom", "time_limit"))
        began = round(submitted + draw.expovariate(1 / 1200.0), 3)
        ended = round(min(began + draw.lognormvariate(math.log(600), 1.2), now - 60.0), 3)
        tries = 0 if luck > 0.985 else 2 if (state == "failed" or chance() < 0.05) else 1
        gpus = choice((0, 1, 1, 1, 1, 1, 2, 3))
        yield (
            job_id,
            name,
            user,
            uid,
            group,
            state,
            outcome,
            gpus,
            limit,
            score(submitted, limit),
            submitted,
            began,
            ended,
            tries,
        )


_STAGES = """
CREATE TEMP TABLE mix (id INTEGER PRIMARY KEY, name, "user", uid, "group", state, outcome, gpus, time_limit_s,
  score, submitted_at, began, ended, tries);
CREATE TEMP TABLE variables ("user" PRIMARY KEY, id);
CREATE TEMP TABLE cards (gpus PRIMARY KEY, indices, uuids, told);
"""
_FILL = """
INSERT INTO jobs (id, name, "user", uid, "group", state, priority, score, command, cwd, gpus, time_limit_s,
  max_retries, retries_used, attempt, preemptible, submitted_at, started_at, finished_at, outcome, exit_code, signal)
SELECT id, name, "user", uid, "group", state, 2, score,
  '["python","train.py","--epochs","' || (id % 90) || '"]', '/home/' || "user" || '/experiments', gpus, time_limit_s, 3,
  max(0, tries - 1), tries, 0, submitted_at,
  CASE WHEN tries > 0 THEN began + (tries - 1) * (ended - began) / 2 END, ended, nullif(outcome, ''),
  CASE outcome WHEN 'succeeded' THEN 0 WHEN 'exit_nonzero' THEN 1 END, CASE outcome WHEN 'signal' THEN 9 END
FROM mix;
INSERT INTO specs (job_id, gid, spec{env_column})
SELECT id, 100, replace(replace(:spec, '90', id % 90), 'SOMEBODY', "user"){env_value} FROM mix;
WITH tried AS (SELECT mix.*, n.number, cards.* FROM mix JOIN (SELECT 1 AS number UNION ALL SELECT 2) n
  ON n.number <= mix.tries JOIN cards ON cards.gpus = mix.gpus)
INSERT INTO attempts (job_id, number, token, node, boot_id, gpu_indices, gpu_uuids, run_dir, log_path, claimed_at,
  started_at, finished_at, supervisor_pid, supervisor_start, pid, pid_start, outcome, exit_code, avg_gpu_util)
SELECT id, number, lower(hex(randomblob(16))), :node, :boot, indices, uuids, {run_dir}, {log_path},
  began + (number - 1) * (ended - began) / 2 - 0.01, began + (number - 1) * (ended - began) / 2,
  began + number * (ended - began) / tries, 100000 + id % 9999, id * 100, 200000 + id % 9999, id * 100 + 3,
  CASE WHEN number < tries THEN 'exit_nonzero' ELSE outcome END,
  CASE WHEN number < tries THEN 1 WHEN outcome = 'succeeded' THEN 0 END, (id % 100) / 100.0
FROM tried ORDER BY id, number;
INSERT INTO events (at, job_id, attempt, from_state, to_state, actor, detail)
SELECT at, id, number, a, b, who, told FROM (
  SELECT id, 0 AS step, submitted_at AS at, NULL AS number, NULL AS a, 'queued' AS b, "user" AS who,
  'submitted' AS told FROM mix
  UNION ALL SELECT id, 1, began, 1, 'queued', 'starting', 'gpuq', cards.told
  FROM mix JOIN cards USING (gpus) WHERE tries
  UNION ALL SELECT id, 2, began, 1, 'starting', 'running', 'gpuq', NULL FROM mix WHERE tries
  UNION ALL SELECT id, 3, ended, nullif(tries, 0), CASE WHEN tries THEN 'running' ELSE 'queued' END, state, 'gpuq',
  outcome FROM mix WHERE ended
) ORDER BY id, step;
INSERT INTO dead_letter_queue (job_id, failed_at, outcome, attempts, log_tail)
SELECT id, ended, outcome, tries, 'Traceback (most recent call last):' || char(10) || 'ValueError: no loss'
FROM mix WHERE state = 'failed' AND ended > :letters_since;
"""


def make(home: Path, size: Size, *, now: float | None = None, seed: int = 7, revision: str | None = None) -> Path:
    """The database file, in a home that has none. `revision`: the schema of an older release, else this one's."""
    path = home / "gpuq.db"
    url = f"sqlite:///{path}"
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    if revision is None:
        migrate.ensure(url)
    else:
        _older_schema(path, revision)
    now = time.time() if now is None else now
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for pragma in ("journal_mode = OFF", "synchronous = OFF", "cache_size = -200000", "temp_store = MEMORY"):
            connection.execute(f"PRAGMA {pragma}")
        connection.execute("BEGIN")
        put_back = _without_indexes(connection)
        _fill(connection, home, size, now, seed)
        for statement in put_back:
            connection.execute(statement)
        _count(connection)
        connection.execute("COMMIT")
        connection.execute("PRAGMA journal_mode = WAL")
    return path


def _fill(connection: sqlite3.Connection, home: Path, size: Size, now: float, seed: int) -> None:
    connection.executescript("SAVEPOINT stage;" + _STAGES)
    places = ",".join("?" * 14)
    connection.executemany(f"INSERT INTO mix VALUES ({places})", _drawn(size, now, seed))
    for gpus in range(GPUS + 1):
        indices = list(range(gpus))
        uuids = [uuid_of(index) for index in indices]
        told = "on gpus " + ",".join(map(str, indices)) if gpus else "without a gpu"
        row = (gpus, *(json.dumps(each, separators=(",", ":")) for each in (indices, uuids)), told)
        connection.execute("INSERT INTO cards VALUES (?, ?, ?, ?)", row)
    ranking = (InstallationKey.RANKING, json.dumps(asdict(_rule())))
    connection.execute("INSERT INTO installation (key, value, at) VALUES (?, ?, 0)", ranking)
    derived = _leaves_out_what_follows(connection)
    spec, shared = _specification(connection, home, derived)
    folder = f"'{home}/jobs/' || id || '/' || number"
    values = {
        "spec": spec,
        "node": NODE,
        "boot": None if derived else BOOT,
        "letters_since": now - 30 * 86400.0,
    }
    folders = ("NULL", "NULL") if derived else (folder, f"{folder} || '/output.log'")
    fill = _FILL.format(run_dir=folders[0], log_path=folders[1], env_column=shared[0], env_value=shared[1])
    for statement in fill.split(";\n"):
        if statement.strip():
            used = {name: value for name, value in values.items() if f":{name}" in statement}
            connection.execute(statement, used)
    connection.execute("DROP TABLE temp.mix")
    connection.execute("DROP TABLE temp.cards")
    connection.execute("DROP TABLE temp.variables")


def _specification(connection: sqlite3.Connection, home: Path, shared: bool) -> tuple[str, tuple[str, str]]:
    """The stored text of a submission with 90 and SOMEBODY to be replaced, and the column of its variables."""
    env = {"PATH": _PATH, "HOME": "/home/SOMEBODY", "LANG": "C.UTF-8"}
    spec = JobSpec(command=["python", "train.py", "--epochs", "90"], cwd="/home/SOMEBODY/experiments", env=env)
    if not shared:
        return spec.model_dump_json().replace("{", '{"schema":1,', 1), ("", "")
    for user, _ in users():
        own = json.dumps(env, separators=(",", ":")).replace("SOMEBODY", user)
        digest = blake2b(own.encode(), digest_size=16).hexdigest()
        connection.execute("INSERT INTO environments (hash, env) VALUES (?, ?)", (digest, own))
        connection.execute("INSERT INTO variables SELECT ?, max(id) FROM environments", (user,))
    connection.execute(
        "INSERT INTO installation VALUES (?, ?, 0)", (InstallationKey.RUNS.of(NODE), json.dumps(f"{home}/jobs"))
    )
    return stored_spec(spec), (", env_id", ', (SELECT v.id FROM variables v WHERE v."user" = mix."user")')


def _leaves_out_what_follows(connection: sqlite3.Connection) -> bool:
    """Whether this schema's attempts name no folders, and its submissions share variables."""
    facts = {row[1]: row[3] for row in connection.execute("PRAGMA table_info(attempts)")}
    return not facts["run_dir"]


def _without_indexes(connection: sqlite3.Connection) -> list[str]:
    """Takes indexes and triggers away, for the time of the loading; returns the statements that make them again."""
    found = connection.execute(
        "SELECT type, name, sql FROM sqlite_master WHERE type IN ('index', 'trigger') AND sql IS NOT NULL ORDER BY type"
    ).fetchall()
    for kind, name, _ in found:
        connection.execute(f"DROP {kind} {name}")
    return [sql for _, _, sql in found]


def _count(connection: sqlite3.Connection) -> None:
    """The totals, where this schema keeps them."""
    if connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'totals'").fetchone():
        from gpuq.stores.sql.schema.totals import count_statements

        for statement in count_statements():
            connection.execute(statement)


def _older_schema(path: Path, revision: str) -> None:
    from alembic import command
    from alembic.config import Config
    from sqlalchemy import NullPool, create_engine

    path.touch(mode=0o600)
    made = Config()
    made.set_main_option("script_location", str(migrate.scripts()))
    with create_engine(f"sqlite:///{path}", poolclass=NullPool).begin() as connection:
        made.attributes["connection"] = connection
        command.upgrade(made, revision)
