from __future__ import annotations

import io
import json
import os
import pathlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from argosy.errors import InvalidConfigError, NotFoundError, UsageError
from argosy.image.contents import Contents, write_flat
from argosy.image.derive import append_layer
from argosy.image.differences import document_differences, file_differences
from argosy.image.draft import Spool
from argosy.image.efficiency import Rules, report
from argosy.image.flatten import flatten
from argosy.image.view import Image
from argosy.layer.entry import Entry, EntryType
from argosy.layer.rootfs import RootFS
from argosy.layer.tarstream import TarReader
from argosy.layout.dockerarchive import DockerArchive
from tests.image.kit import all_proved, file, folder, image_of, link, names, tar_of


def hard(name: str, target: str) -> Entry:
    return Entry(name=name.encode(), type=EntryType.HARDLINK, linkname=target.encode())


LOWER = tar_of(
    folder("etc/"), file("etc/passwd", b"root"), file("etc/motd", b"hello"),
    folder("opt/"), file("opt/a", b"A" * 1000), hard("opt/b", "opt/a"), file("opt/empty"),
    link("lib", "usr/lib"), folder("usr/"), folder("usr/lib/"), file("dir", b"was a file"),
)  # fmt: skip
UPPER = tar_of(
    file("etc/.wh.motd"), file("etc/passwd", b"changed"), file("lib/so", b"through a link"),
    hard("opt/c", "opt/b"), file("opt/.wh.a"), folder("dir/"), file("dir/x", b"now a directory"),
)  # fmt: skip


@pytest.fixture
def image() -> Image:
    return image_of(LOWER, UPPER)


def flat(image: Image, path: str = "", **more: object) -> dict[str, bytes | str]:
    out = io.BytesIO()
    write_flat(Contents(image, **more), out, path)  # type: ignore[arg-type]
    reader = TarReader(io.BytesIO(out.getvalue()))
    return {
        entry.name.decode(): b"".join(reader.whole())
        or f"{entry.type.name}:{entry.linkname.decode()}"
        for entry in reader
    }


def tree(path: pathlib.Path) -> dict[str, object]:
    """A listing as mtree would make it."""
    found: dict[str, object] = {}
    for folder_path, folders, files in os.walk(path):
        for name in (*folders, *files):
            full = os.path.join(folder_path, name)
            status = os.lstat(full)
            content: object = None
            if os.path.islink(full):
                content = os.readlink(full)
            elif os.path.isfile(full):
                with open(full, "rb") as opened:
                    content = opened.read()
            found[os.path.relpath(full, path)] = (
                oct(status.st_mode), status.st_uid, status.st_gid, int(status.st_mtime), content
            )  # fmt: skip
    return found


def unpacked(image: Image, path: pathlib.Path) -> dict[str, object]:
    with RootFS.create(path) as root:
        for layer in image.layers:
            with layer.compressed() as blob:
                root.apply(blob, diff_id=layer.diff_id)
    return tree(path)


def test_an_exported_image_is_what_unpacking_gives(image: Image, tmp_path: pathlib.Path) -> None:
    expected = unpacked(image, tmp_path / "layers")
    out = io.BytesIO()
    write_flat(Contents(image), out)
    with RootFS.create(tmp_path / "flat") as root:
        root.apply(io.BytesIO(out.getvalue()))
    assert tree(tmp_path / "flat") == expected


@pytest.mark.parametrize("keep", [False, True])
def test_what_upper_layers_hide_is_not_exported(image: Image, keep: bool) -> None:
    found = flat(image, spool=Spool() if keep else None)
    assert found["etc/passwd"] == b"changed"
    assert "etc/motd" not in found
    assert "opt/a" not in found
    assert found["usr/lib/so"] == b"through a link"
    assert found["opt/b"] == b"A" * 1000
    assert found["opt/c"] == "HARDLINK:opt/b"
    assert not [name for name in found if ".wh." in name]


def test_a_part_of_an_image_is_exported_under_its_own_name(image: Image) -> None:
    assert list(flat(image, "/usr/lib")) == ["lib/", "lib/so"]
    assert flat(image, "etc/passwd") == {"passwd": b"changed"}
    with pytest.raises(NotFoundError):
        flat(image, "/etc/motd")


def test_the_content_of_one_file_is_read_through_links(image: Image) -> None:
    contents = Contents(image)
    assert b"".join(contents.content("/lib/so")) == b"through a link"
    assert b"".join(contents.content("opt/c")) == b"A" * 1000
    with pytest.raises(UsageError, match="directory"):
        contents.content("/etc").__next__()


