"""The installed launcher: written once, for one interpreter, so that starting costs as little as Python can.

``write`` makes two files: the launcher, a script whose first line names the interpreter absolutely (it works with an
empty environment) with ``-I -S -X utf8``, and beside it ``NAME.code``: every module of the room, compiled, in one
file that is read at once. A launcher whose interpreter has changed falls back to the source tree it was made from.

``python -m argosy.runtime.launcher PATH`` writes them. With ``--protect`` before PATH the launcher gets an interpreter
of its own, ``PATH.python``, that a read-only mount covers from its first start as root until the next boot: then
entering a container needs no second start of Python; `main` is the console script, which needs no launcher.
"""

from __future__ import annotations

import ast
import marshal
import os
import subprocess
import sys
from importlib.util import MAGIC_NUMBER

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
m = marshal.loads(memoryview(b)[4:])
exec(marshal.loads(memoryview(b)[m[""][0]:]))
"""

# Runs in the launcher's namespace: `m` is {module: (start, end)}, `C` the file, open as `f`, `b` what is read of it.
# What is needed before the interpreter is protected comes first; the rest is read, once and whole, when it is needed.
_LOADER = """
def L(name):
    global b
    start, end = m[name]
    if end > len(b):
        b += posix.read(f, posix.fstat(f).st_size)
        posix.close(f)
    return marshal.loads(memoryview(b)[start:end])
class F:
    in_memory = True
    def find_spec(self, name, path=None, target=None):
        if name in m:
            s = S(name, self, origin="argosy-runtime", is_package=name in P)
            return s
    def create_module(self, spec): return None
    def exec_module(self, module): exec(L(module.__name__), module.__dict__)
S = type(sys.__spec__)
P = L("packages")
sys.meta_path.insert(0, F())
from argosy.runtime.boot import run
run(C, __file__)
"""
_LEFT_OUT = ("argosy.runtime.launcher",)
_FIRST = ("", "packages", "argosy", "argosy.runtime", "argosy.runtime.boot")


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
    """Every module, compiled, as one file: the interpreter's magic number, {name: (start, end)}, the codes.

    Returns:
        The file, and how many of its bytes are enough to begin with.
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
    names = [*_FIRST, *(name for name in table if name not in _FIRST)]
    place = len(MAGIC_NUMBER) + len(marshal.dumps({name: (n, -n) for n, name in enumerate(names)}))
    places = {}
    for name in names:
        places[name] = (place, place + len(table[name]))
        place = places[name][1]
    codes = b"".join(table[name] for name in names)
    return MAGIC_NUMBER + marshal.dumps(places) + codes, places[_FIRST[-1]][1]


def interpreter() -> str:
    """The interpreter without a virtual environment's links: absolute, and what ``-S`` needs."""
    return os.path.realpath(sys.executable)


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
    program = _own_interpreter(path) if protect else interpreter()
    script = _SCRIPT.format(interpreter=program, code=code, boot=boot, head=head)
    _replace(code, data, 0o644)
    _replace(path, script.encode(), 0o755)


def _own_interpreter(path: str) -> str:
    """A copy of the interpreter, which finds its library where the original has it."""
    place = f"{path}.python"
    program = f"{place}/bin/python3"
    os.makedirs(os.path.dirname(program), mode=0o755, exist_ok=True)
    uncover(program)
    _replace(f"{place}/pyvenv.cfg", f"home = {os.path.dirname(interpreter())}\n".encode(), 0o644)
    with open(interpreter(), "rb") as file:
        _replace(program, file.read(), 0o755)
    subprocess.run([program, "-ISc", "import _ctypes"], check=True)
    return program


def uncover(program: str) -> None:
    """Take the read-only mounts off a dedicated interpreter, so that it can be replaced or removed."""
    kernel = LinuxKernel()
    try:
        while True:
            kernel.umount(program.encode(), MNT_DETACH)
    except KernelError:  # no mount (any more), or no right to have made one
        pass


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


if __name__ == "__main__":
    words = sys.argv[1:]
    own = words[:1] == ["--protect"]
    if not 1 <= len(words) - own <= 2:
        raise SystemExit("usage: python -m argosy.runtime.launcher [--protect] PATH [CODE]")
    write(*words[own:], protect=own)
