"""Upload sessions that registries lose, refuse or name strangely, in this run and from an earlier one."""

from __future__ import annotations

import io
import json
import os
import pathlib
import re
import socket
from collections.abc import Callable

import pytest

from argosy.content.memory import MemoryStore
from argosy.content.overlay import Overlay, Union
from argosy.errors import DeniedError, RegistryError, SizeMismatchError, UnauthorizedError
from argosy.remote.credentials import Credential, CredentialStore
from argosy.remote.repository import Repository
from argosy.remote.unfinished import remembered
from argosy.spec import mediatypes
from argosy.spec.descriptor import Descriptor
from tests.wire import scripted as s
from tests.wire.uploads import Uploads

Client = Callable[..., Repository]

DATA = os.urandom(6_000_000)
LAYER = Descriptor.of(mediatypes.OCI_LAYER_GZIP, DATA)
SMALL = Descriptor.of(mediatypes.OCI_LAYER, b"abc")
UPLOADS = r"/v2/app/blobs/uploads/"


@pytest.fixture
def state(tmp_path: pathlib.Path, scripted: s.Scripted) -> str:
    """A state directory with a session that an earlier run left at `/old/1`."""
    remember(str(tmp_path), scripted, f"{scripted.url}/old/1?sig=1")
    return str(tmp_path)


def remember(folder: str, server: s.Scripted, location: str) -> None:
    with remembered(folder, f"{server.name}/app", LAYER) as memory:
        memory.save(location)


# ------------------------------------------------------------------------------------- sessions that cannot be asked


@pytest.mark.parametrize(
    "asked",
    [
        *[s.answer(status) for status in (302, 400, 401, 403, 404, 405, 413, 416, 429, 500)],
        s.answer(204, {"Range": "nonsense"}),
        s.reset(),
        s.silence,
    ],
)
def test_a_session_of_an_earlier_run_that_cannot_be_asked_is_left(
    scripted: s.Scripted, client: Client, state: str, asked: s.Answer
) -> None:
    scripted.on("GET", "/old/.*", asked)
    uploads = Uploads(scripted)
    client(state_dir=state, attempts=2, timeout=0.3).push(LAYER, io.BytesIO(DATA))
    assert uploads.stored == DATA
    assert os.listdir(state) == []


@pytest.mark.parametrize("days", [8, None])
def test_a_session_of_a_week_ago_is_not_asked_for(
    scripted: s.Scripted, client: Client, state: str, days: int | None
) -> None:
    (path,) = pathlib.Path(state).iterdir()
    saved = json.loads(path.read_bytes())
    saved["saved"] = saved["saved"] - days * 86400 if days else "long ago"
    path.write_text(json.dumps(saved))
    uploads = Uploads(scripted)
    client(state_dir=state).push(LAYER, io.BytesIO(DATA))
    assert uploads.stored == DATA
    assert not scripted.requests("GET")


def test_a_session_of_an_earlier_run_whose_host_is_gone_is_left(
    scripted: s.Scripted, client: Client, tmp_path: pathlib.Path
) -> None:
    uploads = Uploads(scripted)
    with socket.socket() as nobody:  # it has the port, and does not listen
        nobody.bind(("127.0.0.1", 0))
        remember(str(tmp_path), scripted, f"http://127.0.0.1:{nobody.getsockname()[1]}/old/1")
        client(state_dir=str(tmp_path)).push(LAYER, io.BytesIO(DATA))
    assert uploads.stored == DATA


@pytest.mark.parametrize("status", [302, 400, 401, 403, 404, 405, 413, 500])
def test_a_session_that_cannot_be_asked_after_a_failure_is_replaced(
    scripted: s.Scripted, client: Client, status: int
) -> None:
    scripted.on("GET", "/up/1.*", s.answer(status))
    uploads = Uploads(scripted, [2_000_000])
    client(attempts=2).push(LAYER, io.BytesIO(DATA))
    assert uploads.stored == DATA
    assert uploads.sessions == 2


