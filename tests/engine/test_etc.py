"""The names and name servers a container is told of."""

from __future__ import annotations

import os
import pathlib

import pytest

from argosy.engine import etc
from argosy.engine.container import Container
from argosy.engine.options import RunOptions
from argosy.engine.places import Places

STUB = "# stub\nnameserver 127.0.0.53\noptions edns0\nsearch ship\n"
BEHIND = "nameserver 192.0.2.1\nsearch ship\n"


@pytest.mark.parametrize(
    ("ours", "behind", "network", "told"),
    [
        (STUB, BEHIND, "bridge", BEHIND),
        (STUB, BEHIND, "pasta", BEHIND),
        (STUB, BEHIND, "host", STUB),
        (STUB, None, "bridge", STUB.replace("nameserver 127.0.0.53\n", "")),
        (f"nameserver 192.0.2.9\n{STUB}", BEHIND, "bridge",
         f"nameserver 192.0.2.9\n{STUB}".replace("nameserver 127.0.0.53\n", "")),
        (None, None, "bridge", ""),
    ],
)  # fmt: skip
def test_where_only_the_host_reaches_the_name_server_those_behind_it_are_told(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch,
    ours: str | None, behind: str | None, network: str, told: str,
) -> None:  # fmt: skip
    for name, text in (("_RESOLV", ours), ("_STUBBED", behind)):
        monkeypatch.setattr(etc, name, str(tmp_path / name))
        if text is not None:
            (tmp_path / name).write_text(text)
    assert etc._resolv(RunOptions(network=network)) == told


@pytest.mark.parametrize(
    ("network", "hostname", "hosts", "name"),
    [
        ("host", "", "192.0.2.7 build\n192.0.2.8\tdb\n", os.uname().nodename),
        ("host", "web", "192.0.2.7 build\n127.0.1.1\tweb\n192.0.2.8\tdb\n", "web"),
        ("none", "web", etc._HOSTS + "127.0.1.1\tweb\n192.0.2.8\tdb\n", "web"),
    ],
)
def test_in_the_network_of_the_host_a_container_has_its_names(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch,
    network: str, hostname: str, hosts: str, name: str,
) -> None:  # fmt: skip
    (tmp_path / "own").write_text("192.0.2.7 build\n")
    monkeypatch.setattr(etc, "_OWN_HOSTS", str(tmp_path / "own"))
    places = Places(data=str(tmp_path), run=str(tmp_path), runtime=())
    places.make()
    options = RunOptions(network=network, hostname=hostname, add_hosts=("db:192.0.2.8",))
    container = Container.make(places, options, image="i", digest="d", detached=True)
    written = etc.write(container, options)
    assert pathlib.Path(written["/etc/hosts"]).read_text() == hosts
    assert pathlib.Path(written["/etc/hostname"]).read_text() == f"{name}\n"
    assert options.hostname_of(container.id) == name
    container.release()
