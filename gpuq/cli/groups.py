"""`gpuq group`, with limit."""

from __future__ import annotations

from gpuq.cli.connect import connect, print_json, say
from gpuq.cli.options import Args
from gpuq.cli.render import count, table
from gpuq.errors import UsageError

HEADER = ("GROUP", "RUNNING", "LIMIT", "WAITING", "LIMITED BY")


def groups(args: Args) -> int:
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
    group, word = args.words
    if not (word.isascii() and word.isdigit()):
        raise UsageError(f"{word!r} is not a number of jobs", hint="write `gpuq group limit NAME 2`; 0 is no limit")
    connect().limit_group(group, int(word))
    if int(word):
        print(f"at most {count(int(word), 'job')} of group {group} at once; what runs already goes on")
    else:
        print(f"group {group} has no limit")
    return 0
