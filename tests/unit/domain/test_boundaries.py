"""Where a rule changes its answer: the last value on either side."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from gpuq.domain.array import MAX_ELEMENTS, parse_array
from gpuq.domain.attempt_mark import mark_of
from gpuq.domain.caller import Caller
from gpuq.domain.gpu import suits
from gpuq.domain.gpu_memory import raised
from gpuq.domain.ids import MAX_RANGE, Selection, new_token, parse_selection
from gpuq.domain.outcome import Outcome, Result
from gpuq.domain.priority import MAX_TIME_LIMIT_S, PRIORITY_STEP, Priority, Ranking, score
from gpuq.domain.quantities import duration_text, parse_duration, parse_memory_mb
from gpuq.domain.stopping import StopTimes, grace_left_s, is_overdue
from gpuq.domain.times import LATEST, iso
from gpuq.engine.access import may_act_on
from gpuq.errors import UsageError


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0:59", 59), ("1:00", 60), ("59:59", 3599), ("90:00", 5400), ("0:59:59", 3599), ("1:59:59", 7199),
        ("100:00:01", 360_001), ("0-0:00", 0), ("1-0:01", 86460), ("2-23:59:59", 259_199), ("1w", 604_800),
        ("1w2d", 777_600), ("0s", 0), ("1m1s", 61), ("2h3m4s", 7384), ("0.5m", 30), ("007", 7),
    ],
)  # fmt: skip
def test_every_unit_and_clock_form_counts_for_what_it_is(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["0:60", "1:00:60", "1:60:00", "1-0:60:00", "1.2.3", "1:2:3:4", "-1", "1-2", "²"])
def test_minutes_and_seconds_of_a_clock_form_stop_at_59(text: str) -> None:
    with pytest.raises(UsageError):
        parse_duration(text)


@pytest.mark.parametrize(
    ("text", "mib"),
    [
        ("1", 1), ("1M", 1), ("1024K", 1), ("1536K", 2), ("2048k", 2), ("1G", 1024), ("0.5T", 524_288),
        ("1.4M", 1), ("1.6M", 2), ("3 GB", 3072), ("10MiB", 10),
    ],
)  # fmt: skip
def test_memory_is_in_mib_from_one_on(text: str, mib: int) -> None:
    assert parse_memory_mb(text) == mib


@pytest.mark.parametrize("text", ["1023K", "0.99M", "0G", "0.0009G"])
def test_less_than_one_mib_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="less than 1 MiB"):
        parse_memory_mb(text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (1, "1s"), (59, "59s"), (59.6, "1m00s"), (60, "1m00s"), (61, "1m01s"), (3599, "59m59s"), (3600, "1h00m"),
        (3659, "1h00m"), (3660, "1h01m"), (86399, "23h59m"), (86400, "1d00h"), (89999, "1d00h"), (90000, "1d01h"),
        (172_800, "2d00h"), (-0.4, "0s"),
    ],
)  # fmt: skip
def test_a_duration_is_shown_in_the_two_units_that_matter(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text


@pytest.mark.parametrize(
    ("at", "text"),
    [
        (0.0, "1970-01-01T00:00:00.000Z"),
        (0.0004, "1970-01-01T00:00:00.000Z"),
        (0.9996, "1970-01-01T00:00:01.000Z"),
        (1.5, "1970-01-01T00:00:01.500Z"),
        (59.999, "1970-01-01T00:00:59.999Z"),
        (float(LATEST), "9999-12-31T23:59:59.000Z"),
        (LATEST + 1.0, None),
        (-0.001, None),
    ],
)
def test_times_from_1970_to_the_year_9999_are_shown(at: float, text: str | None) -> None:
    assert iso(at) == text


@pytest.mark.parametrize(
    ("text", "indices", "limit"),
    [
        ("0", (0,), None), ("3-3", (3,), None), ("0-1:1", (0, 1), None), ("0-4:2", (0, 2, 4), None),
        ("0-5:2", (0, 2, 4), None), ("0-3%1", (0, 1, 2, 3), 1), ("2,0-1", (2, 0, 1), None),
        ("0-2,7%9", (0, 1, 2, 7), 9),
        (" 1 , 2 ", (1, 2), None), ("0-5:9", (0,), None),
    ],
)  # fmt: skip
def test_a_range_has_both_its_ends_and_every_step_between(
    text: str, indices: tuple[int, ...], limit: int | None
) -> None:
    found = parse_array(text)
    assert (found.indices, found.limit) == (indices, limit)


def test_an_array_has_at_most_100_000_elements() -> None:
    assert MAX_ELEMENTS == MAX_RANGE == 100_000
    assert len(parse_array("0-99999").indices) == MAX_ELEMENTS
    assert len(parse_array("1-199999:2").indices) == MAX_ELEMENTS
    for text in ("0-100000", "1-200001:2", "0-99999,200000", "0-50000,60000-110000"):
        with pytest.raises(UsageError):
            parse_array(text)


def test_a_short_text_does_not_unfold_more_indices_than_an_array_may_have() -> None:
    # Unfolded, before anybody counts, that is ten billion.
    with pytest.raises(UsageError, match="at most 100000 elements"):
        parse_array(",".join(["0-99999"] * 100_000))


@pytest.mark.parametrize("text", ["0-2147483647:2147483647", "0-1%2147483647", "0000000000000001"])
def test_numbers_of_an_array_have_31_bits(text: str) -> None:
    assert parse_array(text).indices


@pytest.mark.parametrize("number", ["2147483648", "9" * 5000, "²", "٣"])
@pytest.mark.parametrize("form", ["{}", "0-{}", "0-1:{}", "0-1%{}"])
def test_a_number_that_nobody_can_store_is_refused(form: str, number: str) -> None:
    with pytest.raises(UsageError):
        parse_array(form.format(number))


@pytest.mark.parametrize("text", ["0-3%-1", "1,", "0-2,2", "3-2:1", "0-3:0%2", "1%1%1"])
def test_what_is_almost_an_array_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_array(text)


def test_a_range_of_ids_may_be_one_job_and_at_most_100_000() -> None:
    assert parse_selection(["5-5"]).ranges == ((5, 5),)
    assert parse_selection(["1-100000"]).ranges == ((1, 100_000),)
    for word in ("1-100001", "6-5"):
        with pytest.raises(UsageError):
            parse_selection([word])


def test_no_word_selects_more_than_it_says() -> None:
    assert parse_selection([]) == Selection() == Selection((), (), (), last=False, all=False)
    assert parse_selection(["all"]) == Selection(all=True)
    assert parse_selection(["last"]) == Selection(last=True)
    assert parse_selection(["3, ,4", ""]) == Selection(ids=(3, 4))
    assert parse_selection(["7_0", "1-2", "8"]) == Selection((8,), ((1, 2),), ((7, 0),))


@pytest.mark.parametrize("word", ["٣", "²", "1_٣", "all_1"])
def test_only_plain_digits_are_an_id(word: str) -> None:
    with pytest.raises(UsageError):
        parse_selection([word])


def test_a_token_is_128_bits_of_chance_and_its_mark_the_first_half() -> None:
    token = new_token()
    assert len(token) == 32
    assert int(token, 16) >= 0
    assert token != new_token()
    assert mark_of(token) == token[:16]


@pytest.mark.parametrize(
    ("caller", "may"),
    [
        (Caller("ann"), True),
        (Caller("ann", 7, 7), True),
        (Caller("bob", 7, 7), False),
        (Caller("ann", 8, 8), False),
        (Caller("bob", admin=True), True),
    ],
)
def test_only_the_owner_and_administrators_act_on_a_job(caller: Caller, may: bool) -> None:
    assert may_act_on("ann", 7, caller) is may


@pytest.mark.parametrize(
    ("asked", "fits"),
    [
        ({}, True), ({"mem_mb": 24_000}, True), ({"mem_mb": 24_001}, False), ({"ids": ()}, False),
        ({"ids": (0,)}, False),
        ({"ids": (1,)}, True), ({"wanted_model": "a100"}, True), ({"wanted_model": "H100"}, False),
        ({"wanted_model": "a100", "ids": (0,)}, False), ({"ids": (1,), "mem_mb": 25_000}, False),
    ],
)  # fmt: skip
def test_a_gpu_must_be_all_that_is_asked_for(asked: dict[str, Any], fits: bool) -> None:
    assert suits(1, "NVIDIA A100", 24_000, **{"ids": None, "wanted_model": None, "mem_mb": None, **asked}) is fits


@pytest.mark.parametrize(
    ("asked", "peak", "gpus", "memories", "wanted"),
    [
        # 1.25 times 8000 is what was asked already: five quarters of the request.
        (10_000, 8_000, 1, [24_000], 12_500),
        (10_000, 8_001, 1, [24_000], 10_002),
        (1, None, 1, [24_000], 2),
        (10_000, 9_600, 1, [12_000], 12_000),
        # The most that two GPUs have is the second largest.
        (10_000, 20_000, 2, [16_000, 40_000], None),
        (10_000, 20_000, 2, [12_000, 16_000, 40_000], 16_000),
        (16_000, 20_000, 2, [12_000, 16_000, 40_000], None),
        (15_999, 20_000, 2, [12_000, 16_000, 40_000], 16_000),
        # No GPU, or more than there are.
        (10_000, 20_000, 0, [24_000, 40_000], None),
        (10_000, 8_500, 3, [24_000, 40_000], None),
        (10_000, 8_500, 2, [24_000, 40_000], 10_625),
    ],
)
def test_a_request_is_raised_to_what_that_many_gpus_have(
    asked: int, peak: int | None, gpus: int, memories: list[int], wanted: int | None
) -> None:
    assert raised(asked, peak, gpus, memories) == wanted


def test_priorities_are_numbered_from_the_most_urgent() -> None:
    assert [(one.label, int(one)) for one in Priority] == [("critical", 0), ("high", 1), ("normal", 2), ("low", 3)]
    assert [Priority.parse(number) for number in (0, 1, 2, 3)] == list(Priority)
    for text in (4, -1, "00", "", " high"):
        with pytest.raises(UsageError):
            Priority.parse(text)


@pytest.mark.parametrize(
    ("place", "wanted"),
    [
        (lambda: Ranking().score(Priority.CRITICAL, 50.0, 60.0), 650.0),
        (lambda: Ranking().score(Priority.CRITICAL, 50.0, None), 50.0 + 288_000.0),
        (lambda: Ranking().score(Priority.HIGH, 50.0, 0.0), PRIORITY_STEP + 50.0),
        (lambda: Ranking().score(Priority.CRITICAL, 50.0, 0.0, 3), 50.0),
        (lambda: Ranking(spacing_s=7.0).score(Priority.CRITICAL, 50.0, 0.0, 3), 71.0),
        (lambda: Ranking(spacing_s=7.0).score(Priority.CRITICAL, 50.0, 0.0), 50.0),
        (lambda: Ranking(aging_s=100.0).score(Priority.LOW, 50.0, 1.0), 360.0),
        (lambda: Ranking(aging_s=0.0).score(Priority.LOW, 50.0, 1.0), 60.0),
        (lambda: Ranking("fifo").score(Priority.NORMAL, 50.0, 9.0), 2e11 + 50.0),
        (lambda: score(Priority.NORMAL, 50.0, 1.0), 2e11 + 60.0),
        (lambda: score(Priority.NORMAL, 50.0, 1.0, order="fifo", aging_s=5.0), 60.0),
    ],
)
def test_a_score_is_its_four_terms_added(place: Callable[[], float], wanted: float) -> None:
    assert place() == wanted


def test_the_longest_limit_never_reaches_the_next_priority() -> None:
    assert MAX_TIME_LIMIT_S == 315_360_000
    assert score(Priority.HIGH, 9e10, MAX_TIME_LIMIT_S) < score(Priority.NORMAL, 0.0, 0.0)


def test_a_job_without_a_signal_has_its_grace_and_no_notice() -> None:
    for reason in ("preempt", "drain", "cancel"):
        times = StopTimes.of(reason, 100.0, 30.0)
        assert (times.term_at, times.kill_at) == (100.0, 130.0)
        assert grace_left_s(reason, 110.0, 130.0) == 20.0


@pytest.mark.parametrize(("now", "overdue"), [(104.0, False), (105.0, False), (105.5, True)])
def test_a_supervisor_has_five_seconds_more_than_its_grace(now: float, overdue: bool) -> None:
    assert is_overdue(100.0, now) is overdue


def test_the_end_of_an_attempt_is_swept_and_nobodys_fault_unless_said() -> None:
    plain = Result(Outcome.SUCCEEDED)
    assert (plain.swept, plain.machine_fault) == (True, False)
