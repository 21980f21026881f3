"""From the options of `submit` and `run` to the JSON of a submission."""

from __future__ import annotations

import os

from gpuq.cli.connect import say
from gpuq.cli.parse.options import Args, require_text
from gpuq.client.environment import LEAST, Rules, collect, matches, surroundings
from gpuq.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from gpuq.cli.parse.script import Script
    from gpuq.client.calls import Calls


def build(args: Args, client: Calls) -> dict[str, Any]:
    """The submission that the line describes; fields it does not name are left to the daemon's defaults.

    Raises UsageError.
    """
    command, args, script = command_of(args)
    cwd = directory(args.text("chdir"))
    if not client.is_remote and not os.path.isdir(cwd):
        raise UsageError(f"the directory {cwd} does not exist", hint="give -C a directory that is there")
    taken = environment(args, client, cwd)
    env = taken["env"]
    for word in command:
        require_text(word, "", hint="rename the file, or write the command into a script")
    if script is not None:
        env = script.environment(env)
    if not args.flag("no_check"):
        program = command if script is None else script.interpreter()
        check = client.check_place if client.is_remote else check_command
        check(program, cwd, env.get("PATH"))
    spec: dict[str, Any] = {"command": command, "cwd": cwd, **taken, "env": env, **job_fields(args)}
    if script is not None:
        spec["script"] = script.text
    after = {"after": args.parts("after"), "after_any": args.parts("after_any")}
    for field, words in after.items():
        if args.given(field) and not words:
            # An empty variable of a script: the job would run without what it needs.
            raise UsageError(
                f"--{field.replace('_', '-')}: no job is named", hint="give the ids of jobs, or leave it out"
            )
        if words:
            from gpuq.cli.parse.select import resolve_ids

            spec[field] = resolve_ids(client, words, arrays=True)
    return spec


def directory(wanted: str | None) -> str:
    """Absolute; this one without `wanted`. Raises UsageError when this one is gone, or its name is no text."""
    try:
        found = os.path.abspath(os.path.expanduser(wanted or "."))
    except FileNotFoundError:
        raise UsageError("this directory does not exist any more", hint="go to one that does, or give -C DIR") from None
    return require_text(found, "the directory", hint="rename it, or give another one with -C")


def job_fields(args: Args) -> dict[str, Any]:
    """What `submit` and `update` have in common: the fields of a submission that the options name."""
    found: dict[str, Any] = {
        "gpus": args.integer("gpus"),
        "gpu_mem_mb": args.memory_mb("gpu_mem"),
        "gpu_model": args.text("gpu_model"),
        "gpu_ids": args.integers("gpu_ids"),
        "priority": args.priority(),
        "name": args.text("name"),
        "group": args.text("group"),
        **_time(args),
        "max_retries": args.integer("retries"),
        "array": args.text("array"),
        "sweep": _sweep(args),
        "key": args.text("key"),
        "kill_grace_s": args.seconds("kill_grace"),
        "hold": args.flag("hold") or None,
        "preemptible": args.flag("preemptible") or None,
        "requeue": args.flag("requeue") or None,
        "keep_waiting": args.flag("keep_waiting") or None,
    }
    if begin := args.text("begin"):
        from gpuq.cli.parse.times import parse_time

        found["begin"] = parse_time(begin)
    if signal := args.text("signal"):
        found["signal"] = signal.upper().removeprefix("SIG")
    return {name: value for name, value in found.items() if value is not None}


def _sweep(args: Args) -> dict[str, str] | None:
    """What the values are the daemon reads."""
    found: dict[str, str] = {}
    for text in args.many("sweep"):
        name, equals, values = text.partition("=")
        if not equals or not name:
            raise UsageError(f"--sweep: {text!r} is not NAME=VALUES", hint="write lr=1e-3,1e-4 or seed=0..4")
        if name in found:
            raise UsageError(f"--sweep: {name} is given twice", hint=f"name all its values at once: {name}=1,2")
        found[name] = values
    return found or None


