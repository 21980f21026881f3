"""How long will it run? From what has ended: the same command of the same user first, then ever wider buckets.

An expectation is the mean of the last runs in the narrowest bucket that knows enough, and, for a job that has already
run for a while, of those among them that ran longer (the mean residual life; what ended sooner says nothing any more).
Reservations use it, for they weigh how much is lost. What people are told is the median: run times are skewed, and a
few long ones would make most forecasts far too late. It comes with the span in which four of five such runs lie, and it
takes three runs to say anything: of a kind of job that was seen once or twice people are told its limit. Every end
counts that freed the GPUs by itself, failures and cancellations too, because a reservation asks when they are free;
runs that gpuq ended (preempted, lost) or that never began say nothing about the program.
"""

from __future__ import annotations

import re
from collections import OrderedDict, deque
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import median

from gpuq.domain.outcome import Outcome
from gpuq.ports.history import FinishedRun
from gpuq.scheduler.spread import ENOUGH, UNKNOWN, Span, run_span

DEFAULT_S = 3600.0
RECENT = 50
RECENT_OF_ALL = 200
# Buckets that are remembered; the one unused for longest is forgotten first.
BUCKETS = 20_000
_SAYS_NOTHING = frozenset({Outcome.PREEMPTED, Outcome.LOST, Outcome.LAUNCH_ERROR})
_DIGITS = re.compile(r"\d+")
_SCRIPTS = (".py", ".sh", ".ipynb", ".jl", ".R", ".pl", ".lua", ".js")


@dataclass(frozen=True, slots=True)
class Expectation:
    """`seconds` for the whole run. `source` says in words what it rests on, `samples` on how many runs. `span`: how
    short and how long it may be, where that was asked for."""

    seconds: float
    source: str
    samples: int
    span: Span | None = None


class _Recent:
    """The last runs of a bucket, and their sum so that the mean costs nothing."""

    __slots__ = ("runs", "total")

    def __init__(self, size: int) -> None:
        self.runs: deque[float] = deque(maxlen=size)
        self.total = 0.0

    def add(self, run_s: float) -> None:
        if len(self.runs) == self.runs.maxlen:
            self.total -= self.runs[0]
        self.runs.append(run_s)
        self.total += run_s

    def beyond(self, elapsed_s: float) -> tuple[float, int]:
        """Mean and number of the runs that lasted longer."""
        if elapsed_s <= 0:
            return self.total / len(self.runs), len(self.runs)
        longer = self.longer_than(elapsed_s)
        return (sum(longer) / len(longer), len(longer)) if longer else (0.0, 0)

    def longer_than(self, elapsed_s: float) -> list[float]:
        """The runs that lasted longer, all of them for a job that has not begun."""
        return [run for run in self.runs if run > elapsed_s] if elapsed_s > 0 else list(self.runs)


