"""Root removes what is in users' folders, and they change it meanwhile: nothing else is ever removed."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from accounts import Account, Accounts, in_thread_as

from gpuq.file_trees import Budget, measure, remove

FILES = 300


@pytest.fixture
def jobs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of root's through which users pass."""
    made = tmp_path_factory.mktemp("jobs")
    for folder in (made, *made.parents):
        if folder == Path("/tmp"):
            break
        folder.chmod(0o711)
    return made


def folder_of(account: Account, jobs: Path) -> Path:
    own = jobs / "1"
    own.mkdir(mode=0o700)
    os.chown(own, account.uid, account.gid)
    return own


@pytest.fixture
def precious(jobs: Path) -> Path:
    """What only root may remove."""
    place = jobs / "precious"
    (place / "in").mkdir(parents=True)
    (place / "in" / "file").write_text("still here")
    return place


@contextlib.contextmanager
def while_swapping(account: Account, swap: Callable[[], None]) -> Iterator[None]:
    """`swap` over and over as the account, while the caller goes on."""
    stop, going = threading.Event(), threading.Event()

    def over_and_over() -> None:
        while not stop.is_set():
            with contextlib.suppress(OSError):
                swap()
            going.set()

    thread = threading.Thread(target=lambda: in_thread_as(account, over_and_over))
    thread.start()
    try:
        assert going.wait(30)
        yield
    finally:
        stop.set()
        thread.join(30)
        assert not thread.is_alive()


def test_links_that_are_swapped_in_lead_nowhere(accounts: Accounts, jobs: Path, precious: Path) -> None:
    alice = accounts.alice
    own = folder_of(alice, jobs)

    def fill() -> None:
        for number in range(FILES):
            (own / f"d{number}" / "in").mkdir(parents=True)
            (own / f"d{number}" / "in" / "file").touch()

    in_thread_as(alice, fill)
    turn = iter(range(10**9))

    def swap() -> None:
        # A folder becomes a link to what is precious, and a folder again.
        name = own / f"d{next(turn) % FILES}"
        name.rename(own / "aside")
        name.symlink_to(precious)
        name.unlink()
        (own / "aside").rename(name)

    with while_swapping(alice, swap):
        done = False
        while not done:
            measure(str(jobs), "1", Budget(10_000))
            done, _freed = remove(str(jobs), "1", Budget(50), alice.uid)
    assert not own.exists()
    assert (precious / "in" / "file").read_text() == "still here"


def test_nothing_is_added_behind_the_broom_not_even_through_an_open_folder(accounts: Accounts, jobs: Path) -> None:
    alice = accounts.alice
    own = folder_of(alice, jobs)
    in_thread_as(alice, lambda: (own / "sub").mkdir())
    held = in_thread_as(alice, lambda: os.open(own / "sub", os.O_RDONLY | os.O_DIRECTORY))
    turn = iter(range(10**9))

    def add() -> None:
        os.close(os.open(f"{next(turn)}", os.O_CREAT | os.O_WRONLY, 0o600, dir_fd=held))

    try:
        with while_swapping(alice, add):
            # A race that the user could win over and over would never end.
            assert remove(str(jobs), "1", Budget(200_000), alice.uid)[0]
    finally:
        os.close(held)
    assert not own.exists()


def test_a_folder_that_a_user_moved_in_from_a_shared_one_keeps_its_files(accounts: Accounts, jobs: Path) -> None:
    """bob shares a folder with his group; carol may move it into her own, but not remove what is in his own in it."""
    bob, carol = accounts.bob, accounts.carol
    own = folder_of(carol, jobs)
    open_to_all = jobs / "open"
    open_to_all.mkdir()
    open_to_all.chmod(0o777)

    def share() -> None:
        (open_to_all / "shared" / "bobs").mkdir(parents=True)
        (open_to_all / "shared" / "bobs" / "file").write_text("bob's")
        (open_to_all / "shared").chmod(0o777)

    in_thread_as(bob, share)
    in_thread_as(carol, lambda: (open_to_all / "shared").rename(own / "shared"))
    with pytest.raises(PermissionError):
        remove(str(jobs), "1", Budget(1000), carol.uid)
    assert (own / "shared" / "bobs" / "file").read_text() == "bob's"


def test_users_clean_what_their_own_jobs_left_and_nobody_elses(
    accounts: Accounts, make_root_box: Callable[..., Any]
) -> None:
    box = make_root_box()
    box.up()
    alice, bob, carol = accounts.alice, accounts.bob, accounts.carol
    script = (
        "echo said; echo kept >$GPUQ_CHECKPOINT_DIR/state; mkdir $GPUQ_RUN_DIR/closed; chmod 0 $GPUQ_RUN_DIR/closed"
    )
    alices, bobs = (box.submit_as(account, script) for account in (alice, bob))
    box.gpuq("wait", str(alices), str(bobs))
    for body in (
        {"ids": [alices]},
        {"user": alice.name},
        {"ids": [bobs, alices]},
        {"user": alice.name, "dry_run": True},
    ):
        assert box.call(bob, "POST", "/clean", body).status == 403, body
    assert box.call(carol, "POST", "/clean", {"checkpoints": True}).json["jobs"] == 0
    done = box.call(bob, "POST", "/clean", {"checkpoints": True}).json
    assert (done["jobs"], done["failed"]) == (1, [])
    folders = box.home / "jobs"
    assert not (folders / str(bobs)).exists()
    assert (folders / str(alices) / "1" / "output.log").read_text() == "said\n"
    assert box.call(alice, "GET", f"/jobs/{bobs}/log").status == 403
    told = box.call(bob, "GET", f"/jobs/{bobs}/log")
    assert (told.status, told.json["error"]["code"]) == (404, "not_found")
    # An administrator removes what he may not read, and its owner is told who it was.
    assert box.call(accounts.admin, "GET", f"/jobs/{alices}/log").status == 403
    assert box.call(accounts.admin, "POST", "/clean", {"user": alice.name}).json["jobs"] == 1
    assert (folders / str(alices) / "checkpoint" / "state").read_text() == "kept\n"
    told = box.call(alice, "GET", f"/jobs/{alices}/log")
    assert told.json["error"]["message"].endswith(f": cleaned by {accounts.admin.name}")
