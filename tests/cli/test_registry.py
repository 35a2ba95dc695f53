"""`argosy serve` and `argosy registry …`."""

from __future__ import annotations

import asyncio
import functools
import json
import pathlib
import shutil
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from argosy.server import config
from argosy.server.metadata import Transaction, deliveries
from argosy.server.metadata.deliveries import DeadLetter
from argosy.server.metadata.sqlite import Sqlite
from argosy.server.storage.filesystem import FileSystem
from argosy.spec.digest import Digest
from tests.cli.conftest import Run
from tests.server.certificates import certificate
from tests.server.client import Clock, Server
from tests.server.receivers import Receiver
from tests.server.replicas import ask
from tests.server.services import stop


@pytest.fixture
def data(tmp_path: pathlib.Path) -> pathlib.Path:
    """A registry's directory with an image in it, pushed long ago."""
    root = tmp_path / "registry"
    root.mkdir()
    with Server(str(root)) as server:
        assert isinstance(server.clock, Clock)
        server.clock.now = 1_000_000.0
        server.push_image("team/app", "v1", b"layer")
        server.push_blob("team/app", b"nobody's")
    return root


def file(directory: pathlib.Path, **document: Any) -> pathlib.Path:
    path = directory / "registry.yaml"
    path.write_text(json.dumps(document))
    return path


def test_check_config_says_every_problem_on_its_own_line(
    argosy: Run, tmp_path: pathlib.Path
) -> None:
    path = file(tmp_path, listen={"prot": 1}, storage={"type": "floppy"})
    done = argosy("registry", "check-config", path, code=64)
    assert f"{path}:1: listen.prot: no such property" in done.err
    assert f"{path}:1: storage.type: 'floppy' is not one of" in done.err
    assert "2 problems" in done.err
    good = file(tmp_path, log={"level": "debug"})
    assert argosy("registry", "check-config", good).out == f"{good}: good\n"


