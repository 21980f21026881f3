"""`gpuq group`, with limit."""

from __future__ import annotations

from gpuq.cli.connect import connect, print_json, say
from gpuq.cli.parse.options import LONGEST_NUMBER, Args, require_text
from gpuq.cli.render import count, table
from gpuq.errors import UsageError

HEADER = ("GROUP", "RUNNING", "LIMIT", "WAITING", "LIMITED BY")

# As much as the daemon takes.
MOST = 1_000_000


def groups(args: Args) -> int:
    """Prints the groups that have jobs or a limit."""
    rows = connect().groups()
    if args.flag("json"):
        print_json(rows)
    elif rows:
        cells = [
            [row["group"], str(row["running"]), str(row["limit"] or ""), str(row["waiting"]), row["limited_by"] or ""]
            for row in rows
        ]
        print(table(HEADER, cells, right=("RUNNING", "LIMIT", "WAITING")))
    else:
        say("gpuq: no group has jobs or a limit; `gpuq submit --group NAME` puts a job in one")
    return 0


def limit(args: Args) -> int:
    """Sets how many jobs of a group may run at once; 0 removes the limit. Raises UsageError for a bad name or
    number."""
    group, word = args.words
    require_text(group, "the group's name")
    if not 1 <= len(group) <= 200 or not group.isprintable():
        raise UsageError(
            f"group limit: {group!r} is not the name of a group", hint="a name has 1 to 200 characters on one line"
        )
    if not (word.isascii() and word.isdigit()):
        raise UsageError(f"{word!r} is not a number of jobs", hint="write `gpuq group limit NAME 2`; 0 is no limit")
    if len(word) > LONGEST_NUMBER or int(word) > MOST:
        raise UsageError(f"group limit: at most {MOST}, not {word}", hint="0 is no limit")
    connect().limit_group(group, int(word))
    if int(word):
        print(f"at most {count(int(word), 'job')} of group {group} at once; what runs already goes on")
    else:
        print(f"group {group} has no limit")
    return 0
