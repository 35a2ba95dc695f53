"""`argosy sync` between places on disk: which tags it means, what it removes, what it leaves alone."""

from __future__ import annotations

import pathlib

import pytest

from argosy.cli.syncfile import MAX_FILE, read_jobs
from argosy.errors import InvalidConfigError, LimitExceededError
from argosy.layout.store import LayoutStore
from argosy.locate import Location
from argosy.spec.digest import Digest
from argosy.testing import random
from tests.cli.conftest import Run

LIST = f"sha256-{Digest.of(b'an image').encoded}"
"""The tag of a list of referrers, as clients keep one in registries without the API for it."""


def tags(place: pathlib.Path) -> list[str]:
    return sorted(LayoutStore.open(place).tags())


@pytest.fixture
def source(tmp_path: pathlib.Path) -> pathlib.Path:
    """A layout with images `1.0`, `1.1`, `2.0` and `latest`, and a list of referrers."""
    store = LayoutStore.create(tmp_path / "source")
    for number, tag in enumerate(("1.0", "1.1", "2.0", "latest")):
        random.image(store, number, tag)
    random.index(store, 9, LIST)
    return tmp_path / "source"


@pytest.fixture
def target(tmp_path: pathlib.Path) -> pathlib.Path:
    """A layout with an image `mine`, and a list of referrers of its own."""
    store = LayoutStore.create(tmp_path / "target")
    random.image(store, 20, "mine")
    random.index(store, 21, LIST)
    return tmp_path / "target"


# ----------------------------------------------------------------------------------------------- lists of referrers


def test_only_what_moved_is_told(argosy: Run, source: pathlib.Path, tmp_path: pathlib.Path) -> None:
    places = (f"oci:{source}", f"oci:{tmp_path / 'copy'}")
    first = argosy("sync", "-q", "-r", "--tag", "1.0", *places)
    assert first.out.startswith("copy ")
    assert argosy("sync", "-q", "-r", "--tag", "1.0", *places).out == ""
    store = LayoutStore.open(source)
    random.artifact(store, 3, subject=store.resolve("1.0"))
    assert argosy("sync", "-q", "-r", "--tag", "1.0", *places).out == first.out
    assert argosy("sync", "-q", "-r", "--tag", "1.0", *places).out == ""


