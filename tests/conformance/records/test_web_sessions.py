"""Logins on the page, on both databases."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from gpuq.domain.caller import Scope
from gpuq.stores.sql import SqlRecords, SqlWebSessions, open_web_sessions

NOW = 1_800_000_000.0
IDLE_S = 3600.0


@pytest.fixture
def sessions(records: SqlRecords) -> SqlWebSessions:
    return open_web_sessions(records.database)


def test_a_link_gives_one_session_however_many_ask_at_once(sessions: SqlWebSessions) -> None:
    secret = sessions.link("alice", 1000, Scope.SUBMIT, NOW, NOW + 60)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: sessions.redeem(secret, NOW + 1, NOW + 99, "Firefox"), range(4)))
    [session] = [one for one in found if one is not None]
    seen = sessions.find(session, NOW + 2, IDLE_S)
    assert seen is not None
    assert (seen.user, seen.uid, seen.scope, seen.agent, seen.token_id) == (
        "alice",
        1000,
        Scope.SUBMIT,
        "Firefox",
        None,
    )
    assert [one.id for one in sessions.list(NOW + 2, IDLE_S)] == [seen.id]


def test_neither_secret_stands_in_the_database(sessions: SqlWebSessions) -> None:
    link = sessions.link("alice", 1000, Scope.ADMIN, NOW, NOW + 60)
    session = sessions.create("bob", None, Scope.READ, NOW, NOW + 60)
    with sessions.database.read() as connection:
        rows = str(connection.exec_driver_sql("SELECT * FROM web_sessions").fetchall())
    assert link not in rows
    assert session not in rows
    assert sessions.find(link, NOW, IDLE_S) is None
    assert sessions.redeem(session, NOW, NOW + 9, None) is None


def test_it_is_over_after_its_time_and_when_nobody_looks(sessions: SqlWebSessions) -> None:
    assert sessions.redeem(sessions.link("alice", 1, Scope.ADMIN, NOW, NOW + 60), NOW + 61, NOW + 99, None) is None
    secret = sessions.create("alice", 1, Scope.ADMIN, NOW, NOW + 3 * IDLE_S)
    assert sessions.find(secret, NOW + IDLE_S - 1, IDLE_S) is not None
    # Seen then, so the time without a look begins anew.
    assert sessions.find(secret, NOW + 2 * IDLE_S - 2, IDLE_S) is not None
    assert sessions.find(secret, NOW + 3 * IDLE_S + 1, IDLE_S) is None
    assert sessions.forget(NOW + 3 * IDLE_S + 1, IDLE_S)
    assert not sessions.forget(NOW + 3 * IDLE_S + 1, IDLE_S)


def test_it_ends_by_hand_and_with_its_token(sessions: SqlWebSessions) -> None:
    first, second, third = (
        sessions.create("alice", 1, Scope.ADMIN, NOW, NOW + 99, token_id=token) for token in (None, 7, 8)
    )
    assert sessions.log_out(first)
    assert not sessions.log_out(first)
    assert sessions.end_of_token(7)
    assert sessions.find(second, NOW, IDLE_S) is None
    [left] = sessions.list(NOW, IDLE_S)
    assert sessions.end(left.id)
    assert not sessions.end(left.id)
    assert sessions.find(third, NOW, IDLE_S) is None
