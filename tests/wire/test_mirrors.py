"""Mirrors, and the `urls` of a layer: one bad place among several is no reason to fail."""

from __future__ import annotations

import io
import os
import pathlib
import socket
from collections.abc import Callable
from typing import Any

import pytest

from argosy.content.copy import copy
from argosy.content.events import Event, Progressed
from argosy.content.memory import MemoryStore
from argosy.content.verify import VerifyingReader
from argosy.errors import ArgosyError, DeniedError, DigestMismatchError, SizeMismatchError
from argosy.layout.store import LayoutStore
from argosy.remote.config import Registries
from argosy.remote.repository import Repository
from argosy.spec import distribution, mediatypes
from argosy.spec.descriptor import Descriptor
from argosy.spec.manifest import Index, Manifest
from tests.wire import scripted as s

Client = Callable[..., Repository]

RAW = Manifest(config=Descriptor.of(mediatypes.OCI_CONFIG, b"{}")).encode()
MANIFEST = Descriptor.of(mediatypes.OCI_MANIFEST, RAW)
DATA = os.urandom(3_000_000)
LAYER = Descriptor.of(mediatypes.OCI_LAYER_GZIP, DATA)
CONFIG = Descriptor.of(mediatypes.OCI_CONFIG, b"{}")
WHOLE_RAW = Manifest(config=CONFIG, layers=(LAYER,)).encode()
WHOLE = Descriptor.of(mediatypes.OCI_MANIFEST, WHOLE_RAW)
LAYER_PATH = f"/v2/app/blobs/{LAYER.digest}.*"
BLOBS = "/v2/app/blobs/.*"
PAGE = {"Content-Type": "text/html"}


def unsized(body: bytes, kind: str) -> s.Answer:
    """An answer that ends where its connection does, each time anew."""
    head = f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nConnection: close\r\n\r\n"
    return s.raw(head.encode() + body)


BAD = {
    "a page": s.answer(200, PAGE, b"<html>"),
    "a page of unknown length": unsized(b"<html>", "text/html"),
    "405": s.answer(405),
    "413": s.answer(413),
    "429": s.answer(429),
    "503": s.answer(503),
    "no content": s.answer(204),
    "a broken redirect": s.answer(307, {"Location": "http://["}),
    "a redirect to what is no http": s.answer(307, {"Location": "ftp://h/"}),
    "another manifest": s.manifest(RAW + b" ", Docker_Content_Digest=MANIFEST.digest),
    "no manifest": s.manifest(b"{}"),
    "no http": s.raw(b"hello\r\n\r\n"),
    "always broken off": s.cut(DATA, 1000),
    "no answer": s.reset(),
}


def mirrored(
    client: Client, scripted: s.Scripted, *mirrors: s.Scripted, **options: Any
) -> Repository:
    entries = [{"location": mirror.name, "insecure": True} for mirror in mirrors]
    table = {"location": scripted.name, "insecure": True, "mirror": entries}
    return client(registries=Registries([table]), **options)


def complete(server: s.Scripted) -> None:
    """Let a registry serve all there is."""
    server.on("*", "/v2/app/manifests/.*", s.manifest(RAW, Docker_Content_Digest=MANIFEST.digest))
    server.on("GET", BLOBS, s.blob(DATA))


def image(server: s.Scripted, layer: bytes) -> None:
    """Let a registry serve an image whose layer is these bytes."""
    server.on("*", "/v2/app/manifests/.*", s.manifest(WHOLE_RAW))
    server.on("GET", f"/v2/app/blobs/{CONFIG.digest}.*", s.blob(b"{}"))
    server.on("GET", LAYER_PATH, s.blob(layer))


DOWN = {"429", "503", "a broken redirect", "a redirect to what is no http", "no http", "no answer"}
"""What is about the mirror, and not about one content."""


@pytest.mark.parametrize("bad", BAD)
def test_a_bad_mirror_is_passed_over(
    scripted: s.Scripted, another: s.Scripted, client: Client, bad: str
) -> None:
    another.on("*", ".*", BAD[bad])
    complete(scripted)
    told: list[tuple[str, str]] = []
    repository = mirrored(client, scripted, another, warn=lambda *one: told.append(one))
    # by HEAD the mirror may say what is right, and is believed for a tag
    assert repository.resolve(MANIFEST.digest).digest == MANIFEST.digest
    assert repository.fetch(MANIFEST).read() == RAW
    assert repository.fetch(LAYER).read() == DATA
    if bad in DOWN:
        ((name, text),) = told
        assert name == another.name
        assert text.startswith("passed over for 5 minutes: ")
        assert len(another.requests()) == (1 if "redirect" in bad else 2)
    else:
        assert another.requests("GET", BLOBS) or "passed over" in told[0][1]


