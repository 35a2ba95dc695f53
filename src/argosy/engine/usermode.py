"""A network for those who are not root: pasta, or slirp4netns, beside the container's network namespace."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import tempfile
from collections.abc import Sequence

from argosy.engine.command import TIMEOUT, program, run
from argosy.engine.options import Published
from argosy.errors import StorageError
from argosy.runtime import kernel as kernels

_PIN = "netns"


def start(kind: str, pid: int, published: Sequence[Published], directory: str) -> int | None:
    """Connect the network namespace of a created container.

    Args:
        kind: `pasta` or `slirp4netns`.
        pid: The container's init, in this process's PID namespace.
        published: The ports to lead in.
        directory: Where a control socket may be put.

    Returns:
        The helper's process id, to be ended with the container; None where it ends by itself.

    Raises:
        UnsupportedError: the program is not installed.
        StorageError: it failed.
    """
    if kind == "pasta":
        _pasta(pid, published, directory)
        return None
    return _slirp(pid, published)


def _pasta(pid: int, published: Sequence[Published], directory: str) -> None:
    argv = [
        program("pasta", "this network"),
        "--config-net",
        "--quiet",
        "--pid",
        os.path.join(directory, "pasta.pid"),
    ]
    for protocol, option in (("tcp", "-t"), ("udp", "-u")):
        ports = [
            f"{p.address + '/' if p.address else ''}{p.host_port}:{p.container_port}"
            for p in published
            if p.protocol == protocol
        ]
        argv += [option, ",".join(ports) or "none"]
    argv += ["-T", "none", "-U", "none", "--netns", _pinned(pid, directory)]
    run(argv)


def _pinned(pid: int, directory: str) -> str:
    """The network namespace as a file: pasta gives up its rights before it opens it, and /proc asks for them."""
    path = os.path.join(directory, _PIN)
    with open(path, "wb"):
        pass
    kernels.LinuxKernel().mount(
        f"/proc/{pid}/ns/net".encode(), os.fsencode(path), None, kernels.MS_BIND, None
    )
    return path


def _slirp(pid: int, published: Sequence[Published]) -> int:
    # The address of a Unix socket has at most 107 bytes, so it lies where names are short.
    with tempfile.TemporaryDirectory(prefix="argosy-") as folder, tempfile.TemporaryFile() as said:
        control = os.path.join(folder, "control")
        ready, tell = os.pipe()
        argv = [
            program("slirp4netns", "this network"), "--configure", "--mtu=65520", "--disable-host-loopback",
            "--ready-fd", str(tell), "--api-socket", control, str(pid), "tap0",
        ]  # fmt: skip
        null = subprocess.DEVNULL
        child = subprocess.Popen(argv, pass_fds=(tell,), stdin=null, stdout=null, stderr=said)
        os.close(tell)
        try:
            readable, _, _ = select.select([ready], [], [], TIMEOUT)
            if not readable or os.read(ready, 1) != b"1":
                said.seek(0)
                raise StorageError(f"slirp4netns did not start: {_last_line(said.read(4096))}")
            for port in published:
                _forward(control, port)
        except BaseException:
            child.kill()
            child.wait()
            raise
        finally:
            os.close(ready)
        return child.pid


def _last_line(data: bytes) -> str:
    lines = data.decode("utf-8", "replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")


def _forward(control: str, port: Published) -> None:
    request = {
        "execute": "add_hostfwd",
        "arguments": {
            "proto": port.protocol,
            "host_addr": port.address or "0.0.0.0",  # noqa: S104 - published to all, as asked
            "host_port": port.host_port,
            "guest_port": port.container_port,
        },
    }
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(TIMEOUT)
        connection.connect(control)
        connection.sendall(json.dumps(request).encode())
        connection.shutdown(socket.SHUT_WR)
        answer = connection.recv(65536)
    if b'"error"' in answer:
        raise StorageError(
            f"port {port} cannot be published: {answer.decode(errors='replace')[:200]}"
        )


def stop(pid: int | None, directory: str) -> None:
    """End a helper and let go of the namespace. Either may be gone already."""
    path = os.path.join(directory, _PIN)
    if os.path.exists(path):
        with contextlib.suppress(OSError):
            kernels.LinuxKernel().umount(os.fsencode(path), kernels.MNT_DETACH)
        os.unlink(path)
    if pid is None:
        return
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, 0)
