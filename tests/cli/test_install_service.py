"""`gpuq install-service`: what it writes, what it leaves alone, and whom it refuses."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from gpuq.cli.__main__ import main
from gpuq.cli.commands import service
from gpuq.cli.commands.service_unit import quoted, unit
from gpuq.errors import UsageError

Install = Callable[..., tuple[int, str, str]]


@pytest.fixture
def unit_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the machine's unit goes in this test; nothing of the machine itself is touched."""
    path = tmp_path / "etc" / "systemd" / "system" / "gpuq.service"
    monkeypatch.setattr(service, "SYSTEM_UNIT", str(path))
    return path


@pytest.fixture
def install(
    tmp_path: Path, unit_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Install:
    for name in [name for name in os.environ if name.startswith("GPUQ_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(service, "others_may_change", lambda path: None)

    def call(*words: str) -> tuple[int, str, str]:
        code = main(["install-service", *words])
        said = capsys.readouterr()
        return code, said.out, said.err

    return call


def lines(text: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in text.splitlines() if "=" in line and not line.startswith("#"))


def test_the_machines_unit_runs_this_very_gpuq_and_lets_jobs_outlive_it(install: Install, unit_file: Path) -> None:
    code, out, err = install()
    assert (code, out) == (0, "")
    found = lines(unit_file.read_text())
    assert found["ExecStart"] == f"{Path(sys.executable).parent / 'gpuq'} up"
    kept = {"Type": "notify", "KillMode": "process", "Delegate": "yes", "Restart": "always", "OOMPolicy": "continue"}
    assert found.items() >= kept.items()
    assert (found["RequiresMountsFor"], found["WantedBy"]) == ("/var/lib/gpuq", "multi-user.target")
    # What jobs would inherit, to their harm.
    for setting in ("PrivateTmp", "ProtectHome", "ProtectSystem", "NoNewPrivileges", "MemoryMax", "User"):
        assert setting not in found
    assert unit_file.stat().st_mode & 0o777 == 0o644
    assert [path.name for path in unit_file.parent.iterdir()] == ["gpuq.service"]
    assert "systemctl daemon-reload" in err
    assert "systemctl enable --now gpuq" in err


def test_a_users_unit_is_the_users_own_and_says_that_it_has_to_linger(
    install: Install, unit_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: tmp_path.stat().st_uid)
    monkeypatch.setenv("GPUQ_HOME", str(tmp_path / "the queue"))
    code, _, err = install("--user")
    assert code == 0
    found = lines((tmp_path / ".config/systemd/user/gpuq.service").read_text())
    assert found["WantedBy"] == "default.target"
    assert found["Environment"] == f'"GPUQ_HOME={tmp_path}/the queue"'
    assert found["RequiresMountsFor"] == f'"{tmp_path}/the queue"'
    assert "LimitMEMLOCK" not in found
    assert not unit_file.exists()
    assert "systemctl --user enable --now gpuq" in err
    assert "loginctl enable-linger" in err


def test_a_unit_that_differs_is_replaced_only_by_force(install: Install, unit_file: Path) -> None:
    unit_file.parent.mkdir(parents=True)
    unit_file.write_text("[Service]\nExecStart=/opt/mine\n")
    code, _, err = install()
    assert code == 4
    assert "--force replaces it" in err
    assert unit_file.read_text() == "[Service]\nExecStart=/opt/mine\n"
    assert install("--force")[0] == 0
    made = unit_file.read_text()
    assert "gpuq up" in made
    before = unit_file.stat().st_ino
    assert "as it should be" in install()[2]
    assert (unit_file.read_text(), unit_file.stat().st_ino) == (made, before)


def test_a_link_in_its_place_is_not_followed(install: Install, unit_file: Path, tmp_path: Path) -> None:
    target = tmp_path / "precious"
    target.write_text("keep me")
    unit_file.parent.mkdir(parents=True)
    unit_file.symlink_to(target)
    assert install()[0] == 4
    assert install("--force")[0] == 0
    assert target.read_text() == "keep me"
    assert not unit_file.is_symlink()


def test_printed_it_is_the_unit_alone_and_nothing_is_written(
    install: Install, unit_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, printed, err = install("--print")
    assert (code, err) == (0, "")
    assert not unit_file.parent.exists()
    # Anybody may look at what root would install, with the home of the machine.
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    assert install("--print")[1] == printed
    install_it = install()
    assert install_it[0] == 4
    assert "--user makes one of your own" in install_it[2]
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    install()
    assert unit_file.read_text() == printed


def test_settings_of_the_shell_that_the_service_will_not_see_are_named(
    install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GPUQ_GPUS", "sim:4")
    monkeypatch.setenv("GPUQ_TOKEN", "secret")
    _, _, err = install()
    assert "GPUQ_GPUS; put that into /etc/gpuq/config.toml" in err
    assert "TOKEN" not in err


def test_a_service_that_could_not_read_its_settings_is_not_installed(
    install: Install, unit_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GPUQ_ORDER", "nonsense")
    code, _, err = install()
    assert code == 2
    assert "order" in err
    assert not unit_file.exists()


def test_without_the_right_to_write_it_says_where(install: Install, unit_file: Path) -> None:
    unit_file.parent.parent.mkdir(parents=True)
    unit_file.parent.write_text("a file in the place of the folder")
    code, _, err = install()
    assert code == 1
    assert f"cannot write {unit_file}" in err
    assert "Traceback" not in err


def test_a_users_unit_is_not_written_into_another_users_home(
    install: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: tmp_path.stat().st_uid + 1)
    code, _, err = install("--user")
    assert code == 4
    assert "without sudo" in err
    assert not (tmp_path / ".config").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="gives a folder to another user, which takes root")
def test_root_does_not_install_a_gpuq_that_others_may_change(
    install: Install, unit_file: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    program = tmp_path / "venv" / "bin" / "gpuq"
    program.parent.mkdir(parents=True)
    program.write_text("")
    monkeypatch.undo()
    assert service.others_may_change("/usr/bin/env") is None
    os.chown(tmp_path / "venv", pwd.getpwnam("daemon").pw_uid, 0)
    assert service.others_may_change(str(program)) == str(tmp_path / "venv")
    os.chown(tmp_path / "venv", 0, 0)
    (tmp_path / "venv").chmod(0o777)
    assert service.others_may_change(str(program)) == str(tmp_path / "venv")
    (tmp_path / "link").symlink_to(program)
    assert service.others_may_change(str(tmp_path / "link")) == str(tmp_path / "venv")


def test_a_gpuq_that_others_may_change_is_refused_unless_it_is_meant(
    install: Install, unit_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "others_may_change", lambda path: "/home/alice")
    code, _, err = install()
    assert code == 4
    assert "others than root may change /home/alice" in err
    assert not unit_file.exists()
    assert install("--force")[0] == 0


@pytest.mark.parametrize("word", ["a'b", 'a"b', "a\\b", "a$b", "a\nb", "a\udcffb"])
def test_what_systemd_would_read_otherwise_is_refused(word: str) -> None:
    with pytest.raises(UsageError, match="cannot stand in a unit"):
        quoted(f"/srv/{word}")


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
@pytest.mark.parametrize("user", [False, True])
def test_systemd_finds_nothing_wrong_with_it(tmp_path: Path, user: bool) -> None:
    program = tmp_path / "a 100% odd place" / "gpuq"
    program.parent.mkdir()
    program.touch(mode=0o755)
    path = tmp_path / "gpuq.service"
    path.write_text(unit([str(program), "up"], f"{tmp_path}/my queue", user=user, variables={"GPUQ_HOME": "/a b"}))
    command = ["systemd-analyze", *(["--user"] if user else []), "verify", str(path)]
    env = {**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    # It only warns of a setting that it does not know.
    assert (done.returncode, [line for line in done.stderr.splitlines() if "gpuq" in line]) == (0, [])
