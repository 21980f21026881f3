"""Which commit this gpuq was made from: noted in it when it is built, asked of git in a source checkout.

Standard library only; scripts/build_hook.py loads this file by its path.
"""

from __future__ import annotations

import os

NOTE = "_revision.txt"
# Enough digits to name a commit, as git shows them.
DIGITS = 10
# A repository on a network disk may hang; the version is worth no longer wait than this.
PATIENCE_S = 5


def version_line() -> str:
    """What `gpuq --version` prints: `gpuq 0.2.0 (1a2b3c4d5e)`; without the bracket where the commit is not known."""
    from gpuq import __version__

    found = revision()
    return f"gpuq {__version__} ({found})" if found else f"gpuq {__version__}"


def revision() -> str | None:
    """The commit of this gpuq, `+dirty` when files were changed since; None when it cannot be known."""
    package = os.path.dirname(os.path.abspath(__file__))
    return noted(package) or of_checkout(os.path.dirname(package))


def noted(package: str) -> str | None:
    """What the build wrote into the folder `package`; None in a source checkout."""
    try:
        with open(os.path.join(package, NOTE), encoding="ascii") as file:
            return file.read().strip() or None
    except (OSError, UnicodeDecodeError):
        return None


def of_checkout(root: str) -> str | None:
    """The commit checked out in `root`, and `+dirty` when its files differ from that commit or new ones are there.

    None when `root` is not the top of a working tree, belongs to another user or git gives no answer.
    """
    git = os.path.join(root, ".git")
    try:
        # The configuration of a repository can name programs that git runs, as whoever asks. git refuses the
        # repositories of others, too, but not to root under sudo.
        if any(os.stat(path).st_uid != os.geteuid() for path in (root, git)):
            return None
    except OSError:
        return None
    shown = _status(root)
    if shown is None:
        return None
    lines = shown.splitlines()
    commit = next((line.removeprefix("# branch.oid ") for line in lines if line.startswith("# branch.oid ")), "")
    if len(commit) < DIGITS or not commit.isalnum():
        # "(initial)": there is no commit yet.
        return None
    dirty = any(not line.startswith("#") for line in lines)
    return commit[:DIGITS] + ("+dirty" if dirty else "")


def _status(root: str) -> str | None:
    import subprocess

    # A hook of git's, such as pre-commit, sets GIT_DIR and GIT_INDEX_FILE to those of its own repository.
    env = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    # A `.git` that is no repository must not make git look further up.
    env |= {"GIT_OPTIONAL_LOCKS": "0", "GIT_CEILING_DIRECTORIES": os.path.dirname(root), "LC_ALL": "C"}
    # fsmonitor names a program that `git status` runs.
    words = ["git", "-C", root, "-c", "core.fsmonitor=false", "status", "--porcelain=v2", "--branch"]
    try:
        done = subprocess.run(
            [*words, "--untracked-files=normal"], env=env, stdin=subprocess.DEVNULL, capture_output=True,
            timeout=PATIENCE_S, check=False,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.decode("utf-8", "replace") if done.returncode == 0 else None
