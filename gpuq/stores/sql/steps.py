"""An upgrade in steps: one revision after the other, each in a transaction of its own.

Others can write between two steps, and an upgrade that was interrupted goes on with the step that was under way: what
it had done is there, and the copy that it made first is not made again.
"""

from __future__ import annotations

import sqlite3
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Smaller databases are upgraded before anybody wonders.
WORTH_TELLING = 64 << 20

Tell = Callable[[str], None]


def to_stderr(text: str) -> None:
    """A line for whoever waits for the upgrade."""
    sys.stderr.write(f"gpuq: {text}\n")
    sys.stderr.flush()


class Upgrade:
    """What a person is told of one SQLite database's upgrade, and what must be known after an interruption."""

    def __init__(self, path: Path, tell: Tell) -> None:
        self._path = path
        self._size = path.stat().st_size
        self._marker = path.with_name(f"{path.name}.upgrading")
        self._tell = tell

    def tell(self, text: str) -> None:
        """What is done now, of a database that is large enough to make somebody wait."""
        if self._size >= WORTH_TELLING:
            self._tell(text)

    def copy_first(self, revision: str, make: Callable[[Path], None]) -> None:
        """`make` writes a copy beside the database, unless an upgrade that did not come to its end has made one."""
        at = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        target = self._path.with_name(f"{self._path.name}.before-upgrade-from-{revision}-{at}")
        try:
            if (copy := target.with_name(self._marker.read_text())).exists():
                self.tell(f"an upgrade of the database goes on; the copy from before it is {copy}")
                return
        except FileNotFoundError:
            pass
        self.tell(f"the database is brought up to date; first a copy of its {self._size / 1e6:,.0f} MB: {target}")
        make(target)
        self._marker.write_text(target.name)

    def ended(self) -> None:
        """The next upgrade begins with a copy of its own."""
        self._marker.unlink(missing_ok=True)
        self.tell("the database is up to date")


def revisions_after(configuration: Any, before: str) -> list[str]:
    """The revisions that follow, the oldest first."""
    from alembic.script import ScriptDirectory

    scripts = ScriptDirectory.from_config(configuration)
    return [script.revision for script in scripts.iterate_revisions("head", before)][::-1]


def given_ids(connection: sqlite3.Connection) -> dict[str, int]:
    """Table → the last id that it gave, of a SQLite database."""
    try:
        return {str(table): int(last) for table, last in connection.execute("SELECT name, seq FROM sqlite_sequence")}
    except sqlite3.OperationalError as error:
        if "no such table" in str(error):
            return {}
        raise


def go_on_after(connection: sqlite3.Connection, given: dict[str, int]) -> None:
    """No id of before is given again."""
    for table, last in given.items():
        connection.execute("UPDATE sqlite_sequence SET seq = max(seq, ?) WHERE name = ?", (last, table))
        connection.execute(
            "INSERT INTO sqlite_sequence (name, seq) SELECT ?, ?"
            " WHERE NOT EXISTS (SELECT 1 FROM sqlite_sequence WHERE name = ?)",
            (table, last, table),
        )
