"""Following jobs until they end: output and states. For a second they are asked for, faster right after something
moved; then the daemon says when something has (`Wakener`), and where it cannot, they are asked for more slowly."""

from __future__ import annotations

import time
from contextlib import closing

from gpuq.errors import DaemonUnreachable, NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any, Protocol

    from gpuq.client.stream import EventStream

    class Piece(Protocol):
        """A piece of a job's output, as the client tells it."""

        data: bytes
        next_offset: int
        attempt: int
        final: bool

    class Source(Protocol):
        """What following asks: the client, which itself offers following."""

        is_direct: bool

        def job(self, job_id: int) -> dict[str, Any]: ...

        def jobs(self, **filters: object) -> list[Any]: ...

        def log(self, job_id: int, *, offset: int = 0, attempt: int | None = None) -> Piece: ...

        def listen(self, path: str, *, last_event_id: str | None = None, **query: object) -> EventStream | None: ...


# Seconds: without a movement, before a stream is opened; and between two looks while a stream is open and silent.
QUIET_S = 1.0
LOOK_S = 600.0
# More jobs than this are not named to the daemon one by one.
NAMED = 100

FINAL = frozenset({"completed", "failed", "cancelled"})


class Pace:
    """Seconds between two looks: `first` after something moved, half as long again each time nothing has,
    at most `most`."""

    def __init__(self, first: float = 0.02, most: float = 0.5, sleep: Callable[[float], None] = time.sleep) -> None:
        self._first = self._next = first
        self._most = most
        self._sleep = sleep

    def moved(self) -> None:
        self._next = self._first

    def rest(self, at_most: float | None = None) -> None:
        """Sleeps, at most `at_most` seconds, and makes the next rest longer by half, up to its limit."""
        self._sleep(self._next if at_most is None else max(0.0, min(self._next, at_most)))
        self._next = min(self._most, self._next * 1.5)


class Wakener:
    """What a client rests on between two looks: on a `Pace` for a second, then on a stream of events, which it opens
    with `listen` once nothing has moved for so long, or when the last one has ended."""

    def __init__(self, listen: Callable[[], EventStream | None], pace: Pace) -> None:
        self._listen = listen
        self._pace = pace
        self._stream: EventStream | None = None
        self._rested = 0.0

    def moved(self) -> None:
        """The next rests are short again."""
        self._pace.moved()
        self._rested = 0.0

    def close(self) -> None:
        """Ends the stream, if there is one."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    def rest(self, at_most: float | None = None) -> list[tuple[str, Any]] | None:
        """What the stream told, waiting at most `at_most` seconds; None: look for yourself, because it is not known
        what happened meanwhile."""
        if self._stream is not None:
            try:
                return self._stream.frames(LOOK_S if at_most is None else min(at_most, LOOK_S)) or None
            except EOFError:
                self._stream = None
                self._rested = 0.0
                return None
        before = time.monotonic()
        self._pace.rest(at_most)
        self._rested += time.monotonic() - before
        if self._rested > QUIET_S:
            self._rested = 0.0
            self._stream = self._listen()
        return None


def follow(
    client: Source,
    job_id: int,
    *,
    attempt: int | None = None,
    only: bool = False,
    offset: int = 0,
    on_attempt: Callable[[int], None] | None = None,
    pace: Pace | None = None,
) -> Iterator[bytes]:
    """Output from byte `offset` of `attempt` (None: the newest) on, through later attempts until the job is final;
    `only`: to the end of that attempt. `on_attempt` is called when an attempt's output begins.

    Raises DaemonUnreachable when the job has not ended and there is no daemon.
    """
    tell = on_attempt or (lambda number: None)
    current = 0

    def listen() -> EventStream | None:
        place = f"{current}:{offset}" if current else None
        return client.listen(f"/jobs/{job_id}/log/stream", last_event_id=place, text="false")

    with closing(Wakener(listen, pace or Pace(most=0.25))) as wakener:
        while True:
            chunk = client.log(job_id, offset=offset, attempt=current or None)
            if current == 0 and chunk.attempt:
                current = attempt or chunk.attempt
                tell(current)
                if current != chunk.attempt:
                    continue
            if chunk.data:
                offset = chunk.next_offset
                wakener.moved()
                yield chunk.data
                continue
            if chunk.final:
                if only and current:
                    return
                job = client.job(job_id)
                if current and job["attempt"] > current:
                    current, offset = current + 1, 0
                    wakener.moved()
                    tell(current)
                    continue
                if job["state"] in FINAL:
                    return
            _require_daemon(client, job_id)
            wakener.rest()


def wait(client: Source, job_ids: list[int], timeout_s: float | None = None, *, pace: Pace | None = None) -> list[Any]:
    """The jobs in the order asked for, once all are final. Raises TimeoutError after `timeout_s` seconds."""
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    done: dict[int, Any] = {}
    seen: dict[int, str] = {}
    missing = list(dict.fromkeys(job_ids))

    def listen() -> EventStream | None:
        some = ",".join(map(str, missing)) if len(missing) <= NAMED else None
        return client.listen("/events", job_id=some)

    with closing(Wakener(listen, pace or Pace(most=1.0))) as wakener:
        asked = missing
        while True:
            for job in _fetch(client, asked):
                if seen.get(job["id"]) != job["state"]:
                    seen[job["id"]] = job["state"]
                    wakener.moved()
                if job["state"] in FINAL:
                    done[job["id"]] = job
            missing = [job_id for job_id in missing if job_id not in done]
            if not missing:
                return [done[job_id] for job_id in job_ids]
            _require_daemon(client, missing[0])
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                raise TimeoutError(f"{len(missing)} of {len(job_ids)} jobs are not final yet: {missing[0]} …")
            told = wakener.rest(left)
            asked = missing if told is None else _ended(told, missing)


def _ended(told: list[tuple[str, Any]], missing: list[int]) -> list[int]:
    """Those of the missing jobs whose ends were told."""
    ended = {data["job_id"] for event, data in told if event == "job" and data["to_state"] in FINAL}
    return [job_id for job_id in missing if job_id in ended]


def _require_daemon(client: Source, job_id: int) -> None:
    if client.is_direct:
        raise DaemonUnreachable(
            f"job {job_id} has not ended, and without a daemon nothing will end it", hint="start one with `gpuq up -d`"
        )


def _fetch(client: Source, job_ids: list[int]) -> list[Any]:
    """Raises NotFound for the first id that no job has."""
    found: list[Any] = []
    # 500 ids make a request line of a few kilobytes, well under what servers accept.
    for start in range(0, len(job_ids), 500):
        part = job_ids[start : start + 500]
        answer = client.jobs(ids=",".join(map(str, part)), limit=len(part))
        known = {job["id"] for job in answer}
        for job_id in part:
            if job_id not in known:
                raise NotFound(f"there is no job {job_id}", hint="`gpuq status` and `gpuq history` list the jobs")
        found.extend(answer)
    return found
