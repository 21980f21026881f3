"""`gpuq drain` and `gpuq undrain`: planned maintenance of the machine or some of its GPUs."""

from __future__ import annotations

from gpuq.cli.commands.drain_line import drain_line
from gpuq.cli.commands.gpus import indices
from gpuq.cli.connect import connect, print_json, say
from gpuq.cli.parse.options import Args
from gpuq.cli.parse.times import parse_time
from gpuq.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def drain(args: Args) -> int:
    """Plans a drain, or shows the planned one. Raises UsageError for times that cannot be."""
    wanted = _wanted(args)
    client = connect()
    found = (client.plan_drain(**wanted) if wanted else client.planned_drain())["drain"]
    if args.flag("json"):
        print_json(found)
    elif found is None:
        say("gpuq: no drain is planned; `gpuq drain --at 18:00 --until 20:00` plans one")
    else:
        print(drain_line(found))
        if wanted:
            print("what would not end before does not start; `gpuq undrain` cancels it")
    return 0


def undrain(args: Args) -> int:
    """Cancels the planned drain, also one that has begun."""
    client = connect()
    before = client.planned_drain()["drain"]
    client.cancel_drain()
    print("no drain was planned" if before is None else "the drain is cancelled: jobs start as usual")
    return 0


def _wanted(args: Args) -> dict[str, Any] | None:
    at, until, reason = args.text("at"), args.text("until"), args.text("reason")
    if at is None:
        if until is not None or reason is not None or args.words:
            hint = "write `gpuq drain --at now`, or `gpuq gpus drain INDEX` for GPUs that have no end set"
            raise UsageError("drain: --at is missing", hint=hint)
        return None
    gpus = indices(args.words) if args.words else None
    begin = parse_time(at)
    # Counted from the beginning: `--at 14:00 --until 2h`, and the 16:00 that follows it.
    end = None if until is None else parse_time(until, now=begin)
    return {"at": begin, "until": end, "gpus": gpus, "reason": reason}
