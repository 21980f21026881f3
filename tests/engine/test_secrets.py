"""Secrets of jobs: encrypted while a job waits, handed to its launch alone, deleted with its end."""

from __future__ import annotations

import os
import re
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gpuq.domain.outcome import Outcome
from gpuq.engine.actions.cancel import cancel
from gpuq.engine.actions.hold import release
from gpuq.engine.actions.retry import retry
from gpuq.engine.intake.again import again
from gpuq.errors import Forbidden, Refused, SecretsUnavailable, TooLarge, UsageError
from gpuq.ports.records import JobFilter
from gpuq.stores.secret_key import SecretKeyFile
from tests.services.world import World

CANARY = "canary-4711-never-seen"
HF = {"HF_TOKEN": CANARY}


def stored(world: World) -> list[Any]:
    with sqlite3.connect(str(world.settings.home / "gpuq.db")) as connection:
        return connection.execute("SELECT id, key, sealed FROM secrets").fetchall()


def dump(world: World) -> str:
    with sqlite3.connect(str(world.settings.home / "gpuq.db")) as connection:
        return "\n".join(connection.iterdump())


def files(home: Path) -> bytes:
    return b"".join(path.read_bytes() for path in home.rglob("*") if path.is_file())


def test_a_job_gets_its_secrets_and_neither_database_nor_home_shows_them(world: World) -> None:
    agent = world.agent()
    job_id = world.submit(secrets={**HF, "SHADOWED": "hidden"}, env={"SHADOWED": "plain"})
    assert CANARY not in dump(world)
    agent.run_once()
    order = world.launcher.order_of(job_id)
    assert order.secrets["HF_TOKEN"] == CANARY
    assert CANARY not in repr(order) + repr(order.spec)
    assert CANARY not in dump(world)
    assert CANARY.encode() not in files(world.settings.home)


def test_a_job_that_starts_with_its_submission_has_its_secrets_too(world: World) -> None:
    agent = world.agent()
    agent.run_once()
    (job_id,) = world.submit_to(agent, {"secrets": HF})
    assert world.launcher.order_of(job_id).secrets == HF


@pytest.mark.parametrize("end", ["ended", "cancelled"])
def test_secrets_are_deleted_with_the_end_of_the_job(world: World, end: str) -> None:
    job_id = world.submit(secrets=HF, max_retries=1)
    assert len(stored(world)) == 1
    if end == "cancelled":
        cancel(world.ctx, job_id, world.user)
    else:
        agent = world.agent()
        agent.run_once()
        world.launcher.run(job_id)
        agent.run_once()
        world.launcher.end(job_id, Outcome.EXIT_NONZERO, exit_code=1)
        agent.run_once()
        # It is retried, and has to have them then.
        assert len(stored(world)) == 1
        cancel(world.ctx, job_id, world.user)
    assert stored(world) == []


def test_the_elements_of_an_array_share_one_ciphertext_until_the_last_has_ended(world: World) -> None:
    first = world.submit(array="0-2", secrets=HF)
    assert len(stored(world)) == 1
    for job_id in (first, first + 1):
        cancel(world.ctx, job_id, world.user)
        assert len(stored(world)) == 1
    # Those of an element that ended are there as long as another needs them.
    retry(world.ctx, first, world.user)
    cancel(world.ctx, first, world.user)
    cancel(world.ctx, first + 2, world.user)
    assert stored(world) == []


def test_jobs_of_one_request_that_share_secrets_share_one_ciphertext(world: World) -> None:
    shared = {"command": ["true"], "cwd": "/"}
    from gpuq.domain.spec import Batch
    from gpuq.engine.intake.submit import submit

    batch = Batch.model_validate({"jobs": [shared, {**shared, "secrets": {"OWN": "x"}}, shared], "secrets": HF})
    jobs = submit(world.ctx, batch.specs(), world.user)
    assert len(stored(world)) == 2
    agent = world.agent()
    agent.run_once()
    assert [world.launcher.order_of(job.id).secrets for job in jobs] == [HF, {**HF, "OWN": "x"}, HF]


def test_a_retry_after_the_end_says_that_the_secrets_are_gone_and_like_takes_new_ones(world: World) -> None:
    job_id = world.submit(secrets=HF)
    cancel(world.ctx, job_id, world.user)
    with pytest.raises(Refused, match="deleted with its end") as refused:
        retry(world.ctx, job_id, world.user)
    assert f"--like {job_id}" in str(refused.value.hint)
    with pytest.raises(Refused, match="not set here: HF_TOKEN"):
        again(world.ctx, job_id, world.user, {})
    # Only those that the job had are taken of what is offered.
    spec = again(world.ctx, job_id, world.user, {"offered_secrets": {"HF_TOKEN": "new", "OTHER_TOKEN": "no"}})
    assert spec.secrets == {"HF_TOKEN": "new"}
    assert again(world.ctx, job_id, world.user, {"env_drop": ["HF_*"]}).secrets == {}
    for nonsense in ({"offered_secrets": ["x"]}, {"env_drop": "x"}, {"secrets": {"A": 1}}):
        with pytest.raises(UsageError):
            again(world.ctx, job_id, world.user, nonsense)


