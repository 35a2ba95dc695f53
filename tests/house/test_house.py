"""The house rules that can be checked, checked."""

from __future__ import annotations

import ast
import pathlib
import re
import subprocess
from collections.abc import Iterator

import pytest

import argosy
from argosy import errors

ROOT = pathlib.Path(__file__).parents[2]
SOURCES = sorted((ROOT / "src" / "argosy").rglob("*.py"))
ROOMS = {path: path.relative_to(ROOT / "src" / "argosy").parts[0] for path in SOURCES}

MOST_LINES = 500
MOST_LINES_OF_A_FUNCTION = 60

LAZY = {
    # (file, module): why an import stands inside a function
    ("__main__.py", "argosy._version"): "--version alone loads nothing else",
    ("__main__.py", "argosy.cli.early"): "--version alone loads nothing else",
    ("__main__.py", "argosy.cli.main"): "--version alone loads nothing else",
    ("spec/digest.py", "blake3"): "optional back end",
    ("cli/serving.py", "argosy.remote.config"): "a registry without upstreams needs none",
    ("cli/serving.py", "argosy.remote.credentials"): "a registry without upstreams needs none",
    ("cli/serving.py", "argosy.remote.registry"): "a registry without upstreams needs none",
    ("server/config.py", "yaml"): "a registry without a file needs none",
    ("server/config.py", "jsonschema"): "a registry without a file needs none",
    ("server/assemble.py", "argosy.server.metadata.postgresql"): "optional back end",
    ("server/assemble.py", "argosy.server.storage.objects"): "optional back end",
    ("server/assemble.py", "argosy.server.auth.gate"): "an open registry needs no cryptography",
    ("server/assemble.py", "argosy.server.auth.endpoint"): "an open registry gives out no tokens",
    ("server/assemble.py", "argosy.server.retention"): "a registry without a policy has none",
    ("server/assemble.py", "argosy.server.webhooks"): "optional back end",
    ("server/telemetry.py", "argosy.server.exposition"): "loaded when somebody asks for figures",
    ("cli/registry.py", "argosy.server.metadata"): "optional back end",
}


def name(path: pathlib.Path) -> str:
    return str(path.relative_to(ROOT / "src" / "argosy"))


def tree(path: pathlib.Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def functions(path: pathlib.Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree(path)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield node


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_files_are_short(path: pathlib.Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MOST_LINES


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_functions_are_short(path: pathlib.Path) -> None:
    for node in functions(path):
        body = node.body[1:] if ast.get_docstring(node) and len(node.body) > 1 else node.body
        assert (node.end_lineno or 0) - body[0].lineno < MOST_LINES_OF_A_FUNCTION, node.name


# The runtime loads the modules of a verb when the verb is called: `tests/runtime` pins what each one loads.
@pytest.mark.parametrize("path", [p for p in SOURCES if ROOMS[p] != "runtime"], ids=name)
def test_imports_stand_at_the_top(path: pathlib.Path) -> None:
    for function in functions(path):
        for node in ast.walk(function):
            if isinstance(node, ast.Import):
                found = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                found = [node.module or ""]
            else:
                continue
            for module in found:
                assert (name(path), module) in LAZY, f"{module} is imported inside {function.name}"


# The runtime, the engine's monitor and the registry are programs of their own, whose contracts name the variables.
PROGRAMS = {"cli", "runtime", "engine", "server"}


@pytest.mark.parametrize("path", [p for p in SOURCES if ROOMS[p] not in PROGRAMS], ids=name)
def test_only_the_command_line_reads_the_environment(path: pathlib.Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert not re.search(r"os\.environ|os\.getenv", text) or name(path) in ENVIRONMENT, name(path)


ENVIRONMENT: set[str] = set()


def test_error_names_end_in_error() -> None:
    found = [
        value
        for value in vars(errors).values()
        if isinstance(value, type) and issubclass(value, Exception)
    ]
    assert len(found) > 30
    for kind in found:
        assert kind.__name__.endswith("Error")
        assert issubclass(kind, errors.ArgosyError)


def test_every_code_of_the_specification_has_a_class() -> None:
    codes = (
        "BLOB_UNKNOWN BLOB_UPLOAD_INVALID BLOB_UPLOAD_UNKNOWN DIGEST_INVALID MANIFEST_BLOB_UNKNOWN MANIFEST_INVALID "
        "MANIFEST_UNKNOWN NAME_INVALID NAME_UNKNOWN SIZE_INVALID UNAUTHORIZED DENIED UNSUPPORTED TOOMANYREQUESTS"
    )
    for code in codes.split():
        kind = errors.error_class(code)
        assert kind is not None
        assert kind.code == code


def test_the_front_door_shows_what_it_lists() -> None:
    for public in argosy.__all__:
        assert getattr(argosy, public) is not None
    assert dir(argosy) == sorted(argosy.__all__)


def test_the_front_door_has_no_other_name_and_type_checkers_know() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Regstry'"):
        _ = argosy.Regstry  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "path", [p for p in SOURCES if ROOMS[p] not in {"cli", "runtime"}], ids=name
)
def test_nothing_but_the_command_line_prints(path: pathlib.Path) -> None:
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id != "print" or name(path) == "__main__.py"


def test_the_project_does_not_speak_of_where_it_was_made() -> None:
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False
    ).stdout.decode()
    parts = [
        ("/wo", "rk/"),
        ("/opt/pe", "ers"),
        ("/tmp/br", "ief"),
        (r"\.mir", "ror/"),
        ("far", "m-b"),
    ]
    words = re.compile("|".join(a + b for a, b in parts))
    for file in filter(None, listed.split("\0")):
        path = ROOT / file
        if path.is_file() and path.suffix in {".py", ".md", ".toml", ".txt", ".yml", ".sh", ""}:
            assert not words.search(path.read_text(encoding="utf-8", errors="replace")), file


def test_every_test_that_the_conformance_tables_name_is_there() -> None:
    named = re.compile(r"`(tests/[\w/]+\.py|…)(?:::([\w:]+))?`|contract `(\w+)`")
    contract = (ROOT / "src/argosy/testing/contract.py").read_text(encoding="utf-8")
    text = ""
    for page in sorted((ROOT / "docs").glob("conformance*.md")):
        tables = page.read_text(encoding="utf-8")
        homeless = re.findall(r"(?<!contract )`(?:…(?!::)|test_|Test)\w+`", tables)
        assert not homeless, f"{page.name}: {homeless} without the file"
        for file, inner, of_contract in named.findall(tables):
            if of_contract:
                assert f"def {of_contract}(" in contract, of_contract
                continue
            if file != "…":  # the same file as before
                text = (ROOT / file).read_text(encoding="utf-8")
            for part in filter(None, inner.split("::")):
                assert re.search(rf"(def|class) {part}\b", text), f"{page.name}: {file}::{inner}"
