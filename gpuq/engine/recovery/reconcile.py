"""What the folders know of attempts and the database does not.

| the folder of a later attempt                | then the job                                                        |
|----------------------------------------------|---------------------------------------------------------------------|
| its lock is held                             | is a stray; if the database has the job, it is held meanwhile        |
| a record with its token says `succeeded`     | is completed, with that end                                         |
| another end, or none                         | is held: whether it may run again only a person knows               |

Records are files that only the daemon's user can write; one counts when it carries the token of its attempt's spec. An
attempt that is live in the database and was followed by another one has ended, with what its record says or as `lost`.
Everything may be done twice: what was written is not found again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from gpuq.domain.caller import ACTOR
from gpuq.domain.job import Attempt, Job
from gpuq.domain.outcome import Outcome, Result
from gpuq.domain.states import ACTIVE, FINAL, JobState
from gpuq.engine.attempt.tracked import TrackedAttempt
from gpuq.engine.claim.claim import write_turn
from gpuq.engine.context import Context
from gpuq.engine.strays import Stray
from gpuq.ports.records import JobFilter, Move, Writer

# Who holds a job that ran already, in the column `held_by`.
HELD_BY = "past"
_AT_ONCE = 500
Spec = Mapping[str, Any]
End = tuple[Attempt, Result]


@dataclass
class Reconciled:
    """`held`, `completed`: job ids; `unknown`: of jobs that have folders and are not in the database, whose output
    stays where it is."""

    strays: list[Stray] = field(default_factory=list)
    held: list[int] = field(default_factory=list)
    completed: list[int] = field(default_factory=list)
    unknown: list[int] = field(default_factory=list)


def reconcile(ctx: Context, folders: Iterable[tuple[int, int, str]], spec_of: Callable[[str], Spec]) -> Reconciled:
    """Of all attempts of this home: (job id, number, own folder). `spec_of` reads what the attempt in an own folder
    was told to run. No agent may run meanwhile. Raises DatabaseUnavailable."""
    by_job: dict[int, dict[int, str]] = {}
    for job_id, number, run_dir in folders:
        by_job.setdefault(job_id, {})[number] = run_dir
    done = Reconciled()
    ids = sorted(by_job)
    for at in range(0, len(ids), _AT_ONCE):
        some = tuple(ids[at : at + _AT_ONCE])
        with ctx.records.read() as tx:
            jobs = {job.id: job for job in tx.jobs(JobFilter(ids=some))}
        for job_id in some:
            _one(ctx, jobs.get(job_id), job_id, by_job[job_id], spec_of, done)
    return done


def _one(
    ctx: Context,
    job: Job | None,
    job_id: int,
    folders: Mapping[int, str],
    spec_of: Callable[[str], Spec],
    done: Reconciled,
) -> None:
    living = [number for number in sorted(folders) if ctx.launcher.alive(folders[number])]
    unknown = [n for n in living if job is None or job.state not in ACTIVE or n != job.attempt]
    done.strays += [stray_of(job_id, number, folders[number], spec_of(folders[number])) for number in unknown]
    if job is None:
        done.unknown.append(job_id)
        return
    later = [number for number in sorted(folders) if number > job.attempt]
    if not later:
        return
    ended = {
        number: end
        for number in later
        if number not in living and (end := _end_in(ctx, job_id, number, folders[number], spec_of)) is not None
    }
    if job.state not in FINAL and not unknown and later[-1] in ended and _won(ended[later[-1]]):
        _complete(ctx, job, ended)
        done.completed.append(job_id)
        return
    with ctx.records.write() as tx:
        _write_history(ctx, tx, job, list(ended.values()))
        _hold(tx, tx.job(job_id), later[-1], ctx.clock.now())
    if job.state not in FINAL:
        done.held.append(job_id)


def _won(end: End) -> bool:
    return end[1].outcome is Outcome.SUCCEEDED


def _end_in(ctx: Context, job_id: int, number: int, run_dir: str, spec_of: Callable[[str], Spec]) -> End | None:
    """The end that the folder proves: its record carries the token of its spec."""
    spec = spec_of(run_dir)
    token = spec.get("token")
    result = ctx.launcher.outcome(run_dir, token) if isinstance(token, str) and token else None
    if result is None:
        return None
    dated = replace(result, finished_at=result.finished_at or ctx.clock.now())
    return attempt_of(ctx, job_id, number, run_dir, spec), dated


def stray_of(job_id: int, number: int, run_dir: str, spec: Spec) -> Stray:
    """The attempt as people see it, and what it holds; whatever a damaged spec says."""
    env = environment_in(spec)
    gpus = tuple(word for word in str(env.get("CUDA_VISIBLE_DEVICES") or "").split(",") if word)
    name = (env.get("GPUQ_JOB_NAME") or command_in(spec)[0])[:200]
    return Stray(job_id, number, str(spec.get("token") or ""), run_dir, gpus, str(spec.get("user") or "?"), name)


def environment_in(spec: Spec) -> dict[str, str]:
    """What the job was started with."""
    env = spec.get("env")
    return {str(key): str(value) for key, value in env.items()} if isinstance(env, dict) else {}


def command_in(spec: Spec) -> list[str]:
    """What was started; `?` when that is not known."""
    argv = spec.get("argv")
    return [str(word) for word in argv] if isinstance(argv, list) and argv else ["?"]


def attempt_of(ctx: Context, job_id: int, number: int, run_dir: str, spec: Spec) -> Attempt:
    """Its row, from what the folder knows, as of this boot."""
    stray = stray_of(job_id, number, run_dir, spec)
    gpus = [gpu for gpu in ctx.gpus.inventory() if stray.holds(gpu)]
    launched = ctx.launcher.launched(run_dir, stray.token)
    return Attempt(
        job_id=job_id,
        number=number,
        token=stray.token,
        node=ctx.node,
        boot_id=ctx.boot_id,
        gpu_indices=tuple(gpu.index for gpu in gpus),
        gpu_uuids=tuple(gpu.uuid for gpu in gpus),
        gpu_mem_mb=None,
        run_dir=run_dir,
        log_path=f"{run_dir}/output.log",
        claimed_at=launched.started_at if launched is not None else ctx.clock.now(),
    )


def _write_history(ctx: Context, tx: Writer, job: Job, ends: Sequence[End]) -> None:
    """The ends, by number. The attempt that the database takes for the live one was followed by others: it is over."""
    now = ctx.clock.now()
    if job.state in ACTIVE and job.run_dir is not None and job.token is not None:
        result = ctx.launcher.outcome(job.run_dir, job.token) or Result(Outcome.LOST, error="others followed it")
        tx.end_attempt(job.id, job.attempt, job.token, replace(result, finished_at=result.finished_at or now))
        told = f"the database is of the past: attempt {job.attempt} was over, and others followed"
        move(tx, job, JobState.QUEUED, now, told)
    for attempt, result in ends:
        tx.add_attempt(attempt)
        tx.end_attempt(attempt.job_id, attempt.number, attempt.token, result)


def _hold(tx: Writer, job: Job, last: int, now: float) -> None:
    """Until somebody releases it; later attempts have later numbers."""
    if job.state is JobState.HELD:
        tx.update_job(job.id, {"held_by": HELD_BY}, expect=frozenset({JobState.HELD}))
    elif job.state not in FINAL:
        told = f"held: attempt {last} ran, and the database is of the past and does not know of it"
        move(tx, job, JobState.HELD, now, told, {"held_by": HELD_BY})
    tx.count_attempts_from(job.id, last)


def start_as(tx: Writer, job: Job, attempt: Attempt, now: float, told: str) -> None:
    """`queued → starting` with an attempt that exists already."""
    values = {"attempt": attempt.number, "token": attempt.token, "started_at": None}
    move(tx, job, JobState.STARTING, now, told, values)
    tx.add_attempt(attempt)


def move(tx: Writer, job: Job, to: JobState, now: float, told: str, values: Mapping[str, Any] | None = None) -> None:
    """One step of the job as it was read in this transaction."""
    tx.move(Move(job.id, to, frozenset({job.state}), ACTOR, now, detail=told, set=values or {}))


def _complete(ctx: Context, job: Job, ended: Mapping[int, End]) -> None:
    *before, (attempt, result) = (ended[number] for number in sorted(ended))
    now = ctx.clock.now()
    with ctx.records.write() as tx:
        _write_history(ctx, tx, job, before)
        job = tx.job(job.id)
        if job.state is not JobState.QUEUED:
            move(tx, job, JobState.QUEUED, now, f"attempt {attempt.number} ran already")
        told = f"attempt {attempt.number} ran, as its folder says; the database is of the past"
        start_as(tx, tx.job(job.id), attempt, now, told)
        job = tx.job(job.id)
    tracked = TrackedAttempt.of_record(job, attempt, None)
    tracked.result = result
    write_turn(ctx, [tracked])


def summary(done: Reconciled) -> Sequence[str]:
    """Lines for people."""
    lines = []
    if done.held:
        lines.append(
            f"held, because they ran already: jobs {_some(done.held)}; `gpuq show ID` tells, then release or cancel"
        )
    if done.completed:
        lines.append(f"completed, as their folders say: jobs {_some(done.completed)}")
    if done.unknown:
        lines.append(f"not in the database, only their output is left: jobs {_some(done.unknown)}")
    lines += [f"runs and is not in the database: {stray.text}; see `gpuq doctor`" for stray in done.strays]
    return lines


def _some(ids: Sequence[int]) -> str:
    shown = ", ".join(map(str, ids[:10]))
    return shown + (f" and {len(ids) - 10} more" if len(ids) > 10 else "")
