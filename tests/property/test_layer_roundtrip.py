"""Laws: what is written is read, and what is taken from one tree and put on another makes them equal."""

from __future__ import annotations

import io
import os
import random
import shutil
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from argosy.layer.compression import Compression, uncompressed
from argosy.layer.compressor import Compressor
from argosy.layer.entry import Entry, EntryType, clean_name
from argosy.layer.idmap import IdMap, IdRange
from argosy.layer.options import Options
from argosy.layer.rootfs import RootFS
from argosy.layer.rootless import decode_owner, encode_owner
from argosy.layer.snapshot import Snapshot
from argosy.layer.tarstream import TarReader
from argosy.layer.tarwriter import TarWriter
from argosy.layer.tree import MergedTree
from tests.layer.making import NOON, listing

QUICK = settings(max_examples=60)

component = st.sampled_from(
    [b"a", b"b", b"c", b"d\xff", "é".encode(), b"long" * 30, b"with space", b"-", b"\n"]
)
paths = st.lists(component, min_size=1, max_size=4).map(b"/".join)
ids = st.sampled_from([0, 1, 1000, 0o7777777, 0o10000000, (1 << 32) - 2])
xattrs = st.dictionaries(
    st.sampled_from([b"user.a", b"user.b\xff"]), st.binary(max_size=40), max_size=2
)


@st.composite
def entries(draw: st.DrawFn) -> tuple[Entry, bytes]:
    type_ = draw(st.sampled_from(list(EntryType)))
    body = draw(st.binary(max_size=1500)) if type_ is EntryType.FILE else b""
    linkname = draw(paths) if type_ in (EntryType.SYMLINK, EntryType.HARDLINK) else b""
    device = draw(st.tuples(st.integers(0, 4095), st.integers(0, 1000)))
    return (
        Entry(
            name=draw(paths) + (b"/" if type_ is EntryType.DIRECTORY else b""),
            type=type_,
            mode=draw(st.integers(0, 0o7777)),
            uid=draw(ids),
            gid=draw(ids),
            size=len(body),
            mtime=draw(st.integers(-(1 << 34), 1 << 40)) * 10**9,
            linkname=linkname,
            device=device if type_ in (EntryType.CHARACTER, EntryType.BLOCK) else (0, 0),
            xattrs=draw(xattrs),
            records=draw(
                st.dictionaries(
                    st.sampled_from([b"MSWINDOWS.fileattr"]), st.binary(max_size=9), max_size=1
                )
            ),
        ),
        body,
    )


def facts(entry: Entry) -> tuple[object, ...]:
    return (
        entry.name, entry.type, entry.mode, entry.uid, entry.gid, entry.size, entry.mtime, entry.linkname, entry.device,
        dict(entry.xattrs), dict(entry.records),
    )  # fmt: skip


@given(st.lists(entries(), max_size=6), st.integers(1, 2000))
@QUICK
def test_what_is_written_is_read(members: list[tuple[Entry, bytes]], step: int) -> None:
    out = io.BytesIO()
    with TarWriter(out) as tar:
        for entry, body in members:
            tar.add(entry, [body])
    data = out.getvalue()
    reader = TarReader(data[at : at + step] for at in range(0, len(data), step))
    assert [(facts(entry), b"".join(reader.chunks())) for entry in reader] == [
        (facts(e), body) for e, body in members
    ]


@given(
    st.binary(max_size=5000),
    st.sampled_from(list(Compression)),
    st.lists(st.integers(1, 900), max_size=9),
)
@QUICK
def test_what_is_compressed_comes_back(
    data: bytes, compression: Compression, steps: list[int]
) -> None:
    out = io.BytesIO()
    with Compressor(out, compression) as layer:
        at = 0
        for step in (*steps, len(data)):
            layer.write(data[at : at + step])
            at += step
    assert b"".join(uncompressed(io.BytesIO(out.getvalue()), compression)) == data


@given(st.binary(max_size=60))
@QUICK
def test_a_clean_name_is_clean(name: bytes) -> None:
    clean = clean_name(name)
    assert clean_name(clean) == clean
    assert clean == b"" or not set(clean.split(b"/")) & {b"", b".", b".."}


@given(st.integers(0, (1 << 32) - 2), st.integers(0, (1 << 32) - 2))
def test_recorded_owners_come_back(uid: int, gid: int) -> None:
    message = encode_owner(uid, gid)
    assert (decode_owner(message) if message is not None else (0, 0)) == (uid, gid)


@given(st.integers(0, 1 << 20), st.integers(0, 1 << 20), st.integers(1, 1 << 16), st.data())
def test_mapped_ids_come_back(container: int, host: int, size: int, data: st.DataObject) -> None:
    ids = IdMap((IdRange(container, host, size),))
    number = data.draw(st.integers(container, container + size - 1))
    assert ids.to_container(ids.to_host(number)) == number


