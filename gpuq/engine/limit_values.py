"""The limits that stand in the database, as every room reads them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

from gpuq.domain.installation_keys import InstallationKey
from gpuq.domain.limits import LimitBook, Limits
from gpuq.ports.records import Reader

# How many jobs of a group may run has stood under a key of its own since before there were others.
_RUNNING = InstallationKey.GROUP_LIMIT


def limit_key(kind: str, name: str) -> str:
    """Where the limits of a user, a group, or `default` stand; those of a group's running jobs elsewhere."""
    return InstallationKey.LIMIT.of(kind) if kind == "default" else InstallationKey.LIMIT.of(kind, name)


def read_limits(tx: Reader, group_limits: Mapping[str, Mapping[str, Any]]) -> LimitBook:
    """All of them. `group_limits`: by group, what is set of its running jobs."""
    return _book(tx.values(InstallationKey.LIMIT.prefix()), group_limits)


def limits_of(values: Mapping[str, Any]) -> LimitBook:
    """Those that stand under these keys (`keys_of`)."""
    prefix = _RUNNING.prefix()
    running = {key.removeprefix(prefix): value for key, value in values.items() if key.startswith(prefix)}
    return _book(values, running)


def keys_of(user: str, groups: Collection[str]) -> list[str]:
    """Under which keys everything stands that limits jobs of that user in one of these groups."""
    named = [limit_key("group", group) for group in groups]
    return [limit_key("default", ""), limit_key("user", user), *named, *(_RUNNING.of(group) for group in groups)]


def _book(values: Mapping[str, Any], running: Mapping[str, Mapping[str, Any]]) -> LimitBook:
    found: dict[str, dict[str, Limits]] = {"user": {}, "group": {}, "default": {}}
    for key, value in values.items():
        _, _, rest = key.partition(":")
        kind, _, name = rest.partition(":")
        if key.startswith(InstallationKey.LIMIT.prefix()) and kind in found:
            found[kind][name] = Limits.stored(value)
    for group, value in running.items():
        known = found["group"].get(group, Limits(by=value["by"], at=value["at"]))
        found["group"][group] = replace(known, running=value["running"])
    return LimitBook(found["user"], found["group"], found["default"].get("", Limits()))
