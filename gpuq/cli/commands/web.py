"""`gpuq web`: a link to the page."""

from __future__ import annotations

import os

from gpuq.cli.connect import connect, print_json, say
from gpuq.cli.parse.options import Args

# Where a link is for whoever looks from another machine, this is what ssh is told to listen on.
PORT = 8470


def web(args: Args) -> int:
    """Prints a link that logs its first user in, for a minute, and opens it where there is a screen."""
    client = connect()
    made = client.call("POST", "/login-links")
    base = _reached() or next(iter(made["addresses"]), None)
    if args.flag("json"):
        print_json(made)
    elif base is None:
        _by_ssh(made)
    else:
        link = base + made["path"]
        print(link)
        say(f"gpuq: good once, and for {made['expires_in_s']:.0f} s")
        if not args.flag("print") and _has_screen():
            _open(link)
    return 0


def _reached() -> str | None:
    """The address under which this command reached the daemon, if a browser can use it as well."""
    from gpuq.client.address import find

    server = find()
    return None if server.scheme == "unix" else server.text.rstrip("/")


def _by_ssh(made: dict[str, str]) -> None:
    import platform

    print(f"http://localhost:{PORT}{made['path']}")
    say("gpuq: the page is not served over TCP here. Within a minute, on the machine where your browser is:")
    say(f"gpuq:   ssh -N -L {PORT}:{made['socket']} {platform.node()}")
    say("gpuq: then open the link; or restart the daemon with `gpuq up --listen 127.0.0.1:8470`")


def _has_screen() -> bool:
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")) and "SSH_CONNECTION" not in os.environ


def _open(link: str) -> None:
    """By way of a file of the user's own: the arguments of a browser can be read by everybody on the machine."""
    import html
    import webbrowser

    folder = os.environ.get("XDG_RUNTIME_DIR")
    if not folder:
        return
    path = os.path.join(folder, "gpuq-web.html")
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with open(descriptor, "w", encoding="utf-8") as file:
        address = html.escape(link)
        file.write(f'<!doctype html><meta http-equiv="refresh" content="0; url={address}"><title>gpuq</title>')
    webbrowser.open(f"file://{path}")
