"""`gpuq status`."""

from __future__ import annotations

import sys

from gpuq.cli.connect import connect, print_json
from gpuq.errors import NotFound, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

    from gpuq.cli.parse.options import Args
    from gpuq.client.calls import Calls
    from gpuq.client.stream import EventStream

SHOWN = 50
# Seconds: between two drawings of a listing that is watched, and after which it is asked for anew in any case; sooner
# where a job tells of its progress.
WATCH_S = 2.0
STALE_S = 60.0
PROGRESS_S = 10.0
HEADER = ("ID", "ARRAY", "STATE", "USER", "PRIO", "GPUS", "NAME", "POS", "TIME", "START", "DETAIL")
RIGHT = ("ID", "GPUS", "POS", "TIME")


class Listing:
    """`total`: how many there are; `counts`: the whole queue's numbers and whether it is paused, where asked for;
    `user`: whose jobs alone are shown."""

    __slots__ = ("counts", "jobs", "total", "user")

    def __init__(
        self, jobs: list[Any], total: int, counts: dict[str, Any] | None = None, user: str | None = None
    ) -> None:
        self.jobs = jobs
        self.total = total
        self.counts = counts
        self.user = user


def status(args: Args) -> int:
    """Prints the queue; with `--watch` again and again until interrupted."""
    client = connect()
    if not args.flag("watch"):
        _show(args, _look(client, args))
        return 0
    if args.flag("json"):
        raise UsageError("--watch and --json cannot go together", hint="--json prints one document")
    return _watch(client, args)


def _watch(client: Calls, args: Args) -> NoReturn:
    """Draws the listing every two seconds. It is asked for again when something has moved, which the daemon tells; and
    every time where it cannot."""
    import time

    events: EventStream | None = None
    look_at = 0.0
    moved = True
    while True:
        if moved or events is None or time.monotonic() > look_at:
            if events is None:
                # Before the look: what happens after it is told.
                events = client.listen("/events")
            listing = _look(client, args)
            progress = any(job["progress"] is not None and job["state"] == "running" for job in listing.jobs)
            look_at = time.monotonic() + (PROGRESS_S if progress else STALE_S)
        if sys.stdout.isatty():
            sys.stdout.write("\x1b[H\x1b[2J")
        _show(args, listing)
        sys.stdout.flush()
        drawn_at = time.monotonic()
        moved = False
        while (left := drawn_at + WATCH_S - time.monotonic()) > 0:
            try:
                if events is None or moved:
                    time.sleep(left)
                else:
                    moved = bool(events.frames(left))
            except EOFError:
                events = None


def row_limit(args: Args) -> int | None:
    """None: no limit. --json gives everything unless --limit says otherwise."""
    limit = args.integer("limit", least=1)
    if limit is not None:
        return limit
    return None if args.flag("all") or args.flag("json") else SHOWN


def _look(client: Calls, args: Args) -> Listing:
    limit = row_limit(args)
    wanted: dict[str, Any] = {}
    if args.any_of(("me", "user", "state", "group", "name")):
        from gpuq.cli.parse.select import filters

        wanted = filters(client, args)
    if args.words:
        return _named(client, args, wanted)
    listing = _in_the_queue(client, wanted, limit)
    if args.flag("all") and "state" not in wanted:
        from gpuq.cli.parse.select import MANY

        ended = client.history(**wanted, limit=MANY)
        shown = (listing.jobs + ended)[: args.integer("limit", least=1)]
        return Listing(shown, listing.total + len(ended), listing.counts, listing.user)
    return listing


def _in_the_queue(client: Calls, wanted: dict[str, Any], limit: int | None) -> Listing:
    if not set(wanted) - {"user"}:
        found = client.queue(limit=limit, user=wanted.get("user"))
        return Listing(found["jobs"], found["total"], found, wanted.get("user"))
    from gpuq.cli.parse.select import ACTIVE, MANY, WAITING

    if "state" not in wanted:
        wanted = {**wanted, "state": ",".join(WAITING + ACTIVE)}
    jobs = sorted(client.jobs(**wanted, limit=MANY), key=_place)
    return Listing(jobs[:limit], len(jobs))


def _named(client: Calls, args: Args, wanted: dict[str, Any]) -> Listing:
    from gpuq.cli.parse.select import matches, resolve_ids

    if args.words == ["all"]:
        raise UsageError("`all` is not possible here", hint="`gpuq status -a` shows every row")
    ids = resolve_ids(client, args.words)
    found = {job["id"]: job for start in range(0, len(ids), 500) for job in _by_ids(client, ids[start : start + 500])}
    missing = [job_id for job_id in ids if job_id not in found]
    if missing:
        raise NotFound(f"there is no job {missing[0]}", hint="`gpuq status` and `gpuq history` list the jobs")
    jobs = [found[job_id] for job_id in ids if matches(found[job_id], wanted)]
    return Listing(jobs, len(jobs))


