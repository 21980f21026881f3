"""Commands that change jobs, and the queue as a whole."""

from __future__ import annotations

from gpuq.cli.connect import connect, print_json, say
from gpuq.cli.messages import act_on_each, job_line, tell_refused
from gpuq.cli.parse.options import Args
from gpuq.cli.parse.select import ACTIVE, FILTER_NAMES, WAITING, in_ranges, select
from gpuq.errors import NotFound, UsageError, WrongState

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from gpuq.client.calls import Calls

    Verb = Callable[[int], dict[str, Any]]

# More jobs than these are done without a place in line and an estimate for each.
FEW = 10
# Jobs a request, as many as the daemon takes: what is cancelled or held in one request leaves the line in one step.
_AT_ONCE = 10_000
# What a running job can be changed in.
_WHILE_RUNNING = {"priority", "time_limit_s", "time_add_s", "name", "group", "kill_grace_s"}


def cancel(args: Args) -> int:
    """Cancels the chosen jobs that are not final. `--force` kills at once, `--grace` sets the seconds before
    SIGKILL."""
    client = connect()
    grace = args.seconds("grace")
    force = args.flag("force")
    if force and grace is not None:
        raise UsageError("--force and --grace cannot go together", hint="--force is a grace of none")
    reason = args.text("reason")
    return _all(
        client,
        args,
        WAITING + ACTIVE,
        lambda job_id: client.cancel(job_id, force=force, grace_s=grace, reason=reason),
        "cancel",
        "cancelled",
        force=force or None,
        grace_s=grace,
        reason=reason,
    )


def hold(args: Args) -> int:
    """Keeps the chosen waiting jobs out of line until `release`."""
    client = connect()
    return _all(client, args, ("blocked", "delayed", "queued"), client.hold, "hold", "held")


def release(args: Args) -> int:
    """Puts the chosen held jobs back in line."""
    client = connect()
    return _all(client, args, ("held",), client.release, "release", "released")


def top(args: Args) -> int:
    """Moves the chosen waiting jobs to the front of their priority."""
    client = connect()
    return _all(client, args, WAITING, client.top, "top", "moved to the front")


def retry(args: Args) -> int:
    """Queues the chosen failed or cancelled jobs again."""
    client = connect()
    return _all(client, args, ("failed", "cancelled"), client.retry, "retry", "queued again")


def requeue(args: Args) -> int:
    """Stops the chosen running jobs and puts them back in line."""
    client = connect()
    return _all(client, args, ("running",), client.requeue, "requeue", "on their way back in line")


def update(args: Args) -> int:
    """Changes the given fields of the chosen jobs. Raises UsageError when no field is given."""
    from gpuq.cli.parse.spec import job_fields

    changes = job_fields(args)
    if not changes:
        raise UsageError("update: what shall change?", hint="gpuq update 7 --priority high --time 2h")
    client = connect()

    def change(job_id: int) -> dict[str, Any]:
        job = client.update(job_id, **changes)
        _tell_of_running(job, changes)
        return job

    # `all` means what waits: nobody is to stop a running job by a word about all of them.
    running = "all" not in args.words and set(changes) <= _WHILE_RUNNING
    candidates = (*WAITING, *ACTIVE[:2]) if running else WAITING
    return _all(client, args, candidates, change, "update", "changed", changes=changes)


def _tell_of_running(job: dict[str, Any], changes: dict[str, Any]) -> None:
    if job["state"] not in ACTIVE[:2]:
        return
    if {"time_limit_s", "time_add_s"} & set(changes):
        from gpuq.domain.quantities import duration_text

        say(f"gpuq: job {job['id']} has a time limit of {duration_text(job['time_limit_s'])} now")
    if "priority" in changes:
        say(f"gpuq: job {job['id']} runs already: its priority counts for its next attempt")


def pause(args: Args) -> int:
    """Lets no new job start until `resume`; running jobs go on."""
    client = connect()
    client.pause(args.text("reason"))
    print("paused: running jobs go on, no new one starts until `gpuq resume`")
    return 0


def resume(args: Args) -> int:
    """Lets jobs start again after `pause`."""
    connect().resume()
    print("resumed")
    return 0


def _all(
    client: Calls, args: Args, candidates: Iterable[str], verb: Verb, name: str, done: str, **words: object
) -> int:
    """Few jobs one by one, many in few requests with `words`. `done`: what became of them, as a participle."""
    candidates = tuple(candidates)
    ids = select(client, args, candidates)
    if not ids:
        return _nothing(client, args, candidates)
    if len(ids) <= FEW:
        return _one_by_one(args, ids, verb, done)
    changed: list[Any] = []
    refused: list[Any] = []
    for some in _pieces(ids, _AT_ONCE):
        answer = client.act(name, some, **words)
        if answer is None:
            return _one_by_one(args, ids, verb, done)
        for item in answer:
            (refused if "error" in item else changed).append(item)
    from gpuq.client.errors import from_error

    code = tell_refused([(item["id"], from_error(item["error"])) for item in refused])
    if args.flag("json"):
        print_json([job for some in _pieces(changed, 1000) for job in _as_they_are(client, some)])
    else:
        print(_summary(changed, done))
    return code


def _summary(changed: list[Any], done: str) -> str:
    """`9,998 jobs cancelled, 2 are being stopped`."""
    stopping = sum(item["state"] == "stopping" for item in changed) if done == "cancelled" else 0
    text = f"{len(changed) - stopping:,} jobs {done}"
    return f"{text}, {stopping:,} {'is' if stopping == 1 else 'are'} being stopped" if stopping else text


def _as_they_are(client: Calls, some: list[Any]) -> list[Any]:
    return client.jobs(ids=",".join(str(item["id"]) for item in some), limit=len(some))


def _pieces(items: list[Any], size: int) -> list[list[Any]]:
    return [items[start : start + size] for start in range(0, len(items), size)]


def _one_by_one(args: Args, ids: list[int], verb: Verb, done: str) -> int:
    changed: list[Any] = []
    code = act_on_each(ids, lambda job_id: changed.append(verb(job_id)))
    if args.flag("json"):
        print_json(changed)
    elif len(args.words) == 1 and args.words[0].isdigit() and len(changed) > 1:
        # An array by its one id: what is said of it is one line, however many it has.
        print(_summary(changed, done))
    else:
        for job in changed:
            print(_changed_line(job))
    return code


def _nothing(client: Calls, args: Args, candidates: tuple[str, ...]) -> int:
    """Nothing that was named is one of `candidates`, the states. Raises NotFound and WrongState where ranges of ids
    were named: those who wrote them believe that something is there."""
    name = args.command.name
    if not args.any_of(FILTER_NAMES):
        words = ", ".join(args.words)
        counts = in_ranges(client, args.words)
        if counts:
            told = ", ".join(f"{count:,} {state}" for state, count in counts.items())
            raise WrongState(
                f"{name}: of jobs {words} none is {_either(candidates)} ({told})", hint=f"see `gpuq {name} --help`"
            )
        if counts is not None:
            raise NotFound(f"there are no jobs {words}", hint="`gpuq status -a` lists every job")
    if args.flag("json"):
        print_json([])
    else:
        print(f"nothing to {name}: no such job is {_either(candidates)}")
    return 0


def _either(states: tuple[str, ...]) -> str:
    return " or ".join(states) if len(states) < 3 else f"{', '.join(states[:-1])} or {states[-1]}"


def _changed_line(job: Any) -> str:
    from gpuq.cli.commands.job_detail import detail

    return f"{job_line(job)}, {detail(job)}" if job["state"] == "stopping" else job_line(job)
