"""`gpuq.Executor`: functions as jobs, with the interface of the standard library's executors."""

from __future__ import annotations

import collections
import concurrent.futures
import os
import sys
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from gpuq.client.client import Client
from gpuq.client.submission import Options
from gpuq.domain.quantities import parse_duration
from gpuq.errors import UsageError
from gpuq.functions import payload
from gpuq.functions.future import COMMAND, JobFuture
from gpuq.functions.watcher import Watcher
from gpuq.python_values import CALL, pack

if TYPE_CHECKING:
    from typing import Unpack

P = ParamSpec("P")
T = TypeVar("T")

_KNOWN = frozenset({*Options.__annotations__, "time_limit"}) - {"script"}


class Executor(concurrent.futures.Executor):
    """Runs functions as jobs of the queue: `submit`, `map`, `with`, `as_completed` and `wait` are as in
    `concurrent.futures`.

        with gpuq.Executor(gpus=1, time_limit="2h") as executor:
            losses = list(executor.map(train, [1e-3, 1e-4]))

    Functions of `__main__`, lambdas and closures travel as they are, those of a module by its name. A call is run once:
    `max_retries` is 0 unless given; only one whose machine or supervisor died under it is run again. Calls that are
    queued survive this process (`gpuq.attach`); leaving the `with` waits for them.
    """

    def __init__(
        self,
        *,
        time_limit: str | float | None = None,
        max_workers: int | None = None,
        client: Client | None = None,
        **options: Unpack[Options],
    ) -> None:
        """`time_limit`: `2h`, or seconds. `max_workers`: so many calls are in the queue or running at once; what is
        kept back is lost with this process. None: all of them are queued at once. `client`: one of one's own, which
        stays open. `options`: `gpus`, `name`, `group` and the other fields of `Client.submit`.

        Raises TypeError for an option that there is not, UsageError for one that is malformed, and where the daemon is
        on another machine.
        """
        self._options = _checked({"time_limit": time_limit, **options})
        if max_workers is not None and max_workers < 1:
            raise UsageError("max_workers: at least 1, or None for no limit", hint="leave it out to queue all at once")
        self._own_client = client is None
        self._client = client if client is not None else Client(direct=False)
        if self._client.session.address.scheme != "unix":
            if self._own_client:
                self._client.close()
            raise UsageError(
                "functions travel in files, and the daemon is on another machine",
                hint="use the executor on the daemon's machine, or Client.submit with a command",
            )
        self._max_workers = max_workers
        self._watcher = Watcher(self._client, self._settled)
        self._lock = threading.RLock()
        self._unsettled: set[JobFuture[Any]] = set()
        self._in_queue = 0
        self._kept_back: collections.deque[tuple[JobFuture[Any], bytes, dict[str, Any]]] = collections.deque()
        self._is_shut_down = False

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> JobFuture[T]:
        """Queues `fn(*args, **kwargs)`; durable on return. Raises UsageError for what cannot be pickled, what
        `Client.submit` raises, and RuntimeError after `shutdown`."""
        return self._submit(fn, args, kwargs, self._options)

    def options(self, **options: Any) -> OptionsView:
        """This executor with other options for some calls: `executor.options(gpus=2).submit(f, x)`. Raises TypeError
        and UsageError as the class does."""
        return OptionsView(self, {**self._options, **_checked(options)})

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Takes no more calls. `cancel_futures`: those that have not started are cancelled; `wait`: returns when all
        have ended."""
        with self._lock:
            self._is_shut_down = True
            unsettled = list(self._unsettled)
        if cancel_futures:
            for future in unsettled:
                future.cancel()
        if wait:
            concurrent.futures.wait(unsettled)
            if self._own_client:
                self._client.close()

    def _submit(
        self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], options: dict[str, Any]
    ) -> JobFuture[Any]:
        with self._lock:
            if self._is_shut_down:
                raise RuntimeError("cannot schedule new futures after shutdown")
        name = getattr(fn, "__qualname__", None) or type(fn).__name__
        # In the caller's thread: what cannot travel is an error of this call, here.
        data = pack(CALL, (fn, args, kwargs), name=name, path=[os.path.abspath(each) for each in sys.path])
        options = {**options, "name": options.get("name") or name.rpartition(".")[2].strip("<>") or name}
        future: JobFuture[Any] = JobFuture(self._client, drop=self._drop)
        with self._lock:
            full = self._max_workers is not None and self._in_queue >= self._max_workers
            self._unsettled.add(future)
            if full:
                self._kept_back.append((future, data, options))
                return future
            self._in_queue += 1
        try:
            self._queue(future, data, options)
        except BaseException:
            with self._lock:
                self._in_queue -= 1
                self._unsettled.discard(future)
            raise
        return future

    def _queue(self, future: JobFuture[Any], data: bytes, options: dict[str, Any]) -> None:
        path = payload.write(self._client.session.address.home, data)
        try:
            future.job = self._client.submit([sys.executable, *COMMAND[1:], path], **options)
        except BaseException:
            payload.remove(path)
            raise
        self._watcher.watch(future)

    def _drop(self, future: JobFuture[Any]) -> bool:
        """Takes a call out that is kept back; False when it is not (any more)."""
        with self._lock:
            kept = [each for each in self._kept_back if each[0] is not future]
            dropped = len(kept) < len(self._kept_back)
            self._kept_back = collections.deque(kept)
            if dropped:
                self._unsettled.discard(future)
            return dropped

    def _settled(self, future: JobFuture[Any]) -> None:
        """On the watcher's thread: a call has ended, and the next that was kept back goes into the queue."""
        with self._lock:
            self._unsettled.discard(future)
            self._in_queue -= 1
        while True:
            with self._lock:
                if not self._kept_back or self._in_queue >= (self._max_workers or 0):
                    return
                following, data, options = self._kept_back.popleft()
                self._in_queue += 1
            try:
                self._queue(following, data, options)
                return
            except Exception as error:  # noqa: BLE001 - nobody is there to raise it to but who asks for the result
                with self._lock:
                    self._in_queue -= 1
                    self._unsettled.discard(following)
                following.set_exception(error)


