"""`gpuq status`."""

from __future__ import annotations

import sys

from gpuq.cli.connect import connect, print_json
from gpuq.errors import NotFound, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, NoReturn

    from gpuq.cli.parse.options import Args
    from gpuq.client.calls import Calls
    from gpuq.client.stream import EventStream

SHOWN = 50
# As many lines as the daemon gives in one answer with a line for each array.
MOST_LUMPED = 1000
ACTIVE = ("starting", "running", "stopping")
ENDED = {"completed", "failed", "cancelled"}
# Seconds: between two drawings of a listing that is watched, and after which it is asked for anew in any case; sooner
# where a job tells of its progress.
WATCH_S = 2.0
STALE_S = 60.0
PROGRESS_S = 10.0


class Listing:
    """`total`: how many there are; `counts`: the whole queue's numbers and whether it is paused, where asked for;
    `user`: whose jobs alone are shown; `format`: the columns, as the settings have them."""

    __slots__ = ("counts", "format", "jobs", "total", "user")

    def __init__(
        self, jobs: list[Any], total: int, counts: dict[str, Any] | None = None, user: str | None = None
    ) -> None:
        self.jobs = jobs
        self.total = total
        self.counts = counts
        self.user = user
        self.format: str | None = None


def status(args: Args) -> int:
    """Prints the queue; with `--watch` again and again until interrupted."""
    if args.path("format") == "help":
        from gpuq.cli.commands.job_columns import help_text

        print(help_text())
        return 0
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
        _show(args, listing, window=True)
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
    listing = _found(client, args)
    listing.format = client.address.status_format
    return listing


def _found(client: Calls, args: Args) -> Listing:
    limit = row_limit(args)
    wanted: dict[str, Any] = {}
    if args.any_of(("me", "user", "state", "group", "name")):
        from gpuq.cli.parse.select import filters

        wanted = filters(client, args)
    if args.words:
        return _named(client, args, wanted)
    lumped = limit is not None and limit <= MOST_LUMPED and not (args.flag("json") or args.flag("expand"))
    listing = _in_the_queue(client, wanted, limit, lumped)
    if args.flag("all") and "state" not in wanted:
        from gpuq.cli.parse.select import MANY

        ended = client.history(**wanted, limit=MANY)
        shown = (listing.jobs + ended)[: args.integer("limit", least=1)]
        return Listing(shown, listing.total + len(ended), listing.counts, listing.user)
    return listing


def _in_the_queue(client: Calls, wanted: dict[str, Any], limit: int | None, lumped: bool) -> Listing:
    filtered = bool(set(wanted) - {"user"})
    if not (filtered and set(wanted.get("state", "").split(",")) & ENDED):
        found = client.queue(limit=limit, arrays="one" if lumped else None, **wanted)
        # A daemon of the release before knows no filter but the user, and does not tell of arrays.
        if not filtered or "arrays" in found:
            for job in found["jobs"] if found.get("arrays") else ():
                if job["state"] not in ACTIVE and job["array_id"] is not None:
                    job["lump"] = found["arrays"].get(str(job["array_id"]))
            return Listing(found["jobs"], found["total"], None if filtered else found, wanted.get("user"))
    from gpuq.cli.parse.select import MANY, WAITING

    if "state" not in wanted:
        wanted = {**wanted, "state": ",".join(WAITING + ACTIVE)}
    jobs = sorted(client.jobs(**wanted, limit=MANY), key=_place)
    return Listing(jobs[:limit], len(jobs))


def _named(client: Calls, args: Args, wanted: dict[str, Any]) -> Listing:
    from gpuq.cli.parse.select import matches, resolve_ids

    if args.words == ["all"]:
        raise UsageError("`all` is not possible here", hint="`gpuq status -a` shows every row")
    # Naming an array opens it.
    ids = resolve_ids(client, args.words, arrays=not args.flag("json"))
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


def _show(args: Args, listing: Listing, *, window: bool = False) -> None:
    """`window`: no more than the terminal has room for, so that nothing scrolls away."""
    if args.flag("json"):
        print_json(listing.jobs)
        return
    from gpuq.cli.render import height, width

    text = screen(listing, _columns(listing, args), width(), height() if window else None)
    # Without the last line's end, which would scroll a full window by a line.
    print("\n".join(text), end="" if window and sys.stdout.isatty() else "\n")


def screen(listing: Listing, names: Sequence[str] | None, width: int | None, height: int | None) -> list[str]:
    """The lines of a listing, none longer than `width` columns and no more than `height` of them (None: any number);
    the last one counts the jobs, also those that there is no room for. `names`: the columns; None: what fits."""
    from gpuq.cli.commands.job_columns import lines
    from gpuq.cli.render import cut

    jobs = listing.jobs if height is None else listing.jobs[: max(0, height - 2)]
    totals = _totals(listing)
    if len(jobs) < len(listing.jobs):
        totals = f"{len(listing.jobs) - len(jobs):,} more below the window; {totals}"
    text = [*(lines(jobs, names, width) if jobs else ()), totals if width is None else cut(totals, width)]
    return text if height is None else text[-max(1, height) :]


def _columns(listing: Listing, args: Args) -> Sequence[str] | None:
    """As `--format` or the setting says; None: what fits."""
    text, where = args.text("format"), "--format"
    if text is None:
        text, where = listing.format, "GPUQ_STATUS_FORMAT"
    if not text:
        return None
    from gpuq.cli.commands.job_columns import names_in

    return names_in(text, where)


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
        if planned := listing.counts.get("drain"):
            from gpuq.cli.commands.drain_line import drain_line

            parts.append(drain_line(planned))
    shown = sum(job["lump"]["waiting"] if job.get("lump") else 1 for job in listing.jobs)
    if shown < listing.total:
        parts.append(f"{shown:,} of {listing.total:,} shown; --limit or --all")
    elif listing.counts is None:
        parts.append(count(shown, "job"))
    return "; ".join(parts)
