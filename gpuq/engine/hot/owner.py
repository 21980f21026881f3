"""Whose a namespace of Redis is: of one installation, so of one database. Two would throw each other's queue away.

The id lives in SQL, so a home that was moved, or restored from a backup, has the same one.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from gpuq.domain.installation_keys import InstallationKey
from gpuq.engine.context import HotContext
from gpuq.ports.hot_queue import Owner
from gpuq.ports.records import Reader, Writer


def enroll(ctx: HotContext, tx: Writer, new_id: str) -> Owner:
    """This installation, which gets `new_id` if it has none yet."""
    known = tx.value(InstallationKey.NAMESPACE_OWNER)
    if known is None:
        known = new_id
        tx.set_value(InstallationKey.NAMESPACE_OWNER, known, ctx.clock.now())
    # A Redis that gpuq itself runs for this home can be nobody else's.
    return Owner(str(known), _told(ctx), by_right=ctx.settings.redis_url is None)


def stranger(ctx: HotContext, tx: Reader) -> str | None:
    """A sentence, when the namespace belongs to another installation. Raises HotStoreUnavailable."""
    found = ctx.queue.owner()
    if found is None or found.id == tx.value(InstallationKey.NAMESPACE_OWNER) or ctx.settings.redis_url is None:
        return None
    return f"the namespace {ctx.settings.namespace} of Redis belongs to another installation: {found.told}"


def _told(ctx: HotContext) -> str:
    settings = ctx.settings
    parts = urlsplit(settings.database_url)
    # Without its password.
    where = parts.path.removeprefix("/") if parts.scheme == "sqlite" else f"{parts.hostname}{parts.path}"
    return f"home {settings.home} on {settings.node}, database {where}"
