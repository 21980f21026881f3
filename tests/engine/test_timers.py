"""When the maintenance tasks run."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from gpuq.engine import timers
from gpuq.engine.node_lock import FileLock


def test_a_retry_that_falls_due_while_others_are_promoted_does_not_wait_for_the_next_round(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked, may_end, again = threading.Event(), threading.Event(), threading.Event()

    def promote(ctx: Any) -> None:
        if looked.is_set():
            again.set()
            return
        looked.set()
        assert may_end.wait(30)

    monkeypatch.setattr(timers, "promote", promote)
    skipped = threading.Event()
    maintenance = timers.Maintenance(world.ctx, FileLock(world.settings.home / "maintain.lock", "maintenance"))
    maintenance._scheduler.add_listener(lambda event: skipped.set(), timers.EVENT_JOB_MAX_INSTANCES)
    maintenance.start()
    try:
        assert looked.wait(30)
        world.ctx.notifier.publish("delayed")
        assert skipped.wait(30)
        may_end.set()
        assert again.wait(timers.PROMOTE_S / 3)
    finally:
        may_end.set()
        maintenance.stop()
