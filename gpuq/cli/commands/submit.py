"""`gpuq submit`."""

from __future__ import annotations

import sys

from gpuq.cli.connect import connect, print_json, say
from gpuq.cli.messages import submitted_line, tell_left_out
from gpuq.cli.parse.options import Args
from gpuq.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from gpuq.client.calls import Calls


def submit(args: Args) -> int:
    return _submit(args, wait=args.flag("wait"))


def submit_and_wait(args: Args) -> int:
    """For `gpuq run` where no output is streamed: it retries nothing that it was not asked to."""
    return _submit(args, wait=True, max_retries=0)


def _submit(args: Args, *, wait: bool, max_retries: int | None = None) -> int:
    """`max_retries`: of a job that names none; None: the daemon's default."""
    client = connect()
    if args.flag("json") and args.flag("parsable"):
        raise UsageError("--json and --parsable cannot go together", hint="choose one")
    if "--from-file" in args.command.flags() and args.given("from_file"):
        from gpuq.cli.parse.batch import read

        body: Any = read(args, client)
        if args.flag("test_only"):
            raise UsageError("--test-only looks at one job", hint="leave --from-file out")
    elif args.given("like"):
        from gpuq.cli.parse.like import read as read_like

        body = read_like(args, client)
    else:
        from gpuq.cli.parse.spec import build

        body = build(args, client)
        if max_retries is not None:
            body.setdefault("max_retries", max_retries)
        if args.flag("test_only"):
            return _test_only(client, body, as_json=args.flag("json"))
    if wait:
        client.require_daemon("`gpuq submit --wait`")
    answer = _post(client, args, body)
    _print(args, answer)
    if not wait:
        return 0
    from gpuq.cli.commands.wait import wait_for

    ids = [job["id"] for job in (answer if isinstance(answer, list) else [answer])]
    try:
        # Who reads the id from a pipe needs it now, not when the job has ended.
        sys.stdout.flush()
        return wait_for(client, ids)[1]
    except KeyboardInterrupt:
        several = f"jobs {ids[0]} to {ids[-1]} go" if len(ids) > 1 else f"job {ids[0]} goes"
        say(f"\ngpuq: {several} on; `gpuq wait {ids[0]}` waits for it again, `gpuq cancel {ids[0]}` ends it")
        raise


def _post(client: Calls, args: Args, body: Any) -> Any:
    answer = _posted(client, args, body)
    tell_left_out(client)
    return answer


def _posted(client: Calls, args: Args, body: Any) -> Any:
    if args.given("like"):
        jobs = client.submit_again(*body)
        return jobs if len(jobs) > 1 or jobs[0]["array_id"] is not None else jobs[0]
    if not isinstance(body, dict):
        from gpuq.cli.parse.batch import post

        return post(client, args.path("from_file") or "", body)
    return client.post_jobs(body, outlook=not args.flag("parsable"))


def _print(args: Args, answer: Any) -> None:
    jobs = answer if isinstance(answer, list) else [answer]
    if args.flag("json"):
        print_json(answer)
    elif args.flag("parsable"):
        # Its first element's id stands for an array.
        sys.stdout.write("".join(f"{job['id']}\n" for job in jobs if job["array_id"] in {None, job["id"]}))
    elif len(jobs) == 1:
        print(submitted_line(jobs[0]))
    else:
        ids = [job["id"] for job in jobs]
        in_a_row = ids == list(range(ids[0], ids[0] + len(ids)))
        print(f"{len(jobs):,} jobs: {f'{ids[0]}-{ids[-1]}' if in_a_row else ','.join(map(str, ids))}")


def _test_only(client: Calls, spec: Any, *, as_json: bool) -> int:
    answer = client.check(spec)
    if as_json:
        print_json(answer)
        return 0 if answer["ok"] else 4
    if not answer["ok"]:
        from gpuq.errors import Refused

        reason = answer["reason"] or {}
        raise Refused(f"it would be refused: {reason.get('text', 'no reason given')}", hint="nothing was queued")
    from gpuq.cli.render import when

    start = answer["estimated_start"]
    print(f"it could be queued; it would start {'about ' + when(start) if start else 'at a time nobody can tell yet'}")
    say("gpuq: --test-only: nothing was queued")
    return 0