def test_a_session_that_may_not_be_ended_now_is_kept_for_a_later_run(
    scripted: s.Scripted, client: Client, tmp_path: pathlib.Path
) -> None:
    uploads = Uploads(scripted)
    scripted._routes.insert(0, ("PUT", re.compile(".*"), [s.answer(403), uploads.put]))
    with pytest.raises(DeniedError):
        client(state_dir=str(tmp_path)).push(LAYER, io.BytesIO(DATA))
    client(state_dir=str(tmp_path)).push(LAYER, io.BytesIO(DATA))
    assert uploads.stored == DATA
    assert (uploads.sessions, uploads.cancelled, uploads.received) == (1, 0, len(DATA))


# ------------------------------------------------------------------------------------------------------------- mounts


@pytest.mark.parametrize("challenge", ["Basic realm=x", "Bearer realm=/token", "Digest realm=x"])
@pytest.mark.parametrize("user", ["", "ada"], ids=["nobody", "somebody"])
def test_a_mount_that_is_challenged_for_ever_is_given_up_and_not_the_push(
    scripted: s.Scripted, client: Client, challenge: str, user: str
) -> None:
    credentials = CredentialStore(
        given={"": Credential(username=user, password="x")} if user else {}
    )
    scripted.on("GET", "/token.*", s.answer(200, {}, b'{"token":"t"}'))
    scripted.on("POST", UPLOADS + r"\?mount=[^&]*", s.answer(401, {"WWW-Authenticate": challenge}))
    uploads = Uploads(scripted)
    client(credentials=credentials).push(LAYER, io.BytesIO(DATA))
    assert uploads.stored == DATA


def test_who_may_not_push_at_all_is_told_so(scripted: s.Scripted, client: Client) -> None:
    scripted.on("POST", ".*", s.answer(401, {"WWW-Authenticate": "Basic realm=x"}))
    with pytest.raises(UnauthorizedError):
        client().push(LAYER, io.BytesIO(DATA))
    assert [seen.target for seen in scripted.requests("POST")][1:] == [UPLOADS]


# ------------------------------------------------------------------------------------- what is known of a session


def refused_mount(repository: Repository) -> Repository:
    assert not repository.mount(LAYER, repository.registry.repository("other"))
    return repository


def test_the_least_chunk_of_a_mount_that_became_a_session_is_kept(
    scripted: s.Scripted, client: Client
) -> None:
    fields = {"Location": "/up/0", "OCI-Chunk-Min-Length": "4000000"}
    scripted.on("POST", ".*mount.*", s.answer(202, fields))
    uploads = Uploads(scripted)
    refused_mount(client(chunk_size=1000)).push(LAYER, io.BytesIO(DATA))
    assert uploads.ranges[:2] == ["0-3999999", "4000000-5999999"]


@pytest.mark.parametrize("mounted", [False, True])
def test_the_least_chunk_of_an_earlier_run_is_kept(
    scripted: s.Scripted, client: Client, tmp_path: pathlib.Path, mounted: bool
) -> None:
    uploads = Uploads(scripted, [0])
    fields = {"Location": "/up/0", "OCI-Chunk-Min-Length": "4000000"}
    scripted._routes.insert(0, ("POST", re.compile(".*"), [s.answer(202, fields)]))
    options = {"chunk_size": 1000, "state_dir": str(tmp_path)}
    first = client(**options, attempts=1)
    with pytest.raises(RegistryError):
        (refused_mount(first) if mounted else first).push(LAYER, io.BytesIO(DATA))
    client(**options).push(LAYER, io.BytesIO(DATA))
    assert uploads.stored == DATA
    assert uploads.ranges[:3] == ["0-3999999", "0-3999999", "4000000-5999999"]
    assert len(scripted.requests("POST")) == 1


