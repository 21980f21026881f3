"""Survivors that no test can find: `tests/mutation/equivalent.toml`, and whether its entries still name the code."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mutants import Mutant


@dataclass(frozen=True)
class Accepted:
    """One entry. Lines without their margin; `line` may be several. `after`: the line before it, for one that stands
    more than once in its file; None where it does not matter."""

    file: str
    line: str
    becomes: str
    why: str
    after: str | None = None

    def matches(self, mutant: Mutant) -> bool:
        """Whether this is the mutant that the entry speaks of."""
        return (self.file, self.line, self.becomes) == (mutant.path, mutant.before, mutant.after) and (
            self.after is None or self.after == mutant.previous
        )

    def places(self, root: Path) -> int:
        """How often the line stands in its file as the entry says; 0 for an entry whose code has changed."""
        path = root / self.file
        text = [line.strip() for line in path.read_text().splitlines()] if path.is_file() else []
        wanted = self.line.splitlines()
        return sum(
            text[at : at + len(wanted)] == wanted and (self.after is None or (at > 0 and text[at - 1] == self.after))
            for at in range(len(text))
        )


def read_accepted(path: Path) -> list[Accepted]:
    """Raises KeyError for an entry without its file, line, mutated line or reason, TypeError for one with more."""
    entries = tomllib.loads(path.read_text()).get("mutant", [])
    return [
        Accepted(
            **{name: entry[name].strip() for name in ("file", "line", "becomes", "why")},
            **{name: text.strip() for name, text in entry.items() if name not in {"file", "line", "becomes", "why"}},
        )
        for entry in entries
    ]
