"""A snapshot as an mtree(5) specification, in the form umoci compares bundles with."""

from __future__ import annotations

import base64
import stat
from collections import defaultdict
from collections.abc import Iterator

from argosy.errors import InvalidLayerError
from argosy.layer.snapshot import Inode, Snapshot

__all__ = ["KEYWORDS", "mtree", "vis"]

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
        f"mode=0{stat.S_IMODE(inode.mode):o}",
        f"nlink={inode.links}",
        f"tar_time={inode.mtime // 10**9}.000000000",
    ]
    if inode.target:
        words.append(f"link={vis(inode.target)}")
    if stat.S_ISREG(inode.mode):
        if inode.digest is None:
            raise InvalidLayerError(f"{vis(name)}: the snapshot was made without digests")
        words.append(f"sha256digest={inode.digest.hex()}")
    words += [
        f"xattr.{vis(key)}={base64.b64encode(value).decode()}"
        for key, value in sorted(inode.xattrs.items())
    ]
    return " ".join(words)
