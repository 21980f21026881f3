from __future__ import annotations

import pytest

from gpuq.domain.gpu_memory import raised


@pytest.mark.parametrize(
    ("asked", "peak", "gpus", "memories", "wanted"),
    [
        (9_000, 10_000, 1, [24_000], 12_500),
        (9_000, 8_000, 1, [24_000], 10_000),
        (9_000, 7_201, 1, [24_000], 9_002),
        # What was seen calls for no more than was asked, so that it was something else that was missing.
        (9_000, 5_000, 1, [24_000], 11_250),
        (9_000, None, 1, [24_000], 11_250),
        (10_000, 19_200, 1, [24_000], 24_000),
        # More than any GPU has.
        (10_000, 19_201, 1, [24_000], None),
        (20_000, 23_000, 2, [24_000, 24_000], None),
        # A larger one is there: it goes to that, and has it to itself in the end.
        (20_000, 23_000, 1, [24_000, 80_000], 28_750),
        (60_000, 70_000, 1, [24_000, 80_000], 80_000),
        (80_000, 80_000, 1, [24_000, 80_000], None),
        # Two are needed, and only one is that large.
        (20_000, 23_000, 2, [24_000, 24_000, 80_000], None),
        (20_000, 23_000, 2, [16_000, 24_000, 80_000], 24_000),
        (20_000, 23_000, 1, [], None),
    ],
)
def test_the_next_request_is_five_quarters_of_the_peak(
    asked: int, peak: int | None, gpus: int, memories: list[int], wanted: int | None
) -> None:
    assert raised(asked, peak, gpus, memories) == wanted


def test_without_gpus_enough_there_is_nothing_to_ask_for() -> None:
    for gpus in (0, 3):
        assert raised(1000, None, gpus, [8000, 24000]) is None
    assert raised(1000, None, 2, [8000, 24000]) == 1250
    assert raised(1000, None, 1, []) is None
