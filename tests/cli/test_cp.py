"""`argosy cp` where an image becomes another one on its way, and the order of `argosy ls`."""

from __future__ import annotations

import io
import pathlib

import pytest

from argosy.image.validate import validate
from argosy.image.view import Image, ImageIndex, view
from argosy.layout.store import LayoutStore
from argosy.spec import mediatypes
from argosy.spec.descriptor import Descriptor
from argosy.testing import random
from tests.cli.conftest import Run
from tests.interop.registries import running


def sound(path: pathlib.Path, tag: str) -> Image | ImageIndex:
    """What a tag names, checked from top to bottom."""
    found = view(LayoutStore.open(str(path)), tag)
    images = [found] if isinstance(found, Image) else list(found.images())
    for image in images:
        assert [str(f) for f in validate(image) if not f.warning] == []
    return found


@pytest.mark.parametrize("tag", ["v1", "multi"])
def test_a_copy_can_have_other_media_types_and_come_back(
    argosy: Run, layout: pathlib.Path, tmp_path: pathlib.Path, tag: str
) -> None:
    old = sound(layout, tag)
    there = tmp_path / "there"
    done = argosy("cp", "--format", "docker", f"oci:{layout}:{tag}", f"oci:{there}:d")
    made = sound(there, "d")
    assert f"the digest was {old.digest}, it is {made.digest} now" in done.err
    wanted = mediatypes.DOCKER_LIST if tag == "multi" else mediatypes.DOCKER_MANIFEST
    assert made.descriptor.media_type == wanted
    argosy("cp", "--format", "oci", f"oci:{there}:d", f"oci:{there}:o")
    assert sound(there, "o").descriptor.media_type == old.descriptor.media_type


@pytest.mark.parametrize("compress", ["none", "gzip", "zstd"])
def test_a_copy_can_be_compressed_in_another_way(
    argosy: Run, layout: pathlib.Path, tmp_path: pathlib.Path, compress: str
) -> None:
    old = sound(layout, "v1")
    assert isinstance(old, Image)
    argosy("cp", "--compress", compress, f"oci:{layout}:v1", f"oci-archive:{tmp_path}/a.tar:v1")
    argosy("cp", f"oci-archive:{tmp_path}/a.tar:v1", f"oci:{tmp_path}/back:v1")
    made = sound(tmp_path / "back", "v1")
    assert isinstance(made, Image)
    assert made.manifest.config.digest == old.manifest.config.digest
    assert {layer.media_type for layer in made.manifest.layers} == {
        mediatypes.layer_media_type(compress)
    }


