"""JSON as the runtime reads it, in an interpreter that has not loaded Python's own."""

from __future__ import annotations

import json
import os
import pathlib
import resource
import subprocess
import sys

import pytest

from argosy.runtime.errors import describe
from argosy.runtime.jsonio import write_file
from tests.runtime.bundlekit import Bundle, Runtime
from tests.runtime.test_leaf_imports import SOURCE

BAD = (
    '{"process": {"args": ["sh"],}}', "{bad", "{", "{'a': 1}", "01", '{"a": "x', "[1 2]", r'"\q"', "nul", '{"a" 1}', "",
    '{"a": 1} x', '{\n  "a": 1,\n  "b" 2\n}', '{"a": [1, {"b": tru}]}', '"\x01"', "[1,\n\n",
)  # fmt: skip
READ = """
import sys
room = type(sys)("argosy")
room.__path__ = [sys.argv[1]]
sys.modules["argosy"] = room
from argosy.runtime.errors import Failure
from argosy.runtime.jsonio import decode
try:
    decode(sys.argv[2].encode(), "it")
except Failure as failure:
    print(failure)
assert "json" not in sys.modules and "json.decoder" not in sys.modules
"""


@pytest.mark.parametrize("text", BAD)
def test_what_is_wrong_is_said_in_pythons_words_with_its_place(text: str) -> None:
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", READ, str(SOURCE), text],
        capture_output=True,
        text=True,
        check=True,
    )
    with pytest.raises(json.JSONDecodeError) as error:
        json.loads(text)
    assert done.stdout == f"it: not JSON: {error.value}\n"


def test_every_verb_says_it(runtime: Runtime, bundle: Bundle) -> None:
    (bundle.path / "config.json").write_text('{"process": {bad}}')
    why = "not JSON: Expecting property name enclosed in double quotes: line 1 column"
    assert f"config.json: {why} 14" in runtime("create", "-b", str(bundle.path), "x").stderr
    cid = runtime.start(bundle.sh("exec sleep 100"))
    done = runtime("update", "-r", "-", cid, stdin=None, input='{"memory": {limit: 1}}')
    assert why in done.stderr


def test_a_file_that_cannot_be_written_is_named_and_leaves_nothing(tmp_path: pathlib.Path) -> None:
    path = str(tmp_path / "pid")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))
    try:
        with pytest.raises(OSError, match="too large") as failure:
            write_file(path, b"1")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert describe(failure.value) == f"{path}: file too large"
    assert list(tmp_path.iterdir()) == []
    write_file(path, b"1")
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("pid", b"1")]


def test_what_a_killed_process_of_the_same_number_left_is_written_over(
    tmp_path: pathlib.Path,
) -> None:
    (tmp_path / f".pid.{os.getpid()}").write_bytes(b"half")
    write_file(str(tmp_path / "pid"), b"1")
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("pid", b"1")]
