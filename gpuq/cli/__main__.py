"""`gpuq`: reads the command line, carries it out, and turns every error into a line and an exit code."""

from __future__ import annotations

import os
import sys

from gpuq.errors import GpuqError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


def main(line: Sequence[str] | None = None) -> int:
    """The exit code. Tracebacks only with GPUQ_DEBUG=1."""
    words = list(sys.argv[1:] if line is None else line)
    try:
        code = _run(words)
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        # Whoever read our output has gone; the interpreter would complain once more when it flushes at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 141
    except KeyboardInterrupt:
        return 130
    except GpuqError as error:
        from gpuq.cli.messages import tell

        _debug()
        return tell(error)
    except Exception as error:  # noqa: BLE001 - the outermost handler: a person gets a line, not a traceback
        _debug()
        text = " ".join(str(error).split())
        print(
            f"gpuq: internal error: {type(error).__name__}: {text}\nhint: set GPUQ_DEBUG=1 for the traceback",
            file=sys.stderr,
        )
        return 1


def _run(words: list[str]) -> int:
    if words == ["--version"]:
        from gpuq import revision

        print(revision.version_line())
        return 0
    if "_GPUQ_COMPLETE" in os.environ:
        from gpuq.cli import completion

        if (shell := completion.shell()) is not None:
            return completion.answer(shell)
    from gpuq.cli.parse import fast_parser

    if any("\0" in word for word in words):
        from gpuq.errors import UsageError

        raise UsageError("an argument contains a NUL byte", hint="no program can be given one: leave it out")
    args = fast_parser.parse(words)
    if args is None:
        from gpuq.cli import app

        return app.run(words)
    from gpuq.cli.dispatch import dispatch

    return dispatch(args)


def _debug() -> None:
    if os.environ.get("GPUQ_DEBUG"):
        import traceback

        traceback.print_exc()


if __name__ == "__main__":
    sys.exit(main())
