"""Other people's clients against our registry: without users, with tokens, with passwords alone, and over TLS."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from typing import IO

import pytest

from argosy.layout.store import LayoutStore
from argosy.spec.digest import Digest
from argosy.testing import random
from tests.server.certificates import certificate
from tests.server.doors import PASSWORD, htpasswd
from tests.server.replicas import Running, running

pytestmark = pytest.mark.peer

Peer = Callable[[str], str]
USER = "ann"


class Client:
    """One client's words for pushing, pulling, listing and deleting."""

    def __init__(self, program: str, directory: pathlib.Path, server: Running, user: str) -> None:
        self.program, self.directory = program, directory
        self.host, self.user = server.address, user
        self.https = server.url.startswith("https")
        self.env = {**os.environ, "HOME": str(directory), "XDG_RUNTIME_DIR": str(directory)}
        self.env["DOCKER_CONFIG"] = str(directory)

    def __call__(self, *words: object, fails: bool = False, stdin: IO[bytes] | None = None) -> str:
        done = subprocess.run(
            [self.program, *map(str, words)],
            stdin=stdin or subprocess.DEVNULL,
            env=self.env,
            cwd=self.directory,
            capture_output=True,
            text=True,
            check=False,
        )
        said = done.stdout + done.stderr
        assert (done.returncode != 0) == fails, f"{words}: {done.returncode}\n{said}"
        return said if fails else done.stdout

    def at(self, name: str) -> str:
        return f"{self.host}/{name}"


def skopeo(do: Client, layout: pathlib.Path) -> None:
    creds = [f"--{{}}creds={USER}:{PASSWORD}"] if do.user else []
    src, dest, plain = ([c.format(w) for c in creds] for w in ("src-", "dest-", ""))
    place = f"docker://{do.at('team/app')}"
    do("copy", "--dest-tls-verify=false", *dest, f"oci:{layout}:v1", f"{place}:v1")
    do("copy", "--all", "--dest-tls-verify=false", *dest, f"oci:{layout}:multi", f"{place}:multi")
    do("copy", "--src-tls-verify=false", *src, f"{place}:v1", f"dir:{do.directory}/pulled")
    listed = json.loads(do("list-tags", "--tls-verify=false", *plain, place))
    assert listed["Tags"] == ["multi", "v1"]
    do("copy", "--src-tls-verify=false", "--dest-tls-verify=false", *src, *dest, f"{place}:v1", f"docker://{do.at('team/other')}:v1")  # fmt: skip
    do("delete", "--tls-verify=false", *plain, f"{place}:v1")
    do("inspect", "--tls-verify=false", *plain, f"{place}:v1", fails=True)
    if do.user:
        assert "without credentials" in do(
            "inspect", "--tls-verify=false", f"{place}:multi", fails=True
        )


def crane(do: Client, layout: pathlib.Path) -> None:
    plain = ["--insecure"]
    place = do.at("team/app")
    if do.user:
        do("auth", "login", do.host, "-u", USER, "-p", PASSWORD)
    do("push", layout.parent / "single", f"{place}:v1", *plain)
    digest = do("digest", f"{place}:v1", *plain).strip()
    do("pull", f"{place}:v1", do.directory / "again.tar", *plain)
    do("copy", f"{place}:v1", f"{do.at('team/other')}:v1", *plain)
    assert do("ls", place, *plain).split() == ["v1"]
    assert "team/other" in do("catalog", do.host, *plain)
    do("tag", f"{place}:v1", "v2", *plain)
    assert do("ls", place, *plain).split() == ["v1", "v2"]
    do("validate", "--remote", f"{place}:v1", *plain)
    do("delete", f"{place}@{digest}", *plain)
    do("manifest", f"{place}:v1", *plain, fails=True)


def oras(do: Client, layout: pathlib.Path) -> None:
    del layout
    plain = ["--insecure"] if do.https else ["--plain-http"]
    place = do.at("team/artifact")
    if do.user:
        do("login", do.host, "-u", USER, "-p", PASSWORD, *plain)
    (do.directory / "note.txt").write_text("hello")
    do("push", *plain, f"{place}:v1", "note.txt:text/plain")
    (do.directory / "sig.txt").write_text("signed")
    do("attach", *plain, "--artifact-type", "example/sig", f"{place}:v1", "sig.txt:text/plain")
    found = json.loads(do("discover", *plain, "--format", "json", f"{place}:v1"))
    entries = found.get("referrers") or found.get("manifests")
    assert [entry["artifactType"] for entry in entries] == ["example/sig"]
    out = do.directory / "out"
    out.mkdir()
    do("pull", *plain, "-o", out, f"{place}:v1")
    assert (out / "note.txt").read_text() == "hello"
    assert do("repo", "tags", *plain, place).split() == ["v1"]
    do("manifest", "delete", *plain, "--force", f"{place}:v1")
    do("pull", *plain, f"{place}:v1", fails=True)


