"""Whatever GPUQ_CONFIG names, the complaint is one clear line, and it comes soon; for commands and for the daemon."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gpuq.client import address
from gpuq.errors import ConfigError
from gpuq.settings import load


@pytest.fixture
def config(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    path = tmp_path / "config.toml"
    monkeypatch.setenv("GPUQ_CONFIG", str(path))
    return path


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"x = " + b"[" * 20_000 + b"]" * 20_000, "nested too deep"),
        (b"lease_ttl = " + b"1" * 6000, "too many digits"),
        (b"\xff\xfe", "not valid TOML"),
        (b'home = "a\\u0000b"', "NUL character"),
        (b"#" * 1_100_000, "longer than 1 MiB"),
    ],
)
def test_a_file_that_cannot_be_read_is_named_with_the_reason(config: Path, content: bytes, told: str) -> None:
    config.write_bytes(content)
    for read in (load, address.find):
        with pytest.raises(ConfigError, match=told) as refusal:
            read()
        assert str(config) in refusal.value.message
        assert refusal.value.hint


def test_what_has_no_end_or_nobody_writes_to_is_not_waited_for(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(config)
    for path in (str(config), "/dev/zero"):
        monkeypatch.setenv("GPUQ_CONFIG", path)
        for read in (load, address.find):
            with pytest.raises(ConfigError, match="no regular file"):
                read()
    monkeypatch.setenv("GPUQ_CONFIG", os.devnull)
    assert address.find().token is None


@pytest.mark.parametrize("token", ["a\r\nX-User: root", "日本", "two words", "\x7f"])
def test_a_token_that_cannot_stand_in_a_header_is_refused_and_not_shown(
    monkeypatch: pytest.MonkeyPatch, token: str
) -> None:
    with pytest.raises(ConfigError, match="GPUQ_TOKEN") as refusal:
        address.find(token=token)
    assert token not in refusal.value.message


@pytest.mark.parametrize("line", ["home = 5", "home = [1]", 'max_output = "1' + "0" * 400 + 'T"'])
def test_a_value_of_the_wrong_kind_is_refused(config: Path, line: str) -> None:
    config.write_text(line)
    with pytest.raises(ConfigError, match="bad setting"):
        load()


def test_a_home_of_a_user_who_does_not_exist_is_a_path_like_another(config: Path) -> None:
    config.write_text('home = "~nobody-of-that-name/x"')
    assert load()[0].home == Path("~nobody-of-that-name/x").absolute()
