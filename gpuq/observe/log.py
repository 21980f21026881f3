"""The daemon's own log: one line a record, UTC with milliseconds, to stderr or a file.

2026-11-22T10:00:00.123Z INFO  gpuq.engine.claim.dispatcher: job 7 started on gpu 0
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Literal

from gpuq.domain.times import iso

Level = Literal["debug", "info", "warning", "error"]

# At `info` these say something at every timer tick or request; at `debug` that is what one wants to see.
_TALKATIVE = ("apscheduler", "uvicorn.access", "alembic", "sqlalchemy", "asyncio", "httpx", "httpcore")
_MARK = "_gpuq_handler"


class _OneLine(logging.Formatter):
    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:
        return str(iso(record.created))

    def format(self, record: logging.LogRecord) -> str:
        # A message with a line break, or a traceback, must not look like several records.
        return super().format(record).replace("\r", "\\r").replace("\n", "\\n ")


def set_up(level: Level, file: Path | None = None) -> None:
    """Sends every logger's records to `file` (made with mode 0600, appended to), or to stderr without one.

    May be called again: the former handler is closed and replaced. Raises OSError when the file cannot be opened.
    """
    root = logging.getLogger()
    handler: logging.Handler
    if file is None:
        handler = logging.StreamHandler(sys.stderr)
    else:
        file.touch(mode=0o600, exist_ok=True)
        # Reopens after logrotate has moved the file away.
        handler = _watched(file)
    handler.setFormatter(_OneLine("%(asctime)s %(levelname)-5s %(name)s: %(message)s"))
    setattr(handler, _MARK, True)
    for old in [old for old in root.handlers if getattr(old, _MARK, False)]:
        root.removeHandler(old)
        old.close()
    root.addHandler(handler)
    root.setLevel(level.upper())
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(logging.NOTSET if level == "debug" else logging.WARNING)
    # uvicorn brings handlers of its own, which would say everything twice.
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
    logging.captureWarnings(True)


def _watched(file: Path) -> logging.Handler:
    # Imported here: logging.handlers pulls in sockets and pickling, which a daemon in the foreground does not need.
    from logging.handlers import WatchedFileHandler

    return WatchedFileHandler(file, encoding="utf-8")
