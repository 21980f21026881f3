from __future__ import annotations

import re
from pathlib import Path

import pytest

from gpuq.errors import ConfigError
from gpuq.settings import Settings, load


@pytest.fixture(autouse=True)
def _home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GPUQ_HOME", str(tmp_path / "home"))


def config(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str) -> None:
    path = tmp_path / "config.toml"
    path.write_text(text)
    monkeypatch.setenv("GPUQ_CONFIG", str(path))


def test_flag_beats_environment_beats_file_beats_default(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    config(monkeypatch, tmp_path, "lease_ttl = 11\nkill_grace = 12\nretry_base = 13\n")
    monkeypatch.setenv("GPUQ_KILL_GRACE", "22")
    monkeypatch.setenv("GPUQ_RETRY_BASE", "23")
    settings, sources = load({"retry_base": 33})
    assert (settings.lease_ttl, settings.kill_grace, settings.retry_base, settings.order) == (11, 22, 33, "aged")
    assert sources["lease_ttl"].endswith("config.toml")
    assert (sources["kill_grace"], sources["retry_base"], sources["order"]) == ("environment", "flag", "default")


def test_paths_follow_the_home(tmp_path: Path) -> None:
    settings, _ = load()
    assert settings.database_url == f"sqlite:///{tmp_path}/home/gpuq.db"
    assert settings.server == f"unix://{tmp_path}/home/gpuq.sock"


def test_an_unknown_key_names_the_nearest(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    config(monkeypatch, tmp_path, "lease_tll = 5\n")
    with pytest.raises(ConfigError, match="lease_tll") as caught:
        load()
    assert "lease_ttl" in (caught.value.hint or "")


def test_a_typo_in_the_environment_is_refused_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPUQ_LEASE_TLL", "5")
    with pytest.raises(ConfigError, match="GPUQ_LEASE_TLL"):
        load()


@pytest.mark.parametrize(
    ("name", "value"),
    [("GPUQ_LEASE_TTL", "soon"), ("GPUQ_GPUS", "sim"), ("GPUQ_GPUS", "sim:x"), ("GPUQ_ORDER", "random"),
     ("GPUQ_REDIS_URL", "http://x"), ("GPUQ_DATABASE_URL", "mysql://x"), ("GPUQ_NAMESPACE", "a b"),
     ("GPUQ_PRIORITY_AGING", "often"), ("GPUQ_PRIORITY_AGING", "0.5")],
)  # fmt: skip
def test_bad_values_name_the_setting_and_its_source(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=name.removeprefix("GPUQ_").lower()):
        load()


@pytest.mark.parametrize(
    ("name", "value", "message", "hint"),
    [("GPUQ_USER_SPACING", "foo", "bad duration 'foo'", "write 90s, 15m, 2h"),
     ("GPUQ_GPUS", "foo", "'foo' is not possible", "write nvml, or sim:4 or sim:4x24G"),
     ("GPUQ_LEASE_TTL", "nan", "'nan' is not a number", "a number of seconds"),
     ("GPUQ_LEASE_TTL", "inf", "'inf' is not a number", "a number of seconds"),
     ("GPUQ_PRIORITY_AGING", "0.5", "at least 1", "0 is none"),
     ("GPUQ_DATABASE_URL", "mysql://x", "database_url", "sqlite:///"),
     ("GPUQ_MAX_WAITING", "many", "must be a whole number", "0 is no limit")],
)  # fmt: skip
def test_bad_value_says_what_to_write(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, message: str, hint: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=message) as caught:
        load()
    assert hint in (caught.value.hint or "")


@pytest.mark.parametrize("value", ["0", "0s", "0.0"])
def test_nought_turns_ageing_off_as_it_does_spacing(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("GPUQ_PRIORITY_AGING", value)
    monkeypatch.setenv("GPUQ_USER_SPACING", value)
    settings = load()[0]
    assert (settings.priority_aging, settings.user_spacing) == (None, 0.0)


def test_what_may_be_written_as_a_duration_shows_an_example_and_nothing_else_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, field in Settings.model_fields.items():
        if "float" not in str(field.annotation):
            continue
        monkeypatch.setenv(f"GPUQ_{name.upper()}", "2m")
        shown = re.search(r"\(\d+[smhd]\)", field.description or "") is not None
        try:
            taken = getattr(load()[0], name) == 120.0
        except ConfigError:
            taken = False
        monkeypatch.delenv(f"GPUQ_{name.upper()}")
        assert taken is shown, name


def test_a_broken_file_is_one_clear_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    config(monkeypatch, tmp_path, "lease_ttl = = 5")
    with pytest.raises(ConfigError, match="not valid TOML"):
        load()


def test_inside_a_job_the_jobs_gpu_list_is_not_the_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPUQ_JOB_ID", "7")
    monkeypatch.setenv("GPUQ_GPUS", "0,1")
    assert load()[0].gpus == "nvml"


def test_ageing_is_a_duration_and_off_unless_set(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load()[0].priority_aging is None
    monkeypatch.setenv("GPUQ_PRIORITY_AGING", "1d")
    assert load()[0].priority_aging == 86400
    monkeypatch.setenv("GPUQ_PRIORITY_AGING", "3600")
    assert load()[0].priority_aging == 3600


@pytest.mark.parametrize(
    ("value", "most"), [("18G", 18 * 2**30), ("18000", 18000 * 2**20), ("0", None), ("000", None), (" 1T ", 2**40)]
)
def test_the_limit_of_output_is_written_as_memory_is(
    monkeypatch: pytest.MonkeyPatch, value: str, most: int | None
) -> None:
    monkeypatch.setenv("GPUQ_MAX_OUTPUT", value)
    assert load()[0].max_output_bytes == most


def test_gpus_are_isolated_unless_it_is_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load()[0].isolate_gpus == "on"
    monkeypatch.setenv("GPUQ_ISOLATE_GPUS", "off")
    assert load()[0].isolate_gpus == "off"
    monkeypatch.setenv("GPUQ_ISOLATE_GPUS", "maybe")
    with pytest.raises(ConfigError, match="isolate_gpus"):
        load()


def test_what_is_kept_for_ever_unless_told_otherwise_is_not_removed_by_a_nought(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    names = ("keep_output", "keep_history", "keep_checkpoints")
    default = load()[0]
    assert [getattr(default, name) for name in names] == [90 * 86400, None, None]
    for name in names:
        for text, seconds in (("off", None), ("0", None), ("OFF ", None), ("12h", 43200), ("90d", 90 * 86400)):
            monkeypatch.setenv(f"GPUQ_{name.upper()}", text)
            assert getattr(load()[0], name) == seconds
        for bad in ("0.5", "never", "-1d", "1000000d"):
            monkeypatch.setenv(f"GPUQ_{name.upper()}", bad)
            with pytest.raises(ConfigError, match=name):
                load()
        monkeypatch.delenv(f"GPUQ_{name.upper()}")


@pytest.mark.parametrize(("value", "most"), [("0", 0), ("2G", 2 * 1024**3), ("64", 64 * 1024**2)])
def test_the_size_of_results_is_limited(monkeypatch: pytest.MonkeyPatch, value: str, most: int) -> None:
    assert Settings().max_result_bytes == 64 * 1024**2
    monkeypatch.setenv("GPUQ_MAX_RESULT", value)
    assert load()[0].max_result_bytes == most
