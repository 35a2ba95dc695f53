"""The `argosy` command: `python -m argosy` and the console script come in here."""

from __future__ import annotations

import gc
import os
import sys

GARBAGE = 50_000
"""Objects to make before garbage is looked for: 700, as Python has it, is a hundred times before a command begins."""


def main() -> None:
    """Run the command line and exit with its code.

    `--version` alone is answered without loading anything else, where stdout can be written.
    """
    if sys.argv[1:] in (["--version"], ["-V"]) and sys.stdout:
        from argosy._version import __version__

        try:  # past the buffer, in which what cannot be written would stay
            os.write(sys.stdout.fileno(), f"argosy {__version__}\n".encode())
        except OSError:  # the command line says it, and has an exit code for it
            pass
        else:
            return
    gc.set_threshold(GARBAGE)
    try:
        from argosy.cli.early import load_click

        load_click()
        from argosy.cli.main import run

        run(sys.argv[1:])
    except KeyboardInterrupt:  # before the command line listens, or when it has ended
        print("argosy: interrupted", file=sys.stderr)  # noqa: T201
        sys.exit(130)


if __name__ == "__main__":
    main()
