"""The columns of a listing of jobs: their names, what stands in them, and which of them a terminal has room for.

Pure but for the clock: jobs as the daemon answers them in, lines of text out.
"""

from __future__ import annotations

from gpuq.cli.commands.job_detail import detail, index_text
from gpuq.cli.render import about, cells_of, command_text, cut, full_time, since, span, table, when
from gpuq.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

ACTIVE = frozenset({"starting", "running", "stopping"})
DEFAULT = ("id", "array", "state", "user", "priority", "gpus", "name", "position", "time", "start", "why")
# What a reason is worth, in columns, before others are given up for it, and in which order: 0 is left out.
WHY_LEAST = 30
NAME_MOST = 24
LESS = (
    ("priority", 0), ("name", 16), ("position", 0), ("start", 0), ("array", 0),
    ("user", 8), ("name", 10), ("time", 0), ("user", 0),
)  # fmt: skip


class Column:
    """`says`: what it holds, for `--format help`."""

    __slots__ = ("cell", "heading", "right", "says")

    def __init__(self, heading: str, says: str, cell: Callable[[Any], object], *, right: bool = False) -> None:
        self.heading = heading
        self.says = says
        self.cell = cell
        self.right = right


def _is_waiting(job: Any) -> bool:
    return job["finished_at"] is None and job["state"] not in ACTIVE


def _array(job: Any) -> str:
    return f"{job['array_id']}_{job['array_index']}" if job["array_id"] is not None else ""


def _id(job: Any) -> str:
    lump = job.get("lump")
    if lump is None:
        return str(job["id"])
    first, last = lump["first_index"], lump["last_index"]
    return f"{job['array_id']}_[{first}-{last}]" if first != last else f"{job['array_id']}_{first}"


def _time(job: Any) -> str:
    return since(job["submitted_at"]) if _is_waiting(job) else since(job["started_at"], job["finished_at"])


def _start(job: Any) -> str:
    if not _is_waiting(job):
        return when(job["started_at"])
    if job["estimated_start"]:
        return f"~{about(job['estimated_start'], job.get('estimated_start_range'))}"
    expected = job.get("eligible_at") if job["state"] == "delayed" else None
    return f"~{when(expected)}" if expected else ""


def _end(job: Any) -> str:
    return about(job["estimated_end"], job.get("estimated_end_range"))


def _why(job: Any) -> str:
    return ", ".join(part for part in (lump_text(job.get("lump")), detail(job)) if part)


def lump_text(lump: Any) -> str:
    """`12 done, 3 running, 1 failed`: how the elements of an array fare. How many wait stands in their indices, unless
    some between do not wait."""
    if lump is None:
        return ""
    named = [("completed", "done"), ("active", "running"), ("failed", "failed"), ("cancelled", "cancelled")]
    if lump["waiting"] != lump["last_index"] - lump["first_index"] + 1:
        named.insert(0, ("waiting", "waiting"))
    return ", ".join(f"{lump[name]:,} {word}" for name, word in named if lump[name])


