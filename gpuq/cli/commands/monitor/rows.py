"""What stands on the screen, as plain text: cells of tables, lines about GPUs and jobs. Pure but for the clock.

Everything that comes from others leaves here by `shown_on_a_line`; nothing is ever read as markup.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.cells import cell_len, set_cell_size

from gpuq.cli.commands.job_columns import COLUMNS
from gpuq.cli.commands.job_detail import detail, ending, outgrown
from gpuq.cli.render import command_text, full_time, local_times, memory, since, span, when
from gpuq.domain.visible_text import shown_on_a_line

MARKED = "●"
NARROW = 110
STYLES = {
    "running": "green", "starting": "green", "stopping": "yellow", "queued": "cyan", "completed": "green",
    "failed": "red", "cancelled": "dim", "held": "yellow", "free": "green", "leased": "cyan", "shared": "cyan",
    "external": "yellow", "unhealthy": "red", "drained": "yellow",
}  # fmt: skip

# Heading, what stands in the column, and its most characters; the last one takes what is left.
_Columns = tuple[tuple[str, Callable[[Any], object], int], ...]


def _of(name: str, heading: str, most: int) -> tuple[str, Callable[[Any], object], int]:
    return heading, COLUMNS[name].cell, most


_QUEUE: _Columns = (
    _of("position", "POS", 6), _of("id", "ID", 8), _of("name", "NAME", 14), _of("user", "USER", 9),
    _of("gpus", "GPU", 3), _of("state", "STATE", 8), _of("start", "START", 17), ("WHY", detail, 0),
)  # fmt: skip
_HISTORY: _Columns = (
    _of("id", "ID", 8), _of("name", "NAME", 14), _of("user", "USER", 9), _of("gpus", "GPU", 3),
    _of("state", "STATE", 9), ("ENDED", lambda job: when(job["finished_at"]), 16), _of("time", "TOOK", 8),
    ("HOW", ending, 0),
)  # fmt: skip
_DEAD: _Columns = (
    _of("id", "ID", 8), _of("name", "NAME", 14), _of("user", "USER", 9),
    ("FAILED", lambda job: when(job["failed_at"]), 16), ("TRIES", lambda job: job["attempts"], 5),
    ("OUTCOME", lambda job: job["outcome"], 14), ("ERROR", lambda job: job["error"], 0),
)  # fmt: skip


def table(tab: str, jobs: Sequence[Any], width: int) -> tuple[list[tuple[str, int]], list[list[str]]]:
    """Headings with the widths of their columns, which fit into `width` characters, and the cells of each job."""
    columns = {"history": _HISTORY, "dead": _DEAD}.get(tab, _QUEUE)
    if tab == "mine":
        columns = tuple(column for column in columns if column[0] != "USER")
    cells = [[_cell(value(job)) for _, value, _ in columns] for job in jobs]
    sized = []
    left = width
    for place, (heading, _, most) in enumerate(columns):
        if heading == "NAME" and width >= NARROW:
            most = 30
        longest = max([cell_len(heading), *(cell_len(row[place]) for row in cells)])
        used = min(longest, most) if most else max(10, left)
        left -= used + 1
        sized.append((heading, used))
    return sized, cells


def _cell(value: object) -> str:
    return "" if value is None else shown_on_a_line(str(value))


def head(counts: Mapping[str, Any], *, readonly: bool) -> str:
    """What the first line says of the queue."""
    parts = [f"{counts['running']:,} running, {counts['waiting']:,} waiting"]
    if paused := counts.get("paused"):
        why = f": {paused['reason']}" if paused.get("reason") else ""
        parts.append(f"PAUSED by {paused['by']}{why}")
    if readonly:
        parts.append("read only")
    return shown_on_a_line(" · ".join(parts))


def gpu_lines(gpus: Sequence[Any], width: int, most: int) -> list[list[tuple[str, str]]]:
    """At most `most` lines, each of pieces (text, style). GPUs stand beside each other where there are more of them
    than that, and the last line counts those that there is no room for."""
    if not gpus:
        return [[("no GPUs here", "dim")]]
    beside = 1 if len(gpus) <= most else max(1, min(width // 38, -(-len(gpus) // most)))
    each = width // beside
    lines = [
        [piece for gpu in gpus[start : start + beside] for piece in _gpu(gpu, each)]
        for start in range(0, len(gpus), beside)
    ]
    if len(lines) > most:
        hidden = len(gpus) - (most - 1) * beside
        lines = [*lines[: most - 1], [(f"{hidden} more GPUs: `gpuq gpus`", "dim")]]
    return lines


def _gpu(gpu: Any, width: int) -> list[tuple[str, str]]:
    state = str(gpu["state"])
    busy = "  ?%" if gpu["utilisation"] is None else f"{gpu['utilisation'] * 100:3.0f}%"
    used, whole = gpu["used_mb"], gpu["memory_mb"]
    narrow = width < 60
    size = 4 if narrow else 10
    filled = 0 if not used or not whole else min(size, round(size * used / whole))
    amount = "" if narrow else f" {'?' if used is None else memory(used)}/{memory(whole)}".ljust(13)
    before = f"{gpu['index']:>2} "
    after = f" {busy} {'█' * filled}{'░' * (size - filled)}{amount} "
    room = width - len(before) - 9 - len(after) - 1
    return [
        (before, "bold"),
        (state.ljust(9)[:9], STYLES.get(state, "")),
        (after, ""),
        (set_cell_size(shown_on_a_line(holder(gpu)), max(0, room)) + " ", ""),
    ]


def holder(gpu: Any) -> str:
    """Who has the GPU: jobs, and in words what is not the queue's; why, of one that nobody may have."""
    said = [" ".join(filter(None, [str(job["id"]), job["name"], job["user"], outgrown(job)])) for job in gpu["jobs"]]
    said += [
        f"foreign: {process['user'] or 'unknown user'} pid {process['pid']} {process['command'] or ''}".rstrip()
        for process in gpu["processes"]
    ]
    if gpu["reason"] and not said:
        said.append(local_times(gpu["reason"]["text"]))
    return "; ".join(said)


