"""What is loaded when: no command pays for another one's libraries."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys

import click
import pytest

from argosy.cli.table import COMMANDS, children

MODULES = (
    "import sys, json; before = set(sys.modules); {0}; "
    "print(json.dumps(sorted(set(sys.modules) - before)))"
)

# What a command's module may load beyond click when it is imported. `rich` is loaded when bars are drawn.
LAYERS = {"isal", "backports"}
SERVER = {
    "_cffi_backend", "_openssl", "annotationlib", "apsw", "bcrypt", "cffi", "cryptography", "granian", "jwt", "obstore",
    "prometheus_client", "yaml", "_yaml", "__mp_main__",
}  # fmt: skip
ALLOWED: dict[str, set[str]] = dict.fromkeys(("checking", "letters", "registry", "serve"), SERVER)
FREE = {"click", "typing_extensions", *LAYERS}
NEVER = {
    "apsw",
    "granian",
    "obstore",
    "psycopg",
    "rich",
    "prometheus_client",
    "jwt",
    "bcrypt",
    "hypothesis",
    "pytest",
}


def modules(statement: str) -> set[str]:
    """What a statement loads."""
    done = subprocess.run(
        [sys.executable, "-I", "-c", MODULES.format(statement)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return set(json.loads(done.stdout))


def loaded(statement: str) -> set[str]:
    """What it loads that is neither Python's nor ours, by the top of the name."""
    tops = {module.partition(".")[0] for module in modules(statement)}
    return tops - set(sys.stdlib_module_names) - {"argosy"}


def test_version_loads_nothing() -> None:
    assert (
        loaded("import argosy.__main__ as m; sys.argv = ['argosy', '--version']; m.print = print")
        == set()
    )


def test_importing_argosy_loads_nothing() -> None:
    assert loaded("import argosy") == set()


@pytest.mark.parametrize("module", ["pull", "push", "cp"])
def test_who_moves_an_image_loads_nothing_that_unpacks_or_runs_one(module: str) -> None:
    early = "from argosy.cli.early import load_click; load_click()"
    found = modules(f"{early}; import argosy.cli.{module}")
    assert "argosy.content.copy" in found
    assert not {
        m for m in found if m.startswith(("argosy.layer", "argosy.image", "argosy.runtime"))
    }
    assert not {"argosy.engine.run", "argosy.engine.places"} & found
    # These alone take half as long as all the rest.
    assert not {"dataclasses", "inspect", "shutil", "lzma", "ssl", "subprocess"} & found


COMPILED = """
import sys, traceback
import click, dataclasses
found = []
def heard(event, args):
    if event == "compile" and str(args[1]).startswith("<"):  # and not a module without its cache
        modules = [frame.filename for frame in traceback.extract_stack() if frame.name == "<module>"]
        found.extend(name for name in modules[-1:] if "/argosy/" in name)
sys.addaudithook(heard)
import argosy.cli.cp, argosy.cli.digest, argosy.cli.remotes, argosy.layout.store, argosy.remote.registry
print(*sorted(set(found)), sep="\\n", end="")
"""


def test_nothing_is_compiled_while_the_commands_that_move_images_are_loaded() -> None:
    done = subprocess.run(
        [sys.executable, "-I", "-c", COMPILED], capture_output=True, text=True, check=True
    )
    assert done.stdout == "", "a dataclass or a NamedTuple; a `Value` costs a tenth to load"


SPARED = """
import sys
from argosy.cli.early import LATER, load_click
load_click()
import argosy.cli.main, argosy.cli.cp, argosy.cli.digest, argosy.cli.remotes, argosy.cli.connections
import argosy.layout.store, argosy.remote.registry
print(*sorted({*LATER, "dataclasses", "locale"} & set(sys.modules)), end="")
"""


def test_the_commands_that_move_images_do_without_what_click_wants_of_python() -> None:
    done = subprocess.run(
        [sys.executable, "-I", "-c", SPARED], capture_output=True, text=True, check=True
    )
    assert done.stdout == ""


STANDING = """
import sys
from argosy.cli.early import LATER, load_click
load_click()
import click.core, click.types
true = {name: __import__(name) for name in LATER}
for name, module in true.items():
    assert sys.modules[name] is module and module.__spec__.name == name, name
assert click.core.inspect is not true["inspect"]
assert click.core.inspect.signature is true["inspect"].signature
for text in ("", " one", "\\tone ", "one\\n  two\\n    three\\n", "\\n\\n one"):
    assert click.core.inspect.cleandoc(text) == true["inspect"].cleandoc(text), text
assert LATER["platform"]["system"]() == true["platform"].system()
assert [LATER["gettext"]["ngettext"]("one", "many", n) for n in (0, 1, 2)] == ["many", "one", "many"]
try:
    click.core.inspect.nothing
except AttributeError:
    load_click()
    assert sys.modules["inspect"] is true["inspect"]
"""


def test_what_stands_in_while_click_is_loaded_is_met_by_click_alone_and_gives_the_true_thing() -> (
    None
):
    subprocess.run([sys.executable, "-I", "-c", STANDING], check=True)


FORWARDED = """
import sys
from argosy.cli import early
early.LATER = {**early.LATER, "errno": {}}
sys.modules.pop("errno", None)
early.load_click()
import errno
assert errno.ENOENT == 2 and type(errno).__name__ == "module"
"""


def test_what_click_asks_at_once_is_loaded_at_once() -> None:
    subprocess.run([sys.executable, "-I", "-c", FORWARDED], check=True)


def test_help_loads_click_alone() -> None:
    help_of_root = (
        "from argosy.cli.main import root; import click; root.get_help(click.Context(root))"
    )
    assert loaded(help_of_root) <= {"click", "typing_extensions"}


@pytest.mark.parametrize("module", sorted({e.module for e in COMMANDS.values() if e.module}))
def test_a_command_loads_only_its_own_libraries(module: str) -> None:
    found = loaded(f"import argosy.cli.{module}")
    assert found - FREE <= ALLOWED.get(module, set())
    assert not (found & NEVER) - ALLOWED.get(module, set())


@pytest.mark.parametrize("name", [n for n, e in COMMANDS.items() if e.module])
def test_every_command_of_the_table_is_there_and_explains_itself(name: str) -> None:
    entry = COMMANDS[name]
    command = getattr(importlib.import_module(f"argosy.cli.{entry.module}"), entry.attribute)
    assert isinstance(command, click.Command)
    assert command.help
    assert "Example" in command.help, f"{name}: the help shows no example"
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, f"{name} {parameter.opts[0]} has no help"


@pytest.mark.parametrize("name", [n for n, e in COMMANDS.items() if not e.module])
def test_every_group_has_commands(name: str) -> None:
    assert children(name)
