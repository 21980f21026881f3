"""The views that reports rely on: the same names, columns and meanings on SQLite and PostgreSQL.

Times are UTC: ISO 8601 text with milliseconds and a Z on SQLite, timestamptz on PostgreSQL. Durations in
seconds. `wait_s` runs from the submission to the first start, `run_s` and `gpu_seconds` add up every attempt
that has ended; `started_at` is the first start too, so that it fits `wait_s` (the job's JSON has the last).
"""

from __future__ import annotations

from gpuq.stores.sql.schema.folders import log_path

_TIME = {
    "sqlite": "strftime('%Y-%m-%dT%H:%M:%fZ', {0}, 'unixepoch')",
    "postgresql": "to_timestamp({0})",
}
_SECONDS = {
    "sqlite": "round({0}, 3)",
    "postgresql": "round(({0})::numeric, 3)::double precision",
}
_LENGTH = {
    "sqlite": "json_array_length({0})",
    "postgresql": "json_array_length({0}::json)",
}
# Rows of key and value of a JSON object.
_PAIRS = {
    "sqlite": "json_each(j.parameters)",
    "postgresql": "json_each_text(j.parameters::json)",
}


def view_statements(dialect: str) -> dict[str, str]:
    """View name → its CREATE VIEW, for `sqlite` or `postgresql`."""

    def at(column: str) -> str:
        return _TIME[dialect].format(column)

    def seconds(expression: str) -> str:
        return _SECONDS[dialect].format(expression)

    ran = "a.finished_at - a.started_at"
    cards = _LENGTH[dialect].format("a.gpu_uuids")
    return {
        "job_history": f"""CREATE VIEW job_history AS
SELECT j.id, j.name, j."user", j."group", j.state,
  CASE j.priority WHEN 0 THEN 'critical' WHEN 1 THEN 'high' WHEN 2 THEN 'normal' ELSE 'low' END AS priority,
  j.gpus,
  {at("j.submitted_at")} AS submitted_at,
  {at("min(a.started_at)")} AS started_at,
  {at("j.finished_at")} AS finished_at,
  {seconds("min(a.started_at) - j.submitted_at")} AS wait_s,
  {seconds(f"sum({ran})")} AS run_s,
  {seconds(f"sum(({ran}) * {cards})")} AS gpu_seconds,
  count(a.number) AS attempts,
  j.outcome, j.exit_code
FROM jobs j LEFT JOIN attempts a ON a.job_id = j.id
GROUP BY j.id""",
        "attempt_history": f"""CREATE VIEW attempt_history AS
SELECT a.job_id, a.number AS attempt, j.name, j."user", j."group", j.gpus, a.node,
  a.gpu_indices, a.gpu_uuids, a.gpu_mem_mb,
  {at("a.claimed_at")} AS claimed_at,
  {at("a.started_at")} AS started_at,
  {at("a.finished_at")} AS finished_at,
  {seconds(ran)} AS run_s,
  {seconds(f"({ran}) * {cards}")} AS gpu_seconds,
  a.outcome, a.exit_code, a.signal, a.error, a.peak_gpu_mem_mb, a.avg_gpu_util,
  {log_path(dialect, "a")} AS log_path
FROM attempts a JOIN jobs j ON j.id = a.job_id""",
        "dead_letters": f"""CREATE VIEW dead_letters AS
SELECT d.job_id, {at("d.failed_at")} AS failed_at, d.outcome, d.error, d.attempts
FROM dead_letter_queue d""",
        "job_events": f"""CREATE VIEW job_events AS
SELECT e.id, {at("e.at")} AS at, e.job_id, e.attempt, e.from_state, e.to_state, e.actor, e.detail
FROM events e""",
        "limit_changes": f"""CREATE VIEW limit_changes AS
SELECT a.id, {at("a.at")} AS at, a.actor, a.kind, a.name, a."limit", a.before, a.after
FROM limit_audit a""",
        "job_parameters": f"""CREATE VIEW job_parameters AS
SELECT j.id AS job_id, p.key AS name, p.value AS value
FROM jobs j, {_PAIRS[dialect]} p WHERE j.parameters IS NOT NULL""",
    }
