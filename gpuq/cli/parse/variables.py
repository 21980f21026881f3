"""The options about variables: which of the submitter's go along, and which apart; and what else a job takes over."""

from __future__ import annotations

import os

from gpuq.cli.connect import say
from gpuq.cli.parse.options import Args, require_text
from gpuq.client.environment import LEAST, Rules, collect, matches
from gpuq.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from gpuq.client.calls import Calls


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
        from gpuq.client.surroundings import surroundings

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
