"""`python -m gpuq.supervise --fd N --served M`: the fork server on the socket N. It closes M when it takes no more.

`--jobs FOLDER`: where all attempts of this home have their folders.
`--groups FOLDER --kinds KINDS`: its supervisors make their control groups in FOLDER, of these kinds, commas between.
`--files N`: the soft limit of open files that it and all jobs have.

The launcher runs this file by its path with `python -I -S`, which knows no installed package; so it adds the folder
that holds gpuq itself.
"""

from __future__ import annotations

import os
import resource
import sys

_OPTIONS = {"--fd", "--served", "--files", "--groups", "--kinds", "--jobs"}


def main(arguments: list[str]) -> int:
    """The fork server, on the descriptors that its parent hands over. Returns the exit code: 2 for a bad command
    line."""
    options = dict(zip(arguments[::2], arguments[1::2], strict=False))
    numbers = [options.get(name, "0") for name in ("--fd", "--served", "--files")]
    if (
        len(arguments) % 2
        or not {"--fd", "--served"} <= options.keys() <= _OPTIONS
        or not all(map(_is_number, numbers))
    ):
        sys.stderr.write(
            "usage: python -m gpuq.supervise --fd N --served M [--files N] [--jobs FOLDER] "
            "[--groups FOLDER --kinds KINDS]\n"
            "(gpuq starts this itself; see `gpuq up`)\n"
        )
        return 2
    from gpuq.supervise.forkserver import serve
    from gpuq.supervise.last_word import JOBS

    if "--files" in options:
        resource.setrlimit(resource.RLIMIT_NOFILE, (int(numbers[2]), resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    if "--jobs" in options:
        JOBS.open(options["--jobs"])
    serve(int(numbers[0]), int(numbers[1]), options.get("--groups", ""), options.get("--kinds", "").split(","))
    return 0


def _is_number(word: str) -> bool:
    # -1 is no limit.
    return word.removeprefix("-").isdigit()


if __name__ == "__main__":
    if not __package__:
        sys.path.append(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
    sys.exit(main(sys.argv[1:]))
