"""`gpuq logs`."""

from __future__ import annotations

import sys
from functools import partial

from gpuq.cli.commands.log_lines import Search, Sink
from gpuq.cli.commands.log_places import last_lines, pieces
from gpuq.cli.connect import connect, say
from gpuq.cli.exit_code import of_job
from gpuq.cli.messages import tell
from gpuq.cli.parse.options import Args
from gpuq.cli.parse.select import WAITING, labels, resolve_ids
from gpuq.cli.render import about, local_times, printable
from gpuq.client.watch import follow
from gpuq.errors import GpuqError, NotFound, Unavailable, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from gpuq.cli.commands.log_follow import Step
    from gpuq.client.calls import Calls

# Each that is followed takes a thread here and a connection of the daemon's.
MOST_FOLLOWED = 32


def logs(args: Args) -> int:
    """Writes the output of jobs to stdout. With `--follow` until their end, and the exit code is then the largest of
    theirs. Raises UsageError for options that cannot go together."""
    client = connect()
    if args.given("all_attempts") and args.given("attempt"):
        raise UsageError("--attempt and --all-attempts cannot go together", hint="choose one")
    reading = Reading(client, args)
    ids = resolve_ids(client, args.words, arrays=True)
    if len(ids) == 1:
        return reading.follow_one(ids[0]) if args.flag("follow") else reading.show(ids[0])
    named = labels(client, ids)
    if not args.flag("follow"):
        return reading.show_many(named)
    if len(ids) > MOST_FOLLOWED:
        raise UsageError(
            f"logs -f: {len(ids):,} jobs are too many to be followed at once", hint=f"name at most {MOST_FOLLOWED}"
        )
    if args.given("all_attempts"):
        raise UsageError("logs -f --all-attempts follows one job", hint="name one, or leave one of the two out")
    from gpuq.cli.commands.log_follow import follow_many

    return follow_many(reading, named)


