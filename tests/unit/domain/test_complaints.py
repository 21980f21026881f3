from __future__ import annotations

from typing import Any

import pytest

from gpuq.domain.spec import JobSpec
from gpuq.errors import UsageError


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"gpus": -1}, "gpus: must be at least 0"),
        ({"gpus": 9999}, "gpus: must be at most 1024"),
        ({"gpus": 1.5}, "gpus: must be a whole number"),
        ({"gpus": "two"}, "gpus: must be a whole number"),
        ({"gpus": None}, "gpus: must be a whole number"),
        ({"gpu_mem_mb": 0}, "gpu_mem_mb: must be more than 0"),
        ({"command": "true"}, "command: must be a list"),
        ({"command": []}, "command: must have at least 1 items"),
        ({"command": [1]}, "command.0: must be text"),
        ({"env": []}, "env: must be an object"),
        ({"hold": "perhaps"}, "hold: must be true or false"),
        ({"time_limit_s": 0}, "time_limit_s: must be more than 0"),
        ({"time_limit_s": 1e12}, "time_limit_s: must be at most 315360000"),
        ({"name": "a\nb"}, "name: has a form or characters that are not possible here"),
        ({"signal": "usr1"}, "signal: has a form or characters that are not possible here"),
        ({"key": ""}, "key: must have at least 1 characters"),
    ],
)
def test_what_is_wrong_with_a_submission_is_said_in_plain_words(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError) as caught:
        JobSpec.parse({"command": ["true"], **fields})
    assert caught.value.message == said
    if "form" in said:
        assert caught.value.hint


def test_a_submission_without_a_command_says_so() -> None:
    with pytest.raises(UsageError, match=r"^command: is missing$"):
        JobSpec.parse({})