class Expectations:
    """Learns from ended runs, oldest first. Memory is bounded by BUCKETS x RECENT numbers. Not thread-safe."""

    def __init__(self, default_s: float = DEFAULT_S) -> None:
        self._default_s = default_s
        self._known: OrderedDict[Hashable, _Recent] = OrderedDict()
        self._all = _Recent(RECENT_OF_ALL)
        self.learned = 0

    def learn(self, run: FinishedRun) -> None:
        """Adds a run. One whose outcome says nothing about how long such a job takes is left out."""
        if run.outcome in _SAYS_NOTHING or run.run_s < 0:
            return
        self.learned += 1
        # A set, because a job that declares nothing has one key in two buckets.
        for key in {key for key, _, _ in _buckets(run.user, run.command, run.gpus, run.time_limit_s)}:
            recent = self._known.get(key)
            if recent is None:
                recent = self._known[key] = _Recent(RECENT)
                if len(self._known) > BUCKETS:
                    self._known.popitem(last=False)
            else:
                self._known.move_to_end(key)
            recent.add(run.run_s)
        self._all.add(run.run_s)

    def expect(
        self,
        user: str,
        command: Sequence[str],
        gpus: int,
        time_limit_s: float | None,
        elapsed_s: float = 0.0,
        *,
        use_median: bool = False,
    ) -> Expectation:
        """For a job that has run for `elapsed_s` already. A limit caps it. Always more than `elapsed_s`: where nothing
        known ran longer, it is expected to last as long again. `use_median`: the median instead of the mean, with its
        span, and the limit where too few such runs are known."""
        if use_median:
            return self._typical(user, command, gpus, time_limit_s, max(elapsed_s, 0.0))
        found = self._from_history(user, command, gpus, time_limit_s, elapsed_s)
        seconds = found.seconds
        if time_limit_s is not None and time_limit_s < seconds:
            seconds = time_limit_s
            found = Expectation(seconds, f"its --time; without it, {found.source}", found.samples)
        if seconds <= elapsed_s:
            # Past its limit, it is being stopped.
            return Expectation(2 * elapsed_s, "it runs longer than its --time", 0)
        return found

    def _typical(
        self, user: str, command: Sequence[str], gpus: int, time_limit_s: float | None, elapsed_s: float
    ) -> Expectation:
        """What people are told: never what fewer than ENOUGH runs say."""
        seconds, source, runs = self._known_runs(user, command, gpus, time_limit_s, elapsed_s)
        if runs:
            span = run_span(runs, seconds)
        elif time_limit_s is not None and time_limit_s > elapsed_s:
            return Expectation(
                time_limit_s, "its --time; too few such runs are known", 0, Span(elapsed_s, time_limit_s)
            )
        else:
            seconds = max(self._default_s, 2 * elapsed_s)
            source, span = "nothing known yet", Span(elapsed_s, UNKNOWN * seconds)
        if time_limit_s is not None and time_limit_s <= elapsed_s:
            # Past its limit, it is being stopped.
            late = Span(elapsed_s, UNKNOWN * elapsed_s)
            return Expectation(2 * elapsed_s, "it runs longer than its --time", 0, late)
        if time_limit_s is not None and time_limit_s < span.high:
            span = Span(min(span.low, time_limit_s), time_limit_s)
            if time_limit_s < seconds:
                seconds, source = time_limit_s, f"its --time; without it, {source}"
        return Expectation(seconds, source, len(runs), Span(max(span.low, elapsed_s), span.high))

    def _known_runs(
        self, user: str, command: Sequence[str], gpus: int, time_limit_s: float | None, elapsed_s: float
    ) -> tuple[float, str, list[float]]:
        """Their median, what they are in words, and the runs; none where the widest circle knows too few."""
        for key, _, words in _buckets(user, command, gpus, time_limit_s):
            recent = self._known.get(key)
            runs = recent.longer_than(elapsed_s) if recent is not None else []
            if len(runs) >= ENOUGH:
                whose = words.format(user=user, on=f"{gpus} GPU{'s' if gpus != 1 else ''}")
                return max(median(runs), 1.0), f"{_count(len(runs), 'median')} of {whose}", runs
        runs = self._all.longer_than(elapsed_s)
        if len(runs) >= ENOUGH:
            return max(median(runs), 1.0), f"{_count(len(runs), 'median')} of everyone", runs
        return 0.0, "", []

    def _from_history(
        self, user: str, command: Sequence[str], gpus: int, time_limit_s: float | None, elapsed_s: float
    ) -> Expectation:
        for key, needs, words in _buckets(user, command, gpus, time_limit_s):
            recent = self._known.get(key)
            if recent is None:
                continue
            seconds, samples = recent.beyond(elapsed_s)
            if samples >= needs:
                whose = words.format(user=user, on=f"{gpus} GPU{'s' if gpus != 1 else ''}")
                return Expectation(max(seconds, 1.0), f"{_count(samples)} of {whose}", samples)
        if elapsed_s <= 0 and self._all.runs:
            seconds, samples = self._all.beyond(0.0)
            return Expectation(max(seconds, 1.0), f"{_count(samples)} of everyone", samples)
        return Expectation(max(self._default_s, 2 * elapsed_s), "nothing known yet", 0)


def _count(samples: int, what: str = "mean") -> str:
    return f"{what} of the last {samples} runs" if samples > 1 else "the only run so far"


def _buckets(
    user: str, command: Sequence[str], gpus: int, time_limit_s: float | None
) -> Iterator[tuple[Hashable, int, str]]:
    """(key, runs it takes to believe it, what they are), from narrow to wide. A declared limit is as good a sign of the
    kind of job as its command."""
    if command:
        words = tuple(command)
        shape = command_shape(words)
        # A number instead of the words, which may be many.
        yield (user, gpus, "exactly", hash(words)), ENOUGH, "exactly this command by {user} on {on}"
        yield (user, gpus, time_limit_s, shape), 2, "this command by {user} on {on} with this --time"
        yield (user, gpus, None, shape), 2, "this command by {user} on {on}"
        yield (user, shape), 2, "this command by {user}"
        yield (None, shape), ENOUGH, "this command by others"
    yield (user, gpus, time_limit_s), 2, "{user} on {on} with this --time"
    yield (user, gpus), 1, "{user} on {on}"
    yield (user,), 1, "{user}"


@lru_cache(maxsize=4096)
def command_shape(command: tuple[str, ...]) -> tuple[str, ...]:
    """Program and script without their directories, then the names of the flags, sorted, without their values.

    The script is the first argument with such a suffix, else the first that is neither flag nor number. Its digits
    count as one, so that `run_1.sh` and `run_2.sh` are one kind.
    """
    plain = [word for word in command[1:] if not word.startswith("-")]
    scripts = [word for word in plain if word.endswith(_SCRIPTS)] or [w for w in plain if not _is_number(w)]
    script = [_DIGITS.sub("#", scripts[0].rpartition("/")[2])] if scripts else []
    flags = sorted({word.partition("=")[0] for word in command[1:] if word.startswith("-")})
    return (command[0].rpartition("/")[2], *script, *flags[:32])


def _is_number(word: str) -> bool:
    return word.replace(".", "", 1).isdigit()
