"""A small image made from this machine's own files: programs, and the libraries their ELF headers name.

It needs no network and nobody's image, so demonstrations and tests that run real containers use it.
"""

from __future__ import annotations

import glob
import os
import shutil
import struct
from collections.abc import Iterator, Sequence

from argosy.content.protocols import Source
from argosy.errors import InvalidConfigError, NotFoundError
from argosy.image.configure import Changes
from argosy.image.derive import mutate
from argosy.image.insert import with_written_layer
from argosy.image.new import scratch
from argosy.image.view import Image
from argosy.layer.entry import Entry, EntryType
from argosy.layer.tarwriter import TarWriter
from argosy.spec.imageconfig import History

_LIBRARY_FOLDERS = (
    "/lib",
    "/usr/lib",
    "/lib64",
    "/usr/lib64",
    "/lib/*-linux-*",
    "/usr/lib/*-linux-*",
)
_PT_LOAD, _PT_DYNAMIC, _PT_INTERP = 1, 2, 3
_DT_NEEDED, _DT_STRTAB = 1, 5
_MAX_PROGRAM = 64 * 1024 * 1024
_FOLDERS = ("bin", "dev", "etc", "lib", "proc", "root", "sys", "tmp", "usr", "usr/bin", "var")
_PASSWD = b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n"
_GROUP = b"root:x:0:\nnogroup:x:65534:\n"


def needed(path: str) -> tuple[str | None, list[str]]:
    """What an ELF program's headers name: its interpreter, and its libraries.

    Args:
        path: A 64-bit little-endian ELF file.

    Raises:
        InvalidConfigError: it is none.
    """
    with open(path, "rb") as file:
        data = file.read(_MAX_PROGRAM)
    if data[:6] != b"\x7fELF\x02\x01":
        raise InvalidConfigError(f"{path}: not a 64-bit little-endian ELF file")
    (offset,), (size, count) = (
        struct.unpack_from("<Q", data, 32),
        struct.unpack_from("<HH", data, 54),
    )
    headers = [struct.unpack_from("<IIQQQQQQ", data, offset + i * size) for i in range(count)]
    interpreter = None
    libraries: list[str] = []
    for kind, _, at, _, _, length, *_ in headers:
        if kind == _PT_INTERP:
            interpreter = data[at : at + length].rstrip(b"\0").decode()
        elif kind == _PT_DYNAMIC:
            libraries = list(_libraries(data, headers, at, length))
    return interpreter, libraries


def _libraries(
    data: bytes, headers: Sequence[tuple[int, ...]], at: int, length: int
) -> Iterator[str]:
    entries = list(struct.iter_unpack("<QQ", data[at : at + length - length % 16]))
    table = next((value for tag, value in entries if tag == _DT_STRTAB), None)
    for tag, value in entries:
        if tag == _DT_NEEDED and table is not None:
            start = _file_offset(headers, table) + value
            yield data[start : data.index(b"\0", start)].decode()


def _file_offset(headers: Sequence[tuple[int, ...]], address: int) -> int:
    for kind, _, offset, virtual, _, size, *_ in headers:
        if kind == _PT_LOAD and virtual <= address < virtual + size:
            return offset + address - virtual
    raise InvalidConfigError("the ELF file's string table lies in no segment")


def closure(programs: Sequence[str]) -> list[str]:
    """The files that programs need to run: themselves, interpreters, and libraries of libraries.

    Raises:
        NotFoundError: a library is nowhere in the system's folders.
    """
    found: dict[str, None] = {}
    todo = list(programs)
    while todo:
        path = todo.pop()
        if path in found:
            continue
        found[path] = None
        interpreter, libraries = needed(path)
        if interpreter is not None:
            todo.append(interpreter)
        todo.extend(_library(name, path) for name in libraries)
    return sorted(found)


def _library(name: str, wanted_by: str) -> str:
    for pattern in _LIBRARY_FOLDERS:
        for path in sorted(glob.glob(os.path.join(pattern, name))):
            return path
    raise NotFoundError(
        f"{wanted_by} needs {name}, which is in none of {', '.join(_LIBRARY_FOLDERS)}"
    )


def program(name: str) -> str:
    """The path of a program of this machine.

    Raises:
        NotFoundError: there is none.
    """
    found = shutil.which(name, path="/bin:/usr/bin:/sbin:/usr/sbin")
    if found is None:
        raise NotFoundError(f"this machine has no program {name}")
    return found


def host_image(
    source: Source,
    programs: Sequence[str] = ("sh", "cat", "ls", "id", "sleep"),
    *,
    message: str = "",
) -> Image:
    """An image in a draft over `source` that runs programs of this machine.

    Args:
        source: The place it is drafted over; `copy` takes it from the image's own source.
        programs: Names; the first one is the image's command.
        message: What `/etc/motd` says.

    Raises:
        NotFoundError: a program or a library of one is not on this machine.
    """
    paths = {name: program(name) for name in programs}
    base = scratch(source, created="1970-01-01T00:00:00Z")

    def write(tar: TarWriter) -> None:
        for folder in _FOLDERS:
            mode = 0o1777 if folder == "tmp" else 0o755
            tar.add(Entry(name=folder.encode(), type=EntryType.DIRECTORY, mode=mode))
        made = set(_FOLDERS)
        for path in closure([os.path.realpath(p) for p in paths.values()]):
            _add_file(tar, path, made)
        for name, path in paths.items():
            real = os.path.realpath(path)
            if real != f"/bin/{name}":
                tar.add(
                    Entry(
                        name=f"bin/{name}".encode(), type=EntryType.SYMLINK, linkname=real.encode()
                    )
                )
        for name, data in (
            ("passwd", _PASSWD),
            ("group", _GROUP),
            ("motd", message.encode() + b"\n"),
        ):
            tar.add(Entry(name=f"etc/{name}".encode(), mode=0o644, size=len(data)), [data])

    image = with_written_layer(base, write, History(created_by="programs of this machine"))
    return mutate(
        image, Changes(cmd=[f"/bin/{programs[0]}"], env={"PATH": "/bin:/usr/bin"}, working_dir="/")
    )


def _add_file(tar: TarWriter, path: str, made: set[str]) -> None:
    """A file under its own path, and under the path its links lead to, so that it is found either way."""
    inside = path.lstrip("/")
    folder = os.path.dirname(inside)
    missing = []
    while folder and folder not in made:
        missing.append(folder)
        made.add(folder)
        folder = os.path.dirname(folder)
    for name in reversed(missing):
        tar.add(Entry(name=name.encode(), type=EntryType.DIRECTORY, mode=0o755))
    with open(path, "rb") as file:
        data = file.read()
    tar.add(Entry(name=inside.encode(), mode=0o755, size=len(data)), [data])
