"""What the pages say is so: commands and options exist, links lead somewhere, code runs, the reference is fresh."""

from __future__ import annotations

import contextlib
import doctest
import importlib
import io
import pathlib
import re
import shlex
import tempfile
from collections.abc import Iterator

import click
import pytest

from argosy.cli import failure, reference
from argosy.cli.main import root
from argosy.cli.table import COMMANDS
from argosy.remote.registry import Registry
from argosy.server import config
from argosy.server.auth.policy import Policy
from argosy.testing import random
from tests.interop.registries import running

ROOT = pathlib.Path(__file__).parents[2]
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]
EXAMPLES = [
    path
    for path in sorted((ROOT / "src").rglob("*.py"))
    if re.search(r"^ +>>> ", path.read_text(encoding="utf-8"), re.MULTILINE)
]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]\n]*\]\(([^)\s]+)\)")
CODE = re.compile(r"`(argosy [a-z][^`\n]*)`")


# Kinds of events are written as settings are.
EVENTS = {"events.sinks"}


def name(path: pathlib.Path) -> str:
    return str(path.relative_to(ROOT))


def blocks(path: pathlib.Path, *languages: str) -> Iterator[str]:
    for language, text in BLOCK.findall(path.read_text(encoding="utf-8")):
        if language in languages:
            yield text


def calls(script: str) -> Iterator[list[str]]:
    """The words after `argosy` of every call in a script."""
    script = re.sub(r"\\\n\s*", " ", script)
    for line in script.splitlines():
        lexer = shlex.shlex(line.removeprefix("$ "), posix=True, punctuation_chars=True)
        lexer.wordchars += ":@…{}[]%^,+!"
        lexer.whitespace_split = True
        lexer.commenters = "#"
        words: list[str] = []
        for word in [*lexer, ";"]:
            if set(word) <= set("();<>|&") or word == "$":
                yield from _call(words)
                words = []
            else:
                words.append(word)


def _call(words: list[str]) -> Iterator[list[str]]:
    while words and (re.match(r"[A-Z_]+=", words[0]) or words[0] in {"sudo", "time", "exec"}):
        words = words[1:]
    if words and words[0] == "argosy":
        yield words[1:]


def check(words: list[str]) -> None:
    """Let click read a call as it would, but for doing it: unknown commands and options fail."""
    found: click.Command = root
    while isinstance(found, click.Group) and words and not words[0].startswith("-"):
        inner = found.get_command(click.Context(found), words[0])
        assert inner is not None, f"there is no command {words[0]!r}"
        found, words = inner, words[1:]
    if found is root:
        assert words[:1] in ([], ["--help"], ["--version"]), words
        return
    assert not isinstance(found, click.Group) or not words
    if words[:1] not in ([], ["--help"]):
        ctx = click.Context(found, **found.context_settings)
        _, left, _ = found.make_parser(ctx).parse_args(list(words))
        assert not left, f"{left} is too much"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_command_of_a_page_exists_with_its_options(page: pathlib.Path) -> None:
    for script in blocks(page, "sh", "console"):
        for words in calls(script):
            try:
                check(words)
            except click.UsageError as exc:
                pytest.fail(f"argosy {shlex.join(words)}: {exc.format_message()}")


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_command_in_the_text_exists_with_its_options(page: pathlib.Path) -> None:
    text = BLOCK.sub("", page.read_text(encoding="utf-8"))
    for script in CODE.findall(text):
        for words in calls(script.replace("\\|", "|")):
            try:
                check(words)
            except click.UsageError as exc:
                pytest.fail(f"{script}: {exc.format_message()}")


def test_the_readme_names_every_command() -> None:
    page = (ROOT / "README.md").read_text(encoding="utf-8")
    table = page.partition("| | commands |")[2].partition("\n\n")[0]
    named = set(re.findall(r"`([a-z-]+)`", table))
    assert named == {name.split()[0] for name in COMMANDS} - {"completion", "version"}


def test_what_does_not_exist_is_found() -> None:
    assert list(calls("A=1 argosy ls x | sort && argosy cp a b # argosy no")) == [
        ["ls", "x"],
        ["cp", "a", "b"],
    ]
    with pytest.raises(AssertionError, match="frobnicate"):
        check(["frobnicate"])
    with pytest.raises(click.NoSuchOption):
        check(["cp", "--frobnicate", "a", "b"])


