"""What a real redis-server does to us, and what we say about it."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest

from gpuq.errors import ConfigError, HotStoreCold, HotStoreUnavailable
from gpuq.ports.hot_queue import GpuClaim, QueueEntry, Taken
from gpuq.stores.redis import RedisHotQueue, RedisLeases, RedisLink, connect

pytestmark = pytest.mark.redis

ONE = QueueEntry(1, 1, 5.0)
CLAIM = [GpuClaim("G0", None, 24_000)]


@contextmanager
def opened(url: str, **options: Any) -> Iterator[tuple[RedisLink, RedisHotQueue, RedisLeases]]:
    link = connect(url, "gpuq", **options)
    queue = RedisHotQueue(link, expected_epoch=lambda: "e1")
    try:
        queue.rebuild([ONE], epoch="e1")
        queue.open("e1")
        yield link, queue, RedisLeases(link, expected_epoch=lambda: "e1")
    finally:
        link.close()


def test_a_killed_server_is_unavailable_at_once_and_cold_when_it_is_back(start_redis: Callable[..., Any]) -> None:
    server = start_redis()
    with opened(server.url) as (_, queue, leases):
        server.kill()
        begun = time.monotonic()
        for call in (
            lambda: queue.add([ONE]),
            lambda: queue.heads(1),
            lambda: queue.epoch(),
            lambda: leases.take(ONE, "box1", "a", CLAIM, 30),
            lambda: leases.hold("box1", "a", CLAIM, 30),
            lambda: queue.rebuild([ONE], epoch="e1"),
        ):
            with pytest.raises(HotStoreUnavailable) as caught:
                call()
            assert not isinstance(caught.value, HotStoreCold)
            assert "cannot be reached" in caught.value.message
            assert caught.value.hint is not None
        assert time.monotonic() - begun < 1.0
        server.start()
        with pytest.raises(HotStoreCold):
            queue.heads(1)
        queue.rebuild([ONE], epoch="e1")
        queue.open("e1")
        assert queue.heads(1) == [ONE]


def test_a_server_that_hangs_is_an_error_after_the_timeout_not_a_wait_for_ever(
    start_redis: Callable[..., Any],
) -> None:
    server = start_redis()
    with opened(server.url, timeout_s=0.3) as (_, queue, _leases):
        server.process.send_signal(signal.SIGSTOP)
        try:
            for _ in range(2):
                begun = time.monotonic()
                with pytest.raises(HotStoreUnavailable, match="did not answer in time"):
                    queue.heads(1)
                assert time.monotonic() - begun < 2.0
        finally:
            server.process.send_signal(signal.SIGCONT)
        assert queue.heads(1) == [ONE]


def test_a_server_that_comes_back_with_an_old_snapshot_is_cold_although_its_marker_is_there(
    start_redis: Callable[..., Any],
) -> None:
    server = start_redis()
    with opened(server.url) as (link, queue, leases):
        link.client.save()
        assert leases.take(ONE, "box1", "a", CLAIM, 30) is Taken.TAKEN
        server.kill()
        server.start()
        with pytest.raises(HotStoreCold):
            leases.take(ONE, "box1", "b", CLAIM, 30)
        assert link.client.get("gpuq:epoch") == "e1"
        assert queue.epoch() is None
        with pytest.raises(HotStoreCold):
            queue.heads(1)
        queue.rebuild([], epoch="e1")
        queue.open("e1")
        assert queue.epoch() == "e1"
        assert queue.heads(1) == []


def test_out_of_memory_is_unavailable_and_loses_nothing(start_redis: Callable[..., Any]) -> None:
    server = start_redis("--maxmemory-policy", "noeviction")
    with opened(server.url) as (link, queue, leases):
        link.client.config_set("maxmemory", "100kb")
        for call in (
            lambda: queue.add([QueueEntry(2, 1, 6.0)]),
            lambda: leases.hold("box1", "x", CLAIM, 30),
            lambda: queue.rebuild([ONE], epoch="e2"),
        ):
            with pytest.raises(HotStoreUnavailable, match="out of memory") as caught:
                call()
            assert caught.value.hint is not None
            assert "maxmemory" in caught.value.hint
        link.client.config_set("maxmemory", "0")
        queue.rebuild([ONE], epoch="e1")
        queue.open("e1")
        link.client.config_set("maxmemory", "100kb")
        # Taking gives memory back, so work goes on: all of it happens, or none.
        taken = leases.take(ONE, "box1", "a", CLAIM, 30)
        assert taken is Taken.TAKEN
        assert leases.holders("box1") == {"G0": ["a"]}
        with pytest.raises(HotStoreUnavailable):
            leases.give_back(ONE, "box1", "b", [])
        leases.release("box1", "a", ["G0"])
        assert queue.heads(5) == []


def test_a_read_only_replica_is_unavailable_for_writes_and_says_so(start_redis: Callable[..., Any]) -> None:
    server = start_redis()
    with opened(server.url) as (link, queue, leases):
        link.client.replicaof("127.0.0.1", "1")
        with pytest.raises(HotStoreUnavailable, match="read-only replica"):
            queue.add([QueueEntry(2, 1, 6.0)])
        with pytest.raises(HotStoreUnavailable, match="read-only replica"):
            leases.take(ONE, "box1", "a", CLAIM, 30)
        link.client.replicaof("NO", "ONE")
        assert queue.heads(5) == [ONE]
        assert leases.holders("box1") == {}


def test_wrong_credentials_are_named_without_printing_the_password(start_redis: Callable[..., Any]) -> None:
    server = start_redis("--requirepass", "secret")
    for url in (server.url, server.url.replace("unix://", "unix://:hunter2@")):
        link = connect(url, "gpuq")
        with pytest.raises(HotStoreUnavailable, match="refused the credentials") as caught:
            RedisHotQueue(link).heads(1)
        link.close()
        assert "hunter2" not in caught.value.message
        assert "GPUQ_REDIS_URL" in (caught.value.hint or "")
    with opened(server.url.replace("unix://", "unix://:secret@")) as (_, queue, _leases):
        assert queue.heads(1) == [ONE]


def test_a_user_without_the_right_to_run_scripts_is_told_what_is_missing(start_redis: Callable[..., Any]) -> None:
    server = start_redis()
    with server.session() as client:
        client.execute_command("ACL", "SETUSER", "limited", "on", ">pw", "~*", "&*", "+@all", "-@scripting")
    link = connect(server.url.replace("unix://", "unix://limited:pw@"), "gpuq")
    with pytest.raises(HotStoreUnavailable, match="forbids this user a command"):
        RedisHotQueue(link).heads(1)
    link.close()


def test_a_user_who_may_only_touch_our_namespace_is_enough(start_redis: Callable[..., Any]) -> None:
    server = start_redis()
    with server.session() as client:
        client.execute_command(
            "ACL", "SETUSER", "tenant", "on", ">pw", "~gpuq:*", "resetchannels", "&gpuq:*", "+@all", "-@dangerous"
        )
    with opened(server.url.replace("unix://", "unix://tenant:pw@")) as (_, queue, leases):
        queue.add([QueueEntry(2, 0, 6.0)])
        assert leases.take(ONE, "box1", "a", CLAIM, 30) is Taken.TAKEN
        assert leases.renew("box1", [("a", ["G0"])], 30) == []
        assert leases.holders("box1") == {"G0": ["a"]}
        assert queue.heads(1) == [QueueEntry(2, 0, 6.0)]


def test_a_key_of_another_program_in_our_namespace_is_pointed_out(redis_url: str) -> None:
    with opened(redis_url) as (link, queue, _):
        link.client.set("gpuq:queue:3", "something else")
        with pytest.raises(HotStoreUnavailable, match="another program under gpuq's namespace"):
            queue.add([QueueEntry(2, 3, 6.0)])


def test_two_namespaces_share_a_server_without_seeing_each_other(redis_url: str) -> None:
    with opened(redis_url) as (_, queue, _leases):
        other = connect(redis_url, "team-b")
        with pytest.raises(HotStoreCold):
            RedisHotQueue(other).heads(1)
        RedisHotQueue(other).rebuild([], epoch="e9")
        RedisHotQueue(other).open("e9")
        other.close()
        assert queue.heads(1) == [ONE]


def test_scripts_that_the_server_forgot_are_loaded_again(redis_url: str) -> None:
    with opened(redis_url) as (link, queue, _):
        link.client.script_flush()
        assert queue.heads(1) == [ONE]


def test_connections_that_were_cut_while_idle_are_made_anew_without_an_error(redis_url: str) -> None:
    with opened(redis_url) as (link, queue, _):
        assert queue.heads(1) == [ONE]
        other = connect(redis_url, "gpuq")
        other.client.client_kill_filter(_type="normal", skipme=True)
        other.close()
        assert queue.heads(1) == [ONE]
        assert link.client.ping()


def test_a_thread_keeps_its_connection_for_scripts_until_the_link_is_closed(redis_url: str) -> None:
    with opened(redis_url) as (link, queue, _):

        def connections() -> set[int]:
            asked = link.client.client_list(_type="normal")
            return {int(one["id"]) for one in asked if one["cmd"] == "evalsha"}

        assert queue.heads(1) == [ONE]
        before = connections()
        link.client.ping()
        with ThreadPoolExecutor(1) as other:
            for _ in range(2):
                assert other.submit(queue.heads, 1).result() == [ONE]
                assert queue.heads(1) == [ONE]
            assert connections() > before
            assert len(connections()) == len(before) + 1
            link.close()
            assert not connections()


@pytest.mark.parametrize("url", ["http://localhost", "redis://localhost:notaport", ""])
def test_an_address_that_is_none_is_a_configuration_error(url: str) -> None:
    with pytest.raises(ConfigError, match="GPUQ_REDIS_URL"):
        connect(url, "gpuq")


def test_an_unreachable_tcp_address_is_named_in_the_message() -> None:
    link = connect("redis://:hunter2@127.0.0.1:1/3", "gpuq")
    with pytest.raises(HotStoreUnavailable, match=r"127\.0\.0\.1:1 cannot be reached") as caught:
        RedisHotQueue(link).heads(1)
    assert "hunter2" not in str(caught.value)
    link.close()
