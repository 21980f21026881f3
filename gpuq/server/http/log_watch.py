"""One eye on all logs that somebody follows: their sizes are looked at together, a few times a second, and more often
right after one has grown. Where nothing grows that is one thread's waking and a `stat` a log."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from starlette.concurrency import run_in_threadpool

# Seconds between two looks: right after a log has grown, and when none has for a while.
FIRST_S = 0.05
MOST_S = 0.4


@dataclass(eq=False, slots=True)
class _Watched:
    path: str
    size: int
    wake: Callable[[], None]


class LogWatch:
    """Used on the event loop alone."""

    def __init__(self) -> None:
        self._watched: set[_Watched] = set()
        self._task: asyncio.Task[None] | None = None
        self._pause = FIRST_S

    @contextlib.contextmanager
    def watching(self, path: str | None, size: int, wake: Callable[[], None]) -> Iterator[None]:
        """Inside the block `wake` is called when the file has another size than `size` bytes. None: there is none."""
        if path is None:
            yield
            return
        watched = _Watched(path, size, wake)
        self._watched.add(watched)
        if self._task is None or self._task.done():
            self._pause = FIRST_S
            self._task = asyncio.get_running_loop().create_task(self._run())
        try:
            yield
        finally:
            self._watched.discard(watched)

    async def close(self) -> None:
        """Ends the watch, and returns when it has ended."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _run(self) -> None:
        while self._watched:
            await asyncio.sleep(self._pause)
            watched = tuple(self._watched)
            sizes = await run_in_threadpool(_sizes, {one.path for one in watched})
            grown = [one for one in watched if sizes.get(one.path, one.size) != one.size]
            for one in grown:
                one.wake()
            self._pause = FIRST_S if grown else min(MOST_S, self._pause * 1.5)


def _sizes(paths: set[str]) -> dict[str, int]:
    """A size that cannot be read is absent. Only a hint: what is in the log is read with more care."""
    sizes: dict[str, int] = {}
    for path in paths:
        with contextlib.suppress(OSError):
            sizes[path] = os.lstat(path).st_size
    return sizes
