"""The answer to a submission: jobs in the moment after they were stored, as JSON text made from what was written."""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter
from typing import Any

from pydantic_core import to_json

from gpuq.domain.job import JobView
from gpuq.domain.spec import JobSpec
from gpuq.domain.times import iso
from gpuq.ports.records import NewJob

# The names of a job's JSON, by where their values come from: the row that was written, which has the defaults filled
# in, before the submission. Taken from the types, so that a name which is added to them is here too.
_FIELDS = tuple(JobView.__annotations__)
_FROM_ROW = tuple(name for name in _FIELDS if name in NewJob._fields)
# Of a submission `signal` is the one that it asks for, of a job the one that ended it.
_FROM_SPEC = tuple(name for name in _FIELDS if name in JobSpec.model_fields and name not in {*_FROM_ROW, "signal"})
# What is neither, and not null at first.
_AT_FIRST = {"retries_used": 0, "attempt": 0}
_AS_JSON: dict[str, Callable[[Any], Any]] = {
    "priority": lambda priority: priority.label,
    "submitted_at": iso,
    "eligible_at": iso,
    "parameters": lambda parameters: None if parameters is None else dict(parameters),
}

# Filled in for every job; all else is the same for jobs of one form.
_SINGLE = ("name", "command")
_LISTS = tuple(name for name in _FROM_SPEC if "list[" in str(JobView.__annotations__[name]) and name not in _SINGLE)
_row_form = attrgetter(*(name for name in _FROM_ROW if name not in _SINGLE))
_spec_form = attrgetter(*(name for name in _FROM_SPEC if name not in _SINGLE and name not in _LISTS))
_list_form = attrgetter(*_LISTS)


def stored_json(job_id: int, new: NewJob, array_id: int | None) -> dict[str, Any]:
    """The JSON of a job in the moment after it was stored, from what was written."""
    told = {
        **{name: getattr(new.spec, name) for name in _FROM_SPEC},
        **{name: getattr(new, name) for name in _FROM_ROW},
        "id": job_id,
        "array_id": array_id,
    }
    found = {name: told[name] if name in told else _AT_FIRST.get(name) for name in _FIELDS}
    return {name: _AS_JSON[name](value) if name in _AS_JSON else value for name, value in found.items()}


class SubmissionEncoder:
    """The JSON of jobs that were just stored, as text. Most jobs of a submission differ in their id, name and command
    alone: what stands between and behind these is made once for all that share it."""

    def __init__(self) -> None:
        self._known: dict[tuple[object, ...], tuple[bytes, bytes]] = {}

    def fill_in(self, job_id: int, new: NewJob, array_id: int | None) -> bytes:
        """The JSON text of one job. `array_id`: the id of the first job of its array, if it is part of one."""
        spec = new.spec
        lists = [None if each is None else tuple(each) for each in _list_form(spec)]
        form = (array_id, _row_form(new), _spec_form(spec), *lists)
        texts = self._known.get(form)
        if texts is None:
            texts = self._known[form] = _texts(stored_json(job_id, new, array_id))
        between, behind = texts
        return b'{"id":%d,"name":%b,%b,"command":%b,%b' % (
            job_id,
            to_json(new.name),
            between,
            to_json(new.command),
            behind,
        )


def _texts(job: dict[str, Any]) -> tuple[bytes, bytes]:
    """What stands between the name and the command, and what comes after it with the closing brace."""
    names = list(job)
    at = names.index("command")
    assert names[:2] == ["id", "name"]
    between = {name: job[name] for name in names[2:at]}
    behind = {name: job[name] for name in names[at + 1 :]}
    return to_json(between)[1:-1], to_json(behind)[1:]
