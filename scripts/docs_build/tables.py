"""Tables made from the data that the code runs on: states, outcomes, reasons, settings, errors, exit codes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from gpuq import errors
from gpuq.domain import outcome as outcome_table
from gpuq.domain import reasons as reason_table
from gpuq.domain import states as state_table
from gpuq.environment_variables import JOB_VARIABLES
from gpuq.settings import Settings


def table(head: str, rows: Iterable[str]) -> str:
    columns = head.count("|") - 1
    return "\n".join([head, "|" + "---|" * columns, *rows]) + "\n"


def cell(text: str) -> str:
    """Text for a cell of a table, in which a bar would end it and an angle bracket begin a tag."""
    return text.replace("|", "\\|").replace("<", "&lt;")


def states() -> str:
    def next_of(state: state_table.JobState) -> str:
        return "; ".join(f"`{target}`: {why}" for target, why in state_table.TRANSITIONS[state].items()) or "–"

    return table(
        "| state | the job | may become |",
        (f"| `{state}` | {text} | {next_of(state)} |" for state, text in state_table.SENTENCES.items()),
    )


def outcomes() -> str:
    return table(
        "| outcome | means | uses a retry |",
        (
            f"| `{found}` | {text} | {'yes' if found in outcome_table.USES_RETRY else 'no'} |"
            for found, text in outcome_table.SENTENCES.items()
        ),
    )


def reasons() -> str:
    return table("| reason | means |", (f"| `{code}` | {text} |" for code, text in reason_table.SENTENCES.items()))


# Defaults that depend on the machine or the user are told in words.
DERIVED = {
    "home": "`~/.local/share/gpuq` (root: `/var/lib/gpuq`)",
    "database_url": "`sqlite:///$GPUQ_HOME/gpuq.db`",
    "server": "`unix://$GPUQ_HOME/gpuq.sock`",
    "node": "the host's name",
}


def settings() -> str:
    def rows() -> Iterator[str]:
        for name, field in Settings.model_fields.items():
            default = DERIVED.get(name, f"`{field.default}`" if field.default not in (None, "") else "unset")
            yield f"| `GPUQ_{name.upper()}` | {default} | {cell(field.description or '')} |"

    return table("| variable | default | meaning |", rows())


def all_errors() -> Iterator[type[errors.GpuqError]]:
    """The error classes in the order of the tree, each before what it is the parent of."""

    def walk(kind: type[errors.GpuqError]) -> Iterator[type[errors.GpuqError]]:
        yield kind
        for child in kind.__subclasses__():
            if child.__module__ == errors.__name__:
                yield from walk(child)

    return walk(errors.GpuqError)


def error_codes() -> str:
    return table(
        "| code | HTTP | exit code | in Python |",
        (
            f"| `{kind.code}` | {kind.http_status} | {kind.exit_code} | `gpuq.errors.{kind.__name__}` |"
            for kind in all_errors()
        ),
    )


# What each exit code of gpuq's own means; the codes themselves come from the error tree.
EXITS = {
    1: "gpuq itself failed",
    2: "usage: the command line, a setting or a submission is malformed",
    3: "no such job, group, token or dead letter",
    4: "refused: state, owner, limit, can never run here",
    5: "daemon, Redis or database cannot be reached",
    124: "of the job: it ran into its time limit",
    125: "of the job: cancelled, or never run",
}


def exit_codes() -> str:
    def rows() -> Iterator[str]:
        yield "| 0 | done | |"
        for code in sorted({kind.exit_code for kind in all_errors()}):
            names = ", ".join(f"`{kind.code}`" for kind in all_errors() if kind.exit_code == code)
            yield f"| {code} | {EXITS[code]} | {names} |"
        yield "| 130 | interrupted by Ctrl-C | |"
        yield "| 141 | whoever read the output has gone (closed pipe) | |"

    return table("| exit code | means | errors |", rows())


# A sentence for each variable that gpuq sets for a job.
VARIABLES = {
    "CUDA_VISIBLE_DEVICES": "the job's GPUs: UUIDs; indices of simulated GPUs; empty with `-g 0`",
    "CUDA_DEVICE_ORDER": "`PCI_BUS_ID`",
    "GPUQ_JOB_ID": "the job's id",
    "GPUQ_JOB_NAME": "its name",
    "GPUQ_ATTEMPT": "number of this attempt, from 1",
    "GPUQ_GPU_COUNT": "how many GPUs it has",
    "GPUQ_GPUS": "their indices, commas between",
    "GPUQ_RUN_DIR": "this attempt's own folder",
    "GPUQ_CHECKPOINT_DIR": "one folder for all attempts of the job",
    "GPUQ_RESULT_FILE": "where the job may write its result",
    "GPUQ_SHORT_RESULT_FILE": "where it may write its short result, one text of at most 1 kB",
    "GPUQ_ARRAY_ID": "of an element of an array: the id that stands for the whole array",
    "GPUQ_ARRAY_INDEX": "of an element of an array: its index",
    "GPUQ_TIME_LIMIT_END": "with a time limit: when it ends, in epoch seconds, as of the start of the attempt",
    "GPUQ_HOME": "the daemon's home, so that `gpuq` inside a job finds it",
    "GPUQ_TOKEN_OF_ATTEMPT": "a mark by which processes that outlived their attempt are found; no secret",
    "PYTHONUNBUFFERED": "`1`, so that output is seen when it is written",
}


def job_variables() -> str:
    if missing := JOB_VARIABLES - set(VARIABLES):
        raise KeyError(f"the documents need a sentence for {', '.join(sorted(missing))} (scripts/docs_build/tables.py)")
    return table("| variable | holds |", (f"| `{name}` | {text} |" for name, text in VARIABLES.items()))
