from __future__ import annotations

import pytest

from gpuq.client.environment import collect, looks_secret


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


def test_what_is_left_out_is_named_in_order() -> None:
    env, secrets, no_text = collect({"B_TOKEN": "1", "A_SECRET": "2", "PATH": "/bin"})
    assert (env, secrets, no_text) == ({"PATH": "/bin"}, ["A_SECRET", "B_TOKEN"], [])


def test_what_is_not_utf_8_is_told_apart_from_secrets_and_cannot_be_kept() -> None:
    found = collect({"A_TOKEN": "1", "PLACE": "d\udcff", "PWD": "/d\udcff", "B_KEY": "\udcff"}, keep=["PLACE"])
    assert found == ({}, ["A_TOKEN"], ["B_KEY", "PLACE"])


def test_kept_names_are_kept_even_our_own() -> None:
    found = collect({"B_TOKEN": "1", "GPUQ_HOME": "/q"}, keep=["B_TOKEN", "GPUQ_HOME"])
    assert found == ({"B_TOKEN": "1", "GPUQ_HOME": "/q"}, [], [])


def test_settings_and_the_shells_own_never_go_along() -> None:
    found = collect({"GPUQ_TOKEN": "1", "GPUQ_ATTEMPT": "2", "OLDPWD": "/", "SHLVL": "3"}, everything=True)
    assert found == ({}, [], [])
