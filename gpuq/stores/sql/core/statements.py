"""The reading statements, and the cache of compiled ones.

Conditions that a partial index rests on are written out in the text, because neither database uses such an
index for a condition that is a parameter.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence

from sqlalchemy import (
    BigInteger,
    BindParameter,
    ClauseElement,
    ColumnElement,
    Double,
    Integer,
    Select,
    Text,
    and_,
    bindparam,
    func,
    literal_column,
    or_,
    select,
    text,
)
from sqlalchemy.engine import Dialect

from gpuq.domain.states import ACTIVE, FINAL, JobState
from gpuq.stores.sql.core.rows import (
    ATTEMPT_COLUMNS,
    JOB_FROM_ATTEMPT,
    JOB_HEAD,
    JOB_TAIL,
    WAITING_COLUMNS,
    Prepared,
)
from gpuq.stores.sql.schema.folders import log_path, run_dir
from gpuq.stores.sql.schema.kept import environments, totals
from gpuq.stores.sql.schema.tables import (
    LIVE_OR_COMPLETED,
    attempt_processes,
    attempts,
    dead_letter_queue,
    events,
    installation,
    jobs,
    requests,
    specs,
)

Build = Callable[[str], ClauseElement]


class Statements:
    """Compiled statements of one dialect, made when first needed."""

    def __init__(self, dialect: Dialect) -> None:
        self.dialect = dialect
        self.name: str = dialect.name
        self.integrity_error: type[Exception] = dialect.loaded_dbapi.IntegrityError
        self._made: dict[Hashable, Prepared] = {}

    def of(self, build: Build) -> Prepared:
        """`build` is a module-level function of the dialect's name."""
        return self.made(build, lambda: build(self.name))

    def made(self, key: Hashable, build: Callable[[], ClauseElement], columns: Sequence[str] | None = None) -> Prepared:
        """The prepared statement under `key`; built and compiled only the first time, because compiling costs more
        than running."""
        prepared = self._made.get(key)
        if prepared is None:
            prepared = self._made[key] = Prepared(build(), self.dialect, columns)
        return prepared


def number(name: str) -> BindParameter[int]:
    return bindparam(name, type_=BigInteger)


def word(name: str) -> BindParameter[str]:
    return bindparam(name, type_=Text)


def moment(name: str) -> BindParameter[float]:
    return bindparam(name, type_=Double)


def in_states(states: Iterable[JobState]) -> ColumnElement[bool]:
    return jobs.c.state.in_([literal_column(f"'{state}'") for state in sorted(states)])


def among(dialect: str, column: str, name: str = "ids") -> ColumnElement[bool]:
    """`column` is one of the parameter `ids` (or `name`): one text for any number of them."""
    if dialect == "sqlite":
        return text(f"{column} IN (SELECT value FROM json_each(:{name}))")  # type: ignore[return-value]
    return text(f"{column} = ANY(CAST(:{name} AS bigint[]))")  # type: ignore[return-value]


def limit_of(dialect: str, limit: int | None) -> int | None:
    """Unlimited is -1 on SQLite, NULL on PostgreSQL."""
    return -1 if limit is None and dialect == "sqlite" else limit


def attempt_columns(dialect: str, names: Iterable[str]) -> list[ColumnElement[object]]:
    """Of `attempts`, with the paths that the rows leave out."""
    paths = {"run_dir": run_dir(dialect, "attempts"), "log_path": log_path(dialect, "attempts")}
    return [literal_column(paths[name]).label(name) if name in paths else attempts.c[name] for name in names]


def job_select(dialect: str) -> Select[tuple[object, ...]]:
    """Jobs with their dependencies and the facts of their current attempt, in the columns that `job_from` reads."""
    pair = "d.kind || ':' || d.on_id"
    joined = f"group_concat({pair})" if dialect == "sqlite" else f"string_agg({pair}, ',')"
    on: ColumnElement[str] = literal_column(f"(SELECT {joined} FROM dependencies d WHERE d.job_id = jobs.id)")
    return select(
        *(jobs.c[name] for name in JOB_HEAD),
        on.label("depends_on"),
        *(jobs.c[name] for name in JOB_TAIL),
        *attempt_columns(dialect, JOB_FROM_ATTEMPT),
    ).select_from(jobs.outerjoin(attempts, and_(attempts.c.job_id == jobs.c.id, attempts.c.number == jobs.c.attempt)))


def job_by_id(dialect: str) -> ClauseElement:
    return job_select(dialect).where(jobs.c.id == number("id"))


def in_line(dialect: str) -> str:
    """FROM and WHERE over the jobs in line. SQLite has to be told the index: without statistics it believes
    that an equality on `state` leaves ten rows, and then sorts a hundred thousand."""
    hint = " INDEXED BY ix_jobs_line" if dialect == "sqlite" else ""
    return f"FROM jobs{hint} WHERE state = 'queued'"


