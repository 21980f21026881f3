"""The generated parts of a page: what stands between `<!-- generated: NAME -->` and `<!-- end -->`."""

from __future__ import annotations

import re
from collections.abc import Callable

import commands
import http_api
import python_api
import tables
import views

MARKED = re.compile(r"(<!-- generated: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)

BLOCKS: dict[str, Callable[[], str]] = {
    "states": tables.states,
    "outcomes": tables.outcomes,
    "reasons": tables.reasons,
    "settings": tables.settings,
    "errors": tables.error_codes,
    "exits": tables.exit_codes,
    "variables": tables.job_variables,
    "command_list": commands.overview,
    "commands": commands.sections,
    "http": http_api.routes,
    "submission": http_api.submission,
    "views": views.sections,
    "python": python_api.sections,
    "python_errors": python_api.errors,
}


def filled(text: str) -> str:
    """The page with every generated part as the code gives it now. Raises KeyError for a name that is not known."""
    return MARKED.sub(lambda found: found[1] + BLOCKS[found[2]]() + found[3], text)