class Reading:
    """What the command line asks for, of one job after another."""

    def __init__(self, client: Calls, args: Args) -> None:
        self.client = client
        self.attempt = args.integer("attempt", least=1)
        self.lines = args.integer("lines")
        self._all_attempts = args.flag("all_attempts")
        self._raw = args.flag("raw")
        self._follow = args.flag("follow")
        pattern = args.text("grep")
        self.search = Search(pattern) if pattern is not None else None
        self._terminal = sys.stdout.isatty()

    def write(self, data: bytes) -> None:
        """To stdout, at once for who looks on."""
        sys.stdout.buffer.write(data)
        if self._follow:
            sys.stdout.buffer.flush()

    def sink(self, label: str = "", *, live: bool = False) -> Sink:
        """Whatever reads a pipe gets the bytes as the job wrote them, and a terminal that looks on shows by itself what
        they make of a line; lines that are told apart are shown as they stand last."""
        of_lines = self.search is not None or bool(label)
        collapse = not self._raw and (of_lines or (self._terminal and not live))
        newest = self.lines if self.search is not None else None
        return Sink(self.write, collapse=collapse, search=self.search, label=label, newest=newest)

    def begin(self, job_id: int, attempt: int | None) -> tuple[int, int | None, int]:
        """From where on it is shown, of which attempt, and how long it is now. Lines that a pattern chooses are
        counted when they are found, so that the whole is searched."""
        if self.lines is None:
            return 0, attempt, 0
        found = self.client.log(job_id, offset=0, limit=0, attempt=attempt)
        number = found.attempt or attempt
        if self.search is not None or number is None:
            return 0, number, found.size
        collapse = self._terminal and not self._raw
        return last_lines(self.client, job_id, number, found.size, self.lines, collapse=collapse), number, found.size

    def show(self, job_id: int, label: str = "") -> int:
        """What there is of one job. Raises NotFound."""
        if self._all_attempts:
            return self._show_attempts(job_id, label)
        if not self._print(job_id, self.attempt, label):
            say(f"gpuq: job {job_id} has not run yet")
        return 0

    def _print(self, job_id: int, attempt: int | None, label: str = "") -> bool:
        """Whether there is such an attempt."""
        start, number, _ = self.begin(job_id, attempt)
        sink = self.sink(label)
        begun = False
        for piece in pieces(self.client, job_id, number, start):
            sink.put(piece.data)
            begun = piece.attempt > 0
        sink.end()
        return begun

    def _show_attempts(self, job_id: int, label: str = "", *, but_the_last: bool = False) -> int:
        """Each under a heading. Returns the largest exit code of those whose output could not be had."""
        code = 0
        job = self.client.job(job_id)
        attempts = job["attempts"]
        for attempt in attempts:
            self.write(f"{_heading(job, attempt)}\n".encode(errors="replace"))
            if but_the_last and attempt is attempts[-1]:
                break
            try:
                self._print(job_id, attempt["number"], label)
            except NotFound as error:
                sys.stdout.flush()
                code = max(code, tell(error))
        if not attempts:
            say(f"gpuq: job {job_id} has not run yet")
        return code

    def show_many(self, named: dict[int, str]) -> int:
        """One job after another, each line with its job before it. A job whose output cannot be had is told on stderr
        and keeps no other back; returns the largest exit code."""
        widest = max(map(len, named.values()), default=0)
        code = 0
        for job_id, name in named.items():
            try:
                code = max(code, self.show(job_id, name.ljust(widest)))
            except Unavailable:
                raise
            except GpuqError as error:
                sys.stdout.flush()
                code = max(code, tell(error))
        return code

    def follow_one(self, job_id: int) -> int:
        """To the end of the job, or of the attempt that was named; the exit code is the job's."""
        if self.attempt is None:
            _tell_what_it_waits_for(self.client, job_id)
        if self._all_attempts:
            self._show_attempts(job_id, but_the_last=True)
        for step in self.output(job_id):
            step()
        return of_job(self.client.job(job_id))

    def output(self, job_id: int, label: str = "", name: str = "") -> Iterator[Step]:
        """Step by step what there is and what comes, for a single thread to carry out. `label`: what stands before each
        line; `name`: before messages."""
        sink = self.sink(label, live=True)
        start, number, size = self.begin(job_id, self.attempt)
        if self.search is not None and self.lines is not None and number is not None:
            for piece in pieces(self.client, job_id, number, 0, size):
                yield partial(sink.put, piece.data)
            start = size
        yield sink.let_go
        turns: list[int] = []
        follower = follow(
            self.client, job_id, attempt=number, only=self.attempt is not None, offset=start, on_attempt=turns.append
        )
        first = True
        for data in follower:
            yield from (partial(self._next_attempt, sink, job_id, turn, name) for turn in turns[first:])
            first = first and not turns
            turns.clear()
            yield partial(sink.put, data)
        yield sink.end

    def _next_attempt(self, sink: Sink, job_id: int, number: int, name: str) -> None:
        sink.end()
        if self._all_attempts:
            self.write(f"==> job {job_id}, attempt {number} <==\n".encode())
        else:
            say(f"gpuq: {name}attempt {number}")


def _heading(job: Any, attempt: Any) -> str:
    from gpuq.cli.commands.job_detail import ending
    from gpuq.cli.render import full_time, since

    parts = [f"job {job['id']}, attempt {attempt['number']}"]
    if attempt["started_at"]:
        parts.append(f"started {full_time(attempt['started_at'])}")
        parts.append(("ran " if attempt["finished_at"] else "runs for ")
                     + since(attempt["started_at"], attempt["finished_at"]))  # fmt: skip
    parts.append(printable(ending(attempt) or attempt["outcome"] or ""))
    return f"==> {', '.join(filter(None, parts))} <=="


def _tell_what_it_waits_for(client: Calls, job_id: int) -> None:
    """Who follows a job that does not run yet sees nothing otherwise."""
    found = client.why(job_id)
    if found["state"] in WAITING:
        start = about(found.get("estimated_start"), found.get("estimated_start_range"))
        start = f"; it starts about {start}" if start else ""
        reason = f": {printable(local_times(found['reason']['text']))}" if found["reason"] else ""
        say(f"gpuq: job {job_id} is {found['state']}{reason}{start}")
