"""A daemon of root's starts a job only while its user is the account that submitted it."""

from __future__ import annotations

import pwd
from typing import Any

import pytest

from gpuq.domain.caller import Caller
from gpuq.engine.accounts import REMEMBERED_S, Accounts
from gpuq.errors import Forbidden

BOB = Caller("bob", uid=1001, gid=1001)


class Machine:
    """Accounts as (uid, gid) by name; everything else about them is made up. `asked`: how often for each."""

    def __init__(self) -> None:
        self.accounts = {"alice": (1000, 1000), "bob": (1001, 1001)}
        self.asked: list[int | str] = []

    def getpwnam(self, name: str) -> pwd.struct_passwd:
        self.asked.append(name)
        uid, gid = self.accounts[name]
        return pwd.struct_passwd((name, "x", uid, gid, "", f"/home/{name}", "/bin/sh"))

    def getpwuid(self, uid: int) -> pwd.struct_passwd:
        self.asked.append(uid)
        return self.getpwnam({account[0]: name for name, account in self.accounts.items()}[uid])


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    made = Machine()
    monkeypatch.setattr("gpuq.engine.accounts.pwd", made)
    return made


@pytest.fixture
def world(make_world: Any, machine: Machine) -> Any:
    made = make_world("sim:4")
    made.accounts.daemon_uid = 0
    # Nothing is remembered: the tests' clock stands still.
    made.accounts.remembers = lambda _: False
    return made


def reason(world: Any, job_id: int) -> Any:
    return world.queries.why(job_id)["reason"]


def forget(world: Any) -> None:
    world.accounts._known.clear()


@pytest.mark.parametrize(
    ("now", "told"),
    [(None, "bob has no account on this machine, or it cannot be looked up now"),
     ((2001, 1001), "the account bob has uid 2001 now, and had 1001")],
)  # fmt: skip
def test_a_job_waits_while_its_account_is_not_what_it_was(world: Any, machine: Machine, now: Any, told: str) -> None:
    agent = world.agent()
    before = machine.accounts.pop("bob")
    with pytest.raises(Forbidden, match="bob has no account"):
        world.submit("x", by=BOB)
    machine.accounts["bob"] = before
    forget(world)
    job_id = world.submit("x", by=BOB)
    machine.accounts.pop("bob")
    if now is not None:
        machine.accounts["bob"] = now
    forget(world)
    agent.run_once()
    assert world.state(job_id) == "queued"
    assert reason(world, job_id)["code"] == "NoAccount"
    assert reason(world, job_id)["text"].startswith(told)
    assert world.queries.why(job_id)["estimated_start"] is None
    machine.accounts["bob"] = (1001, 777)
    forget(world)
    agent.wake()
    agent.run_once()
    assert world.state(job_id) == "starting"
    spec = world.launcher.order_of(job_id).spec
    assert (spec["uid"], spec["gid"]) == (1001, 777)


def test_a_crowd_without_an_account_hides_nobody_behind_it(world: Any, machine: Machine) -> None:
    for _ in range(150):
        world.submit("x", by=BOB)
    world.clock.forward(1)
    machine.accounts["bob"] = (2001, 2001)
    forget(world)
    later = world.submit("x", by=Caller("bob", 2001, 2001))
    alices = world.submit("x")
    world.agent().run_once()
    assert [world.state(job_id) for job_id in (later, alices)] == ["starting", "starting"]
    assert len(world.launcher.orders) == 2


def test_an_account_lost_between_plan_and_claim_starts_nothing(world: Any, machine: Machine) -> None:
    agent = world.agent()
    job_id = world.submit("x", by=BOB)
    leased = world.ctx.leases.take

    def take(*words: Any) -> Any:
        machine.accounts.pop("bob", None)
        forget(world)
        return leased(*words)

    world.ctx.leases.take = take
    agent.run_once()
    assert world.state(job_id) == "queued"
    assert world.launcher.orders == []
    with world.ctx.records.read() as tx:
        assert tx.attempts(job_id) == []


def test_each_user_is_looked_up_once_a_plan(world: Any, machine: Machine) -> None:
    for _ in range(20):
        world.submit("x", by=BOB)
        world.submit("x")
    forget(world)
    machine.asked.clear()
    world.agent().run_once()
    assert sorted(set(machine.asked)) == ["alice", "bob"]
    assert len(machine.asked) == 2


def test_nothing_about_an_account_is_remembered_for_longer_than_a_second(machine: Machine) -> None:
    at = [100.0]
    accounts = Accounts(0, lambda: at[0])
    for key in ("bob", 1001):
        assert not accounts.remembers(key)
        account = accounts.of(key)
        assert account is not None
        assert (account.name, account.uid, account.gid, account.home) == ("bob", 1001, 1001, "/home/bob")
        assert accounts.remembers(key)
    machine.accounts["bob"] = (2001, 1001)
    at[0] += REMEMBERED_S - 0.01
    assert accounts.why_not("bob", 1001) is None
    at[0] += 0.01
    assert accounts.why_not("bob", 1001) == "the account bob has uid 2001 now, and had 1001"
    machine.accounts.clear()
    at[0] += REMEMBERED_S
    assert accounts.of("bob") is None
    assert accounts.of(1001) is None
    assert REMEMBERED_S <= 1


@pytest.mark.parametrize("uid", [None, 0, 1000, 1001])
def test_an_unknown_uid_is_nobodys(machine: Machine, uid: int | None) -> None:
    assert (Accounts(0).why_not("bob", uid) is None) is (uid == 1001)
    assert Accounts(4242).why_not("nobody-at-all", uid) is None
