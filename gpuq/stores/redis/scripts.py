"""Running a script on Redis, on a connection that a thread keeps for itself.

redis-py's client takes a connection from its pool for each call and wraps the call in retries and measurements, which
costs more than the script. Its connections alone, which do the handshake, the timeouts and the checks of an idle
connection, cost a third of that.
"""

from __future__ import annotations

import functools
import hashlib
import threading
from collections.abc import Sequence
from importlib import resources
from typing import Any
from weakref import WeakSet

import redis


@functools.cache
def script_text(name: str) -> str:
    return resources.files("gpuq.stores.redis").joinpath("lua", f"{name}.lua").read_text(encoding="utf-8")


def read_scripts() -> None:
    """All of them, so that the package may be away, to be upgraded, while this process goes on."""
    for path in resources.files("gpuq.stores.redis").joinpath("lua").iterdir():
        script_text(path.name.removesuffix(".lua"))


@functools.cache
def _digest(name: str) -> str:
    """By which Redis knows the script."""
    return hashlib.sha1(script_text(name).encode(), usedforsecurity=False).hexdigest()


class ScriptRunner:
    """Connections as those of the `client`'s pool, one for each thread that runs scripts."""

    def __init__(self, client: redis.Redis) -> None:
        self._pool: Any = client.connection_pool
        self._own = threading.local()
        self._lock = threading.Lock()
        self._connections: WeakSet[Any] = WeakSet()

    def run(self, name: str, keys: Sequence[str], args: Sequence[str | int]) -> Any:
        """What the script answers. Raises redis-py's errors. A broken connection is tried once more, with a new one:
        each script may run twice."""
        connection = self._connection()
        command = ("EVALSHA", _digest(name), len(keys), *keys, *args)
        try:
            return _ask_known(connection, name, command)
        except redis.ConnectionError:
            return _ask_known(connection, name, command)

    def close(self) -> None:
        """Whoever runs a script afterwards connects again. No script may be running."""
        with self._lock:
            connections = list(self._connections)
        for connection in connections:
            connection.disconnect()

    def _connection(self) -> Any:
        connection = getattr(self._own, "connection", None)
        if connection is None:
            # Not the pool's: it would count it, and close it only while it is in use.
            connection = self._own.connection = self._pool.connection_class(**self._pool.connection_kwargs)
            with self._lock:
                self._connections.add(connection)
        return connection


def _ask_known(connection: Any, name: str, command: tuple[Any, ...]) -> Any:
    try:
        return _ask(connection, command)
    except redis.exceptions.NoScriptError:
        # A server that was started anew has none.
        _ask(connection, ("SCRIPT", "LOAD", script_text(name)))
        return _ask(connection, command)


def _ask(connection: Any, command: tuple[Any, ...]) -> Any:
    """Connects first, if need be; an error of the connection closes it."""
    connection.send_command(*command)
    return connection.read_response()
