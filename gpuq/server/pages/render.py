"""Documents: Jinja2 with escaping that cannot be turned off by forgetting it, and what templates may ask for."""

from __future__ import annotations

import hashlib
import re
from datetime import datetime
from functools import lru_cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from gpuq import __version__
from gpuq.domain.caller import Caller, Scope
from gpuq.domain.quantities import duration_text
from gpuq.domain.visible_text import shown
from gpuq.engine.access import may_act_on
from gpuq.errors import GpuqError
from gpuq.server.pages.text import cut, moment

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self';"
        " form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}

_JOB = re.compile(r"\bjobs? (\d{1,18})\b")


@lru_cache(maxsize=1)
def environment() -> Environment:
    """The templates; made at the first page that anybody looks at."""
    made = Environment(
        loader=PackageLoader("gpuq.server.pages"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_finalize,
    )
    made.filters.update(cut=cut, time=time_tag, duration=duration_text, linked=linked, mb=megabytes)
    made.globals.update(version=__version__)
    return made


def _finalize(value: Any) -> Any:
    """Every string that comes into a document, apart from markup of ours."""
    if value is None:
        return ""
    return shown(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def time_tag(text: str | None, otherwise: str = "–") -> Markup:
    """A time of the API's JSON; the browser turns it into its own zone."""
    at = moment(text)
    if at is None:
        return escape(otherwise)
    return Markup('<time datetime="{}">{}</time>').format(text, _utc(at))


def _utc(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M} UTC"


def linked(text: str) -> Markup:
    """A sentence with the jobs that it names as links."""
    pieces, last = [], 0
    for found in _JOB.finditer(text):
        pieces.append(escape(shown(text[last : found.start()])))
        pieces.append(Markup('<a href="/ui/jobs/{}">{}</a>').format(found[1], found[0]))
        last = found.end()
    return Markup("").join([*pieces, escape(shown(text[last:]))])


def megabytes(value: float | None) -> str:
    """MiB as people write them."""
    if value is None:
        return "–"
    return f"{value / 1024:.1f}G" if value >= 1024 else f"{value:.0f}M"


def page(request: Request, template: str, title: str, *, status: int = 200, **values: Any) -> Response:
    """The document of a view, for the caller of this request; only its middle when the script asks for that again, and
    nothing when that is what the script has."""
    caller: Caller | None = getattr(request.state, "caller", None)
    again = request.headers.get("x-gpuq-part") == "main"
    may_submit = caller is not None and (caller.scope is None or caller.scope.covers(Scope.SUBMIT))
    body = (
        environment()
        .get_template(template)
        .render(
            title=title,
            caller=caller,
            may_act=lambda job: caller is not None and may_submit and may_act_on(job["user"], None, caller),
            may_submit=may_submit,
            path=request.url.path,
            node=request.app.state.ctx.node,
            layout="part.html" if again else "document.html",
            **values,
        )
    )
    if not again or status != 200:
        return HTMLResponse(body, status_code=status, headers=HEADERS)
    tag = f'"{hashlib.blake2b(body.encode("utf-8", "replace"), digest_size=16).hexdigest()}"'
    headers = {**HEADERS, "ETag": tag, "Vary": "X-Gpuq-Part, Cookie"}
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    return HTMLResponse(body, headers=headers)


def problem(request: Request, error: GpuqError) -> Response:
    """What went wrong, in its own words, as a document."""
    return page(request, "problem.html", "Not possible", status=error.http_status, error=error)
