"""What holds for every image and every configuration."""

from __future__ import annotations

import dataclasses
import itertools
import os
import pathlib
import tempfile

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from argosy.bundle.convert import runtime_config
from argosy.bundle.repack import repack
from argosy.bundle.unpack import unpack
from argosy.errors import ArgosyError, InvalidLayerError
from argosy.image.configure import Changes
from argosy.image.contents import Contents, Key, key_of
from argosy.image.convert import recompress, to_docker, to_oci
from argosy.image.derive import mutate
from argosy.image.flatten import flatten
from argosy.image.reproducible import reproducible
from argosy.image.validate import validate
from argosy.image.view import Image
from argosy.layer.compression import Compression
from argosy.layer.entry import Entry, EntryType
from argosy.layer.options import Options
from argosy.spec.imageconfig import ExecutionParameters, ImageConfig, LayerStack
from tests.image.kit import file, folder, image_of, link, tar_of

TEXT = st.text(max_size=8)
NAMES = st.sampled_from(["a", "b/c", "b/d", "e/f/g", "h"])


@st.composite
def images(draw: st.DrawFn) -> Image:
    stack = []
    for _ in range(draw(st.integers(1, 3))):
        entries: list[Entry | tuple[Entry, bytes]] = []
        for name in draw(st.lists(NAMES, unique=True, max_size=4)):
            when = draw(st.integers(0, 1 << 31)) * 10**9
            if draw(st.booleans()):
                entries.append(
                    file(
                        name,
                        draw(st.binary(max_size=9)),
                        mtime=when,
                        mode=draw(st.sampled_from([0o600, 0o755])),
                    )
                )
            elif draw(st.booleans()):
                entries.append(link(name, draw(NAMES)))
            else:
                entries.append(folder(name, mtime=when))
        stack.append(tar_of(*entries))
    return image_of(*stack, compression=draw(st.sampled_from(Compression)))


DENSE = st.sampled_from(["a", "b", "a/a", "a/b", "b/a", "b/b", "a/a/a", "b/a/b"])


@st.composite
def changesets(draw: st.DrawFn) -> bytes:
    """Layers over few names, where each entry has a good chance to take another one's place."""
    entries: list[Entry | tuple[Entry, bytes]] = []
    for name in draw(st.lists(DENSE, min_size=1, max_size=5, unique=draw(st.booleans()))):
        head, slash, base = name.rpartition("/")
        mode, owner = draw(st.sampled_from([(0o700, 5), (0o755, 0), (0o640, 7)]))
        made: dict[str, Entry | tuple[Entry, bytes]] = {
            "file": file(name, draw(st.binary(max_size=3)), mode=mode, uid=owner),
            "folder": folder(f"{name}/", mode, uid=owner, gid=owner),
            "link": link(name, draw(DENSE)),
            "hard": Entry(
                name=name.encode(), type=EntryType.HARDLINK, linkname=draw(DENSE).encode()
            ),
            "fifo": Entry(name=name.encode(), type=EntryType.FIFO, mode=mode),
            "whiteout": file(f"{head}{slash}.wh.{base}"),
            "opaque": file(f"{name}/.wh..wh..opq"),
        }
        entries.append(made[draw(st.sampled_from([*made, "file", "whiteout"]))])
    return tar_of(*entries)


Merged = dict[bytes, tuple[object, ...]]


def merged(image: Image) -> Merged | None:
    """What an unpacked image would hold, names of one file told by the first; None where it cannot be unpacked."""
    contents = Contents(image)
    try:
        nodes = dict(contents.tree.walk())
    except InvalidLayerError:
        return None
    files = {key_of(node.inode) for node in nodes.values() if node.entry.type is EntryType.FILE}
    held = {key: b"".join(chunks) for key, _, chunks in contents.read(dict.fromkeys(files))}
    first: dict[Key, bytes] = {}
    found: Merged = {}
    for path, node in sorted(nodes.items()):
        entry, key = node.entry, key_of(node.inode)
        name = b"" if node.inode.is_directory else first.setdefault(key, path)
        plain = (entry.type, entry.mode, entry.uid, entry.gid, entry.linkname)
        found[path] = (*plain, held.get(key), name)
    return found


@settings(max_examples=150)
@given(st.lists(changesets(), min_size=3, max_size=3))
def test_flattening_keeps_what_the_layers_make_together(stack: list[bytes]) -> None:
    image = image_of(*stack, compression=Compression.NONE)
    expected = merged(image)
    assume(expected is not None)
    for above in range(3):
        assert merged(flatten(image, above=above, compression=Compression.NONE)) == expected