@pytest.mark.parametrize("path", EXAMPLES, ids=name)
def test_the_examples_in_the_code_run(
    path: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = ".".join(path.relative_to(ROOT / "src").with_suffix("").parts).removesuffix(
        ".__init__"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # examples leave what they make
    done = doctest.testmod(importlib.import_module(module))
    assert done.attempted
    assert not done.failed


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page: pathlib.Path) -> None:
    for link in LINK.findall(BLOCK.sub("", page.read_text(encoding="utf-8"))):
        path, _, anchor = link.partition("#")
        if re.match(r"[a-z]+:", path):
            continue
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target), link


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_files_and_targets_of_the_project_that_are_named_are_there(page: pathlib.Path) -> None:
    text = page.read_text(encoding="utf-8")
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for path in re.findall(r"`((?:docs|tests|src|bench|\.ci)/[\w./-]+)", text):
        assert (ROOT / path).exists(), path
    for target in re.findall(r"(?:`|^)make ([a-z]+)", text, re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_every_decision_is_listed() -> None:
    folder = ROOT / "docs" / "adr"
    listed = re.findall(
        r"^\d+\. \[.*\]\((.+?)\)", (folder / "README.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert listed == sorted(path.name for path in folder.glob("0*.md"))


def anchors(page: pathlib.Path) -> set[str]:
    """The anchors of a page's headings, as they are made where Markdown is shown."""
    text = BLOCK.sub("", page.read_text(encoding="utf-8"))
    heads = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


def test_the_reference_is_made_from_the_commands_as_they_are() -> None:
    page = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")
    assert page == reference.page(), "stale: python -m argosy.cli.reference > docs/reference.md"


def test_every_exit_code_is_explained() -> None:
    page = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")
    more = {
        value for key, value in vars(failure).items() if key.startswith("EXIT_") and key != "EXIT_CODES"
    }  # fmt: skip
    for code in {0, *failure.EXIT_CODES.values(), *more}:
        assert f"| `{code}` |" in page, code


def test_the_configurations_of_the_registry_page_are_taken() -> None:
    taken = 0
    for text in blocks(ROOT / "docs" / "registry.md", "yaml"):
        document, _ = config.parse_yaml(text, "registry.md")
        if {"rules", "immutable"} & set(document):
            Policy.decode(document)
        else:
            config.decode(document)
        taken += 1
    assert taken > 4


def test_every_setting_of_the_registry_page_exists() -> None:
    page = BLOCK.sub("", (ROOT / "docs" / "registry.md").read_text(encoding="utf-8"))
    known = {".".join(path) for path in config.environment_names().values()}
    sections = {setting.partition(".")[0] for setting in known if "." in setting}
    named = re.findall(r"`([a-z_]+(?:\.[a-z_]+)+)(?:: [^`]*)?`", page)
    found = {n for n in named if n.partition(".")[0] in sections}
    assert len(found) > 10
    assert not found - known - EVENTS
    for variable in re.findall(r"`(ARGOSY_REGISTRY_[A-Z0-9_]+)`", page):
        assert variable in config.environment_names() or variable == "ARGOSY_REGISTRY_CONFIG"


def test_every_test_that_the_security_page_names_is_there() -> None:
    page = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`(tests/[\w/]+\.py)`", page))
    assert named
    for path in named:
        assert (ROOT / path).is_file(), path


def test_every_published_flaw_that_has_a_test_is_on_the_security_page() -> None:
    page = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
    for path in sorted((ROOT / "tests" / "attack").glob("*.py")):
        text = path.read_text(encoding="utf-8").replace("cve_", "CVE-").replace("_", "-")
        for flaw in set(re.findall(r"CVE-\d{4}-\d{4,}", text)):
            assert flaw in page, f"{flaw} of {path.name}"


def test_the_python_of_the_readme_runs(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (script,) = blocks(ROOT / "README.md", "python")
    monkeypatch.chdir(tmp_path)
    with running("argosy", tmp_path / "registry") as real:
        with Registry(real.name) as there:
            app = there.repository("team/app")
            sbom = random.artifact(app, 2, subject=random.image(app, 1, "v1"))
        shown = io.StringIO()
        with contextlib.redirect_stdout(shown):
            exec(script.replace("localhost:5000", real.name), {})
    assert str(sbom.digest) in shown.getvalue()
    assert (tmp_path / "images" / "index.json").is_file()