COLUMNS: dict[str, Column] = {
    "id": Column("ID", "the job's id; of waiting elements of an array in one line: 9_[17-199]", _id, right=True),
    "array": Column("ARRAY", "array and index: 9_17", lambda job: "" if job.get("lump") else _array(job)),
    "state": Column("STATE", "blocked, held, delayed, queued, starting, running …", lambda job: job["state"]),
    "user": Column("USER", "who submitted it", lambda job: job["user"]),
    "group": Column("GROUP", "its group", lambda job: job["group"]),
    "priority": Column("PRIO", "critical, high, normal or low", lambda job: job["priority"]),
    "gpus": Column("GPUS", "how many GPUs it asks for", lambda job: job["gpus"], right=True),
    "gpu": Column("GPU", "the indices of those that it has", lambda job: index_text(job["gpu_indices"])),
    "name": Column("NAME", "its name", lambda job: job["name"]),
    "position": Column("POS", "place in line", lambda job: job["position"], right=True),
    "time": Column("TIME", "how long it runs or ran; of a waiting job: waits", _time, right=True),
    "start": Column("START", "when it started; ~ when it is expected to", _start),
    "why": Column("DETAIL", "why it waits; GPUs, progress and expected end of one that runs; how it ended", _why),
    "reason": Column("REASON", "the code of why it waits", lambda job: (job["reason"] or {}).get("code")),
    "submitted": Column("SUBMITTED", "when it was submitted", lambda job: full_time(job["submitted_at"])),
    "started": Column("STARTED", "when it started", lambda job: full_time(job["started_at"])),
    "finished": Column("FINISHED", "when it ended", lambda job: full_time(job["finished_at"])),
    "end": Column("END", "when it is expected to end", _end),
    "limit": Column("LIMIT", "its time limit", lambda job: span(job["time_limit_s"]), right=True),
    "attempt": Column("TRY", "the number of its last attempt", lambda job: job["attempt"], right=True),
    "node": Column("NODE", "the machine that it runs on", lambda job: job["node"]),
    "exit": Column("EXIT", "its exit code", lambda job: job["exit_code"], right=True),
    "command": Column("COMMAND", "its command line", lambda job: command_text(job["command"])),
    "cwd": Column("DIRECTORY", "its working directory", lambda job: job["cwd"]),
}


def names_in(text: str, where: str) -> tuple[str, ...]:
    """Of `id,name,state,why`. Raises UsageError, naming `where` it comes from."""
    names = tuple(part.strip().lower() for part in text.split(",") if part.strip())
    for name in names:
        if name not in COLUMNS:
            raise UsageError(f"{where}: there is no column {name!r}", hint="there are: " + ", ".join(COLUMNS))
    if not names:
        raise UsageError(f"{where}: names no column", hint="write id,name,state,why; `--format help` tells them all")
    return names


def help_text() -> str:
    """Every column's name and what it holds."""
    widest = max(map(len, COLUMNS))
    lines = [f"{name.ljust(widest)}  {column.says}" for name, column in COLUMNS.items()]
    return "\n".join([*lines, f"the default is {','.join(DEFAULT)}, as far as the terminal has room"])


def lines(jobs: Sequence[Any], names: Sequence[str] | None, width: int | None) -> list[str]:
    """The heading and a line for each job. `names`: these columns, all of them; None: those of DEFAULT, and where
    `width` columns are too few, the least needed are left out. No line is longer than `width` (None: any length)."""
    most: dict[str, int] = {}
    if names is None:
        names, most = _fitting(jobs, width)
    columns = [COLUMNS[name] for name in names]
    longest = [most.get(name) for name in names]
    rows = [
        [cut(_text(column.cell(job)), limit) for column, limit in zip(columns, longest, strict=True)] for job in jobs
    ]
    header = [column.heading for column in columns]
    right = [column.heading for column in columns if column.right]
    return table(header, rows, right=right, limit=width).splitlines()


def _text(value: object) -> str:
    return "" if value is None else str(value)


def _fitting(jobs: Sequence[Any], width: int | None) -> tuple[list[str], dict[str, int]]:
    """Which columns there is room for beside a useful reason, and how long some of them may be."""
    most = {"name": NAME_MOST}
    if width is None:
        return list(DEFAULT), most
    needs = {}
    for name in DEFAULT:
        longest = max((cells_of(_text(COLUMNS[name].cell(job))) for job in jobs), default=0)
        if longest:
            needs[name] = max(len(COLUMNS[name].heading), longest)
    enough = min(max(WHY_LEAST, width // 3), needs.pop("why", 0))
    one_user = len({job["user"] for job in jobs}) == 1
    for name, shorter in (*LESS[:-4], *([("user", 0)] if one_user else []), *LESS[-4:]):
        if width - sum(min(need, most.get(column, need)) + 2 for column, need in needs.items()) >= enough:
            break
        most[name] = shorter
        if shorter == 0:
            needs.pop(name, None)
    return [name for name in DEFAULT if name in needs or name == "why"], most
