"""One process's way to Redis: a connection pool, the namespace, the scripts, and errors in our own words."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from gpuq.errors import ConfigError, HotStoreCold
from gpuq.stores.redis.errors import unavailable
from gpuq.stores.redis.keys import Keys
from gpuq.stores.redis.scripts import ScriptRunner

T = TypeVar("T")

TIMEOUT_S = 2.0
IDLE_CHECK_S = 30
COLD = "COLD"

_RUN_ID = re.compile(r"^run_id:(\w+)", re.MULTILINE)


def cold(
    where: str, what: str = "does not hold the queue: it has not been read back from the database yet"
) -> HotStoreCold:
    """The error for a Redis that answers but does not hold the queue."""
    return HotStoreCold(
        f"Redis at {where} {what}",
        hint="the agent rebuilds it within seconds; without one nothing starts: `gpuq up`",
    )


class RedisLink:
    """`client` must have been made with `decode_responses=True`. Safe to share between threads.

    A server that restarts from an old snapshot brings back an old queue together with its marker. So the link
    notes which server (its run id) answered when the store was opened, and everything that a restarted or
    another one says counts as cold until it is opened again. A server whose `INFO` is forbidden goes unnoticed.
    """

    def __init__(self, client: redis.Redis, namespace: str, where: str = "localhost") -> None:
        self.client = client
        self.keys = Keys(namespace)
        self.where = where
        self._scripts = ScriptRunner(client)
        self._server: str | None = None
        self._opened_on: str | None = None

    def run(self, name: str, keys: Sequence[str], args: Sequence[str | int]) -> Any:
        """One script, atomic. Raises HotStoreUnavailable; then it ran or did not, and may be run again:
        each script is written so that running it twice is as good as once."""
        try:
            return self._scripts.run(name, keys, args)
        except (redis.RedisError, OSError) as error:
            raise unavailable(error, self.where) from error

    def run_warm(self, name: str, keys: Sequence[str], args: Sequence[str | int]) -> Any:
        """As `run`; raises HotStoreCold when the script says so, or when the server is not the one it was."""
        answer = self.run(name, keys, args)
        # Asked after the call, because the call itself may have been the one that connected anew.
        if answer == COLD or (isinstance(answer, list) and answer[:1] == [COLD]) or self.restarted():
            raise cold(self.where)
        return answer

    def call(self, what: Callable[[redis.Redis], T]) -> T:
        """Runs `what` on the client. Raises HotStoreUnavailable or HotStoreCold in place of Redis's own errors."""
        try:
            return what(self.client)
        except (redis.RedisError, OSError) as error:
            raise unavailable(error, self.where) from error

    def opened(self) -> None:
        """This server holds what was read back from SQL."""
        self._opened_on = self._server

    def note_server(self, connection: Any) -> None:
        """The hook of every new connection: the usual handshake, and who is at the other end."""
        # The check of idle connections pings, and a ping that fails connects, which would bring us here again.
        interval, connection.health_check_interval = connection.health_check_interval, 0
        try:
            connection.on_connect()
        finally:
            connection.health_check_interval = interval
        connection.send_command("INFO", "server", check_health=False)
        try:
            answer = connection.read_response()
        except redis.ResponseError:
            return
        found = _RUN_ID.search(answer if isinstance(answer, str) else bytes(answer).decode("utf-8", "replace"))
        if found:
            self._server = found[1]

    def close(self) -> None:
        """Closes the client and its connections."""
        self._scripts.close()
        self.client.close()
        self.client.connection_pool.disconnect()

    def restarted(self) -> bool:
        """True when the server is not the one that this link opened the store on."""
        return self._opened_on is not None and self._server != self._opened_on


def connect(url: str, namespace: str, *, timeout_s: float = TIMEOUT_S) -> RedisLink:
    """A link to `redis://`, `rediss://` or `unix://`; nothing is sent yet. Raises ConfigError for a bad URL.

    A broken connection is tried once more at once (a server that restarted, a connection that was idle for
    long); a server that is away or hangs is an error after at most `timeout_s` seconds.
    """
    hook: list[RedisLink] = []
    options: dict[str, Any] = {
        "decode_responses": True,
        "socket_timeout": timeout_s,
        "socket_connect_timeout": timeout_s,
        "health_check_interval": IDLE_CHECK_S,
        "retry": Retry(NoBackoff(), 1, supported_errors=(redis.ConnectionError,)),
        "redis_connect_func": lambda connection: hook[0].note_server(connection),
        "protocol": 2,
    }
    if url.startswith("unix://"):
        # A Unix socket is there or is not; the option is unknown to that kind of connection in older releases.
        del options["socket_connect_timeout"]
    try:
        client = redis.Redis.from_url(url, **options)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"GPUQ_REDIS_URL is not a valid address: {error}") from None
    link = RedisLink(client, namespace, _where(client))
    hook.append(link)
    return link


def _where(client: redis.Redis) -> str:
    known = client.connection_pool.connection_kwargs
    return str(known["path"]) if "path" in known else f"{known.get('host', 'localhost')}:{known.get('port', 6379)}"
