"""Commands that change jobs, and the queue as a whole."""

from __future__ import annotations

from gpuq.cli.connect import connect, print_json
from gpuq.cli.messages import act_on_each, job_line, tell
from gpuq.cli.parse.options import Args
from gpuq.cli.parse.select import ACTIVE, WAITING, select
from gpuq.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from gpuq.client.calls import Calls

    Verb = Callable[[int], dict[str, Any]]

# More jobs than these are done without a place in line and an estimate for each.
FEW = 10
# Jobs a request: each is answered soon enough to be interrupted at.
_AT_ONCE = 1000


def cancel(args: Args) -> int:
    """Cancels the chosen jobs that are not final. `--force` kills at once, `--grace` sets the seconds before
    SIGKILL."""
    client = connect()
    grace = args.seconds("grace")
    force = args.flag("force")
    if force and grace is not None:
        raise UsageError("--force and --grace cannot go together", hint="--force is a grace of none")
    reason = args.text("reason")
    return _each(
        client, args, WAITING + ACTIVE, lambda job_id: client.cancel(job_id, force=force, grace_s=grace, reason=reason)
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


def update(args: Args) -> int:
    """Changes the given fields of the chosen waiting jobs. Raises UsageError when no field is given."""
    from gpuq.cli.parse.spec import job_fields

    changes = job_fields(args)
    if not changes:
        raise UsageError("update: what shall change?", hint="gpuq update 7 --priority high --time 2h")
    client = connect()
    return _each(client, args, WAITING, lambda job_id: client.update(job_id, **changes))


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


def _all(client: Calls, args: Args, candidates: Iterable[str], verb: Verb, name: str, done: str) -> int:
    """Few jobs one by one, many in few requests. `done`: what became of them, as a participle."""
    ids = select(client, args, candidates)
    if len(ids) <= FEW:
        return _one_by_one(args, ids, verb)
    changed, code = _in_requests(client, ids, name)
    if args.flag("json"):
        print_json(
            [job for some in _pieces(changed) for job in client.jobs(ids=",".join(map(str, some)), limit=len(some))]
        )
    else:
        print(f"{len(changed):,} jobs {done}")
    return code


def _in_requests(client: Calls, ids: list[int], name: str) -> tuple[list[int], int]:
    """Which ids were done, and the largest exit code; the others are told on stderr."""
    from gpuq.client.errors import from_error

    changed: list[int] = []
    code = 0
    for some in _pieces(ids):
        for item in client.call("POST", f"/jobs/{name}", body={"ids": some}):
            if "error" in item:
                code = max(code, tell(from_error(item["error"])))
            else:
                changed.append(item["id"])
    return changed, code


def _pieces(ids: list[int]) -> list[list[int]]:
    return [ids[start : start + _AT_ONCE] for start in range(0, len(ids), _AT_ONCE)]


def _each(client: Calls, args: Args, candidates: Iterable[str], verb: Verb) -> int:
    return _one_by_one(args, select(client, args, candidates), verb)


def _one_by_one(args: Args, ids: list[int], verb: Verb) -> int:
    done: list[Any] = []
    code = act_on_each(ids, lambda job_id: done.append(verb(job_id)))
    if args.flag("json"):
        print_json(done)
    elif not ids:
        print("no such jobs")
    else:
        for job in done:
            print(_changed_line(job))
    return code


def _changed_line(job: Any) -> str:
    from gpuq.cli.commands.status import detail

    return f"{job_line(job)}, {detail(job)}" if job["state"] == "stopping" else job_line(job)
