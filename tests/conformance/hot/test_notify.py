from __future__ import annotations

import contextlib
import logging
import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis

from gpuq.ports.hot_queue import QueueEntry
from gpuq.ports.notify import Topic
from gpuq.stores.redis import LocalNotifier, RedisHotQueue, RedisNotifier, connect
from gpuq.stores.redis.notify import EVERY_TOPIC

WAIT_S = 10.0


def test_what_is_for_other_processes_does_not_come_back_to_this_one() -> None:
    notifier, heard = LocalNotifier(), []
    notifier.subscribe(heard.append)
    notifier.publish_elsewhere(Topic.QUEUE)
    assert heard == []


def test_listeners_are_called_at_once_until_they_unsubscribe() -> None:
    notifier, heard = LocalNotifier(), []
    stop_first = notifier.subscribe(heard.append)
    notifier.subscribe(lambda topic: heard.append(topic.upper()))
    notifier.publish("queue")
    stop_first()
    stop_first()
    notifier.publish("events")
    assert heard == ["queue", "QUEUE", "EVENTS"]


def test_a_listener_that_fails_is_logged_and_hurts_nobody(caplog: pytest.LogCaptureFixture) -> None:
    notifier, heard = LocalNotifier(), []
    notifier.subscribe(lambda topic: 1 / 0)
    notifier.subscribe(heard.append)
    with caplog.at_level(logging.ERROR):
        notifier.publish("queue")
    assert heard == ["queue"]
    assert "queue" in caplog.text
    assert "ZeroDivisionError" in caplog.text


def test_a_listener_may_unsubscribe_while_it_is_called() -> None:
    notifier, heard = LocalNotifier(), []

    def once(topic: str) -> None:
        heard.append(topic)
        leave()

    leave = notifier.subscribe(once)
    notifier.publish("queue")
    notifier.publish("queue")
    assert heard == ["queue"]


class Process:
    """A link and a notifier as another process would have them, and what was heard."""

    def __init__(self, url: str) -> None:
        self.link = connect(url, "gpuq", timeout_s=1.0)
        self.notifier = RedisNotifier(self.link)
        self.heard: queue.Queue[str] = queue.Queue()

    def listen(self) -> Process:
        self.notifier.subscribe(self.heard.put)
        assert self.notifier.wait_until_listening(WAIT_S)
        return self

    def close(self) -> None:
        self.notifier.stop()
        self.link.close()


@pytest.fixture
def process() -> Iterator[Callable[[str], Process]]:
    made: list[Process] = []

    def build(url: str) -> Process:
        made.append(Process(url))
        return made[-1]

    yield build
    for each in made:
        each.close()


@pytest.mark.redis
def test_a_message_reaches_other_processes_and_the_own_listeners_once(redis_url: str, process: Any) -> None:
    here, there = process(redis_url).listen(), process(redis_url).listen()
    here.notifier.publish("queue")
    assert here.heard.get_nowait() == "queue"
    assert there.heard.get(timeout=WAIT_S) == "queue"
    there.notifier.publish("control")
    assert there.heard.get_nowait() == "control"
    # The echo of "queue" would have come before this.
    assert here.heard.get(timeout=WAIT_S) == "control"
    assert there.heard.empty()


@pytest.mark.redis
def test_adding_jobs_wakes_every_listener_unless_told_not_to(redis_url: str, process: Any) -> None:
    here, there = process(redis_url).listen(), process(redis_url).listen()
    loud, quiet = RedisHotQueue(here.link), RedisHotQueue(here.link, announce=False)
    loud.rebuild([], epoch="e1")
    loud.open("e1")
    for each in (here, there):
        assert each.heard.get(timeout=WAIT_S) == "queue"
    quiet.add([QueueEntry(1, 1, 1.0)])
    loud.add([QueueEntry(2, 1, 1.0)])
    here.notifier.publish("events")
    assert [there.heard.get(timeout=WAIT_S) for _ in range(2)] == ["queue", "events"]


@pytest.mark.redis
def test_a_burst_is_told_in_few_messages_and_its_last_one_is_not_lost(redis_url: str, process: Any) -> None:
    here, there = process(redis_url).listen(), process(redis_url).listen()
    for _ in range(2000):
        here.notifier.publish("queue")
    here.notifier.publish("control")
    heard = [there.heard.get(timeout=WAIT_S)]
    while heard[-1] != "control":
        heard.append(there.heard.get(timeout=WAIT_S))
    assert heard.count("control") == 1
    assert 1 <= heard.count("queue") < 1000


@pytest.mark.redis
def test_after_a_break_the_listener_comes_back_and_reports_every_topic(
    start_redis: Callable[..., Any], process: Any
) -> None:
    server = start_redis()
    here, there = process(server.url).listen(), process(server.url).listen()
    server.kill()
    here.notifier.publish("queue")
    assert here.heard.get_nowait() == "queue"
    server.start()
    for each in (here, there):
        assert {each.heard.get(timeout=WAIT_S) for _ in EVERY_TOPIC} == set(EVERY_TOPIC)
    here.notifier.publish("delayed")
    assert there.heard.get(timeout=WAIT_S) == "delayed"


def test_after_a_break_every_topic_is_reported_whatever_it_is() -> None:
    assert set(EVERY_TOPIC) == set(Topic)
    assert Topic.MISSED in EVERY_TOPIC


@pytest.mark.redis
def test_a_topic_that_only_another_release_knows_is_passed_over(redis_url: str, process: Any) -> None:
    here = process(redis_url).listen()
    with contextlib.closing(redis.Redis.from_url(redis_url)) as client:
        for topic in ("of_tomorrow", "queue"):
            client.publish(here.link.keys.wake, f"elsewhere {topic}")
    assert here.heard.get(timeout=WAIT_S) == Topic.QUEUE


@pytest.mark.redis
def test_what_is_for_other_processes_reaches_them_alone(redis_url: str, process: Any) -> None:
    here, there = process(redis_url).listen(), process(redis_url).listen()
    here.notifier.publish_elsewhere(Topic.QUEUE)
    assert there.heard.get(timeout=WAIT_S) == Topic.QUEUE
    assert here.heard.empty()


@pytest.mark.redis
def test_stopping_ends_the_threads_and_sends_what_was_pending(redis_url: str, process: Any) -> None:
    here, there = process(redis_url).listen(), process(redis_url).listen()
    before = threading.active_count()
    here.notifier.publish("events")
    here.notifier.publish("queue")
    here.notifier.stop()
    here.notifier.stop()
    assert threading.active_count() < before
    assert {there.heard.get(timeout=WAIT_S) for _ in range(2)} == {"events", "queue"}


@pytest.mark.redis
def test_stopping_ends_the_threads_also_while_redis_is_away(start_redis: Callable[..., Any], process: Any) -> None:
    server = start_redis()
    before = threading.active_count()
    here = process(server.url).listen()
    server.kill()
    here.notifier.publish("queue")
    here.notifier.stop()
    assert threading.active_count() == before


@pytest.mark.redis
def test_without_redis_the_own_listeners_are_served_all_the_same(process: Any) -> None:
    here = process("unix:///nonexistent/redis.sock")
    here.notifier.subscribe(here.heard.put)
    here.notifier.publish("queue")
    assert here.heard.get_nowait() == "queue"
    assert not here.notifier.wait_until_listening(0.01)
