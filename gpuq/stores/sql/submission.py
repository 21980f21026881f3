"""Storing new jobs: one or ten thousand, in the caller's transaction.

The ids of a batch are reserved as one range, so that every row is known before it is sent and the driver
runs one compiled statement over plain tuples; the events are then written by the database from the rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from hashlib import blake2b
from typing import Any

from pydantic_core import to_json
from sqlalchemy import ClauseElement, insert, select, text

from gpuq.domain.spec import SCHEMA, JobSpec
from gpuq.errors import NotFound, Refused
from gpuq.ports.records import NewJob
from gpuq.stores.sql.core.errors import violated
from gpuq.stores.sql.core.rows import clean, json_text
from gpuq.stores.sql.core.statements import Statements, word
from gpuq.stores.sql.schema.kept import environments
from gpuq.stores.sql.schema.tables import dependencies, jobs, requests, specs
from gpuq.stores.sql.secrets import add_secrets

# In the order of `_job_rows`; every other column starts with its default.
_JOB_COLUMNS = (
    "id", "name", "user", "uid", "group", "state", "priority", "score", "command", "cwd", "gpus", "gpu_mem_mb",
    "gpu_model", "gpu_ids", "time_limit_s", "max_retries", "key", "preemptible", "array_id", "array_index",
    "array_limit", "submitted_at", "eligible_at", "held_by", "parameters",
)  # fmt: skip
_SPEC_COLUMNS = ("job_id", "gid", "spec", "env_id")
_DEPENDENCY_COLUMNS = ("job_id", "on_id", "kind", "keep_waiting")


_APART = {"env", "secrets"}
_BEGIN = f'{{"schema":{SCHEMA},'
_write_spec = JobSpec.__pydantic_serializer__.to_json


def stored_spec(spec: JobSpec) -> str:
    """What is not said in it is as it is by default; variables stand in `environments`, secrets in `secrets`."""
    said = _write_spec(spec, exclude=_APART, exclude_defaults=True)
    if spec.secrets:
        # Their names alone.
        said = b'{"secrets":' + to_json(dict.fromkeys(sorted(spec.secrets))) + b"," + said[1:]
    return _BEGIN + said.decode()[1:]


def _json(value: object) -> str:
    """pydantic's encoder: a third of the time of the standard library's, on a path walked for every job."""
    return str(to_json(value), "utf-8")


def _last_id(dialect: str) -> ClauseElement:
    return text("SELECT seq FROM sqlite_sequence WHERE name = 'jobs'")


def _reserved_ids(dialect: str) -> ClauseElement:
    return text("SELECT nextval(pg_get_serial_sequence('jobs', 'id')) FROM generate_series(1, CAST(:count AS integer))")


def _submitted_events(dialect: str) -> ClauseElement:
    return text(
        "INSERT INTO events (at, job_id, to_state, actor, detail)"
        " SELECT submitted_at, id, state, CAST(:actor AS text), 'submitted' FROM jobs"
        " WHERE id BETWEEN :first AND :last ORDER BY id"
    )


def _request(dialect: str) -> ClauseElement:
    return insert(requests)


def reserve_ids(driver: Any, statements: Statements, count: int) -> list[int]:
    """That many new ids, ascending. On SQLite they are taken by storing the jobs in the same transaction."""
    if statements.name == "sqlite":
        # Nobody else can take one before we commit, and inserting a larger id moves the counter on.
        row = statements.of(_last_id)(driver).fetchone()
        first = (int(row[0]) if row else 0) + 1
        return list(range(first, first + count))
    rows = statements.of(_reserved_ids)(driver, {"count": count}).fetchall()
    return sorted(int(row[0]) for row in rows)


def _insert_jobs() -> ClauseElement:
    # By default SQLite can undo a single statement. As each of these runs a trigger, it would have to keep a copy of
    # every page that the row changes, a third of the row's time. Nobody needs that: a row that is refused has changed
    # nothing before, and whoever hears of it undoes all that the request has written.
    return insert(jobs).prefix_with("OR FAIL", dialect="sqlite")


def _job_rows(new: Sequence[NewJob], ids: Sequence[int]) -> Iterator[tuple[Any, ...]]:
    array_id: int | None = None
    # Jobs of one submission have few users and folders.
    cleaned = {text: clean(text) for text in {job.user for job in new} | {job.cwd for job in new}}
    for job_id, job in zip(ids, new, strict=True):
        spec = job.spec
        if job.array_first:
            array_id = job_id
        yield (
            job_id, clean(job.name), cleaned[job.user], job.uid, spec.group, job.state.value, int(spec.priority),
            job.score, _json(job.command), cleaned[job.cwd], spec.gpus, spec.gpu_mem_mb, spec.gpu_model,
            None if spec.gpu_ids is None else _json(spec.gpu_ids), spec.time_limit_s, job.max_retries, spec.key,
            spec.preemptible, None if job.array_index is None else array_id, job.array_index, job.array_limit,
            job.submitted_at, job.eligible_at, job.held_by,
            None if job.parameters is None else _json(dict(job.parameters)),
        )  # fmt: skip


def _environment(dialect: str) -> ClauseElement:
    return select(environments.c.id).where(environments.c.hash == word("hash"))


def _new_environment(dialect: str) -> ClauseElement:
    return text("INSERT INTO environments (hash, env) VALUES (:hash, :env)")


def _environment_id(driver: Any, statements: Statements, env: Mapping[str, str]) -> int:
    """Asked of the database every time: an id that was kept from a transaction that failed would be another's."""
    stored = _json(env)
    values = {"hash": blake2b(stored.encode(), digest_size=16).hexdigest()}
    row = statements.of(_environment)(driver, values).fetchone()
    if row is None:
        statements.of(_new_environment)(driver, {**values, "env": stored})
        row = statements.of(_environment)(driver, values).fetchone()
    return int(row[0])