def test_a_flattened_image_has_one_layer_and_the_same_files(
    image: Image, tmp_path: pathlib.Path
) -> None:
    made = flatten(image)
    assert len(made.layers) == 1
    assert unpacked(made, tmp_path / "flat") == unpacked(image, tmp_path / "layers")
    assert not all_proved(made)
    assert list(file_differences(Contents(image), Contents(made))) == []


def test_layers_above_a_base_are_flattened_and_the_base_stays(tmp_path: pathlib.Path) -> None:
    top = tar_of(
        file("etc/.wh.passwd"), hard("opt/d", "opt/b"), file("opt/.wh.c"), file("new", b"n")
    )
    image = image_of(LOWER, UPPER, top)
    made = flatten(image, above=1)
    assert made.manifest.layers[0] == image.manifest.layers[0]
    assert len(made.layers) == 2
    assert unpacked(made, tmp_path / "flat") == unpacked(image, tmp_path / "layers")
    assert [step.created_by for step in made.config.history][:1] == ["layer 0"]
    assert not all_proved(made)


@pytest.mark.parametrize(
    "stack",
    [
        (
            tar_of(folder("usr/"), folder("usr/lib/"), link("lib", "usr/lib")),
            tar_of(file(".wh.lib")),
            tar_of(file("lib/new")),
        ),
        (tar_of(link("b", "b/b/b")), tar_of(file(".wh.b")), tar_of(folder("b/c/"))),
        (
            tar_of(folder("secret/", 0o700, uid=5, gid=5)),
            tar_of(file(".wh.secret")),
            tar_of(file("secret/b")),
        ),
        (tar_of(file("a", b"1")), tar_of(file(".wh.a")), tar_of(file("a/b/c"))),
    ],
)
@pytest.mark.parametrize("above", [0, 1, 2])
def test_an_implied_directory_in_the_place_of_something_is_told_of(
    stack: tuple[bytes, ...], above: int, tmp_path: pathlib.Path
) -> None:
    image = image_of(*stack)
    made = flatten(image, above=above)
    assert list(file_differences(Contents(image), Contents(made))) == []
    assert unpacked(made, tmp_path / "flat") == unpacked(image, tmp_path / "layers")


def test_a_tree_of_the_greatest_depth_is_flattened() -> None:
    deep = "d/" * 1020
    image = image_of(tar_of(file(f"{deep}x", b"1"), file(f"{deep}y")), tar_of(file(f"{deep}.wh.x")))
    made = flatten(append_layer(image, io.BytesIO(tar_of(file("z")))), above=1)
    assert names(made) == [f"{deep}.wh.x", "z"]


def test_a_new_name_of_a_file_whose_old_names_are_gone_carries_the_content(
    tmp_path: pathlib.Path,
) -> None:
    lower = tar_of(file("a", b"content"))
    upper = tar_of(hard("b", "a"), file(".wh.a"))
    image = image_of(lower, upper, tar_of(file("c")))
    made = flatten(image, above=1)
    assert unpacked(made, tmp_path / "flat") == unpacked(image, tmp_path / "layers")
    assert ".wh.a" in names(made)


def test_more_layers_than_there_are_cannot_stay(image: Image) -> None:
    with pytest.raises(UsageError):
        flatten(image, above=2)


_NAMES = st.sampled_from(["a", "b", "d/a", "d/b", "d/e/a", "d"])


@st.composite
def layers(draw: st.DrawFn) -> bytes:
    entries: list[Entry | tuple[Entry, bytes]] = []
    have: list[str] = []
    for name in draw(st.lists(_NAMES, max_size=5, unique=True)):
        kind = draw(st.sampled_from(["file", "folder", "link", "whiteout", "opaque", "hard"]))
        if kind == "file":
            entries.append(file(name, draw(st.binary(max_size=20))))
            have.append(name)
        elif kind == "folder":
            entries.append(folder(name, mode=draw(st.sampled_from([0o700, 0o755]))))
        elif kind == "link":
            entries.append(link(name, draw(_NAMES)))
        elif kind == "hard" and have:
            entries.append(hard(name, have[-1]))
        elif kind == "whiteout":
            head, slash, base = name.rpartition("/")
            entries.append(file(f"{head}{slash}.wh.{base}"))
        elif kind == "opaque":
            entries.append(file(f"{name}/.wh..wh..opq"))
    return tar_of(*entries)


