"""How often each command asks a registry: over a wide-area network that is the time it takes."""

from __future__ import annotations

import io
import pathlib
import threading
from collections.abc import Callable, Iterator

import pytest

from argosy.content.copy import copy
from argosy.content.memory import MemoryStore
from argosy.errors import NotFoundError
from argosy.image import indexes
from argosy.image.derive import append_layer
from argosy.image.new import scratch
from argosy.image.view import Image, ImageIndex
from argosy.spec.descriptor import Descriptor
from argosy.spec.digest import Digest
from argosy.spec.manifest import Index
from argosy.spec.mediatypes import OCI_INDEX, OCI_MANIFEST
from argosy.spec.platform import Platform
from argosy.testing import random
from tests.cli.conftest import Run
from tests.image.kit import file, tar_of
from tests.wire import scripted as s


def stored() -> tuple[MemoryStore, dict[str, str]]:
    """`v1`, `v2` made of it, an index `multi`; and what to call their parts, by digest."""
    store = MemoryStore()
    one = append_layer(
        scratch(store, Platform.parse("linux/amd64")), io.BytesIO(tar_of(file("a", b"a")))
    )
    two = append_layer(one, io.BytesIO(tar_of(file("b", b"b"))))
    index = indexes.create(store, one, two)
    views: dict[str, Image | ImageIndex] = {"v1": one, "v2": two, "multi": index}
    for tag, view in views.items():
        copy(view.source, view.digest, store, tag)
    names = {str(view.digest): tag for tag, view in views.items()}
    for tag, image in {"v1": one, "v2": two}.items():
        names[image.manifest.config.digest] = f"config-{tag}"
    names |= {layer.descriptor.digest: f"layer-{n}" for n, layer in enumerate(two.layers)}
    return store, names


class Far:
    """A registry with one repository, `app`: what is asked of it is noted."""

    def __init__(self, server: s.Scripted) -> None:
        self.server = server
        self.name = f"{server.name}/app"
        self.store, self.names = stored()
        server.on("POST", ".*/uploads/.*", s.answer(202, {"Location": "/up"}))
        server.on("PUT", ".*", s.answer(201))
        server.on("DELETE", ".*", s.answer(202))
        server.on("*", "/v2/app/(manifests|blobs)/.*", self.answer)

    def answer(self, seen: s.Seen, peer: s.Peer) -> bool:
        try:
            desc = self.store.resolve(seen.path.rpartition("/")[2])
        except NotFoundError:
            return s.answer(404)(seen, peer)
        raw = self.store.fetch(desc).read()
        return s.manifest(raw, desc.media_type, Docker_Content_Digest=desc.digest)(seen, peer)

    def place(self, word: str) -> str:
        """A word of a command line, where `:v1` is a tag here and `@v1` its digest."""
        if word.startswith("@"):
            return f"{self.name}@{self.store.resolve(word[1:]).digest}"
        return self.name + word if word.startswith(":") else word

    def asked(self) -> list[str]:
        """What was asked for, as `METHOD what`."""
        found = [(r.method, r.path.rpartition("/")[2]) for r in self.server.requests()]
        return [f"{method} {self.names.get(what, what)}" for method, what in found]


@pytest.fixture
def far() -> Iterator[Far]:
    server = s.Scripted()
    yield Far(server)
    server.close()


V2 = ["GET v2", "GET config-v2"]
LAYERS = ["GET layer-0", "GET layer-1"]

READING = {
    "digest :v2": ["HEAD v2"],
    "digest --platform linux/amd64 :multi": ["GET multi"],
    "manifest head :v2": ["HEAD v2"],
    "manifest get :v2": ["GET v2"],
    "manifest get @v2": ["GET v2"],
    "manifest get --platform linux/amd64 :multi": ["GET multi", "GET v1"],
    "inspect :v2": V2,
    "inspect --raw :v2": ["GET v2"],
    "inspect --config :v2": V2,
    "config :v2": V2,
    "history :v2": V2,
    "size :v2": [*V2, *LAYERS],
    "validate :v2": [*V2, *LAYERS],
    "validate --fast :v2": [*V2, "HEAD layer-0", "HEAD layer-1"],
    "export :v2 -": [*V2, *LAYERS],
    "fs cat :v2 /a": [*V2, *LAYERS],
    "check-base :v2 --base :v1": [*V2, "GET v1", "GET config-v1"],
}


