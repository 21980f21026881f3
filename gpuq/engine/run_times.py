"""Run-time expectations shared by the agent and the API of one process, learned from history."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from gpuq.ports.history import FinishedRun, History
from gpuq.scheduler.expect import Expectation, Expectations

LEARN_FROM = 5000


class RunTimes:
    """Expected run times, learned from finished runs. Thread-safe. The agent passes every end to `learn`; other
    processes `refresh` from the runs that SQL has gained since."""

    def __init__(self, history: History) -> None:
        self._history = history
        self._expectations = Expectations()
        self._lock = threading.Lock()
        self._until = 0.0

    def refresh(self) -> None:
        """Learns what ended after the last end that it knows."""
        for run in self._history.finished_runs(limit=LEARN_FROM, since=self._until):
            self.learn(run)

    def learn(self, run: FinishedRun) -> None:
        """Adds one finished run to what later run times are expected from."""
        with self._lock:
            self._until = max(self._until, run.finished_at)
            self._expectations.learn(run)

    def expect(
        self,
        user: str,
        command: Sequence[str],
        gpus: int,
        time_limit_s: float | None,
        elapsed_s: float = 0.0,
        *,
        use_median: bool = False,
    ) -> Expectation:
        """For the whole run, of a job that has run for `elapsed_s` already. Seconds. `use_median`: the
        median, for estimates that people read; otherwise the mean, which reservations rest on."""
        with self._lock:
            return self._expectations.expect(user, command, gpus, time_limit_s, elapsed_s, use_median=use_median)
