"""Every command of gpuq with its options: the one table that parses, documents and dispatches the command line."""

from __future__ import annotations

from gpuq.cli.parse.options import Command, Option

JSON = Option("--json", "flag", "one JSON document on stdout, nothing else")
CSV = Option("--csv", "flag", "comma-separated values on stdout")
YES = Option("-y --yes", "flag", "do not ask: `all` without a filter")

FILTERS = (
    Option("--me", "flag", "your jobs only"),
    Option("-u --user", "text", "jobs of this user", "USER"),
    Option("-s --state", "list", "jobs in this state (several: commas)", "STATE"),
    Option("-g --group", "text", "jobs of this group", "GROUP"),
    Option("-n --name", "text", "jobs of this name", "NAME"),
)
LIMIT = Option("--limit", "int", "at most so many rows (default 50)")
ALL = Option("-a --all", "flag", "every row; `status`: finished jobs, too")
SINCE = Option("--since", "text", "from then on: 7d (ago), 2026-11-22, 14:00", "TIME")
UNTIL = Option("--until", "text", "up to then", "TIME")

# What may stand on the command line, and in the #GPUQ lines of a script.
JOB = (
    Option("-g --gpus", "int", "GPUs (default 1; 0: none)"),
    Option("--gpu-mem", "memory", "share a GPU: so much memory on each (18G, or MiB)"),
    Option("--gpu-model", "text", "only GPUs whose model contains this", "MODEL"),
    Option("--gpu-ids", "list", "only these GPUs, by index", "I,I"),
    Option("-p --priority", "priority", "critical, high, normal or low (0 to 3)"),
    Option("-n --name", "text", "name (default: the program's)", "NAME"),
    Option("--group", "text", "group, for filters and limits", "GROUP"),
    Option("-t --time", "duration", "time limit: 90s 15m 2h 1d 1-12:00:00"),
    Option("--retries", "int", "retries after failures of the program"),
    Option("--after", "list", "start after these jobs succeeded", "ID,ID"),
    Option("--after-any", "list", "start after these jobs ended, however", "ID,ID"),
    Option("--keep-waiting", "flag", "when a job of --after fails: wait on, for its retry, instead of being cancelled"),
    Option("--begin", "text", "not before: 2h, 18:30, 2026-11-22T10:00, 'tomorrow 9:00'", "TIME"),
    Option("--array", "text", "one job per index: 0-15, 0-15:2 (step), 0-15%4 (four at a time)", "RANGE"),
    Option("--sweep", "list", "one job for each combination: lr=1e-3,1e-4 or seed=0..4; {lr} in CMD", "N=V,V"),
    Option("--hold", "flag", "queue it held; `gpuq release` lets it go"),
    Option("--key", "text", "the same key again returns the live or successful job, queues nothing", "K"),
    Option("--preemptible", "flag", "may be put back in line when others wait"),
    Option("--requeue", "flag", "back in line at its time limit or with exit code 75; no retry used"),
    Option("--signal", "text", "sent before the time limit or a preemption: USR1@60 (seconds)", "SIG@S"),
    Option("--kill-grace", "duration", "between SIGTERM and SIGKILL"),
    Option("-C --chdir", "text", "working directory (default: here)", "DIR"),
    Option("--env", "list", "set a variable", "K=V"),
    Option("--env-keep", "list", "store this variable as it is, although its name looks like a secret", "NAME"),
    Option("--env-drop", "list", "leave this variable out: a name, or a pattern like 'CI_*'", "NAME"),
    Option("--env-none", "flag", "leave out all but HOME, USER, PATH, LANG and what is named here"),
    Option("--env-all", "flag", "store every variable as it is, secrets too"),
)
SHELL = Option("--shell", "text", "run this by /bin/sh instead of CMD: 'a | b'", "LINE")
IGNORE = Option("--ignore-directives", "flag", "do not read the #GPUQ and #SBATCH lines of a script")
NO_CHECK = Option("--no-check", "flag", "do not check that the command exists")
SUBMIT = (
    *JOB,
    SHELL,
    Option(
        "--from-file", "text", "queue every line of a JSONL file (- for stdin; 64 MiB at most), all or none", "FILE"
    ),
    NO_CHECK,
    IGNORE,
    Option("--like", "text", "your job ID once more, finished or not; what else is given changes it", "ID"),
    Option("--wait", "flag", "wait until it ended; its exit code is ours"),
    Option("--parsable", "flag", "print the id alone (of an array: the one that stands for all of it)"),
    JSON,
    Option("--test-only", "flag", "check, print the estimated start, queue nothing"),
)
# What stands in brackets there is true of a new job only.
_OF_A_WAITING_JOB = {
    "gpus": "GPUs (0: none)",
    "name": "name",
    "time": "time limit, or so much more or less: 4h, +2h, -30m",
}
CHANGES = tuple(
    Option(" ".join(option.flags), option.kind, _OF_A_WAITING_JOB.get(option.name, option.help), option.metavar)
    for option in JOB
    if option.name in {"gpus", "gpu_mem", "gpu_model", "gpu_ids", "priority", "name", "group", "time", "retries"}
    or option.name in {"preemptible", "signal", "kill_grace"}
)

