"""Throwaway accounts for tests that attack a daemon of root's: made by useradd, removed whatever happens.

A keeper process makes them and waits for the end of its standard input, which comes when the tests end, also when
they are killed; then it removes them. What a killed keeper leaves behind, the next one removes. Run with names, this
file is the keeper: `accounts.py gpuqt123a=primary-group …`.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import pwd
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PREFIX = "gpuqt"
_SETRESUID, _SETRESGID, _SETGROUPS = {"x86_64": (117, 119, 116), "aarch64": (147, 149, 159)}.get(
    os.uname().machine, (0, 0, 0)
)


@dataclass(frozen=True)
class Account:
    """One throwaway account of the machine."""

    name: str
    uid: int
    gid: int

    @property
    def identity(self) -> dict[str, Any]:
        """For `subprocess.run`, to run something as this account and with its groups only."""
        return {"user": self.uid, "group": self.gid, "extra_groups": []}


@dataclass(frozen=True)
class Accounts:
    """Users of one machine. `carol` has the primary group of `bob`; `admin` is meant for GPUQ_ADMINS."""

    alice: Account
    bob: Account
    carol: Account
    admin: Account


def unusable() -> str | None:
    """Why no accounts can be made here; None where they can be."""
    if os.geteuid() != 0:
        return "throwaway accounts can only be made by root"
    if not _SETRESUID:
        return f"calls as another user are not written for {os.uname().machine}"
    for program in ("useradd", "userdel"):
        if not any((Path(folder) / program).exists() for folder in ("/usr/sbin", "/sbin", "/usr/bin")):
            return f"the program {program} is not here"
    return None


@contextlib.contextmanager
def throwaway_accounts() -> Iterator[Accounts]:
    """Makes four accounts and removes them. Raises AssertionError with the words of useradd when that fails."""
    base = f"{PREFIX}{os.getpid()}"
    words = [f"{base}a=", f"{base}b=", f"{base}c={base}b", f"{base}d="]
    with _kept(words):
        yield Accounts(*(_account(word.partition("=")[0]) for word in words))


@contextlib.contextmanager
def spare_account() -> Iterator[Account]:
    """One more, for a test that changes or deletes it; it is as it was made. Raises as `throwaway_accounts`."""
    name = f"{PREFIX}{os.getpid()}s"
    with _kept([f"{name}="]):
        yield _account(name)


@contextlib.contextmanager
def _kept(words: list[str]) -> Iterator[None]:
    """The accounts that these words of the keeper name are there for as long as the block, or this process, lasts."""
    keeper = subprocess.Popen(
        [sys.executable, __file__, *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        # Ctrl-C at the tests must not reach it before its work is done.
        start_new_session=True,
    )
    assert keeper.stdin is not None
    assert keeper.stdout is not None
    try:
        said = keeper.stdout.readline().strip()
        assert said == "ready", f"the accounts could not be made: {said or 'the keeper is gone'}"
        yield
    finally:
        keeper.stdin.close()
        keeper.wait(60)
        keeper.stdout.close()


def _account(name: str) -> Account:
    found = pwd.getpwnam(name)
    return Account(name, found.pw_uid, found.pw_gid)


def in_thread_as(account: Account, act: Callable[[], Any]) -> Any:
    """What `act` returns, called in a thread whose effective user is `account`, which has no capabilities there.

    Linux keeps identities by thread; the system calls themselves change only the calling one. Raises what `act` raises.
    """
    box: list[Any] = []
    libc = ctypes.CDLL(None, use_errno=True)

    def run() -> None:
        try:
            for number, values in ((_SETGROUPS, (0, None)), (_SETRESGID, (-1, account.gid, -1))):
                assert libc.syscall(number, *values) == 0, os.strerror(ctypes.get_errno())
            assert libc.syscall(_SETRESUID, -1, account.uid, -1) == 0, os.strerror(ctypes.get_errno())
            box.append((True, act()))
        except BaseException as error:  # noqa: BLE001 - handed to the caller
            box.append((False, error))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    good, value = box[0]
    if not good:
        raise value
    return value


def connect_as(account: Account, path: str) -> socket.socket:
    """A connection to a Unix socket, whose other end sees `account` as its peer. Raises OSError."""

    def connect() -> socket.socket:
        made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        # Not with a timeout: where many knock at once, such a connection is refused instead of waiting for its turn.
        made.connect(path)
        made.settimeout(60)
        return made

    connected: socket.socket = in_thread_as(account, connect)
    return connected


def _keep(words: list[str]) -> int:
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, signal.SIG_IGN)
    _remove([entry.pw_name for entry in pwd.getpwall() if _left_behind(entry.pw_name)])
    names = [word.partition("=")[0] for word in words]
    try:
        for word in words:
            name, _, group = word.partition("=")
            kind = ["-g", group] if group else ["-U"]
            done = subprocess.run(
                ["useradd", "-M", "-d", "/nonexistent", "-s", "/bin/sh", *kind, name], capture_output=True, text=True
            )
            if done.returncode != 0:
                print(done.stderr.strip().replace("\n", " "), flush=True)
                return 1
        print("ready", flush=True)
        # Ends when whoever started us is gone, however it went.
        sys.stdin.read()
        return 0
    finally:
        _remove(names)


def _left_behind(name: str) -> bool:
    number = name.removeprefix(PREFIX)[:-1]
    return name.startswith(PREFIX) and number.isdigit() and not Path(f"/proc/{number}").exists()


def _remove(names: list[str]) -> None:
    # In the other order: a group goes when nobody has it as the primary one.
    for name in reversed(names):
        subprocess.run(["userdel", name], capture_output=True, check=False)
        # Left behind where the account had another primary group in the end.
        subprocess.run(["groupdel", name], capture_output=True, check=False)


if __name__ == "__main__":
    os.environ["PATH"] = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin:/usr/bin:/bin"
    sys.exit(_keep(sys.argv[1:]))
