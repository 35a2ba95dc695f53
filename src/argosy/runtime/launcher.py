"""The installed launcher: written once, for one interpreter, so that starting costs as little as Python can.

``write`` makes two files: the launcher, a script whose first line names the interpreter absolutely (it works with an
empty environment) with ``-I -S -X utf8``, and beside it ``NAME.code``: every module of the room, compiled, in one
file that is read at once. A launcher whose interpreter has changed falls back to the source tree it was made from.

``python -m argosy.runtime.launcher PATH`` writes them. For root the launcher gets an interpreter of its own,
``PATH.python``, that a read-only mount covers from its first start as root until the next boot: then entering a
container needs no second start of Python. It is a copy of the system's interpreter where that starts quicker than the
one that runs this. ``--plain`` before PATH leaves that out, ``--protect`` asks for it whoever calls, and ``--remove``
takes mount and files away. `main` is the console script, which needs no launcher.
"""

from __future__ import annotations

import ast
import importlib.util
import marshal
import os
import py_compile
import shutil
import subprocess
import sys

from argosy.runtime.boot import SMALL
from argosy.runtime.kernel import MNT_DETACH, KernelError, LinuxKernel

_SCRIPT = """#!{interpreter} -ISXutf8
import posix, marshal, sys, _frozen_importlib_external as e
C = {code!r}
try:
    f = posix.open(C, 524288)
    b = posix.read(f, {head})
    if b[:4] != e.MAGIC_NUMBER: raise OSError
except OSError:
    sys.orig_argv[2:3] = [{boot!r}]
    posix.execv(sys.executable, sys.orig_argv)
posix.close(f)
m = marshal.loads(memoryview(b)[4:])
exec(marshal.loads(memoryview(b)[m[""][1]:]))
"""

# Runs in the launcher's namespace: `m` is {module: (part, start, end)}, `C` the file, `b` its first part. A part is
# read whole when the first of its modules is needed, so that no verb reads what only others load.
_LOADER = """
R = {0: b}
def L(name):
    part, start, end = m[name]
    if part not in R:
        first, size = m["/"][part]
        f = posix.open(C, 524288)
        R[part] = posix.pread(f, size, first)
        posix.close(f)
    return marshal.loads(memoryview(R[part])[start:end])
class F:
    opens = True
    def find_spec(self, name, path=None, target=None):
        if name in m and (self.opens or m[name][0] in R):
            s = S(name, self, origin="argosy-runtime", is_package=name in P)
            return s
    def create_module(self, spec): return None
    def exec_module(self, module): exec(L(module.__name__), module.__dict__)
    def in_memory_only(self): self.opens = False
S = type(sys.__spec__)
P = L("packages")
sys.meta_path.insert(0, F())
from argosy.runtime.boot import run
run(C, __file__)
"""
_INDEX = "/"  # where the parts are: a key that no module can have
# What an interpreter of the runtime's own has of the library.
_CODECS = ("encodings.__init__", "encodings.utf_8", "encodings.ascii", "encodings.latin_1")
_ALIASES = {"utf8": "utf_8", "us_ascii": "ascii", "latin1": "latin_1", "iso8859_1": "latin_1"}
# fmt: off
_EXTENSIONS = (
    "_blake2", "_ctypes", "_json", "_signal", "_socket", "_struct", "errno", "fcntl", "math", "pwd", "select",
    "termios", "time",
)
# fmt: on
_LEFT_OUT = ("argosy.runtime.launcher",)
_FIRST = ("", "packages", "argosy", "argosy.runtime", "argosy.runtime.boot")
# fmt: off
_EVERY_VERB = (
    "cli", "errors", "jsonio", "judge", "log", "options", "state", "container", "poll", "tables", "kernel", "cgroups",
    "cgroups.cgroup", "cgroups.files", "cgroups.layout", "cgroups.v1",
)
_NEVER_IN_INIT = (
    "cgroups.dbus", "cgroups.gvariant", "cgroups.stats1", "cgroups.stats2", "cgroups.systemd", "cgroups.unitname",
    "cgroups.unitprops", "criu", "events", "features", "help", "intelrdt", "reports", "starter", "update",
)
# fmt: on
_PARTS = (  # of the file, each read at once; what init may need is one part, as it opens nothing in the container
    _FIRST,
    tuple(f"argosy.runtime.{name}" for name in _EVERY_VERB),
    (),  # every other module
    tuple(f"argosy.runtime.{name}" for name in _NEVER_IN_INIT),
)


def modules() -> dict[str, str]:
    """Module names of the room to their files."""
    package = os.path.dirname(os.path.abspath(__file__))
    found = {}
    for directory, _, names in os.walk(package):
        inner = os.path.relpath(directory, os.path.dirname(package)).replace(os.sep, ".")
        for name in names:
            if name.endswith(".py"):
                module = f"argosy.{inner}" + ("" if name == "__init__.py" else f".{name[:-3]}")
                found[module] = os.path.join(directory, name)
    found["argosy._version"] = os.path.join(os.path.dirname(package), "_version.py")
    return {name: path for name, path in sorted(found.items()) if name not in _LEFT_OUT}


