from __future__ import annotations

import pytest

from gpuq.client.environment import Rules, collect, looks_secret, matches


@pytest.mark.parametrize(
    "name",
    [
        "HF_TOKEN", "GITHUB_TOKEN", "GHTOKEN", "token", "AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID",
        "AWS_SESSION_TOKEN", "WANDB_API_KEY", "OPENAI_APIKEY", "PGPASSWORD", "MYSQL_PWD", "DB_PASS", "SSH_PASSPHRASE",
        "GOOGLE_APPLICATION_CREDENTIALS", "SSH_PRIVATE_KEY", "SIGNING_KEY", "DJANGO_SECRET", "my_password",
        "SESSION_COOKIE", "GITLAB_TOKEN_2",
    ],
)  # fmt: skip
def test_names_of_secrets(name: str) -> None:
    assert looks_secret(name)


@pytest.mark.parametrize(
    "name",
    [
        "PATH", "HOME", "PWD", "TOKENIZERS_PARALLELISM", "MAX_TOKENS", "XDG_SESSION_ID", "DBUS_SESSION_BUS_ADDRESS",
        "SSH_AUTH_SOCK", "KEYBOARD", "CUDA_VISIBLE_DEVICES", "PYTHONPATH", "LC_ALL", "MONKEY",
    ],
)  # fmt: skip
def test_names_of_nothing_secret(name: str) -> None:
    assert not looks_secret(name)


def test_what_looks_like_a_secret_is_told_apart() -> None:
    env, secrets, no_text = collect(environ={"B_TOKEN": "1", "A_SECRET": "2", "PATH": "/bin"})
    assert (env, secrets, no_text) == ({"PATH": "/bin"}, {"A_SECRET": "2", "B_TOKEN": "1"}, [])


def test_what_is_not_utf_8_is_told_apart_from_secrets_and_cannot_be_kept() -> None:
    environ = {"A_TOKEN": "1", "PLACE": "d\udcff", "PWD": "/d\udcff", "B_KEY": "\udcff"}
    assert collect(Rules(keep=["PLACE"]), environ) == ({}, {"A_TOKEN": "1"}, ["B_KEY", "PLACE"])


def test_kept_names_are_kept_as_they_are_even_our_own() -> None:
    found = collect(Rules(keep=["B_TOKEN", "GPUQ_HOME"]), {"B_TOKEN": "1", "GPUQ_HOME": "/q"})
    assert found == ({"B_TOKEN": "1", "GPUQ_HOME": "/q"}, {}, [])


def test_settings_and_the_shells_own_never_go_along() -> None:
    environ = {"GPUQ_TOKEN": "1", "GPUQ_ATTEMPT": "2", "OLDPWD": "/", "SHLVL": "3", "GPUQ_ENV_KEEP": "*"}
    assert collect(Rules(everything=True), environ) == ({}, {}, [])


def test_the_installation_says_what_is_a_secret_and_what_is_none() -> None:
    rules = Rules(site_keep=["CACHE_*"], site_secret=["LAB_*", "CACHE_KEY"])
    environ = {"CACHE_KEY": "1", "LAB_ID": "2", "B_TOKEN": "3"}
    assert collect(rules, environ) == ({"CACHE_KEY": "1"}, {"LAB_ID": "2", "B_TOKEN": "3"}, [])


def test_dropped_names_and_patterns_stay_behind_whatever_the_installation_keeps() -> None:
    environ = {"CI_JOB": "1", "CI_TOKEN": "2", "HF_TOKEN": "3", "X": "4"}
    rules = Rules(drop=["CI_*", "X"], site_keep=["CI_JOB"])
    assert collect(rules, environ) == ({}, {"HF_TOKEN": "3"}, [])


def test_of_no_environment_the_least_goes_along_and_what_is_kept() -> None:
    environ = {name: name for name in ("HOME", "USER", "PATH", "LANG", "PWD", "SHELL", "A_TOKEN", "MODULE_X", "MINE")}
    found = collect(Rules(none=True, keep=["MINE"], site_keep=["MODULE_*"]), environ)
    assert found == ({name: name for name in ("HOME", "USER", "PATH", "LANG", "MODULE_X", "MINE")}, {}, [])
    assert collect(Rules(none=True, least=()), environ) == ({}, {}, [])


@pytest.mark.parametrize(
    ("name", "patterns", "fits"),
    [
        ("A", ["A"], True), ("AB", ["A"], False), ("AB", ["A*"], True), ("ab", ["A*"], False),
        ("A_1", ["A_[0-9]"], True),
        ("A", ["?"], True), ("A", [], False), ("A*", ["A*"], True), ("X", ["["], False),
    ],
)  # fmt: skip
def test_patterns_are_those_of_a_shell(name: str, patterns: list[str], fits: bool) -> None:
    assert matches(name, patterns) is fits
