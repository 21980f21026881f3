"""The head of an answer and its body as one piece: one call of the kernel, and a client that wakes up once."""

from __future__ import annotations

from asyncio import AbstractEventLoop, Transport

# Bytes: a larger piece goes out as it is, because joining copies it.
_SMALL = 64 * 1024


class JoinedWrites:
    """In the place of a transport to those who only write and close. What is small is held until something follows it,
    or until the loop's next turn; nobody waits for it longer."""

    def __init__(self, transport: Transport, loop: AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._held = b""

    def write(self, data: bytes) -> None:
        """In the order of the calls."""
        held, self._held = self._held, b""
        if held and len(data) > _SMALL:
            self._transport.write(held)
        elif held:
            data = held + data
        elif len(data) <= _SMALL:
            self._held = data
            self._loop.call_soon(self._go_on)
            return
        self._transport.write(data)

    def close(self) -> None:
        """What was written is sent before."""
        self._go_on()
        self._transport.close()

    def is_closing(self) -> bool:
        """Whether the connection ends."""
        return self._transport.is_closing()

    def _go_on(self) -> None:
        held, self._held = self._held, b""
        if held and not self._transport.is_closing():
            self._transport.write(held)
