"""Real services that tests start for themselves: PostgreSQL and an S3 server, each private, each ended by its pid."""

from __future__ import annotations

import contextlib
import glob
import itertools
import os
import pathlib
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator

import psycopg
import pytest
from obstore.store import S3Store

from argosy.server.metadata.postgresql import migrate
from argosy.server.storage.objects import s3
from tests.conftest import find_peer

_USER = "nobody"
_DEADLINE = 30.0


def free_port() -> int:
    """A port of the loopback address nobody listens on now."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def stop(process: subprocess.Popen[bytes], how: int = signal.SIGTERM) -> int:
    """End a process that a test started and wait for it."""
    if process.poll() is None:
        process.send_signal(how)
        try:
            process.wait(_DEADLINE)
        except subprocess.TimeoutExpired:
            process.kill()
    return process.wait()


def _find_postgresql() -> str:
    found = sorted(glob.glob("/usr/lib/postgresql/*/bin/initdb"), reverse=True)
    path = found[0] if found else shutil.which("initdb")
    if path is None or not os.path.exists(os.path.join(os.path.dirname(path), "postgres")):
        pytest.skip("peer postgresql: not installed")
    return os.path.dirname(path)


class PostgresqlCluster:
    """A cluster in a temporary directory that listens on a Unix socket there and nowhere else."""

    def __init__(self, directory: pathlib.Path) -> None:
        binaries = _find_postgresql()
        self._directory = directory
        self._numbers = itertools.count()
        as_root = os.geteuid() == 0
        self._who: dict[str, object] = {}
        if as_root:
            user = pwd.getpwnam(_USER)
            os.chown(directory, user.pw_uid, user.pw_gid)
            self._who = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
        data = directory / "data"
        self._run(
            [
                f"{binaries}/initdb",
                "-D",
                str(data),
                "-U",
                "argosy",
                "-A",
                "trust",
                "-E",
                "UTF8",
                "-N",
            ]
        )
        self._command = [
            f"{binaries}/postgres", "-D", str(data), "-k", str(directory), "-c", "listen_addresses=",
            "-c", "max_connections=100", "-c", "shared_buffers=32MB", "-c", "deadlock_timeout=50ms",
            "-c", "fsync=off",
        ]  # fmt: skip
        self.start()
        with self.connect("postgres") as connection:
            connection.execute("CREATE DATABASE template_argosy")
        migrate(self.dsn("template_argosy"))

    def start(self) -> None:
        """Begin it, again too; it answers when this returns."""
        self.process = subprocess.Popen(  # type: ignore[call-overload]
            self._command,
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, cwd="/", **self._who,
        )  # fmt: skip
        self._wait()

    def _run(self, command: list[str]) -> None:
        subprocess.run(command, check=True, capture_output=True, cwd="/", **self._who)  # type: ignore[call-overload]

    def _wait(self) -> None:
        """Read what the server says until it says that it is ready; go on reading, so that it never blocks."""
        said = []
        assert self.process.stderr is not None
        for line in self.process.stderr:
            said.append(line)
            if b"ready to accept connections" in line:
                break
        else:
            raise AssertionError(b"".join(said).decode())
        threading.Thread(target=self.process.stderr.read, daemon=True).start()

    def dsn(self, database: str) -> str:
        return f"host={self._directory} user=argosy dbname={database}"

    def connect(self, database: str) -> psycopg.Connection[tuple[object, ...]]:
        return psycopg.connect(self.dsn(database), autocommit=True)

    def empty(self) -> str:
        """The connection string of a new database without a schema."""
        return self._create("template0")

    def database(self) -> str:
        """The connection string of a new database with the schema."""
        return self._create("template_argosy")

    def _create(self, template: str) -> str:
        name = f"test_{next(self._numbers)}"
        with self.connect("postgres") as connection:
            connection.execute(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy")
        return self.dsn(name)

    @contextlib.contextmanager
    def silent(self) -> Iterator[None]:
        """It and all its processes are stopped for the length of the block: nobody gets an answer."""
        main = self.process.pid
        tasks = pathlib.Path(f"/proc/{main}/task/{main}/children")
        stopped: list[int] = []
        try:
            for pid in (main, *map(int, tasks.read_text().split())):
                os.kill(pid, signal.SIGSTOP)
                stopped.append(pid)
            yield
        finally:
            for pid in stopped:
                os.kill(pid, signal.SIGCONT)

    def stop(self, how: int = signal.SIGINT) -> None:
        """End it: SIGINT breaks transactions off, SIGQUIT tidies nothing up."""
        stop(self.process, how)
        assert self.process.stderr is not None
        self.process.stderr.close()


@contextlib.contextmanager
def postgresql_cluster() -> Iterator[PostgresqlCluster]:
    """A cluster for the length of the block."""
    with tempfile.TemporaryDirectory(prefix="argosy-pg-") as directory:
        cluster = PostgresqlCluster(pathlib.Path(directory))
        try:
            yield cluster
        finally:
            cluster.stop()


class S3Server:
    """A VersityGW over a temporary directory: an S3 server that checks signatures and writes files."""

    access_key = "argosytest"
    secret_key = "argosytestsecret"

    def __init__(self, directory: pathlib.Path) -> None:
        self._directory = directory / "buckets"
        self._directory.mkdir()
        self._numbers = itertools.count()
        self.port = free_port()
        self.endpoint = f"http://127.0.0.1:{self.port}"
        program = find_peer("versitygw")
        self._command = [
            program, "--port", f"127.0.0.1:{self.port}", "--access", self.access_key,
            "--secret", self.secret_key, "--health", "/health", "--quiet",
            "posix", "--sidecar", str(directory / "sidecar"), str(self._directory),
        ]  # fmt: skip
        self._log_path = directory / "log"
        self.start()

    def start(self) -> None:
        """Begin it, again too; it answers when this returns."""
        self._log = open(self._log_path, "ab")  # noqa: SIM115
        self.process = subprocess.Popen(self._command, stdout=self._log, stderr=self._log)
        self._wait()

    def _wait(self) -> None:
        give_up = threading.Event()
        for _ in range(300):
            assert self.process.poll() is None, pathlib.Path(self._log.name).read_text()
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{self.endpoint}/health"):
                return
            give_up.wait(0.05)
        raise AssertionError("the S3 server is not ready")

    def bucket(self) -> str:
        """The name of a new, empty bucket."""
        name = f"bucket-{next(self._numbers)}"
        (self._directory / name).mkdir()
        return name

    def store(self, bucket: str, **more: object) -> S3Store:
        return s3(
            bucket,
            endpoint=self.endpoint,
            access_key=self.access_key,
            secret_key=self.secret_key,
            **more,  # type: ignore[arg-type]
        )

    def stop(self, how: int = signal.SIGTERM) -> None:
        stop(self.process, how)
        self._log.close()


@contextlib.contextmanager
def s3_server() -> Iterator[S3Server]:
    """An S3 server for the length of the block."""
    with tempfile.TemporaryDirectory(prefix="argosy-s3-") as name:
        directory = pathlib.Path(name)
        (directory / "sidecar").mkdir()
        server = S3Server(directory)
        try:
            yield server
        finally:
            server.stop()
