"""Which tests execute a line, and how long each takes."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from coverage import CoverageData
from mutants import Mutant


@dataclass
class Tests:
    """`left_out`: did not pass while lines were mapped, so they can tell nothing."""

    seconds: dict[str, float] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)
    lines: dict[tuple[str, int], set[str]] = field(default_factory=lambda: defaultdict(set))

    def read(self, root: Path, notes: Path, coverage: Path) -> None:
        told = json.loads(notes.read_text())
        data = CoverageData(str(coverage))
        data.read()
        for name in data.measured_files():
            path = str(Path(name).relative_to(root))
            for line, contexts in data.contexts_by_lineno(name).items():
                self.lines[path, line] |= {context.rpartition("|")[0] for context in contexts if context}
        for test, facts in told.items():
            if not facts["passed"]:
                self.left_out.append(test)
                continue
            self.seconds[test] = facts["seconds"]
            for place in facts["lines"]:
                name, _, line = place.rpartition(":")
                self.lines[str(Path(name).relative_to(root)), int(line)].add(test)

    def of(self, mutant: Mutant) -> list[str]:
        """Shortest first. What is executed at import is given to all tests that execute anything of the file."""
        first, last = mutant.lines
        found = set().union(*(self.lines.get((mutant.path, line), set()) for line in range(first, last + 1)))
        if mutant.at_import:
            found |= set().union(*(tests for (path, _), tests in self.lines.items() if path == mutant.path))
        return sorted((test for test in found if test in self.seconds), key=lambda test: (self.seconds[test], test))