def _spec_rows(
    driver: Any, statements: Statements, new: Sequence[NewJob], ids: Sequence[int]
) -> Iterator[tuple[Any, ...]]:
    written: JobSpec | None = None
    stored = ""
    env: Mapping[str, str] = {}
    env_id: int | None = None
    for job_id, job in zip(ids, new, strict=True):
        if job.spec is not written:  # the elements of an array share one specification
            written, stored = job.spec, stored_spec(job.spec)
            if job.spec.env != env:  # and the jobs of a submission mostly their variables
                env = job.spec.env
                env_id = _environment_id(driver, statements, env) if env else None
        yield job_id, job.gid, stored, env_id


def dependency_rows(
    job_id: int, after: Sequence[int], after_any: Sequence[int], keep_waiting: bool
) -> list[tuple[Any, ...]]:
    """Rows of `dependencies` for one job: (job, the job it waits for, whether that must succeed or may end anyhow,
    whether it goes on waiting when that fails)."""
    wanted = {(on_id, "success") for on_id in after} | {(on_id, "any") for on_id in after_any}
    return [(job_id, on_id, kind, keep_waiting) for on_id, kind in sorted(wanted)]


def add_dependencies(driver: Any, statements: Statements, rows: list[tuple[Any, ...]]) -> None:
    """Raises NotFound when a job that is waited for does not exist."""
    if not rows:
        return
    prepared = statements.made(dependency_rows, lambda: insert(dependencies), _DEPENDENCY_COLUMNS)
    try:
        prepared.insert_rows(driver, _DEPENDENCY_COLUMNS, rows, len(rows))
    except statements.integrity_error as error:
        named = ", ".join(str(on_id) for on_id in sorted({row[1] for row in rows}))
        raise NotFound(f"no such job among those to wait for: {named}", hint="`gpuq status -a` lists them") from error


def add_jobs(
    driver: Any,
    statements: Statements,
    new: Sequence[NewJob],
    ids: Sequence[int],
    actor: str,
    request_key: str | None,
    fingerprint: str | None,
) -> int | None:
    """The id of the last event, if the driver tells. Raises Refused for a key or request key that is taken, NotFound
    for an unknown dependency."""
    try:
        prepared = statements.made(_job_rows, _insert_jobs, _JOB_COLUMNS)
        prepared.insert_rows(driver, _JOB_COLUMNS, _job_rows(new, ids), len(new))
    except statements.integrity_error as error:
        if violated(error, "uq_jobs_key", "jobs.user", "jobs.key"):
            raise key_taken() from error
        raise
    prepared = statements.made(_spec_rows, lambda: insert(specs), _SPEC_COLUMNS)
    # A list: on the way rows for shared environments are written.
    prepared.insert_rows(driver, _SPEC_COLUMNS, list(_spec_rows(driver, statements, new, ids)), len(new))
    add_secrets(driver, statements, new, ids)
    waits: list[tuple[Any, ...]] = []
    for job_id, job in zip(ids, new, strict=True):
        if job.spec.after or job.spec.after_any:
            waits += dependency_rows(job_id, job.spec.after, job.spec.after_any, job.spec.keep_waiting)
    add_dependencies(driver, statements, waits)
    events = statements.of(_submitted_events)(driver, {"actor": clean(actor), "first": ids[0], "last": ids[-1]})
    last_event: int | None = getattr(events, "lastrowid", None)
    if request_key is not None:
        _remember(driver, statements, new[0], request_key, fingerprint, ids)
    return last_event


def key_taken() -> Refused:
    """The error for a `--key` under which the user already has a live or completed job."""
    return Refused(
        "a live or completed job of this user already has that key", hint="use another --key, or cancel that job"
    )


def _remember(
    driver: Any, statements: Statements, job: NewJob, key: str, fingerprint: str | None, ids: Sequence[int]
) -> None:
    values = {
        "user": clean(job.user),
        "key": clean(key),
        "job_ids": json_text(list(ids)),
        "at": job.submitted_at,
        "fingerprint": fingerprint,
    }
    try:
        statements.of(_request)(driver, values)
    except statements.integrity_error as error:
        raise Refused("this request was already answered", hint="ask for the jobs of the first answer") from error
