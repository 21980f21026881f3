"""A job's output as lines for people: a progress bar as it stands last, which lines a pattern finds, whose line it is.

Bytes in, bytes out. However long the output and its lines are, no more than LONGEST bytes of a line are kept.
"""

from __future__ import annotations

from gpuq.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import re
    from collections import deque
    from collections.abc import Callable, Iterator
    from types import FrameType

# Bytes of a line that are held; what is longer is passed on, and searched, in pieces of that length.
LONGEST = 1 << 16
# Seconds of this process's own time for the lines of one piece of output, at most.
SEARCH_S = 5


def last_state(line: bytes) -> bytes:
    """What a terminal shows of a line in the end: what stands after the last carriage return that anything follows."""
    shown = line.rstrip(b"\r")
    return shown[shown.rfind(b"\r") + 1 :]


class Lines:
    """Puts lines together from pieces of output. `collapse`: of a line that was written over and over, as progress bars
    do, the last state alone."""

    def __init__(self, *, collapse: bool) -> None:
        self._collapse = collapse
        self._rest = b""

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The lines that `data` completes, each with its line end; of one that is longer than LONGEST a piece without
        one."""
        *whole, rest = (self._rest + data).split(b"\n")
        # First, so that nothing is told twice by a caller who stops in between.
        self._rest = b""
        for line in whole:
            yield (last_state(line) if self._collapse else line) + b"\n"
        if self._collapse and b"\r" in rest:
            rest = last_state(rest) + (b"\r" if rest.endswith(b"\r") else b"")
        while len(rest) > LONGEST:
            yield rest[:LONGEST]
            rest = rest[LONGEST:]
        self._rest = rest

    def end(self) -> Iterator[bytes]:
        """What stands after the last line end, if anything does."""
        rest, self._rest = self._rest, b""
        if rest:
            yield last_state(rest) if self._collapse else rest


class Search:
    """Which lines a regular expression finds. A pattern may take for ever on an unlucky line: after SEARCH_S seconds of
    this process's time on one piece of output it is given up. To be used in the main thread."""

    def __init__(self, pattern: str) -> None:
        import re

        try:
            self._pattern: re.Pattern[str] = re.compile(pattern)
        except (re.error, OverflowError, RecursionError) as error:
            raise UsageError(f"--grep: {error}", hint="write a regular expression as Python's, 'loss=0[.]') ") from None

    def among(self, lines: Iterator[bytes]) -> list[bytes]:
        """Those that it finds something in. Raises UsageError when that takes too long."""
        import signal

        before = signal.signal(signal.SIGPROF, self._give_up)
        signal.setitimer(signal.ITIMER_PROF, SEARCH_S)
        try:
            return [line for line in lines if self._pattern.search(line.rstrip(b"\n").decode(errors="replace"))]
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
            signal.signal(signal.SIGPROF, before)

    @staticmethod
    def _give_up(number: int, frame: FrameType | None) -> None:
        raise UsageError(
            "--grep: the pattern takes too long on a line of this output",
            hint="write it without repetitions within repetitions, such as (a+)+",
        )


class Sink:
    """Where the output of one job, or one attempt of it, goes. `write` is given bytes; `label` stands before each line;
    `newest`: holds back lines, so many at most, until `let_go`."""

    def __init__(
        self,
        write: Callable[[bytes], object],
        *,
        collapse: bool,
        search: Search | None = None,
        label: str = "",
        newest: int | None = None,
    ) -> None:
        self._write = write
        self._as_it_is = not (collapse or search or label)
        self._lines = Lines(collapse=collapse)
        self._search = search
        self._label = f"{label} | ".encode() if label else b""
        self._held: deque[bytes] | None = None
        self._begun = False
        if newest is not None:
            from collections import deque

            self._held = deque(maxlen=newest)

    def put(self, data: bytes) -> None:
        """Takes the next bytes of the output."""
        if self._as_it_is:
            self._write(data)
        else:
            self._pass_on(self._lines.feed(data))

    def end(self) -> None:
        """Nothing more comes of this attempt."""
        self._pass_on(self._lines.end())
        self.let_go()
        if self._begun and self._label:
            self._write(b"\n")
            self._begun = False

    def let_go(self) -> None:
        """Writes what was held back; what comes from now on is written at once."""
        held, self._held = self._held, None
        for line in held or ():
            self._one(line)

    def _pass_on(self, lines: Iterator[bytes]) -> None:
        for line in lines if self._search is None else self._search.among(lines):
            if self._held is not None:
                self._held.append(line)
            else:
                self._one(line)

    def _one(self, line: bytes) -> None:
        self._write(line if self._begun else self._label + line)
        self._begun = not line.endswith(b"\n")
