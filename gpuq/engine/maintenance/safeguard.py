"""What is durable is noted in the home, and SQLite's log goes into its file: so that a database of the past is
recognised, and a copy of the file alone lacks a minute at most."""

from __future__ import annotations

from gpuq.engine.context import Context


def safeguard(ctx: Context) -> None:
    """Costs a read when nothing has changed. Raises DatabaseUnavailable."""
    if ctx.safeguard is not None:
        ctx.safeguard()
