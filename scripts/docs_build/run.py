"""Fills the generated parts of the documents, builds the site and writes the manual pages; see scripts/docs."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

import blocks
import man

ROOT = Path(__file__).parent.parent.parent
CONFIG = ROOT / "docs" / "site" / "mkdocs.yml"


def pages() -> list[Path]:
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def stale() -> list[Path]:
    """The pages whose generated parts are not what the code says now."""
    return [page for page in pages() if blocks.filled(page.read_text()) != page.read_text()]


def mkdocs(*words: str) -> int:
    # Both are advertisements of other projects in the middle of the build's own messages.
    quiet = {"NO_MKDOCS_2_WARNING": "1", "DISABLE_MKDOCS_2_WARNING": "true"}
    command = [sys.executable, "-m", "mkdocs", *words, "--config-file", str(CONFIG), "--strict"]
    return subprocess.run(command, env={**os.environ, **quiet}, check=False).returncode


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/docs", description=__doc__)
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--serve", action="store_true", help="show the site, and build it again when a page changes")
    what.add_argument("--write", action="store_true", help="write the generated parts anew")
    what.add_argument("--check", action="store_true", help="compare the generated parts with the code")
    what.add_argument("--site", type=Path, metavar="DIR", help="build the site there, with the pages as they are")
    what.add_argument("--record", type=Path, metavar="PAGE", help="run the page's commands, write what they print now")
    what.add_argument("--man", type=Path, metavar="DIR", help="write the manual pages there")
    options = parser.parse_args()
    if options.man:
        man.write(options.man)
        return 0
    if options.record:
        import record

        record.record(options.record)
        return 0
    if options.site:
        return mkdocs("build", "--clean", "--site-dir", str(options.site.absolute()))
    old = stale()
    if options.check:
        for page in old:
            print(f"{page.relative_to(ROOT)} is not what the code says now: run scripts/docs --write", file=sys.stderr)
        return 1 if old else 0
    for page in old:
        page.write_text(blocks.filled(page.read_text()))
        print(f"wrote {page.relative_to(ROOT)}", file=sys.stderr)
    if options.write:
        return 0
    return mkdocs("serve") if options.serve else mkdocs("build", "--clean")


if __name__ == "__main__":
    sys.exit(main())
