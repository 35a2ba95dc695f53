"""The process that watches a detached container: started by `Engine`, it outlives the command line.

    python -P -m argosy.engine.monitor PLACES ID LOCK-FD TELL-FD ROOTLESS

It tells `started`, or the exit code and the reason why not, through the descriptor it was given.
"""

from __future__ import annotations

import json
import os
import sys

from argosy.engine.container import Container
from argosy.engine.invoke import EXIT_ENGINE, InvocationError
from argosy.engine.places import Places
from argosy.engine.run import Engine
from argosy.errors import ArgosyError


def main(argv: list[str]) -> int:
    """Watch one container to its end.

    Returns:
        The container's exit code; nobody asks for it but a person at a debugger.
    """
    data, run, runtime = json.loads(argv[0])
    places = Places(data=data, run=run, runtime=tuple(runtime))
    lock, tell = int(argv[2]), int(argv[3])
    for fd in (lock, tell):
        os.set_inheritable(fd, False)
    container = Container.load(places, argv[1])
    container.lock = lock
    told: list[bytes] = []

    def answer(data: bytes) -> None:
        if not told:
            told.append(data)
            os.write(tell, data)
            os.close(tell)

    engine = Engine(places, rootless=argv[4] == "1")
    try:
        return engine.watch(container, lambda: answer(b"started"), detached=True)
    except InvocationError as exc:
        answer(json.dumps([exc.exit_code, str(exc)]).encode())
    except (ArgosyError, OSError) as exc:
        answer(json.dumps([EXIT_ENGINE, str(exc)]).encode())
    return EXIT_ENGINE


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
