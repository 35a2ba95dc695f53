"""Serving: Granian, its workers, signals, and certificates that change.

The main process binds the socket and watches over the workers; SIGTERM and SIGINT let the bodies under way finish,
SIGHUP and a changed certificate begin new workers and let the old ones finish, where new ones can serve.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import functools
import gc
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

from granian.constants import HTTPModes, Interfaces, Loops
from granian.http import HTTP1Settings, HTTP2Settings
from granian.log import LogLevels

from argosy.errors import ArgosyError, StorageError, UsageError
from argosy.server import marker
from argosy.server.app import App
from argosy.server.assemble import build, fold_metadata
from argosy.server.certificates import Copy
from argosy.server.connections import HEADERS, STREAMS, capacity, make_room
from argosy.server.curfew import CURFEW
from argosy.server.mainloop import HURRY, Main
from argosy.server.settings import Settings, Tls
from argosy.server.team import Seat, Team, assembled

Build = Callable[[Settings, Seat], App]
Ready = Callable[[str], None]
log = logging.getLogger("argosy.server")

_WORKERS = 4
"""More are started only where somebody asks for them: the database is written to by one at a time."""


_BODIES = 0.8
"""Of the time there is for a stop; what is left then is for keeping what came."""
_PR_SET_PDEATHSIG = 1
_PAUSE, _ATTEMPTS = 0.005, 200
_AGAIN_SECONDS, _WAIT_SECONDS = 60, 5
_NETWORK = "tokio"
"""What the names of the threads begin with that receive and send."""
_MALLOPT = {-1: 256 << 20, -2: 16 << 20, -3: 32 << 20}
"""M_TRIM_THRESHOLD, M_TOP_PAD and M_MMAP_THRESHOLD of malloc.h, in bytes."""


def serve(settings: Settings, on_ready: Ready = lambda _url: None, *, build: Build = build) -> None:
    """Serve until SIGTERM or SIGINT.

    Args:
        settings: What was configured.
        on_ready: Called with the registry's URL by the first worker that takes requests.
        build: Makes the application in a worker. A function of a module, because workers may be spawned.

    Raises:
        UsageError: the host's name has no address.
        StorageError: the address cannot be bound, the application cannot be made, or the storage is away.
        InvalidConfigError: a file that is configured is wrong.
    """
    copy = _try_out(build, settings)
    workers = _workers(settings)
    make_room(settings.limits)
    with (
        _leaving_on_stop(),
        _reserved(settings.listen.host, settings.listen.port) as held,
        assembled(settings.data, workers) as team,
    ):
        address, port, *_ = held.getsockname()
        server = _granian(settings, workers, address, port)
        if settings.listen.tls is not None:
            _watch(settings.listen.tls)
        _show(server, copy)
        server.on_startup(functools.partial(_guard_reload, server, build, settings))
        loader = functools.partial(_load, build, settings, team, port, on_ready, os.getpid())
        os.register_at_fork(before=_hold_stop, after_in_parent=_let_stop, after_in_child=_hear_stop)
        try:
            server.run(loader)
        finally:
            fold_metadata(settings)


def _try_out(build: Build, settings: Settings) -> Copy | None:
    """Make what a worker makes, and let it go: what is wrong is said here, not in one that is begun again and again.

    Returns:
        The certificate's files as they are now.

    Raises:
        ArgosyError: a worker could not serve.
    """
    copy = Copy(settings.listen.tls) if settings.listen.tls is not None else None
    registry = build(settings, Seat()).registry
    try:
        # the threads of an object store's client would not survive the fork
        if settings.storage.type == "filesystem":
            marker.require(registry.metadata, registry.storage)
    finally:
        registry.metadata.close()
    return copy


def _show(server: Any, copy: Copy | None) -> None:
    """Have the workers that begin from now on show this certificate: they read it when they do, each at its time.

    Granian is not given the copy's names before, because it would resolve them, and they lead nowhere.
    """
    if copy is not None:
        is_on, _, _, password, protocol, _, revoked, verify = server.ssl_ctx
        tls = copy.tls
        names = (tls.certificate, tls.key, password, protocol, tls.client_ca)
        server.ssl_ctx = (is_on, *names, revoked, verify)
        # a worker that begins this moment still reads the one before
        _copies[:] = [*_copies[-1:], copy]


_copies: list[Copy] = []


def _guard_reload(server: Any, build: Build, settings: Settings) -> None:
    """Let SIGHUP begin new workers only where they could serve: else those there are go on, and it is tried again.

    The HTTP server ends when new workers fail, and with it would the good ones: for half a new certificate, or a
    mistake in a file of users.
    """
    reload: Any = signal.getsignal(signal.SIGHUP)

    def hear(*heard: object) -> None:
        signal.alarm(0)
        try:
            _show(server, _try_out(build, settings))
        except Exception as exc:  # noqa: BLE001  # nothing may end what serves
            problem = str(exc) or repr(exc)
            log.error("going on as before; trying again in %d s: %s", _AGAIN_SECONDS, problem)
            signal.alarm(_AGAIN_SECONDS)
        else:
            reload(*heard)

    signal.signal(signal.SIGHUP, hear)
    signal.signal(signal.SIGALRM, hear)


@contextlib.contextmanager
def _leaving_on_stop() -> Iterator[None]:
    """Until the HTTP server hears SIGTERM itself, take it for the end: what was made is removed again."""

    def leave(*_: object) -> None:
        raise SystemExit(0)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _hold_stop() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})


def _let_stop() -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})


def _hear_stop() -> None:
    """A forked worker has the main process' handlers: told to stop before it serves, it never would, and a reload is
    none of its business."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    _let_stop()


