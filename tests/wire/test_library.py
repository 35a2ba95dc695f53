"""The examples of docs/library.md, run as they stand, against our own registry."""

from __future__ import annotations

import doctest
import pathlib

from tests.interop.registries import running

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "library.md"


def test_every_example_of_the_page_runs(tmp_path: pathlib.Path) -> None:
    with running("argosy", tmp_path / "registry") as real:
        names = {"registry": real.name, "folder": str(tmp_path)}
        text = PAGE.read_text(encoding="utf-8").replace("```python\n", "").replace("```", "")
        test = doctest.DocTestParser().get_doctest(text, names, "library.md", str(PAGE), 0)
        assert len(test.examples) > 10
        runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
        runner.run(test)
        assert runner.summarize(verbose=False).failed == 0
