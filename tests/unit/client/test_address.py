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
