"""One daemon a machine: every user's command finds it by itself, and trusts nobody else's in its place.

The machine's places (/run, /etc, /var/lib) are folders of the test in a mount namespace that ends with it.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from accounts import Account, Accounts, in_thread_as
from box import GPUQ

from gpuq.client.transport import UnixTransport
from gpuq.errors import DaemonUnreachable

PLACES = ("run", "etc", "var/lib")


class Machine:
    """A machine without a gpuq, as far as `run` goes."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for place in PLACES:
            (root / place).mkdir(parents=True)
        shutil.copytree("/etc", root / "etc", symlinks=True, dirs_exist_ok=True, ignore=_unreadable)
        shutil.rmtree(root / "etc/gpuq", ignore_errors=True)
        mounts = " && ".join([*_python(root), *(f"mount --bind {root}/{place} /{place}" for place in PLACES)])
        self._keeper = subprocess.Popen(
            ["unshare", "-m", "--propagation", "private", "sh", "-c", f"{mounts} && echo in && read over"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        assert self._keeper.stdout is not None
        self.is_apart = self._keeper.stdout.readline() == b"in\n"

    def run(self, account: Account | None, *words: str, code: int = 0, **env: str) -> subprocess.CompletedProcess[str]:
        """gpuq on this machine as `account`, whose home is empty, or as root for None."""
        home = self.root / "home" / (account.name if account else "root")
        if not home.exists():
            home.mkdir(parents=True)
            if account is not None:
                os.chown(home, account.uid, account.gid)
        become = []
        if account is not None:
            become = ["setpriv", "--reuid", str(account.uid), "--regid", str(account.gid), "--clear-groups"]
            become += ["--inh-caps=-all", "--bounding-set=-all", "--"]
        done = subprocess.run(
            ["nsenter", "-m", "-t", str(self._keeper.pid), *become, GPUQ, *words],
            env={"PATH": os.environ["PATH"], "HOME": str(home), **env},
            cwd="/", capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == code, f"{words}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def end(self) -> None:
        try:
            if self.is_apart:
                self.run(None, "down", "--stop-jobs")
        finally:
            self._keeper.communicate()
            shutil.rmtree(self.root, ignore_errors=True)


def _python(root: Path) -> list[str]:
    """Commands that let everybody reach a Python which is installed in root's own folder."""
    prefix = Path(sys.base_prefix).resolve()
    if not prefix.is_relative_to("/root"):
        return []
    seen = root / "python" / prefix.relative_to("/root")
    seen.mkdir(parents=True)
    return [f"mount --bind {prefix} {seen}", f"mount --rbind {root}/python /root"]


def _unreadable(folder: str, names: list[str]) -> list[str]:
    return [name for name in names if not (Path(folder) / name).is_dir() and not (Path(folder) / name).is_file()]


@pytest.fixture
def machine(accounts: Accounts) -> Iterator[Machine]:
    root = Path(tempfile.mkdtemp(prefix="gpuq-machine-"))
    root.chmod(0o755)
    made = Machine(root)
    if not made.is_apart:
        made.end()
        pytest.skip("no mount namespace can be made here")
    try:
        made.run(accounts.alice, "--version")
    except AssertionError:
        made.end()
        pytest.skip(f"throwaway accounts cannot reach {GPUQ}")
    yield made
    made.end()


def test_every_user_finds_the_machines_daemon_and_no_other(machine: Machine, accounts: Accounts) -> None:
    alice = accounts.alice
    # Nobody has ever started one: a queue of one's own, and it is said that nothing starts.
    assert "nothing starts until `gpuq up`" in machine.run(alice, "submit", "-g", "0", "true").stderr
    assert (machine.root / "home" / alice.name / ".local/share/gpuq/gpuq.db").exists()

    # Root's daemon of a trial is not the machine's.
    trial = {"GPUQ_HOME": str(machine.root / "trial"), "GPUQ_GPUS": "sim:2"}
    assert "/run/gpuq" not in machine.run(None, "up", "-d", **trial).stderr
    machine.run(None, "down", **trial)
    assert not (machine.root / "run/gpuq").exists()

    said = machine.run(None, "up", "-d", GPUQ_GPUS="sim:2").stderr
    assert "unix:///var/lib/gpuq/gpuq.sock, unix:///run/gpuq/gpuq.sock" in said
    folder = (machine.root / "run/gpuq").stat()
    assert (folder.st_uid, folder.st_mode & 0o777) == (0, 0o755)
    machine.run(alice, "submit", "-g", "0", "-n", "found", "true")
    machine.run(alice, "wait", "1")
    assert "found" in machine.run(accounts.bob, "history").stdout
    # Who names a home means that one.
    own = str(machine.root / "home" / alice.name / ".local/share/gpuq")
    assert "found" not in machine.run(alice, "status", "-a", GPUQ_HOME=own).stdout

    # The other place, where /run cannot be had.
    (machine.root / "run/gpuq").rename(machine.root / "run/away")
    assert "found" in machine.run(alice, "history").stdout
    # What others can change is not trusted, nor is who listens there without being root.
    impostor = machine.root / "run/gpuq"
    impostor.mkdir()
    os.chown(impostor, alice.uid, alice.gid)
    (impostor / "gpuq.sock").symlink_to("/dev/null")
    assert "found" in machine.run(accounts.bob, "history").stdout
    (impostor / "gpuq.sock").unlink()
    impostor.rmdir()
    (machine.root / "run/away").rename(machine.root / "run/gpuq")

    machine.run(None, "down")
    assert not (machine.root / "run/gpuq/gpuq.sock").exists()
    refused = machine.run(alice, "submit", "-g", "0", "true", code=5).stderr
    assert "this machine's gpuq is down" in refused
    assert "/var/lib/gpuq/gpuq.sock" in refused
    assert f"GPUQ_HOME={own}" in refused
    assert "this machine's gpuq is down" in machine.run(alice, "run", "-g", "0", "true", code=5).stderr
    assert "nothing starts" in machine.run(alice, "submit", "-g", "0", "true", GPUQ_HOME=own).stderr


def test_the_machines_config_file_tells_everybody_where_the_daemon_is(machine: Machine, accounts: Accounts) -> None:
    alice = accounts.alice
    config = machine.root / "etc/gpuq/config.toml"
    config.parent.mkdir()
    config.write_text('home = "/var/lib/elsewhere"\ngpus = "sim:3"\nnode = "box7"\nmax_waiting = 1\n')
    machine.run(None, "up", "-d")
    assert len(machine.run(alice, "gpus").stdout.splitlines()) == 4
    # What is root's daemon's in that file means nothing to a daemon of one's own.
    own = {line.split()[0]: line.split()[1:] for line in machine.run(alice, "config").stdout.splitlines()}
    assert own["GPUQ_GPUS"] == ["nvml", "default"]
    machine.run(None, "down")
    down = machine.run(alice, "status", code=5).stderr
    assert "/var/lib/elsewhere/gpuq.sock" in down

    config.write_text('server = "unix:///run/other.sock"\n')
    assert "/run/other.sock" in machine.run(alice, "status", code=5).stderr
    assert "/run/mine.sock" in machine.run(alice, "status", code=5, GPUQ_SERVER="unix:///run/mine.sock").stderr
    shown = [line for line in machine.run(alice, "config").stdout.splitlines() if line.startswith("GPUQ_SERVER")]
    assert shown[0].split()[1:] == ["unix:///run/other.sock", "/etc/gpuq/config.toml"]
    config.chmod(0o600)
    told = machine.run(alice, "status", code=5).stderr
    assert told.count("/etc/gpuq/config.toml") == 1
    assert "Permission denied" in told
    config.write_text('home = "/var/lib/elsewhere"\n')


def test_a_listener_that_is_not_root_is_not_spoken_to(accounts: Accounts, tmp_path: Path) -> None:
    path = str(tmp_path / "gpuq.sock")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(path)
        # Whose it is, the kernel notes when it begins to listen.
        in_thread_as(accounts.alice, listener.listen)
        with pytest.raises(DaemonUnreachable, match="is not root, and is not spoken to"):
            UnixTransport(path, of_root=True).peer_pid()
        anybodys = UnixTransport(path)
        assert anybodys.peer_pid() == os.getpid()
        anybodys.close()
