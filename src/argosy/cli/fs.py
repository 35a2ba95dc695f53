"""`argosy fs ls|cat|cp`: the files of an image, without unpacking it."""

from __future__ import annotations

import datetime as dt
import os
import stat
import sys
import tempfile
from collections.abc import Iterator

import click

from argosy.cli import making
from argosy.cli.failure import printable
from argosy.cli.options import json_option, place_argument, platform_option
from argosy.cli.output import document, table
from argosy.errors import UsageError
from argosy.image.contents import Contents, write_flat
from argosy.image.draft import Spool
from argosy.layer.entry import Entry, EntryType
from argosy.layer.options import Options
from argosy.layer.rootfs import RootFS
from argosy.layer.tree import Node
from argosy.layout.durable import storage_errors
from argosy.locate import Location
from argosy.spec.platform import Platform

_TYPES = {
    EntryType.FILE: stat.S_IFREG,
    EntryType.DIRECTORY: stat.S_IFDIR,
    EntryType.SYMLINK: stat.S_IFLNK,
    EntryType.CHARACTER: stat.S_IFCHR,
    EntryType.BLOCK: stat.S_IFBLK,
    EntryType.FIFO: stat.S_IFIFO,
}


@click.command()
@place_argument
@click.argument("path", default="/")
@click.option("-l", "--long", is_flag=True, help="Modes, owners, sizes, times and layers.")
@click.option("-R", "--recursive", is_flag=True, help="All below, too.")
@json_option
@platform_option
def ls(
    place: Location,
    path: str,
    long: bool,
    recursive: bool,
    as_json: bool,
    platform: Platform | None,
) -> None:
    """List files of an image, as a container would see them.

    \b
    Example:
      argosy fs ls -l alpine:3.20 /etc
    """
    with making.one_image(place, platform) as image:
        tree = Contents(image).tree
        found = list(_listed(tree.get(path), path, recursive))
    if as_json:
        document([_plain(name, node) for name, node in found])
    elif long:
        table([_row(name, node) for name, node in found])
    else:
        for name, _ in found:
            print(_text(name))


def _listed(top: Node, path: str, recursive: bool) -> Iterator[tuple[bytes, Node]]:
    if not top.inode.is_directory:
        yield os.fsencode(path.rpartition("/")[2]), top
        return
    pending = [(b"", top)]
    while pending:
        here, node = pending.pop()
        if node is not top:
            yield here, node
        if node is top or recursive:
            pending += [
                (here + b"/" + name if here else name, child)
                for name, child in sorted(node.children.items(), reverse=True)
            ]


def _text(name: bytes) -> str:
    return printable(name.decode(errors="replace"))


def _row(name: bytes, node: Node) -> tuple[object, ...]:
    entry = node.entry
    shown = _text(name)
    if entry.type is EntryType.SYMLINK:
        shown += f" -> {_text(entry.linkname)}"
    size: object = entry.size
    if entry.type in (EntryType.CHARACTER, EntryType.BLOCK):
        size = f"{entry.device[0]},{entry.device[1]}"
    mode = stat.filemode(_TYPES[entry.type] | entry.mode)
    owner = f"{entry.uid}:{entry.gid}"
    return mode, owner, str(size).rjust(10), _time(entry), f"layer {node.layer}", shown


def _time(entry: Entry) -> str:
    try:
        moment = dt.datetime(1970, 1, 1) + dt.timedelta(seconds=entry.mtime // 10**9)  # noqa: DTZ001
    except OverflowError:
        return "?"
    return moment.isoformat(sep=" ", timespec="minutes")


def _plain(name: bytes, node: Node) -> dict[str, object]:
    entry = node.entry
    return {
        "path": name.decode(errors="replace"),
        "type": entry.type.name.lower(),
        "mode": f"{entry.mode:04o}",
        "uid": entry.uid,
        "gid": entry.gid,
        "size": entry.size,
        "mtime": entry.mtime // 10**9,
        "linkname": entry.linkname.decode(errors="replace"),
        "xattrs": {
            key.decode(errors="replace"): value.hex() for key, value in entry.xattrs.items()
        },
        "layer": node.layer,
    }


@click.command()
@place_argument
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@platform_option
def cat(place: Location, paths: tuple[str, ...], platform: Platform | None) -> None:
    """Print files of an image; links are followed inside it.

    \b
    Example:
      argosy fs cat alpine:3.20 /etc/os-release
    """
    with making.one_image(place, platform) as image:
        contents = Contents(image, spool=Spool() if place.reference else None)
        for path in paths:
            for chunk in contents.content(path):
                sys.stdout.buffer.write(chunk)
    sys.stdout.buffer.flush()


@click.command()
@place_argument
@click.argument("path")
@click.argument("target")
@platform_option
def cp(place: Location, path: str, target: str, platform: Platform | None) -> None:
    """Copy a file or directory out of an image, to TARGET, which must not exist.

    \b
    Example:
      argosy fs cp alpine:3.20 /etc/ssl ./ssl
    """
    if target == "-":
        raise UsageError(
            "files are not copied to stdout",
            hint="fs cat prints a file, and export --path writes a tar archive",
        )
    with making.one_image(place, platform) as image:
        contents = Contents(image, spool=Spool() if place.reference else None)
        node = contents.tree.get(path)
        if node.inode.is_directory:
            _directory(contents, path, target)
        else:
            _file(contents, path, target, contents.file(path).entry)


def _file(contents: Contents, path: str, target: str, entry: Entry) -> None:
    if os.path.isdir(target):
        target = os.path.join(target, os.path.basename(path.rstrip("/")))
    with storage_errors(target):
        file = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        with storage_errors(target), os.fdopen(file, "wb") as out:
            for offset, part in contents.regions(path):
                # Holes stay holes: zeros that cost the image nothing would fill this disk.
                out.seek(offset)
                out.write(part)
            out.truncate(entry.size)
            # Not the set-id bits: on this machine they would be somebody else's power.
            os.fchmod(out.fileno(), entry.mode & 0o777)
    except BaseException:
        os.unlink(target)
        raise


def _directory(contents: Contents, path: str, target: str) -> None:
    """By way of a root file system of its own, so that no name in it can lead elsewhere."""
    with tempfile.TemporaryFile() as spool:
        write_flat(contents, spool, path, top="")
        spool.seek(0)
        with RootFS.create(target, Options(rootless=os.geteuid() != 0)) as root:
            root.apply(spool)