def line(dialect: str) -> ClauseElement:
    """A page of the queued jobs in line order, of one user or (NULL) of all, after a place. Only its rows are read: for
    the others the index is enough."""
    page = text(
        f'SELECT id {in_line(dialect)} AND (:user IS NULL OR "user" = :user) AND score >= :score'
        " AND (score > :score OR id > :id) ORDER BY score, id LIMIT :limit OFFSET :offset"
    ).bindparams(
        word("user"),
        moment("score"),
        number("id"),
        bindparam("limit", type_=Integer),
        bindparam("offset", type_=Integer),
    )
    return job_select(dialect).where(jobs.c.id.in_(page)).order_by(jobs.c.score, jobs.c.id)


def line_past(dialect: str) -> ClauseElement:
    """Ids in line order of the queued jobs that belong to none of the given users, groups, arrays and accounts."""

    def none_of(column: str, name: str, kind: str) -> str:
        if dialect == "sqlite":
            return f"({column} IS NULL OR {column} NOT IN (SELECT value FROM json_each(:{name})))"
        return f"({column} IS NULL OR {column} <> ALL(CAST(:{name} AS {kind}[])))"

    wanted = (
        "(:gpus IS NULL OR gpus = :gpus)",
        none_of('"user"', "users", "text"),
        none_of('"group"', "groups", "text"),
        none_of("array_id", "arrays", "bigint"),
        # As `SqlReader.line_past` writes an account.
        none_of("coalesce(CAST(uid AS text), '') || ' ' || \"user\"", "accounts", "text"),
    )
    return text(f"SELECT id {in_line(dialect)} AND {' AND '.join(wanted)} ORDER BY score, id LIMIT :limit").bindparams(
        number("gpus"), bindparam("limit", type_=Integer)
    )


def position(dialect: str) -> ClauseElement:
    """How many queued jobs stand before this score and id."""
    # Twice as fast as comparing the pairs.
    lower = f"SELECT count(*) {in_line(dialect)} AND score < :score"
    equal = f"SELECT count(*) {in_line(dialect)} AND score = :score AND id < :id"
    return text(f"SELECT ({lower}) + ({equal})").bindparams(moment("score"), number("id"))


def between(dialect: str) -> ClauseElement:
    """How many queued jobs stand from one place in line up to, and without, another of a higher score."""
    parts = (
        "score = :score AND id >= :id",
        "score > :score AND score < :to_score",
        "score = :to_score AND id < :to_id",
    )
    counts = " + ".join(f"(SELECT count(*) {in_line(dialect)} AND {part})" for part in parts)
    return text(f"SELECT {counts}").bindparams(moment("score"), number("id"), moment("to_score"), number("to_id"))


def between_alike(dialect: str) -> ClauseElement:
    """The same of two places of the same score."""
    return text(f"SELECT count(*) {in_line(dialect)} AND score = :score AND id >= :id AND id < :to_id").bindparams(
        moment("score"), number("id"), number("to_id")
    )


def queued_batch(dialect: str) -> ClauseElement:
    """The next queued jobs after an id: what the hot queue is rebuilt from."""
    return (
        select(jobs.c.id, jobs.c.gpus, jobs.c.score)
        .where(text("jobs.state = 'queued'"), jobs.c.id > number("after_id"))
        .order_by(jobs.c.id)
        .limit(bindparam("limit", type_=Integer))
    )


def all_totals(dialect: str) -> ClauseElement:
    """Name, number and seconds of what is counted where it changes."""
    return select(totals.c.name, func.sum(totals.c.number), func.sum(totals.c.seconds)).group_by(totals.c.name)


def totals_of_jobs(dialect: str) -> ClauseElement:
    """The same of the states alone."""
    return (
        select(func.substr(totals.c.name, 6), func.sum(totals.c.number))
        .where(totals.c.name >= literal_column("'jobs:'"), totals.c.name < literal_column("'jobs;'"))
        .group_by(totals.c.name)
    )


def by_group(dialect: str) -> ClauseElement:
    """Unfinished jobs that have a group, counted by group and state."""
    unfinished = in_states(set(JobState) - FINAL)
    return (
        select(jobs.c.group, jobs.c.state, func.count())
        .where(unfinished, jobs.c.group.is_not(None))
        .group_by(jobs.c.group, jobs.c.state)
    )


def waiting(dialect: str) -> ClauseElement:
    """Those of the given jobs that are queued."""
    columns = (jobs.c[name] for name in WAITING_COLUMNS)
    # The unary plus keeps SQLite on the primary key: without statistics it takes the index of the line.
    queued = text("+jobs.state = 'queued'" if dialect == "sqlite" else "jobs.state = 'queued'")
    return select(*columns).where(among(dialect, "jobs.id"), queued)


