"""How many attempts the agent can watch at once: each takes descriptors of this process, whose number is limited."""

from __future__ import annotations

import resource

# A running attempt: the report pipe, and a second descriptor of it for whoever asks later.
OF_AN_ATTEMPT = 2
# Databases, Redis, files of the moment.
OF_THE_DAEMON = 80
# Whatever the limit: something always runs.
LEAST = 4


def most_attempts(limit: int) -> int:
    """With `limit` descriptors, of which clients may have half (see the server's `connections`)."""
    return max(LEAST, (limit - limit // 2 - OF_THE_DAEMON) // OF_AN_ATTEMPT)


class AttemptRoom:
    """For one process. `most`: attempts at once."""

    def __init__(self) -> None:
        self.limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        self.most = most_attempts(self.limit)

    def left(self, attempts: int) -> int:
        """How many more may be started beside so many."""
        return max(0, self.most - attempts)

    def why(self) -> str:
        """For people, when there is no room left."""
        return (
            f"{self.most} jobs run at once, as many as a limit of {self.limit} open files lets this daemon watch;"
            " raise the hard limit (`ulimit -Hn`, LimitNOFILE= of the unit) and restart the daemon"
        )
