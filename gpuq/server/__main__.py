"""`python -m gpuq.server up|server|agent|maintain|direct`: the entries of gpuq's processes.

Imports are most of a start. With --detach the daemon is forked off before the large ones, so that they are paid once.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import os
import sys
from pathlib import Path

from gpuq.errors import DatabaseUnavailable, GpuqError
from gpuq.home import prepare_home
from gpuq.server.process import detach, start_errors
from gpuq.settings import Settings, load


def main(arguments: list[str] | None = None) -> int:
    """The exit code. Errors go to stderr in two lines; GPUQ_DEBUG=1 shows where they came from."""
    given = _parser().parse_args(arguments)
    word: detach.ReadyPipe | None = None
    home: Path | None = None
    try:
        settings, _ = load()
        home = settings.home
        if given.detach:
            prepare_home(settings.home)
            forked = detach.fork(settings.home / "daemon.log")
            if isinstance(forked, int):
                return forked
            word = forked
        return _run(given, settings, word)
    except detach.Interrupted as stop:
        return stop.exit_code
    except Exception as error:
        if os.environ.get("GPUQ_DEBUG"):
            raise
        return _failed(error, word, home)


def _failed(error: Exception, word: detach.ReadyPipe | None, home: Path | None) -> int:
    told = _told(error, home)
    if word is not None:
        word.failed(told)
    # The log may be on the disk that is full; whoever waits at the pipe has heard it.
    with contextlib.suppress(OSError):
        detach.tell(told.message, told.hint)
    return told.exit_code


def _told(error: Exception, home: Path | None) -> GpuqError:
    """What kept the daemon from starting, for people."""
    if isinstance(error, (OSError, DatabaseUnavailable)) and home is not None:
        from gpuq.engine import disk_reserve

        with contextlib.suppress(OSError):
            room = disk_reserve.look(home)
            if room.full or (isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT}):
                return GpuqError(
                    f"the disk of {home} is full, so the daemon cannot start: {room.text}",
                    hint=f"make room, then `gpuq up` again; the output of jobs is in {home}/jobs/ID/ATTEMPT/output.log",
                )
    if isinstance(error, GpuqError):
        return error
    if isinstance(error, OSError):
        return start_errors.of_system(error)
    return GpuqError(f"internal error: {type(error).__name__}: {error}", hint="set GPUQ_DEBUG=1 for the traceback")


def _run(given: argparse.Namespace, settings: Settings, word: detach.ReadyPipe | None) -> int:
    if given.what == "direct":
        from gpuq.server import in_process

        in_process.serve(settings, sys.stdin.buffer, sys.stdout.buffer)
        return 0
    from gpuq.server.process import daemon
    from gpuq.wiring import ALL_ROLES

    roles = ALL_ROLES if given.what == "up" else frozenset({given.what})
    when_ready = daemon.report if word is None else word.up
    daemon.run(
        settings, roles, listen=given.listen, when_ready=when_ready, tell=None if word is None else word.meanwhile
    )
    # Everything is closed; a long question that a thread still works on must not hold up the end.
    sys.stderr.flush()
    os._exit(0)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m gpuq.server", description=__doc__)
    parser.add_argument("what", choices=["up", "server", "agent", "maintain", "direct"])
    parser.add_argument("-d", "--detach", action="store_true", help="return when it is up")
    parser.add_argument("--listen", metavar="HOST:PORT", help="TCP too, with a bearer token")
    return parser


if __name__ == "__main__":
    sys.exit(main())
