"""The config file: where it is, and what stands in it. Standard library only, because every command reads it."""

from __future__ import annotations

import os
import stat

from gpuq.errors import ConfigError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# Settings are a few lines; whatever is longer is another file.
MAX_BYTES = 1024 * 1024

# The machine's own places, of which only root makes anything. Tests put others in their stead.
MACHINE_FILE = "/etc/gpuq/config.toml"
MACHINE_HOME = "/var/lib/gpuq"
MACHINE_SOCKET = "/run/gpuq/gpuq.sock"
# What everybody takes from the machine's config file. All else in it is for root's daemon, and means nothing to a
# daemon of a user's own.
SHARED = ("server", "token", "ca_file", "status_format", "env_keep", "env_secret")


def config_file() -> str:
    """The config file's path, whether it is there or not: GPUQ_CONFIG, else that of the machine for root, else the
    user's."""
    if named := os.environ.get("GPUQ_CONFIG"):
        return os.path.expanduser(named)
    return MACHINE_FILE if os.geteuid() == 0 else os.path.expanduser("~/.config/gpuq/config.toml")


def one_installation() -> bool:
    """Whether GPUQ_HOME or GPUQ_CONFIG names the installation that is meant: the machine's is not looked for then."""
    return bool(os.environ.get("GPUQ_HOME") or os.environ.get("GPUQ_CONFIG"))


class MachineFile:
    """What the machine's config file says to everybody. `shared`: the settings of SHARED that it has; `home`: where the
    machine's daemon lives; `trouble`: why it could not be read, a sentence for people."""

    __slots__ = ("home", "shared", "trouble")

    def __init__(self) -> None:
        self.shared: dict[str, Any] = {}
        self.home = MACHINE_HOME
        self.trouble: str | None = None
        # Root's own config file is this one.
        if os.geteuid() == 0 or one_installation():
            return
        try:
            found = read_config(MACHINE_FILE)
        except ConfigError as error:
            self.trouble = f"{error.message}: it may name a server, and this goes on without it"
            return
        self.shared = {name: found[name] for name in SHARED if found.get(name)}
        # A token is for the server beside it, and for no other; so is the CA.
        if "server" not in self.shared:
            self.shared.pop("token", None)
            self.shared.pop("ca_file", None)
        home = found.get("home")
        if isinstance(home, str) and os.path.isabs(home):
            self.home = home

    def text(self, name: str) -> str | None:
        """One of the shared settings."""
        return str(self.shared[name]) if name in self.shared else None


def read_config(path: str) -> dict[str, Any]:
    """What stands in it; nothing when there is none, unless GPUQ_CONFIG names it. Raises ConfigError."""
    try:
        text = _text(path)
    except (FileNotFoundError, NotADirectoryError):
        if os.environ.get("GPUQ_CONFIG"):
            raise ConfigError(
                f"GPUQ_CONFIG names {path}, which does not exist", hint="create the file, or unset GPUQ_CONFIG"
            ) from None
        return {}
    except OSError as error:
        raise ConfigError(f"cannot read the config file {path}: {error.strerror}", hint=f"see `ls -l {path}`") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not valid TOML: {error}", hint="a line is `name = value`, in UTF-8") from None
    import tomllib

    try:
        found = tomllib.loads(text)
    except RecursionError:
        raise ConfigError(f"{path} is nested too deep", hint="a line is `name = value`") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is not valid TOML: {error}", hint="a line is `name = value`") from None
    except ValueError:
        raise ConfigError(f"{path} has a number of too many digits", hint="a line is `name = value`") from None
    for name, value in found.items():
        if isinstance(value, str) and "\0" in value:
            raise ConfigError(f"{name} in {path} has a NUL character", hint="no setting can have one")
    return found


def _text(path: str) -> str:
    with open(path, "rb", opener=_without_waiting) as file:
        found = os.fstat(file.fileno())
        # /dev/null is how people say that there is none.
        if not stat.S_ISREG(found.st_mode) and found.st_rdev != os.stat(os.devnull).st_rdev:
            raise ConfigError(f"the config file {path} is no regular file", hint="GPUQ_CONFIG names a TOML file")
        data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise ConfigError(f"the config file {path} is longer than 1 MiB", hint="GPUQ_CONFIG names a TOML file")
    # As a text file is read.
    return data.decode("utf-8").replace("\r\n", "\n")


def _without_waiting(path: str, flags: int) -> int:
    """A FIFO would wait for whoever may write to it some day."""
    return os.open(path, flags | os.O_NONBLOCK)
