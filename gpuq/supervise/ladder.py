"""Which signal is due when: a value that knows neither processes nor a clock.

    notice -> SIGTERM to every process -> grace -> SIGKILL, again and again until nothing is left

Times are seconds on the supervisor's own clock (since boot).
"""

from __future__ import annotations

from gpuq.domain.stopping import StopTimes, sooner

NOTICE = "notice"
TERMINATE = "terminate"
KILL = "kill"

# What the supervisor itself asks for once the main process has ended: its left-behind children go too.
STRAYS = "strays"
STRAY_GRACE_S = 2.0

TIME_LIMIT = "time_limit"
_KILL_AGAIN_S = 0.01
_KILL_AGAIN_MAX_S = 1.0


class Ladder:
    """`reason` is None until a stop is asked for. `notice` is the number of the `--signal`, None without."""

    def __init__(
        self,
        *,
        started: float,
        time_limit_s: float | None,
        kill_grace_s: float,
        notice: int | None = None,
        notice_before_s: float = 0.0,
    ) -> None:
        self.reason: str | None = None
        self.notice = notice
        self._started = started
        self._announced = False
        self._kill_grace_s = kill_grace_s
        self._before_s = 0.0 if notice is None else notice_before_s
        self._limit_at = None if time_limit_s is None else started + time_limit_s
        self._notice_at = None
        if notice is not None and self._limit_at is not None:
            self._notice_at = max(started, self._limit_at - notice_before_s)
        self._term_at: float | None = None
        self._kill_at: float | None = None
        self._killing = False
        self._again_s = _KILL_AGAIN_S

    def request(self, now: float, reason: str, grace_s: float | None = None, signum: int | None = None) -> None:
        """A stop is asked for, or asked for again: a later request can make the end come sooner, never later.

        A cancel takes the place of another reason. `grace_s` None: the job's own. `signum` is sent first.
        """
        grace = max(0.0, self._kill_grace_s if grace_s is None else grace_s)
        first = self.reason is None or self.reason == STRAYS
        if first or (reason == "cancel" and self.reason != reason):
            self.reason = reason
        if self._killing:
            return
        if grace == 0.0:
            self._notice_at = self._term_at = None
            self._kill_at = now
            return
        times = StopTimes.of(reason, now, grace, self._before_s)
        if self._kill_at is None:
            self._limit_at = None
            self._notice_at = None
            if signum is not None:
                self.notice = signum
            if signum is not None or times.term_at > now:
                self._notice_at = now
            self._term_at, self._kill_at = times.term_at, times.kill_at
        else:
            if self._term_at is not None:
                self._term_at = sooner(self._term_at, times.term_at)
            self._kill_at = sooner(self._kill_at, times.kill_at)

    def change(self, now: float, time_limit_s: float | None, kill_grace_s: float) -> bool:
        """New limits, both in seconds, the first from the start on, None: none. One that is over already stops the job
        as any limit does. Whether they count: a stop that is under way goes on as it was told."""
        if self.reason is not None:
            return False
        before = self._limit_at
        self._kill_grace_s = kill_grace_s
        self._limit_at = None if time_limit_s is None else self._started + time_limit_s
        sooner_than_announced = self._announced and before is not None and (self._limit_at or before) <= before
        self._notice_at = None
        if self.notice is not None and self._limit_at is not None and not sooner_than_announced:
            self._announced = False
            self._notice_at = max(now, self._limit_at - self._before_s)
        return True

    def main_ended(self, now: float) -> None:
        """What the main process left behind has the rest of the grace when a stop goes on, else a short one."""
        if self.reason is None:
            self.request(now, STRAYS, min(self._kill_grace_s, STRAY_GRACE_S))
            return
        self._notice_at = None
        if self._term_at is not None and self._kill_at is not None:
            self._kill_at -= max(0.0, self._term_at - now)
            self._term_at = min(self._term_at, now)

    def due(self, now: float) -> list[str]:
        """The steps to take now, in order; each is handed out once, except that KILL comes back."""
        over = self._limit_at is not None and now >= self._limit_at and self.reason is None
        # Before a limit that was only now made so short, too.
        announced = over and self._notice_at is not None
        if over:
            self.request(now, TIME_LIMIT)
        if announced and self._term_at is not None:
            self._notice_at = now
        steps = []
        if self._notice_at is not None and now >= self._notice_at:
            self._notice_at = None
            self._announced = True
            steps.append(NOTICE)
        if self._term_at is not None and now >= self._term_at:
            self._term_at = None
            steps.append(TERMINATE)
        if self._kill_at is not None and now >= self._kill_at:
            self._killing = True
            self._kill_at = now + self._again_s
            self._again_s = min(self._again_s * 2, _KILL_AGAIN_MAX_S)
            steps.append(KILL)
        return steps

    def next_at(self) -> float | None:
        """When `due` has something next; None: not before somebody asks."""
        limit = self._limit_at if self.reason is None else None
        moments = [at for at in (self._notice_at, self._term_at, self._kill_at, limit) if at is not None]
        return min(moments, default=None)
