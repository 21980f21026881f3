"""A TLS server in front of another one, as a proxy stands before a daemon that listens on TCP."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator


@contextlib.contextmanager
def in_front_of(port: int, context: ssl.SSLContext) -> Iterator[int]:
    """The port of 127.0.0.1 where `context` is spoken; what comes in goes on to `port` as it is. `context` is one of a
    server, with its certificate."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        open_now: list[socket.socket] = []
        threading.Thread(target=_accept, args=(listener, port, context, open_now), daemon=True).start()
        yield listener.getsockname()[1]
        # Wakes the thread that accepts; closing alone does not.
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
    for one in open_now:
        with contextlib.suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)
        one.close()


def _accept(listener: socket.socket, port: int, context: ssl.SSLContext, open_now: list[socket.socket]) -> None:
    while True:
        try:
            raw, _ = listener.accept()
        except OSError:
            return
        try:
            outside = context.wrap_socket(raw, server_side=True)
        except OSError:
            # A client that does not like the certificate goes away.
            raw.close()
            continue
        inside = socket.create_connection(("127.0.0.1", port))
        open_now += [outside, inside]
        for source, sink in ((outside, inside), (inside, outside)):
            threading.Thread(target=_pass_on, args=(source, sink), daemon=True).start()


def _pass_on(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_WR)
