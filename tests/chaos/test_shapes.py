"""What a seed draws."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

from customers import elements
from shapes import Shapes

from gpuq.domain.array import parse_array
from gpuq.domain.spec import JobSpec


def drawn(seed: int, count: int = 300) -> list[dict[str, Any]]:
    shapes = Shapes(Random(seed), Path("/tmp/diary"), 4)
    return [shapes.draw([1, 2, 3]) for _ in range(count)]


def test_the_same_seed_draws_the_same_jobs() -> None:
    assert drawn(1) == drawn(1)
    assert drawn(1) != drawn(2)


def test_every_shape_is_a_valid_submission_and_all_kinds_are_drawn() -> None:
    specs = drawn(7)
    for spec in specs:
        JobSpec.parse({**spec, "begin": 0.0} if "begin" in spec else spec)
    assert {spec["gpus"] for spec in specs} == {0, 1, 2, 3, 4}
    kinds = {"plain", "stray", "deaf_stray", "deaf", "loud", "escapee", "tidy", "tidies_all", "suspends", "meddles"}
    assert {spec["command"][5] for spec in specs} == kinds
    extras = {"time_limit_s", "after", "after_any", "array", "hold", "key", "begin", "preemptible"}
    assert extras <= {field for spec in specs for field in spec}


def test_the_elements_of_an_array_are_counted_as_gpuq_counts_them() -> None:
    for spec in drawn(7):
        if "array" in spec:
            assert elements(spec) == len(parse_array(spec["array"]).indices)
