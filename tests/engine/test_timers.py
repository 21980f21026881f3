"""When the maintenance tasks run."""

from __future__ import annotations

import logging
import threading
from typing import Any

import pytest

from gpuq.engine.file_lock import FileLock
from gpuq.engine.maintenance import timers


class _Said(logging.Handler):
    """Sets `event` when these words are logged."""

    def __init__(self, words: str) -> None:
        super().__init__()
        self._words = words
        self.event = threading.Event()

    def emit(self, record: logging.LogRecord) -> None:
        if self._words in record.getMessage():
            self.event.set()


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
    skipped = _Said("maximum number of running instances")
    monkeypatch.setattr(logging.getLogger("apscheduler.scheduler"), "handlers", [skipped])
    maintenance = timers.Maintenance(world.ctx, FileLock(world.settings.home / "maintain.lock", "maintenance"))
    maintenance.start()
    try:
        assert looked.wait(30)
        world.ctx.notifier.publish("delayed")
        assert skipped.event.wait(30)
        may_end.set()
        assert again.wait(timers.PROMOTE_S / 3)
    finally:
        may_end.set()
        maintenance.stop()
