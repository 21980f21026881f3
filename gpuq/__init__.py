"""gpuq: a durable GPU job queue for a team that shares one machine."""

from __future__ import annotations

# As in gpuq.errors: typing costs 8 ms of import.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from gpuq.client import Client as Client

__version__ = "0.2.0.dev0"
__all__ = ["Client", "__version__"]


def __getattr__(name: str) -> object:
    # Lazy, because every supervisor and every command line imports this module.
    if name == "Client":
        from gpuq.client import Client

        return Client
    raise AttributeError(f"module 'gpuq' has no attribute {name!r}")
