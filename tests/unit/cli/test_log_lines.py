"""Output as lines: what is written over, what a pattern finds, where the last lines begin."""

from __future__ import annotations

import io
import random
import signal
from typing import Any, cast

import pytest

from gpuq.cli.commands.log_lines import LONGEST, Lines, Search, Sink
from gpuq.cli.commands.log_places import CHUNK, last_lines
from gpuq.errors import UsageError


def shown(data: bytes, size: int, *, collapse: bool = True) -> bytes:
    """What lines make of `data` that comes in pieces of `size` bytes."""
    lines = Lines(collapse=collapse)
    found = [line for at in range(0, len(data), size) for line in lines.feed(data[at : at + size])]
    return b"".join([*found, *lines.end()])


@pytest.mark.parametrize("size", [1, 2, 3, 1000])
@pytest.mark.parametrize(
    ("data", "last"),
    [
        (b"a\nb\n", b"a\nb\n"),
        (b"0%\r50%\r100%\ndone\n", b"100%\ndone\n"),
        (b"0%\r50%", b"50%"),
        (b"0%\r50%\r", b"50%"),
        (b"dos\r\nlines\r\n", b"dos\nlines\n"),
        (b"\r10%\r20%\r\n", b"20%\n"),
        (b"\r\r\r", b""),
        (b"\n\r\n", b"\n\n"),
    ],
)
def test_of_a_line_that_was_written_over_the_last_state_is_shown(data: bytes, last: bytes, size: int) -> None:
    assert shown(data, size) == last
    assert shown(data, size, collapse=False) == data


def test_a_line_without_end_takes_no_more_memory_than_its_last_state() -> None:
    lines = Lines(collapse=True)
    piece = b"".join(b"\r%7d/9999999" % number for number in range(20_000))
    for _ in range(50):
        assert not list(lines.feed(piece))
        assert len(lines._rest) < 20
    for _ in range(50):
        assert not list(lines.feed(b"\r" * CHUNK))
    assert list(lines.end()) == [b"  19999/9999999"]


def test_a_line_longer_than_is_kept_is_passed_on_in_pieces() -> None:
    lines = Lines(collapse=True)
    pieces = [piece for _ in range(8) for piece in lines.feed(b"x" * (LONGEST // 2))]
    assert [len(piece) for piece in pieces] == [LONGEST] * 3
    assert b"".join([*pieces, *lines.end()]) == b"x" * (4 * LONGEST)


def written(*puts: bytes, **how: Any) -> bytes:
    out = io.BytesIO()
    sink = Sink(out.write, **{"collapse": True, **how})
    for data in puts:
        sink.put(data)
    sink.end()
    return out.getvalue()


def test_a_label_stands_before_every_line_once() -> None:
    assert written(b"a\nb", b"c\n", label="9_3") == b"9_3 | a\n9_3 | bc\n"
    assert written(b"a", label="9") == b"9 | a\n"
    assert written(b"x" * (2 * LONGEST), b"\nb\n", label="9").count(b"9 | ") == 2


def test_a_search_shows_the_lines_it_finds_and_of_them_the_last() -> None:
    data = b"loss 1\nstep\nloss 2\nloss 3"
    assert written(data, search=Search("loss")) == b"loss 1\nloss 2\nloss 3"
    assert written(data, search=Search("loss [12]$")) == b"loss 1\nloss 2\n"
    assert written(data, search=Search("loss"), newest=2) == b"loss 2\nloss 3"
    assert written(b"loss 1\rloss 2\n", search=Search("loss 1")) == b""
    assert written(b"loss 1\rloss 2\n", search=Search("loss 1"), collapse=False) == b"loss 1\rloss 2\n"


def test_a_pattern_that_takes_for_ever_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gpuq.cli.commands.log_lines.SEARCH_S", 0.2)
    before = signal.getsignal(signal.SIGPROF)
    with pytest.raises(UsageError, match="takes too long"):
        written(b"a" * 60 + b"!\n", search=Search("^(a+)+$"))
    assert signal.getsignal(signal.SIGPROF) is before
    assert signal.getitimer(signal.ITIMER_PROF) == (0.0, 0.0)


@pytest.mark.parametrize("pattern", ["(", "[", "a{9999999999999999999}"])
def test_a_pattern_that_is_none_is_refused(pattern: str) -> None:
    with pytest.raises(UsageError, match="--grep"):
        Search(pattern)


class Output:
    """A job's output as the client reads it; counts bytes and the longest piece."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.read = 0

    def log(self, job_id: int, *, offset: int, limit: int, attempt: int | None) -> Any:
        data = self.data[offset : offset + limit]
        assert limit <= CHUNK
        self.read += len(data)

        class Piece:
            pass

        piece: Any = Piece()
        piece.data, piece.next_offset, piece.size, piece.attempt = data, offset + len(data), len(self.data), 1
        return piece


def last(data: bytes, lines: int, *, collapse: bool) -> bytes:
    output = Output(data)
    place = last_lines(cast(Any, output), 7, 1, len(data), lines, collapse=collapse)
    return shown(data[place:], 1000) if collapse else data[place:]


@pytest.mark.parametrize("seed", range(30))
def test_the_last_lines_are_those_of_the_whole_output(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gpuq.cli.commands.log_places.FIRST", 3)
    monkeypatch.setattr("gpuq.cli.commands.log_places.LONGER", 1)
    chance = random.Random(seed)
    data = "".join(chance.choices("ab\r\n", weights=[3, 3, 2, 2], k=60)).encode()
    for lines in range(8):
        for collapse in (False, True):
            whole = shown(data, 1000, collapse=collapse)
            ends = whole.splitlines(keepends=True) if collapse else [f + b"\n" for f in whole.split(b"\n")]
            if not collapse:
                ends = ends[:-1] if whole.endswith(b"\n") else [*ends[:-1], ends[-1][:-1]]
            assert last(data, lines, collapse=collapse) == b"".join(ends[-lines:] if lines else [])


def test_the_last_state_of_a_long_line_is_found_at_its_end() -> None:
    data = b"begin\n" + b"".join(b"\r%07d" % number for number in range(1_000_000))
    output = Output(data)
    place = last_lines(cast(Any, output), 7, 1, len(data), 1, collapse=True)
    assert data[place:] == b"0999999"
    assert output.read < 10_000
