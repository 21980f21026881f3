from __future__ import annotations

from pathlib import Path

import pytest

from gpuq.client import address
from gpuq.environment_variables import CLIENT_VARIABLES, JOB_VARIABLES
from gpuq.errors import ConfigError
from gpuq.settings import Settings


@pytest.fixture(autouse=True)
def config(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty config file, and no variable of ours from outside."""
    import os

    for name in list(os.environ):
        if name.startswith("GPUQ_"):
            monkeypatch.delenv(name)
    path = tmp_path / "config.toml"
    path.write_text("")
    monkeypatch.setenv("GPUQ_CONFIG", str(path))
    return path


def test_known_names_are_the_settings_and_the_variables_that_are_none() -> None:
    others = {name.removeprefix("GPUQ_").lower() for name in JOB_VARIABLES | CLIENT_VARIABLES}
    assert set(Settings.model_fields) | others == address.KNOWN


def test_socket_lies_in_the_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPUQ_HOME", "/srv/q")
    found = address.find()
    assert (found.scheme, found.path, found.explicit) == ("unix", "/srv/q/gpuq.sock", False)


def test_environment_goes_before_the_config_file(monkeypatch: pytest.MonkeyPatch, config: Path) -> None:
    config.write_text('home = "/from/file"\nserver = "http://file:1"\ntoken = "t"\n')
    found = address.find()
    assert (found.home, found.host, found.port, found.token, found.explicit) == ("/from/file", "file", 1, "t", True)
    monkeypatch.setenv("GPUQ_SERVER", "https://env:2")
    monkeypatch.setenv("GPUQ_TOKEN", "u")
    found = address.find()
    assert (found.scheme, found.host, found.port, found.token) == ("https", "env", 2, "u")


def test_argument_goes_before_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPUQ_SERVER", "http://env:2")
    assert address.find(server="unix:///run/q").path == "/run/q"


def test_empty_variable_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPUQ_SERVER", "")
    assert not address.find().explicit


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("http://box:8100", "box", 8100),
        ("http://box", "box", 80),
        ("https://box/", "box", 443),
        ("http://[::1]:8100", "::1", 8100),
        ("http://[::1]", "::1", 80),
    ],
)
def test_tcp_addresses(text: str, host: str, port: int) -> None:
    found = address.find(server=text)
    assert (found.host, found.port) == (host, port)


@pytest.mark.parametrize("text", ["box:8100", "ftp://box", "http://", "http://box:port"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="bad server address"):
        address.find(server=text)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine's config file that is there, for a user who has no home with a daemon and no variable of ours."""
    monkeypatch.delenv("GPUQ_CONFIG")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    found = tmp_path / "machine.toml"
    monkeypatch.setattr("gpuq.config_file.MACHINE_FILE", str(found))
    return found


def test_the_machines_file_gives_the_server_and_nothing_of_its_daemons(machine: Path) -> None:
    assert address.find().machine_home == "/var/lib/gpuq"
    machine.write_text('home = "/srv/q"\ngpus = "sim:2"\ntoken = "for-nobody"\n')
    found = address.find()
    assert (found.home.endswith("/.local/share/gpuq"), found.machine_home, found.token) == (True, "/srv/q", None)
    machine.write_text('server = "http://box:1"\ntoken = "t"\n')
    found = address.find()
    assert (found.host, found.token, found.explicit, found.machine_home) == ("box", "t", True, None)


def test_what_a_user_says_goes_before_the_machines_file(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.write_text('server = "http://box:1"\ntoken = "shared"\n')
    monkeypatch.setenv("GPUQ_SERVER", "http://other:1")
    # The shared token is for the server beside it.
    assert (address.find().host, address.find().token) == ("other", None)
    monkeypatch.delenv("GPUQ_SERVER")
    monkeypatch.setenv("GPUQ_TOKEN", "mine")
    assert (address.find().host, address.find().token) == ("box", "mine")
    monkeypatch.setenv("GPUQ_HOME", "/srv/mine")
    found = address.find()
    assert (found.path, found.machine_home) == ("/srv/mine/gpuq.sock", None)


def test_a_machines_file_that_cannot_be_read_is_told_and_stops_nobody(machine: Path) -> None:
    machine.write_text("server = ")
    found = address.find()
    assert found.path.endswith("/.local/share/gpuq/gpuq.sock")
    assert str(machine) in (found.trouble or "")


def test_folders_that_others_could_change_are_no_places_of_the_machines(
    machine: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import os

    looked: list[str] = []
    lstat = os.lstat

    def counted(path: str) -> os.stat_result:
        looked.append(path)
        seen = list(lstat(path))
        seen[4] = 0 if "root" in Path(path).name else 1000
        return os.stat_result(seen)

    monkeypatch.setattr(address, "MACHINE_SOCKET", f"{tmp_path}/roots-run/gpuq.sock")
    machine.write_text(f'home = "{tmp_path}/roots-home"\n')
    monkeypatch.setattr("os.lstat", counted)
    assert address.machine_sockets(address.find()) == []
    for name in ("roots-run", "roots-home"):
        (tmp_path / name).mkdir(mode=0o755)
    looked.clear()
    both = [f"{tmp_path}/roots-run/gpuq.sock", f"{tmp_path}/roots-home/gpuq.sock"]
    assert address.machine_sockets(address.find()) == both
    assert looked == [os.path.dirname(path) for path in both]
    (tmp_path / "roots-run").chmod(0o777)
    assert address.machine_sockets(address.find()) == both[1:]
    (tmp_path / "roots-home").rename(tmp_path / "elsewhere")
    (tmp_path / "roots-home").symlink_to(tmp_path / "elsewhere")
    assert address.machine_sockets(address.find()) == []