def test_of_an_index_only_the_platforms_that_are_wanted_are_changed(
    argosy: Run, layout: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    old = sound(layout, "multi")
    assert isinstance(old, ImageIndex)
    named = [str(entry.platform) for entry in old.manifests[:2]]
    there = tmp_path / "there"
    words = [word for name in named for word in ("--platform", name)]
    argosy("cp", *words, "--format", "docker", f"oci:{layout}:multi", f"oci:{there}:two")
    made = sound(there, "two")
    assert isinstance(made, ImageIndex)
    assert [str(entry.platform) for entry in made.manifests] == named
    argosy("cp", *words[:2], "--format", "docker", f"oci:{layout}:multi", f"oci:{there}:one")
    assert isinstance(sound(there, "one"), Image)


@pytest.mark.parametrize("words", [(), ("--format", "docker"), ("--compress", "none")])
def test_platforms_within_nested_indexes_are_copied_and_changed(
    argosy: Run, tmp_path: pathlib.Path, words: tuple[str, ...]
) -> None:
    store = LayoutStore.create(str(tmp_path / "layout"))
    several = [f"linux/{name}" for name in ("arm64", "amd64", "s390x")]
    random.index(store, 1, "v1", platforms=several, nested=True)
    named = [word for name in several[:2] for word in ("--platform", name)]
    argosy("cp", *named, *words, f"oci:{tmp_path}/layout:v1", f"oci:{tmp_path}/there:v1")
    made = sound(tmp_path / "there", "v1")
    assert isinstance(made, ImageIndex)
    assert [str(entry.platform) for entry in made.manifests] == several[:2]
    assert len(list(made.images())) == 2


def test_digests_that_shall_be_preserved_are(
    argosy: Run, layout: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    there = f"oci:{tmp_path}/there:v1"
    done = argosy(
        "cp", "--preserve-digests", "--format", "docker", f"oci:{layout}:v1", there, code=64
    )
    assert "--preserve-digests" in done.err
    argosy("cp", "--preserve-digests", "--format", "oci", f"oci:{layout}:v1", there)
    assert sound(tmp_path / "there", "v1").digest == sound(layout, "v1").digest


def test_what_refers_to_the_old_image_does_not_come_with_the_new_one(
    argosy: Run, layout: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    place = f"oci:{tmp_path}/there:v1"
    argosy("cp", "--referrers", "--compress", "zstd", f"oci:{layout}:v1", place, code=64)
    argosy("cp", "--level", "3", f"oci:{layout}:v1", place, code=64)


def test_tags_are_listed_by_when_their_images_were_made(
    argosy: Run, layout: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    made = {
        "middle": "2021-05-01T00:00:00.5Z",
        "newest": "2024-01-01T00:00:00+02:00",
        "oldest": "2020-01-01T00:00:00Z",
    }
    for tag, created in made.items():
        argosy("mutate", f"oci:{layout}:v1", "--created", created, "-t", tag)
    store = LayoutStore.open(str(layout))
    store.tag(random.artifact(store, 9), "timeless")
    store.untag("multi")
    store.untag("v1")
    legacy = b'{"schemaVersion": 1}'
    store.push(
        Descriptor.of(mediatypes.OCI_MANIFEST, legacy), io.BytesIO(legacy), tags=["unreadable"]
    )
    assert argosy("ls", f"oci:{layout}", "--sort", "date").out.split() == [
        "timeless", "unreadable", "oldest", "middle", "newest",
    ]  # fmt: skip
    assert (
        argosy("ls", f"oci:{layout}", "--sort", "date", "--reverse", "--limit", "1").out
        == "newest\n"
    )


@pytest.mark.parametrize("tag", ["z z", "", "-x", "a:b", "t" * 129])
def test_what_is_no_tag_is_wrong_usage(
    argosy: Run, layout: pathlib.Path, tmp_path: pathlib.Path, tag: str
) -> None:
    place, there = f"oci:{layout}:v1", tmp_path / "there"
    before = argosy("ls", f"oci:{layout}").out
    argosy("tag", place, "--", "good", tag, code=64)
    argosy("cp", "-q", place, f"oci:{there}:v1", f"--tag={tag}", code=64)
    assert not there.exists()
    if ":" not in tag:
        argosy("mutate", place, "--label", "a=b", f"--tag={tag}", code=64)
    assert argosy("ls", f"oci:{layout}").out == before


@pytest.mark.parametrize(
    "there",
    ["oci:y:z z", "oci-archive:y:-x", "docker-archive:y:A B", f"oci:y:{'t' * 2000}\t", "oci:y:@3"],
)
def test_a_target_that_is_no_tag_is_told_before_anything_is_made(
    argosy: Run, layout: pathlib.Path, tmp_path: pathlib.Path, there: str
) -> None:
    target = there.replace(":y:", f":{tmp_path}/y:", 1)
    (tmp_path / "file").touch()
    for words in (
        ("cp", f"oci:{layout}:v1", target),
        ("flatten", f"oci:{layout}:v1", "-t", target),
        ("artifact", "push", "--disable-path-validation", target, tmp_path / "file"),
    ):
        done = argosy(*words, code=64)
        assert "copied" not in done.err
        assert len(done.err) < 3000
        assert not (tmp_path / "y").exists()


def test_a_name_of_a_layout_that_no_registry_takes_is_told_before_anything_moves(
    argosy: Run, layout: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    place = LayoutStore.open(str(layout))
    place.tag(place.resolve("v1"), "v1+x")
    with running("argosy", tmp_path) as real:
        for words in (("-a", f"oci:{layout}"), (f"oci:{layout}:v1+x",)):
            done = argosy("cp", *words, f"{real.name}/app", code=64)
            assert "'v1+x'" in done.err
            assert "copied" not in done.err
        argosy("ls", f"{real.name}/app", code=2)


@pytest.mark.parametrize(
    "place", ["oci:{}/new@{}", "oci:{}/new:x@{}", "oci-archive:{}/new@{}", "dir:{}/new@{}"]
)
def test_nothing_else_is_written_where_a_digest_was_named(
    argosy: Run, layout: pathlib.Path, tmp_path: pathlib.Path, place: str
) -> None:
    target = place.format(tmp_path, "sha256:" + 64 * "0")
    done = argosy("cp", "-q", f"oci:{layout}:v1", target, code=4)
    assert "expected sha256:0000" in done.err
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("tag", ["", ":x"])
def test_what_is_made_is_what_the_digest_says_or_nothing(
    argosy: Run, layout: pathlib.Path, tmp_path: pathlib.Path, tag: str
) -> None:
    (tmp_path / "new").mkdir()
    file = tmp_path / "new" / "f"
    file.write_text("x")
    place = f"oci:{tmp_path / 'new' / 'l'}{tag}@sha256:{64 * '0'}"
    commands = (
        ("mutate", "-q", f"oci:{layout}:v1", "-l", "a=b", "-t", place),
        ("artifact", "push", "-q", "--disable-path-validation", place, file),
    )
    for command in commands:
        assert "expected sha256:0000" in argosy(*command, code=4).err
    made = argosy(
        "artifact", "push", "-q", "--disable-path-validation", f"oci:{tmp_path}/a:v", file
    )
    digest = made.out.strip()
    named = f"oci:{tmp_path}/b:x@{digest}"
    argosy("artifact", "push", "-q", "--disable-path-validation", named, file)
    assert argosy("digest", f"oci:{tmp_path}/b:x").out.strip() == digest


def test_a_tag_beside_a_digest_is_the_tag(
    argosy: Run, layout: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    digest = argosy("digest", f"oci:{layout}:v1").out.strip()
    argosy("cp", "-q", f"oci:{layout}:v1", f"oci:{tmp_path}/a:x@{digest}")
    argosy("cp", "-q", f"oci:{tmp_path}/a:x@{digest}", f"oci:{tmp_path}/b")
    assert argosy("ls", f"oci:{tmp_path}/a").out == argosy("ls", f"oci:{tmp_path}/b").out == "x\n"
    argosy("cp", "-q", f"oci:{tmp_path}/a@{digest}", f"oci:{tmp_path}/c")
    argosy("cp", "-q", f"oci:{tmp_path}/a:x", f"oci:{tmp_path}/c@{digest}")
    assert argosy("ls", f"oci:{tmp_path}/c").out == ""
    (tmp_path / "raw").write_text(argosy("manifest", "get", f"oci:{layout}:v1").out)
    argosy("manifest", "put", f"oci:{tmp_path}/c:y@{digest}", tmp_path / "raw")
    assert argosy("ls", f"oci:{tmp_path}/c").out == "y\n"


@pytest.mark.parametrize(
    "words",
    [
        ["cp", "-q", "-a", "SOURCE", "TARGET"],
        ["backup", "-q", "SOURCE", "-o", "TARGET"],
        ["sync", "-q", "SOURCE", "TARGET"],
        ["sync", "-q", "SOURCE", "TARGET", "--keep-going"],
    ],
)
def test_of_many_tags_the_one_that_fails_is_told(
    argosy: Run, layout: pathlib.Path, tmp_path: pathlib.Path, words: list[str]
) -> None:
    image = LayoutStore.open(str(layout)).resolve("v1")
    (layout / "blobs/sha256" / image.digest.encoded).write_bytes(b"{}")
    places = {"SOURCE": f"oci:{layout}", "TARGET": f"oci:{tmp_path}/there"}
    said = argosy(*(places.get(word, word) for word in words), code=1 if words[-1][0] == "-" else 4)
    assert "tag v1)" in said.err


@pytest.mark.parametrize("words", [["cp", "-a"], ["backup", "-o"], ["restore", "-i"]])
@pytest.mark.parametrize("kind", ["oci", "oci-archive"])
def test_keep_going_copies_the_tags_that_can_be_copied(
    argosy: Run, layout: pathlib.Path, tmp_path: pathlib.Path, words: list[str], kind: str
) -> None:
    """One Docker schema 1 image of long ago kept all the others of its repository back."""
    argosy("tag", f"oci:{layout}:v1", "0-bad")
    image = LayoutStore.open(str(layout)).resolve("v1")
    (layout / "blobs/sha256" / image.digest.encoded).write_bytes(b"{}")
    place = f"{kind}:{tmp_path}/there"
    ends = [f"oci:{layout}", place]
    order = [ends[1], ends[0]] if words[0] == "backup" else ends
    line = [words[0], "-q", *words[1:], *order]
    argosy(*line, code=4)
    told = argosy(*line, "--keep-going", code=1).err
    assert "argosy: 2 of the tags failed" in told
    assert argosy("ls", place).out == "multi\n"
    assert argosy("digest", f"{place}:multi").out == argosy("digest", f"oci:{layout}:multi").out
    if words[0] != "cp":
        assert "1 tags copied" in told


def test_keep_going_of_a_single_image_is_wrong_usage(argosy: Run, layout: pathlib.Path) -> None:
    argosy("cp", f"oci:{layout}:v1", "oci:x:y", "--keep-going", code=64)


def test_all_tags_are_pulled_but_lists_of_referrers(
    argosy: Run, layout: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    """As `cp -a` does it: a list is no image, and the target's own."""
    random.index(LayoutStore.open(str(layout)), 9, f"sha256-{'0' * 64}")
    argosy("pull", "-q", "-a", "--format", "oci", "-o", tmp_path / "there", f"oci:{layout}")
    assert argosy("ls", f"oci:{tmp_path}/there").out.split() == [
        "localhost/layout:v1",
        "localhost/layout:multi",
    ]


@pytest.mark.parametrize("name", [":v1", "@sha256:" + 64 * "0", ":@0", ":v1@sha256:" + 64 * "0"])
def test_all_tags_are_not_meant_where_one_is_named(
    argosy: Run, layout: pathlib.Path, tmp_path: pathlib.Path, name: str
) -> None:
    source = f"oci:{layout}{name}"
    for words in (
        ("cp", "-a", source, f"oci:{tmp_path}/there"),
        ("pull", "-a", source, "-o", tmp_path / "there"),
        ("push", "-a", f"localhost:1/app{name}".replace(":@0", ":latest")),
        ("push", "-a", f"oci:{layout}", "localhost:1/app"),
        ("cp", "-a", f"oci:{layout}", f"oci:{tmp_path}/there{name}"),
    ):
        assert "--all-tags" in argosy(*words, code=64).err
    assert not (tmp_path / "there").exists()


def test_all_tags_of_what_has_none_are_not_copied_in_silence(
    argosy: Run, layout: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    """It was a success that copied nothing, and with --prune took every tag of the target away."""
    one, there = f"dir:{tmp_path}/one", f"oci:{tmp_path}/there"
    argosy("cp", "-q", f"oci:{layout}:v1", one)
    for words in (
        ("cp", "-a", one, there),
        ("backup", one, "-o", there),
        ("restore", "-i", one, there),
        ("sync", "--prune", one, f"oci:{layout}"),
        ("sync", "--prune", "--dry-run", one, f"oci:{layout}"),
    ):
        assert f"{one} is one image, and has no tags" in argosy(*words, code=1).err
    assert not (tmp_path / "there").exists()
    assert argosy("ls", f"oci:{layout}").out.split() == ["v1", "multi"]
    argosy("sync", "-q", f"{one}:@0", f"oci:{layout}")


def test_a_tag_that_is_there_stays_where_nothing_is_clobbered(
    argosy: Run, layout: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    there = f"oci:{tmp_path}/there"
    argosy("cp", "-q", "--no-clobber", f"oci:{layout}:v1", f"{there}:multi")
    before = argosy("digest", f"{there}:multi").out
    for more in ((f"{there}:multi",), (f"{there}:new", "--tag", "multi")):
        done = argosy("cp", "-q", "-n", f"oci:{layout}:multi", *more, code=1)
        assert "the tag multi is there" in done.err
    assert argosy("ls", there).out == "multi\n"
    argosy("cp", "-q", "-n", "-a", f"oci:{layout}", there)
    assert argosy("ls", there).out.split() == ["multi", "v1"]
    assert argosy("digest", f"{there}:multi").out == before
    argosy("cp", "-q", "-n", f"oci:{layout}:v1", f"dir:{tmp_path}/dir", code=1)


@pytest.mark.parametrize("pattern", ["(", "(?P<a", "[z-a]", "a" + "(" * 5000])
def test_what_is_no_regular_expression_is_wrong_usage(
    argosy: Run, layout: pathlib.Path, pattern: str
) -> None:
    done = argosy("ls", f"oci:{layout}", "--include", "v.*", "--exclude", pattern, code=64)
    assert f"{pattern[:90]}" in done.err
    assert len(done.err) < 500
    argosy("catalog", "localhost:1", "--include", pattern, code=64)


@pytest.mark.parametrize(
    ("compress", "level"),
    [("gzip", -1), ("gzip", 4), ("gzip", 99), ("zstd", 0), ("zstd", 23), ("none", 1)],
)
@pytest.mark.parametrize("verb", ["cp", "append", "flatten", "recompress", "repack"])
def test_a_level_that_a_compression_does_not_have_is_wrong_usage(
    argosy: Run, layout: pathlib.Path, tmp_path: pathlib.Path, verb: str, compress: str, level: int
) -> None:
    place, new = f"oci:{layout}:v1", f"oci:{tmp_path}/new:v1"
    layer = tmp_path / "layer.tar"
    layer.write_bytes(bytes(1024))
    words = {
        "cp": ("cp", place, new),
        "append": ("append", "-b", place, "-f", layer, "-t", new),
        "flatten": ("flatten", place, "-t", new),
        "recompress": ("recompress", place, "-t", new),
        "repack": ("repack", place, tmp_path / "bundle", "-t", new),
    }[verb]
    done = argosy(*words, "--compress", compress, "--level", level, code=64)
    assert f"{compress} has no level {level}" in done.err
    assert not (tmp_path / "new").exists()


def test_a_new_digest_is_not_told_of_a_copy_that_failed(
    argosy: Run, layout: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    words = ("cp", "--format", "docker", f"oci:{layout}:v1")
    wrong = "sha256:" + "0" * 64
    assert "it is" not in argosy(*words, f"oci:{tmp_path}/there@{wrong}", code=4).err
    assert "it is" not in argosy(*words, "oci-archive:/dev/full:v1", code=1).err


def test_convert_and_cp_know_the_same_words_for_media_types(
    argosy: Run, layout: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    place, there = f"oci:{layout}:multi", f"oci:{tmp_path / 'there'}"
    for word in ("docker", "v2s2", "oci"):
        argosy("cp", "--format", word, place, f"{there}:cp")
        argosy("convert", "--format", word, place, "-t", f"{there}:convert")
        digests = [argosy("digest", f"{there}:{name}").out for name in ("cp", "convert")]
        assert digests[0] == digests[1]
        raw = argosy("manifest", "get", f"{there}:cp").out
        assert ("vnd.docker." in raw) is (word != "oci")
