"""The files of /etc that say where a container is: its hosts, its name, its name servers."""

from __future__ import annotations

import os

from argosy.engine.container import Container
from argosy.engine.options import RunOptions, parse_host

_HOSTS = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n"
_OWN_HOSTS = "/etc/hosts"
_MAX = 65536
_LOOPBACK = ("nameserver 127.", "nameserver ::1")
_RESOLV = "/etc/resolv.conf"
_STUBBED = "/run/systemd/resolve/resolv.conf"
"""The name servers behind systemd-resolved, which puts none but itself, on loopback, into the other file."""


def write(container: Container, options: RunOptions) -> dict[str, str]:
    """Write `/etc/hosts`, `/etc/hostname` and `/etc/resolv.conf` for a container.

    Returns:
        What is to be mounted: the path in the container, and the file of the host.
    """
    hostname = options.hostname_of(container.id)
    hosts = _hosts(options)
    if options.hostname or options.network != "host":
        hosts += f"{container.record.address or '127.0.1.1'}\t{hostname}\n"
    for entry in options.add_hosts:
        host, address = parse_host(entry, options.network)
        hosts += f"{address}\t{host}\n"
    written = {
        "/etc/hosts": hosts,
        "/etc/hostname": f"{hostname}\n",
        "/etc/resolv.conf": _resolv(options),
    }
    found = {}
    for place, text in written.items():
        path = container.write(os.path.basename(place), text.encode("utf-8", "surrogateescape"))
        os.chmod(path, 0o644)
        found[place] = path
    return found


def _hosts(options: RunOptions) -> str:
    """In the host's network what it calls others counts."""
    lines = _lines(_OWN_HOSTS) if options.network == "host" else []
    return "".join(f"{line}\n" for line in lines) or _HOSTS


def _resolv(options: RunOptions) -> str:
    """The host's name servers, but for those that only the host can reach."""
    if options.dns:
        return "".join(f"nameserver {server}\n" for server in options.dns)
    lines = _lines(_RESOLV)
    if options.network not in ("host", "none"):
        elsewhere = [line for line in lines if not line.startswith(_LOOPBACK)]
        if not any(line.startswith("nameserver") for line in elsewhere):
            elsewhere = _lines(_STUBBED) or elsewhere
        lines = elsewhere
    return "".join(f"{line}\n" for line in lines)


def _lines(path: str) -> list[str]:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read(_MAX).splitlines()
    except OSError:
        return []
