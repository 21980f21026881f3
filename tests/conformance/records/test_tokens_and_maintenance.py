from __future__ import annotations

import pytest
from sqlalchemy import text

from gpuq.domain.caller import Scope
from gpuq.errors import DatabaseUnavailable
from gpuq.ports.admin import MaintenanceRun
from gpuq.stores.sql import SqlRecords, SqlTokens, open_maintenance, open_tokens


@pytest.fixture
def tokens(records: SqlRecords) -> SqlTokens:
    return open_tokens(records.database)


def user_of(tokens: SqlTokens, secret: str, at: float) -> str | None:
    found = tokens.find(secret, at)
    return None if found is None else found.user


def test_a_token_is_kept_with_its_uid_its_scope_and_its_end(tokens: SqlTokens) -> None:
    _, secret = tokens.create("alice", "laptop", 1.0, uid=2**32 - 2, scope=Scope.READ, expires_at=9.5)
    _, plain = tokens.create("bob", "desk", 2.0)
    kept = tokens.find(secret, 3.0)
    assert kept is not None
    assert (kept.uid, kept.scope, kept.expires_at) == (2**32 - 2, Scope.READ, 9.5)
    [_, other] = tokens.list()
    assert (other.uid, other.scope, other.expires_at) == (None, Scope.SUBMIT, None)
    assert other == tokens.find(plain, -1000.0)


def test_an_expired_token_is_found_as_such_and_its_use_is_not_noted(tokens: SqlTokens) -> None:
    _, secret = tokens.create("alice", "laptop", 1.0, expires_at=9.5)
    found = tokens.find(secret, 9.5)
    assert found is not None
    assert found.expires_at == 9.5
    assert tokens.list()[0].last_used_at is None


def test_a_token_opens_the_door_for_its_user_alone(tokens: SqlTokens) -> None:
    _, secret = tokens.create("alice", "laptop", 1.0)
    _, other = tokens.create("bob", "laptop", 1.0)
    assert secret != other
    assert user_of(tokens, secret, 2.0) == "alice"
    assert user_of(tokens, other, 2.0) == "bob"
    for wrong in ("", "gpuq_", secret[:-1], secret + "x", secret.upper(), "\udcff", "' OR 1=1 --"):
        assert tokens.find(wrong, 2.0) is None


def test_the_secret_is_nowhere_in_the_database(records: SqlRecords, tokens: SqlTokens) -> None:
    _, secret = tokens.create("alice", "laptop", 1.0)
    with records.database.read() as connection:
        rows = str(connection.execute(text("SELECT * FROM tokens")).all())
    assert secret not in rows
    assert secret.removeprefix("gpuq_") not in rows


def test_a_revoked_token_opens_nothing(tokens: SqlTokens) -> None:
    token_id, secret = tokens.create("alice", "laptop", 1.0)
    assert tokens.revoke(token_id, 5.0) is True
    assert tokens.find(secret, 6.0) is None
    assert tokens.revoke(token_id, 7.0) is False
    assert tokens.revoke(999, 7.0) is False
    assert tokens.list()[0].revoked_at == 5.0


def test_the_last_use_is_noted_but_not_at_every_call(tokens: SqlTokens) -> None:
    _, secret = tokens.create("alice", "laptop", 1.0)
    assert tokens.list()[0].last_used_at is None
    for at, noted in ((10.0, 10.0), (20.0, 10.0), (609.0, 10.0), (610.0, 610.0)):
        assert user_of(tokens, secret, at) == "alice"
        assert tokens.list()[0].last_used_at == noted


def test_a_token_works_while_its_use_cannot_be_noted(
    records: SqlRecords, tokens: SqlTokens, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, secret = tokens.create("alice", "laptop", 1.0)

    def full() -> None:
        raise DatabaseUnavailable("the database's disk is full")

    monkeypatch.setattr(records.database, "write", full)
    assert user_of(tokens, secret, 9.0) == "alice"


def test_tokens_are_listed_by_id(tokens: SqlTokens) -> None:
    first, _ = tokens.create("alice", "a", 1.0)
    second, _ = tokens.create("bob", "b", 2.0)
    assert [(row.id, row.user, row.name, row.created_at) for row in tokens.list()] == [
        (first, "alice", "a", 1.0),
        (second, "bob", "b", 2.0),
    ]


def test_maintenance_keeps_the_last_start_success_and_error_of_each_task(records: SqlRecords) -> None:
    log = open_maintenance(records.database)
    assert log.runs() == []
    log.note_start("reap", 1.0)
    log.note_ok("reap", 2.0)
    log.note_start("retain", 3.0)
    log.note_error("retain", 4.0, "disk\0full")
    log.note_start("reap", 5.0)
    log.note_ok("retain", 6.0)
    assert log.runs() == [
        MaintenanceRun("reap", 5.0, 2.0, None, None),
        MaintenanceRun("retain", 3.0, 6.0, 4.0, "disk\ufffdfull"),
    ]
