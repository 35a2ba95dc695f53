"""The images of this machine, as they are listed."""

from __future__ import annotations

import datetime as dt
import json
import pathlib

import pytest

from argosy import Descriptor, LayoutStore, copy
from argosy.content.memory import MemoryStore
from argosy.engine.places import Places
from argosy.engine.run import Engine
from argosy.image.new import scratch
from argosy.layout import indexfile
from argosy.layout.durable import write_file
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
