"""One frozen Settings object: flag > environment > config file > default.

The config file is `$GPUQ_CONFIG` or `~/.config/gpuq/config.toml` (root: `/etc/gpuq/config.toml`), flat TOML
with the names below in lower case without the `GPUQ_` prefix: `lease_ttl = 30`. What a client needs is also taken from
`/etc/gpuq/config.toml` by everybody, last.
"""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, ValidationInfo, field_validator, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from gpuq.config_file import MACHINE_FILE, MACHINE_HOME, MachineFile, config_file, read_config
from gpuq.domain.priority import MAX_TIME_LIMIT_S, Priority
from gpuq.domain.quantities import DURATION_HINT, parse_duration, parse_memory_mb
from gpuq.domain.validation_messages import complaint
from gpuq.environment_variables import from_environment, nearest_setting
from gpuq.errors import ConfigError, UsageError

# May be written as text, `5m`; the description of each shows such an example, and the reference tells them by that.
_DURATIONS = (
    "priority_aging",
    "preempt_min_run",
    "user_spacing",
    "keep_output",
    "keep_history",
    "keep_checkpoints",
    "idle_warn",
)
# Of these `0` and `off` mean that there is none.
_OPTIONAL_DURATIONS = ("priority_aging", "keep_output", "keep_history", "keep_checkpoints", "idle_warn")
# What to write, where the description does not say it.
_HINTS = {
    **dict.fromkeys(_DURATIONS, DURATION_HINT),
    **dict.fromkeys(("lease_ttl", "kill_grace", "retry_base"), "write a number of seconds: 30"),
    "priority_aging": DURATION_HINT + "; 0 is none",
    **dict.fromkeys(("keep_output", "keep_history", "keep_checkpoints"), DURATION_HINT + "; 0 or off is for ever"),
    "max_output": "write 20G, 500M, or 18000 (MiB); 0 is no limit",
    "max_result": "write 64M, 1G, or 64 (MiB); 0 is no limit",
    "dlq_days": "write a number of days: 7",
    "gpus": "write nvml, or sim:4 or sim:4x24G for simulated GPUs",
    "namespace": "write 1 to 64 letters, digits, and _ . -",
    "web_hosts": "write names without scheme and port, commas between: gpubox.example.org,10.0.0.7",
    "node": "write 1 to 64 letters, digits, and _ . -",
}


def default_home() -> Path:
    return Path(MACHINE_HOME) if os.geteuid() == 0 else Path("~/.local/share/gpuq").expanduser()


def _expanded(path: str | Path) -> Path:
    # Of os.path, because Path raises when `~name` is nobody.
    return Path(os.path.expanduser(path)).absolute()  # noqa: PTH111


