"""What was: `gpuq history`, `gpuq report`, `gpuq sql`."""

from __future__ import annotations

import sys

from gpuq.cli.commands.job_detail import detail
from gpuq.cli.commands.status import row_limit
from gpuq.cli.connect import connect, print_json
from gpuq.cli.fitting import fitted
from gpuq.cli.parse.options import Args, require_text
from gpuq.cli.parse.select import FINAL, MANY, filters, matches, resolve_ids
from gpuq.cli.render import cut, full_time, since, table
from gpuq.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from gpuq.client.calls import Calls

HEADER = ("ID", "STATE", "USER", "PRIO", "GPUS", "NAME", "FINISHED", "WAITED", "RAN", "TRIES", "END")
RIGHT = ("ID", "GPUS", "WAITED", "RAN", "TRIES")
# What a narrow terminal does without, so that it is seen how the jobs ended.
LESS = (("PRIO", 0), ("NAME", 16), ("TRIES", 0), ("WAITED", 0), ("USER", 8), ("NAME", 10), ("USER", 0))


def history(args: Args) -> int:
    """Prints finished jobs. Raises UsageError for a state that is not final."""
    client = connect()
    wanted = filters(client, args)
    wrong = [state for state in wanted.get("state", "").split(",") if state and state not in FINAL]
    if wrong:
        raise UsageError(f"history holds finished jobs, not {wrong[0]} ones", hint="`gpuq status -s` shows those")
    limit = row_limit(args)
    # One more than is shown tells whether there are more.
    jobs = _fetch(client, args, wanted, MANY if limit is None else min(limit + 1, MANY))
    shown = jobs[:limit]
    if args.flag("json"):
        print_json(shown)
        return 0
    if shown:
        print(fitted(HEADER, [_row(job) for job in shown], matters="END", less=LESS, right=RIGHT))
    print(
        f"the newest {len(shown):,} shown; --limit or --all"
        if len(shown) < len(jobs)
        else f"{len(shown):,} finished {'job' if len(shown) == 1 else 'jobs'}"
    )
    return 0


def _fetch(client: Calls, args: Args, wanted: dict[str, Any], limit: int) -> list[Any]:
    start, end = _moment(args, "since"), _moment(args, "until")
    if not args.words:
        return client.history(**wanted, since=start, until=end, limit=limit)
    ids = set(resolve_ids(client, args.words))
    found = client.history(**wanted, since=start, until=end, limit=MANY)
    return [job for job in found if job["id"] in ids and matches(job, wanted)][:limit]


def _moment(args: Args, name: str) -> float | None:
    text = args.text(name)
    if text is None:
        return None
    from gpuq.cli.parse.times import parse_time

    return parse_time(text, past=True)


def _row(job: Any) -> list[str]:
    return [
        str(job["id"]),
        job["state"],
        job["user"],
        job["priority"],
        str(job["gpus"]),
        cut(job["name"], 24),
        full_time(job["finished_at"]),
        since(job["submitted_at"], job["started_at"] or job["finished_at"]),
        since(job["started_at"], job["finished_at"]),
        str(job["attempt"]),
        detail(job),
    ]


def report(args: Args) -> int:
    """Prints one of the reports on past runs. Raises UsageError for an unknown kind."""
    kind = args.words[0]
    kinds = ("usage", "waits", "failures", "utilization", "disk")
    if kind not in kinds:
        raise UsageError(f"unknown report {kind!r}", hint="there are: " + ", ".join(kinds))
    if kind == "disk" and args.any_of(("since", "until")):
        raise UsageError(
            "report disk tells what is there now; --since and --until have no meaning", hint="leave it out"
        )
    by = _grouping(args, kind)
    found = connect().report(kind, by=by, since=_moment(args, "since"), until=_moment(args, "until"))
    if not args.any_of(("json", "csv")):
        # The other times are the reader's; a day that was added up is the daemon's.
        found["columns"] = ["day (UTC)" if name == "day" else name for name in found["columns"]]
    _print_table(args, found)
    return 0


def _grouping(args: Args, kind: str) -> str:
    """What --by says, once each. Raises UsageError."""
    possible = ("user", "group", "job") if kind == "disk" else ("user", "group", "gpu", "day")
    keys = list(dict.fromkeys(args.parts("by"))) or ["user"]
    for key in keys:
        if key not in possible:
            raise UsageError(f"--by: {key!r} is not possible", hint="use " + ", ".join(possible))
    if len(keys) > 1 and kind in {"disk", "utilization"}:
        raise UsageError(f"report {kind} groups by one thing", hint="use " + ", ".join(possible))
    return ",".join(keys)


def sql(args: Args) -> int:
    """Runs a read-only SQL statement on the history and prints its rows."""
    _print_table(args, connect().sql(require_text(args.words[0], "the question")))
    return 0


def _print_table(args: Args, found: Any) -> None:
    columns, rows = found["columns"], found["rows"]
    if args.flag("json") and args.flag("csv"):
        raise UsageError("--json and --csv cannot go together", hint="choose one")
    if args.flag("json"):
        print_json([dict(zip(columns, row, strict=True)) for row in rows])
    elif args.flag("csv"):
        import csv

        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)
    elif rows:
        numbers = [
            name
            for place, name in enumerate(columns)
            if all(row[place] is None or isinstance(row[place], (int, float)) for row in rows)
        ]
        print(table(columns, [[_cell(value) for value in row] for row in rows], right=numbers, state=""))
    else:
        print("no rows")


def _cell(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:g}" if isinstance(value, float) and abs(value) < 1e6 else str(value)
