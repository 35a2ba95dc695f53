"""`argosy serve` under a profiler.

python bench/profiled_server.py DATA PORT OUT; SIGUSR1 to the worker writes OUT.
"""

from __future__ import annotations

import cProfile
import os
import signal
import sys

from argosy.server.app import App
from argosy.server.assemble import build
from argosy.server.serve import serve
from argosy.server.settings import Listen, Log, Settings
from argosy.server.team import Seat


def profiled(settings: Settings, seat: Seat) -> App:
    """The registry's application, profiled from when it is made in a worker."""
    app = build(settings, seat)
    if os.getpid() != int(os.environ["ARGOSY_BENCH_MAIN"]):
        profile = cProfile.Profile()
        signal.signal(signal.SIGUSR1, lambda *_: profile.dump_stats(os.environ["ARGOSY_BENCH_OUT"]))
        profile.enable()
    return app


def main(data: str, port: str, out: str) -> None:
    """Serve until SIGTERM."""
    os.environ |= {"ARGOSY_BENCH_MAIN": str(os.getpid()), "ARGOSY_BENCH_OUT": out}
    settings = Settings(data=data, listen=Listen(port=int(port), workers=1), log=Log(access=False))
    serve(settings, build=profiled)


if __name__ == "__main__":
    main(*sys.argv[1:])