@pytest.mark.parametrize("line", READING)
def test_reading_asks_for_each_thing_once(argosy: Run, far: Far, line: str) -> None:
    argosy(*map(far.place, line.split()))
    assert far.asked() == READING[line]


def test_a_layer_of_both_images_is_fetched_once(argosy: Run, far: Far) -> None:
    argosy("diff", far.place(":v1"), far.place(":v2"), code=1)
    assert sorted(far.asked())[:2] == ["GET config-v1", "GET config-v2"]
    assert [line for line in far.asked() if "layer" in line] == LAYERS


WRITING = {
    "tag :v2 one two": ["GET v2", "PUT one", "PUT two"],
    "tag @v2 one": ["GET v2", "PUT one"],
    "rm :v2": ["HEAD v2", "DELETE v2"],
    "rm --dry-run :v2": ["HEAD v2"],
    "rm @v2": ["GET v2", "DELETE v2"],
    "manifest rm :v2": ["GET v2", "DELETE v2"],
}


@pytest.mark.parametrize("line", WRITING)
def test_writing_asks_for_each_thing_once(argosy: Run, far: Far, line: str) -> None:
    argosy(*map(far.place, line.split()))
    assert far.asked() == WRITING[line]


@pytest.mark.parametrize(
    ("line", "once"),
    [
        ("mutate -q -l a=b :v2", ["GET v2", "GET config-v2"]),
        ("mutate -q -l a=b -t new :v2", ["GET v2", "GET config-v2"]),
        ("append -q -b :v2 -f layer.tar -t new", ["GET v2", "GET config-v2"]),
        ("flatten -q :v2 -t new", [*V2, *LAYERS]),
        ("rebase -q :v2 --old_base :v1 --new_base :v1 -t new",
         ["GET v2", "GET config-v2", "GET v1", "GET config-v1", "GET config-v1"]),
    ],
)  # fmt: skip
def test_what_an_image_is_made_of_is_read_once(
    argosy: Run, far: Far, line: str, once: list[str], tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    (tmp_path / "layer.tar").write_bytes(tar_of(file("c", b"c")))
    argosy(*map(far.place, line.split()))
    asked = far.asked()
    assert sorted(line for line in asked if line.startswith("GET")) == sorted(once)
    # a tag that is changed in place is looked at in the moment before it is moved, to undo nobody's work
    in_place = " -t " not in line
    assert asked.count("HEAD v2") == in_place
    assert not in_place or asked[-2:] == ["HEAD v2", "PUT v2"]


def test_an_index_of_images_of_one_place_does_not_look_for_them(argosy: Run, far: Far) -> None:
    images = far.place(":v1"), far.place(":v2")
    argosy("index", "create", "-q", "-a", "new=index", *images, "-t", far.place(":new"))
    read = [asked for asked in far.asked() if asked.startswith("GET")]
    assert read == ["GET v1", "GET v2", "GET config-v1", "GET config-v2"]


def test_an_image_is_pulled_by_one_request_a_part(
    argosy: Run, far: Far, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ARGOSY_ROOT", str(tmp_path / "engine"))
    argosy("pull", "-q", "--platform", "linux/amd64", far.place(":multi"))
    asked = far.asked()
    assert asked[:2] == ["GET multi", "GET v1"]
    assert sorted(asked[2:]) == ["GET config-v1", "GET layer-0"]


def test_an_image_is_written_to_a_file_by_one_request_a_part(
    argosy: Run, far: Far, tmp_path: pathlib.Path
) -> None:
    argosy("pull", "-q", "-o", tmp_path / "v2.tar", "--platform", "linux/amd64", far.place(":v2"))
    assert far.asked()[0] == "GET v2"
    assert sorted(far.asked()[1:]) == ["GET config-v2", *LAYERS]


class Waiting(Far):
    """Answers certain requests only once so many of them wait for it."""

    def __init__(self, server: s.Scripted, method: str, pattern: str, count: int) -> None:
        self.barrier = threading.Barrier(count)
        server.on(method, pattern, self.later)
        super().__init__(server)

    def later(self, seen: s.Seen, peer: s.Peer) -> bool:
        self.barrier.wait(20)
        return self.answer(seen, peer)


@pytest.fixture
def waiting() -> Iterator[Callable[..., Waiting]]:
    server = s.Scripted()
    yield lambda *what: Waiting(server, *what)
    server.close()


def test_the_images_of_an_index_are_asked_for_together(
    argosy: Run, waiting: Callable[..., Waiting]
) -> None:
    far = waiting("GET", "/v2/app/manifests/sha256:.*", 2)
    shown = argosy("inspect", "--json", far.place(":multi")).json
    assert [far.names[entry["Digest"]] for entry in shown["Manifests"]] == ["v1", "v2"]


def test_the_parts_of_a_drawing_are_looked_for_together(
    argosy: Run, waiting: Callable[..., Waiting]
) -> None:
    far = waiting("HEAD", "/v2/app/blobs/.*", 3)
    drawn = argosy("graph", "--json", "--no-referrers", far.place(":v2")).json
    assert [vertex["kind"] for vertex in drawn["vertices"]] == [
        "manifest",
        "config",
        "layer",
        "layer",
    ]


def test_what_refers_to_referrers_is_asked_for_together(
    argosy: Run, waiting: Callable[..., Waiting]
) -> None:
    far = waiting("GET", "/v2/app/manifests/sha256-.*", 2)
    subject = far.store.resolve("v1")
    many = [random.artifact(far.store, n, subject=subject) for n in (1, 2)]
    deep = random.artifact(far.store, 3, subject=many[0])

    def referrers(seen: s.Seen, peer: s.Peer) -> bool:
        digest = Digest(seen.path.rpartition("/")[2])
        if digest != subject.digest and digest != deep.digest:
            far.barrier.wait(20)
        found = Descriptor(media_type=OCI_MANIFEST, digest=digest, size=1)
        index = Index(manifests=tuple(far.store.referrers(found))).encode()
        return s.manifest(index, OCI_INDEX)(seen, peer)

    far.server.on("GET", "/v2/app/referrers/.*", referrers)
    found = argosy("discover", "--json", far.place(":v1")).json
    below = {one["digest"]: one["referrers"] for one in found["referrers"]}
    assert set(below) == {one.digest for one in many}
    assert [one["digest"] for one in below[many[0].digest]] == [deep.digest]
    assert below[many[1].digest] == []


def test_dates_are_found_by_one_request_a_manifest(argosy: Run, far: Far) -> None:
    far.server.on("GET", "/v2/app/tags/.*", s.answer(200, {}, b'{"tags":["v2","v1"]}'))
    argosy("ls", "--sort", "date", far.name)
    assert sorted(far.asked()[1:]) == ["GET config-v1", "GET config-v2", "GET v1", "GET v2"]


@pytest.mark.parametrize("tags", ["", ":v1,v2"], ids=["image", "tags"])
def test_what_is_copied_is_asked_for_once(
    argosy: Run, far: Far, tmp_path: pathlib.Path, tags: str
) -> None:
    if tags:
        argosy("backup", "--no-referrers", far.place(tags), "-o", f"{tmp_path}/out")
    else:
        argosy("cp", far.place(":v2"), f"oci:{tmp_path}/out:v2")
    wanted = {*V2, *LAYERS} | ({"GET v1", "GET config-v1"} if tags else set())
    assert sorted(far.asked()) == sorted(wanted)


def test_tags_are_told_without_reading_images(
    argosy: Run, far: Far, tmp_path: pathlib.Path
) -> None:
    argosy("backup", "--dry-run", far.place(":v1,v2"), "-o", f"{tmp_path}/out")
    assert sorted(far.asked()) == ["HEAD v1", "HEAD v2"]