_IDS = "ID…"


def _many(name: str, handler: str, summary: str, examples: str, *options: Option) -> Command:
    """A command on any number of jobs."""
    return Command(name, handler, summary, words=_IDS, most=None, options=options, examples=examples)


COMMANDS: dict[str, Command] = {
    command.name: command
    for command in (
        Command(
            "up", "daemon:up", "run everything on this machine: API, agent, maintenance, private Redis",
            options=(
                Option("-d --detach", "flag", "in the background"),
                Option("--listen", "text", "also answer on TCP; callers need a token", "HOST:PORT"),
            ),
            examples="gpuq up -d\nGPUQ_GPUS=sim:4 gpuq up\ngpuq up --listen 0.0.0.0:8100",
        ),
        Command(
            "down", "daemon:down", "stop the daemon; running jobs go on",
            options=(Option("--stop-jobs", "flag", "stop the running jobs, too; they go back in line"),),
            examples="gpuq down\ngpuq down --stop-jobs",
        ),
        Command(
            "server", "daemon:server", "the HTTP API alone",
            options=(Option("--listen", "text", "also answer on TCP; callers need a token", "HOST:PORT"),),
            examples="gpuq server --listen 0.0.0.0:8100",
        ),
        Command("agent", "daemon:agent", "the agent alone: starts jobs on this machine", examples="gpuq agent"),
        Command("maintain", "daemon:maintain", "the maintenance tasks alone", examples="gpuq maintain"),
        Command(
            "submit", "submit:submit", "queue a command; durable when it returns",
            words="[--] CMD…", most=None, options=SUBMIT, argv=True,
            examples="gpuq submit -g 2 -t 8h -- torchrun train.py\n"
            "gpuq submit -g 0 --shell 'sort big.txt | uniq > out.txt'\n"
            "gpuq submit train.sh a b        # keeps the script and reads its #GPUQ and #SBATCH lines\n"
            "gpuq submit < train.sh\n"
            "gpuq submit --from-file jobs.jsonl\n"
            "gpuq submit --like 7 -g 2 --env LR=0.1\n"
            "gpuq submit --array 0-15%4 -- python sweep.py\n"
            "gpuq submit --sweep lr=1e-3,1e-4 --sweep seed=0..4 -- python train.py --lr {lr} --seed {seed}",
        ),
        Command(
            "run", "run:run", "queue a command, show its output, end with its exit code; Ctrl-C cancels it",
            words="[--] CMD…", most=None, options=(*JOB, SHELL, NO_CHECK, IGNORE, *SUBMIT[-4:]), argv=True,
            examples="gpuq run -g 1 -- python train.py\ngpuq run -g 0 -- nvidia-smi",
        ),
        _many(
            "status", "status:status", "the queue: running jobs, then waiting ones in order",
            "gpuq status\ngpuq status --me -w\ngpuq status -s failed\ngpuq status 7 9 300-440 --json",
            *FILTERS, LIMIT, ALL, Option("-w --watch", "flag", "again every two seconds, until Ctrl-C"),
            Option("--expand", "flag", "each waiting element of an array on its own line"),
            Option("--format", "text", "these columns: id,name,state,why (help: what there is)", "COLUMNS"), JSON,
        ),
        Command(
            "show", "show:show", "everything about a job, with its attempts and events; of an array, how it fares",
            words=_IDS, least=1, most=None,
            options=(Option("--script", "flag", "print its batch script; with --json, add it"), JSON),
            examples="gpuq show 7\ngpuq show last --json\ngpuq show 9_3\ngpuq show 7 --script",
        ),
        Command(
            "why", "show:why", "why a job is not running, and when it is expected to",
            words="ID", least=1, most=1, options=(JSON,), examples="gpuq why 7",
        ),
        Command(
            "logs", "logs:logs", "a job's output, also after it ended; of several, each line with its job",
            words=_IDS, least=1, most=None,
            options=(
                Option("-f --follow", "flag", "until the jobs end; the largest of their exit codes is ours"),
                Option("-n --lines", "int", "the last lines only; with --grep: the last found", "LINES"),
                Option("--attempt", "int", "of this attempt (default: the newest)"),
                Option("--all-attempts", "flag", "of every attempt, in order, each under a heading"),
                Option("--grep", "text", "only lines in which this regular expression (Python's) is found", "PATTERN"),
                Option("--raw", "flag", "the bytes as written, also of lines that were written over (progress bars)"),
            ),
            examples="gpuq logs 7 -f\ngpuq logs last -n 20\ngpuq logs 7 --attempt 1\n"
            "gpuq logs 9 -f                  # an array: every element\ngpuq logs 9_3 --grep 'loss|nan' -n 5",
        ),
        Command(
            "result", "result:result", "what a job left in $GPUQ_RESULT_FILE",
            words="ID", least=1, most=1,
            options=(Option("-o --output", "text", "write it to this file (- for stdout)", "FILE"),),
            examples="gpuq result 7 -o plot.png\ngpuq result last",
        ),
        _many(
            "wait", "wait:wait", "wait until all are final; the largest of their exit codes is ours",
            "gpuq wait 7 9\ngpuq wait 300-440 --timeout 2h\ngpuq wait all --me",
            *FILTERS, YES, Option("--timeout", "duration", "give up after so long (exit 124)"), JSON,
        ),
        _many(
            "cancel", "changes:cancel", "a waiting job: at once; a running one: SIGTERM, grace, SIGKILL",
            "gpuq cancel 7\ngpuq cancel 7,9 --grace 5m --reason 'wrong data'\ngpuq cancel all --me -s queued",
            Option("--force", "flag", "SIGKILL now"),
            Option("--grace", "duration", "between SIGTERM and SIGKILL"),
            Option("--reason", "text", "for the history"),
            *FILTERS, YES, JSON,
        ),
        _many(
            "hold", "changes:hold", "take waiting jobs out of line", "gpuq hold 7\ngpuq hold all --me",
            *FILTERS, YES, JSON,
        ),
        _many(
            "release", "changes:release", "put held jobs back at their own place", "gpuq release 7", *FILTERS, YES, JSON
        ),
        _many(
            "top", "changes:top", "move waiting jobs before your others of that priority",
            "gpuq top 7", *FILTERS, YES, JSON,
        ),
        _many(
            "update", "changes:update", "change waiting jobs, and the time limit of running ones",
            "gpuq update 7 --priority high --time 2h\ngpuq update 7-9 -g 1\ngpuq update 7 -t +2h", *CHANGES, YES, JSON,
        ),
        _many(
            "retry", "changes:retry", "queue failed or cancelled jobs again, retries reset",
            "gpuq retry 7\ngpuq retry all --me -s failed", *FILTERS, YES, JSON,
        ),
        _many(
            "requeue", "changes:requeue", "stop running jobs and put them back in line, no retry used",
            "gpuq requeue 7\ngpuq requeue all --me", *FILTERS, YES, JSON,
        ),
        Command(
            "pause", "changes:pause", "start no new jobs; survives restarts",
            options=(Option("--reason", "text", "shown to those who wait"),),
            examples="gpuq pause --reason 'new driver'",
        ),
        Command("resume", "changes:resume", "start jobs again", examples="gpuq resume"),
        Command(
            "gpus", "gpus:gpus", "each GPU, its state and its holder", options=(JSON,),
            examples="gpuq gpus\ngpuq gpus drain 3 --reason 'fan'\ngpuq gpus undrain 3",
        ),
        Command(
            "gpus drain", "gpus:drain", "take a GPU out of the queue; what runs on it goes on",
            words="INDEX…", least=1, most=None, options=(Option("--reason", "text", "shown in `gpuq gpus`"),),
            examples="gpuq gpus drain 3 --reason 'fan'\ngpuq gpus drain 0 2-3",
        ),
        Command(
            "gpus undrain", "gpus:undrain", "put a drained GPU back", words="INDEX…", least=1, most=None,
            examples="gpuq gpus undrain 3\ngpuq gpus undrain 0-3",
        ),
        Command(
            "drain", "drain:drain", "planned maintenance: what would not end before does not start",
            words="[INDEX…]", most=None, options=(
                Option("--at", "text", "from then on: 14:00, 2h, 2026-11-22T10:00, now", "TIME"),
                Option("--until", "text", "back by itself: 16:00, 2h (after --at); else by `gpuq undrain`", "TIME"),
                Option("--reason", "text", "shown to those who wait"),
                JSON,
            ),
            examples="gpuq drain --at 14:00 --until 16:00 --reason 'new driver'\ngpuq drain --at 2h 0 2-3\ngpuq drain",
        ),
        Command(
            "undrain", "drain:undrain", "cancel the planned drain, also one that has begun", examples="gpuq undrain"
        ),
        Command(
            "group", "groups:groups", "the groups, their jobs and their limits", options=(JSON,),
            examples="gpuq group\ngpuq group limit nightly 2",
        ),
        Command(
            "group limit", "groups:limit", "how many jobs of a group may run at once (0: no limit)",
            words="GROUP N", least=2, most=2, examples="gpuq group limit nightly 2\ngpuq group limit nightly 0",
        ),
        Command(
            "limit", "limits:limit", "limits of users and groups, and what is used of them; sets them",
            words="[user NAME|group NAME|default]", most=2, options=(
                Option("--gpus", "text", "GPUs at once; of each: none removes it, unlimited lifts it", "N"),
                Option("--running", "text", "jobs running at once", "N"),
                Option("--waiting", "text", "jobs waiting", "N"),
                Option("--gpu-hours", "text", "GPU-hours in a window; beyond, jobs run as preemptible ones", "100/7d"),
                Option("--time", "text", "longest time limit of a job", "D"),
                JSON,
            ),
            examples="gpuq limit\ngpuq limit default --gpus 4 --gpu-hours 100/7d\n"
            "gpuq limit user alice --gpus 8 --time 24h\ngpuq limit group nightly --running 2\n"
            "gpuq limit user alice --gpus none",
        ),
        _many(
            "history", "history:history", "finished jobs, newest first",
            "gpuq history --since 7d\ngpuq history --me -s failed --json",
            *FILTERS, SINCE, UNTIL, LIMIT, ALL, JSON,
        ),
        Command(
            "clean", "clean:clean", "remove the output of finished jobs; says how much, and asks first",
            words="ID…", most=None, options=(
                Option("--older-than", "duration", "jobs that ended so long ago: 30d"),
                *FILTERS[:-1],
                Option("--checkpoints", "flag", "their checkpoints, too"),
                Option("--dry-run", "flag", "only say how much it would be"),
                Option("-y --yes", "flag", "do not ask"),
                JSON,
            ),
            examples="gpuq clean --older-than 30d --dry-run\ngpuq clean 7-9 --checkpoints\ngpuq clean -g nightly --yes",
        ),
        Command(
            "report", "history:report", "tables: usage, waits, failures, utilization or disk",
            words="usage|waits|failures|utilization|disk", least=1, most=1,
            options=(
                Option("--by", "list", "user, group, gpu or day, or several: user,day; of disk: job", "WHAT"),
                SINCE, UNTIL, JSON, CSV,
            ),
            examples="gpuq report usage --by user,day --since 30d\ngpuq report waits --csv\ngpuq report disk --by job",
        ),
        Command(
            "sql", "history:sql", "a read-only question to the history", words="'SELECT …'", least=1, most=1,
            options=(JSON, CSV), examples="gpuq sql 'select \"user\", sum(gpu_seconds) from job_history group by 1'",
        ),
        Command("dlq list", "dlq:show_all", "the dead letters", options=(JSON,), examples="gpuq dlq list"),
        Command(
            "dlq show", "dlq:show", "one dead letter, with its last lines of output", words="ID", least=1, most=1,
            options=(JSON,), examples="gpuq dlq show 7",
        ),
        _many(
            "dlq retry", "dlq:retry", "queue dead jobs again; with no ID, asks for each one",
            "gpuq dlq retry 7\ngpuq dlq retry all --yes", YES,
        ),
        _many(
            "dlq purge", "dlq:purge", "remove dead letters; the jobs' history stays",
            "gpuq dlq purge 7\ngpuq dlq purge all --yes", YES,
        ),
        Command(
            "simulate", "simulate:simulate", "replay a trace through this very scheduler in virtual time",
            words="TRACE.csv[.gz]", least=1, most=1,
            options=(
                Option("--gpus", "int", "GPUs a node (default 8)"),
                Option("--nodes", "int", "nodes (default 1)"),
                Option("--order", "text", "aged or fifo", "ORDER"),
                Option("--backfill", "text", "easy, greedy or none", "HOW"),
                Option("--expect", "text", "what reservations know of run times: history or exact", "WHAT"),
                Option("--priority-aging", "text", "waiting that is worth a step of priority: 1d", "TIME"),
                Option("--user-spacing", "text", "later for each waiting job of the same user: 15m", "TIME"),
                Option("--drain", "text", "a planned drain: after so long, for so long", "2d/12h"),
                Option("--out", "text", "write every start and end to this file", "SCHEDULE.csv"),
                Option("--plot", "text", "draw GPUs over time and the waits", "FILE.png"),
                JSON,
            ),
            examples="gpuq simulate trace.csv.gz --gpus 8\ngpuq simulate trace.csv --order fifo --backfill none --json",
        ),
        Command("db upgrade", "db:upgrade", "bring the database to this release's schema", examples="gpuq db upgrade"),
        Command("db current", "db:current", "the schema that the database has", examples="gpuq db current"),
        Command(
            "db backup", "db:backup", "a consistent copy, also while the daemon runs", words="FILE", least=1, most=1,
            examples="gpuq db backup /backup/gpuq.db",
        ),
        Command(
            "db restore", "db:restore", "put a copy back; the daemon must be down", words="FILE", least=1, most=1,
            options=(YES, Option("--leave-running", "flag", "although attempts run that the copy may not know")),
            examples="gpuq db restore /backup/gpuq.db",
        ),
        Command(
            "db adopt", "db:adopt", "go on with a database that is older than this home, or another one's",
            options=(YES,), examples="gpuq db adopt --yes",
        ),
        Command(
            "db reporter", "db:reporter", "PostgreSQL: a login for `gpuq sql` that may read the views alone",
            options=(Option("--new-password", "flag", "give it a new one, if it is there already"), JSON),
            examples="gpuq db reporter",
        ),
        Command(
            "config", "config:config", "every setting, its value and where it came from", options=(JSON,),
            examples="gpuq config\nGPUQ_HOME=/tmp/q gpuq config --json",
        ),
        Command(
            "doctor", "doctor:doctor", "checks what must be right, and says what to do", options=(
                Option("--end-strays", "flag", "end what runs and is not in the database"),
                Option("--import-strays", "flag", "put it into the database; the daemon must be down"),
                JSON,
            ),
            examples="gpuq doctor\ngpuq doctor --end-strays",
        ),
        Command(
            "who", "who:who", "who runs, waits, holds GPUs and leaves them idle", options=(JSON,), examples="gpuq who",
        ),
        Command(
            "web", "web:web", "a link to the page, good once and for a minute",
            options=(Option("--print", "flag", "only print it, open nothing"), JSON),
            examples="gpuq web\ngpuq web --print",
        ),
        Command(
            "monitor", "monitor.command:monitor", "a full-screen view of queue, GPUs and output",
            options=(Option("--readonly", "flag", "offer nothing that changes anything"),),
            examples="gpuq monitor\ngpuq monitor --readonly",
        ),
        Command(
            "install-service", "service:install", "a systemd service that runs `gpuq up`: the machine's, or your own",
            options=(
                Option("--user", "flag", "a service of your own, not of the machine"),
                Option("--print", "flag", "print the unit, write nothing"),
                Option("--force", "flag", "replace a unit that differs; take a gpuq that others than root may change"),
            ),
            examples="sudo gpuq install-service\ngpuq install-service --user\ngpuq install-service --print",
        ),
        Command(
            "contrib", "contrib:contrib", "print a file for other programs: rules for Prometheus, a Grafana board",
            words="alerts|grafana", least=1, most=1,
            examples="gpuq contrib alerts\ngpuq contrib grafana",
        ),
        Command(
            "token create", "tokens:create", "a token for the TCP interface; printed once",
            words="[NAME]", most=1, options=(
                Option("-u --user", "text", "for this user (root)", "USER"),
                Option("--scope", "text", "what it is good for: read, submit or admin", "SCOPE"),
                Option("--expires", "text", "how long it is good for (1 year); never (root)", "D"),
                JSON,
            ),
            examples="gpuq token create laptop\ngpuq token create dashboard --scope read --expires 90d",
        ),
        Command("token list", "tokens:show_all", "the tokens, without their secrets", options=(JSON,),
                examples="gpuq token list"),
        Command("token revoke", "tokens:revoke", "a token works no more", words="ID…", least=1, most=None,
                examples="gpuq token revoke 3"),
    )
}  # fmt: skip

GROUPS = {
    "gpus": "each GPU, its state and its holder; drain and undrain",
    "group": "the groups, their jobs and their limits",
    "dlq": "the dead-letter queue: jobs whose retries are used up",
    "db": "the database",
    "token": "tokens for the TCP interface",
}
