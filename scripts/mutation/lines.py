"""Which tests execute a line, and how long each takes."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from coverage import CoverageData
from mutants import Mutant

ROOT = Path(__file__).resolve().parent.parent.parent


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
        """Shortest first. What is executed at import is given to all tests that execute anything of the file,
        or else of those that import it."""
        first, last = mutant.lines
        found = set().union(*(self.lines.get((mutant.path, line), set()) for line in range(first, last + 1)))
        if mutant.at_import:
            # A file that only declares values is executed by nobody later: those who import it use them.
            found |= self._executing({mutant.path}) or self._executing(importers(mutant.path))
        return sorted((test for test in found if test in self.seconds), key=lambda test: (self.seconds[test], test))

    def _executing(self, files: set[str]) -> set[str]:
        return set().union(*(tests for (path, _), tests in self.lines.items() if path in files))


@lru_cache
def importers(path: str) -> set[str]:
    """The files of the package that import names from this one."""
    module = path.removesuffix(".py").replace("/", ".")
    package, _, name = module.rpartition(".")
    words = re.compile(
        rf"^\s*(?:(?:from|import) {re.escape(module)}\b|from {re.escape(package)} import .*\b{name}\b)", re.MULTILINE
    )
    files = (ROOT / "gpuq").rglob("*.py")
    return {str(file.relative_to(ROOT)) for file in files if words.search(file.read_text())}
