"""`gpuq clean`: what finished jobs left on the disk."""

from __future__ import annotations

import sys

from gpuq.cli.connect import connect, print_json, say
from gpuq.cli.parse.options import Args
from gpuq.cli.parse.select import filters, resolve_ids
from gpuq.cli.render import count, memory
from gpuq.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from gpuq.client.calls import Calls


def clean(args: Args) -> int:
    """Says how much there is, asks, and removes it. Raises UsageError where nobody can be asked and `--yes` is not
    given. Exit code 1 when something could not be removed, or the answer was no."""
    client = connect()
    wanted = _wanted(client, args)
    found = client.clean(**wanted, dry_run=True)
    if args.flag("dry_run"):
        return _print(args, found, freed=False)
    if found["jobs"] and not args.flag("yes") and not _agreed(found, wanted):
        say("gpuq: nothing was removed")
        return 1
    return _print(args, {**_remove(client, wanted, found["jobs"]), "dead_letters": found["dead_letters"]}, freed=True)


def _wanted(client: Calls, args: Args) -> dict[str, Any]:
    chosen = filters(client, args)
    states = chosen.pop("state", None)
    wanted: dict[str, Any] = {**chosen, "checkpoints": args.flag("checkpoints")}
    if states:
        wanted["states"] = states.split(",")
    if (older := args.seconds("older_than")) is not None:
        wanted["older_than_s"] = older
    if args.words:
        wanted["ids"] = resolve_ids(client, args.words, arrays=True)
    return wanted


def _agreed(found: Any, wanted: dict[str, Any]) -> bool:
    if not sys.stdin.isatty():
        raise UsageError("clean: remove it?", hint="add --yes, or --dry-run to see how much it is")
    kept = "" if wanted["checkpoints"] else "; checkpoints stay"
    print(_text(found) + kept, file=sys.stderr)
    try:
        return input("Remove it for good? [y/N] ").strip().lower() in {"y", "yes"}
    except EOFError:
        return False


def _remove(client: Calls, wanted: dict[str, Any], most: int) -> dict[str, Any]:
    """Step by step, so that it can be interrupted between any two."""
    total: dict[str, Any] = {"dry_run": False, "output_bytes": 0, "checkpoint_bytes": 0}
    failed: dict[int, str] = {}
    jobs = 0
    after: int | None = 0
    while after is not None:
        done = client.clean(**wanted, after_id=after)
        for name in ("output_bytes", "checkpoint_bytes"):
            total[name] += done[name]
        jobs += done["jobs"]
        failed |= {item["id"]: item["message"] for item in done["failed"]}
        after = done["next_after_id"]
    # One whose output went with one step and its checkpoints with the next is one.
    return {
        **total,
        "jobs": min(jobs, most),
        "failed": [{"id": job_id, "message": why} for job_id, why in failed.items()],
    }


def _print(args: Args, found: Any, *, freed: bool) -> int:
    if args.flag("json"):
        wanted = ("dry_run", "jobs", "output_bytes", "checkpoint_bytes", "dead_letters", "failed")
        print_json({name: found[name] for name in wanted})
    else:
        print(_text(found) + (" removed" if freed and found["jobs"] else ""))
        if found["dead_letters"]:
            say(f"gpuq: {count(found['dead_letters'], 'dead letter')} left out; `gpuq dlq purge` drops them")
    for item in found["failed"]:
        say(f"gpuq: job {item['id']} was not cleaned: {item['message']}")
    return 1 if found["failed"] else 0


def _text(found: Any) -> str:
    """`12 jobs, 3.1G of output, 20.0G of checkpoints`."""
    if not found["jobs"]:
        return "nothing to clean"
    parts = [count(found["jobs"], "job"), f"{_size(found['output_bytes'])} of output"]
    if found["checkpoint_bytes"]:
        parts.append(f"{_size(found['checkpoint_bytes'])} of checkpoints")
    if found.get("not_measured"):
        parts.append(f"{found['not_measured']:,} of them not measured yet")
    return ", ".join(parts)


def _size(size: int) -> str:
    return memory(size / 2**20) if size >= 2**20 else f"{size // 1024}K"