def test_a_refused_mount_does_not_cost_what_an_earlier_run_sent(
    scripted: s.Scripted, client: Client, tmp_path: pathlib.Path
) -> None:
    uploads = Uploads(scripted, [5_000_000])
    with pytest.raises(RegistryError):
        client(state_dir=str(tmp_path), attempts=1).push(LAYER, io.BytesIO(DATA))
    scripted._routes.insert(
        0, ("POST", re.compile(".*mount.*"), [s.answer(202, {"Location": "/mount/1"})])
    )
    scripted.on("DELETE", "/mount/1", s.answer(204))
    refused_mount(client(state_dir=str(tmp_path))).push(LAYER, io.BytesIO(DATA))
    assert uploads.stored == DATA
    assert uploads.received == len(DATA)
    assert [seen.target for seen in scripted.requests("DELETE")] == ["/mount/1"]


def test_a_refused_mount_is_used_where_an_earlier_run_left_nothing(
    scripted: s.Scripted, client: Client, state: str
) -> None:
    uploads = Uploads(scripted)
    refused_mount(client(state_dir=state)).push(LAYER, io.BytesIO(DATA))
    assert uploads.stored == DATA
    assert len(scripted.requests("POST")) == 1


def test_of_several_repositories_a_blob_is_mounted_from_the_one_that_has_it(
    scripted: s.Scripted, client: Client
) -> None:
    scripted.on("HEAD", "/v2/first/.*", s.answer(404))
    scripted.on("HEAD", "/v2/second/.*", s.answer(200, {"Content-Length": str(LAYER.size)}))
    scripted.on("POST", UPLOADS + r"\?mount=.*&from=second", s.answer(201))
    repository = client()
    several = [repository.registry.repository(name) for name in ("first", "second", "third")]
    assert repository.mount(LAYER, Overlay(Union(repository, *several), MemoryStore()))


def test_a_repository_that_may_not_be_asked_means_copy(
    scripted: s.Scripted, client: Client
) -> None:
    scripted.on("HEAD", "/v2/first/.*", s.answer(403))
    repository = client()
    several = [repository.registry.repository(name) for name in ("first", "second")]
    assert not repository.mount(LAYER, Union(*several))


# ---------------------------------------------------------------------------------------------------- how they end


@pytest.mark.parametrize(
    ("location", "ended"),
    [
        ("/up/0", "/up/0?digest={}"),
        ("/up/0?", "/up/0?digest={}"),
        ("/up/0#part", "/up/0?digest={}"),
        ("/up/0?sig=a%2Fb&&x#part", "/up/0?sig=a%2Fb&&x&digest={}"),
        ("/up/0?digest=sha256:0", "/up/0?digest={}"),
        ("/up/0?a=1&digest=sha256:0&_digest=2", "/up/0?a=1&_digest=2&digest={}"),
    ],
)
def test_a_session_is_ended_with_one_digest_the_right_one(
    scripted: s.Scripted, client: Client, location: str, ended: str
) -> None:
    scripted.on("POST", ".*", s.answer(202, {"Location": location}))
    scripted.on("PUT", ".*", s.answer(201))
    client().push(SMALL, io.BytesIO(b"abc"))
    assert [seen.target for seen in scripted.requests("PUT")] == [ended.format(SMALL.digest)]


def test_the_last_chunk_may_be_a_small_one(scripted: s.Scripted, client: Client) -> None:
    uploads = Uploads(scripted)
    client(chunk_size=len(DATA) - 1).push(LAYER, io.BytesIO(DATA))
    assert uploads.stored == DATA
    assert uploads.ranges == ["0-5999998", "5999999-5999999", ""]
    assert not scripted.requests("GET")


@pytest.mark.parametrize("chunk", [None, 1000])
def test_a_blob_of_nothing_is_proved_too(
    scripted: s.Scripted, client: Client, chunk: int | None
) -> None:
    uploads = Uploads(scripted)
    empty = Descriptor.of(mediatypes.OCI_LAYER, b"")
    with pytest.raises(SizeMismatchError):
        client(chunk_size=chunk).push(empty, io.BytesIO(b"xyz"))
    assert not scripted.requests("PUT")
    assert uploads.cancelled == 1
    client(chunk_size=chunk).push(empty, io.BytesIO(b""))
    assert len(scripted.requests("PUT")) == 1