def test_check_config_says_that_a_file_is_missing(argosy: Run, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "nope.yaml"
    done = argosy("registry", "check-config", path, code=2)
    assert done.err == f"argosy: {path}: no such file or directory\n"


def test_check_config_reads_what_the_file_names(argosy: Run, tmp_path: pathlib.Path) -> None:
    policy, users = tmp_path / "policy.yaml", tmp_path / "users"
    policy.write_text("rules:\n  - {repositories: ['**'], allow: [fly]}\n")
    users.write_text("bob:$apr1$md5\n")
    tls = certificate(tmp_path) | {"client_ca": str(tmp_path / "nowhere")}
    path = file(
        tmp_path,
        listen={"host": "0.0.0.0", "tls": tls},
        metadata={"type": "postgresql", "postgresql": {"dsn": "x"}},
        storage={"temporary": str(users)},
        access={"policy": str(policy), "htpasswd": str(users)},
    )
    said = argosy("registry", "check-config", path, code=64).err
    for problem in (
        f"{path}: listen.tls: {tmp_path}/nowhere: No such file",
        f"{path}: access.htpasswd: {users}:1: user 'bob': expected a bcrypt hash (make one with",
        f"{path}: access.policy: {policy}:2: rules.0.allow.0: 'fly' is not one of",
        f"{path}: access.tokens.key: expected a key",
        f"{path}: storage.temporary: temporary files in {users}: Not a directory",
        "5 problems",
    ):
        assert problem in said
    nobody = file(tmp_path, listen={"host": "0.0.0.0"})
    said = argosy("registry", "check-config", nobody, code=64).err
    assert "listen.host: on 0.0.0.0 nobody could do anything" in said


def test_the_schema_is_printed(argosy: Run) -> None:
    assert argosy("registry", "schema").out == config.published()


def test_stats_count_what_is_there(argosy: Run, data: pathlib.Path) -> None:
    assert argosy("registry", "stats", "--data", data, "--json").json["blobs"] == 3
    assert "manifests" in argosy("registry", "stats", "--data", data).out


def test_gc_says_what_it_would_do_and_then_does_it(argosy: Run, data: pathlib.Path) -> None:
    dry = argosy("registry", "gc", "--data", data, "--dry-run", "--json").json
    assert dry["collected"] == 1
    assert argosy("registry", "stats", "--data", data, "--json").json["blobs"] == 3
    assert argosy("registry", "gc", "--data", data, "--json").json["collected"] == 2
    assert argosy("registry", "stats", "--data", data, "--json").json["blobs"] == 2


def test_scrub_finds_damage_and_exits_with_4(argosy: Run, data: pathlib.Path) -> None:
    assert argosy("registry", "scrub", "--data", data, "--json").json["damaged"] == []
    storage = FileSystem(str(data / "blobs"), reserve=0)
    (victim,) = (k for k in storage.keys("b/") if b"".join(storage.read(k)) == b"layer")
    path = next(
        p for p in (data / "blobs").rglob("*") if p.is_file() and p.read_bytes() == b"layer"
    )
    assert victim.rpartition("/")[2] in str(path)
    path.chmod(0o600)
    path.write_bytes(b"LAYER")
    found = argosy("registry", "scrub", "--data", data, "--json", code=4)
    assert found.json["damaged"] == [Digest.of(b"layer")]


def test_scrub_says_nothing_of_a_storage_that_is_away(argosy: Run, data: pathlib.Path) -> None:
    (data / "blobs").rename(data / "elsewhere")
    assert "is it mounted" in argosy("registry", "scrub", "--data", data, code=1).err
    shutil.rmtree(data / "blobs")
    (data / "elsewhere").rename(data / "blobs")
    found = argosy("registry", "scrub", "--data", data, "--json").json
    assert (found["blobs"], found["damaged"], found["unreadable"]) == (3, [], 0)


def test_backup_copies_the_database_to_a_new_file(
    argosy: Run, data: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    copy = tmp_path / "copy.db"
    argosy("registry", "backup", "--data", data, copy)
    saved = Sqlite(str(copy))
    found = asyncio.run(saved.read(lambda tx: tx.rows("SELECT name FROM repository")))
    saved.close()
    assert found == [("team/app",)]
    assert "exists" in argosy("registry", "backup", "--data", data, copy, code=1).err


def test_rebuild_makes_a_lost_database_again(argosy: Run, data: pathlib.Path) -> None:
    from argosy.server import journal

    async def write() -> None:
        metadata = Sqlite(str(data / "registry.db"))
        await journal.write(metadata, FileSystem(str(data / "blobs"), reserve=0))
        metadata.close()

    asyncio.run(write())
    before = argosy("registry", "stats", "--data", data, "--json").json
    assert "not empty" in argosy("registry", "rebuild", "--data", data, code=1).err
    for path in data.glob("registry.db*"):
        path.unlink()
    assert argosy("registry", "rebuild", "--data", data, "--json").json["skipped"] == 0
    after = argosy("registry", "stats", "--data", data, "--json").json
    assert (after["tags"], after["manifests"], after["blobs"]) == (
        before["tags"],
        before["manifests"],
        before["blobs"],
    )


def test_rebuild_makes_no_registry_where_there_was_none(
    argosy: Run, tmp_path: pathlib.Path
) -> None:
    nowhere = tmp_path / "nowhere"
    assert "is not there" in argosy("registry", "rebuild", "--data", nowhere, code=1).err
    assert not nowhere.exists()
    (nowhere / "blobs").mkdir(parents=True)
    assert "neither a journal" in argosy("registry", "rebuild", "--data", nowhere, code=1).err
    assert [path.name for path in nowhere.iterdir()] == ["blobs"]


def test_rebuild_says_that_the_journal_is_damaged(argosy: Run, data: pathlib.Path) -> None:
    for path in data.glob("registry.db*"):
        path.unlink()
    folder = data / "blobs" / "j" / "000000000000-00000000"
    folder.mkdir(parents=True)
    (folder / f"{1:020d}-{2:020d}-00000000").write_bytes(b"{")
    done = argosy("registry", "rebuild", "--data", data, "--json", code=4)
    assert done.json == {"entries": 0, "skipped": 0, "damaged": 1}


def test_retention_says_what_it_would_do_and_then_does_it(
    argosy: Run, data: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text("retention:\n  - {repositories: ['**'], keep_last: 0}\n")
    path = file(tmp_path, access={"policy": str(policy)})
    words = ("registry", "retention", "--config", path, "--data", data)
    assert argosy(*words, "--dry-run").out.startswith("team/app:v1 sha256:")
    assert argosy(*words, "--json").json[0]["tag"] == "v1"
    assert argosy(*words).out == ""
    assert "no policy" in argosy("registry", "retention", "--data", data, code=64).err


def test_a_directory_without_a_registry_is_said_and_nothing_is_made(
    argosy: Run, tmp_path: pathlib.Path
) -> None:
    nowhere = tmp_path / "nowhere"
    assert "no registry in" in argosy("registry", "stats", "--data", nowhere, code=1).err
    assert not nowhere.exists()


def test_dead_letters_are_listed_told_again_and_dropped(
    argosy: Run, data: pathlib.Path, tmp_path: pathlib.Path, receiver: Receiver
) -> None:
    letters = [
        DeadLetter(f"webhook:{name}", number, 1e9 + number, "status 500", f'{{"id": "{number}"}}')
        for number, name in enumerate(("ci", "ci", "gone"), 1)
    ]

    async def lose() -> None:
        metadata = Sqlite(str(data / "registry.db"))
        for letter in letters:
            await metadata.write(functools.partial(_give_up, letter))
        metadata.close()

    asyncio.run(lose())
    one = {"name": "ci", "url": receiver.url, "allow_private": True}
    words = ("registry", "dead-letters", "--data", data, "--config")
    path = file(tmp_path, events={"sinks": [one]})
    assert [letter["event"] for letter in argosy(*words, path, "--json").json] == [3, 2, 1]
    assert "2001-09-09T01:46:41+00:00  ci" in argosy(*words, path).out
    receiver.statuses = [204, 500]
    assert "event 2 for ci" in argosy(*words, path, "--replay", code=1).err
    argosy(*words, path, "--replay")
    assert [event["id"] for event in receiver.told] == ["1", "2"]
    argosy(*words, path, "--replay", "--drop", code=64)
    assert len(argosy(*words, path, "--drop", "--json").json) == 1
    assert argosy(*words, path).out == ""


def _give_up(letter: DeadLetter, tx: Transaction) -> None:
    deliveries.give_up(tx, letter)


def test_migrate_of_sqlite_says_that_there_is_nothing_to_do(
    argosy: Run, data: pathlib.Path
) -> None:
    assert "brought up to date" in argosy("registry", "migrate", "--data", data).out


def test_serve_refuses_to_listen_to_everybody_for_nobody(
    argosy: Run, tmp_path: pathlib.Path
) -> None:
    done = argosy("serve", "--data", tmp_path, "--host", "0.0.0.0", "--port", 0, code=1)
    assert "nobody could do anything" in done.err
    assert "htpasswd" in done.err


def test_serve_says_what_is_wrong_with_its_variables(
    argosy: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    monkeypatch.setenv("ARGOSY_REGISTRY_LISTEN_PROT", "1")
    done = argosy("serve", "--data", tmp_path, code=1)
    assert "ARGOSY_REGISTRY_LISTEN_PROT: no such setting" in done.err
    assert "did you mean ARGOSY_REGISTRY_LISTEN_PORT?" in done.err


class Serving:
    """`argosy serve` in a process of its own."""

    def __init__(self, *words: object) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "argosy", "serve", *map(str, words)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline().decode()
        assert line.startswith("listening on "), self.end()
        self.address = line.strip().rpartition("//")[2]

    def end(self) -> str:
        stop(self.process)
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        self.process.stdout.close()
        with self.process.stderr as stderr:
            return stderr.read().decode()


@pytest.fixture
def upstream(tmp_path: pathlib.Path) -> Iterator[Serving]:
    server = Serving("--data", tmp_path / "upstream", "--port", 0)
    yield server
    server.end()


def test_serve_listens_logs_and_stops(tmp_path: pathlib.Path) -> None:
    server = Serving("--data", tmp_path / "data", "--port", 0)
    assert ask(server.address, "GET", "/v2/").status == 200
    said = server.end()
    assert server.process.returncode == 0
    line = next(json.loads(one) for one in said.splitlines() if one.startswith("{"))
    assert (line["method"], line["path"], line["status"]) == ("GET", "/v2/", 200)
    assert "Traceback" not in said


def test_serve_pulls_through_another_registry(tmp_path: pathlib.Path, upstream: Serving) -> None:
    from argosy.content.memory import MemoryStore
    from argosy.remote.config import Options
    from argosy.remote.registry import Registry
    from argosy.testing import random

    store = MemoryStore()
    random.image(store, 1, "v1")
    from argosy.content.copy import copy

    with Registry(upstream.address, Options(plain_http=True)) as registry:
        copy(store, "v1", registry.repository("library/app"), "v1")
    path = file(
        tmp_path, cache=[{"prefix": "hub", "registry": upstream.address, "plain_http": True}]
    )
    server = Serving("--config", path, "--data", tmp_path / "mirror", "--port", 0)
    try:
        for _ in range(2):
            pulled = MemoryStore()
            with Registry(server.address, Options(plain_http=True)) as registry:
                copy(registry.repository("hub/library/app"), "v1", pulled, "v1")
            assert pulled.resolve("v1") == store.resolve("v1").bare()
        assert ask(server.address, "GET", "/v2/hub/library/none/manifests/v1").status == 404
        assert ask(server.address, "POST", "/v2/hub/library/app/blobs/uploads/").status == 405
    finally:
        assert "Traceback" not in server.end()