def _by_ids(client: Calls, ids: list[int]) -> list[Any]:
    return client.jobs(ids=",".join(map(str, ids)), limit=len(ids))


def _place(job: Any) -> tuple[int, int, int]:
    """Running jobs, then waiting ones in order, then the rest."""
    if job["state"] in {"starting", "running", "stopping"}:
        return (0, 0, job["id"])
    return (2, 0, job["id"]) if job["position"] is None else (1, job["position"], job["id"])


def _show(args: Args, listing: Listing) -> None:
    if args.flag("json"):
        print_json(listing.jobs)
        return
    from gpuq.cli.render import table

    if listing.jobs:
        print(table(HEADER, [row(job) for job in listing.jobs], right=RIGHT))
    print(_totals(listing))


def _totals(listing: Listing) -> str:
    from gpuq.cli.render import count, printable

    parts = []
    if listing.counts is not None:
        if listing.user is not None:
            parts.append(f"{count(listing.total, 'job')} of {listing.user}")
        in_all = "" if listing.user is None else " in all"
        parts.append(f"{listing.counts['running']:,} running, {listing.counts['waiting']:,} waiting{in_all}")
        paused = listing.counts.get("paused")
        if paused:
            reason = f": {printable(paused['reason'])}" if paused.get("reason") else ""
            parts.append(f"the queue is paused by {paused['by']}{reason}")
    shown = len(listing.jobs)
    if shown < listing.total:
        parts.append(f"{shown:,} of {listing.total:,} shown; --limit or --all")
    elif listing.counts is None:
        parts.append(count(shown, "job"))
    return "; ".join(parts)


def row(job: Any) -> list[str]:
    """The cells of HEADER."""
    from gpuq.cli.render import since, when

    active = job["state"] in {"starting", "running", "stopping"}
    waiting = job["finished_at"] is None and not active
    return [
        str(job["id"]),
        f"{job['array_id']}_{job['array_index']}" if job["array_id"] is not None else "",
        job["state"],
        job["user"],
        job["priority"],
        str(job["gpus"]),
        job["name"] if len(job["name"]) <= 24 else job["name"][:23] + "…",
        "" if job["position"] is None else str(job["position"]),
        since(job["submitted_at"]) if waiting else since(job["started_at"], job["finished_at"]),
        _start(job, waiting, when),
        detail(job),
    ]


def _start(job: Any, waiting: bool, when: Any) -> str:
    if not waiting:
        return str(when(job["started_at"]))
    return f"~{when(job['estimated_start'])}" if job["estimated_start"] else ""


def detail(job: Any) -> str:
    """What matters most about a job in its state."""
    from gpuq.cli.render import epoch, span, when

    parts = []
    if job["state"] in {"starting", "running", "stopping"}:
        if job["gpu_indices"]:
            parts.append("gpu " + ",".join(map(str, job["gpu_indices"])))
        parts.append(outgrown(job))
        if job["progress"] is not None:
            parts.append(f"{job['progress']:.0%}")
        deadline = epoch(job.get("stop_deadline"))
        if job["state"] == "stopping" and deadline is not None:
            import time

            left = deadline - time.time()
            parts.append(f"killed in {span(left)}" if left > 0 else "being killed")
        elif job["estimated_end"]:
            parts.append(f"ends ~{when(job['estimated_end'])}")
    elif job["finished_at"] is not None:
        parts.append(ending(job))
    elif job["reason"]:
        parts.append(f"{job['reason']['code']}: {job['reason']['text']}")
    return ", ".join(part for part in parts if part)


def outgrown(job: Any) -> str:
    """`uses 12G of 9G asked for`, of a job, or a holder of a GPU, that shares by memory and uses more."""
    from gpuq.cli.render import memory

    asked, peak = job["gpu_mem_mb"], job.get("peak_gpu_mem_mb")
    return f"uses {memory(peak)} of {memory(asked)} asked for" if asked and peak and peak > asked else ""


def ending(job: Any) -> str:
    """How a job, or an attempt, ended: `exit 3`, `signal 9`, `time_limit`."""
    outcome = job["outcome"] or ""
    if outcome == "exit_nonzero":
        return f"exit {job['exit_code']}"
    if outcome == "signal":
        return f"signal {job['signal']}"
    if outcome in {"", "succeeded"}:
        return ""
    return f"{outcome}: {job['error']}" if job["error"] else outcome