def test_a_job_like_one_that_lives_takes_over_its_secrets_for_its_owner_alone(world: World) -> None:
    job_id = world.submit(secrets={**HF, "A_KEY": "1"})
    spec = again(world.ctx, job_id, world.user, {"secrets": {"A_KEY": "2", "B_KEY": "3"}})
    assert spec.secrets == {**HF, "A_KEY": "2", "B_KEY": "3"}
    with pytest.raises(Forbidden):
        again(world.ctx, job_id, world.admin, {})


def test_without_the_key_the_job_is_held_with_the_reason_and_starts_when_the_key_is_back(world: World) -> None:
    agent = world.agent()
    job_id = world.submit(secrets=HF)
    plain = world.submit()
    key = world.settings.home / "secrets.key"
    assert key.stat().st_mode & 0o777 == 0o600
    away = key.rename(key.with_suffix(".away"))
    agent.run_once()
    seen = world.job(job_id)
    assert (seen.state, seen.held_by, seen.attempt) == ("held", "secrets", 0)
    assert world.job(plain).state == "starting"
    [(_, status)] = world.queries.describe([seen])
    assert status.reason is not None
    assert status.reason.code == "SecretsUnreadable"
    with world.ctx.records.read() as tx:
        details = [event.detail or "" for event in tx.events(job_id=job_id)]
    assert any(re.search(r"the key [0-9a-f]{16}, which is not in .*secrets\.key", detail) for detail in details)
    # Another key is made for new jobs; the old one goes beside it.
    other = world.submit(secrets={"X_TOKEN": "y"})
    key.write_bytes(key.read_bytes() + away.read_bytes())
    release(world.ctx, job_id, world.user)
    agent.wake()
    agent.run_once()
    assert world.launcher.order_of(job_id).secrets == HF
    assert world.launcher.order_of(other).secrets == {"X_TOKEN": "y"}


def test_jobs_without_secrets_make_no_key(world: World) -> None:
    world.submit()
    assert not (world.settings.home / "secrets.key").exists()


def test_a_name_without_a_value_and_too_much_are_refused(world: World) -> None:
    with pytest.raises(UsageError, match="A_KEY has no value"):
        world.submit(secrets={"A_KEY": None})
    with pytest.raises(TooLarge, match="65536 bytes"):
        world.submit(secrets={"A_KEY": "x" * 65536})
    for secrets in ({"": CANARY}, {"A=B": CANARY}, {"A": CANARY + "\0"}, {"A": {"B": CANARY}}, CANARY):
        with pytest.raises(UsageError) as refused:
            world.submit(secrets=secrets)
        assert CANARY not in str(refused.value)
    with world.ctx.records.read() as tx:
        assert not tx.jobs(JobFilter())


def _readable(key: Path) -> None:
    key.chmod(0o644)


def _a_link(key: Path) -> None:
    key.rename(key.with_name("elsewhere"))
    key.symlink_to("elsewhere")


def _cut_off(key: Path) -> None:
    key.write_bytes(key.read_bytes()[:20])


@pytest.mark.parametrize("spoil", [_readable, _a_link, _cut_off])
def test_a_key_file_that_cannot_be_trusted_is_not_used(tmp_path: Path, spoil: Callable[[Path], None]) -> None:
    box = SecretKeyFile(tmp_path)
    sealed = box.seal(HF)
    assert box.open(sealed) == HF
    spoil(tmp_path / "secrets.key")
    for use in (lambda: box.seal(HF), lambda: box.open(sealed)):
        with pytest.raises(SecretsUnavailable) as unusable:
            use()
        assert CANARY not in str(unusable.value)


def test_what_was_changed_in_the_database_is_not_taken_for_a_secret(tmp_path: Path) -> None:
    box = SecretKeyFile(tmp_path)
    sealed = box.seal(HF)
    for text in ("", sealed.text[:-8] + "AAAAAAA=", "nonsense ü"):
        with pytest.raises(SecretsUnavailable, match="damaged"):
            box.open(sealed._replace(text=text))


def test_of_two_who_make_the_first_key_at_once_both_use_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    box, link = SecretKeyFile(tmp_path), os.link
    others = []

    def late(*paths: Any) -> None:
        monkeypatch.setattr(os, "link", link)
        others.append(SecretKeyFile(tmp_path).seal({"B": "2"}))
        link(*paths)

    monkeypatch.setattr(os, "link", late)
    sealed = box.seal(HF)
    assert box.open(others[0]) == {"B": "2"}
    assert box.open(sealed) == HF
    assert [path.name for path in tmp_path.iterdir()] == ["secrets.key"]
