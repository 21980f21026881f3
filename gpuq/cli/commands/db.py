"""`gpuq db`: the schema, copies, putting a copy back, and the login for questions."""

from __future__ import annotations

import os
from pathlib import Path

from gpuq.cli.connect import print_json, say
from gpuq.cli.parse.options import Args
from gpuq.errors import DaemonUnreachable, Refused, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType

    from gpuq.settings import Settings


def upgrade(args: Args) -> int:
    """Brings the schema of the database to the one of this version."""
    settings, database = _open()
    before, after = database.upgrade(settings.database_url)
    print(f"the schema is {after}" + (" already" if before == after else f", it was {before or 'empty'}"))
    return 0


def current(args: Args) -> int:
    """Prints the version of the database's schema."""
    settings, database = _open()
    print(database.current(settings.database_url) or "empty: no schema yet")
    return 0


def backup(args: Args) -> int:
    """Writes a copy of the database to a file. Raises UsageError when the file's directory does not exist."""
    settings, database = _open()
    target = Path(args.words[0]).expanduser().absolute()
    if not target.parent.is_dir():
        raise UsageError(f"there is no directory {target.parent}", hint="make it first")
    database.backup(settings.database_url, target)
    print(f"{target}: {os.path.getsize(target):,} bytes")
    return 0


def restore(args: Args) -> int:
    """Replaces the database by a backup, after saying what is lost. Raises Refused while a daemon answers and, without
    `--leave-running`, while attempts run; UsageError without `--yes`."""
    from gpuq import recovery

    settings, _ = _open()
    source = Path(args.words[0]).expanduser().absolute()
    if not source.is_file():
        raise UsageError(f"there is no file {source}", hint="`gpuq db backup FILE` makes one")
    lost = recovery.loss(settings, source)
    for line in lost.lines():
        say(f"gpuq: {line}")
    if not args.flag("yes"):
        raise UsageError("restore replaces every job and the whole history", hint="add --yes if that is what you want")
    if _daemon_answers():
        raise Refused("the daemon is running", hint="`gpuq down` first; running jobs go on meanwhile")
    if lost.running and not args.flag("leave_running"):
        raise Refused(
            f"{len(lost.running)} attempts run, and the copy may not know them",
            hint="`gpuq up -d; gpuq down --stop-jobs` ends them; with --leave-running they go on, and `gpuq doctor`"
            " tells of those that the copy does not know",
        )
    told = recovery.restore(settings, source)
    say(f"gpuq: restored from {source}")
    for line in told:
        say(f"gpuq: {line}")
    return 0


def adopt(args: Args) -> int:
    """Goes on with a database that is not the one this home worked with. Raises AlreadyRunning while a daemon runs,
    UsageError without `--yes`."""
    from gpuq import recovery

    settings, _ = _open()
    why = recovery.why_not_known(settings)
    if why is None:
        say("gpuq: the database is the one that this home worked with: nothing to do")
        return 0
    if not args.flag("yes"):
        raise UsageError(
            why,
            hint="--yes goes on with it: ids go on, what ran before is held, what is not in it is lost;"
            " `gpuq db restore FILE` puts a backup back instead",
        )
    told = recovery.adopt(settings)
    say("gpuq: the database is this home's from now on")
    for line in told:
        say(f"gpuq: {line}")
    return 0


def reporter(args: Args) -> int:
    """Makes PostgreSQL's login for questions, or sets its rights again, and prints the URL for the settings. Raises
    Refused for SQLite, and where the daemon's own role may not make one."""
    from gpuq import wiring
    from gpuq.settings import load

    settings, _ = load()
    made = wiring.report_role().make(settings.database_url, new_password=args.flag("new_password"))
    if args.flag("json"):
        print_json({"role": made.role, "created": made.created, "url": made.url, "notes": list(made.notes)})
        return 0
    for note in made.notes:
        say(f"gpuq: {made.role}: {note}")
    known = made.created or args.flag("new_password")
    say(
        f"gpuq: {made.role} may read the views. Set this where only root can read it, and restart the daemon:"
        if known
        else f"gpuq: {made.role} was there; its rights are set again. Its password is not known here"
        " (`--new-password` gives it another):"
    )
    print(f"GPUQ_REPORT_DATABASE_URL={made.url}")
    return 0


def _open() -> tuple[Settings, ModuleType]:
    from gpuq import wiring
    from gpuq.home import prepare_home
    from gpuq.settings import load

    settings, _ = load()
    prepare_home(settings.home)
    return settings, wiring.database()


def _daemon_answers() -> bool:
    from gpuq.client.calls import Calls

    try:
        Calls(direct=False).call("GET", "/healthz")
    except DaemonUnreachable:
        return False
    return True