def why_lines(job: Any, found: Any) -> list[str]:
    """What `gpuq why` says, and what the job is."""
    place = f", place {found['position']} in line" if found["position"] is not None else ""
    lines = [f"job {job['id']} {job['name']} is {job['state']}{place}"]
    lines += [
        f"  {reason['code']}: {local_times(reason['text'])}"
        for reason in found["reasons"] or ([found["reason"]] if found["reason"] else [])
    ]
    if found["estimated_start"]:
        lines.append(f"  it starts about {when(found['estimated_start'])}")
    if job["finished_at"] is None and job["started_at"]:
        lines.append(f"  {detail(job)}")
    if found.get("error"):
        lines.append(f"  {found['outcome']}: {found['error']}")
    elif job["finished_at"] is not None and ending(job):
        lines.append(f"  {ending(job)}")
    group = f", group {job['group']}" if job["group"] else ""
    lines += [
        f"{job['user']}{group}, {job['priority']} priority, {job['gpus']} GPUs"
        + (f", limit {span(job['time_limit_s'])}" if job["time_limit_s"] else ""),
        f"submitted {full_time(job['submitted_at'])}"
        + (f", started {full_time(job['started_at'])}" if job["started_at"] else "")
        + (f", ended {full_time(job['finished_at'])}" if job["finished_at"] else ""),
        f"in {job['cwd']}",
        command_text(job["command"]),
    ]
    return [shown_on_a_line(line) for line in lines]


def event_lines(job: Any, most: int) -> list[str]:
    """The newest `most` events, the last one below."""
    return [
        shown_on_a_line(
            f"{full_time(event['at'])}  {event['from_state'] or '–'} → {event['to_state']}  {event['actor']}  "
            f"{event['detail'] or ''}".rstrip()
        )
        for event in job["events"][-most:]
    ] or ["nothing has happened yet"]


def attempt_lines(job: Any, most: int) -> list[str]:
    """The newest `most` attempts, the last one below."""
    return [
        shown_on_a_line(
            f"{attempt['number']}  {attempt['outcome'] or 'running'}  {full_time(attempt['started_at'])}  "
            f"{since(attempt['started_at'], attempt['finished_at'])}  on {attempt['node'] or '?'}"
            f" gpu {','.join(map(str, attempt['gpu_indices'] or [])) or 'none'}  {ending(attempt)}".rstrip()
        )
        for attempt in job["attempts"][-most:]
    ] or ["it has not run yet"]