class _Strip(ast.NodeTransformer):
    """Take out what only people and type checkers read: annotations, and the imports for them."""

    def visit_arg(self, node: ast.arg) -> ast.arg:
        node.annotation = None
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        node.returns = None
        self.generic_visit(node)
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.stmt:
        plain = ast.Assign([node.target], node.value) if node.value else ast.Pass()
        return ast.copy_location(plain, node)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> ast.stmt:
        return ast.copy_location(ast.Pass(), node) if node.module == "__future__" else node

    def visit_If(self, node: ast.If) -> ast.stmt:
        if isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            return ast.copy_location(ast.Pass(), node)
        self.generic_visit(node)
        return node


def compiled() -> tuple[bytes, int]:
    """Every module, compiled, as one file: the interpreter's magic number, an index, the codes in parts.

    Returns:
        The file, and how many of its bytes are its first part.
    """
    table: dict[str, bytes] = {"argosy": marshal.dumps(compile("", "argosy", "exec"))}
    packages = ["argosy"]
    for name, path in modules().items():
        with open(path, encoding="utf-8") as file:
            tree = _Strip().visit(ast.parse(file.read()))
        code = compile(tree, f"<{name}>", "exec", dont_inherit=True, optimize=2)
        table[name] = marshal.dumps(code)
        if path.endswith("__init__.py"):
            packages.append(name)
    table["packages"] = marshal.dumps(tuple(packages))
    table[""] = marshal.dumps(compile(_LOADER, "<argosy-runtime>", "exec", optimize=2))
    placed = {name for part in _PARTS for name in part}
    parts = [part or tuple(name for name in table if name not in placed) for part in _PARTS]
    head = 0
    while True:  # the index tells where its own end is
        index, size = _index(table, parts, head)
        if size == head:
            break
        head = size
    codes = b"".join(table[name] for part in parts for name in part)
    return importlib.util.MAGIC_NUMBER + index + codes, head + sum(
        len(table[name]) for name in parts[0]
    )


def _index(table: dict[str, bytes], parts: list[tuple[str, ...]], head: int) -> tuple[bytes, int]:
    """The code file's index, for codes that begin at ``head``; and where they would begin behind this very index."""
    found: dict[str, object] = {}
    place, reads = head, []
    for number, part in enumerate(parts):
        first = place if number else 0
        for name in part:
            found[name] = (number, place - first, place - first + len(table[name]))
            place += len(table[name])
        reads.append((first, place - first))
    index = marshal.dumps({_INDEX: tuple(reads), **found})
    return index, len(importlib.util.MAGIC_NUMBER) + len(index)


def interpreter() -> str:
    """The interpreter without a virtual environment's links: absolute, and what ``-S`` needs."""
    return os.path.realpath(sys.executable)


def quicker() -> str | None:
    """The system's interpreter of this version, where it is one file, and this one is a small program.

    A small program has its code in a shared library, and to look up its symbols takes a tenth of a start.
    """
    system = f"/usr/bin/python{sys.version_info[0]}.{sys.version_info[1]}"
    magic = importlib.util.MAGIC_NUMBER
    same = f"import sys, _frozen_importlib_external as e; sys.exit(e.MAGIC_NUMBER != {magic!r})"
    try:
        found = os.stat(system)
        if os.stat(interpreter()).st_size > SMALL or found.st_size <= SMALL or found.st_uid:
            return None
        subprocess.run([system, "-ISc", same], check=True, timeout=60)
    except (OSError, subprocess.SubprocessError):
        return None
    return system


def write(path: str, code: str | None = None, *, protect: bool = False) -> None:
    """Write the launcher and its code file; each appears as a whole.

    Args:
        path: the launcher, for example ``/usr/local/bin/argosy-runtime``.
        code: where the compiled modules go; ``PATH.code`` by default.
        protect: with an interpreter of its own, ``PATH.python``.

    Raises:
        OSError: a file cannot be written.
        CalledProcessError: a copy of this interpreter does not run.
    """
    path = os.path.abspath(path)
    code = os.path.abspath(code or f"{path}.code")
    boot = os.path.join(os.path.dirname(os.path.abspath(__file__)), "boot.py")
    data, head = compiled()
    program = interpreter()
    if protect:
        program = _own_interpreter(path)
    else:
        _remove_own(path)
    script = _SCRIPT.format(interpreter=program, code=code, boot=boot, head=head)
    _replace(code, data, 0o644)
    _replace(path, script.encode(), 0o755)


def _program(place: str) -> str:
    return f"{place}/bin/python3"


