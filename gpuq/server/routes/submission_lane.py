"""The thread that small submissions wait for: what has come while it worked is served together, in one commit."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue

from gpuq.server.routes.submission_clerk import Request

log = logging.getLogger(__name__)

MOST_TOGETHER = 32


class Lane:
    """`serve` is called on the thread, with one request or with several, and answers each of them."""

    def __init__(self, serve: Callable[[list[Request]], None]) -> None:
        self._serve = serve
        # None: the end.
        self._waiting: SimpleQueue[Request | None] = SimpleQueue()
        self._thread: threading.Thread | None = None

    def put(self, request: Request) -> None:
        """On the event loop."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="submit", daemon=True)
            self._thread.start()
        self._waiting.put(request)

    def close(self) -> None:
        """Returns when every request is served that was put before."""
        if self._thread is not None:
            self._waiting.put(None)
            self._thread.join()
            self._thread = None

    def _run(self) -> None:
        going = True
        while going:
            batch = [self._waiting.get()]
            while batch[-1] is not None and len(batch) < MOST_TOGETHER:
                try:
                    batch.append(self._waiting.get_nowait())
                except Empty:
                    break
            going = batch[-1] is not None
            requests = [request for request in batch if request is not None]
            if requests:
                self._serve(requests)
