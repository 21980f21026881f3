"""How a job's program is found and started, and the sentence for each way in which it cannot be."""

from __future__ import annotations

import errno
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from gpuq.supervise import kernel, spawn
from gpuq.supervise.spawn import AttemptSpec, CannotRun

ME = {"uid": os.geteuid(), "gid": os.getegid()}
BASE: dict[str, Any] = {"token": "t", "argv": ["true"], "env": {"PATH": "/usr/bin:/bin"}, **ME}


def spec(**fields: Any) -> AttemptSpec:
    return AttemptSpec({**BASE, **fields})


def run(tmp_path: Path, *argv: str, **fields: Any) -> tuple[int, str]:
    """The exit code and what it wrote."""
    log = os.open(tmp_path / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        pid, error = spawn.spawn(spec(argv=list(argv), cwd=str(tmp_path), **fields), log)
    finally:
        os.close(log)
    assert error == -1
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), (tmp_path / "log").read_text()


def refusal(**fields: Any) -> str:
    null = os.open(os.devnull, os.O_WRONLY)
    try:
        with pytest.raises(CannotRun) as refused:
            spawn.spawn(spec(**fields), null)
    finally:
        os.close(null)
    assert os.getcwd() == "/"
    return str(refused.value)


@pytest.fixture(autouse=True)
def _as_before() -> Any:
    """A supervisor's own folder is the root, where it goes back to after each start."""
    before, mask = os.getcwd(), os.umask(0o027)
    yield
    os.chdir(before)
    assert os.umask(mask) == 0o027


@pytest.mark.parametrize(
    ("name", "value", "read"),
    [
        ("uid", True, None), ("uid", "5", None), ("uid", 0, 0), ("time_limit_s", -1, None),
        ("time_limit_s", True, None),
        ("time_limit_s", "9", None), ("time_limit_s", 0, 0.0), ("kill_grace_s", -1, 30.0), ("kill_grace_s", 1.5, 1.5),
        ("umask", 0, 0), ("signal", "USR1", None), ("cwd", "", "/"), ("cwd", None, "/"),
    ],
)  # fmt: skip
def test_a_field_of_a_spec_that_is_of_another_kind_counts_as_absent(name: str, value: object, read: object) -> None:
    found = spec(**{name: value})
    assert getattr(found, "notice" if name == "signal" else name) == read


def test_a_job_has_its_folder_its_mask_its_variables_a_session_of_its_own_and_its_log(tmp_path: Path) -> None:
    script = 'pwd; umask; echo "$X"; echo out; echo err >&2; test "$(ps -o sid= -p $$ | tr -d " ")" = $$; exit 3'
    code, text = run(tmp_path, "sh", "-c", script, umask=0o077, env={"PATH": "/usr/bin:/bin", "X": "y"})
    assert (code, text.split()) == (3, [str(tmp_path), "0077", "y", "out", "err"])
    assert run(tmp_path, "sh", "-c", "umask")[1].split()[-1] == "0022"


def test_a_job_starts_with_no_signal_blocked(tmp_path: Path) -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})
    try:
        code, _ = run(tmp_path, "sh", "-c", "kill -USR2 $$; exit 5")
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    assert code == -signal.SIGUSR2


def executable(path: Path, text: str, mode: int = 0o755) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    path.chmod(mode)
    return path


