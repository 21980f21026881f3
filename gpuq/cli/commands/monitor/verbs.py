"""What a key does to jobs: which requests, which line of the command line is the same, and what is said afterwards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gpuq.cli.render import count
from gpuq.client.calls import Calls
from gpuq.client.errors import from_error
from gpuq.domain.visible_text import shown_on_a_line
from gpuq.errors import GpuqError, UsageError

PRIORITIES = ("low", "normal", "high", "critical")
# What cannot be undone, as a question.
SURE = {"cancel": "Cancel", "kill": "Kill, without time to save anything,"}
# Names in a question.
NAMED = 5


@dataclass(frozen=True)
class Step:
    """One request: `verb` on jobs, `words` as in the API; `options` of the same command line."""

    verb: str
    ids: tuple[int, ...]
    words: Mapping[str, Any] = field(default_factory=dict)
    options: str = ""

    @property
    def line(self) -> str:
        """What does the same in a shell."""
        return " ".join(["gpuq", self.verb, *filter(None, [self.options]), *map(str, self.ids)])


def steps(key: str, jobs: Sequence[Any]) -> list[Step]:
    """What `key` (hold, release, top, raise, lower, cancel or kill) does to `jobs`, as the daemon told of them. Raises
    UsageError where it can do nothing; everything else is for the daemon to refuse."""
    if not jobs:
        raise UsageError("no job is chosen here")
    if key == "release":
        made = [
            _step("release", [job for job in jobs if job["state"] == "held"]),
            _step("retry", [job for job in jobs if job["state"] in {"failed", "cancelled"}]),
        ]
    elif key in {"raise", "lower"}:
        made = [_priority(jobs, name, 1 if key == "raise" else -1) for name in PRIORITIES]
    elif key == "kill":
        made = [_step("cancel", jobs, {"force": True}, "--force")]
    else:
        made = [_step(key, jobs)]
    if found := [step for step in made if step.ids]:
        return found
    states = ", ".join(sorted({job["state"] for job in jobs}))
    if key == "release":
        raise UsageError(f"nothing to release or to retry: {states}")
    raise UsageError(f"the priority goes no further than {PRIORITIES[-1] if key == 'raise' else PRIORITIES[0]}")


def _step(verb: str, jobs: Sequence[Any], words: Mapping[str, Any] | None = None, options: str = "") -> Step:
    return Step(verb, tuple(job["id"] for job in jobs), words or {}, options)


def _priority(jobs: Sequence[Any], name: str, by: int) -> Step:
    place = PRIORITIES.index(name) + by
    if not 0 <= place < len(PRIORITIES):
        return Step("update", ())
    new = PRIORITIES[place]
    some = [job for job in jobs if job.get("priority") == name]
    return _step("update", some, {"changes": {"priority": new}}, f"--priority {new}")


def question(key: str, jobs: Sequence[Any]) -> str:
    """What is asked before `key` is done, with the jobs' names."""
    if len(jobs) == 1:
        job = jobs[0]
        whom = f"job {job['id']} “{shown_on_a_line(job['name'])}” of {shown_on_a_line(job['user'])}"
    else:
        names = ", ".join(f"{job['id']} “{shown_on_a_line(job['name'])}”" for job in jobs[:NAMED])
        whom = f"{count(len(jobs), 'job')}: {names}{' …' if len(jobs) > NAMED else ''}"
    return f"{SURE[key]} {whom}?"


def carry_out(client: Calls, wanted: Sequence[Step]) -> str:
    """Makes the requests; what came of them, for a person. Raises what the daemon refuses for a single job."""
    done: list[str] = []
    refused: list[GpuqError] = []
    for step in wanted:
        answer = client.act(step.verb, step.ids, **step.words)
        if answer is None:
            raise UsageError("the daemon is of an earlier release", hint=f"use the command line: {step.line}")
        wrong = [from_error(item["error"]) for item in answer if "error" in item]
        refused += wrong
        if len(answer) > len(wrong):
            states = ", ".join(sorted({item["state"] for item in answer if "error" not in item}))
            which = f"job {step.ids[0]}" if len(step.ids) == 1 else count(len(answer) - len(wrong), "job")
            done.append(f"{step.verb}: {which} {'is' if len(step.ids) == 1 else 'now'} {states}")
    if refused and not done and len(refused) == 1:
        raise refused[0]
    if refused:
        done.append(f"{count(len(refused), 'job')} refused: {refused[0].message}")
    return "; ".join(done)