class Settings(BaseSettings):
    """Every setting, frozen. Raises pydantic's ValidationError for one that is unknown or not valid."""

    model_config = SettingsConfigDict(
        env_prefix="GPUQ_", frozen=True, extra="forbid", env_ignore_empty=True, allow_inf_nan=False
    )

    home: Annotated[Path, Field(description="state: database, logs, attempt folders, sockets")] = Path()
    database_url: Annotated[str, Field(description="sqlite:///… or postgresql+psycopg://…")] = ""
    report_database_url: Annotated[
        str | None,
        Field(description="PostgreSQL: a login that may read the views alone; `/sql` uses it (`gpuq db reporter`)"),
    ] = None
    redis_url: Annotated[
        str | None,
        Field(description="unset: a private redis-server that `gpuq up` starts; or redis://, rediss://, unix://"),
    ] = None
    namespace: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$", description="prefix of every Redis key")] = (
        "gpuq"
    )
    gpus: Annotated[
        str,
        Field(pattern=r"^(nvml|sim:\d{1,4}(x\d+[MG]?)?)$", description="nvml, or sim:4 / sim:4x24G: simulated GPUs"),
    ] = "nvml"
    server: Annotated[
        str, Field(description="where the client finds the daemon: unix://PATH or http(s)://host:port")
    ] = ""
    status_format: Annotated[
        str, Field(description="the columns of `gpuq status`: id,name,state,why (`gpuq status --format help`)")
    ] = ""
    token: Annotated[str | None, Field(description="bearer token for a TCP server")] = None
    ca_file: Annotated[
        str, Field(description="PEM: who signed the certificate of an https server; unset: whom the system trusts")
    ] = ""
    lease_ttl: Annotated[float, Field(ge=1, le=3600, description="seconds; renewed three times in that span")] = 30.0
    kill_grace: Annotated[float, Field(ge=0, le=86400, description="seconds between SIGTERM and SIGKILL")] = 30.0
    default_max_retries: Annotated[int, Field(ge=0, le=1000, description="retries of a job that names none")] = 3
    order: Annotated[Literal["aged", "fifo"], Field(description="order inside a priority")] = "aged"
    priority_aging: Annotated[
        Annotated[float, Field(ge=1, le=MAX_TIME_LIMIT_S)] | None,
        Field(description="waiting that is worth a step of priority (1d); unset or 0: none is"),
    ] = None
    user_spacing: Annotated[
        float,
        Field(ge=0, le=MAX_TIME_LIMIT_S, description="later in line for each waiting job of the same user (1h)"),
    ] = 0.0
    backfill: Annotated[
        Literal["easy", "greedy", "none"],
        Field(description="what starts early: easy (what delays no reservation), greedy (what fits), none"),
    ] = "easy"
    retry_base: Annotated[
        float, Field(gt=0, le=3600, description="seconds; retry n waits base x 2^(n-1), with jitter, at most an hour")
    ] = 2.0
    retry_quick: Annotated[
        bool,
        Field(description="whether a job that names no --retries is retried when it fails within 10 s of its start"),
    ] = False
    node: Annotated[
        str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$", description="this machine's name in leases and history")
    ] = ""
    cpu_jobs: Annotated[
        int, Field(ge=0, le=100_000, description="how many jobs without GPUs may run at once; 0 is no limit")
    ] = 128
    preempt_min_run: Annotated[
        float, Field(ge=0, le=86400, description="how long a preemptible job runs before it may have to yield (5m)")
    ] = 300.0
    preempt_max_per_hour: Annotated[
        int, Field(ge=0, le=3600, description="how often an hour one job may have to yield; then it runs to its end")
    ] = 2
    user_max_gpus: Annotated[int, Field(ge=0, description="GPUs one user may hold at once; 0 is no limit")] = 0
    user_max_running: Annotated[int, Field(ge=0, description="jobs one user may have running; 0 is no limit")] = 0
    user_max_waiting: Annotated[int, Field(ge=0, description="jobs one user may have waiting; 0 is no limit")] = 0
    max_waiting: Annotated[int, Field(ge=0, description="jobs that may wait in all; 0 is no limit")] = 0
    max_waiting_critical: Annotated[int, Field(ge=0, description="of those, of this priority; 0 is no limit")] = 0
    max_waiting_high: Annotated[int, Field(ge=0, description="of those, of this priority; 0 is no limit")] = 0
    max_waiting_normal: Annotated[int, Field(ge=0, description="of those, of this priority; 0 is no limit")] = 0
    max_waiting_low: Annotated[int, Field(ge=0, description="of those, of this priority; 0 is no limit")] = 0
    admins: Annotated[
        str, Field(description="users, commas between, who may act on anybody's jobs (root always may)")
    ] = ""
    max_output: Annotated[
        str, Field(description="output that one attempt may write (18G; a bare number is MiB); 0 is no limit")
    ] = "20G"
    max_result: Annotated[
        str, Field(description="result that one attempt may leave (64M; a bare number is MiB); 0 is no limit")
    ] = "64M"
    user_priority: Annotated[
        Literal["critical", "high", "normal", "low"],
        Field(description="the highest priority that a user who is no administrator may ask for"),
    ] = "high"
    web_hosts: Annotated[
        str,
        Field(
            pattern=r"^[A-Za-z0-9_.:\[\], -]*$",
            description="names, commas between, under which browsers may reach it, beside localhost and the node's own",
        ),
    ] = ""
    max_batch: Annotated[int, Field(ge=1, le=1_000_000, description="jobs in one request")] = 50_000
    idle_warn: Annotated[
        Annotated[float, Field(ge=60, le=MAX_TIME_LIMIT_S)] | None,
        Field(description="how long the GPUs of a job stand still before that is told (30m); 0 or off: never"),
    ] = 1800.0
    dlq_max: Annotated[int, Field(ge=1, description="dead letters kept")] = 1000
    dlq_days: Annotated[float, Field(gt=0, description="days a dead letter is kept")] = 7.0
    keep_output: Annotated[
        Annotated[float, Field(ge=1, le=MAX_TIME_LIMIT_S)] | None,
        Field(description="how long output and folders of a finished job are kept (90d); 0 or off: for ever"),
    ] = 90 * 86400.0
    keep_history: Annotated[
        Annotated[float, Field(ge=1, le=MAX_TIME_LIMIT_S)] | None,
        Field(description="how long the database keeps a finished job with nothing on disk (365d); unset: for ever"),
    ] = None
    keep_checkpoints: Annotated[
        Annotated[float, Field(ge=1, le=MAX_TIME_LIMIT_S)] | None,
        Field(description="how long the checkpoints of a finished job are kept (30d); unset: for ever"),
    ] = None
    env_keep: Annotated[str, Field(description="variables that jobs keep as they are: NAMES,PATTERN_*")] = ""
    env_secret: Annotated[str, Field(description="variables that are secrets, whatever their name: LAB_*,NAME")] = ""
    isolate_gpus: Annotated[
        Literal["on", "off"], Field(description="on: jobs of a root daemon see only their own GPUs' device nodes")
    ] = "on"
    log_level: Annotated[Literal["debug", "info", "warning", "error"], Field(description="the daemon's log")] = "info"

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        # The config file and the flags are merged by `load`, which also knows where each value came from.
        return (init_settings,)

    @field_validator(*_DURATIONS, mode="before")
    @classmethod
    def _duration(cls, value: object, info: ValidationInfo) -> object:
        try:
            off = info.field_name in _OPTIONAL_DURATIONS and isinstance(value, str) and value.strip().lower() == "off"
            seconds = 0 if off else parse_duration(value) if isinstance(value, str) else value
        except UsageError as error:
            raise ValueError(error.message) from None
        off = info.field_name in _OPTIONAL_DURATIONS and seconds == 0 and not isinstance(seconds, bool)
        return None if off else seconds

    @field_validator("max_output", "max_result", mode="before")
    @classmethod
    def _size(cls, value: object) -> object:
        if isinstance(value, bool) or not isinstance(value, int | str):
            return value
        text = str(value).strip()
        try:
            if not text.strip("0"):
                return "0"
            parse_memory_mb(text)
        except UsageError as error:
            raise ValueError(error.message) from None
        return text

    @field_validator("home", mode="before")
    @classmethod
    def _expand(cls, value: object) -> object:
        return _expanded(value) if isinstance(value, str | Path) and str(value) else value

    @model_validator(mode="before")
    @classmethod
    def _derived(cls, data: dict[str, Any]) -> dict[str, Any]:
        data = {key: value for key, value in data.items() if value not in (None, "")}
        given = data.setdefault("home", default_home())
        # Of anything else the field itself complains.
        home = _expanded(given) if isinstance(given, str | Path) else default_home()
        data.setdefault("database_url", f"sqlite:///{home / 'gpuq.db'}")
        data.setdefault("server", f"unix://{home / 'gpuq.sock'}")
        data.setdefault("node", platform.node() or "localhost")
        return data

    @model_validator(mode="after")
    def _urls(self) -> Self:
        if not self.database_url.startswith(("sqlite:///", "postgresql+psycopg://")):
            raise ValueError("database_url: starts with sqlite:/// or postgresql+psycopg://")
        if self.report_database_url and not self.report_database_url.startswith("postgresql+psycopg://"):
            raise ValueError("report_database_url: starts with postgresql+psycopg://")
        if self.redis_url and not self.redis_url.startswith(("redis://", "rediss://", "unix://")):
            raise ValueError("redis_url: starts with redis://, rediss:// or unix://")
        if not self.server.startswith(("unix://", "http://", "https://")):
            raise ValueError("server: starts with unix://, http:// or https://")
        return self

    @property
    def admin_users(self) -> frozenset[str]:
        return frozenset(name.strip() for name in self.admins.split(",") if name.strip())

    @property
    def web_host_names(self) -> frozenset[str]:
        return frozenset(name.strip() for name in self.web_hosts.split(",") if name.strip())

    @property
    def max_output_bytes(self) -> int | None:
        """None: no limit."""
        return None if self.max_output == "0" else parse_memory_mb(self.max_output) * 2**20

    @property
    def max_result_bytes(self) -> int:
        """0: no limit."""
        return 0 if self.max_result == "0" else parse_memory_mb(self.max_result) * 2**20

    @property
    def highest_user_priority(self) -> Priority:
        return Priority[self.user_priority.upper()]

    @property
    def socket_path(self) -> Path:
        return self.home / "gpuq.sock"


