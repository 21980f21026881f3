from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuq.domain.priority import MAX_TIME_LIMIT_S, Priority, score
from gpuq.errors import UsageError

NOW = 1_795_000_000.0
limits = st.one_of(st.none(), st.floats(min_value=0.001, max_value=MAX_TIME_LIMIT_S))
times = st.floats(min_value=NOW, max_value=NOW + 10 * 365 * 86400)


@given(limits, limits, times, times)
def test_priorities_never_mix_whatever_the_times(a: float | None, b: float | None, at: float, bt: float) -> None:
    for better, worse in zip(list(Priority), list(Priority)[1:], strict=False):
        assert score(better, at, a) < score(worse, bt, b)


def test_the_same_declaration_is_first_in_first_out_to_the_millisecond() -> None:
    for limit in (None, 60.0, 86400.0):
        assert score(Priority.LOW, NOW, limit) < score(Priority.LOW, NOW + 0.001, limit)


def test_a_short_declared_job_passes_a_longer_one_by_ten_times_the_difference() -> None:
    long_job = score(Priority.NORMAL, NOW, 3600.0)
    assert score(Priority.NORMAL, NOW + 10 * 3540 - 1, 60.0) < long_job
    assert score(Priority.NORMAL, NOW + 10 * 3540 + 1, 60.0) > long_job


def test_declaring_nothing_counts_as_eight_hours() -> None:
    assert score(Priority.NORMAL, NOW, None) == score(Priority.NORMAL, NOW, 8 * 3600)


def test_fifo_ignores_the_declaration() -> None:
    assert score(Priority.NORMAL, NOW, 5, order="fifo") == score(Priority.NORMAL, NOW, None, order="fifo")


@pytest.mark.parametrize(("text", "wanted"), [("critical", 0), ("HIGH", 1), ("2", 2), (3, 3)])
def test_priorities_are_read_by_name_or_number(text: str | int, wanted: int) -> None:
    assert Priority.parse(text) == wanted


@pytest.mark.parametrize("text", ["urgent", "", "4", "-1", "1.0"])
def test_an_unknown_priority_is_refused_with_the_known_ones(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        Priority.parse(text)
    assert "normal" in (caught.value.hint or "")


@given(limits, st.floats(min_value=60.0, max_value=30 * 86400.0))
def test_with_ageing_a_job_gains_a_step_of_priority_in_that_time(limit: float | None, aging: float) -> None:
    low = score(Priority.LOW, NOW, limit, aging_s=aging)
    assert score(Priority.NORMAL, NOW + aging - 1, limit, aging_s=aging) < low
    assert score(Priority.NORMAL, NOW + aging + 1, limit, aging_s=aging) > low
    assert score(Priority.CRITICAL, NOW + 3 * aging - 1, limit, aging_s=aging) < low
