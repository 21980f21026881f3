"""Where an attempt's folder and output are, in SQL. The paths follow from where a node keeps its jobs and from the
numbers of job and attempt, so a row names them only where they do not: a fifth of a million rows was these texts.
"""

from __future__ import annotations

# As `gpuq.domain.installation_keys` writes it, of a node.
KEY = "runs"
OUTPUT = "output.log"

# Values of an installation are JSON; a folder that JSON would write in another way than between quotes is not kept
# there, because to read JSON would take longer than to find the row.
_VALUE = {"sqlite": "trim(value, '\"')", "postgresql": "btrim(value, '\"')"}


def derived(dialect: str, node: str, job_id: str, number: str) -> str:
    """The attempt's own folder; the arguments are SQL. Null where the node never said where it keeps them."""
    folder = f"(SELECT {_VALUE[dialect]} FROM installation WHERE key = '{KEY}:' || {node})"
    return f"{folder} || '/' || {job_id} || '/' || {number}"


def run_dir(dialect: str, table: str) -> str:
    """Of the rows of `table`, which is `attempts` or a name for it."""
    return f"coalesce({table}.run_dir, {_of(dialect, table)})"


def log_path(dialect: str, table: str) -> str:
    return f"coalesce({table}.log_path, {_of(dialect, table)} || '/{OUTPUT}')"


def _of(dialect: str, table: str) -> str:
    return derived(dialect, f"{table}.node", f"{table}.job_id", f"{table}.number")
