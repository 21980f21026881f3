from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from gpuq.errors import HotStoreUnavailable
from gpuq.stores.redis import connect
from gpuq.stores.redis.health import check

pytestmark = pytest.mark.redis


def warnings_of(url: str) -> list[str]:
    link = connect(url, "gpuq")
    try:
        return check(link)
    finally:
        link.close()


def test_a_server_that_keeps_its_data_and_evicts_nothing_gets_no_warning(start_redis: Callable[..., Any]) -> None:
    assert warnings_of(start_redis("--maxmemory-policy", "noeviction", "--appendonly", "yes").url) == []
    assert warnings_of(start_redis("--save", "3600", "1").url) == []


def test_an_evicting_policy_is_warned_about(start_redis: Callable[..., Any]) -> None:
    (warning,) = warnings_of(start_redis("--maxmemory-policy", "allkeys-lru", "--appendonly", "yes").url)
    assert "allkeys-lru" in warning
    assert "maxmemory-policy noeviction" in warning


def test_no_persistence_is_explained(start_redis: Callable[..., Any]) -> None:
    (warning,) = warnings_of(start_redis().url)
    assert "keeps nothing on disk" in warning


def test_nearly_full_memory_is_warned_about(start_redis: Callable[..., Any]) -> None:
    warnings = warnings_of(start_redis("--maxmemory", "500kb", "--appendonly", "yes").url)
    assert any("raise maxmemory" in warning for warning in warnings)


def test_a_replica_is_warned_about(start_redis: Callable[..., Any]) -> None:
    warnings = warnings_of(start_redis("--appendonly", "yes", "--replicaof", "127.0.0.1", "1").url)
    assert any("replica" in warning for warning in warnings)


@pytest.mark.parametrize(("command", "said"), [("CONFIG", "forbids CONFIG GET"), ("INFO", "forbids INFO")])
def test_what_could_not_be_checked_is_said(start_redis: Callable[..., Any], command: str, said: str) -> None:
    server = start_redis("--rename-command", command, "")
    (warning,) = warnings_of(server.url)
    assert said in warning


def test_an_unreachable_server_is_an_error_not_a_warning(start_redis: Callable[..., Any]) -> None:
    server = start_redis()
    server.kill()
    with pytest.raises(HotStoreUnavailable):
        warnings_of(server.url)
