"""What a verb imports, pinned: start-up time is a feature, and every module more is one more to audit."""

from __future__ import annotations

import ast
import os
import subprocess
from pathlib import Path

import pytest

from argosy.runtime import launcher
from tests.runtime.bundlekit import Bundle, Runtime

# Modules of the interpreter, beyond those it has loaded before our first line.
FREE = {
    "_blake2", "_ctypes", "_json", "_signal", "_socket", "_struct", "_warnings", "errno", "fcntl", "gc", "marshal", "math", "posix",
    "pwd", "select", "termios", "time",
}  # fmt: skip
SMALL = {"boot", "cli", "container", "errors", "jsonio", "log", "options", "state"}


def told(command: list[str], place: Path) -> list[str]:
    """Names in the output of ``-X importtime``, through a file: a created container holds a pipe open."""
    with place.open("w+") as output:
        subprocess.run(
            command, stdout=output, stderr=output, timeout=60, check=False, stdin=subprocess.DEVNULL
        )
        output.seek(0)
        return [
            line.rpartition("|")[2].strip() for line in output if line.startswith("import time:")
        ]


def imported(runtime: Runtime, *words: str) -> tuple[set[str], set[str]]:
    """(modules of the interpreter, modules of the room) that a command line imports."""
    first = runtime.path.read_text().splitlines()[0][2:].split()
    timed = [first[0], first[1], "-X", "importtime"]
    place = runtime.path.parent / "imports"
    (runtime.path.parent / "empty.py").touch()
    bare = set(told([*timed, str(runtime.path.parent / "empty.py")], place))
    names = set(told([*timed, *runtime.argv(*words)], place)) - bare
    ours = {
        name.removeprefix("argosy.runtime").removeprefix(".")
        for name in names
        if name.startswith("argosy")
    }
    return {name for name in names if not name.startswith("argosy")}, ours


@pytest.mark.parametrize("verb", ["state", "kill", "delete", "start", "pause", "list"])
def test_short_verbs_load_nothing_of_mounts_and_little_else(
    runtime: Runtime, bundle: Bundle, verb: str
) -> None:
    cid = runtime.create(bundle.sh("exec sleep 100"))
    if verb == "pause":
        runtime.ok("start", cid)
    theirs, ours = imported(runtime, verb, *([] if verb == "list" else [cid]))
    assert theirs <= FREE
    heavy = {
        "mounts",
        "rootfs",
        "plan",
        "steps",
        "create",
        "shape",
        "validate",
        "seccomp",
        "libseccomp",
        "spawn",
        "tables",
    }
    assert not (ours & heavy) - ({"tables"} if verb == "kill" else set())
    assert SMALL - {"container"} <= ours | {"container"}


@pytest.mark.parametrize("verb", ["run", "create", "exec"])
def test_the_verbs_that_enter_a_container_import_only_what_is_nearly_free(
    runtime: Runtime, bundle: Bundle, verb: str
) -> None:
    bundle.sh("true").write()
    words = [verb, "-b", str(bundle.path), f"imports-{verb}"]
    if verb == "exec":
        cid = runtime.start(bundle.sh("exec sleep 100"))
        words = [verb, cid, "true"]
    theirs, ours = imported(runtime, *words)
    assert theirs <= FREE
    assert "spawn" in ours


def test_hot_modules_name_only_nearly_free_modules() -> None:
    allowed = FREE | {"__future__", "sys", "argosy"}
    for name, path in launcher.modules().items():
        tree = ast.parse(Path(path).read_text())
        for node in ast.walk(tree):
            found: list[str] = []
            if (
                isinstance(node, ast.If)
                and isinstance(node.test, ast.Name)
                and node.test.id == "TYPE_CHECKING"
            ):
                node.body = []
            if isinstance(node, ast.Import):
                found = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                found = [node.module]
            for module in found:
                if module.split(".")[0] in ("typing", "collections", "_typeshed"):
                    assert _only_for_types(tree, node), f"{name} imports {module} at run time"
                else:
                    assert module.split(".")[0] in allowed, f"{name} imports {module}"


def _only_for_types(tree: ast.Module, node: ast.AST) -> bool:
    """Whether an import stood below ``if TYPE_CHECKING`` (whose body the walk has emptied since)."""
    return not any(
        node is inner for top in tree.body if not isinstance(top, ast.If) for inner in ast.walk(top)
    )


def test_a_launcher_of_another_interpreter_falls_back_to_the_source(
    runtime: Runtime, tmp_path: Path
) -> None:
    launcher.write(str(tmp_path / "argosy-runtime"))
    code = tmp_path / "argosy-runtime.code"
    code.write_bytes(b"0000" + code.read_bytes()[4:])
    done = subprocess.run(
        [str(tmp_path / "argosy-runtime"), "--version"],
        capture_output=True,
        text=True,
        check=True,
        env={},
    )
    assert done.stdout.startswith("boot.py version ") or "version" in done.stdout
    code.unlink()
    subprocess.run(
        [str(tmp_path / "argosy-runtime"), "list"],
        check=True,
        env={"XDG_RUNTIME_DIR": str(tmp_path)},
    )
    assert os.access(tmp_path / "argosy-runtime", os.X_OK)