def _reserved(host: str, port: int) -> socket.socket:
    """Bind the address without listening: the port is known and ours, and the workers' sockets share it.

    Nobody else gets it from the first moment on: of two registries that shared a port, each would get half of the
    requests. A shared bind would not notice another's, so there is one that listens first; and it lets go only when
    the one that stays is there, which from then on is as little to be shared as that.

    A name is looked up once, here, and the first of its addresses is the one.

    Raises:
        UsageError: the name has no address.
        StorageError: somebody else has it, or it is none of this machine.
    """
    try:
        family, _, _, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError) as exc:
        raise UsageError(f"cannot listen on {host}: it has no address") from exc
    try:
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(place)
            probe.listen(1)
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            held = socket.socket(family)
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            held.bind(probe.getsockname())
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
    except OSError as exc:
        raise StorageError(f"cannot listen on {host}:{port}: {exc.strerror}") from exc
    return held


_LOGGING = {
    "handlers": {
        "stderr": {
            "class": "logging.StreamHandler",
            "formatter": "generic",
            "stream": "ext://sys.stderr",
        }
    },
    "loggers": {"_granian": {"handlers": ["stderr"], "propagate": False}},
}
"""Warnings of the HTTP server go to stderr: what a script reads on stdout is the URL alone."""


def _granian(settings: Settings, workers: int, address: str, port: int) -> Main:
    listen, tls = settings.listen, settings.listen.tls
    return Main(
        "argosy.server.serve:serve",
        address=address,
        port=port,
        interface=Interfaces.ASGI,
        workers=workers,
        loop=Loops.asyncio,
        http=HTTPModes.auto,
        websockets=False,
        backlog=1024,
        backpressure=capacity(settings.limits),
        http1_settings=HTTP1Settings(header_read_timeout=30_000),
        http2_settings=HTTP2Settings(max_concurrent_streams=STREAMS, max_headers_size=HEADERS),
        log_enabled=True,
        log_level=LogLevels.warning,
        log_dictconfig=_LOGGING,
        log_access=False,
        respawn_failed_workers=True,
        respawn_interval=1.0,
        workers_kill_timeout=max(1, round(listen.shutdown_seconds)),
        ssl_cert=Path(tls.certificate) if tls else None,
        ssl_key=Path(tls.key) if tls else None,
        ssl_ca=Path(tls.client_ca) if tls and tls.client_ca else None,
        ssl_client_verify=bool(tls and tls.client_ca),
    )