@settings(max_examples=150)
@given(st.lists(changesets(), min_size=3, max_size=3))
def test_reproducible_keeps_what_the_layers_make_together(stack: list[bytes]) -> None:
    image = image_of(*stack, compression=Compression.NONE)
    expected = merged(image)
    assume(expected is not None)
    assert merged(reproducible(image, 0)) == expected


@settings(max_examples=60)
@given(st.data())
def test_the_order_of_entries_does_not_matter_where_it_means_nothing(data: st.DataObject) -> None:
    lower = tar_of(folder("a/"), file("a/a"), link("c", "a"))
    entries: list[Entry | tuple[Entry, bytes]] = [
        folder("a/"),
        file("a/b", b"1"),
        file("b/a", b"2"),
        link("b/b", "a"),
        file(".wh.c"),
    ]
    links = [Entry(name=n.encode(), type=EntryType.HARDLINK, linkname=b"a/b") for n in ("d", "e")]
    mixed = [*data.draw(st.permutations(entries)), *data.draw(st.permutations(links))]
    one, two = (image_of(lower, tar_of(*made)) for made in ([*entries, *links], mixed))
    assert reproducible(one, 0).digest == reproducible(two, 0).digest


def sound(image: Image) -> bool:
    return not [finding for finding in validate(image) if not finding.warning]


@settings(max_examples=40)
@given(images(), st.integers(0, 1 << 31))
def test_reproducible_is_sound_and_done_after_one_time(image: Image, epoch: int) -> None:
    once = reproducible(image, epoch)
    assert sound(once)
    assert reproducible(once, epoch).digest == once.digest


@settings(max_examples=30)
@given(images())
def test_conversions_keep_the_configuration_and_come_back(image: Image) -> None:
    assert to_oci(to_docker(image)).digest == image.digest
    for one, other in itertools.permutations(Compression, 2):
        made = recompress(recompress(image, one), other)
        assert made.raw_config == image.raw_config
        assert sound(made)


@settings(max_examples=30)
@given(images())
def test_a_bundle_nobody_touched_packs_to_the_same_image(image: Image) -> None:
    with tempfile.TemporaryDirectory() as folder_path:
        options = Options(rootless=os.geteuid() != 0)
        bundle = unpack(image, str(pathlib.Path(folder_path) / "b"), options)
        assert repack(bundle, image).digest == image.digest


EXECUTION = st.builds(
    ExecutionParameters,
    user=TEXT,
    exposed_ports=st.tuples(TEXT),
    env=st.tuples(TEXT),
    entrypoint=st.none() | st.tuples(TEXT),
    cmd=st.none() | st.tuples(TEXT),
    volumes=st.tuples(TEXT),
    working_dir=TEXT,
    labels=st.dictionaries(TEXT, TEXT, max_size=3),
    stop_signal=TEXT,
)
CONFIG = st.builds(
    ImageConfig,
    architecture=TEXT,
    os=TEXT,
    author=TEXT,
    config=st.none() | EXECUTION,
    rootfs=st.just(LayerStack(type="layers")),
)


@given(CONFIG)
def test_any_configuration_is_converted_or_refused(config: ImageConfig) -> None:
    try:
        made = runtime_config(config)
    except ArgosyError:
        return
    assert made["process"]["args"]
    assert made["process"]["cwd"].startswith("/")
    for key, value in config.execution.labels.items():
        assert made["annotations"][key] == value
    for item in config.execution.env:
        assert item in made["process"]["env"]


@given(CONFIG, st.dictionaries(TEXT, st.none() | TEXT, max_size=3))
def test_changes_leave_alone_what_they_do_not_name(
    config: ImageConfig, labels: dict[str, str | None]
) -> None:
    try:
        changed = Changes(labels=labels).applied(config)
    except ArgosyError:
        return
    assert dataclasses.replace(changed.execution, labels={}) == dataclasses.replace(
        config.execution, labels={}
    )
    for key, value in labels.items():
        assert changed.execution.labels.get(key) == value


@given(
    st.dictionaries(st.from_regex("[a-z]{1,4}", fullmatch=True), st.text(max_size=9), max_size=3)
)
def test_annotations_survive_a_round_trip(notes: dict[str, str]) -> None:
    image = mutate(image_of(), Changes(annotations=notes))
    again = Image(source=image.source, descriptor=image.descriptor)
    assert again.manifest.annotations == notes
