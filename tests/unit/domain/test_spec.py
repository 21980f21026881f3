from __future__ import annotations

from typing import Any

import pytest

from gpuq.domain.priority import Priority
from gpuq.domain.spec import JobSpec
from gpuq.errors import UsageError


def test_only_the_command_is_required() -> None:
    spec = JobSpec.parse({"command": ["true"]})
    assert (spec.gpus, spec.priority, spec.max_retries, spec.env) == (1, Priority.NORMAL, None, {})


def test_an_unknown_field_is_refused_by_name() -> None:
    with pytest.raises(UsageError, match="'gpu'") as caught:
        JobSpec.parse({"command": ["true"], "gpu": 1})
    assert "gpus" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("fields", "names"),
    [
        ({"command": []}, "command"),
        ({"command": "train.py"}, "command"),
        ({"command": [""]}, "command"),
        ({"command": ["a\0b"]}, "command"),
        ({"gpus": -1}, "gpus"),
        ({"gpus": "many"}, "gpus"),
        ({"priority": "urgent"}, "priority"),
        ({"priority": True}, "priority"),
        ({"time_limit_s": 0}, "time_limit_s"),
        ({"time_limit_s": 1e300}, "time_limit_s"),
        ({"max_retries": -1}, "max_retries"),
        ({"gpus": 0, "gpu_mem_mb": 100}, "gpu_mem_mb"),
        ({"env": {"A=B": "x"}}, "env"),
        ({"name": "two\nlines"}, "name"),
        ({"signal": "usr1 at 60"}, "signal"),
        ({"signal": "FOO@60"}, "signal"),
        ({"signal": "KILL@5"}, "signal"),
        ({"key": ""}, "key"),
    ],
)
def test_nonsense_is_refused_naming_the_field(fields: dict[str, Any], names: str) -> None:
    with pytest.raises(UsageError, match=names):
        JobSpec.parse({"command": ["true"], **fields})


def test_a_stored_spec_of_another_release_is_still_read() -> None:
    spec = JobSpec.from_stored({"schema": 7, "command": ["true"], "invented_later": {"x": 1}, "gpus": 2})
    assert spec.gpus == 2
