"""Who may make tokens, read output and use which token: rules on plain values."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from gpuq.domain.caller import Caller, Scope
from gpuq.engine import access
from gpuq.errors import Forbidden

ROOTS: Any = SimpleNamespace(apart=True, daemon_uid=0)
ALICES: Any = SimpleNamespace(apart=False, daemon_uid=1000)
ROOT = Caller("root", 0, 0, admin=True)
ALICE = Caller("alice", 1000, 1000)
ADMIN = Caller("carol", 1002, 1002, admin=True)


def test_a_scope_covers_itself_and_those_before_it() -> None:
    scopes = list(Scope)
    covered = {(one, other) for one in scopes for other in scopes if one.covers(other)}
    assert covered == {(one, other) for at, one in enumerate(scopes) for other in scopes[: at + 1]}


def test_a_token_does_what_its_scope_covers_and_who_has_none_is_not_bound() -> None:
    for scope in (None, Scope.SUBMIT, Scope.ADMIN):
        access.require_scope(Caller("alice", 1000, scope=scope), Scope.SUBMIT)
    with pytest.raises(Forbidden, match="has the scope `read`; what you asked for takes the scope `submit`"):
        access.require_scope(Caller("alice", 1000, scope=Scope.READ), Scope.SUBMIT)


@pytest.mark.parametrize(
    ("caller", "accounts", "master"),
    [
        (ROOT, ROOTS, True),
        (ROOT, ALICES, True),
        (Caller("alice", 1000, 1000, admin=True), ALICES, True),
        (Caller("alice", 1000, 1000, admin=True), ROOTS, False),
        (ADMIN, ROOTS, False),
        (ALICE, ALICES, False),
        (Caller("root", None, None, admin=True), ROOTS, False),
    ],
)
def test_masters_are_root_and_the_daemons_own_user_with_their_rights(
    caller: Caller, accounts: Any, master: bool
) -> None:
    assert access.is_masters(accounts, caller) is master


@pytest.mark.parametrize(
    ("caller", "accounts", "may"),
    [
        (ALICE, ROOTS, True),
        (ROOT, ROOTS, True),
        (ADMIN, ROOTS, False),
        (Caller("bob", 1001), ROOTS, False),
        (Caller("alice", 1001), ROOTS, False),
        (Caller("alice", None), ROOTS, True),
        (Caller("bob", 1001), ALICES, True),
    ],
)
def test_output_is_for_its_owner_and_root_where_users_are_apart(caller: Caller, accounts: Any, may: bool) -> None:
    job: Any = SimpleNamespace(id=7, user="alice", uid=1000)
    assert access.may_read(accounts, "alice", 1000, caller) is may
    if may:
        access.require_reader(accounts, job, caller)
        return
    with pytest.raises(Forbidden, match="the output of job 7 belongs to alice"):
        access.require_reader(accounts, job, caller)


def test_a_token_is_made_for_oneself_and_with_an_end_but_by_root() -> None:
    access.require_token_rights(ROOTS, ALICE, "alice", endless=False)
    for user, endless in (("alice", True), ("root", False)):
        access.require_token_rights(ROOTS, ROOT, user, endless=endless)
    with pytest.raises(Forbidden, match="only root may make one for somebody else"):
        access.require_token_rights(ROOTS, ADMIN, "alice", endless=False)
    with pytest.raises(Forbidden, match="a token that never expires"):
        access.require_token_rights(ROOTS, ALICE, "alice", endless=True)
    with pytest.raises(Forbidden, match="a token cannot make tokens"):
        access.require_token_rights(ROOTS, Caller("root", 0, 0, admin=True, scope=Scope.ADMIN), "root", endless=False)