def _load(
    build: Build, settings: Settings, team: Team | None, port: int, on_ready: Ready, main: int
) -> App:
    _end_with(main)
    _keep_memory()
    seat = Seat(team)
    app = _built(build, settings, seat)
    gc.freeze()  # what is there to the end need not be looked through for garbage again and again

    def ready() -> None:
        loop, left = asyncio.get_running_loop(), settings.listen.shutdown_seconds * _BODIES
        loop.add_signal_handler(HURRY, loop.call_later, left, CURFEW.begin)
        _soon(_keep_to_cpu(seat, settings))
        _soon(_announce(settings, port, lambda url: on_ready(url) if seat.is_first() else None))

    app.on_ready = ready
    return app


def _built(build: Build, settings: Settings, seat: Seat) -> App:
    """The application, as soon as it can be made. It could be a moment ago: the only worker would end the registry
    if it gave up now, and another one would be begun again once a second."""
    while True:
        try:
            return build(settings, seat)
        except ArgosyError as exc:
            log.error("a worker waits: %s", exc)
            time.sleep(_WAIT_SECONDS)


def _end_with(main: int) -> None:
    """Have a worker stop when the main process is killed: it would hold the port, and nobody could stop it."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != main:
        os.kill(os.getpid(), signal.SIGTERM)


def _workers(settings: Settings) -> int:
    return settings.listen.workers or min(_WORKERS, len(os.sched_getaffinity(0)))


async def _keep_to_cpu(seat: Seat, settings: Settings) -> None:
    """Where every CPU has a worker, the threads of a worker that run Python share one.

    What they hand each other, the interpreter's lock first of all, then never waits for another CPU to wake up, which
    is a fifth of what an upload of a megabyte costs. The HTTP server's own thread needs no interpreter and goes where
    there is room. Threads that begin later stay with those that begin them.
    """
    cpus = sorted(os.sched_getaffinity(0))
    if not 1 < len(cpus) <= _workers(settings):
        return
    for _ in range(_ATTEMPTS):
        names = {task: _name(task) for task in os.listdir("/proc/self/task")}
        if any(name.startswith(_NETWORK) for name in names.values()):
            break
        await asyncio.sleep(_PAUSE)
    for task, name in names.items():
        if not name.startswith(_NETWORK):
            with contextlib.suppress(OSError):
                os.sched_setaffinity(int(task), {cpus[seat.place % len(cpus)]})


def _name(task: str) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/self/task/{task}/comm").read_text()
    return ""


def _keep_memory() -> None:
    """Have glibc keep what bodies are received into. Left alone, it gives each back to the kernel and fetches the next
    anew, page by page, which is a fifth of what an upload of a megabyte costs. Other C libraries do not know it."""
    with contextlib.suppress(AttributeError, OSError):
        mallopt = ctypes.CDLL(None).mallopt
        for option, value in _MALLOPT.items():
            mallopt(option, value)


async def _announce(settings: Settings, port: int, on_ready: Ready) -> None:
    """Say that the registry is ready when it takes connections, a moment after the application has started."""
    host = settings.listen.host
    scheme = "https" if settings.listen.tls else "http"
    where = f"[{host}]" if ":" in host else host
    async with asyncio.timeout(30):
        while True:
            try:
                _, writer = await asyncio.open_connection(host, port)
            except OSError:
                await asyncio.sleep(_PAUSE)
            else:
                writer.close()
                return on_ready(f"{scheme}://{where}:{port}")


def _soon(work: Coroutine[Any, Any, None]) -> None:
    task = asyncio.ensure_future(work)
    _tasks.add(task)
    task.add_done_callback(_tasks.discard)


_tasks: set[asyncio.Future[None]] = set()


def _watch(tls: Tls) -> None:
    """Ask for new workers when a certificate file changed; they read it anew."""
    files = [tls.certificate, tls.key, *([tls.client_ca] if tls.client_ca else [])]

    def stamps() -> list[int]:
        return [os.stat(file).st_mtime_ns for file in files]

    def run() -> None:
        seen = stamps()
        while True:
            stop.wait(1)
            try:
                now = stamps()
            except OSError:  # being replaced
                continue
            if now != seen:
                seen = now
                os.kill(os.getpid(), signal.SIGHUP)

    stop = threading.Event()
    threading.Thread(target=run, name="argosy-certificates", daemon=True).start()
