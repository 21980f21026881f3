"""The variables whose names begin with GPUQ_: which are settings, and which only tell a job or a client something."""

from __future__ import annotations

import difflib
import os

from gpuq.domain import failpoints
from gpuq.errors import ConfigError

# Variables with our prefix that are not settings: what a job sees, and what steers the client alone.
JOB_VARIABLES = frozenset(
    {
        "GPUQ_JOB_ID", "GPUQ_JOB_NAME", "GPUQ_ATTEMPT", "GPUQ_GPU_COUNT", "GPUQ_RUN_DIR", "GPUQ_CHECKPOINT_DIR",
        "GPUQ_ARRAY_ID", "GPUQ_ARRAY_INDEX", "GPUQ_TIME_LIMIT_END", "GPUQ_TOKEN_OF_ATTEMPT",
        "GPUQ_RESULT_FILE", "GPUQ_SHORT_RESULT_FILE",
    }
)  # fmt: skip
CLIENT_VARIABLES = frozenset({"GPUQ_CONFIG", "GPUQ_DEBUG", failpoints.VARIABLE})


def from_environment(known: list[str]) -> dict[str, str]:
    """The settings that this process's environment gives, as text, by their names without the prefix. `known`: the
    names that there are. Raises ConfigError for a variable that is nearly one of them."""
    found: dict[str, str] = {}
    inside_job = "GPUQ_JOB_ID" in os.environ
    for variable, value in os.environ.items():
        if not variable.startswith("GPUQ_") or variable in JOB_VARIABLES | CLIENT_VARIABLES or value == "":
            continue
        # Inside a job GPUQ_GPUS lists the job's GPUs; it is not the setting then.
        if inside_job and variable == "GPUQ_GPUS":
            continue
        name = variable.removeprefix("GPUQ_").lower()
        if name in known:
            found[name] = value
        elif difflib.get_close_matches(name, known, n=1, cutoff=0.8):
            raise ConfigError(f"unknown setting {variable} in the environment", hint=nearest_setting(name, known))
    return found


def nearest_setting(name: str, known: list[str]) -> str:
    """A hint for a name that is none: the nearest of those `known`, or all of them."""
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
    return f"did you mean {close[0]}?" if close else "known: " + ", ".join(known)
