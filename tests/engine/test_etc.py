"""The name servers a container is told of."""

from __future__ import annotations

import pathlib

import pytest

from argosy.engine import etc
from argosy.engine.options import RunOptions

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
