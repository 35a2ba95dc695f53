"""The images of this machine, as they are listed."""

from __future__ import annotations

import datetime as dt
import json
import os
import pathlib

import pytest

from argosy import Descriptor, Digest, LayoutStore, copy
from argosy.content.memory import MemoryStore
from argosy.engine.images import LocalImages
from argosy.engine.places import Places
from argosy.engine.run import Engine
from argosy.errors import IntegrityError
from argosy.image.indexes import create
from argosy.image.new import scratch
from argosy.layout import indexfile
from argosy.layout.durable import write_file
from argosy.locate import Location
from tests.cli.conftest import Run


@pytest.fixture
def store(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> LayoutStore:
    monkeypatch.setenv("ARGOSY_ROOT", str(tmp_path))
    return LayoutStore.create(str(tmp_path / "images"))


def image(store: LayoutStore, name: str, created: str) -> Descriptor:
    made = scratch(MemoryStore(), created=created)
    return copy(made.source, made.digest, store, f"registry.example/{name}")


def test_an_image_whose_configuration_is_invalid_hides_no_other(
    argosy: Run, store: LayoutStore
) -> None:
    image(store, "good:v1", "2020-01-01T00:00:00Z")
    bad = image(store, "bad:v1", "yesterday")
    shown = {entry["Name"]: entry["Created"] for entry in argosy("images", "--json").json}
    assert shown == {
        "registry.example/bad:v1": None,
        "registry.example/good:v1": "2020-01-01T00:00:00Z",
    }
    assert argosy("rmi", bad.digest.encoded[:12]).out == "removed registry.example/bad:v1\n"


@pytest.mark.parametrize(
    ("name", "code"),
    [("Bad Name", 64), ("app:b@d", 64), ("oci:", 64), ("nosuch", 2), ("0" * 64, 2)],
)
def test_what_is_no_name_is_wrong_usage_and_what_is_not_there_is_not_found(
    argosy: Run, store: LayoutStore, name: str, code: int
) -> None:
    argosy("rmi", name, code=code)


def test_many_are_removed_in_one_step_and_one_that_is_not_there_hinders_no_other(
    argosy: Run, store: LayoutStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = [image(store, f"app{n}:v1", f"202{n}-01-01T00:00:00Z") for n in range(4)]
    ids = argosy("images", "-q").out.split()
    writes: list[str] = []

    def written(path: str, data: bytes) -> int:
        writes.append(path)
        return write_file(path, data)

    monkeypatch.setattr(indexfile, "write_file", written)
    names = ["registry.example/app2:v1", made[0].digest.encoded[:12], "nosuch:v1"]
    done = argosy("rmi", *names, ids[0], ids[1], code=2)
    gone = [f"removed registry.example/app{n}:v1" for n in (2, 0, 1)]
    assert (done.out.splitlines(), len(writes)) == (gone, 1)
    assert done.err == "argosy: nosuch:v1 is not among the local images\n"
    assert [*store.tags()] == ["registry.example/app3:v1"]


def test_prune_removes_all_images_in_one_step(
    store: LayoutStore, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        image(store, f"app{number}:v1", f"202{number}-01-01T00:00:00Z")
    steps: list[list[str]] = []

    def written(path: str, data: bytes) -> int:
        steps.append(
            [
                e["annotations"]["org.opencontainers.image.ref.name"]
                for e in json.loads(data)["manifests"]
                if e.get("annotations")
            ]
        )
        return write_file(path, data)

    monkeypatch.setattr(indexfile, "write_file", written)
    Engine(Places(data=str(tmp_path), run=str(tmp_path / "run"), runtime=("true",))).prune(
        images=True
    )
    assert steps == [[], []]
    assert not store.index().manifests


@pytest.mark.parametrize(
    ("passed", "shown"),
    [
        ({"days": 366}, "1 year ago"),
        ({"days": 20_800}, "56 years ago"),
        ({"days": 2, "hours": 3}, "2 days ago"),
        ({"minutes": 1}, "1 minute ago"),
        ({"hours": -1}, "in the future"),
    ],
)
def test_an_age_is_one_number(
    argosy: Run, store: LayoutStore, passed: dict[str, int], shown: str
) -> None:
    moment = dt.datetime.now(dt.UTC) - dt.timedelta(seconds=1, **passed)
    image(store, "app:v1", moment.isoformat())
    assert shown in argosy("images").out


def rot(store: LayoutStore, digest: Digest) -> pathlib.Path:
    """Turn bits of a blob, two hours after it was written."""
    path = pathlib.Path(store.blobs.path_of(digest))
    path.write_bytes(bytes(byte ^ 1 for byte in path.read_bytes()))
    return path


def pruned(store: LayoutStore, **how: bool) -> tuple[list[str], int]:
    """The layers and bytes that prune frees two hours from now."""
    place = pathlib.Path(store.path).parent
    for file in store.blobs.files():
        os.utime(file.path, (0, 0))
    places = Places(data=str(place), run=str(place / "run"), runtime=("true",))
    _, layers, freed = Engine(places).prune(**how)
    return layers, freed


@pytest.fixture(params=["manifest", "config", "index"])
def damaged(request: pytest.FixtureRequest, store: LayoutStore) -> Digest:
    """The digest of what is damaged of `bad:v1`; beside it there is `good:v1`, and a layer nobody needs."""
    image(store, "good:v1", "2020-01-01T00:00:00Z")
    made = scratch(MemoryStore(), created="2021-01-01T00:00:00Z")
    root = create(made.source, made)
    copy(root.source, root.digest, store, "registry.example/bad:v1")
    (pathlib.Path(store.path).parent / "layers" / "sha256-unneeded").mkdir(parents=True)
    what = {"manifest": made.digest, "config": made.manifest.config.digest, "index": root.digest}
    return what[request.param]


@pytest.mark.parametrize("harm", ["rot", "cut", "gone"])
def test_a_damaged_image_is_listed_as_such_among_the_others(
    argosy: Run, store: LayoutStore, damaged: Digest, harm: str
) -> None:
    path = rot(store, damaged)
    if harm == "cut":
        path.write_bytes(path.read_bytes()[:50])
    if harm == "gone":
        path.unlink()
    root = store.resolve("registry.example/bad:v1").digest.encoded
    done = argosy("images")
    rows = [row.split() for row in done.out.splitlines()[1:]]
    assert ["registry.example/bad:v1", root[:12], "damaged", "-", "-"] in rows
    assert [row[0] for row in rows if "damaged" not in row] == ["registry.example/good:v1"]
    assert done.err.startswith("argosy: warning: registry.example/bad:v1 is damaged: ")
    assert "; argosy rmi registry.example/bad:v1 removes it" in done.err
    assert done.err.count("\n") == 1
    why = {entry["Name"]: entry["Damaged"] for entry in argosy("images", "--json").json}
    assert why["registry.example/good:v1"] is None
    assert why["registry.example/bad:v1"] in done.err
    assert root[:12] in argosy("images", "-q").out.split()
    assert argosy("rmi", root[:12]).out == "removed registry.example/bad:v1\n"
    assert argosy("images").err == ""


def test_prune_frees_no_blob_and_no_layer_until_a_damaged_image_is_removed(
    argosy: Run, store: LayoutStore, damaged: Digest, monkeypatch: pytest.MonkeyPatch
) -> None:
    image(store, "old:v1", "2022-01-01T00:00:00Z")
    store.untag("registry.example/old:v1")
    rot(store, damaged)
    before = [*store.blobs.files()]
    assert pruned(store) == ([], 0)
    assert [*store.blobs.files()] == before
    monkeypatch.setenv("ARGOSY_RUNTIME", "true")
    monkeypatch.setattr("argosy.engine.rootless.needed", lambda: False)
    warning, _ = argosy("prune").err.splitlines()
    assert warning.endswith("and until then prune frees neither blobs nor layers")
    argosy("rmi", "registry.example/bad:v1")
    (layer,), freed = pruned(store)
    assert layer.endswith("sha256-unneeded")
    assert freed
    assert len([*store.blobs.files()]) == 2
    assert len(store.index().manifests) == 1


def test_prune_of_all_images_takes_damaged_ones_too(store: LayoutStore, damaged: Digest) -> None:
    rot(store, damaged)
    assert pruned(store, images=True)[1]
    assert not [*store.blobs.files()]


def test_a_damaged_image_without_a_name_is_no_hindrance_to_prune(
    store: LayoutStore, damaged: Digest
) -> None:
    rot(store, damaged)
    store.untag("registry.example/bad:v1")
    assert pruned(store)[1]
    assert len([*store.blobs.files()]) == 2


def test_a_damaged_image_says_so_where_it_is_to_be_run_and_can_be_pulled_anew_once_it_is_removed(
    argosy: Run, store: LayoutStore, damaged: Digest, tmp_path: pathlib.Path
) -> None:
    copy(store, "registry.example/bad:v1", LayoutStore.create(str(tmp_path / "far")), "v1")
    rot(store, damaged)
    images = LocalImages(store.path)
    digits = store.resolve("registry.example/bad:v1").digest.encoded[:12]
    for text in ("registry.example/bad:v1", digits):
        with pytest.raises(IntegrityError) as caught:
            images.get(Location.parse(text))
        assert caught.value.hint is not None
        assert caught.value.hint.startswith("argosy rmi registry.example/bad:v1 removes it")
    argosy("rmi", "registry.example/bad:v1")
    _, found = images.get(Location.parse(f"oci:{tmp_path}/far:v1"))
    assert found.config
    assert argosy("images").err == ""
