"""From when to when a job may be told to wait."""

from __future__ import annotations

import pytest

from gpuq.domain.eligibility import LATEST_BEGIN, begin_time
from gpuq.errors import UsageError


def test_a_job_may_begin_between_the_epoch_and_the_year_2100() -> None:
    assert begin_time(None) is None
    assert [begin_time(at) for at in (0, 0.5, LATEST_BEGIN)] == [0, 0.5, LATEST_BEGIN]
    assert begin_time("1970-01-01T00:00:01") == begin_time("1970-01-01T01:00:01+01:00") == 1
    for at in (-0.5, LATEST_BEGIN + 0.5, "1969-12-31T23:59:59.5Z"):
        with pytest.raises(UsageError, match="is out of range"):
            begin_time(at)