def processes_of(dialect: str) -> ClauseElement:
    """What was seen of an attempt's processes."""
    return select(attempt_processes.c.processes).where(
        attempt_processes.c.job_id == number("job_id"), attempt_processes.c.number == number("number")
    )


def live_attempts(dialect: str) -> ClauseElement:
    """Active jobs with their open attempt, of one node or (NULL) of all."""
    return (
        job_select(dialect)
        .add_columns(*attempt_columns(dialect, ATTEMPT_COLUMNS))
        .where(in_states(ACTIVE), attempts.c.outcome.is_(None))
        .where(or_(word("node").is_(None), attempts.c.node == word("node")))
        .order_by(jobs.c.id)
    )


def attempts_of(dialect: str) -> ClauseElement:
    """The attempts of a job by number."""
    columns = attempt_columns(dialect, ATTEMPT_COLUMNS)
    return select(*columns).where(attempts.c.job_id == number("job_id")).order_by(attempts.c.number)


def preemptions(dialect: str) -> ClauseElement:
    """How often each of the given jobs was preempted since a moment."""
    return (
        select(attempts.c.job_id, func.count())
        .where(
            among(dialect, "attempts.job_id"),
            attempts.c.outcome == literal_column("'preempted'"),
            attempts.c.finished_at > moment("since"),
        )
        .group_by(attempts.c.job_id)
    )


_WITH_VARIABLES = specs.outerjoin(environments, environments.c.id == specs.c.env_id)


def specs_of(dialect: str) -> ClauseElement:
    """The stored submissions of the given jobs, and their variables."""
    columns = (specs.c.job_id, specs.c.spec, environments.c.env)
    return select(*columns).select_from(_WITH_VARIABLES).where(among(dialect, "specs.job_id"))


def spec_of(dialect: str) -> ClauseElement:
    """The stored submission of a job and its variables, with the submitter's uid and gid."""
    columns = (specs.c.spec, environments.c.env, jobs.c.uid, specs.c.gid)
    source = _WITH_VARIABLES.join(jobs, jobs.c.id == specs.c.job_id)
    return select(*columns).select_from(source).where(specs.c.job_id == number("job_id"))


def events_after(dialect: str) -> ClauseElement:
    """The events after an id, oldest first."""
    return (
        select(*events.c)
        .where(events.c.id > number("after_id"))
        .order_by(events.c.id)
        .limit(bindparam("limit", type_=Integer))
    )


def events_of_job(dialect: str) -> ClauseElement:
    return events_after(dialect).where(events.c.job_id == number("job_id"))  # type: ignore[attr-defined, no-any-return]


def last_event(dialect: str) -> ClauseElement:
    return select(func.coalesce(func.max(events.c.id), 0))


def delayed_until(dialect: str) -> ClauseElement:
    return select(func.min(jobs.c.eligible_at)).where(jobs.c.eligible_at.is_not(None))


def oldest_queued(dialect: str) -> ClauseElement:
    """Ids of queued jobs that were submitted before a moment, by priority, then the oldest first."""
    return (
        select(jobs.c.id)
        .where(
            text("jobs.state = 'queued' AND jobs.gpus > 0"),
            jobs.c.gpus >= bindparam("gpus", type_=Integer),
            jobs.c.submitted_at < moment("before"),
        )
        .order_by(jobs.c.priority, jobs.c.submitted_at, jobs.c.id)
        .limit(bindparam("limit", type_=Integer))
    )


def due(dialect: str) -> ClauseElement:
    """Ids of the jobs whose time has come, earliest first."""
    return (
        select(jobs.c.id)
        .where(jobs.c.eligible_at.is_not(None), jobs.c.eligible_at <= moment("now"))
        .order_by(jobs.c.eligible_at, jobs.c.id)
        .limit(bindparam("limit", type_=Integer))
    )


def front_in_line(dialect: str) -> ClauseElement:
    """The first queued job of a priority, of one user or (NULL) of all."""
    wanted = 'priority = :priority AND (:user IS NULL OR "user" = :user)'
    return text(f"SELECT score, id {in_line(dialect)} AND {wanted} ORDER BY score, id LIMIT 1").bindparams(
        number("priority"), word("user")
    )


def front_aside(dialect: str) -> ClauseElement:
    """The first blocked, held or delayed job of a priority, of one user or (NULL) of all."""
    aside = in_states({JobState.BLOCKED, JobState.HELD, JobState.DELAYED})
    of_user = or_(word("user").is_(None), jobs.c.user == word("user"))
    of_priority = jobs.c.priority == number("priority")
    return select(jobs.c.score, jobs.c.id).where(aside, of_priority, of_user).order_by(jobs.c.score, jobs.c.id).limit(1)