def _time(args: Args) -> dict[str, Any]:
    """A limit; for `update` also so much more (`+2h`) or less (`-30m`) of it."""
    text = (args.text("time") or "").strip()
    if args.command.name != "update" or text[:1] not in {"+", "-"}:
        return {"time_limit_s": _time_limit(args)}
    from gpuq.domain.quantities import parse_duration

    try:
        seconds = parse_duration(text[1:])
    except UsageError as error:
        raise UsageError(f"-t/--time: {error.message}", hint="write 4h, +2h (more) or -30m (less)") from None
    return {"time_add_s": -seconds if text[0] == "-" else seconds}


def _time_limit(args: Args) -> float | None:
    """Seconds."""
    limit = args.seconds("time")
    if limit is None:
        return None
    from gpuq.domain.quantities import MAX_TIME_LIMIT_S

    if limit == 0:
        raise UsageError("-t/--time: a limit of 0 leaves no time to run", hint="leave it out for no limit")
    if limit > MAX_TIME_LIMIT_S:
        raise UsageError(
            f"-t/--time: at most {MAX_TIME_LIMIT_S / 86400:g}d, not {args.text('time')}",
            hint="leave it out for no limit",
        )
    return limit


def environment(args: Args, client: Calls, cwd: str) -> dict[str, Any]:
    """Fields of a submission: `env` and `secrets`, with --env on top; and of a daemon on this machine the umask, the
    limits and the niceness. Over TCP only variables that are named. Raises UsageError."""
    rules = _rules(args, client)
    env, secrets, no_text = collect(rules)
    for name in no_text:
        if name in rules.keep:
            raise UsageError(
                f"--env-keep: the value of {name} is not UTF-8, and a job is stored as text",
                hint=f"set it to text, or give it with --env {name}=VALUE",
            )
    env["PWD"] = cwd
    given = _assigned(args)
    if left_out := [name for name in no_text if name not in given]:
        say(f"gpuq: left out, because they are not UTF-8, and a job is stored as text: {', '.join(left_out)}")
    found = {"env": env, "secrets": secrets}
    _put(found, given, rules)
    if not client.is_remote:
        found.update(surroundings())
    if not found["secrets"]:
        del found["secrets"]
    return found


def added_environment(args: Args, client: Calls) -> dict[str, Any]:
    """Changes for a job like an earlier one: what --env and --env-keep name, what --env-drop takes away, and this
    environment's secrets, of which the daemon takes those that the earlier job had. Raises UsageError."""
    rules = _rules(args, client)
    kept = {name: require_text(os.environ[name], f"--env-keep: {name}") for name in rules.keep}
    found: dict[str, Any] = {"env": {}, "secrets": {}}
    _put(found, {**kept, **_assigned(args)}, rules)
    if not client.is_remote and not rules.none:
        found["offered_secrets"] = collect(rules)[1]
    found["env_drop"] = list(rules.drop)
    return {field: value for field, value in found.items() if value}


def _rules(args: Args, client: Calls) -> Rules:
    none = args.flag("env_none")
    if none and args.flag("env_all"):
        raise UsageError("--env-none and --env-all cannot go together", hint="choose one")
    keep = args.parts("env_keep")
    missing = [name for name in keep if name not in os.environ]
    if missing:
        raise UsageError(f"--env-keep: {missing[0]} is not set", hint="set it, or give it with --env")
    return Rules(
        keep=keep,
        # Of another machine's environment only what is named has a meaning there.
        site_keep=() if client.is_remote else client.address.env_keep,
        site_secret=client.address.env_secret,
        drop=_dropped(args, keep),
        none=none or client.is_remote,
        least=() if client.is_remote else LEAST,
        everything=args.flag("env_all"),
    )


def _dropped(args: Args, keep: list[str]) -> list[str]:
    drop = args.parts("env_drop")
    both = next((name for name in keep if matches(name, drop)), None)
    if both is not None:
        raise UsageError(f"{both} cannot be both kept and dropped", hint="leave out --env-keep or --env-drop")
    return drop


