"""How many connections clients may have open: each takes a descriptor, and the agent and the jobs need theirs.

Counted before anything is read, by the user at the other end of the Unix socket or by the address over TCP (an IPv6
network of 64 bits counts as one: a host has all of it).
"""

from __future__ import annotations

from collections import Counter
from ipaddress import IPv6Address, ip_network

from gpuq.server.http.peer import Peer

MOST = 8192
# Of all that are possible: what one user or one address may have, and what TCP may have together.
SHARE_OF_ONE = 4
SHARE_OF_TCP = 2
# For root and the daemon's own user, when the others have all the rest.
KEPT_FOR_OWNERS = 64
# Bytes of answers that wait for one user or address to read them, besides a single one of any size.
UNREAD = 256 * 1024 * 1024

Source = int | str


def source_of(peer: Peer | None, client: tuple[str, int] | None) -> Source:
    """The uid of a peer, else the address (or IPv6 network) of a client over TCP."""
    if peer is not None:
        return peer.uid
    address = client[0].partition("%")[0] if client is not None else ""
    if ":" not in address:
        return address
    mapped = IPv6Address(address).ipv4_mapped
    return str(mapped) if mapped is not None else str(ip_network((address, 64), strict=False))


class Connections:
    """Who has how many open. On the event loop only.

    `descriptors`: how many the process may have. Half of them, less what is kept for owners, is for clients.
    """

    def __init__(self, descriptors: int, owners: frozenset[int] = frozenset()) -> None:
        self._owners = owners
        self._kept = min(KEPT_FOR_OWNERS, descriptors // 16)
        self.most = max(4, min(MOST, descriptors // 2 - self._kept))
        self.of_one = max(2, self.most // SHARE_OF_ONE)
        self._of_tcp = max(2, self.most // SHARE_OF_TCP)
        self._open: Counter[Source] = Counter()
        self._unread: Counter[Source] = Counter()
        self._total = self._total_tcp = 0

    def admit(self, source: Source) -> bool:
        """Whether one more connection may stand; if so it is counted until `leave`."""
        over_tcp = isinstance(source, str)
        most = self.most + (self._kept if source in self._owners else 0)
        if self._total >= most or self._open[source] >= self.of_one or (over_tcp and self._total_tcp >= self._of_tcp):
            return False
        self._open[source] += 1
        self._total += 1
        self._total_tcp += over_tcp
        return True

    def leave(self, source: Source) -> None:
        """The end of a connection that was admitted."""
        self._open[source] -= 1
        if not self._open[source]:
            del self._open[source]
        self._total -= 1
        self._total_tcp -= isinstance(source, str)

    def hold(self, source: Source, size: int) -> None:
        """`size` more bytes, or less than none, wait for this source to read them."""
        self._unread[source] += size
        if not self._unread[source]:
            del self._unread[source]

    def reads_too_little(self, source: Source, own: int) -> bool:
        """Whether so much waits for this source that the `own` bytes of one more connection, counted already, are too
        much. A single answer may be as large as it is."""
        return self._unread[source] > max(UNREAD, own)
