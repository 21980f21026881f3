"""A question to SQLite, on a connection of its own that can read the views and nothing else.

SQLite asks an authorizer for everything that a statement does, while it compiles it, and says through which view or
subquery a table is read. That name alone proves nothing: `WITH job_history AS (SELECT spec FROM specs) …` reads a table
through a subquery of that name. So what each view reads is learnt from SQLite first, column by column, and only those
columns can be read: whatever name they are read through, the view shows them anyway.
"""

import sqlite3
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

if TYPE_CHECKING:
    from gpuq.stores.sql.questions.reading_process import Answer, Ended, stop_being_root
else:
    # This folder is on the path of the process, gpuq is not: it would take longer to import than most answers take.
    from reading_process import Answer, Ended, stop_being_root

# Bytes of one value. Also what keeps one call of a function short, which nothing can interrupt.
VALUE_BYTES = 1_000_000
LIMITS = {
    sqlite3.SQLITE_LIMIT_LENGTH: VALUE_BYTES,
    sqlite3.SQLITE_LIMIT_SQL_LENGTH: 400_000,
    sqlite3.SQLITE_LIMIT_COLUMN: 500,
    sqlite3.SQLITE_LIMIT_COMPOUND_SELECT: 100,
    sqlite3.SQLITE_LIMIT_LIKE_PATTERN_LENGTH: 1_000,
    sqlite3.SQLITE_LIMIT_ATTACHED: 0,
    sqlite3.SQLITE_LIMIT_WORKER_THREADS: 0,
}
# Lists as rows, of SQLite's own: `FROM attempt_history, json_each(gpu_indices)`.
TABLE_FUNCTIONS = ("json_each", "json_tree")
_FUNCTIONS = (
    # Text and numbers.
    "abs char coalesce concat concat_ws format glob hex if ifnull iif instr length like likelihood likely lower ltrim"
    " max min nullif octet_length printf quote random replace round rtrim sign substr substring trim typeof unhex"
    " unicode unlikely upper"
    # Dates and times.
    " current_date current_time current_timestamp date datetime julianday strftime time timediff unixepoch"
    # Aggregates and windows.
    " avg count cume_dist dense_rank first_value group_concat lag last_value lead median nth_value ntile percent_rank"
    " percentile percentile_cont percentile_disc rank row_number string_agg sum total"
    # Mathematics.
    " acos acosh asin asinh atan atan2 atanh ceil ceiling cos cosh degrees exp floor ln log log10 log2 mod pi pow power"
    " radians sin sinh sqrt tan tanh trunc"
    # JSON.
    " -> ->> json json_array json_array_length json_extract json_group_array json_group_object json_insert json_object"
    " json_patch json_quote json_remove json_replace json_set json_type json_valid"
)
FUNCTIONS = frozenset(_FUNCTIONS.split())


def ask(asked: dict[str, Any], answer: Answer, deadline: float, cancel: list[Callable[[], object]]) -> None:
    """Writes the answer. Raises Ended with what the database refused or said."""
    refused: list[str] = []
    try:
        connection = _opened(asked["path"], asked["bounds"]["memory"])
        gate = Gate(connection, asked["views"], refused)
        stop_being_root()
        connection.set_progress_handler(lambda: time.monotonic() > deadline, 10_000)
        connection.set_authorizer(gate)
        cursor = connection.execute(asked["sql"])
        answer.write([column[0] for column in cursor.description or ()], cursor)
    except (sqlite3.Error, sqlite3.Warning) as error:
        name = getattr(error, "sqlite_errorname", None) or ""
        if refused:
            raise Ended("refused", words=refused[0]) from error
        if name == "SQLITE_INTERRUPT":
            raise Ended("time") from error
        if name == "SQLITE_TOOBIG" or "too big" in str(error):
            raise Ended("value", words=VALUE_BYTES) from error
        if name.startswith("SQLITE_NOMEM"):
            raise Ended("memory") from error
        raise Ended("failed", name=name, words=str(error)) from error


def _opened(path: str, memory: int) -> sqlite3.Connection:
    connection = sqlite3.connect(
        f"file:{quote(path)}?mode=ro", uri=True, isolation_level=None, timeout=5, cached_statements=0
    )
    connection.text_factory = lambda raw: raw.decode(errors="replace")
    for setting in (
        "PRAGMA query_only = ON",
        # Sorting happens within the memory that a question may use, not on a disk that others need.
        "PRAGMA temp_store = MEMORY",
        f"PRAGMA hard_heap_limit = {memory}",
    ):
        connection.execute(setting)
    for limit, most in LIMITS.items():
        connection.setlimit(limit, most)
    return connection


class Gate:
    """The authorizer. `refused`: takes what it did not allow, in words."""

    def __init__(self, connection: sqlite3.Connection, views: list[str], refused: list[str]) -> None:
        self.refused = refused
        self._views = frozenset(views)
        self._reads = _read_by(connection, self._views)
        for function in TABLE_FUNCTIONS:
            # Its table is made at its first use, which the gate would not allow.
            connection.execute(f"SELECT * FROM {function}('[]')").fetchall()
        modules = {name for (name,) in connection.execute("PRAGMA module_list")}
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        open_to_all = self._views | {table for _, table, _ in self._reads} | set(TABLE_FUNCTIONS)
        self._closed = frozenset((modules | tables) - open_to_all)

    def __call__(self, action: int, first: str | None, second: str | None, where: str | None, via: str | None) -> int:
        if action in {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_RECURSIVE}:
            return sqlite3.SQLITE_OK
        if action == sqlite3.SQLITE_FUNCTION and second is not None:
            if second.lower() in FUNCTIONS:
                return sqlite3.SQLITE_OK
            self.refused.append(f"the function {second} is not available here")
            return sqlite3.SQLITE_DENY
        if action == sqlite3.SQLITE_READ and first is not None:
            if self._may_read(first.lower(), second or "", where, (via or "").lower()):
                return sqlite3.SQLITE_OK
            self.refused.append(f"{first}: not shown here")
        return sqlite3.SQLITE_DENY

    def _may_read(self, table: str, column: str, where: str | None, via: str) -> bool:
        if column == "":
            # Counted, not read; also asked for a subquery, by whatever name it has.
            return table not in self._closed and not table.startswith("sqlite_")
        if where != "main":
            return False
        return table in self._views or table in TABLE_FUNCTIONS or (via, table, column) in self._reads


def _read_by(connection: sqlite3.Connection, views: frozenset[str]) -> frozenset[tuple[str, str, str]]:
    """(view, table, column) of all that the views read, as SQLite names it while it compiles them."""
    reads: set[tuple[str, str, str]] = set()

    def note(action: int, first: str | None, second: str | None, _where: str | None, via: str | None) -> int:
        if action == sqlite3.SQLITE_READ and via in views:
            reads.add((str(via), str(first), str(second)))
        return sqlite3.SQLITE_OK

    connection.set_authorizer(note)
    for view in sorted(views):
        connection.execute(f"EXPLAIN SELECT * FROM {view}").close()
    connection.set_authorizer(None)
    return frozenset(reads)
