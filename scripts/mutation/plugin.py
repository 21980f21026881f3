"""The two ways in which pytest runs here: all tests with notes on what each executes, or the chosen ones in order."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path

import pytest


class Chosen:
    """Only these tests, in this order."""

    def __init__(self, tests: list[str]) -> None:
        self._place = {test: place for place, test in enumerate(tests)}

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items[:] = sorted(
            (item for item in items if item.nodeid in self._place), key=lambda item: self._place[item.nodeid]
        )


class Mapping:
    """Writes {test: {seconds, passed, lines of processes of its own}} to `notes`."""

    def __init__(self, executed: Path, notes: Path) -> None:
        self._executed, self._notes = executed, notes
        self._seconds: dict[str, float] = defaultdict(float)
        self._bad: set[str] = set()
        self._lines: dict[str, list[str]] = {}
        executed.touch()
        # Some supervisors are other users.
        executed.chmod(0o666)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._seconds[report.nodeid] += report.duration
        if not report.passed:
            self._bad.add(report.nodeid)

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        if text := self._executed.read_text():
            self._lines[nodeid] = sorted(set(text.splitlines()))
            self._executed.write_text("")

    def pytest_sessionfinish(self) -> None:
        found = {
            test: {"seconds": seconds, "passed": test not in self._bad, "lines": self._lines.get(test, [])}
            for test, seconds in self._seconds.items()
        }
        self._notes.write_text(json.dumps(found))
