"""`gpuq simulate`: a trace of jobs replayed through this very scheduler in virtual time."""

from __future__ import annotations

import csv
import gzip
import io
import json
import math
import sys
import zlib
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import TextIO

from gpuq.domain.priority import Priority
from gpuq.domain.quantities import duration_text, parse_duration
from gpuq.domain.window import Window
from gpuq.errors import UsageError
from gpuq.scheduler.simulate import Replay, TraceJob, summary
from gpuq.scheduler.simulate import simulate as replay_trace

NEEDED = ("submit_s", "duration_s", "gpus")
# In characters; a trace of two years of a large cluster has 100 MB.
_LONGEST_LINE = 2**20
_LONGEST_TRACE = 2**30
COLUMNS = "columns submit_s, duration_s, gpus, user and, where there, limit_s and priority"


class Order(StrEnum):
    """How a simulated queue is sorted: by age and size, or first in, first out."""

    AGED = "aged"
    FIFO = "fifo"


class Backfill(StrEnum):
    """Which later jobs of a simulated queue may start early."""

    EASY = "easy"
    GREEDY = "greedy"
    NONE = "none"


class Expect(StrEnum):
    """Where a simulation takes expected run times from: earlier runs, or the trace itself."""

    HISTORY = "history"
    EXACT = "exact"


def simulate(
    trace: Path,
    *,
    gpus: int,
    nodes: int,
    order: Order,
    backfill: Backfill,
    expect: Expect,
    priority_aging: str | None,
    user_spacing: str,
    drain: str | None,
    out: Path | None,
    plot: Path | None,
    as_json: bool,
) -> None:
    """Replays the trace, writes and draws what was asked for, and prints the numbers. Raises UsageError.

    limit_s is what the user declared with --time: a job that would run longer is killed at it. Jobs that ask for more
    GPUs than a node has are left out.
    """
    if plot is not None:
        _needs_matplotlib()
    jobs = read_trace(trace)
    replay = replay_trace(
        jobs,
        gpus=gpus,
        nodes=nodes,
        order=order.value,
        backfill=backfill.value,
        expect=expect.value,
        priority_aging_s=_aging(priority_aging),
        user_spacing_s=parse_duration(user_spacing),
        window=_window(drain),
    )
    if replay.impossible:
        print(f"{len(replay.impossible)} jobs ask for more than {gpus} GPUs and are left out", file=sys.stderr)
    if out is not None:
        write_schedule(replay, out)
    if plot is not None:
        draw(replay, plot)
    numbers = summary(replay)
    if as_json:
        print(json.dumps({**numbers, "left_out": len(replay.impossible)}))
    else:
        _print_table(numbers)


def _window(text: str | None) -> Window | None:
    """From `2d/12h`: a drain two days into the trace, for twelve hours. Raises UsageError."""
    if text is None:
        return None
    at, slash, length = text.partition("/")
    seconds = parse_duration(length) if slash else 0.0
    if seconds <= 0:
        raise UsageError(f"--drain: {text!r} has no length", hint="write --drain 2d/12h: after two days, for 12 hours")
    begin = parse_duration(at)
    return Window(begin, begin + seconds, None, "the trace")


def _aging(text: str | None) -> float | None:
    """Seconds; None, for 0 too: no ageing, as in the settings."""
    return None if text is None else parse_duration(text) or None


def read_trace(path: Path) -> list[TraceJob]:
    """Raises UsageError, with the line where it is known."""
    try:
        # Opened once, so that it may be a pipe.
        with path.open("rb") as file:
            zipped = file.peek(2)[:2] == b"\x1f\x8b"
            plain = gzip.GzipFile(fileobj=file) if zipped else file
            with io.TextIOWrapper(plain, encoding="utf-8", newline="") as text:
                return list(_jobs(csv.DictReader(_lines(text, path)), path))
    except (OSError, EOFError, zlib.error, UnicodeError, csv.Error) as error:
        hint = f"a trace is a CSV file with {COLUMNS}"
        why = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise UsageError(f"cannot read the trace {path}: {why}", hint=hint) from None


def _lines(text: TextIO, path: Path) -> Iterator[str]:
    """Raises UsageError for what goes on like no trace does: a line without an end, or a bomb of zeros."""
    total = 0
    while line := text.readline(_LONGEST_LINE + 1):
        total += len(line)
        if len(line) > _LONGEST_LINE or total > _LONGEST_TRACE:
            what = "a line" if len(line) > _LONGEST_LINE else "the whole"
            raise UsageError(f"{path} is no trace: {what} is too long", hint=f"a trace is a CSV file with {COLUMNS}")
        yield line