def _put(found: dict[str, Any], given: dict[str, str], rules: Rules) -> None:
    """What was written on the command line goes over what the environment has."""
    for name, value in given.items():
        to, other = ("secrets", "env") if rules.is_secret(name) else ("env", "secrets")
        found[other].pop(name, None)
        found[to][name] = value


def _assigned(args: Args) -> dict[str, str]:
    given: dict[str, str] = {}
    for pair in args.many("env"):
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise UsageError(f"--env: {pair!r} is not NAME=VALUE", hint="write --env NAME=VALUE, or --env-keep NAME")
        given[name] = value
    return given


def check_command(command: list[str], cwd: str, path: str | None, where: str = "") -> None:
    """Raises UsageError when the program is not there. `path`: the job's PATH; `where`: which line of a file."""
    program = command[0]
    if "\0" in program:
        raise UsageError(
            f"{where}command: an argument contains a NUL byte", hint="no program can be given one: leave it out"
        )
    hint = "check the spelling, or give --no-check if it will be there when the job starts"
    if "/" in program:
        full = os.path.join(cwd, program)
        if not os.path.isfile(full):
            raise UsageError(f"{where}there is no program {program}", hint=hint)
        if not os.access(full, os.X_OK):
            raise UsageError(f"{where}{program} is not executable", hint=f"chmod +x {program}, or name what runs it")
        return
    for folder in (path or os.defpath).split(":"):
        full = os.path.join(cwd, folder, program)
        # First whether it is a file: os.access raises ValueError for a name that no file can have.
        if os.path.isfile(full) and os.access(full, os.X_OK):
            return
    if os.path.isfile(os.path.join(cwd, program)):
        hint = f"in this directory it is called ./{program}"
    raise UsageError(f"{where}there is no program {program!r} in PATH", hint=hint)


def command_of(args: Args) -> tuple[list[str], Args, Script | None]:
    """The job's argv, the options with those of its script under them, and the script. Raises UsageError."""
    line = args.text("shell")
    if line is not None:
        if args.words:
            raise UsageError(
                f"--shell has the whole command already; {args.words[0]!r} is one word too many",
                hint="quote it: --shell 'a | b'",
            )
        if not line.strip():
            raise UsageError("--shell: nothing to run", hint="write --shell 'a | b'")
        return ["/bin/sh", "-c", line], args, None
    script = _script(args)
    if script is None:
        if not args.words or not args.words[0]:
            raise UsageError(
                f"{args.command.name}: no command to run", hint=f"gpuq {args.command.name} -g 1 -- python train.py"
            )
        return args.words, args, None
    if script.late is not None:
        say(f"gpuq: {script.late}")
    merged = {**script.values, **args.values}
    if "env" in script.values:
        merged["env"] = [*script.values["env"], *args.many("env")]
    if "sweep" not in merged:
        # The name of an element of a sweep tells its values, unless it was given.
        merged.setdefault("name", [os.path.basename(script.command[0])])
    return script.command, Args(args.command, merged, args.words), script


def _script(args: Args) -> Script | None:
    """None: the words are a plain command, or there are none. Standard input is a script's for `submit` alone."""
    words = args.words
    if not words and args.command.name != "submit":
        return None
    from gpuq.cli.parse import script

    directives = not args.flag("ignore_directives")
    if args.command.name == "submit" and (words[0] == script.STDIN if words else script.stdin_has_one()):
        return script.read_stdin(words[1:], wanted=bool(words), directives=directives)
    return script.read(words[0], words[1:], as_is=args.as_is, directives=directives) if words and words[0] else None


def from_file_line(spec: Mapping[str, Any], cwd: str) -> dict[str, Any]:
    """A line of --from-file, with the submitter's directory. The environment lies under those of all lines."""
    line = {**spec, "cwd": spec.get("cwd") or cwd}
    if line.get("env") is None:
        line.pop("env", None)
    return line