class OptionsView(concurrent.futures.Executor):
    """An executor with other options, see `Executor.options`; `shutdown` is the executor's own."""

    def __init__(self, executor: Executor, options: dict[str, Any]) -> None:
        self._executor = executor
        self._options = options

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> JobFuture[T]:
        """As `Executor.submit`, with these options."""
        return self._executor._submit(fn, args, kwargs, self._options)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Of the executor, and so of all calls."""
        self._executor.shutdown(wait, cancel_futures=cancel_futures)


def attach(job_id: int, *, client: Client | None = None) -> JobFuture[Any]:
    """The future of a job, in any process of its user's and at any time: of a call that an `Executor` submitted, or of
    any other job, whose result are bytes. Raises NotFound."""
    asked = client if client is not None else Client(direct=False)
    future: JobFuture[Any] = JobFuture(asked, asked.job(job_id))
    Watcher(asked).watch(future)
    if client is None:
        # This thread's connection; whatever the future asks later makes a new one.
        asked.close()
    return future


def _checked(given: dict[str, Any]) -> dict[str, Any]:
    """As `Client.submit` takes them."""
    unknown = sorted(given.keys() - _KNOWN)
    if unknown:
        raise TypeError(f"Executor has no option {unknown[0]!r}; there are {', '.join(sorted(_KNOWN))}")
    options = dict(given)
    limit = options.pop("time_limit", None)
    if limit is not None:
        options["time_limit_s"] = parse_duration(limit) if isinstance(limit, str) else float(limit)
    gpus = options.get("gpus", 1)
    if isinstance(gpus, bool) or not isinstance(gpus, int) or gpus < 0:
        raise UsageError(f"gpus: a whole number from 0 on, not {gpus!r}", hint="0 is a call without a GPU")
    options.setdefault("max_retries", 0)
    return {name: value for name, value in options.items() if value is not None}
