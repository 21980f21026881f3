"""An outcome more: `output_limit`, of an attempt that wrote more than GPUQ_MAX_OUTPUT.

Only the CHECK constraints change, and what they allowed before they still allow. So SQLite, which could change them
otherwise only by writing every job anew, is given the new text of the tables, in the way that its documentation names
for this (https://sqlite.org/lang_altertable.html, "Making Other Kinds Of Table Schema Changes").

Revision ID: 0004
Revises: 0003
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_BEFORE = "outcome = 'lost' OR outcome = 'preempted'"
_AFTER = "outcome = 'lost' OR outcome = 'output_limit' OR outcome = 'preempted'"
OUTCOMES = (
    "outcome = 'cancelled' OR outcome = 'exit_nonzero' OR outcome = 'gpu_oom' OR outcome = 'host_oom' OR outcome "
    f"= 'launch_error' OR {_AFTER} OR outcome = 'signal' OR outcome = 'succeeded' OR outcome = 'time_limit'"
)
CHECKS = {
    "jobs": ("ck_jobs_outcome", "outcome IS NULL OR " + OUTCOMES),
    "attempts": ("ck_attempts_outcome", "outcome IS NULL OR " + OUTCOMES),
    "dead_letter_queue": ("ck_dead_letter_queue_outcome", OUTCOMES),
}


def upgrade() -> None:
    if op.get_bind().dialect.name == "sqlite":
        _rewrite_text_of_tables()
        return
    for table, (name, condition) in CHECKS.items():
        op.drop_constraint(name, table, type_="check")
        op.create_check_constraint(name, table, sa.text(condition))


def _rewrite_text_of_tables() -> None:
    connection = op.get_bind()
    (version,) = connection.exec_driver_sql("PRAGMA schema_version").one()
    connection.exec_driver_sql("PRAGMA writable_schema = ON")
    try:
        for table in CHECKS:
            changed = connection.exec_driver_sql(
                "UPDATE sqlite_master SET sql = replace(sql, ?, ?) WHERE type = 'table' AND name = ? AND instr(sql, ?)",
                (_BEFORE, _AFTER, table, _BEFORE),
            )
            if changed.rowcount != 1:
                raise RuntimeError(f"the table {table} has no list of outcomes that this upgrade knows")
        # Makes every connection, this one too, read the tables anew.
        connection.exec_driver_sql(f"PRAGMA schema_version = {version + 1}")
    finally:
        connection.exec_driver_sql("PRAGMA writable_schema = OFF")
