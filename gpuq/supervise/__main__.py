"""`python -m gpuq.supervise --fd N`: the fork server on the socket with this descriptor.

The launcher runs this file by its path with `python -I -S`, which knows no installed package; so it adds the folder
that holds gpuq itself.
"""

from __future__ import annotations

import os
import sys


def main(arguments: list[str]) -> int:
    if len(arguments) != 2 or arguments[0] != "--fd" or not arguments[1].isdigit():
        sys.stderr.write("usage: python -m gpuq.supervise --fd N\n(gpuq starts this itself; see `gpuq up`)\n")
        return 2
    from gpuq.supervise.forkserver import serve

    serve(int(arguments[1]))
    return 0


if __name__ == "__main__":
    if not __package__:
        sys.path.append(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
    sys.exit(main(sys.argv[1:]))
