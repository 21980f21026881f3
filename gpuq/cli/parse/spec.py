"""From the options of `submit` and `run` to the JSON of a submission."""

from __future__ import annotations

import os

from gpuq.cli.connect import say
from gpuq.cli.parse.options import Args, require_text
from gpuq.client.environment import collect
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
    if not os.path.isdir(cwd):
        raise UsageError(f"the directory {cwd} does not exist", hint="give -C a directory that is there")
    env = environment(args)
    for word in command:
        require_text(word, "", hint="rename the file, or write the command into a script")
    if script is not None:
        env = script.environment(env)
    if not args.flag("no_check"):
        check_command(command if script is None else script.interpreter(), cwd, env.get("PATH"))
    spec: dict[str, Any] = {"command": command, "cwd": cwd, "env": env, **job_fields(args)}
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
        "time_limit_s": _time_limit(args),
        "max_retries": args.integer("retries"),
        "array": args.text("array"),
        "sweep": _sweep(args),
        "key": args.text("key"),
        "kill_grace_s": args.seconds("kill_grace"),
        "hold": args.flag("hold") or None,
        "preemptible": args.flag("preemptible") or None,
        "requeue": args.flag("requeue") or None,
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


def environment(args: Args) -> dict[str, str]:
    """The submitter's, less likely secrets (named on stderr), with --env on top."""
    keep = _kept(args)
    env, secrets, no_text = collect(keep=keep, everything=args.flag("env_all"))
    for name in no_text:
        if name in keep:
            raise UsageError(
                f"--env-keep: the value of {name} is not UTF-8, and a job is stored as text",
                hint=f"set it to text, or give it with --env {name}=VALUE",
            )
    env["PWD"] = directory(args.text("chdir"))
    given = _assigned(args)
    if left_out := [name for name in secrets if name not in given]:
        say(f"gpuq: left out, because they look like secrets: {', '.join(left_out)} (use --env-keep NAME)")
    if left_out := [name for name in no_text if name not in given]:
        say(f"gpuq: left out, because they are not UTF-8, and a job is stored as text: {', '.join(left_out)}")
    return {**env, **given}


def added_environment(args: Args) -> dict[str, str]:
    """What --env and --env-keep name, and nothing else. Raises UsageError."""
    kept = {name: require_text(os.environ[name], f"--env-keep: {name}") for name in _kept(args)}
    return {**kept, **_assigned(args)}


def _kept(args: Args) -> list[str]:
    keep = args.parts("env_keep")
    missing = [name for name in keep if name not in os.environ]
    if missing:
        raise UsageError(f"--env-keep: {missing[0]} is not set", hint="set it, or give it with --env")
    return keep


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
