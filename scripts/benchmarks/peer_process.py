"""Programs in the background that end with who started them, whatever becomes of it. Standard library only."""

from __future__ import annotations

import ctypes
import signal
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

END_S = 5.0
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)


def die_with_parent() -> None:
    """In a child, just before its program starts."""
    _libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))


@contextmanager
def background(
    words: list[str],
    *,
    place: Path,
    log: Path,
    ends_on: signal.Signals = signal.SIGTERM,
    env: Mapping[str, str] | None = None,
    account: Mapping[str, Any] | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    """`account` is Popen's user, group and extra_groups. Ended with a signal, and with SIGKILL after five seconds."""
    with log.open("ab") as output:
        process = subprocess.Popen(
            words,
            cwd=place,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            # Ctrl-C is for the benchmark, which then ends this.
            start_new_session=True,
            preexec_fn=die_with_parent,
            **(account or {}),
        )
    try:
        yield process
    finally:
        process.send_signal(ends_on)
        try:
            process.wait(timeout=END_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