def test_a_program_is_the_first_in_path_that_can_be_run(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    executable(first / "tool", "#!/bin/sh\necho first\n", 0o644)
    executable(second / "tool", "#!/bin/sh\necho second $0\n")
    path = f"{tmp_path}/none:{first}:{second}"
    assert run(tmp_path, "tool", env={"PATH": path})[1] == f"second {second}/tool\n"
    executable(tmp_path / "here", "#!/bin/sh\necho here\n")
    assert run(tmp_path, "here", env={"PATH": "/bin:"})[1].endswith("here\n")
    assert run(tmp_path, "./here", env={})[1].endswith("here\n")
    # Without PATH the usual folders.
    assert run(tmp_path, "true", env={})[0] == 0


def test_why_a_program_cannot_be_run_is_a_sentence(tmp_path: Path) -> None:
    executable(tmp_path / "closed", "#!/bin/sh\n", 0o644)
    executable(tmp_path / "stray", "#!/no/such/interpreter\n")
    executable(tmp_path / "text", "no program\n")
    env = {"PATH": str(tmp_path)}
    assert refusal(argv=["no-such"], env=env) == "the program no-such was not found in the job's PATH"
    assert refusal(argv=["/no/such"]) == "the program /no/such does not exist"
    assert refusal(argv=["/etc/passwd/x"]) == "the program /etc/passwd/x does not exist"
    assert refusal(argv=["closed"], env=env) == f"no permission to run {tmp_path}/closed"
    assert refusal(argv=[str(tmp_path)]) == f"{tmp_path} is a directory, not a program"
    assert refusal(argv=["stray"], env=env) == (
        f"{tmp_path}/stray cannot be run: the interpreter that its first line names does not exist"
    )
    assert refusal(argv=["text"], env=env) == (
        f"{tmp_path}/text is not a program that this machine can run (a script needs a first line like #!/bin/sh)"
    )
    assert refusal(argv=["/bin/true", "x" * 200_000]) == (
        "/bin/true cannot be run: its arguments and environment are too large"
    )
    assert refusal(argv=["tr\0ue"]).startswith("'tr\\x00ue' cannot be run: ")
    (tmp_path / "round").symlink_to("round")
    assert refusal(argv=["round"], env=env) == (f"{tmp_path}/round cannot be run: {os.strerror(errno.ELOOP)}")


def test_why_a_folder_cannot_be_entered_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    assert refusal(cwd=f"{tmp_path}/none") == f"the working directory {tmp_path}/none does not exist"
    assert refusal(cwd=f"{tmp_path}/file") == f"the working directory {tmp_path}/file is not a directory"
    chdir = os.chdir
    for error, told in (
        (PermissionError(errno.EACCES, "-"), "no permission to enter the working directory /closed"),
        (OSError(errno.EIO, "a broken disk"), "cannot enter the working directory /closed: a broken disk"),
    ):

        def fail(path: str, error: OSError = error) -> None:
            if path == "/closed":
                raise error
            chdir(path)

        with monkeypatch.context() as broken:
            broken.setattr(spawn.os, "chdir", fail)
            assert refusal(cwd="/closed") == told


@pytest.mark.parametrize("number", [errno.EAGAIN, errno.ENOMEM])
def test_a_machine_without_room_for_a_process_is_nobodys_program(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def full(*_: Any, **__: Any) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(spawn.os, "posix_spawn", full)
    with pytest.raises(OSError, match=os.strerror(number)):
        spawn.spawn(spec(), 1)


def test_a_program_in_a_folder_that_may_not_be_seen_is_told_so_unless_another_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stat = os.stat

    def closed(path: Any, *words: Any, **named: Any) -> Any:
        if str(path).startswith("/closed"):
            raise PermissionError(errno.EACCES, "Permission denied")
        return stat(path, *words, **named)

    monkeypatch.setattr(spawn.os, "stat", closed)
    assert refusal(argv=["true"], env={"PATH": "/closed:/none"}) == "no permission to run /closed/true"
    assert run(tmp_path, "true", env={"PATH": "/closed:/usr/bin:/bin"})[0] == 0


# As somebody else.


class Identity:
    """What was asked of the kernel, in its order; `error` is what it says."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, euid: int, error: OSError | None = None) -> None:
        self.asked: list[tuple[Any, ...]] = []
        monkeypatch.setattr(spawn.os, "geteuid", lambda: euid)
        for name in ("initgroups", "setgid", "setuid"):
            monkeypatch.setattr(spawn.os, name, self._note(name, error))

    def _note(self, name: str, error: OSError | None) -> Any:
        def note(*given: Any) -> None:
            self.asked.append((name, *given))
            if error is not None:
                raise error

        return note


def test_a_job_of_another_user_has_that_users_groups_before_it_is_that_user(monkeypatch: pytest.MonkeyPatch) -> None:
    identity = Identity(monkeypatch, 0)
    spawn._take_identity(spec(uid=1000, gid=1001, user="alice"))
    assert identity.asked == [("initgroups", "alice", 1001), ("setgid", 1001), ("setuid", 1000)]
    refused = Identity(monkeypatch, 0, PermissionError(errno.EPERM, "not permitted"))
    with pytest.raises(CannotRun, match="cannot become user alice: not permitted"):
        spawn._take_identity(spec(uid=1000, gid=1001, user="alice"))
    assert len(refused.asked) == 1


def test_without_root_nobody_becomes_another_user(monkeypatch: pytest.MonkeyPatch) -> None:
    identity = Identity(monkeypatch, 1000)
    with pytest.raises(CannotRun, match="cannot run as user alice: gpuq does not run as root"):
        spawn._take_identity(spec(uid=1001, gid=1001, user="alice"))
    with pytest.raises(CannotRun, match="cannot run as user 1001: "):
        spawn._take_identity(spec(uid=1001, gid=1001))
    assert identity.asked == []


def test_a_fork_that_fails_leaves_no_pipe_and_no_signal_blocked(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> int:
        raise OSError(errno.EAGAIN, "no room")

    monkeypatch.setattr(spawn.os, "fork", fail)
    monkeypatch.setattr(spawn.os, "geteuid", lambda: 0)
    blocked: list[tuple[int, ...]] = []
    monkeypatch.setattr(kernel, "block_exactly", lambda signals: blocked.append(tuple(signals)))
    before = os.listdir("/proc/self/fd")
    with pytest.raises(OSError, match="no room"):
        spawn.spawn(spec(uid=12345, gid=12345), 1)
    assert len(os.listdir("/proc/self/fd")) == len(before)
    assert [bool(signals) for signals in blocked] == [True, False]
