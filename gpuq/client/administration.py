"""The part of the client that is about the queue as a whole and its machine."""

from __future__ import annotations

import warnings
from datetime import datetime
from typing import TYPE_CHECKING, Self

from gpuq.client.calls import Calls
from gpuq.client.rules import Limit, PlannedDrain
from gpuq.client.submission import moment_text
from gpuq.client.values import DeadLetter, Gpu, Group, Pause, Stats, Table

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence


class Administration:
    """What concerns no single job. `session`: the same daemon's answers as JSON, for what has no method here
    (`client.session.call("GET", "/tokens")`), over the same connection."""

    session: Calls

    def __init__(
        self,
        server: str | None = None,
        token: str | None = None,
        *,
        direct: bool = True,
        on_direct: Callable[[], None] | None = None,
    ) -> None:
        self.session = Calls(server, token, direct=direct, on_direct=on_direct)
        if (danger := self.session.address.in_the_clear) is not None:
            # Of whoever made the client, as a subclass or not.
            warnings.warn(danger, stacklevel=2)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends this thread's connection; a later call makes a new one."""
        self.session.close()

    @property
    def is_direct(self) -> bool:
        """Whether the last call found no daemon and worked straight on the database; nothing starts then."""
        return self.session.is_direct

    def pause(self, reason: str | None = None) -> Pause:
        """Starts no new jobs until `resume`, also after a restart; running ones go on. Raises Forbidden."""
        return Pause.from_json(self.session.pause(reason)["paused"])

    def resume(self) -> None:
        """Starts jobs again. Raises Forbidden."""
        self.session.resume()

    def gpus(self) -> list[Gpu]:
        """Each GPU with its state and its holders, by index."""
        return [Gpu.from_json(gpu) for gpu in self.session.gpus()]

    def drain(self, index: int, reason: str | None = None) -> Gpu:
        """Gives the GPU to no new job; what runs there goes on. Raises NotFound, Forbidden."""
        return Gpu.from_json(self.session.drain(index, reason))

    def undrain(self, index: int) -> Gpu:
        """Puts a drained GPU back. Raises NotFound, Forbidden."""
        return Gpu.from_json(self.session.undrain(index))

    def planned_drain(self) -> PlannedDrain | None:
        """The drain that is planned, or has begun; None without one."""
        return PlannedDrain.from_answer(self.session.planned_drain())

    def plan_drain(
        self,
        at: datetime | float | str,
        until: datetime | float | str | None = None,
        *,
        gpus: Sequence[int] | None = None,
        reason: str | None = None,
    ) -> PlannedDrain | None:
        """Takes the machine, or these GPUs, out of the queue from `at` on (a `datetime`, epoch seconds or ISO 8601),
        in place of what was planned before: what would not end before does not start. Raises Forbidden, UsageError,
        NotFound."""
        wanted = {"at": moment_text(at), "until": moment_text(until), "gpus": gpus, "reason": reason}
        return PlannedDrain.from_answer(self.session.plan_drain(**wanted))

    def cancel_drain(self) -> None:
        """Jobs start again as if no drain had been planned. Raises Forbidden."""
        self.session.cancel_drain()

    def groups(self) -> list[Group]:
        """The groups that have a limit or jobs that have not ended, by name."""
        return [Group.from_json(group) for group in self.session.groups()]

    def limit_group(self, group: str, limit: int) -> None:
        """How many jobs of `group` may run at once; 0: as many as fit. Jobs that run go on. Raises Forbidden."""
        self.session.limit_group(group, limit)

    def limits(self, *, user: str | None = None, group: str | None = None) -> list[Limit]:
        """The limits that are set, and what counts for the caller; of one user or group alone, if it is named."""
        return [Limit.from_json(limit) for limit in self.session.limits(user=user, group=group)]

    def set_limits(
        self, kind: str, name: str | None = None, **limits: float | str | Mapping[str, float] | None
    ) -> list[Limit]:
        """Of a `user`, a `group`, or (`default`, without a name) of every user that has none of his own: `gpus`,
        `running`, `waiting`, `gpu_hours` (`{"hours": 100, "window_s": 604800}`), `time_s` (seconds). None removes a
        limit, "unlimited" lifts it; what is not named stays. Returns what counts then. Raises Forbidden, UsageError."""
        return [Limit.from_json(limit) for limit in self.session.set_limits(kind, name, **limits)]

    def dead_letters(self) -> list[DeadLetter]:
        """The jobs whose retries are used up, newest first."""
        return [DeadLetter.from_json(letter) for letter in self.session.dlq()]

    def remove_dead_letter(self, job_id: int) -> None:
        """Drops the letter; the job stays in the history. Raises NotFound, Forbidden."""
        self.session.dlq_remove(job_id)

    def stats(self) -> Stats:
        """Counts of jobs by state, dead letters and GPUs, and whether the queue is paused."""
        return Stats.from_json(self.session.stats())

    def report(
        self,
        kind: str,
        *,
        by: str = "user",
        since: datetime | float | str | None = None,
        until: datetime | float | str | None = None,
    ) -> Table:
        """`kind`: usage, waits, failures, utilization or disk; `by`: user, group, gpu, day or job, several with commas
        between; `since`, `until`: a `datetime`, epoch seconds or ISO 8601. Raises UsageError."""
        return Table.from_json(self.session.report(kind, by=by, since=moment_text(since), until=moment_text(until)))

    def sql(self, query: str) -> Table:
        """The answer to a read-only statement on the history's views. Raises UsageError for anything else."""
        return Table.from_json(self.session.sql(query))
