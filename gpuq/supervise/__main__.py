"""`python -m gpuq.supervise --fd N --served M`: the fork server on the socket N. It closes M when it takes no more.

The launcher runs this file by its path with `python -I -S`, which knows no installed package; so it adds the folder
that holds gpuq itself.
"""

from __future__ import annotations

import os
import sys


def main(arguments: list[str]) -> int:
    """The fork server, on the descriptors that its parent hands over. Returns the exit code: 2 for a bad command
    line."""
    if arguments[::2] != ["--fd", "--served"] or not all(word.isdigit() for word in arguments[1::2]):
        sys.stderr.write(
            "usage: python -m gpuq.supervise --fd N --served M\n(gpuq starts this itself; see `gpuq up`)\n"
        )
        return 2
    from gpuq.supervise.forkserver import serve

    serve(int(arguments[1]), int(arguments[3]))
    return 0


if __name__ == "__main__":
    if not __package__:
        sys.path.append(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
    sys.exit(main(sys.argv[1:]))
