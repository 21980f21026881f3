"""The SQL views as pages: their columns come from a database that has just been made."""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tables import table

from gpuq.stores.sql import migrate
from gpuq.stores.sql.schema.views import view_statements

ABOUT = {
    "job_history": "One row a job, in whatever state it is.",
    "attempt_history": "One row an attempt; those that run have no end yet.",
    "dead_letters": "One row a dead letter that has not been retried or removed.",
    "job_events": "One row a change of state, written in the transaction that made the change.",
    "limit_changes": "One row for each limit that was set, changed or removed.",
    "job_parameters": "One row for each value of a sweep that a job has.",
}
# A sentence for each column; `view.column` where it differs from view to view.
COLUMNS = {
    "job_history.id": "the job's id",
    "job_history.started_at": "start of its first attempt",
    "job_history.run_s": "seconds that it ran, all attempts that ended together",
    "job_history.gpu_seconds": "the same times the GPUs that it held",
    "job_history.attempts": "how many attempts there were",
    "attempt_history.started_at": "when its process was there; null if it never was",
    "attempt_history.run_s": "seconds from its start to its end",
    "attempt_history.gpu_seconds": "the same times the GPUs that it held",
    "attempt_history.error": "what went wrong, in words",
    "dead_letters.error": "what went wrong at last, in words",
    "dead_letters.attempts": "how many attempts there were",
    "job_events.id": "grows with every event",
    "job_events.attempt": "number of the attempt, if it is about one",
    "limit_changes.id": "grows with every change",
    "limit_changes.actor": "who changed it",
    "limit_changes.name": "of which user or group; empty for the default",
    "kind": "`user`, `group` or `default`",
    "limit": 'which limit; write it in quotes: `"limit"`',
    "before": "what it was; null: not set",
    "after": "what it is from then on; null: not set",
    "job_parameters.name": "the name that the sweep gave it",
    "value": "the value, as text",
    "id": "",
    "job_id": "the job's id",
    "attempt": "number of the attempt, from 1",
    "name": "the job's name",
    "user": 'whose job it is; write it in quotes: `"user"`',
    "group": 'its group; write it in quotes: `"group"`',
    "state": "its [state](states.md) now",
    "priority": "`critical`, `high`, `normal` or `low`",
    "gpus": "how many GPUs it asks for",
    "submitted_at": "when it was submitted",
    "started_at": "",
    "finished_at": "when it ended; null until then",
    "wait_s": "seconds from submission to the first start",
    "run_s": "",
    "gpu_seconds": "",
    "attempts": "",
    "outcome": "[how it ended](states.md#outcomes)",
    "exit_code": "exit code; null when a signal ended it",
    "signal": "number of the signal that ended it",
    "node": "the machine",
    "gpu_indices": "JSON list: its GPUs by index",
    "gpu_uuids": "JSON list: its GPUs by UUID",
    "gpu_mem_mb": "MiB reserved on each GPU; null: the whole GPU",
    "claimed_at": "when it was given its GPUs",
    "error": "",
    "peak_gpu_mem_mb": "most MiB that it was seen using on one GPU",
    "avg_gpu_util": "mean use of its GPUs, 0 to 1",
    "log_path": "where its output is",
    "failed_at": "when its last attempt ended",
    "at": "when it happened",
    "from_state": "the state before; null for the submission",
    "to_state": "the state after",
    "actor": "who did it: a user, or `gpuq`",
    "detail": "more about it, in words",
}


def columns() -> dict[str, list[str]]:
    """View name → its columns, as a database of this release has them."""
    with tempfile.TemporaryDirectory(prefix="gpuq-docs-") as folder:
        path = Path(folder) / "gpuq.db"
        migrate.ensure(f"sqlite:///{path}")
        connection = sqlite3.connect(path)
        try:
            return {
                view: [found[0] for found in connection.execute(f"SELECT * FROM {view} LIMIT 0").description]
                for view in view_statements("sqlite")
            }
        finally:
            connection.close()


def sections() -> str:
    def parts() -> Iterator[str]:
        for view, names in columns().items():
            rows = (f"| `{name}` | {COLUMNS.get(f'{view}.{name}') or COLUMNS[name]} |" for name in names)
            yield f"## {view}\n\n{ABOUT[view]}\n\n" + table("| column | holds |", rows)

    return "\n".join(parts())
