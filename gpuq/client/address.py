"""Where the daemon is, from the settings that concern a client.

`gpuq.settings` costs 300 ms of import (pydantic), so a client reads its three settings itself; it loads the whole
only to report a name that it does not know.
"""

from __future__ import annotations

import os

from gpuq.config_file import MACHINE_HOME, MACHINE_SOCKET, MachineFile, config_file, one_installation, read_config
from gpuq.errors import ConfigError

# Every name after `GPUQ_` that means something to some part of gpuq. A test keeps it equal to the settings.
KNOWN = frozenset(
    (
        "home", "database_url", "redis_url", "namespace", "gpus", "server", "token", "lease_ttl", "kill_grace",
        "status_format", "default_max_retries", "order", "backfill", "retry_base", "node", "cpu_jobs",
        "user_max_gpus", "user_max_running", "user_max_waiting", "max_waiting", "max_waiting_critical",
        "max_waiting_high", "max_waiting_normal", "max_waiting_low", "preempt_min_run", "preempt_max_per_hour",
        "priority_aging", "user_spacing", "admins", "web_hosts", "max_batch", "isolate_gpus",
        "report_database_url", "user_priority", "ca_file", "max_output", "retry_quick", "keep_output",
        "keep_history", "keep_checkpoints", "idle_warn", "max_result", "result_file", "short_result_file",
        "env_keep", "env_secret", "dlq_max", "dlq_days", "log_level", "job_id", "job_name", "attempt",
        "gpu_count", "run_dir", "checkpoint_dir", "array_id", "array_index", "time_limit_end",
        "token_of_attempt", "config", "debug", "faults",
    )
)  # fmt: skip


class Address:
    """`path` for `unix`, `host` and `port` for `http` and `https`. `explicit`: somebody named the server, so
    nothing else may stand in for it. `machine_home`: where the machine's daemon lives, which is asked when none listens
    in the own home; None: it is not looked for. `trouble`: what was wrong with the machine's config file.
    `status_format`: the columns of a listing, if a setting names them; `env_keep`, `env_secret`: names or patterns of
    variables that are always, or never, stored as they are. `ca_file`: who may have signed the certificate of an https
    server; None: whom the system trusts."""

    __slots__ = (
        "ca_file",
        "env_keep",
        "env_secret",
        "explicit",
        "home",
        "host",
        "machine_home",
        "path",
        "port",
        "scheme",
        "status_format",
        "text",
        "token",
        "trouble",
    )

    def __init__(self, home: str, server: str | None, token: str | None, machine_home: str | None = None) -> None:
        self.home = home
        self.machine_home = machine_home
        self.trouble: str | None = None
        self.status_format: str | None = None
        self.env_keep: list[str] = []
        self.env_secret: list[str] = []
        self.ca_file: str | None = None
        self.explicit = server is not None
        self.text = server or f"unix://{home}/gpuq.sock"
        self.token = _usable(token)
        self.path = self.host = ""
        self.port = 0
        self.scheme, separator, rest = self.text.partition("://")
        if not separator or self.scheme not in {"unix", "http", "https"}:
            raise ConfigError(
                f"bad server address {self.text!r}", hint="GPUQ_SERVER is unix://PATH, http://HOST:PORT or https://…"
            )
        if self.scheme == "unix":
            self.path = os.path.expanduser(rest)
            return
        authority = rest.partition("/")[0]
        host, colon, port = authority.rpartition(":")
        if not colon or authority.endswith("]"):
            host, port = authority, "443" if self.scheme == "https" else "80"
        if not host or not (port.isascii() and port.isdigit() and len(port) < 6 and int(port) < 65536):
            raise ConfigError(f"bad server address {self.text!r}", hint="write http://HOST:PORT")
        self.host, self.port = host.strip("[]"), int(port)

    @property
    def in_the_clear(self) -> str | None:
        """Why the token of this address is not safe, a sentence for people; None where nobody can listen."""
        if self.scheme != "http" or not self.token or _is_loopback(self.host):
            return None
        return (
            f"{self.text} is plain HTTP to another machine: whoever listens on the way reads the token and can use it; "
            "put TLS in front of the daemon (https://…), or go through `ssh -L`"
        )


def _is_loopback(host: str) -> bool:
    return host in {"localhost", "::1"} or (host.startswith("127.") and host.replace(".", "").isdigit())


def _usable(token: str | None) -> str | None:
    """Raises ConfigError for what cannot stand in a header, without showing it."""
    if token and not (token.isascii() and token.isprintable() and " " not in token):
        raise ConfigError(
            "GPUQ_TOKEN has characters that no token has: a space, a line's end, or a letter that is not ASCII",
            hint="copy it again from `gpuq token create`",
        )
    return token


def find(server: str | None = None, token: str | None = None) -> Address:
    """Arguments > environment > config file > the machine's config file > default. Raises ConfigError."""
    names = {key[5:].lower() for key in os.environ if key.startswith("GPUQ_")}
    config = read_config(config_file())
    if not names <= KNOWN or not set(config) <= KNOWN:
        _complain()

    def setting(name: str) -> str | None:
        return os.environ.get("GPUQ_" + name.upper()) or (str(config[name]) if config.get(name) else None)

    server, token = server or setting("server"), token or setting("token")
    home = setting("home") or (MACHINE_HOME if os.geteuid() == 0 else "~/.local/share/gpuq")
    home = os.path.abspath(os.path.expanduser(home))
    status_format, ca_file = setting("status_format"), setting("ca_file")
    lists = {name: setting(name) for name in ("env_keep", "env_secret")}
    trouble = machine_home = None
    if not one_installation():
        machine = MachineFile()
        status_format = status_format or machine.text("status_format")
        lists = {name: value or machine.text(name) for name, value in lists.items()}
        if server is None:
            trouble, server = machine.trouble, machine.text("server")
            if server is not None:
                token, ca_file = token or machine.text("token"), ca_file or machine.text("ca_file")
            if server is None:
                # Root's own home is the machine's.
                machine_home = home if os.geteuid() == 0 else machine.home
    found = Address(home, server, token, machine_home)
    found.trouble, found.status_format, found.ca_file = trouble, status_format, ca_file
    found.env_keep, found.env_secret = (_names(lists[name]) for name in ("env_keep", "env_secret"))
    return found


def _names(text: str | None) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()] if text else []


def machine_sockets(address: Address) -> list[str]:
    """Where the machine's daemon may be asked when none listens in the own home: best first, each in a folder that only
    root can change. Empty: this machine has none. One system call for each of two places."""
    if address.machine_home is None:
        return []
    places = (MACHINE_SOCKET, f"{address.machine_home}/gpuq.sock")
    return [path for path in places if path != address.path and _is_roots_alone(os.path.dirname(path))]


def _is_roots_alone(folder: str) -> bool:
    try:
        seen = os.lstat(folder)
    except OSError:
        return False
    # S_ISDIR, without the import.
    return seen.st_mode & 0o170000 == 0o040000 and seen.st_uid == 0 and not seen.st_mode & 0o022


def _complain() -> None:
    """Raises ConfigError, naming the nearest known setting, when the full reading of the settings does; a
    variable that only shares the prefix is none of our business."""
    from gpuq.settings import load

    load()
