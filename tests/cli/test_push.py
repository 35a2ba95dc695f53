"""`argosy push` of what is on this machine: an index goes whole, or says what becomes of it."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Iterator

import pytest

from argosy import Descriptor, Registry
from argosy.remote.repository import Repository
from argosy.spec.platform import Platform
from argosy.testing import random
from tests.cli.conftest import Run
from tests.interop.registries import running

_OTHERS = [p for p in ("linux/amd64", "linux/arm64", "linux/s390x") if p != str(Platform.host())]


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running("argosy", tmp_path_factory.mktemp("registry")) as real:
        yield real.name


@pytest.fixture
def place(
    registry: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Repository]:
    """A repository whose tag `v1` is an index for this machine and another, and a machine without images."""
    monkeypatch.setenv("ARGOSY_ROOT", str(tmp_path))
    with Registry(registry) as opened:
        place = opened.repository(f"app{tmp_path.name[-30:].lower()}".replace("_", "-"))
        index(place, str(Platform.host()), _OTHERS[0])
        yield place


def index(place: Repository, *platforms: str) -> Descriptor:
    return random.index(place, 1, "v1", platforms=platforms)


def test_an_index_that_is_here_whole_is_pushed_whole(argosy: Run, place: Repository) -> None:
    pulled = place.resolve("v1")
    argosy("pull", "-q", f"{place}:v1")
    argosy("pull", "-q", "--platform", _OTHERS[0], f"{place}:v1")
    done = argosy("push", "-q", f"{place}:v1")
    assert (done.out, done.err) == (f"{place}@{pulled.digest}\n", "")
    assert place.resolve("v1") == pulled


@pytest.mark.parametrize("platform", [str(Platform.host()), _OTHERS[0]])
def test_the_only_image_of_an_index_that_is_here_is_pushed_alone_with_a_warning(
    argosy: Run, place: Repository, platform: str
) -> None:
    pulled = argosy("digest", "--platform", platform, f"{place}:v1").out.strip()
    argosy("pull", "-q", "--platform", platform, f"{place}:v1")
    done = argosy("push", "-q", f"{place}:v1")
    assert done.out == f"{place}@{pulled}\n"
    assert done.err.startswith(f"argosy: warning: only the image for {platform} of {place}:v1 is")
    assert place.resolve("v1").digest == pulled


def test_a_part_of_an_index_is_pushed_only_where_it_is_said_which(
    argosy: Run, place: Repository
) -> None:
    pulled = index(place, str(Platform.host()), *_OTHERS)
    for platform in (str(Platform.host()), _OTHERS[0]):
        argosy("pull", "-q", "--platform", platform, f"{place}:v1")
    told = argosy("push", "-q", f"{place}:v1", code=64).err
    assert f"only 2 are here: {Platform.host()}, {_OTHERS[0]}\n" in told
    assert "--platform" in told
    assert place.resolve("v1") == pulled
    one = argosy("digest", "--platform", _OTHERS[0], f"{place}:v1").out
    done = argosy("push", "-q", "--platform", _OTHERS[0], f"{place}:v1")
    assert (done.out, done.err) == (f"{place}@{one}", "")


def test_an_image_of_this_machine_is_pushed_to_another_name(argosy: Run, place: Repository) -> None:
    """And not what its name means in its registry by now."""
    image = random.image(place, 1, "one").digest
    argosy("pull", "-q", f"{place}:one")
    random.image(place, 2, "one")
    entry = json.loads(argosy("images", "--json").out)[0]
    for typed, tag in ((f"{place}:one", "two"), (entry["Id"].partition(":")[2][:12], "three")):
        done = argosy("push", "-q", typed, f"{place}:{tag}")
        assert done.out == f"{place}@{image}\n"
        assert place.resolve(tag).digest == image
    other = place.resolve("one").digest
    argosy("rmi", f"{place}:one")
    argosy("push", "-q", f"{place}:one", f"{place}:four")
    assert place.resolve("four").digest == other


def test_what_docker_comes_before_is_a_registry_s_image(
    argosy: Run, place: Repository, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    random.image(place, 1, "one")
    argosy("pull", "-q", f"{place}:one")
    newer = random.image(place, 2, "one").digest
    argosy("push", "-q", f"docker://{place}:one", f"{place}:two")
    assert place.resolve("two").digest == newer
    monkeypatch.setenv("ARGOSY_ROOT", "/proc/none")  # where no image of this machine can be
    argosy("push", "-q", f"{place}:one", f"{place}:three")
    assert place.resolve("three").digest == newer