_BEFORE = '(score < :score OR (score = :score AND id < :id)) AND "user" <> :user ORDER BY score DESC, id DESC LIMIT 1'


def before_in_line(dialect: str) -> ClauseElement:
    """The last queued job before a place in line that is not of this user."""
    # The first condition alone lets the index of the line be read from that place backwards.
    return text(f"SELECT score, id {in_line(dialect)} AND score <= :score AND {_BEFORE}").bindparams(
        moment("score"), number("id"), word("user")
    )


def before_aside(dialect: str) -> ClauseElement:
    """The last blocked, held or delayed job before a place in line that is not of this user."""
    aside = "state IN ('blocked', 'delayed', 'held')"
    return text(f"SELECT score, id FROM jobs WHERE {aside} AND {_BEFORE}").bindparams(
        moment("score"), number("id"), word("user")
    )


# A dependency `d` on the job `o` that has not ended as asked.
OPEN_DEPENDENCY = (
    "NOT (d.kind = 'success' AND o.state = 'completed')"
    " AND NOT (d.kind = 'any' AND o.state IN ('cancelled', 'completed', 'failed'))"
)


def open_dependencies(dialect: str) -> ClauseElement:
    """The dependencies of a job that are not satisfied yet."""
    return text(
        "SELECT d.on_id, d.kind, o.state FROM dependencies d JOIN jobs o ON o.id = d.on_id"
        f" WHERE d.job_id = :job_id AND {OPEN_DEPENDENCY} ORDER BY d.on_id, d.kind"
    ).bindparams(number("job_id"))


def without_begin(dialect: str) -> str:
    """The stored submission of `s`, NULL where it names no begin time; `no_begin` is how that is written."""
    # It may be large, and only its `begin` is wanted: those without one are left where they are. Quotes inside a value
    # are escaped, so no value looks like this.
    find = "instr" if dialect == "sqlite" else "strpos"
    # Releases before wrote the null.
    nothing = f"{find}(s.spec, '\"begin\":') = 0 OR {find}(s.spec, :no_begin) > 0"
    return f"CASE WHEN {nothing} THEN NULL ELSE s.spec END"


def ready_dependents(dialect: str) -> ClauseElement:
    """The blocked jobs that name a job and wait for none any more; `spec` is NULL where it names no begin time."""
    return text(
        f"SELECT j.id, j.gpus, j.score, j.attempt, j.token, {without_begin(dialect)}"
        " FROM jobs j JOIN specs s ON s.job_id = j.id"
        " WHERE j.id IN (SELECT job_id FROM dependencies WHERE on_id = :on_id)"
        # The unary plus keeps SQLite on the primary key, as in `waiting`.
        f" AND {'+' if dialect == 'sqlite' else ''}j.state = 'blocked'"
        " AND NOT EXISTS (SELECT 1 FROM dependencies d JOIN jobs o ON o.id = d.on_id"
        f" WHERE d.job_id = j.id AND {OPEN_DEPENDENCY}) ORDER BY j.id"
    ).bindparams(number("on_id"), bindparam("no_begin", '"begin":null', type_=Text))


def job_with_key(dialect: str) -> ClauseElement:
    """The live or completed job of a user under a key."""
    indexed = text(f"jobs.key IS NOT NULL AND jobs.{LIVE_OR_COMPLETED}")
    return select(jobs.c.id).where(jobs.c.user == word("user"), jobs.c.key == word("key"), indexed)


def request(dialect: str) -> ClauseElement:
    """What an earlier request under this request key was answered."""
    columns = (requests.c.job_ids, requests.c.fingerprint)
    return select(*columns).where(requests.c.user == word("user"), requests.c.key == word("key"))


def dead_letters(dialect: str) -> ClauseElement:
    """Dead letters, newest first."""
    return (
        select(*dead_letter_queue.c)
        .order_by(dead_letter_queue.c.failed_at.desc(), dead_letter_queue.c.job_id.desc())
        .limit(bindparam("limit", type_=Integer))
    )


def dead_letter(dialect: str) -> ClauseElement:
    return select(*dead_letter_queue.c).where(dead_letter_queue.c.job_id == number("job_id"))


def count_dead_letters(dialect: str) -> ClauseElement:
    return select(func.coalesce(func.sum(totals.c.number), 0)).where(totals.c.name == literal_column("'dead_letters'"))


def value_of(dialect: str) -> ClauseElement:
    return select(installation.c.value).where(installation.c.key == word("key"))


def values_of(dialect: str) -> ClauseElement:
    """The installation's values whose key begins with a prefix."""
    begins = func.substr(installation.c.key, 1, bindparam("length", type_=Integer)) == word("prefix")
    return select(installation.c.key, installation.c.value).where(begins).order_by(installation.c.key)
