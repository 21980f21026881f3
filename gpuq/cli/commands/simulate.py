"""`gpuq simulate`: from the command table to the replay."""

from __future__ import annotations

from pathlib import Path

from gpuq.cli.commands import replay
from gpuq.cli.parse.options import Args
from gpuq.errors import UsageError

MOST = 1024


def simulate(args: Args) -> int:
    """Replays a trace of jobs against the scheduler and prints what it would have done; needs no daemon."""
    replay.simulate(
        Path(args.words[0]),
        gpus=_count(args, "gpus", 8),
        nodes=_count(args, "nodes", 1),
        order=replay.Order(args.choice("order", [*replay.Order], "aged")),
        backfill=replay.Backfill(args.choice("backfill", [*replay.Backfill], "easy")),
        expect=replay.Expect(args.choice("expect", [*replay.Expect], "history")),
        priority_aging=args.text("priority_aging"),
        user_spacing=args.text("user_spacing") or "0",
        drain=args.text("drain"),
        out=_path(args, "out"),
        plot=_path(args, "plot"),
        as_json=args.flag("json"),
    )
    return 0


def _count(args: Args, name: str, default: int) -> int:
    number = args.integer(name, least=1)
    if number is not None and number > MOST:
        raise UsageError(f"--{name}: at most {MOST}, not {number}")
    return default if number is None else number


def _path(args: Args, name: str) -> Path | None:
    text = args.path(name)
    return None if text is None else Path(text)