def test_lists_of_referrers_are_not_copied_as_tags(
    argosy: Run, source: pathlib.Path, target: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    own = LayoutStore.open(target).resolve(LIST)
    argosy("cp", "-q", "-a", "--digest-tags", f"oci:{source}", f"oci:{target}")
    argosy("restore", "-q", "-i", source, f"oci:{target}")
    assert LayoutStore.open(target).resolve(LIST) == own
    assert tags(target) == sorted(["1.0", "1.1", "2.0", "latest", "mine", LIST])
    argosy("backup", "-q", f"oci:{source}", "-o", tmp_path / "kept")
    assert LIST not in tags(tmp_path / "kept")


def test_a_list_of_referrers_is_not_synced_by_its_tag(
    argosy: Run, source: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    done = argosy("sync", f"oci:{source}", f"oci:{tmp_path}/new", "--tag", LIST, code=64)
    assert "--referrers" in done.err
    argosy("sync", "-q", f"oci:{source}", f"oci:{tmp_path}/new")
    assert tags(tmp_path / "new") == ["1.0", "1.1", "2.0", "latest"]


# --------------------------------------------------------------------------------------------------------- pruning


@pytest.mark.parametrize(
    ("options", "left"),
    [
        ([], ["1.0", "1.1", "2.0", "latest"]),
        (["--include", "[12].*"], ["1.0", "1.1", "2.0", "mine"]),
        (["--exclude", "latest|mine"], ["1.0", "1.1", "2.0", "mine"]),
        (["--semver", "^1"], ["1.0", "1.1", "2.5", "mine"]),
        (["--newest", "1"], ["1.0", "2.0", "mine"]),
        (["--tag", "1.1"], ["1.0", "1.1", "1.9", "2.5", "mine"]),
    ],
)
def test_what_the_filters_take_and_the_source_lacks_is_pruned(
    argosy: Run, source: pathlib.Path, target: pathlib.Path, options: list[str], left: list[str]
) -> None:
    store = LayoutStore.open(target)
    store.tag(store.resolve("mine"), "1.9")
    store.tag(store.resolve("mine"), "2.5")
    argosy("cp", "-q", f"oci:{source}:1.0", f"oci:{target}")
    argosy("sync", "-q", "--prune", f"oci:{source}", f"oci:{target}", *options)
    assert tags(target) == sorted([*left, LIST])


def test_a_source_with_a_tag_prunes_no_other(
    argosy: Run, source: pathlib.Path, target: pathlib.Path
) -> None:
    argosy("sync", "-q", "--prune", f"oci:{source}:1.0", f"oci:{target}")
    assert tags(target) == sorted(["1.0", "mine", LIST])


def test_tags_for_digests_are_pruned_on_request(
    argosy: Run, source: pathlib.Path, target: pathlib.Path
) -> None:
    store = LayoutStore.open(target)
    store.tag(store.resolve("mine"), f"{LIST}.sig")
    argosy("sync", "-q", "--prune", f"oci:{source}", f"oci:{target}")
    assert f"{LIST}.sig" in tags(target)
    argosy("sync", "-q", "--prune", "--digest-tags", f"oci:{source}", f"oci:{target}")
    assert f"{LIST}.sig" not in tags(target)
    assert LIST in tags(target)


# ---------------------------------------------------------------------------------------------------- wrong usage


def test_a_tag_for_the_target_is_wrong_usage(
    argosy: Run, source: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    done = argosy("sync", f"oci:{source}:1.0", f"oci:{tmp_path}/new:other", code=64)
    assert "keep their names" in done.err
    assert not (tmp_path / "new").exists()
    argosy("sync", "localhost:1/a:v1", "localhost:1/b:v2", code=64)
    file = tmp_path / "sync.yaml"
    file.write_text(f"- source: oci:{source}\n")
    argosy("sync", "-f", file, "--target", f"oci:{tmp_path}/new:other", code=1)


@pytest.mark.parametrize("option", ["--include", "--exclude", "--semver"])
def test_a_filter_that_is_none_is_wrong_usage(
    argosy: Run, tmp_path: pathlib.Path, option: str
) -> None:
    argosy("sync", "oci:nowhere", f"oci:{tmp_path}/new", option, "(", code=64)


# -------------------------------------------------------------------------------------------------- what is copied


@pytest.mark.parametrize("platforms", [["linux/arm64"], ["linux/amd64", "linux/arm64"]])
def test_a_platform_is_copied_once_under_the_digest_that_is_told(
    argosy: Run, tmp_path: pathlib.Path, platforms: list[str]
) -> None:
    store = LayoutStore.create(tmp_path / "all")
    random.index(store, 1, "multi", platforms=("linux/amd64", "linux/arm64", "linux/s390x"))
    options = [word for name in platforms for word in ("--platform", name)]
    words = ["sync", "-q", f"oci:{tmp_path}/all", f"oci:{tmp_path}/some", *options]
    dry = argosy(*words, "--dry-run").out.split()
    told = argosy(*words).out.split()
    assert dry == told
    assert told[-1] == LayoutStore.open(tmp_path / "some").resolve("multi").digest
    assert argosy(*words).out == ""
    assert argosy(*words, "--dry-run").out.split()[0] == "same"


def test_what_cannot_be_copied_does_not_keep_the_rest_back(
    argosy: Run, source: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    random.index(LayoutStore.open(source), 7, "0-multi")
    words = ["sync", "-q", f"oci:{source}", f"oci:{tmp_path}/new", "--keep-going"]
    done = argosy(*words, "--tag", "nowhere", "--tag", "1.0", code=1)
    assert "1 of the steps failed" in done.err
    assert tags(tmp_path / "new") == ["1.0"]
    argosy(*words, "--platform", "linux/riscv64", code=1)
    assert "latest" in tags(tmp_path / "new")
    assert "0-multi" not in tags(tmp_path / "new")


# --------------------------------------------------------------------------------------------- a place for one image


@pytest.mark.parametrize("words", [["sync"], ["cp", "-a"], ["backup", "-o"]])
def test_a_dir_is_not_given_several_images(
    argosy: Run, source: pathlib.Path, tmp_path: pathlib.Path, words: list[str]
) -> None:
    place = f"dir:{tmp_path}/dir"
    argosy("sync", "-q", f"oci:{source}", place, "--tag", "1.0")
    held = argosy("digest", place).out
    ends = [f"oci:{source}", place][:: -1 if words[0] == "backup" else 1]
    done = argosy(*words, *ends, "-q", code=1)
    assert "holds one image, not 4" in done.err
    assert f"oci:{tmp_path}/dir" in done.err
    assert argosy("digest", place).out == held
    assert argosy("sync", "-q", f"oci:{source}:1.0", place).out == ""
    assert argosy("sync", "-q", f"oci:{source}:1.1", place).out.startswith("copy")


def test_a_dir_has_no_tags(argosy: Run, source: pathlib.Path, tmp_path: pathlib.Path) -> None:
    place = f"dir:{tmp_path}/dir"
    argosy("cp", "-q", f"oci:{source}:1.0", place)
    held = argosy("digest", place).out
    for words in (
        ["tag", place, "v2"],
        ["cp", "-q", f"oci:{source}:1.1", f"{place}:v2"],
        ["cp", "-q", f"oci:{source}:1.1", place, "-t", "v2"],
        ["mutate", "-q", place, "--label", "a=b", "-t", "v2"],
    ):
        assert "no tags" in argosy(*words, code=1).err
    assert argosy("digest", place).out == held


# ------------------------------------------------------------------------------------------------- names of images


@pytest.fixture
def saved(argosy: Run, source: pathlib.Path, tmp_path: pathlib.Path) -> str:
    """A Docker archive with `app:v1` and `team/app:v2`."""
    place = f"docker-archive:{tmp_path}/saved.tar"
    for tag, name in (("1.0", "app:v1"), ("1.1", "team/app:v2")):
        argosy("cp", "-q", f"oci:{source}:{tag}", f"{place}:{name}")
    return place


def test_names_of_an_archive_are_kept_in_a_layout(
    argosy: Run, saved: str, tmp_path: pathlib.Path
) -> None:
    words = ["sync", "-q", "--prune", saved, f"oci:{tmp_path}/new"]
    assert argosy(*words, "--dry-run").out.count("copy") == 2
    argosy(*words)
    assert tags(tmp_path / "new") == ["app:v1", "team/app:v2"]
    assert argosy(*words).out == ""
    argosy("sync", "-q", "--prune", f"oci:{tmp_path}/new", f"oci:{tmp_path}/again")
    assert tags(tmp_path / "again") == ["app:v1", "team/app:v2"]


def test_what_an_archive_was_just_given_is_not_pruned(
    argosy: Run, source: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    place, store = f"docker-archive:{tmp_path}/new.tar", LayoutStore.open(source)
    argosy("sync", "-q", f"oci:{source}", place, code=64)
    store.tag(store.resolve("1.0"), "app:v1")
    words = ["sync", "-q", "--prune", f"oci:{source}", place, "--include", "app:.*|docker.*"]
    argosy(*words)
    assert argosy("ls", place).out.split() == ["app:v1"]
    assert argosy(*words).out == ""


def test_content_named_by_its_digest_gets_no_tag(
    argosy: Run, source: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    digest = LayoutStore.open(source).resolve("1.1").digest
    for words in ([f"oci:{source}@{digest}"], [f"oci:{source}:@1"]):
        new = tmp_path / str(len(words[0]))
        argosy("sync", "-q", *words, f"oci:{new}")
        assert tags(new) == []
        assert LayoutStore.open(new).resolve("@0").digest == digest
    argosy("sync", "-q", f"oci:{source}", f"oci:{tmp_path}/tag", "--tag", digest)
    assert tags(tmp_path / "tag") == []


def test_a_manifest_is_put_under_a_name_with_a_colon(
    argosy: Run, source: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    file = tmp_path / "manifest.json"
    file.write_text(argosy("manifest", "get", f"oci:{source}:1.0").out)
    argosy("manifest", "put", f"oci:{source}:x.test/app:v1", file)
    assert "x.test/app:v1" in tags(source)


def test_a_new_image_takes_over_a_name_with_a_colon(
    argosy: Run, source: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    argosy("cp", "-q", f"oci:{source}:1.0", f"oci:{tmp_path}/one:x.test/app:v1")
    old = LayoutStore.open(tmp_path / "one").resolve("x.test/app:v1")
    argosy("mutate", "-q", f"oci:{tmp_path}/one", "--label", "a=b")
    assert LayoutStore.open(tmp_path / "one").resolve("x.test/app:v1") != old


# ---------------------------------------------------------------------------------------------------------- the file


def test_versions_in_a_file_stay_what_is_written(
    argosy: Run, source: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    store, file = LayoutStore.open(source), tmp_path / "sync.yaml"
    names = ["3.2", "3.20", "yes", "2024-01-02", "0x10", "1_000", "1e3"]
    for tag in names:
        store.tag(store.resolve("latest"), tag)
    wanted = names[1:]
    file.write_text(
        f"- source: oci:{source}\n  target: oci:{tmp_path}/new\n  tags: [{', '.join(wanted)}]\n"
    )
    argosy("sync", "-q", "-f", file)
    assert tags(tmp_path / "new") == sorted(wanted)


def test_versions_in_skopeos_file_stay_what_is_written() -> None:
    text = "r.test:\n  tls-verify: false\n  images:\n    a: [3.20, 3.10]\n    b: []\n    c:\n"
    text += "  images-by-semver:\n    d: 3.20\n"
    jobs = read_jobs(text, "file", Location.parse("m.test/x"))
    assert [job.tags for job in jobs] == [("3.20", "3.10"), (), (), ()]
    assert jobs[3].semver == "3.20"


def test_flags_and_numbers_in_a_file_are_read_as_such() -> None:
    text = "- {source: a, target: b, prune: yes, referrers: 'false', digest-tags: True, newest: 3}"
    (job,) = read_jobs(text, "file")
    assert (job.prune, job.referrers, job.digest_tags, job.newest) == (True, False, True, 3)


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("prune", "maybe"),
        ("prune", "3"),
        ("newest", "0"),
        ("newest", "1.5"),
        ("tags", "[[a]]"),
        ("tags", "[~]"),
        ("tags", "[!!float 3.20]"),
        ("semver", "[1]"),
        ("semver", "~"),
    ],
)
def test_a_file_that_says_something_else_is_refused(key: str, text: str) -> None:
    with pytest.raises(InvalidConfigError, match=key):
        read_jobs(f"- {{source: a, target: b, {key}: {text}}}", "file")


@pytest.mark.parametrize(
    "raw",
    [b"- \xff", b"- \0", b"[" * 20_000, b"[" * 20_000 + b"]" * 20_000, b"- !!timestamp 2020-13-45"],
    ids=["bytes", "control", "open", "deep", "date"],
)
def test_a_file_that_is_no_yaml_is_refused(argosy: Run, tmp_path: pathlib.Path, raw: bytes) -> None:
    (tmp_path / "jobs").write_bytes(raw)
    said = argosy("sync", "--dry-run", "-f", tmp_path / "jobs", code=1).err
    assert said.startswith(f"argosy: {tmp_path}/jobs: not YAML: ")
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("- {source: , target: a}", r"file: \[0\]: source: expected a string"),
        ("- {source: a, target: [b]}", r"file: \[0\]: target: expected a string"),
        ("r.test: {images-by-tag-regex: {a: [b]}}", "images-by-tag-regex: a: expected a string"),
        ("- source: a\n  target: b\n  source: c\n", "file:3: 'source' is there twice"),
        ("r.test:\n  images: {a: , b: , a: [v1]}\n", "file:2: 'a' is there twice"),
        ("r.test: {images: {a: }}\nr.test: {images: {b: }}\n", "file:2: 'r.test' is there twice"),
        ("- &a [*a]\n- {source: x, prune: no, prune: no}", "file:2: 'prune' is there twice"),
    ],
)
def test_a_file_that_says_something_in_two_ways_or_in_none_is_refused(text: str, told: str) -> None:
    """Of what was there twice, the last was taken."""
    with pytest.raises(InvalidConfigError, match=told):
        read_jobs(text, "file", Location.parse("m.test/x"))


def test_what_is_said_over_a_merged_mapping_is_not_said_twice() -> None:
    text = "- &a {source: r.test/a, target: m.test/a, prune: yes}\n- {<<: *a, target: m.test/b}\n"
    assert [str(job.target) for job in read_jobs(text, "file")] == ["m.test/a", "m.test/b"]


def test_a_file_that_is_too_long_is_refused_and_not_cut() -> None:
    with pytest.raises(LimitExceededError, match="file: over the limit of 4194304 bytes"):
        read_jobs(b"- {source: a, target: b}\n" + b"#" * MAX_FILE, "file")


def test_the_tag_of_a_files_source_is_the_only_one() -> None:
    (job,) = read_jobs("- {source: 'r.test/a:v1', target: m.test/a}", "file")
    assert job.tags == ("v1",)


def test_the_tag_beside_a_digest_is_synced(
    argosy: Run, source: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    digest = argosy("digest", f"oci:{source}:1.0").out.strip()
    argosy("tag", f"oci:{source}:latest", "moved")
    pinned, there = f"oci:{source}:moved@{digest}", f"oci:{tmp_path}/new"
    assert argosy("sync", "-q", pinned, there).out == f"copy {there} moved {digest}\n"
    assert tags(tmp_path / "new") == ["moved"]
    assert argosy("sync", "-q", pinned, there).out == ""
    argosy("sync", "-q", f"oci:{source}@{digest}", f"oci:{tmp_path}/bare")
    assert tags(tmp_path / "bare") == []


@pytest.mark.parametrize(
    "words",
    [
        ["--tag", "v1"], ["--include", "v.*"], ["--exclude", "v.*"], ["--semver", "1"], ["--newest", "1"],
        ["--platform", "linux/amd64"], ["--referrers"], ["--digest-tags"], ["--prune"],
    ],
)  # fmt: skip
def test_what_a_file_says_is_not_said_beside_it(
    argosy: Run, layout: pathlib.Path, tmp_path: pathlib.Path, words: list[str]
) -> None:
    jobs = tmp_path / "jobs.yaml"
    jobs.write_text(f"- source: oci:{layout}\n  target: oci:{tmp_path}/there\n")
    done = argosy("sync", "-q", "-f", jobs, *words, code=64)
    assert f"{words[0]}: with --file" in done.err
    assert not (tmp_path / "there").exists()


def test_a_base_without_a_file_is_wrong_usage(
    argosy: Run, layout: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    there = f"oci:{tmp_path}/there"
    argosy("sync", "-q", "--target", there, f"oci:{layout}", there, code=64)
    argosy("sync", "-q", "--scoped", f"oci:{layout}", there, code=64)
    assert not (tmp_path / "there").exists()


@pytest.mark.parametrize(
    ("pattern", "taken"),
    [
        ("(?i)^V", ["V2", "v1"]),
        ("1", ["v1", "x1y"]),
        ("^x|2$", ["V2", "x1y"]),
        ("", ["V2", "v1", "x1y"]),
    ],
)
def test_a_pattern_of_skopeos_file_matches_anywhere(pattern: str, taken: list[str]) -> None:
    text = f"r.test:\n  images-by-tag-regex:\n    a: '{pattern}'\n"
    (job,) = read_jobs(text, "file", Location.parse("m.test/x"))
    assert sorted(job.matching(["v1", "V2", "x1y"])) == taken


def test_skopeos_file_puts_images_where_skopeo_does() -> None:
    text, base = "r.test:\n  images:\n    a/b: []\n    c: [v1]\n", Location.parse("m.test/x")
    found = [str(job.target) for job in read_jobs(text, "file", base)]
    assert found == ["m.test/x/b", "m.test/x/c"]
    found = [str(job.target) for job in read_jobs(text, "file", base, scoped=True)]
    assert found == ["m.test/x/r.test/a/b", "m.test/x/r.test/c"]
    listed = "[{source: r.test/a/b}]"
    assert [str(job.target) for job in read_jobs(listed, "file", base)] == ["m.test/x/a/b"]
    both = text + "  images-by-semver:\n    c: '1'\n    d/b: '1'\n"
    with pytest.raises(InvalidConfigError, match=r"r\.test/a/b and r\.test/d/b would both go to"):
        read_jobs(both, "file", base)
    assert len(read_jobs(both, "file", base, scoped=True)) == 4


def test_skopeos_file_says_how_its_registry_is_talked_to() -> None:
    text = "r.test:\n  credentials: {username: me, password: 007}\n  tls-verify: false\n  cert-dir: /c\n"
    (job,) = read_jobs(text + "  images: {a: }\n", "file", Location.parse("m.test/x"))
    assert job.access == {"src.creds": "me:007", "src.tls_verify": False, "src.cert_dir": "/c"}
    with pytest.raises(InvalidConfigError, match="credentials"):
        read_jobs("r.test: {credentials: {token: x}, images: {a: }}", "file", job.target)


def test_a_file_that_is_no_list_of_jobs_is_told_what_one_is(
    argosy: Run, tmp_path: pathlib.Path
) -> None:
    jobs = tmp_path / "jobs.yaml"
    jobs.write_text("jobs:\n- source: oci:a\n  target: oci:b\n")
    assert "a list of jobs" in argosy("sync", "-f", jobs, code=1).err


def test_a_registry_with_a_port_is_no_part_of_a_repositorys_name(
    argosy: Run, tmp_path: pathlib.Path
) -> None:
    """`tag '5000/app'` was refused, which nobody had typed."""
    file = tmp_path / "jobs.yaml"
    file.write_text("- source: localhost:5000/app\n")
    line = ["sync", "-f", file, "--scoped", "--dry-run", "--target"]
    told = argosy(*line, "mirror.example/all", code=1).err
    assert "localhost:5000/app below mirror.example/all: a repository's name holds no port" in told
