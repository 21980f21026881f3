"""Wake-ups inside a process and between processes. A lost one costs only the time until the next slow poll."""

from __future__ import annotations

import contextlib
import logging
import secrets
import threading
import time
from collections.abc import Callable
from typing import Any

import redis
from redis.backoff import ExponentialBackoff

from gpuq.errors import HotStoreUnavailable
from gpuq.ports.notify import Listener, Topic
from gpuq.stores.redis.link import RedisLink

log = logging.getLogger(__name__)

# Published to listeners when messages may have been missed: everything may have changed.
EVERY_TOPIC = tuple(Topic)
_TOPICS = frozenset(topic.value for topic in Topic)

# Between two rounds of messages to other processes; the first of a quiet time goes out at once.
COALESCE_S = 0.01
READ_S = 30.0
STOP_S = 2.0


class LocalNotifier:
    """Listeners of this process, called at once on the publisher's thread. Safe to share between threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._listeners: tuple[Listener, ...] = ()

    def publish(self, topic: Topic) -> None:
        for listener in self._listeners:
            try:
                listener(topic)
            except Exception:
                # The publisher has done its work; another's bug must not undo it.
                log.exception("a listener failed on topic %r", topic)

    def publish_elsewhere(self, topic: Topic) -> None:
        """There is nobody elsewhere."""

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        # A wrapper of its own, so that one listener subscribed twice is two subscriptions.
        def entry(topic: Topic) -> None:
            listener(topic)

        with self._lock:
            self._listeners = (*self._listeners, entry)

        def unsubscribe() -> None:
            with self._lock:
                self._listeners = tuple(known for known in self._listeners if known is not entry)

        return unsubscribe


class RedisNotifier:
    """Listeners of this process and, through `{ns}:wake`, those of every other.

    `publish` calls the listeners here at once and leaves the message to others to a thread, which sends each
    topic at most once in 10 ms; so it never waits for Redis. A message is `origin topic`; our own, coming back,
    is dropped. Two daemon threads, one to send (from the first `publish`) and one to listen (from the first
    `subscribe`), which connects again by itself and then reports every topic, for what it may have missed.
    """

    def __init__(self, link: RedisLink) -> None:
        self._link = link
        self._origin = secrets.token_hex(6)
        self._local = LocalNotifier()
        self._lock = threading.Lock()
        # Used as an ordered set.
        self._pending: dict[Topic, None] = {}
        self._wake_sender = threading.Event()
        self._stopping = threading.Event()
        self._listening = threading.Event()
        self._sender: threading.Thread | None = None
        self._reader: threading.Thread | None = None
        self._pubsub: Any = None
        self._subscribed_before = False

    def publish(self, topic: Topic) -> None:
        self._local.publish(topic)
        self.publish_elsewhere(topic)

    def publish_elsewhere(self, topic: Topic) -> None:
        with self._lock:
            if self._stopping.is_set():
                return
            self._pending[topic] = None
            if self._sender is None:
                self._sender = self._thread("gpuq-notify", self._send)
        self._wake_sender.set()

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        unsubscribe = self._local.subscribe(listener)
        with self._lock:
            if self._reader is None and not self._stopping.is_set():
                self._reader = self._thread("gpuq-listen", self._listen)
        return unsubscribe

    def wait_until_listening(self, timeout_s: float) -> bool:
        """True when messages of other processes arrive here from now on."""
        return self._listening.wait(timeout_s)

    def stop(self) -> None:
        """Sends what is pending, if Redis answers, and ends both threads. A second call does nothing."""
        with self._lock:
            self._stopping.set()
        self._wake_sender.set()
        deadline = time.monotonic() + STOP_S
        if self._sender is not None:
            self._sender.join(STOP_S)
        while self._reader is not None and self._reader.is_alive() and time.monotonic() < deadline:
            # Wakes the thread out of its read; again, should it have been about to connect.
            pubsub = self._pubsub
            if pubsub is not None and pubsub.connection is not None:
                with contextlib.suppress(redis.RedisError, OSError):
                    pubsub.connection.disconnect()
            self._reader.join(0.05)

    def _thread(self, name: str, target: Callable[[], None]) -> threading.Thread:
        thread = threading.Thread(target=target, name=name, daemon=True)
        thread.start()
        return thread

    def _send(self) -> None:
        while True:
            self._wake_sender.wait()
            self._wake_sender.clear()
            with self._lock:
                topics, self._pending = self._pending, {}
            try:
                for topic in topics:
                    self._tell(topic)
            except HotStoreUnavailable as error:
                log.debug("other processes not told of %s: %s", ", ".join(topics), error.message)
            if self._stopping.wait(COALESCE_S):
                with self._lock:
                    if not self._pending:
                        return
                self._wake_sender.set()

    def _tell(self, topic: Topic) -> None:
        self._link.call(lambda client: client.publish(self._link.keys.wake, f"{self._origin} {topic}"))

    def _listen(self) -> None:
        backoff = ExponentialBackoff(cap=5.0, base=0.05)
        failures = 0
        while not self._stopping.is_set():
            client: Any = self._link.client
            self._pubsub = pubsub = client.pubsub()
            try:
                pubsub.subscribe(self._link.keys.wake)
                self._read(pubsub)
            except (redis.RedisError, OSError) as error:
                log.debug("not listening to Redis at %s: %s", self._link.where, error)
            except Exception:
                # `stop` closes the connection under the reader's feet, which shows in many ways.
                if not self._stopping.is_set():
                    log.exception("listening to Redis at %s failed", self._link.where)
            failures = 1 if self._listening.is_set() else failures + 1
            self._listening.clear()
            with contextlib.suppress(redis.RedisError, OSError):
                pubsub.close()
            # redis-py's own Retry sleeps where nobody can wake it; this ends at once on stop.
            self._stopping.wait(backoff.compute(failures))

    def _read(self, pubsub: Any) -> None:
        while not self._stopping.is_set():
            message = pubsub.get_message(timeout=READ_S)
            if message is None:
                continue
            if message["type"] == "subscribe":
                self._listening.set()
                # Every confirmation but the first follows a break, noticed by us or mended by redis-py.
                if self._subscribed_before:
                    for topic in EVERY_TOPIC:
                        self._local.publish(topic)
                self._subscribed_before = True
            elif message["type"] == "message":
                origin, _, word = str(message["data"]).partition(" ")
                # Another release may know topics that this one has no listener for.
                if origin != self._origin and word in _TOPICS:
                    self._local.publish(Topic(word))
