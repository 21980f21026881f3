"""The values of a sweep: a column of `jobs`, and the view `job_parameters`.

One text, a JSON object, because the values of a job are only ever written together, and are gone with its row; jobs of
no sweep have none. The release before does not know the column, and goes on with this schema.

Revision ID: 0007
Revises: 0006
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

PAIRS = {"sqlite": "json_each(j.parameters)", "postgresql": "json_each_text(j.parameters::json)"}


def upgrade() -> None:
    op.add_column("jobs", sa.Column("parameters", sa.Text()))
    connection = op.get_bind()
    connection.exec_driver_sql(
        f"""CREATE VIEW job_parameters AS
SELECT j.id AS job_id, p.key AS name, p.value AS value
FROM jobs j, {PAIRS[connection.dialect.name]} p WHERE j.parameters IS NOT NULL"""
    )