def regctl(do: Client, layout: pathlib.Path) -> None:
    do("registry", "set", do.host, "--skip-check", "--tls", "insecure" if do.https else "disabled")
    if do.user:
        do("registry", "login", do.host, "-u", USER, "-p", PASSWORD)
    place = do.at("team/app")
    do("image", "copy", f"ocidir://{layout}:multi", f"{place}:multi")
    do("image", "copy", f"{place}:multi", f"{do.at('team/other')}:multi")
    do("image", "check-base", f"{place}:multi", fails=True)
    assert do("tag", "ls", place).split() == ["multi"]
    blob = do.directory / "blob"
    blob.write_bytes(b"0123456789" * 300_000)
    with blob.open("rb") as content:
        digest = do("blob", "put", place, stdin=content).strip()
    assert digest == Digest.of(blob.read_bytes())
    assert len(do("blob", "get", place, digest)) == 3_000_000
    do("tag", "rm", f"{place}:multi")
    assert do("tag", "ls", place).split() == []


def containers(do: Client, layout: pathlib.Path) -> None:
    with tempfile.TemporaryDirectory(prefix="run-", dir="/tmp") as run:  # podman wants a short one
        base = ["--root", do.directory / "store", "--runroot", run, "--storage-driver", "vfs"]
        try:
            _containers(do, base, layout)
        finally:
            do(*base, "rmi", "-f", "-a")


def _containers(do: Client, base: Sequence[object], layout: pathlib.Path) -> None:
    creds = [f"--creds={USER}:{PASSWORD}"] if do.user else []
    place = do.at("team/app")
    identity = do(*base, "pull", "-q", f"oci:{layout}:v1").split()[-1]
    do(*base, "push", "--tls-verify=false", *creds, identity, f"docker://{place}:v1")
    do(*base, "rmi", "-f", identity)
    do(*base, "pull", "--tls-verify=false", *creds, f"{place}:v1")
    if do.user:
        do(*base, "pull", "--tls-verify=false", f"{place}:other", fails=True)


CLIENTS: dict[str, Callable[[Client, pathlib.Path], None]] = {
    "skopeo": skopeo,
    "crane": crane,
    "oras": oras,
    "regctl": regctl,
    "podman": containers,
    "buildah": containers,
}


@pytest.fixture
def layout(tmp_path: pathlib.Path) -> pathlib.Path:
    """A layout with an image and an index of two; beside it `single`, with the image alone."""
    store = LayoutStore.create(str(tmp_path / "layout"))
    random.image(store, 1, "v1")
    random.index(store, 2, "multi")
    random.image(LayoutStore.create(str(tmp_path / "single")), 1, "v1")
    return tmp_path / "layout"


@pytest.fixture(params=["open", "tokens", "basic", "tls"])
def server(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> Iterator[tuple[Running, str]]:
    """A registry, and the user it wants (none where it is open)."""
    document: dict[str, object] = {"listen": {"port": 0}}
    if request.param != "open":
        tokens = {"enabled": request.param != "basic"}
        users = htpasswd(tmp_path, USER)
        document["access"] = {"htpasswd": users, "tokens": tokens, "fail_delay_seconds": 0}
    if request.param == "tls":
        document["listen"] = {"port": 0, "tls": certificate(tmp_path)}
    with running(tmp_path / "server", document) as made:
        yield made, USER if request.param != "open" else ""


@pytest.mark.parametrize("name", sorted(CLIENTS))
def test_a_client_pushes_pulls_and_deletes(
    name: str,
    server: tuple[Running, str],
    layout: pathlib.Path,
    tmp_path: pathlib.Path,
    peer: Peer,
) -> None:
    program = peer(name)
    if name in {"podman", "buildah"} and os.geteuid() != 0:
        pytest.skip(f"{name}: needs root here")
    home = tmp_path / "home"
    home.mkdir()
    (home / "config.json").write_text('{"auths":{}}')
    CLIENTS[name](Client(program, home, *server), layout)
    assert "Traceback" not in server[0].log()
