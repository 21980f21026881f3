from __future__ import annotations

import pytest

from gpuq.domain.array import parse_array
from gpuq.domain.ids import parse_selection
from gpuq.domain.quantities import duration_text, parse_duration, parse_memory_mb
from gpuq.domain.times import iso
from gpuq.errors import UsageError


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", 90), ("15m", 900), ("2h", 7200), ("1d", 86400), ("1-12:00:00", 129_600), ("12:00:00", 43_200),
        ("30:00", 1800), ("1h30m", 5400), ("1.5h", 5400), ("45", 45), ("0.5", 0.5), ("1-6:00", 108_000), (" 2H ", 7200),
    ],
)  # fmt: skip
def test_durations_as_people_write_them(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "soon", "-5m", "5 minutes", "1:75:00", "1h-2", "٣s", "5mm", "1e3", "inf", "nan"])
def test_bad_durations_are_refused_with_examples(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_duration(text)
    assert "2h" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("text", "mib"),
    [("18000", 18000), ("18G", 18432), ("500M", 500), ("1.5g", 1536), ("1T", 1048576), ("24GiB", 24576)],
)
def test_memory_sizes(text: str, mib: int) -> None:
    assert parse_memory_mb(text) == mib


@pytest.mark.parametrize("text", ["", "lots", "-1G", "0", "1P", "18 000", "9" * 400, "9" * 400 + "G"])
def test_bad_memory_sizes_are_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_memory_mb(text)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0s"), (59.4, "59s"), (190, "3m10s"), (7500, "2h05m"), (100_000, "1d03h"), (-3, "0s")]
)
def test_durations_are_shown_short(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text


def test_iso_times_have_milliseconds_and_a_z() -> None:
    assert iso(1_795_341_600.123) == "2026-11-22T10:00:00.123Z"
    assert iso(1_795_341_599.9996) == "2026-11-22T10:00:00.000Z"
    assert iso(None) is None
    assert iso(1e300) is None


def test_selections_take_ids_ranges_elements_and_words() -> None:
    chosen = parse_selection(["7", "9,11", "300-440", "7_3", "last"])
    assert chosen.ids == (7, 9, 11)
    assert chosen.ranges == ((300, 440),)
    assert chosen.elements == ((7, 3),)
    assert chosen.last
    assert not chosen.all


def test_a_piece_of_an_array_is_written_in_brackets() -> None:
    chosen = parse_selection(["7,9_[1-4,8],11", "3_[0]"])
    assert chosen.ids == (7, 11)
    assert chosen.slices == ((9, 1, 4), (9, 8, 8), (3, 0, 0))
    assert not chosen.elements


@pytest.mark.parametrize(
    "word",
    ["x", "9-3", "-4", "7_", "1-999999999", "7.0", "9_[4-1]", "9_[]", "9_[1-", "9_[1,]", "[1-4]", "9_[0-999999]"],
)
def test_nonsense_ids_are_refused(word: str) -> None:
    with pytest.raises(UsageError):
        parse_selection([word])


@pytest.mark.parametrize(
    ("text", "indices", "limit"),
    [
        ("0-3", (0, 1, 2, 3), None),
        ("0-9:3", (0, 3, 6, 9), None),
        ("0-15:5%2", (0, 5, 10, 15), 2),
        ("1,3,7", (1, 3, 7), None),
        ("4", (4,), None),
    ],
)
def test_arrays(text: str, indices: tuple[int, ...], limit: int | None) -> None:
    array = parse_array(text)
    assert (array.indices, array.limit) == (indices, limit)


@pytest.mark.parametrize("text", ["", "a-b", "5-1", "0-3%0", "0-3%x", "1,1", "0-5:0", "0-100000", "0-3%"])
def test_bad_arrays_are_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_array(text)