class Maker:
    """Puts random things on a root, as a program that knows no layers would."""

    def __init__(self, root: Path, rng: random.Random) -> None:
        self.root, self.rng = os.fsencode(root), rng

    def path(self) -> bytes:
        return os.path.join(
            self.root, *self.rng.choices([b"a", b"b", b"c", b"d\xff"], k=self.rng.randint(1, 3))
        )

    def change(self) -> None:
        path, rng = self.path(), self.rng
        try:
            rng.choice([self.write, self.write, self.folder, self.link, self.hard, self.fifo, self.drop, self.chmod, self.attr, self.rename])(path)  # fmt: skip
        except OSError:
            return

    def stamp(self, path: bytes) -> None:
        os.utime(
            path, (NOON // 10**9, NOON // 10**9 + self.rng.randint(0, 3)), follow_symlinks=False
        )

    def write(self, path: bytes) -> None:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NONBLOCK  # a FIFO has no reader
        with open(os.open(path, flags, 0o644), "wb") as out:
            out.write(self.rng.choice([b"", b"x", b"y", b"z" * 3000]))
        self.stamp(path)

    def folder(self, path: bytes) -> None:
        os.makedirs(path, exist_ok=True)
        self.stamp(path)

    def link(self, path: bytes) -> None:
        os.symlink(self.rng.choice([b"a", b"../b", b"/c", b"none", b"\xff"]), path)

    def hard(self, path: bytes) -> None:
        os.link(self.path(), path, follow_symlinks=False)

    def fifo(self, path: bytes) -> None:
        os.mkfifo(path)

    def drop(self, path: bytes) -> None:
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path)
        else:
            os.unlink(path)

    def chmod(self, path: bytes) -> None:
        if not os.path.islink(path):
            os.chmod(path, self.rng.choice([0o700, 0o755, 0o4755, 0o1777]))
            if os.geteuid() == 0:
                os.chown(path, self.rng.choice([0, 5]), 0)

    def attr(self, path: bytes) -> None:
        os.setxattr(path, b"user.a", self.rng.choice([b"", b"1", b"\0\xff"]), follow_symlinks=False)

    def rename(self, path: bytes) -> None:
        os.rename(path, self.path())


@given(st.integers(0, 1 << 32))
@QUICK
def test_the_difference_put_on_the_old_tree_makes_the_new(seed: int) -> None:
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory() as top:
        old, new = Path(top, "old"), Path(top, "new")
        new.mkdir()
        maker = Maker(new, rng)
        for _ in range(rng.randint(0, 25)):
            maker.change()
        old.mkdir()
        _copy(new, old)
        with RootFS(new) as root:
            since = (
                Snapshot.decode(root.snapshot().encode())
                if rng.random() < 0.5
                else root.snapshot(digests=False)
            )
            for _ in range(rng.randint(0, 25)):
                maker.change()
            layer = io.BytesIO()
            root.write_layer(root.diff(since), layer)
        names = [entry.name.rstrip(b"/") for entry in TarReader(io.BytesIO(layer.getvalue()))]
        assert len(set(names)) == len(names)
        with RootFS(old) as root:
            root.apply(io.BytesIO(layer.getvalue()))
        assert listing(old) == listing(new)
        again = io.BytesIO()
        with RootFS(new) as root:
            root.write_layer(root.diff(since), again)
        assert again.getvalue() == layer.getvalue()


def _copy(one: Path, other: Path) -> None:
    layer = io.BytesIO()
    with RootFS(one) as source, RootFS(other) as target:
        source.write_layer(source.diff(), layer)
        target.apply(io.BytesIO(layer.getvalue()))


def fails(lay: Callable[[bytes], object], layer: bytes) -> bool:
    try:
        lay(layer)
    except ValueError:
        return True
    return False


@given(
    st.lists(
        st.lists(st.tuples(paths, st.sampled_from("fdswoh"), paths), max_size=6),
        min_size=1,
        max_size=3,
    )
)
@QUICK
def test_the_tree_in_memory_is_the_tree_on_disk(
    layers: list[list[tuple[bytes, str, bytes]]],
) -> None:
    kinds = {
        "f": EntryType.FILE,
        "d": EntryType.DIRECTORY,
        "s": EntryType.SYMLINK,
        "h": EntryType.HARDLINK,
    }
    tree = MergedTree()
    with tempfile.TemporaryDirectory() as top, RootFS(top, Options()) as root:
        for members in layers:
            out = io.BytesIO()
            with TarWriter(out) as tar:
                for name, kind, target in members:
                    folder, _, base = name.rpartition(b"/")
                    prefix = folder + b"/" if folder else b""
                    if kind in "wo":
                        name = prefix + (b".wh." + base if kind == "w" else b".wh..wh..opq")
                    linkname = target if kind in "sh" else b""
                    tar.add(Entry(name=name, type=kinds.get(kind, EntryType.FILE), linkname=linkname, uid=os.geteuid(), gid=os.getegid()))  # fmt: skip
            layer = out.getvalue()
            failed = [
                fails(lambda data: root.apply(io.BytesIO(data)), layer),
                fails(lambda data: tree.lay(TarReader([data])), layer),
            ]
            assert failed[0] == failed[1]
            if failed[0]:
                return
        on_disk = {}
        for here, folders, files in os.walk(os.fsencode(top)):
            for name in (*folders, *files):
                path = os.path.join(here, name)
                on_disk[os.path.relpath(path, os.fsencode(top))] = stat.S_IFMT(
                    os.lstat(path).st_mode
                )
        shapes = {
            EntryType.FILE: stat.S_IFREG,
            EntryType.DIRECTORY: stat.S_IFDIR,
            EntryType.SYMLINK: stat.S_IFLNK,
        }
        assert {path: shapes[node.entry.type] for path, node in tree.walk()} == on_disk
