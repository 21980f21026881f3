"""A private redis-server that outlived its daemon: found by its socket or by its record, and ended."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from gpuq.errors import HotStoreUnavailable
from gpuq.linux import look

ANSWER_S = 1.0
END_S = 5.0


@dataclass(frozen=True, slots=True)
class Instance:
    """`start`: clock ticks since boot (/proc/PID/stat, field 22); with it a process id names one process only."""

    pid: int
    start: int


def client(socket: Path) -> redis.Redis:
    """A connection that gives up at once."""
    retry = Retry(NoBackoff(), 0)
    return redis.Redis(unix_socket_path=str(socket), socket_timeout=ANSWER_S, retry=retry, decode_responses=True)


def note(record: Path, pid: int, socket: Path) -> None:
    """Writes down who serves this home."""
    process = look(pid)
    if process is None or not process.living:
        return
    draft = record.with_suffix(".new")
    draft.write_text(json.dumps({"pid": pid, "start": process.start, "socket": str(socket)}))
    draft.replace(record)


def end(socket: Path, record: Path) -> None:
    """Returns when nobody serves this socket any more. Raises HotStoreUnavailable when that cannot be had.

    One that answers is asked to shut down. One that does not answer is killed only if the record names it by
    process id and start time, and it still is a Redis.
    """
    try:
        with contextlib.closing(client(socket)) as old:
            if _configured_for(old, socket):
                _shut_down(old)
    except redis.ConnectionError:
        pass
    except (redis.RedisError, OSError) as error:
        if _recorded(record) is None:
            raise HotStoreUnavailable(
                f"something on {socket} does not answer as a Redis of ours: {error}",
                hint=f"end the program that has {socket} open (`fuser {socket}`)",
            ) from error
    instance = _recorded(record)
    if instance is not None:
        _kill(instance)


def _configured_for(old: redis.Redis, socket: Path) -> bool:
    """Raises HotStoreUnavailable for a Redis that was set up by somebody else."""
    configured = str(dict(old.config_get("unixsocket")).get("unixsocket", ""))
    if not configured or os.path.realpath(configured) != os.path.realpath(socket):
        raise HotStoreUnavailable(
            f"a Redis that gpuq did not start answers on {socket} (its own socket is {configured or 'none'})",
            hint="end it, or name it in GPUQ_REDIS_URL",
        )
    return True


def _shut_down(old: redis.Redis) -> None:
    pid = int(old.info("server")["process_id"])
    with _watched(pid) as watch:
        with contextlib.suppress(redis.ConnectionError):
            old.shutdown(nosave=True)
        if watch is not None:
            _wait(watch)


def _recorded(record: Path) -> Instance | None:
    """The recorded process, if it is still that one."""
    try:
        data = json.loads(record.read_text())
        instance = Instance(int(data["pid"]), int(data["start"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return instance if _is_redis(instance) else None


def _kill(instance: Instance) -> None:
    with _watched(instance.pid) as watch:
        # Looked at again now that the descriptor holds on to the process, whoever it is.
        if watch is None or not _is_redis(instance):
            return
        signal.pidfd_send_signal(watch, signal.SIGKILL)
        if not _wait(watch):
            raise HotStoreUnavailable(
                f"an old private redis-server (process {instance.pid}) does not end", hint="restart the machine"
            )


@contextlib.contextmanager
def _watched(pid: int) -> Iterator[int | None]:
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        yield None
        return
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _wait(watch: int) -> bool:
    """True when the process has ended within END_S."""
    poll = select.poll()
    poll.register(watch, select.POLLIN)
    return bool(poll.poll(END_S * 1000))


def _is_redis(instance: Instance) -> bool:
    process = look(instance.pid)
    if process is None or not process.living or process.start != instance.start:
        return False
    try:
        name = Path(f"/proc/{instance.pid}/comm").read_text()
    except OSError:
        return False
    return "redis" in name or "valkey" in name
