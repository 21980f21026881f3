"""systemd is told when the daemon is up and when it begins to stop: the protocol of `sd_notify(3)`.

A unit with `Type=notify` counts as started when this says so, and not before: `systemctl start gpuq` returns when jobs
can be submitted, and reports a daemon that could not start.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import MutableMapping

log = logging.getLogger(__name__)

VARIABLE = "NOTIFY_SOCKET"
# The manager reads its socket at once; one that does not must not hold the daemon up for ever.
PATIENCE_S = 5.0


class ServiceManager:
    """Whoever started this process and wants to hear of it; `address` None: nobody does, and nothing is sent.

    `address`: the path of a datagram socket, or `@` and the name of an abstract one.
    """

    def __init__(self, address: str | None) -> None:
        self._address = address

    @classmethod
    def of(cls, environment: MutableMapping[str, str] = os.environ) -> ServiceManager:
        """The one that the environment names, where it stands no longer afterwards: a job would inherit it, and could
        speak in the daemon's name."""
        return cls(environment.pop(VARIABLE, None))

    def ready(self) -> None:
        """The daemon is up."""
        self._tell("READY=1")

    def stopping(self) -> None:
        """It has begun to stop. Any thread."""
        self._tell("STOPPING=1")

    def _tell(self, state: str) -> None:
        """A manager that cannot be reached is no reason to stop: the journal hears of it."""
        if not self._address:
            return
        # An abstract socket's name begins with a NUL, which no variable can hold.
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as to:
                to.settimeout(PATIENCE_S)
                to.sendto(state.encode(), address)
        except (OSError, ValueError) as error:
            log.warning("the service manager at %s did not take %s: %s", self._address, state, error)