@settings(max_examples=60)
@given(st.lists(layers(), min_size=1, max_size=4), st.data())
def test_flattening_any_image_gives_the_same_files(
    tmp_path_factory: pytest.TempPathFactory, stack: list[bytes], data: st.DataObject
) -> None:
    image = image_of(*stack)
    base = tmp_path_factory.mktemp("flatten")
    try:
        expected = unpacked(image, base / "layers")
    except ValueError:
        return  # a hard link whose target another entry took away
    above = data.draw(st.integers(0, len(stack) - 1))
    assert unpacked(flatten(image, above=above), base / "flat") == expected


def test_differences_say_what_changed() -> None:
    old = image_of(
        tar_of(file("same", b"1"), file("gone"), file("changed", b"1"), file("mode", b"1"))
    )
    new = image_of(
        tar_of(
            file("same", b"1"), file("new"), file("changed", b"2"), file("mode", b"1", mode=0o600)
        )
    )
    found = {
        d.path.decode(): (d.kind, d.what) for d in file_differences(Contents(old), Contents(new))
    }
    assert found == {
        "gone": ("removed", ()),
        "new": ("added", ()),
        "changed": ("changed", ("content",)),
        "mode": ("changed", ("mode",)),
    }


def test_times_count_only_where_asked() -> None:
    old, new = (image_of(tar_of(file("a", b"1", mtime=when * 10**9))) for when in (1, 2))
    (found,) = file_differences(Contents(old), Contents(new))
    assert found.what == ("mtime",)
    assert list(file_differences(Contents(old), Contents(new), times=False)) == []


def test_documents_differ_by_property() -> None:
    one, two = (
        json.dumps(value).encode()
        for value in ({"a": {"b": 1}, "c": True}, {"a": {"b": 1, "d": 2}, "c": 1})
    )
    assert list(document_differences(one, two)) == [("a.d", None, 2), ("c", True, 1)]


def test_hidden_bytes_are_wasted_and_counted_once() -> None:
    image = image_of(
        tar_of(file("a", b"x" * 100), file("b", b"y" * 50), hard("c", "a")),
        tar_of(file("a", b"z" * 100), file(".wh.c"), file("d", b"w" * 50)),
    )
    found = report(image)
    assert (found.content, found.used, found.wasted_bytes) == (300, 200, 100)
    assert found.efficiency == pytest.approx(2 / 3)
    assert found.user_wasted_percent == pytest.approx(100 / 150)
    assert [(w.path, w.size, w.count) for w in found.wasted] == [(b"a", 100, 1)]


def test_a_file_that_another_name_keeps_is_not_wasted() -> None:
    image = image_of(tar_of(file("a", b"x" * 100), hard("b", "a")), tar_of(file(".wh.a")))
    assert report(image).wasted_bytes == 0


def test_an_empty_image_is_efficient() -> None:
    found = report(image_of())
    assert (found.efficiency, found.user_wasted_percent) == (1.0, 0.0)


def test_rules_are_read_as_dive_reads_them() -> None:
    rules = Rules.parse(
        {
            "lowestEfficiency": 0.95,
            "highestWastedBytes": "1 kB",
            "highestUserWastedPercent": "disabled",
        }
    )
    assert rules == Rules(lowest_efficiency=0.95, highest_wasted_bytes=1000)
    image = image_of(tar_of(file("a", b"x" * 2000)), tar_of(file("a", b"y" * 2000)))
    assert [line.split(":")[0] for line in rules.broken(report(image))] == [
        "lowestEfficiency",
        "highestWastedBytes",
    ]


@pytest.mark.parametrize(
    "rules",
    [
        {"lowestEfficiency": 2},
        {"highestWastedBytes": "much"},
        {"other": 1},
        {"highestWastedBytes": "1e999GB"},
        {"highestWastedBytes": "-1"},
    ],
)
def test_a_rule_without_meaning_is_refused(rules: dict[str, object]) -> None:
    with pytest.raises(InvalidConfigError):
        Rules.parse(rules)


def test_the_waste_of_a_real_image_is_what_dive_finds(images: pathlib.Path) -> None:
    with DockerArchive.open(str(images / "docker-save-14-layers.tar")) as place:
        (tag,) = place.tags()
        found = report(Image.open(place, tag))
    assert found.wasted_bytes == 32025