def _jobs(rows: csv.DictReader[str], path: Path) -> Iterator[TraceJob]:
    missing = [name for name in NEEDED if name not in (rows.fieldnames or ())]
    if missing:
        raise UsageError(f"{path} has no column {', '.join(missing)}", hint=f"a trace has the {COLUMNS}")
    for row, values in enumerate(rows):
        try:
            yield TraceJob(
                row=row,
                submit_s=_number(values, "submit_s"),
                duration_s=_number(values, "duration_s"),
                gpus=int(_number(values, "gpus", whole=True)),
                user=values.get("user") or "",
                limit_s=_number(values, "limit_s", positive=True) if values.get("limit_s") else None,
                priority=Priority.parse((values.get("priority") or "normal").strip()),
            )
        except UsageError as error:
            raise UsageError(f"{path}, line {rows.line_num}: {error.message}", hint=error.hint) from None


def _number(values: dict[str, str], name: str, *, whole: bool = False, positive: bool = False) -> float:
    text = values.get(name) or ""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number) or number < 0 or (positive and number == 0) or (whole and number % 1):
        wanted = f"{'whole ' if whole else ''}number {'above 0' if positive else 'from 0 on'}"
        raise UsageError(f"{name} is {text!r}, not a {wanted}")
    return number


def write_schedule(replay: Replay, path: Path) -> None:
    """`row,start_s,end_s,node,gpus`, by row; GPU indices joined by `;`."""
    try:
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["row", "start_s", "end_s", "node", "gpus"])
            for one in replay.placements:
                writer.writerow([one.job.row, one.start_s, one.end_s, one.node, ";".join(map(str, one.gpus))])
    except OSError as error:
        raise UsageError(f"cannot write the schedule: {error}") from None


def _print_table(numbers: dict[str, float | int]) -> None:
    for name, value in numbers.items():
        if name.endswith("_s"):
            print(f"{name:20} {value:14.1f}   {duration_text(value)}")
        elif name == "utilisation":
            print(f"{name:20} {value:14.3f}")
        else:
            print(f"{name:20} {value:14}")


def _needs_matplotlib() -> None:
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError:
        raise UsageError("--plot needs matplotlib", hint="install it with: pip install 'gpu-job-queue[plot]'") from None


def draw(replay: Replay, path: Path) -> None:
    """GPUs in use and jobs waiting over time, and below them how many jobs waited at most so long."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 8), layout="constrained")
    over_time, waits = figure.subplots(2, 1)
    hours, busy = _steps(replay, [(p.start_s, p.end_s, p.job.gpus) for p in replay.placements])
    over_time.step(hours, busy, where="post", label="GPUs in use", linewidth=0.8)
    hours, waiting = _steps(replay, [(p.job.submit_s, p.start_s, 1) for p in replay.placements])
    over_time.set(xlabel="hours since the first submission", ylabel="GPUs in use", ylim=(0, None))
    queue = over_time.twinx()
    queue.step(hours, waiting, where="post", color="tab:orange", label="jobs waiting", linewidth=0.8)
    queue.set(ylabel="jobs waiting", ylim=(0, None))
    figure.legend(loc="outside upper right", ncols=2)
    sorted_waits = sorted(p.wait_s / 3600 for p in replay.placements)
    waits.step(sorted_waits, [(n + 1) / len(sorted_waits) for n in range(len(sorted_waits))], where="post")
    waits.set(xlabel="hours of waiting", ylabel="share of jobs that waited no longer", ylim=(0, 1))
    waits.set_xscale("symlog", linthresh=1 / 60)
    waits.set_xlim(left=0)
    try:
        figure.savefig(path, dpi=120)
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot draw {path}: {error}", hint="name a .png, .svg or .pdf file") from None


def _steps(replay: Replay, spans: list[tuple[float, float, int]]) -> tuple[list[float], list[int]]:
    """Hours since the first submission, and the sum of the spans' weights from then on."""
    changes = sorted([(start, weight) for start, _, weight in spans] + [(end, -weight) for _, end, weight in spans])
    origin = min((placement.job.submit_s for placement in replay.placements), default=0.0)
    times, levels, level = [0.0], [0], 0
    for at, change in changes:
        level += change
        times.append((at - origin) / 3600)
        levels.append(level)
    return times, levels
