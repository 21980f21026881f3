"""What people do with a database that is not the one their home worked with: `gpuq db restore`, `gpuq db adopt`, and
the strays that `gpuq doctor` tells of. The daemon must be down, but for looking at strays and ending them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from gpuq import wiring
from gpuq.engine.context import Context
from gpuq.engine.file_lock import FileLock
from gpuq.engine.home_mark import HomeMark
from gpuq.engine.recovery.import_strays import import_strays
from gpuq.engine.recovery.recognise import why_foreign
from gpuq.engine.recovery.reconcile import stray_of, summary
from gpuq.engine.recovery.take_on import take_on
from gpuq.engine.strays import Stray, Strays
from gpuq.errors import GpuqError
from gpuq.ports.records import Standing
from gpuq.settings import Settings
from gpuq.stores import sql as sql_stores
from gpuq.supervise import attempt_folders
from gpuq.supervise.launch import ForkServerLauncher


@dataclass(frozen=True, slots=True)
class Loss:
    """What a restore takes away: jobs with ids above `kept_to`, up to `given_to`; what happened to others since
    (`events` of them in all, where that is known); and the supervision of `running`."""

    kept_to: int
    given_to: int
    events: int
    running: tuple[Stray, ...]

    def lines(self) -> list[str]:
        """For people."""
        told = []
        if self.given_to > self.kept_to:
            ids = (
                f"job {self.given_to}"
                if self.given_to == self.kept_to + 1
                else f"jobs {self.kept_to + 1} to {self.given_to}"
            )
            told.append(f"lost with a restore: {ids}, submitted since the copy (the ids are not given again)")
        if self.events:
            many = "1 event" if self.events == 1 else f"{self.events} events"
            told.append(f"lost with a restore: what happened to jobs since the copy ({many})")
        told += [f"runs now: {one.text}" for one in self.running]
        return told


def loss(settings: Settings, copy: Path) -> Loss:
    """Compared with the database as it is now, or with what the home remembers of one that cannot be read. Raises
    Refused for what is no backup, and on PostgreSQL."""
    wiring.database().check_backup(copy)
    path = wiring.database().file_of(settings.database_url)
    remembered = HomeMark(settings.home).read()
    then = sql_stores.standing_of(copy)
    event, job = (0, 0) if remembered is None else (remembered.last_event, remembered.last_job)
    try:
        now = sql_stores.standing_of(path)
        event, job = max(event, now.last_event), max(job, now.last_job)
    except GpuqError:
        # Damaged or missing, which is why another one is put in its place.
        pass
    return Loss(then.last_job, job, max(0, event - then.last_event), tuple(running(settings)))


def running(settings: Settings) -> list[Stray]:
    """Every attempt of this home that has a supervisor, known to the database or not."""
    launcher = _launcher(settings)
    return [
        stray_of(job_id, number, run_dir, attempt_folders.spec(run_dir))
        for job_id, number, run_dir in _folders(settings)
        if launcher.alive(run_dir)
    ]


def why_not_known(settings: Settings) -> str | None:
    """Why the database is not the one that this home worked with; None when it is. Changes nothing, also while a daemon
    runs: what is remembered is read first, and never ahead."""
    remembered = HomeMark(settings.home).read()
    highest = max(attempt_folders.job_ids(str(settings.home / "jobs")), default=0)
    if wiring.database().current(settings.database_url) is None:
        return why_foreign(remembered, Standing(None, 0, 0, 0, 0), highest)
    base = sql_stores.open_database(settings.database_url)
    try:
        return why_foreign(remembered, sql_stores.SqlIdentity(base).standing(), highest)
    finally:
        base.close()


def adopt(settings: Settings) -> list[str]:
    """Takes the database on as it is: lines for people."""
    remembered = HomeMark(settings.home).read()
    return _take_on(settings, 0 if remembered is None else remembered.ids_up_to)


def restore(settings: Settings, copy: Path) -> list[str]:
    """Puts a copy in the database's place and takes it on. Ids go on after the last one; where the database that is
    there now does not tell which that was, after those that may have been given."""
    mark = HomeMark(settings.home)
    remembered = mark.read()
    last_job = 0 if remembered is None else remembered.last_job
    try:
        now = sql_stores.standing_of(wiring.database().file_of(settings.database_url))
        known = why_foreign(remembered, now, 0) is None
    except GpuqError:
        known = False
    if not known and remembered is not None:
        last_job = remembered.ids_up_to
    wiring.database().restore(settings.database_url, copy)
    return _take_on(settings, last_job)


def strays(settings: Settings) -> Strays:
    """What lives here unknown to the database."""
    return Strays(settings.home, _launcher(settings).alive)


def end(settings: Settings, stray: Stray) -> None:
    """Asks its supervisor to stop the job, with the grace of this installation. Raises OSError."""
    _launcher(settings).request_stop(stray.run_dir, reason="cancel", grace_s=settings.kill_grace)


def import_all(settings: Settings) -> list[tuple[Stray, str | None]]:
    """Each stray, and why it was not imported (None: it was). Raises AlreadyRunning while a daemon runs."""
    with _offline(settings) as ctx:
        assert ctx.strays is not None
        return import_strays(ctx, ctx.strays, attempt_folders.spec)


def _take_on(settings: Settings, last_job: int) -> list[str]:
    with _offline(settings) as ctx:
        done = take_on(
            ctx,
            _identity(ctx),
            HomeMark(settings.home),
            _folders(settings),
            attempt_folders.spec,
            last_job,
        )
    return list(summary(done))


@contextmanager
def _offline(settings: Settings) -> Iterator[Context]:
    """No daemon of this home, or agent, starts meanwhile. Raises AlreadyRunning where one runs."""
    with ExitStack() as stack:
        for name in ("daemon.lock", f"agent-{settings.node}.lock"):
            lock = FileLock(settings.home / name, "the daemon")
            lock.acquire()
            stack.callback(lock.release)
        ctx = wiring.open_context(settings, taking_on=True)
        stack.callback(ctx.gpus.close)
        stack.callback(ctx.records.close)
        yield ctx


def _folders(settings: Settings) -> list[tuple[int, int, str]]:
    return sorted(attempt_folders.found(str(settings.home / "jobs")))


def _identity(ctx: Context) -> sql_stores.SqlIdentity:
    records = ctx.records
    assert isinstance(records, sql_stores.SqlRecords)
    return sql_stores.SqlIdentity(records.database)


def _launcher(settings: Settings) -> ForkServerLauncher:
    return ForkServerLauncher(None, str(settings.home))
