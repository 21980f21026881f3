"""Numbers that are asked for all the time, kept where they change: by triggers, in the very transaction.

Triggers, because every way to change a job keeps them right then: several processes, a command that works straight on
the database, a release before this one, retention, a person with a SQL console. The names in `totals`:

    jobs:STATE         jobs in that state now
    dead_letters       rows of the dead-letter queue now
    attempts:OUTCOME   attempts that ever ended so; the end of a row's life does not take it back
    waits:BOUND        jobs whose first start came at most so many seconds after their submission, and more than the
                       bound before; `seconds` is the sum of these waits. Ever, as above; `waits:more` has the rest

On SQLite every name has one row, which is changed in place. On PostgreSQL a change is a row of its own, and the sum of
a name's rows is its number: a row that one transaction changes twenty thousand times leaves as many versions behind,
and each change would walk past them. Now and then the rows are folded.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from gpuq.domain.outcome import Outcome
from gpuq.domain.states import JobState
from gpuq.domain.totals import MORE, WAIT_BOUNDS


def _bucket(wait: str) -> str:
    cases = " ".join(f"WHEN {wait} <= {bound} THEN '{bound}'" for bound in WAIT_BOUNDS)
    return f"'waits:' || CASE {cases} ELSE '{MORE}' END"


@dataclass(frozen=True)
class _Change:
    """`name` and `seconds` are SQL."""

    name: str
    by: int = 1
    seconds: str = "0"


@dataclass(frozen=True)
class _Trigger:
    """`guard`: a condition that needs a look into tables, which a WHEN may not do on PostgreSQL."""

    name: str
    event: str
    changes: tuple[_Change, ...]
    when: str = ""
    guard: str = ""


_WAIT = "NEW.started_at - (SELECT submitted_at FROM jobs WHERE id = NEW.job_id)"
_ADDED = _Change("'jobs:' || NEW.state")
_REMOVED = _Change("'jobs:' || OLD.state", -1)

_JOB_ADDED = _Trigger("totals_job_added", "INSERT ON jobs", (_ADDED,))
_ALL = (
    _JOB_ADDED,
    _Trigger("totals_job_moved", "UPDATE OF state ON jobs", (_REMOVED, _ADDED), "OLD.state <> NEW.state"),
    _Trigger("totals_job_removed", "DELETE ON jobs", (_REMOVED,)),
    _Trigger(
        "totals_attempt_ended",
        "UPDATE OF outcome ON attempts",
        (_Change("'attempts:' || NEW.outcome"),),
        "OLD.outcome IS NULL AND NEW.outcome IS NOT NULL",
    ),
    _Trigger(
        "totals_first_start",
        "UPDATE OF started_at ON attempts",
        (_Change(_bucket(f"({_WAIT})"), seconds=_WAIT),),
        "OLD.started_at IS NULL AND NEW.started_at IS NOT NULL",
        # One attempt starts after the other, so none of a later number has started.
        "NEW.number = 1 OR NOT EXISTS (SELECT 1 FROM attempts"
        " WHERE job_id = NEW.job_id AND number < NEW.number AND started_at IS NOT NULL)",
    ),
    _Trigger("totals_letter_added", "INSERT ON dead_letter_queue", (_Change("'dead_letters'"),)),
    _Trigger("totals_letter_removed", "DELETE ON dead_letter_queue", (_Change("'dead_letters'", -1),)),
)


def trigger_statements(dialect: str) -> list[str]:
    """What makes the triggers, for `sqlite` or `postgresql`."""
    return [_on_sqlite(each) for each in _ALL] if dialect == "sqlite" else _on_postgres()


def _on_sqlite(trigger: _Trigger) -> str:
    guard = f" AND ({trigger.guard})" if trigger.guard else ""
    body = " ".join(
        f"UPDATE totals SET number = number + {change.by}, seconds = seconds + {change.seconds}"
        f" WHERE name = {change.name}{guard};"
        for change in trigger.changes
    )
    return f"CREATE TRIGGER {trigger.name} AFTER {_row(trigger)} BEGIN {body} END"


def _row(trigger: _Trigger) -> str:
    return f"{trigger.event} FOR EACH ROW" + (f" WHEN ({trigger.when})" if trigger.when else "")


_FOLD = (
    "WITH gone AS (DELETE FROM totals RETURNING *)"
    " INSERT INTO totals SELECT name, sum(number), sum(seconds) FROM gone GROUP BY name"
)
_NOW_AND_THEN = f"IF random() < 0.0005 THEN {_FOLD}; END IF"


def _on_postgres() -> list[str]:
    made = []
    for each in _ALL:
        rows = ", ".join(f"({change.name}, {change.by}, {change.seconds})" for change in each.changes)
        insert = f"INSERT INTO totals VALUES {rows}"
        if each.guard:
            insert = f"IF {each.guard} THEN {insert}; END IF"
        how = _row(each)
        if each is _JOB_ADDED:
            # Once for each submission, however many jobs it has.
            insert = "INSERT INTO totals SELECT 'jobs:' || state, count(*), 0 FROM added GROUP BY state"
            how = f"{each.event} REFERENCING NEW TABLE AS added FOR EACH STATEMENT"
        body = f"BEGIN {insert}; {_NOW_AND_THEN}; RETURN NULL; END"
        made.append(f"CREATE FUNCTION {each.name}() RETURNS trigger LANGUAGE plpgsql AS $${body}$$")
        # Whoever may only read need not be able to name it.
        made.append(f"REVOKE EXECUTE ON FUNCTION {each.name}() FROM PUBLIC")
        made.append(f"CREATE TRIGGER {each.name} AFTER {how} EXECUTE FUNCTION {each.name}()")
    return made


def names() -> list[str]:
    """Of every total."""
    return [
        *(f"jobs:{state}" for state in JobState),
        "dead_letters",
        *(f"attempts:{outcome}" for outcome in Outcome),
        *(f"waits:{bound}" for bound in (*WAIT_BOUNDS, MORE)),
    ]


_FIRST_STARTS = (
    "SELECT min(a.started_at) - j.submitted_at AS wait FROM attempts a JOIN jobs j ON j.id = a.job_id"
    " WHERE a.started_at IS NOT NULL GROUP BY a.job_id, j.submitted_at"
)
_COUNTS = (
    "SELECT 'jobs:' || state AS name, count(*) AS number, 0 AS seconds FROM jobs GROUP BY state",
    "SELECT 'attempts:' || outcome AS name, count(*) AS number, 0 AS seconds FROM attempts"
    " WHERE outcome IS NOT NULL GROUP BY outcome",
    f"SELECT {_bucket('wait')} AS name, count(*) AS number, sum(wait) AS seconds FROM ({_FIRST_STARTS}) w GROUP BY 1",
    "SELECT 'dead_letters' AS name, count(*) AS number, 0 AS seconds FROM dead_letter_queue",
)


def count_statements() -> Iterable[str]:
    """What fills `totals` from the rows that there are, all of which are read. The same for both databases."""
    yield "DELETE FROM totals"
    rows = ", ".join(f"('{name}', 0, 0)" for name in names())
    yield f"INSERT INTO totals (name, number, seconds) VALUES {rows}"
    for count in _COUNTS:
        yield f"UPDATE totals SET number = c.number, seconds = c.seconds FROM ({count}) c WHERE c.name = totals.name"
