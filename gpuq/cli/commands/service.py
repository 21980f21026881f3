"""`gpuq install-service`: gpuq as a service of systemd, of the machine's or of a user's own."""

from __future__ import annotations

import os
import stat
import sys

from gpuq.cli.commands.service_unit import unit
from gpuq.cli.connect import say
from gpuq.cli.parse.options import Args
from gpuq.errors import ConfigError, Forbidden, GpuqError, Refused

# Tests put another one in its stead.
SYSTEM_UNIT = "/etc/systemd/system/gpuq.service"
USER_UNIT = ".config/systemd/user/gpuq.service"
# What says which installation is meant, and so has to stand in the unit as well.
_WHICH = ("GPUQ_HOME", "GPUQ_CONFIG")


def install(args: Args) -> int:
    """Writes the unit and says what to run next; `--print`: only shows it."""
    user, force = args.flag("user"), args.flag("force")
    command = [*_this_gpuq(), "up"]
    text = unit(command, _home(user), user=user, variables=_variables())
    if args.flag("print"):
        sys.stdout.write(text)
        return 0
    path = _place(user)
    if not user and not force:
        _refuse_what_others_may_change(command[0])
    left = _left_out()
    if _read(path) == text:
        say(f"gpuq: {path} is there already, as it should be")
    else:
        if os.path.lexists(path) and not force:
            show = "gpuq install-service --user --print" if user else "gpuq install-service --print"
            raise Refused(
                f"{path} is there and differs",
                hint=f"`{show} | diff {path} -` shows how, --force replaces it; lines of your own belong into a drop-in"
                f" (`systemctl {'--user ' if user else ''}edit gpuq`)",
            )
        _write(path, text)
        say(f"gpuq: wrote {path}")
    if left:
        from gpuq.config_file import config_file

        say(f"gpuq: set here and not for the service: {', '.join(left)}; put that into {config_file()}")
    _tell_next(user)
    return 0


def _this_gpuq() -> list[str]:
    """The program beside the interpreter that runs this, which is that of its virtual environment."""
    program = os.path.join(os.path.dirname(os.path.abspath(sys.executable)), "gpuq")
    # Installed in another way (`pip install --user`) it is elsewhere, and the interpreter finds the package.
    return [program] if os.access(program, os.X_OK) else [os.path.abspath(sys.executable), "-P", "-m", "gpuq.cli"]


def _home(user: bool) -> str:
    """Of the installation that the service will run."""
    from gpuq.client.address import find
    from gpuq.config_file import MachineFile, one_installation

    if not user and os.geteuid() != 0 and not one_installation():
        # Somebody else looks at what root would install.
        return MachineFile().home
    return find().home


def _variables() -> dict[str, str]:
    found = {name: os.environ[name] for name in _WHICH if os.environ.get(name)}
    return {name: os.path.abspath(os.path.expanduser(value)) for name, value in found.items()}


def _place(user: bool) -> str:
    """Where the unit goes. Raises Forbidden without the right to put one there."""
    if user:
        home = os.path.expanduser("~")
        try:
            mine = os.stat(home).st_uid == os.geteuid()
        except OSError as error:
            raise ConfigError(f"HOME is {home}: {error.strerror}", hint="set HOME to your own folder") from None
        if not mine:
            # Under sudo HOME may still be the caller's.
            raise Forbidden(f"{home} is not yours", hint="run it as the user whose service it is to be, without sudo")
        return os.path.join(home, USER_UNIT)
    if os.geteuid() != 0:
        raise Forbidden(
            "a service of the whole machine is installed by root",
            hint="`sudo gpuq install-service`; --user makes one of your own; --print only shows it",
        )
    return SYSTEM_UNIT


def _refuse_what_others_may_change(program: str) -> None:
    """Root would run, at every start of the machine, what they put there. Raises Refused."""
    import gpuq

    for path in (program, sys.executable, os.path.dirname(os.path.abspath(gpuq.__file__))):
        found = others_may_change(path)
        if found is not None:
            raise Refused(
                f"others than root may change {found}, and so what the service would run as root",
                hint="install gpuq where only root writes: `python3 -m venv /opt/gpuq`; or --force, if that is meant",
            )


def others_may_change(path: str) -> str | None:
    """The first of the path and the folders above it, symbolic links included, that another user than root may
    replace or write to; None: only root may."""
    for whole in {os.path.abspath(path), os.path.realpath(path)}:
        while True:
            found = os.lstat(whole)
            # In a folder with the sticky bit one replaces what is one's own alone; what is below is looked at, too.
            open_to = 0 if stat.S_ISLNK(found.st_mode) or found.st_mode & stat.S_ISVTX else found.st_mode
            group = open_to & 0o020 and found.st_gid != 0
            if found.st_uid != 0 or open_to & 0o002 or group:
                return whole
            if whole == os.path.dirname(whole):
                break
            whole = os.path.dirname(whole)
    return None


def _read(path: str) -> str | None:
    """What stands there; None for anything but a text file."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(fd, encoding="utf-8") as file:
            return file.read()
    except (OSError, UnicodeDecodeError):
        return None


def _write(path: str, text: str) -> None:
    """All or nothing, in the place of whatever was there. Raises GpuqError."""
    folder = os.path.dirname(path)
    draft = f"{path}.{os.getpid()}.tmp"
    try:
        os.makedirs(folder, mode=0o755, exist_ok=True)
        fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        try:
            with open(fd, "w", encoding="utf-8") as file:
                os.fchmod(fd, 0o644)
                file.write(text)
            os.rename(draft, path)
        except OSError:
            os.unlink(draft)
            raise
    except OSError as error:
        raise GpuqError(f"cannot write {path}: {error.strerror}", hint=f"see `ls -ld {folder}`") from None


def _left_out() -> list[str]:
    """The variables of this shell that the service will not see. Raises ConfigError for settings with which it could
    not start."""
    from gpuq.settings import load

    _, sources = load()
    theirs = {"home", "server", "token", "status_format"}
    return sorted(f"GPUQ_{name.upper()}" for name in sources if sources[name] == "environment" and name not in theirs)


def _tell_next(user: bool) -> None:
    systemctl = "systemctl --user" if user else "systemctl"
    say(f"gpuq: next: {systemctl} daemon-reload")
    say(f"gpuq:       {systemctl} enable --now gpuq")
    if user:
        say("gpuq:       loginctl enable-linger      # or it ends, jobs included, when you log out")
    say(f"gpuq: its log: journalctl {'--user ' if user else ''}-u gpuq")