def _own_interpreter(path: str) -> str:
    """A copy of the interpreter with the little of its library that the runtime imports; it finds libpython as before.

    A start spends its time on looking for files and loading codecs, so there are no other files, and few aliases.
    """
    place = f"{path}.python"
    _remove_own(path)
    before = os.umask(0o022)  # what the runtime loads is its owner's to change, whoever installs
    try:
        _copy_library(place)
        program = _program(place)
        os.mkdir(os.path.dirname(program))
        with open(interpreter(), "rb") as file:
            _replace(program, file.read(), 0o755)
    finally:
        os.umask(before)
    check = f"import sys, {', '.join(_EXTENSIONS)}; sys.exit(sys.prefix != {place!r})"
    # Not with -c, for which Python 3.13 imports a module that is not among the little.
    subprocess.run([program, "-IS", "-"], input=check.encode(), check=True)
    return program


def _copy_library(place: str) -> None:
    library = f"{place}/{sys.platlibdir}/python{sys.version_info[0]}.{sys.version_info[1]}"
    os.makedirs(f"{library}/encodings")
    os.makedirs(f"{library}/lib-dynload")
    # By this file an interpreter knows its library.
    shutil.copyfile(os.__file__, f"{library}/os.py")
    for name in _CODECS:
        py_compile.compile(_source(name), f"{library}/{name.replace('.', '/')}.pyc", doraise=True)
    for name in _EXTENSIONS:
        if found := _extension(name):
            shutil.copyfile(found, f"{library}/lib-dynload/{os.path.basename(found)}")
    aliases = f"{library}/encodings/aliases.py"
    with open(aliases, "w", encoding="utf-8") as file:
        file.write(f"aliases = {_ALIASES!r}\n")
    py_compile.compile(aliases, f"{aliases}c", doraise=True)
    os.unlink(aliases)


def _source(name: str) -> str:
    """The file of one of the interpreter's own modules."""
    found = importlib.util.find_spec(name)
    if found is None or not found.origin:
        raise FileNotFoundError(f"the interpreter's {name} has no file")
    return found.origin


def _extension(name: str) -> str | None:
    """The shared object of a module; None where it is built in."""
    found = importlib.util.find_spec(name)
    return found.origin if found is not None and found.has_location else None


def uncover(program: str) -> None:
    """Take the read-only mounts off a dedicated interpreter, so that it can be replaced or removed."""
    kernel = LinuxKernel()
    try:
        while True:
            kernel.umount(program.encode(), MNT_DETACH)
    except KernelError:  # no mount (any more), or no right to have made one
        pass


def remove(path: str) -> None:
    """Remove a launcher, its code and its interpreter with the mount over it, as far as they are there.

    Raises:
        OSError: one cannot be removed.
    """
    path = os.path.abspath(path)
    _remove_own(path)
    for file in (path, f"{path}.code"):
        if os.path.lexists(file):
            os.unlink(file)


def _remove_own(path: str) -> None:
    own = f"{path}.python"
    uncover(_program(own))
    if os.path.isdir(own):
        shutil.rmtree(own)


def _replace(path: str, data: bytes, mode: int) -> None:
    temporary = f"{path}.{os.getpid()}.tmp"
    with open(temporary, "wb") as file:
        file.write(data)
        os.fchmod(file.fileno(), mode)
    os.replace(temporary, path)


def main() -> None:
    """The console script: the runtime from the source tree, whatever started Python."""
    boot = os.path.join(os.path.dirname(os.path.abspath(__file__)), "boot.py")
    os.execv(interpreter(), [interpreter(), "-ISXutf8", boot, *sys.argv[1:]])


_USAGE = """usage: python -m argosy.runtime.launcher [--protect | --plain | --remove] PATH [CODE]

Writes the launcher PATH and its code, PATH.code or CODE.

--protect  with an interpreter of its own, PATH.python: at its first start as root after a boot the runtime
           mounts that file read-only over itself, and needs no second start of Python (the default for root)
--plain    with the interpreter as it is; nothing is mounted, and entering a container starts it twice
--remove   unmount and remove what was written"""


def command() -> None:
    """What ``python -m argosy.runtime.launcher`` does."""
    words = sys.argv[1:]
    option = words.pop(0) if words and words[0].startswith("-") else ""
    if option == "--help":
        sys.stdout.write(_USAGE + "\n")
    elif option == "--remove" and len(words) == 1:
        remove(*words)
    elif option in ("", "--protect", "--plain") and 1 <= len(words) <= 2:
        _write_best(words, option)
    else:
        raise SystemExit(_USAGE)


def _write_best(words: list[str], option: str) -> None:
    protect = option == "--protect" or not (option or os.geteuid())
    if protect and (system := quicker()):
        place = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
        again = f"import sys; sys.path.insert(0, {place!r}); from argosy.runtime import launcher; launcher.command()"
        os.execv(system, [system, "-I", "-c", again, *([option] if option else []), *words])
    if option or not protect:
        write(*words, protect=protect)
        return
    try:
        write(*words, protect=True)
    except (OSError, subprocess.SubprocessError, py_compile.PyCompileError) as error:
        sys.stderr.write(f"no interpreter of its own for {words[0]}: {error}\n")
        write(*words)


if __name__ == "__main__":
    command()
