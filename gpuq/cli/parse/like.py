"""`gpuq submit --like 7`: an earlier job of one's own, and what is to be different."""

from __future__ import annotations

from gpuq.cli.parse.options import Args
from gpuq.cli.parse.spec import added_environment, command_of, directory, job_fields
from gpuq.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from gpuq.client.calls import Calls


def read(args: Args, client: Calls) -> tuple[int, dict[str, Any]]:
    """The job, and the fields of a submission that the line changes. Raises UsageError, NotFound."""
    from gpuq.cli.parse.select import one, resolve_ids

    for name in ("env_all", "env_none", "test_only"):
        if args.given(name):
            raise UsageError(
                f"--like and --{name.replace('_', '-')} cannot go together",
                hint="the environment is the earlier job's; --env and --env-keep add to it, --env-drop takes from it",
            )
    word = args.text("like") or ""
    changes: dict[str, Any] = {}
    if args.words or args.given("shell"):
        command, args, script = command_of(args)
        changes["command"] = command
        if script is not None:
            changes["script"] = script.text
    job_id = one(client, word)
    if "_" in word:
        # The id of its first element would stand for the whole array.
        changes["array"] = word.rpartition("_")[2]
    if args.given("chdir"):
        changes["cwd"] = directory(args.text("chdir"))
    changes.update(added_environment(args, client))
    changes.update(job_fields(args))
    for field in ("after", "after_any"):
        if words := args.parts(field):
            changes[field] = resolve_ids(client, words, arrays=True)
    return job_id, changes