def load(flags: dict[str, Any] | None = None) -> tuple[Settings, dict[str, str]]:
    """The settings, and for each its source: `flag`, `environment`, the config file's path, or `default`.

    Raises ConfigError for an unknown key (naming the nearest known one) or a bad value.
    """
    known = list(Settings.model_fields)
    path = config_file()
    config = read_config(path)
    for name in config:
        if name not in known:
            raise ConfigError(f"unknown setting {name!r} in {path}", hint=nearest_setting(name, known))
    environment = from_environment(known)
    given = {key: value for key, value in (flags or {}).items() if value is not None}
    machine = MachineFile().shared
    merged = {**machine, **config, **environment, **given}
    origins = ((given, "flag"), (environment, "environment"), (config, path), (machine, MACHINE_FILE))
    sources = {name: next((told for found, told in origins if name in found), "default") for name in known}
    try:
        return Settings(**merged), sources
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = ".".join(str(part) for part in first["loc"])
        message = complaint(first)
        if not name:
            # A check of the whole begins with the name itself.
            raise ConfigError(f"bad setting: {message}", hint=_hint(message.partition(":")[0])) from None
        if first["type"] in {"finite_number", "string_pattern_mismatch"}:
            what = "a number" if first["type"] == "finite_number" else "possible here"
            message = f"{merged[name]!r} is not {what}"
        where = f" (from {sources[name]})" if name in sources else ""
        raise ConfigError(f"bad setting {name}{where}: {message}", hint=_hint(name)) from None


def _hint(name: str) -> str | None:
    if name in _HINTS:
        return _HINTS[name]
    field = Settings.model_fields.get(name)
    return f"{name} is: {field.description}" if field is not None and field.description else None
