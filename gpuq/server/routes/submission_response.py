"""The answer to a submission: jobs in the moment after they were stored, as JSON text made from what was written."""

from __future__ import annotations

from collections.abc import Callable
from itertools import groupby
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

# Filled in for every job, in the order of its JSON; all else is the same for jobs of one form.
_FILLED_IN = ("id", "name", "command", "array_index", "key", "submitted_at", "parameters")
_LISTS = tuple(name for name in _FROM_SPEC if "list[" in str(JobView.__annotations__[name]) and name not in _FILLED_IN)
_row_form = attrgetter(*(name for name in _FROM_ROW if name not in _FILLED_IN))
_spec_form = attrgetter(*(name for name in _FROM_SPEC if name not in _FILLED_IN and name not in _LISTS))
_list_form = attrgetter(*_LISTS)
# Forms that are kept. Their texts are of users.
_MOST_FORMS = 64


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
    """The JSON of jobs that were just stored, as text. Most jobs differ in few fields alone: what stands between these
    is made once for all that share it, in this submission and in later ones. Any thread."""

    def __init__(self) -> None:
        self._templates: dict[tuple[object, ...], bytes] = {}
        self._moment: tuple[float, bytes] = (0.0, to_json(iso(0.0)))

    def fill_in(self, job_id: int, new: NewJob, array_id: int | None) -> bytes:
        """The JSON text of one job. `array_id`: the id of the first job of its array, if it is part of one."""
        spec = new.spec
        # Lists of numbers, mostly empty.
        form = (array_id, _row_form(new), _spec_form(spec), repr(_list_form(spec)))
        template = self._templates.get(form)
        if template is None:
            if len(self._templates) >= _MOST_FORMS:
                self._templates.clear()
            template = self._templates[form] = _template(stored_json(job_id, new, array_id))
        return template % (
            job_id,
            to_json(new.name),
            to_json(new.command),
            b"null" if new.array_index is None else b"%d" % new.array_index,
            b"null" if spec.key is None else to_json(spec.key),
            self._told(new.submitted_at),
            b"null" if new.parameters is None else to_json(dict(new.parameters)),
        )

    def _told(self, moment: float) -> bytes:
        known, text = self._moment
        if known != moment:
            text = to_json(iso(moment))
            self._moment = moment, text
        return text


def _template(job: dict[str, Any]) -> bytes:
    """For bytes' `%`, with a place for each value of _FILLED_IN."""
    parts: list[bytes] = []
    for filled_in, names in groupby(job, _FILLED_IN.__contains__):
        if filled_in:
            parts += [b'"%b":%b' % (name.encode(), b"%d" if name == "id" else b"%b") for name in names]
        else:
            parts.append(to_json({name: job[name] for name in names})[1:-1].replace(b"%", b"%%"))
    return b"{" + b",".join(parts) + b"}"