def test_a_mirror_whose_name_means_nothing_is_asked_for_no_more(
    scripted: s.Scripted, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    found = socket.getaddrinfo

    def resolved(host: bytes, *rest: Any, **more: Any) -> Any:
        if host != b"mirror.example":
            return found(host, *rest, **more)
        asked.append("mirror.example")
        raise socket.gaierror(socket.EAI_AGAIN, "try again")

    monkeypatch.setattr(socket, "getaddrinfo", resolved)
    complete(scripted)
    table = {
        "location": scripted.name,
        "insecure": True,
        "mirror": [{"location": "mirror.example"}],
    }
    told: list[tuple[str, str]] = []
    repository = client(registries=Registries([table]), warn=lambda *one: told.append(one))
    for _ in range(2):
        assert repository.resolve("v1") == MANIFEST
        assert repository.fetch(LAYER).read() == DATA
    assert asked == ["mirror.example"] * 2
    assert told == [
        ("mirror.example", "passed over for 5 minutes: mirror.example:443: try again"),
    ]


def test_a_mirror_that_wants_to_be_left_alone_keeps_nobody_waiting(
    scripted: s.Scripted, another: s.Scripted, client: Client
) -> None:
    another.on("*", ".*", s.answer(429, {"Retry-After": "1"}))
    complete(scripted)
    repository = mirrored(client, scripted, another)
    assert repository.resolve("v1") == MANIFEST
    assert repository.fetch(LAYER).read() == DATA
    assert len(another.requests()) == 1


def test_a_mirror_that_lacks_something_is_asked_for_the_rest(
    scripted: s.Scripted, another: s.Scripted, client: Client
) -> None:
    another.on("GET", BLOBS, s.blob(DATA))
    complete(scripted)
    told: list[str] = []
    repository = mirrored(client, scripted, another, warn=lambda _, text: told.append(text))
    assert repository.resolve("v1") == MANIFEST
    assert repository.fetch(LAYER).read() == DATA
    assert not scripted.requests("GET", BLOBS)
    assert told == []


def test_a_mirror_is_told_whose_content_is_wanted(
    scripted: s.Scripted, another: s.Scripted, client: Client
) -> None:
    """distribution-spec, "Registry Proxying": one proxy may stand for many registries."""
    complete(another)
    repository = mirrored(client, scripted, another)
    assert repository.resolve("v1") == MANIFEST
    assert repository.fetch(MANIFEST).read() == RAW
    assert repository.fetch(LAYER).read() == DATA
    namespace = f"?ns=localhost%3A{scripted.port}"
    assert [r.target.endswith(namespace) for r in another.requests("", "/v2/app/.*")] == [True] * 3
    assert not scripted.requests()
    complete(scripted)
    assert client().fetch(LAYER).read() == DATA
    assert "ns=" not in scripted.requests()[0].target


def test_a_mirror_with_names_of_its_own_is_told_by_them(
    scripted: s.Scripted, another: s.Scripted, client: Client
) -> None:
    another.on("GET", f"/v2/copies/app/blobs/{LAYER.digest}", s.blob(DATA))
    mirror = {"location": f"{another.name}/copies", "insecure": True}
    table = {"location": scripted.name, "insecure": True, "mirror": [mirror]}
    assert client(registries=Registries([table])).fetch(LAYER).read() == DATA
    assert not scripted.requests()


def test_a_mirror_that_breaks_off_leaves_the_rest_to_the_next(
    scripted: s.Scripted, another: s.Scripted, client: Client
) -> None:
    another.on("GET", BLOBS, s.cut(DATA, 2_000_000), s.reset())
    complete(scripted)
    assert mirrored(client, scripted, another).fetch(LAYER).read() == DATA
    (rest,) = scripted.requests("GET", BLOBS)
    assert rest.headers["range"] == f"bytes=2000000-{len(DATA) - 1}"


def test_a_mirror_that_failed_is_not_asked_again_for_that_blob(
    scripted: s.Scripted, another: s.Scripted, client: Client
) -> None:
    another.on("GET", BLOBS, s.answer(200, {}, b"short"))
    scripted.on("GET", BLOBS, s.cut(DATA, 2_000_000), s.blob(DATA))
    assert mirrored(client, scripted, another).fetch(LAYER).read() == DATA
    assert len(another.requests("GET", BLOBS)) == 1


def test_what_the_registry_itself_says_is_the_last_word(
    scripted: s.Scripted, another: s.Scripted, client: Client
) -> None:
    another.on("*", ".*", s.answer(405))
    scripted.on("GET", BLOBS, s.answer(200, {}, b"short"))
    scripted.on("*", ".*", s.answer(413))
    repository = mirrored(client, scripted, another)
    with pytest.raises(SizeMismatchError):
        repository.fetch(LAYER).read()
    with pytest.raises(ArgosyError, match=scripted.name):
        repository.resolve("v1")


def test_what_stops_the_reader_is_no_reason_to_go_on(
    scripted: s.Scripted, another: s.Scripted, client: Client
) -> None:
    another.on("GET", BLOBS, s.blob(DATA))

    def stop(_: int) -> None:
        raise KeyboardInterrupt

    with mirrored(client, scripted, another).fetch(LAYER) as reader:
        assert isinstance(reader, VerifyingReader)
        reader.observe(stop)
        with pytest.raises(KeyboardInterrupt):
            reader.read()
    assert not scripted.requests()


@pytest.mark.parametrize(
    "bad",
    [
        s.answer(200, PAGE, b"<html>"),
        unsized(b"<html>", "text/html"),
        s.answer(200, {}, b"short"),
        s.answer(404),
        s.answer(307, {"Location": "http://["}),
        s.cut(DATA, 1000),
    ],
    ids=["a page", "a page of unknown length", "a wrong size", "404", "nowhere", "broken off"],
)
def test_of_the_urls_of_a_layer_one_that_works_is_enough(
    scripted: s.Scripted, another: s.Scripted, client: Client, bad: s.Answer
) -> None:
    another.on("GET", "/bad", bad)
    another.on("GET", "/good", s.blob(DATA))
    urls = ("nonsense", f"{another.url}/bad", f"{another.url}/good")
    layer = Descriptor.of(mediatypes.OCI_NONDISTRIBUTABLE, DATA, urls=urls)
    assert client(foreign=True).fetch(layer).read() == DATA
    assert len(scripted.requests("GET", BLOBS)) == 1


def test_a_mirror_without_the_list_of_referrers_hides_none(
    scripted: s.Scripted, another: s.Scripted, client: Client
) -> None:
    """Where clients keep the list under a tag: a mirror holds of it what somebody asked for, or an old one."""
    old = Descriptor.of(mediatypes.OCI_MANIFEST, b"old")
    fallback = f"/v2/app/manifests/{distribution.referrers_tag(MANIFEST.digest)}"
    scripted.on("GET", fallback, s.manifest(Index(manifests=(MANIFEST, old)).encode()))
    for stale in (s.answer(404), s.manifest(Index(manifests=(old,)).encode())):
        another.on("GET", fallback, stale)
        repository = mirrored(client, scripted, another)
        assert list(repository.referrers(MANIFEST)) == [MANIFEST, old]


@pytest.mark.parametrize("sent", [len(DATA), 2_000_000], ids=["all of it", "its front"])
def test_wrong_bytes_of_a_mirror_are_fetched_anew_from_the_next(
    scripted: s.Scripted, another: s.Scripted, client: Client, tmp_path: pathlib.Path, sent: int
) -> None:
    wrong = DATA[: sent - 1] + bytes([DATA[sent - 1] ^ 1]) + DATA[sent:]
    another.on("GET", LAYER_PATH, s.cut(wrong, sent), s.reset())
    image(scripted, DATA)
    done: list[int] = []

    def watch(event: Event) -> None:
        if isinstance(event, Progressed) and event.descriptor.digest == LAYER.digest:
            done.append(event.done)

    store = LayoutStore.create(tmp_path)
    told: list[tuple[str, str]] = []
    repository = mirrored(client, scripted, another, warn=lambda *told_: told.append(told_))
    assert copy(repository, WHOLE.digest, store, "v1", on_event=watch) == WHOLE
    *down, (registry, text) = told
    assert [name for name, _ in down] == [another.name] * (sent < len(DATA))
    assert registry == scripted.name
    assert text.startswith(f"{another.name} sent something else")
    assert LAYER.digest in text
    with store.fetch(LAYER) as reader:
        assert reader.readall() == DATA
    assert (min(done), done[-1]) == (0, len(DATA))
    *_, last = scripted.requests("GET", LAYER_PATH)
    assert last.headers.get("range", "bytes=0-").startswith("bytes=0-")


@pytest.mark.parametrize("path", [LAYER_PATH, "/v2/app/manifests/.*"], ids=["blob", "manifest"])
def test_a_mirror_whose_content_is_wrong_by_its_size_is_told_once(
    scripted: s.Scripted, another: s.Scripted, client: Client, path: str
) -> None:
    another.on("GET", path, s.answer(200, {"Content-Type": mediatypes.OCI_MANIFEST}, b"short"))
    image(scripted, DATA)
    told: list[str] = []
    repository = mirrored(client, scripted, another, warn=lambda _, text: told.append(text))
    for _ in range(2):
        copy(repository, WHOLE.digest, MemoryStore(), "v1")
    (text,) = told
    assert another.name in text
    assert (LAYER if path == LAYER_PATH else WHOLE).digest in text


def test_wrong_bytes_of_the_registry_itself_are_an_error(
    scripted: s.Scripted, another: s.Scripted, client: Client
) -> None:
    for server in (scripted, another):
        image(server, bytes(len(DATA)))
    target = MemoryStore()
    with pytest.raises(DigestMismatchError):
        copy(mirrored(client, scripted, another), WHOLE.digest, target, "v1")
    assert not target.exists(LAYER)
    assert list(target.tags()) == []
    for server in (scripted, another):
        assert len(server.requests("GET", LAYER_PATH)) == 1


@pytest.mark.parametrize(
    ("kept", "asked"),
    [(1_000_000, [f"bytes=1000000-{len(DATA) - 1}", None]), (len(DATA), [None])],
)
def test_a_wrong_part_of_an_earlier_run_is_fetched_anew(
    scripted: s.Scripted,
    client: Client,
    tmp_path: pathlib.Path,
    kept: int,
    asked: list[str | None],
) -> None:
    image(scripted, DATA)
    store = LayoutStore.create(tmp_path)
    path = pathlib.Path(store.blobs.path_of(LAYER.digest))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_name(f".{path.name}.partial").write_bytes(bytes(kept))
    copy(client(), WHOLE.digest, store, "v1")
    with store.fetch(LAYER) as reader:
        assert reader.readall() == DATA
    ranges = [r.headers.get("range") for r in scripted.requests("GET", LAYER_PATH)]
    assert ranges == asked


def test_lists_come_from_where_the_registry_is_said_to_be(
    scripted: s.Scripted, another: s.Scripted, client: Client
) -> None:
    """A location that takes the place of another is no mirror: the registry's name may lead nowhere."""
    another.on("GET", "/v2/there/app/tags/list.*", s.answer(200, {}, b'{"tags": ["v1"]}'))
    listed = s.answer(
        200, {"Content-Type": mediatypes.OCI_INDEX}, Index(manifests=(MANIFEST,)).encode()
    )
    another.on("GET", "/v2/there/app/referrers/.*", listed)
    table = {"prefix": scripted.name, "location": f"{another.name}/there", "insecure": True}
    repository = client(registries=Registries([table]))
    assert list(repository.tags()) == ["v1"]
    assert list(repository.referrers(WHOLE)) == [MANIFEST]
    assert not scripted.requests()


def test_nothing_is_written_to_what_is_blocked(scripted: s.Scripted, client: Client) -> None:
    table = {"location": scripted.name, "insecure": True, "blocked": True}
    repository = client(registries=Registries([table]))
    for write in (
        lambda: repository.push(CONFIG, io.BytesIO(b"{}")),
        lambda: repository.push(MANIFEST, io.BytesIO(RAW), tags=["v1"]),
        lambda: repository.tag(MANIFEST, "v1"),
        lambda: repository.delete(CONFIG),
        lambda: repository.untag("v1"),
        lambda: repository.exists(CONFIG),
    ):
        with pytest.raises(DeniedError, match=r"blocked by registries\.conf"):
            write()
    assert not scripted.requests()


@pytest.mark.parametrize("which", [":v1", f"@{MANIFEST.digest}"])
def test_a_blocked_tag_or_digest_is_neither_read_nor_written(
    scripted: s.Scripted, client: Client, which: str
) -> None:
    table = {"location": f"{scripted.name}/app{which}", "blocked": True}
    scripted.on("*", ".*manifests/v.", s.manifest(RAW))
    repository = client(registries=Registries([table]))
    tag = "v1" if which == ":v1" else "v2"
    for use in (
        lambda: repository.fetch(repository.resolve("v1")),
        lambda: repository.push(MANIFEST, io.BytesIO(RAW), tags=[tag]),
        lambda: repository.tag(MANIFEST, tag),
        lambda: repository.untag("v1") if tag == "v1" else repository.delete(MANIFEST),
    ):
        with pytest.raises(DeniedError, match=f"{which} is blocked by registries"):
            use()
    assert not scripted.requests("PUT")
    assert repository.resolve("v2") == MANIFEST
