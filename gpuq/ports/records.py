"""Durable job records, as the engine's verbs need them.

A `Writer` is one transaction: everything in the `with` block is committed together or not at all, on SQLite
under BEGIN IMMEDIATE. `move` is the only way to change a job's state: it names the states it expects, and an
attempt's number and token where one is concerned, and writes the event row itself.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from gpuq.domain.events import Event
from gpuq.domain.job import Attempt, Job, Launched
from gpuq.domain.outcome import Result
from gpuq.domain.priority import Priority
from gpuq.domain.spec import JobSpec
from gpuq.domain.states import JobState
from gpuq.domain.sweep import Parameters, fill
from gpuq.domain.totals import Totals
from gpuq.ports.secrets import Sealed

# (score, id) before every place in line.
FIRST_PLACE = (-1e300, 0)


class NewJob(NamedTuple):
    """A job about to be stored, every default already filled in (name, cwd, max_retries, score, state).

    `spec` is the submission as validated; it is stored whole, with `schema`. `array_first` marks the first
    element of an array: its id becomes the `array_id` of all elements that follow it in the same call.
    """

    spec: JobSpec
    user: str
    uid: int | None
    gid: int | None
    name: str
    cwd: str
    state: JobState
    score: float
    max_retries: int
    submitted_at: float
    eligible_at: float | None = None
    held_by: str | None = None
    array_first: bool = False
    array_index: int | None = None
    array_limit: int | None = None
    parameters: Parameters | None = None
    # The secrets of its spec, one value for all jobs that share them: they are stored once.
    sealed: Sealed | None = None

    @property
    def command(self) -> list[str]:
        """As it runs: with the values of a sweep."""
        if self.parameters is None:
            return self.spec.command
        return [fill(word, self.parameters) for word in self.spec.command]


@dataclass(frozen=True, slots=True)
class Move:
    """One guarded change of state.

    `expect`: the states it may come from (a subset of the table's; checked by the store against TRANSITIONS).
    `attempt` and `token`: when given, the row must carry exactly these. `set`: further columns of `jobs` to
    write with it; columns that have no meaning in `to` are cleared by the store (FIELDS_OF_STATES).
    `seen`: state, attempt and token as read or written before in this very transaction, so that the store need not
    read them again; its guard rests on them.
    """

    job_id: int
    to: JobState
    expect: frozenset[JobState]
    actor: str
    at: float
    detail: str | None = None
    attempt: int | None = None
    token: str | None = None
    set: Mapping[str, Any] = field(default_factory=dict)
    seen: tuple[JobState, int, str | None] | None = None


@dataclass(frozen=True, slots=True)
class Change:
    """Columns of a job that change without its state (those that `update_job` takes), its stored submission with them
    where `spec` is the new text, and the remark that tells of it. `state`: as read before in this very transaction;
    the guard rests on it."""

    job_id: int
    state: JobState
    actor: str
    at: float
    detail: str
    attempt: int | None = None
    set: Mapping[str, Any] = field(default_factory=dict)
    spec: str | None = None


class Dependency(NamedTuple):
    """What a job waits, or waited, for. `kind`: 'success' or 'any'; `state`: of the job that is waited for."""

    on_id: int
    kind: str
    state: JobState


@dataclass(frozen=True, slots=True)
class JobFilter:
    """All given conditions together. `limit` None is unlimited. `newest_first` orders by id, descending;
    otherwise by id. `after_id`: only ids greater than it (smaller, with `newest_first`); `until_id`: none greater.
    `last_ended_first`: jobs that have ended alone, by their end, descending; `after_id` is then the job after which the
    list goes on."""

    states: frozenset[JobState] | None = None
    user: str | None = None
    group: str | None = None
    name: str | None = None
    priority: Priority | None = None
    ids: tuple[int, ...] | None = None
    array_id: int | None = None
    array_ids: tuple[int, ...] | None = None
    finished_since: float | None = None
    finished_until: float | None = None
    after_id: int | None = None
    until_id: int | None = None
    limit: int | None = None
    newest_first: bool = False
    last_ended_first: bool = False


@dataclass(frozen=True, slots=True)
class Waiting:
    """The little that the scheduler and the hot queue need of a waiting job; `state` is `queued`.

    `attempt` is the number of its last attempt, 0 for none yet.
    """

    id: int
    score: float
    priority: Priority
    user: str
    uid: int | None
    group: str | None
    gpus: int
    gpu_mem_mb: int | None
    gpu_model: str | None
    gpu_ids: tuple[int, ...] | None
    time_limit_s: float | None
    preemptible: bool
    array_id: int | None
    array_limit: int | None
    submitted_at: float
    command: tuple[str, ...]
    attempt: int


@dataclass(frozen=True, slots=True)
class ReadyDependent:
    """A blocked job whose last open dependency has ended. `begin` as it was submitted: epoch seconds, ISO 8601 text or
    None. `attempt` and `token` are what a `Move` in the same transaction has `seen`."""

    id: int
    gpus: int
    score: float
    attempt: int
    token: str | None
    begin: float | str | None


class HopelessDependent(NamedTuple):
    """A waiting job that was to run after the success of `on_id`, which did not succeed, or is as hopeless itself.
    `state`, `attempt` and `token` are what a `Move` in the same transaction has `seen`; `on_state`, `outcome` and
    `exit_code` are those of `on_id`."""

    id: int
    state: JobState
    attempt: int
    token: str | None
    on_id: int
    on_state: JobState
    outcome: str | None
    exit_code: int | None


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A job whose retries are used up, with the end of its output. `failed_at` in epoch seconds."""

    job_id: int
    failed_at: float
    outcome: str
    error: str | None
    attempts: int
    log_tail: str | None


@dataclass(frozen=True, slots=True)
class AnsweredRequest:
    """A submission that carried a request key. `fingerprint` is of what it asked for; None: not known."""

    job_ids: list[int]
    fingerprint: str | None


class LimitChange(NamedTuple):
    """Who changed which limit of whom, and when (epoch seconds). `before` and `after` as people write them; None: it
    was, or is, not set."""

    at: float
    actor: str
    kind: str
    name: str
    limit: str
    before: str | None
    after: str | None


@dataclass(frozen=True, slots=True)
class Standing:
    """Which database it is (None: not named yet), and the highest ids of events and jobs that it has given, 0 for none.

    On PostgreSQL an id is given before it is durable that it was, also to a transaction that comes to nothing. So these
    tell what is *not* missing, and `committed_event`, `committed_job` what will not go away; elsewhere they are equal.
    """

    installation: str | None
    last_event: int
    last_job: int
    committed_event: int
    committed_job: int


class GivenNumbers(Protocol):
    """Where the numbers are remembered that the database gives."""

    def reserve(self, last_job: int) -> None:
        """Called before the commit that gives this job id. Never fails."""

    def note(self, last_event: int | None, last_job: int | None) -> None:
        """Called after a commit with the newest numbers that it gave, None for those that are not known."""

    def close(self) -> None:
        """Nothing is given any more."""


class LimitReader(Protocol):
    """Of a `Reader`, what is asked for limits."""

    def some_values(self, keys: Collection[str]) -> dict[str, Any]:
        """As `value` of each key that has one, in one question."""

    def gpu_seconds(self, since: float) -> dict[tuple[str, str | None], float]:
        """By user and group: seconds times GPUs of the attempts that have ended since the full hour in which this time
        (epoch seconds) is. It reads a row for each user, group and hour, however many attempts there were."""


class Reader(LimitReader, Protocol):
    """Reads of one transaction on the truth."""

    def job(self, job_id: int) -> Job:
        """Raises NotFound."""

    def jobs(self, where: JobFilter) -> list[Job]:
        """In the order that the filter names."""

    def names(self, where: JobFilter) -> list[tuple[int, int | None, int | None]]:
        """(id, array id, index in it) of the jobs that match, in the order that the filter names."""

    def count(self, where: JobFilter) -> int:
        """How many jobs match."""

    def count_by_state(self) -> dict[JobState, int]:
        """A state without jobs may be absent."""

    def totals(self) -> Totals:
        """What is kept up where it changes: costs the same after any number of jobs."""

    def count_by_group(self) -> dict[str, dict[JobState, int]]:
        """Of the jobs that are not final."""

    def array_counts(self, array_id: int) -> dict[JobState, tuple[int, int, int]]:
        """How many elements of an array are in each state, with the least and the greatest index of those."""

    def spec(self, job_id: int) -> tuple[JobSpec, int | None, int | None]:
        """The stored submission, and the submitter's uid and gid. Raises NotFound."""

    def specs(self, ids: Sequence[int]) -> dict[int, JobSpec]:
        """The stored submissions of those of these jobs that there are."""

    def sealed(self, job_id: int) -> Sealed | None:
        """The encrypted variables of a job; None when it has none, or they are deleted."""

    def without_secrets(self, ids: Sequence[int]) -> frozenset[int]:
        """Those of these jobs whose encrypted variables are deleted."""

    def attempts(self, job_id: int) -> list[Attempt]:
        """By number."""

    def live_attempts(self, node: str | None = None) -> list[tuple[Job, Attempt]]:
        """Jobs in an active state with their current attempt, by job id."""

    def processes(self, job_id: int, number: int) -> list[tuple[int, int]]:
        """What was noted of an attempt by `note_processes`."""

    def events(self, *, job_id: int | None = None, after_id: int = 0, limit: int | None = None) -> list[Event]:
        """Oldest first."""

    def last_event_id(self) -> int:
        """0 when there is no event."""

    def waiting(self, ids: Sequence[int]) -> dict[int, Waiting]:
        """The `queued` ones among `ids`; others are absent."""

    def queued(self, *, batch: int = 5000, after_id: int = 0) -> Iterator[tuple[int, int, float]]:
        """(id, gpus, score) of every `queued` job, by id, in constant memory."""

    def line(
        self,
        *,
        offset: int = 0,
        limit: int | None = None,
        user: str | None = None,
        group: str | None = None,
        name: str | None = None,
        after: tuple[float, int] = FIRST_PLACE,
    ) -> list[Job]:
        """`queued` jobs in the order in which they stand in line: by score, then id. `user`, `group`, `name`: such
        only. `after`: only those that stand behind this place."""

    def position(self, score: float, job_id: int) -> int:
        """Place in line from 1 of a queued job."""

    def positions(self, places: Collection[tuple[float, int]]) -> dict[int, int]:
        """The same of many, by id, from their (score, id): the line is walked once."""

    def line_past(
        self,
        gpus: int | None,
        *,
        users: Collection[str],
        groups: Collection[str],
        arrays: Collection[int],
        limit: int,
        accounts: Collection[tuple[str, int | None]] = (),
    ) -> list[int]:
        """The first queued jobs with that many GPUs (None: any number), in line order, that belong to none of these.
        `accounts`: users with the uid that they had."""

    def preemptions(self, ids: Collection[int], *, since: float) -> dict[int, int]:
        """How often each of these jobs has made room for another since that time; absent: never."""

    def oldest_queued(self, *, before: float, gpus: int, limit: int) -> list[int]:
        """Queued jobs with at least that many GPUs submitted before that time, by priority, then oldest first."""

    def delayed_until(self) -> float | None:
        """The earliest `eligible_at` of a delayed job, epoch seconds."""

    def due(self, now: float, limit: int) -> list[int]:
        """Ids of the jobs whose `eligible_at` has come by `now` (epoch seconds), earliest first."""

    def front(self, priority: Priority, user: str | None = None) -> tuple[float, int] | None:
        """(score, id) of the first waiting job of that priority (of that user)."""

    def before(self, score: float, job_id: int, other_than: str) -> tuple[float, int] | None:
        """(score, id) of the last waiting job that stands before this place and is of another user."""

    def ready_dependents(self, job_id: int) -> list[ReadyDependent]:
        """The blocked jobs that name `job_id` and have no open dependency any more, by id. One question for any number
        of them: it is asked inside the transaction that ends `job_id`."""

    def open_dependencies(self, job_id: int) -> list[tuple[int, str, JobState]]:
        """(dependency id, 'success' or 'any', its state), those not yet satisfied."""

    def job_with_key(self, user: str, key: str) -> int | None:
        """The live or completed job of this user with this `--key`."""

    def request(self, user: str, request_key: str) -> AnsweredRequest | None:
        """What an earlier submission of this user with this request key was answered; None without one."""

    def dead_letters(self, limit: int | None = None) -> list[DeadLetter]:
        """Newest first."""

    def dead_letter(self, job_id: int) -> DeadLetter | None:
        """None when this job has none."""

    def count_dead_letters(self) -> int:
        """How many dead letters there are."""

    def value(self, key: str) -> Any | None:
        """A small JSON value of the installation: `paused`, `epoch`, …"""

    def values(self, prefix: str) -> dict[str, Any]:
        """The values whose key begins with `prefix`, by key."""


class ManyWriter(Protocol):
    """Of a `Writer`, what is asked and written for thousands of jobs at once."""

    def part(self) -> AbstractContextManager[None]:
        """What is written in the block is undone if the block raises, and the rest of the transaction goes on. Parts do
        not stand inside each other."""

    def move_many(self, changes: Sequence[Move]) -> None:
        """As `move` for each, in this order; each has `seen` its job. Raises what `move` raises, and WrongState when
        somebody who takes no turns has changed one meanwhile: then nothing of it may be committed."""

    def change_many(self, changes: Sequence[Change]) -> None:
        """As `update_job` and `add_event` for each. Raises WrongState as `move_many` does."""

    def begins(self, ids: Collection[int]) -> dict[int, float | str | None]:
        """`begin` of these jobs as it was submitted."""

    def dependencies_of(self, ids: Collection[int]) -> dict[int, list[Dependency]]:
        """By job; one that waits for nothing is absent."""

    def ready_dependents_of(self, ids: Collection[int]) -> list[tuple[int, ReadyDependent]]:
        """As `ready_dependents` for all of these together, each with the first of them that it waited for."""

    def hopeless_dependents_of(self, ids: Collection[int]) -> list[HopelessDependent]:
        """The waiting jobs that cannot run any more because none of `ids` succeeded, by id: those that were to run
        after the success of one, those that were to run after these, and so on, without those that keep waiting. One
        question for any number of them."""

    def stored_specs(self, ids: Collection[int]) -> dict[int, str]:
        """The submissions of these jobs as they are stored: JSON with `schema`."""

    def remove_dead_letters(self, ids: Collection[int]) -> None:
        """Of those of these jobs that have one."""


class Writer(Reader, ManyWriter, Protocol):
    """Reads and guarded writes of one transaction; all of it is committed, or nothing."""

    def add_jobs(
        self,
        jobs: Sequence[NewJob],
        *,
        actor: str,
        request_key: str | None = None,
        fingerprint: str | None = None,
    ) -> list[int]:
        """Job rows, dependency rows, `submitted` events, and the request key, for one user's submission.
        Ids in the order given, ascending and never reused."""

    def add_known_job(self, job_id: int, job: NewJob, *, actor: str) -> None:
        """A job that got its id before, in a database that is lost. The id must be one that is not given any more.
        Raises Refused when there is such a job, or its key is taken."""

    def count_attempts_from(self, job_id: int, number: int) -> None:
        """The next attempt of a job that is not active gets a number after this one, if it would not anyhow."""

    def move(self, change: Move) -> None:
        """Raises LeaseLost when the guard matched no row and a token was given, else WrongState
        (NotFound when there is no such job)."""

    def add_attempt(self, attempt: Attempt) -> None:
        """One that is claimed and has not run yet, up to its `claimed_at`. Together with the move `queued → starting`,
        whose `set` carries `attempt` and `token`."""

    def launched(self, job_id: int, number: int, token: str, facts: Launched) -> None:
        """Process facts onto the attempt row (guarded by number and token, outcome still null)."""

    def note_peak(self, job_id: int, number: int, token: str, peak_mb: int) -> bool:
        """The peak so far onto the attempt row; False when that attempt is not live any more."""

    def note_processes(self, job_id: int, number: int, token: str, seen: Sequence[tuple[int, int]], at: float) -> bool:
        """PID and start time of the processes of an attempt, in place of what was noted before; False when that attempt
        is not live any more."""

    def forget_processes(self) -> int:
        """Removes what was noted of attempts that have ended; returns of how many."""

    def end_attempt(self, job_id: int, number: int, token: str, result: Result) -> None:
        """Guarded by number, token and outcome still null; raises LeaseLost."""

    def update_job(self, job_id: int, values: Mapping[str, Any], *, expect: frozenset[JobState]) -> None:
        """Columns that may change without a change of state (score, priority, time_limit_s, …) and the
        stored spec with them. Raises WrongState."""

    def rescore(self, per_priority: float, per_declared_s: float) -> int:
        """Adds to the score of every job that is not final: so much for each step of its priority, and so much for each
        second of declared time (8 h for a job that declares none). Returns how many."""

    def add_event(
        self, job_id: int, state: JobState, actor: str, at: float, detail: str, attempt: int | None = None
    ) -> None:
        """A remark that changes no state: from_state equals to_state."""

    def add_dead_letter(self, letter: DeadLetter) -> None:
        """Replaces an earlier one of the same job."""

    def remove_dead_letter(self, job_id: int) -> bool:
        """False when the job has none."""

    def set_value(self, key: str, value: Any | None, at: float) -> None:
        """None removes it."""

    def add_limit_change(self, change: LimitChange) -> None:
        """Kept for ever."""

    def forget_requests(self, before: float) -> int:
        """Removes the request keys older than `before` (epoch seconds). Returns how many."""


class Records(Protocol):
    """The database that is the truth about jobs, one transaction at a time."""

    def read(self) -> AbstractContextManager[Reader]:
        """A transaction that only reads."""

    def write(self) -> AbstractContextManager[Writer]:
        """Raises DatabaseUnavailable when the database cannot be reached, is full, or stays locked."""

    def spare_memory(self) -> None:
        """Gives memory back that a long answer took and the next short one does not need."""

    def close(self) -> None:
        """Closes the connections."""
