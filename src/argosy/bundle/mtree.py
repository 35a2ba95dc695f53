"""Snapshots as mtree(5) specifications, in the form umoci compares bundles with: written, and read."""

from __future__ import annotations

import base64
import binascii
import re
import stat
from collections import defaultdict
from collections.abc import Iterator, Mapping

from argosy.errors import InvalidConfigError, InvalidLayerError
from argosy.layer.snapshot import Inode, Snapshot

__all__ = ["KEYWORDS", "mtree", "read_mtree", "unvis", "vis"]

KEYWORDS = "size,type,uid,gid,mode,link,nlink,tar_time,sha256digest,xattr"
"""What is said of a file: umoci's keywords."""

_TYPES = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "dir",
    stat.S_IFLNK: "link",
    stat.S_IFCHR: "char",
    stat.S_IFBLK: "block",
    stat.S_IFIFO: "fifo",
}
_KINDS = {name: kind for kind, name in _TYPES.items()}
_ESCAPE = re.compile(rb"\\([0-3][0-7]{2}|\\)")
_ESCAPED = frozenset(b"\\#*=?[")


def vis(name: bytes) -> str:
    r"""A name as vis(3) writes it: printable ASCII, all else as octal digits.

    >>> vis(b"a b#[")
    'a\\040b\\043\\133'
    """
    return "".join(
        chr(byte) if 32 < byte < 127 and byte not in _ESCAPED else f"\\{byte:03o}" for byte in name
    )


def mtree(snapshot: Snapshot) -> bytes:
    """The specification.

    Args:
        snapshot: One with digests.

    Raises:
        InvalidLayerError: a file in it has no digest.
    """
    children: dict[bytes, list[tuple[bytes, Inode]]] = defaultdict(list)
    for path, inode in snapshot.inodes.items():
        if path:
            folder, _, base = path.rpartition(b"/")
            children[folder].append((base, inode))
    lines = ["#mtree", f"#      keywords: {KEYWORDS}", ""]
    lines += _folder(b"", b".", snapshot.inodes[b""], children)
    return "\n".join((*lines, "")).encode("ascii")


def _folder(
    path: bytes,
    base: bytes,
    inode: Inode,
    children: dict[bytes, list[tuple[bytes, Inode]]],
) -> Iterator[str]:
    """A directory, what is in it, then the directories in it; each one ends with `..`."""
    pending: list[tuple[bytes, bytes, Inode] | None] = [(path, base, inode)]
    while pending:
        top = pending.pop()
        if top is None:
            yield ".."
            continue
        here, name, node = top
        yield _line(name, node)
        pending.append(None)
        for child, found in sorted(children[here], key=lambda item: item[0], reverse=True):
            if stat.S_ISDIR(found.mode):
                pending.append((here + b"/" + child if here else child, child, found))
        for child, found in sorted(children[here], key=lambda item: item[0]):
            if not stat.S_ISDIR(found.mode):
                yield f"    {_line(child, found)}"


def _line(name: bytes, inode: Inode) -> str:
    words = [
        vis(name),
        f"type={_TYPES[stat.S_IFMT(inode.mode)]}",
        f"size={inode.size}",
        f"uid={inode.uid}",
        f"gid={inode.gid}",
        f"mode={_octal(stat.S_IMODE(inode.mode))}",
        f"nlink={inode.links}",
        f"tar_time={inode.mtime // 10**9}.000000000",
    ]
    if inode.target:
        words.append(f"link={vis(inode.target)}")
    if stat.S_ISREG(inode.mode):
        if inode.digest is None:
            raise InvalidLayerError(f"{vis(name)}: the snapshot was made without digests")
        words.append(f"sha256digest={inode.digest.hex()}")
    if _tells_xattrs(inode.mode):
        words += [
            f"xattr.{vis(key)}={base64.b64encode(value).decode()}"
            for key, value in sorted(inode.xattrs.items())
        ]
    return " ".join(words)


def _tells_xattrs(mode: int) -> bool:
    """Whether umoci looks at the attributes of what has this mode: of links and devices it does not."""
    return stat.S_ISREG(mode) or stat.S_ISDIR(mode)


def _octal(mode: int) -> str:
    """A mode as umoci writes it, which compares the text: no mode at all is one digit."""
    return f"0{mode:o}" if mode else "0"


def unvis(text: bytes) -> bytes:
    r"""The reverse of `vis`, and of umoci's, which doubles a backslash.

    >>> unvis(vis(b"a b\xff\\").encode())
    b'a b\xff\\'
    """
    return _ESCAPE.sub(
        lambda match: bytes((int(match[1], 8),)) if match[1].isdigit() else match[1], text
    )


def read_mtree(raw: bytes, present: Snapshot) -> Snapshot:
    """A snapshot out of a specification, such as umoci's of a bundle.

    What a specification does not tell is taken from what stands there now: which names are one file, the numbers of
    devices, and the attributes of what is neither file nor directory.

    Args:
        raw: The specification, names relative to the directory they are in.
        present: What the root holds now.

    Raises:
        InvalidConfigError: it is none; the message names the line.
    """
    defaults: dict[bytes, bytes] = {}
    found: dict[bytes, Inode] = {}
    place: list[bytes] = []
    for number, line in enumerate(raw.split(b"\n"), 1):
        words = line.split()
        if not words or words[0].startswith(b"#"):
            continue
        try:
            if words[0] == b"/set":
                defaults |= _keywords(words[1:])
            elif words[0] == b"..":
                place.pop()
            else:
                path = b"/".join((*place[1:], unvis(words[0]))) if place else b""
                keywords = defaults | _keywords(words[1:])
                found[path] = _inode(keywords, present.inodes.get(path), number)
                if stat.S_ISDIR(found[path].mode):
                    place.append(unvis(words[0]))
        except (KeyError, ValueError, IndexError, binascii.Error):
            raise InvalidConfigError(f"mtree: line {number} cannot be read") from None
    return Snapshot(found)


def _keywords(words: list[bytes]) -> dict[bytes, bytes]:
    return {key: value for key, _, value in (word.partition(b"=") for word in words)}


def _inode(keywords: Mapping[bytes, bytes], now: Inode | None, number: int) -> Inode:
    kind = _KINDS[keywords[b"type"].decode()]
    digest = keywords.get(b"sha256digest")
    told = {
        unvis(key.removeprefix(b"xattr.")): base64.b64decode(value, validate=True)
        for key, value in keywords.items()
        if key.startswith(b"xattr.")
    }
    return Inode(
        mode=kind | int(keywords[b"mode"], 8) & 0o7777,
        uid=int(keywords.get(b"uid", b"0")),
        gid=int(keywords.get(b"gid", b"0")),
        size=int(keywords[b"size"]),
        mtime=int(keywords[b"tar_time"].partition(b".")[0]) * 10**9,
        ctime=-1,  # so that content is compared by its digest
        device=now.device if now else -1,
        number=now.number if now else -number,
        links=int(keywords.get(b"nlink", b"1")),
        rdev=now.rdev if now else 0,
        target=unvis(keywords.get(b"link", b"")),
        xattrs=told if now is None or _tells_xattrs(kind) else now.xattrs,
        digest=bytes.fromhex(digest.decode()) if digest else None,
    )
